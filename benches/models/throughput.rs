//! How many answers a second, with 64 callers that do not wait and an upstream that answers at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use crate::report::{Figure, Scale, quantile};
use crate::stage::{BARE, DIRECT, LITELLM, PASSED, Stage};

/// Callers.
const LANES: usize = 64;

/// Figures of each, the median of some turns.
pub async fn most(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let span = Duration::from_millis(scale.pick(3_000, 500));
    let mut rates = vec![Vec::new(); stage.targets.len()];
    for round in 0..scale.pick(5, 1) {
        for at in 0..stage.targets.len() {
            let at = (at + round) % stage.targets.len();
            let (target, answered, begin) = (&stage.targets[at], AtomicU64::new(0), Instant::now());
            let lane = |_| async {
                while begin.elapsed() < span {
                    target.ask(&stage.upstream, Duration::ZERO).await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            };
            try_join_all((0..LANES).map(lane)).await?;
            rates[at].push(answered.into_inner() as f64 / begin.elapsed().as_secs_f64());
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        quantile(rates, 0.5)
    };
    let rates: Vec<(&str, f64)> =
        stage.targets.iter().zip(&mut rates).map(|(target, rates)| (target.name, median(rates))).collect();
    let rate = |name: &str| rates.iter().find(|(target, _)| *target == name).map(|(_, rate)| *rate);
    let mut figures = Vec::new();
    for (name, found) in &rates {
        let figure = Figure::new(format!("most answers a second, {LANES} callers: {name}"), *found, "/s");
        let figure = match (*name, rate(BARE), rate(LITELLM)) {
            (DIRECT, ..) => figure.against("callers and upstream share the machine with what is measured"),
            (PASSED, _, Some(litellm)) => figure.against("LiteLLM").beside(litellm),
            (BARE, ..) | (_, None, _) => figure,
            (_, Some(bare), _) => figure.against("the bare proxy").beside(bare),
        };
        figures.push(figure);
    }
    Ok(figures)
}
