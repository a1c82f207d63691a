//! In which order the deployments of a group are asked, as pure code: it is told the time, the prices and what chance gave.

use std::time::Duration;

use helix_config::RoutingStrategy;
use helix_protocol::Money;

/// What stands in the way of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Nothing.
    None,
    /// Every turn is taken, or its last answer left less of its limits than the turn is likely to need: a call
    /// would wait or be refused.
    Crowded,
    /// It refused our key, its model was gone or its credit spent a moment ago, nobody set up a key, or a check found nobody. Asked
    /// last, because somebody may have mended it.
    Refused,
    /// Its last answer left nothing of its limits: a call waits until they are back.
    Exhausted,
    /// Nothing is sent before this time has passed.
    Until(Duration),
}

/// What is known of a deployment, for one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Its share where the strategy is weighted.
    pub weight: u32,
    /// What the turn costs there at most; `None` where no price is known.
    pub cost: Option<Money>,
    /// How long its answers take lately; `None` where there was none.
    pub latency: Option<Duration>,
    /// Which part of its calls failed lately, 0 to 1.
    pub failing: f64,
    /// What stands in its way.
    pub obstacle: Obstacle,
    /// Tokens that its model takes in one request.
    pub context: u64,
    /// Whether the turn fits into them, by an upper estimate, its pictures are taken, its answer's text can be what it shall be,
    /// and all of it can be said in the provider's format.
    pub fits: bool,
}

/// What the order depends on beside the standings.
pub(crate) struct Circumstances<'a> {
    /// How the group wants it.
    pub strategy: RoutingStrategy,
    /// Where this session was served last: its prompt cache is there.
    pub pinned: Option<usize>,
    /// Counts the turns of the group.
    pub turn: u64,
    /// Uniform in 0..1, each time another.
    pub chance: &'a mut dyn FnMut() -> f64,
}

/// Every deployment, the one to ask first in front.
///
/// Whether a turn fits comes first, then what stands in the way, then the session's pin, and only then the strategy. A turn that
/// fits nowhere by the estimate goes to the largest model, which may know better.
pub(crate) fn order(standings: &[Standing], circumstances: &mut Circumstances<'_>) -> Vec<usize> {
    let wishes = wishes(standings, circumstances);
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by(|&a, &b| {
        let (one, other) = (&standings[a], &standings[b]);
        let size = if one.fits || other.fits { std::cmp::Ordering::Equal } else { other.context.cmp(&one.context) };
        let pinned = |index: usize| circumstances.pinned != Some(index);
        // A pin is worth waiting for a turn: a prompt that is not cached costs more than the wait.
        let obstacle = |index: usize| match standings[index].obstacle {
            Obstacle::Crowded if !pinned(index) => Obstacle::None,
            obstacle => obstacle,
        };
        (!one.fits)
            .cmp(&!other.fits)
            .then(size)
            .then_with(|| obstacle(a).cmp(&obstacle(b)))
            .then_with(|| pinned(a).cmp(&pinned(b)))
            .then_with(|| wishes[a].0.total_cmp(&wishes[b].0))
            .then_with(|| wishes[a].1.total_cmp(&wishes[b].1))
            .then(a.cmp(&b))
    });
    order
}

