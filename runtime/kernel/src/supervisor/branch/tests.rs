//! A branch against a world that starts, fails and ends its children in any order.

use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::Strategy;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(10) };

fn failure(message: &str) -> Failure {
    Failure::new(Code::Internal, message)
}

/// A branch, what its world is doing, and the rules that must hold at every step.
struct World {
    branch: Branch,
    now: Instant,
    starting: Vec<Key>,
    up: Vec<Key>,
    stopping: Vec<Key>,
    delays: Vec<(Key, u64)>,
    /// Starts and stops in order, by name.
    seen: Vec<String>,
    ready: bool,
    gone: Vec<(Key, Option<Failure>)>,
    finished: Option<Option<Failure>>,
    /// Failures of children that count as a restart, and when.
    counted: Vec<Instant>,
}

impl World {
    fn new(strategy: Strategy, intensity: Intensity, restarts: &[Restart]) -> Self {
        let mut branch = Branch::new("branch", strategy, intensity);
        for (name, restart) in ('a'..).zip(restarts) {
            branch.add(&name.to_string(), *restart, BACKOFF, Origin::Declared).expect("names differ");
        }
        let mut world = Self {
            branch,
            now: Instant::now(),
            starting: Vec::new(),
            up: Vec::new(),
            stopping: Vec::new(),
            delays: Vec::new(),
            seen: Vec::new(),
            ready: false,
            gone: Vec::new(),
            finished: None,
            counted: Vec::new(),
        };
        world.settle(Vec::new());
        world
    }

    fn name(&self, key: Key) -> String {
        self.branch.children().iter().find(|child| child.key == key).expect("steps name children that are there").name.clone()
    }

    /// Whether order holds between siblings now.
    fn ordered(&self) -> bool {
        self.branch.strategy != Strategy::OneForOne || !self.ready || self.branch.ending()
    }

    fn settle(&mut self, mut steps: Vec<Step>) {
        let ordered = self.ordered();
        self.branch.settle(&mut steps);
        assert!(self.finished.is_none() || steps.is_empty(), "nothing happens after the end: {steps:?}");
        for step in steps {
            match step {
                Step::Start(key) => {
                    assert!(!self.alive(key), "two incarnations of {} overlap", self.name(key));
                    if ordered {
                        assert!(self.stopping.is_empty(), "nothing starts while something stops");
                        for before in self.branch.children().iter().take_while(|child| child.key != key) {
                            assert!(
                                !before.wanted() || self.up.contains(&before.key),
                                "{} starts before {} is up",
                                key,
                                before.key
                            );
                        }
                    }
                    self.seen.push(format!("+{}", self.name(key)));
                    self.starting.push(key);
                }
                Step::Stop(key) => {
                    assert!(self.starting.contains(&key) || self.up.contains(&key), "only what lives is stopped, and once");
                    if ordered {
                        for after in self.branch.children().iter().skip_while(|child| child.key != key).skip(1) {
                            assert!(!after.halting(), "{} stops before {}, which comes after it", key, after.key);
                        }
                    }
                    self.seen.push(format!("-{}", self.name(key)));
                    self.starting.retain(|it| *it != key);
                    self.up.retain(|it| *it != key);
                    self.stopping.push(key);
                }
                Step::Delay { key, delay, ceiling } => {
                    assert!(ceiling >= BACKOFF.first && ceiling <= BACKOFF.most);
                    self.delays.push((key, delay));
                }
                Step::Ready => {
                    assert!(!self.ready, "a branch is ready once");
                    self.ready = true;
                }
                Step::Refused(..) => unreachable!("nothing was added"),
                Step::Gone(key, failure) => {
                    assert!(!self.alive(key), "what is gone does not live");
                    self.gone.push((key, failure));
                }
                Step::Finished(failure) => {
                    assert!(self.starting.is_empty() && self.up.is_empty() && self.stopping.is_empty(), "the end leaves nobody");
                    self.finished = Some(failure);
                }
            }
        }
    }

    fn alive(&self, key: Key) -> bool {
        [&self.starting, &self.up, &self.stopping].iter().any(|those| those.contains(&key))
    }

    fn key(&self, name: &str) -> Key {
        self.branch.children().iter().find(|child| child.name == name).expect("a child of that name").key
    }

    fn start(&mut self, key: Key) {
        self.starting.retain(|it| *it != key);
        self.up.push(key);
        self.branch.started(key, self.now);
        self.settle(Vec::new());
    }

    fn end(&mut self, key: Key, failure: Option<Failure>) {
        let child = self.branch.children().iter().find(|child| child.key == key).expect("it lives");
        let own = !child.halting();
        let restarted = match child.restart {
            Restart::Permanent => true,
            Restart::Transient => failure.is_some(),
            Restart::Temporary | Restart::Significant => false,
        };
        if own && restarted {
            self.counted.push(self.now);
        }
        self.up.retain(|it| *it != key);
        self.stopping.retain(|it| *it != key);
        let mut steps = Vec::new();
        self.branch.ended(key, failure, self.now, &mut steps);
        self.settle(steps);
    }

