//! What is added to a whole answer, at 1, 16 and 64 calls at once.
//!
//! From what a client waited, the time that the upstream itself held the call is taken off, call by call. What is left with nothing
//! in between is the cost of measuring; it is taken off the others, quantile by quantile.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;

use crate::report::{Figure, Scale, quantile};
use crate::stage::{BARE, DIRECT, LITELLM, PASSED, SET_ASIDE, Stage, TRANSLATED};
use crate::target::Target;
use crate::upstream::Upstream;

/// How long the upstream holds a call.
const HOLD: Duration = Duration::from_millis(50);
/// A machine on which calls with nothing in between differ by more cannot tell what is to be told.
pub const JITTER_MS: f64 = 0.5;

/// Sorted samples of each target, by its name.
pub type Samples = Vec<(&'static str, Vec<f64>)>;

/// p99 over p50 of calls with nothing in between, in milliseconds.
pub fn jitter(samples: &Samples) -> f64 {
    let direct = of(samples, DIRECT);
    quantile(direct, 0.99) - quantile(direct, 0.5)
}

/// The samples of a target; none where it was not there.
pub fn of<'a>(samples: &'a Samples, name: &str) -> &'a [f64] {
    samples.iter().find(|(target, _)| *target == name).map_or(&[], |(_, samples)| samples)
}

/// A quantile of a target over that with nothing in between.
pub fn over_direct(samples: &Samples, name: &str, share: f64) -> f64 {
    quantile(of(samples, name), share) - quantile(of(samples, DIRECT), share)
}

/// Figures at every concurrency.
pub async fn added(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for lanes in [1, 16, 64] {
        let mut samples: Samples = stage.targets.iter().map(|target| (target.name, Vec::new())).collect();
        for round in 0..scale.pick(10, 2) {
            for at in 0..stage.targets.len() {
                // Each comes first in some round.
                let at = (at + round) % stage.targets.len();
                samples[at].1.extend(turn(&stage.upstream, &stage.targets[at], lanes, scale.pick(20, 5)).await?);
            }
        }
        for (_, samples) in &mut samples {
            samples.sort_by(f64::total_cmp);
        }
        figures.extend(figures_of(&samples, lanes));
    }
    Ok(figures)
}

/// So many lanes of calls one after the other, begun one after the other, so that they do not all come at one moment.
async fn turn(upstream: &Upstream, target: &Target, lanes: usize, calls: usize) -> Result<Vec<f64>> {
    let lane = |number: usize| async move {
        tokio::time::sleep(HOLD.mul_f64(number as f64 / lanes as f64)).await;
        let mut samples = Vec::with_capacity(calls);
        for call in 0..=calls {
            let took = target.ask(upstream, HOLD).await?;
            // The first may have to connect.
            if call > 0 {
                samples.push(took.outside);
            }
        }
        anyhow::Ok(samples)
    };
    Ok(try_join_all((0..lanes).map(lane)).await?.concat())
}

fn figures_of(samples: &Samples, lanes: usize) -> Vec<Figure> {
    let jitter = jitter(samples);
    let direct = of(samples, DIRECT);
    let what = format!("{} calls, the upstream's own time taken off", direct.len());
    let mut figures = vec![
        Figure::new(format!("{lanes} at once: {DIRECT}, p50"), quantile(direct, 0.5), "ms").against(what.clone()),
        Figure::new(format!("{lanes} at once: {DIRECT}, p99"), quantile(direct, 0.99), "ms").against(what),
    ];
    let unsure = (jitter > JITTER_MS).then(|| format!("the run's jitter is {jitter:.2} ms (p99 over p50, {DIRECT})"));
    let judged = |figure: Figure| match &unsure {
        Some(why) => figure.not_measured(why),
        None => figure,
    };
    for (name, share) in [BARE, PASSED, SET_ASIDE, TRANSLATED, LITELLM].into_iter().flat_map(|name| [(name, 0.5), (name, 0.99)]) {
        if of(samples, name).is_empty() {
            continue;
        }
        let (title, value) = (format!("{lanes} at once: {name} adds, p{:.0}", share * 100.0), over_direct(samples, name, share));
        let count = format!("{} calls", of(samples, name).len());
        figures.push(judged(Figure::new(title, value, "ms").against(count)));
    }
    if lanes == 16 {
        for (ours, name) in [("gateway", PASSED), ("gateway with money set aside", SET_ASIDE)] {
            figures.extend(goals(samples, ours, name).into_iter().map(judged));
        }
    }
    figures
}

/// What is promised of a target of ours at 16 at once, beside the others.
fn goals(samples: &Samples, ours: &str, name: &str) -> Vec<Figure> {
    let over_bare = quantile(of(samples, name), 0.99) - quantile(of(samples, BARE), 0.99);
    let mut figures = vec![Figure::new(format!("16 at once: {ours} over the bare proxy, p99"), over_bare, "ms").at_most(1.0)];
    if !of(samples, LITELLM).is_empty() {
        let (added, theirs) = (over_direct(samples, name, 0.99), over_direct(samples, LITELLM, 0.99));
        let figure = Figure::new(format!("16 at once: {ours} below LiteLLM, p99 of what is added"), added, "ms");
        // Less than a microsecond cannot be told from nothing.
        figures.push(figure.against(format!("{theirs:.2} ms")).times(theirs / added.max(0.001), Some(20.0)));
    }
    figures
}
