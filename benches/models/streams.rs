//! What is added to an answer in pieces: to the first, and to each.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;

use crate::latency::{JITTER_MS, Rounds, Samples, jitter, none, of, over_direct};
use crate::report::{Figure, Scale, quantile};
use crate::stage::{BARE, DIRECT, LITELLM, PASSED, SET_ASIDE, Stage, TRANSLATED};

/// How long the upstream thinks before it speaks.
const HOLD: Duration = Duration::from_millis(50);
/// Streams at once.
const LANES: usize = 16;
/// Pieces of each.
const PIECES: usize = 50;

/// Figures of 16 streams at once.
pub async fn added(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let wanted = scale.pick(12, 2);
    let (mut firsts, mut all) = (Rounds::new(stage), Rounds::new(stage));
    while firsts.lacks(wanted) || all.lacks(wanted) {
        let (mut first, mut each) = (none(stage), none(stage));
        for at in 0..stage.targets.len() {
            let at = (at + firsts.made()) % stage.targets.len();
            let lane = |number: usize| async move {
                tokio::time::sleep(Duration::from_millis(number as u64 * 3)).await;
                stage.targets[at].listen(&stage.upstream, HOLD, PIECES).await
            };
            for took in try_join_all((0..LANES).map(lane)).await? {
                first[at].1.push(took.first);
                each[at].1.extend(took.pieces);
            }
        }
        firsts.take(first);
        all.take(each);
    }
    let mut figures = Vec::new();
    for (what, rounds) in [("first piece", firsts), ("each piece", all)] {
        let (samples, of_rounds) = rounds.told(wanted);
        figures.extend(figures_of(what, &samples, &of_rounds));
    }
    Ok(figures)
}

fn figures_of(what: &str, samples: &Samples, of_rounds: &str) -> Vec<Figure> {
    let (direct, jitter) = (of(samples, DIRECT), jitter(samples));
    let title = |name: &str, share: f64| format!("{LANES} streams at once, {what}: {name}, p{:.0}", share * 100.0);
    let count = |samples: &[f64]| format!("{} samples of {of_rounds}", samples.len());
    let mut figures: Vec<Figure> =
        [0.5, 0.99].map(|share| Figure::new(title(DIRECT, share), quantile(direct, share), "ms").against(count(direct))).into();
    for (name, share) in [BARE, PASSED, SET_ASIDE, TRANSLATED, LITELLM].into_iter().flat_map(|name| [(name, 0.5), (name, 0.99)]) {
        if of(samples, name).is_empty() {
            continue;
        }
        let figure = Figure::new(title(&format!("{name} adds"), share), over_direct(samples, name, share), "ms");
        let figure = figure.against(count(of(samples, name)));
        figures.push(match jitter > JITTER_MS {
            true => figure.not_measured(&format!("the run's jitter is {jitter:.2} ms (p99 over p50, {DIRECT})")),
            false => figure,
        });
    }
    figures
}