    fn fail_to_start(&mut self, key: Key) {
        let child = self.branch.children().iter().find(|child| child.key == key).expect("it starts");
        if !child.halting() && self.ready {
            self.counted.push(self.now);
        }
        self.starting.retain(|it| *it != key);
        let mut steps = Vec::new();
        self.branch.start_failed(key, failure("start"), self.now, &mut steps);
        self.settle(steps);
    }

    fn due(&mut self) {
        let (key, delay) = self.delays.remove(0);
        self.branch.due(key, delay);
        self.settle(Vec::new());
    }

    /// Lets the world answer without any further failure until nothing is left to answer.
    fn calm_down(&mut self) {
        while self.finished.is_none() {
            if let Some(key) = self.stopping.first().copied() {
                self.end(key, None);
            } else if let Some(key) = self.starting.first().copied() {
                self.start(key);
            } else if !self.delays.is_empty() {
                self.due();
            } else {
                return;
            }
        }
    }
}

fn up(strategy: Strategy, children: usize) -> World {
    let mut world = World::new(strategy, Intensity::default(), &vec![Restart::Permanent; children]);
    world.calm_down();
    assert!(world.ready);
    world.seen.clear();
    world
}

#[test]
fn children_start_one_after_the_other() {
    let mut world = World::new(Strategy::OneForOne, Intensity::default(), &[Restart::Permanent; 3]);
    assert_eq!(world.seen, ["+a"]);
    world.start(world.key("a"));
    assert_eq!(world.seen, ["+a", "+b"]);
    world.calm_down();
    assert_eq!(world.seen, ["+a", "+b", "+c"]);
}

