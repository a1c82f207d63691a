//! What is added to a whole answer, at 1, 16 and 64 calls at once.
//!
//! From what a client waited, the time that the upstream itself held the call is taken off, call by call. What is left with nothing
//! in between is the cost of measuring; it is taken off the others, quantile by quantile.
//!
//! A machine has moments in which nothing can be told. A round is left out where calls with nothing in between differ too much in
//! it, whatever the others took, and another is made, up to a limit.

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

/// The samples of several rounds.
pub struct Rounds {
    quiet: Samples,
    noisy: Samples,
    /// How many rounds there were of each.
    counts: (usize, usize),
}

impl Rounds {
    /// None yet.
    pub fn new(stage: &Stage) -> Self {
        Self { quiet: none(stage), noisy: none(stage), counts: (0, 0) }
    }

    /// Whether another round is to be made, where so many quiet ones are wanted.
    pub fn lacks(&self, wanted: usize) -> bool {
        let (quiet, noisy) = self.counts;
        quiet < wanted && noisy < 2 * wanted && (quiet > 0 || noisy < wanted)
    }

    /// How many there were.
    pub fn made(&self) -> usize {
        self.counts.0 + self.counts.1
    }

    /// Takes a round.
    pub fn take(&mut self, mut round: Samples) {
        sort(&mut round);
        let is_quiet = jitter(&round) <= JITTER_MS;
        let (all, count) = if is_quiet { (&mut self.quiet, &mut self.counts.0) } else { (&mut self.noisy, &mut self.counts.1) };
        *count += 1;
        for ((_, all), (_, samples)) in all.iter_mut().zip(round) {
            all.extend(samples);
        }
    }

    /// The samples that tell something, and what rounds they are of; all of them where too few rounds were quiet.
    pub fn told(self, wanted: usize) -> (Samples, String) {
        let (quiet, made) = (self.counts.0, self.made());
        let mut samples = self.quiet;
        if quiet < wanted {
            for ((_, all), (_, noisy)) in samples.iter_mut().zip(self.noisy) {
                all.extend(noisy);
            }
        }
        sort(&mut samples);
        (samples, format!("{} of {made} rounds", if quiet < wanted { made } else { quiet }))
    }
}

/// No samples of any target.
pub fn none(stage: &Stage) -> Samples {
    stage.targets.iter().map(|target| (target.name, Vec::new())).collect()
}

fn sort(samples: &mut Samples) {
    samples.iter_mut().for_each(|(_, samples)| samples.sort_by(f64::total_cmp));
}

/// Figures at every concurrency.
pub async fn added(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let wanted = scale.pick(10, 2);
    for lanes in [1, 16, 64] {
        let mut rounds = Rounds::new(stage);
        while rounds.lacks(wanted) {
            let mut round = none(stage);
            for at in 0..stage.targets.len() {
                // Each comes first in some round.
                let at = (at + rounds.made()) % stage.targets.len();
                round[at].1 = turn(&stage.upstream, &stage.targets[at], lanes, scale.pick(20, 5)).await?;
            }
            rounds.take(round);
        }
        let (samples, of_rounds) = rounds.told(wanted);
        figures.extend(figures_of(&samples, lanes, &of_rounds));
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

fn figures_of(samples: &Samples, lanes: usize, of_rounds: &str) -> Vec<Figure> {
    let jitter = jitter(samples);
    let direct = of(samples, DIRECT);
    let what = format!("{} calls of {of_rounds}, the upstream's own time taken off", direct.len());
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