/// How gladly each deployment is asked by the strategy: less is sooner, the second number decides a tie.
fn wishes(standings: &[Standing], circumstances: &mut Circumstances<'_>) -> Vec<(f64, f64)> {
    let count = standings.len().max(1) as u64;
    // One that was never measured comes first, or it never would be.
    let latency = |standing: &Standing| standing.latency.map_or(-1.0, |latency| latency.as_secs_f64());
    let each = standings.iter().zip(0u64..);
    match circumstances.strategy {
        // Without a price nobody knows what it costs, so it is the dearest.
        RoutingStrategy::Cost => {
            each.map(|(standing, _)| (standing.cost.map_or(f64::INFINITY, |money| money.0 as f64), latency(standing))).collect()
        }
        RoutingStrategy::Latency => each.map(|(standing, _)| (latency(standing), standing.failing)).collect(),
        RoutingStrategy::Availability => each.map(|(standing, _)| (standing.failing, latency(standing))).collect(),
        RoutingStrategy::RoundRobin => {
            let first = circumstances.turn % count;
            each.map(|(_, index)| (((index + count - first) % count) as f64, 0.0)).collect()
        }
        // The order of exponential waiting times, whose rates are the weights (Efraimidis and Spirakis, 2006).
        RoutingStrategy::Weighted => each
            .map(|(standing, _)| {
                let chance = (circumstances.chance)().clamp(f64::MIN_POSITIVE, 1.0);
                (if standing.weight == 0 { f64::INFINITY } else { -chance.ln() / f64::from(standing.weight) }, 0.0)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: Standing = Standing {
        weight: 1,
        cost: Some(Money(10)),
        latency: Some(Duration::from_secs(1)),
        failing: 0.0,
        obstacle: Obstacle::None,
        context: 1_000,
        fits: true,
    };

    fn by(strategy: RoutingStrategy, standings: &[Standing], pinned: Option<usize>, turn: u64) -> Vec<usize> {
        order(standings, &mut Circumstances { strategy, pinned, turn, chance: &mut || 0.5 })
    }

    #[test]
    fn each_strategy_asks_first_whom_it_prefers() {
        let cheap = Standing { cost: Some(Money(1)), latency: Some(Duration::from_secs(9)), failing: 0.5, ..FREE };
        let fast = Standing { cost: None, latency: Some(Duration::from_millis(1)), failing: 0.25, ..FREE };
        let group = [FREE, cheap, fast];
        assert_eq!(by(RoutingStrategy::Cost, &group, None, 0), [1, 0, 2]);
        assert_eq!(by(RoutingStrategy::Latency, &group, None, 0), [2, 0, 1]);
        assert_eq!(by(RoutingStrategy::Availability, &group, None, 0), [0, 2, 1]);
        assert_eq!(by(RoutingStrategy::RoundRobin, &group, None, 4), [1, 2, 0]);
        assert_eq!(by(RoutingStrategy::Weighted, &[FREE, Standing { weight: 9, ..FREE }], None, 0), [1, 0]);
    }

    #[test]
    fn a_session_stays_where_its_cache_is_unless_it_cannot() {
        assert_eq!(by(RoutingStrategy::Cost, &[FREE, FREE, FREE], Some(2), 0), [2, 0, 1]);
        let crowded = Standing { obstacle: Obstacle::Crowded, ..FREE };
        assert_eq!(by(RoutingStrategy::Cost, &[FREE, crowded], Some(1), 0), [1, 0]);
        let exhausted = Standing { obstacle: Obstacle::Exhausted, ..FREE };
        assert_eq!(by(RoutingStrategy::Cost, &[FREE, exhausted], Some(1), 0), [0, 1]);
        let down = Standing { obstacle: Obstacle::Until(Duration::from_secs(1)), ..FREE };
        assert_eq!(by(RoutingStrategy::Cost, &[FREE, down], Some(1), 0), [0, 1]);
        let small = Standing { fits: false, ..FREE };
        assert_eq!(by(RoutingStrategy::Cost, &[FREE, small], Some(1), 0), [0, 1]);
    }

    #[test]
    fn a_turn_that_fits_nowhere_goes_to_the_largest_model() {
        let of = |context| Standing { fits: false, context, ..FREE };
        assert_eq!(by(RoutingStrategy::Cost, &[of(5), of(9), of(7)], None, 0), [1, 2, 0]);
    }

    #[test]
    fn weights_are_shares() {
        let group = [Standing { weight: 3, ..FREE }, FREE];
        let mut state = 1u64;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut first = [0u32; 2];
        for _ in 0..10_000 {
            let strategy = RoutingStrategy::Weighted;
            let mut now = Circumstances { strategy, pinned: None, turn: 0, chance: &mut chance };
            first[order(&group, &mut now)[0]] += 1;
        }
        assert!((7_300..7_700).contains(&first[0]), "{first:?}");
    }

    fn standing() -> impl Strategy<Value = Standing> {
        let obstacle = prop_oneof![
            Just(Obstacle::None),
            Just(Obstacle::Crowded),
            Just(Obstacle::Refused),
            Just(Obstacle::Exhausted),
            (1..9u64).prop_map(|seconds| Obstacle::Until(Duration::from_secs(seconds)))
        ];
        let number = proptest::option::of(0..5i64);
        (0..4u32, number.clone(), number, 0..4u32, obstacle, 0..4u64, any::<bool>()).prop_map(
            |(weight, cost, latency, failing, obstacle, context, fits)| Standing {
                weight,
                cost: cost.map(Money),
                latency: latency.map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
                failing: f64::from(failing) / 4.0,
                obstacle,
                context,
                fits,
            },
        )
    }

    fn strategy() -> impl Strategy<Value = RoutingStrategy> {
        use RoutingStrategy::{Availability, Cost, Latency, RoundRobin, Weighted};
        prop_oneof![Just(Availability), Just(Cost), Just(Latency), Just(RoundRobin), Just(Weighted)]
    }

    proptest! {
        #[test]
        fn nobody_is_forgotten_and_nobody_who_can_waits_behind_one_who_cannot(
            standings in proptest::collection::vec(standing(), 0..7),
            strategy in strategy(),
            pinned in proptest::option::of(0..7usize),
            turn in any::<u64>(),
            chances in proptest::collection::vec(0.0..1.0f64, 7),
        ) {
            let mut next = chances.iter().copied().cycle();
            let mut chance = || next.next().unwrap_or(0.5);
            let order = order(&standings, &mut Circumstances { strategy, pinned, turn, chance: &mut chance });
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..standings.len()).collect::<Vec<_>>());
            let class = |index: usize| {
                let obstacle = match standings[index].obstacle {
                    Obstacle::Crowded if pinned == Some(index) => Obstacle::None,
                    obstacle => obstacle,
                };
                (!standings[index].fits, obstacle)
            };
            for pair in order.windows(2).filter(|pair| standings[pair[0]].fits || standings[pair[1]].fits) {
                prop_assert!(class(pair[0]) <= class(pair[1]), "{:?} in {:?}", pair, standings);
            }
            if let Some(pin) = pinned.filter(|pin| standings.get(*pin).is_some_and(|it| it.fits && it.obstacle <= Obstacle::Crowded)) {
                prop_assert_eq!(order[0], pin);
            }
        }
    }
}