#[test]
fn each_strategy_restarts_its_own_group_in_order() {
    for (strategy, expected) in [
        (Strategy::OneForOne, vec!["+b"]),
        (Strategy::RestForOne, vec!["-d", "-c", "+b", "+c", "+d"]),
        (Strategy::OneForAll, vec!["-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
    ] {
        let mut world = up(strategy, 4);
        world.end(world.key("b"), Some(failure("oh")));
        world.calm_down();
        assert_eq!(world.seen, expected, "{strategy:?}");
    }
}

#[test]
fn a_group_waits_for_the_delay_as_a_whole() {
    let mut world = up(Strategy::OneForAll, 3);
    world.end(world.key("c"), Some(failure("oh")));
    world.end(world.key("b"), None);
    world.end(world.key("a"), None);
    assert_eq!(world.seen, ["-b", "-a"]);
    world.due();
    assert_eq!(world.seen, ["-b", "-a", "+a"]);
}

#[test]
fn the_ceiling_doubles_up_to_the_most_and_starts_over_after_a_quiet_time() {
    let intensity = Intensity { restarts: 100, period: Duration::from_secs(1) };
    let mut branch = Branch::new("branch", Strategy::OneForOne, intensity);
    let key = branch.add("a", Restart::Permanent, BACKOFF, Origin::Declared).expect("the first");
    let mut now = Instant::now();
    let mut ceilings = Vec::new();
    for uptime in [0, 0, 0, 0, 0, 0, 0, 0, 0, 9_999, 10_000, 0] {
        branch.settle(&mut Vec::new());
        branch.started(key, now);
        now += Duration::from_millis(uptime);
        let mut steps = Vec::new();
        branch.ended(key, Some(failure("oh")), now, &mut steps);
        let [Step::Delay { delay, ceiling, .. }] = steps[..] else { panic!("{steps:?}") };
        branch.due(key, delay);
        ceilings.push(ceiling.as_millis());
    }
    assert_eq!(ceilings, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000, 100, 200]);
}

#[test]
fn restarts_that_lie_further_apart_than_the_period_never_escalate() {
    let intensity = Intensity { restarts: 1, period: Duration::from_secs(5) };
    let mut world = World::new(Strategy::OneForOne, intensity, &[Restart::Permanent]);
    world.calm_down();
    for _ in 0..20 {
        world.now += Duration::from_millis(5_001);
        world.end(1, Some(failure("oh")));
        world.calm_down();
    }
    assert_eq!((world.finished.is_none(), world.up.as_slice()), (true, [1].as_slice()));
    world.end(1, Some(failure("oh")));
    world.calm_down();
    let expected = failure("branch: more than 1 restarts within 5s; the last was for a: oh");
    assert_eq!(world.finished, Some(Some(expected)));
}

#[test]
fn a_delay_that_was_overtaken_starts_nothing() {
    let mut world = up(Strategy::RestForOne, 2);
    world.end(world.key("b"), Some(failure("oh")));
    world.end(world.key("a"), Some(failure("oh")));
    // The delay of b is over, but b now waits for a.
    world.due();
    assert_eq!(world.seen, Vec::<String>::new());
    world.calm_down();
    assert_eq!(world.seen, ["+a", "+b"]);
}

#[test]
fn a_temporary_child_stopped_with_its_group_stays_down_and_says_why() {
    let restarts = [Restart::Permanent, Restart::Temporary, Restart::Transient];
    let mut world = World::new(Strategy::OneForAll, Intensity::default(), &restarts);
    world.calm_down();
    world.end(world.key("a"), Some(failure("oh")));
    world.calm_down();
    assert_eq!(world.seen, ["+a", "+b", "+c", "-c", "-b", "+a", "+c"]);
    assert_eq!(world.gone, [(2, Some(Failure::new(Code::Cancelled, "stopped because a failed: oh")))]);
}

#[test]
fn the_failure_of_a_significant_child_is_that_of_its_supervisor() {
    let restarts = [Restart::Permanent, Restart::Significant, Restart::Permanent];
    let mut world = World::new(Strategy::OneForOne, Intensity::default(), &restarts);
    world.calm_down();
    world.end(world.key("a"), Some(failure("oh")));
    world.calm_down();
    assert_eq!(world.finished, None, "that of another is not");
    world.end(world.key("b"), Some(failure("oh")));
    world.calm_down();
    assert_eq!(world.seen, ["+a", "+b", "+c", "+a", "-c", "-a"]);
    assert_eq!(world.finished, Some(Some(failure("branch cannot go on without b: oh"))));
}

fn restart() -> impl Generator<Value = Restart> {
    prop_oneof![5 => Just(Restart::Permanent), 2 => Just(Restart::Transient), 1 => Just(Restart::Temporary), 1 => Just(Restart::Significant)]
}

/// Something that happens to one of the children, or to time.
#[derive(Clone, Debug)]
enum Happening {
    Starts(usize),
    FailsToStart(usize),
    Ends(usize),
    Fails(usize),
    Stops(usize),
    DelayEnds,
    TimePasses(u64),
    ShutsDown,
}

fn happening() -> impl Generator<Value = Happening> {
    prop_oneof![
        12 => (0usize..8).prop_map(Happening::Starts),
        1 => (0usize..8).prop_map(Happening::FailsToStart),
        1 => (0usize..8).prop_map(Happening::Ends),
        6 => (0usize..8).prop_map(Happening::Fails),
        10 => (0usize..8).prop_map(Happening::Stops),
        6 => Just(Happening::DelayEnds),
        4 => (1u64..4_000).prop_map(Happening::TimePasses),
        1 => prop::sample::select(vec![Happening::DelayEnds, Happening::ShutsDown]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Order and no-overlap are asserted at each step (see `World::settle`); here also where it
    /// all ends: every child that is to run runs, or nothing does.
    #[test]
    fn whatever_fails_in_whatever_order_the_branch_ends_up_whole_or_down(
        strategy in prop::sample::select(vec![Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]),
        restarts in prop::collection::vec(restart(), 1..6),
        happenings in prop::collection::vec(happening(), 0..120),
    ) {
        let intensity = Intensity { restarts: 6, period: Duration::from_secs(10) };
        let mut world = World::new(strategy, intensity, &restarts);
        for happening in happenings {
            let pick = |those: &[Key], at: usize| those.get(at % those.len().max(1)).copied();
            match happening {
                Happening::Starts(at) => { if let Some(key) = pick(&world.starting, at) { world.start(key) } }
                Happening::FailsToStart(at) => { if let Some(key) = pick(&world.starting, at) { world.fail_to_start(key) } }
                Happening::Ends(at) => { if let Some(key) = pick(&world.up, at) { world.end(key, None) } }
                Happening::Fails(at) => { if let Some(key) = pick(&world.up, at) { world.end(key, Some(failure("oh"))) } }
                Happening::Stops(at) => { if let Some(key) = pick(&world.stopping, at) { world.end(key, None) } }
                Happening::DelayEnds => { if !world.delays.is_empty() { world.due() } }
                Happening::TimePasses(millis) => world.now += Duration::from_millis(millis),
                Happening::ShutsDown => { world.branch.end(None); world.settle(Vec::new()) }
            }
            let recent = world.counted.iter().filter(|then| world.now.duration_since(**then) <= intensity.period).count();
            prop_assert!(recent <= 6 || world.branch.ending(), "{recent} restarts and it goes on");
        }
        world.calm_down();
        let wanted: Vec<Key> = world.branch.children().iter().filter(|child| child.wanted()).map(|child| child.key).collect();
        world.up.sort_unstable();
        prop_assert_eq!(&world.up, &wanted);
        prop_assert_eq!(world.finished.is_some(), world.branch.ending());
        prop_assert!(world.finished.is_some() || world.ready);
        for (child, restart) in world.branch.children().iter().zip(&restarts) {
            let may_be_down = world.finished.is_some() || *restart != Restart::Permanent;
            prop_assert!(child.phase == Phase::Up || may_be_down, "{} is down", child.name);
        }
    }
}
