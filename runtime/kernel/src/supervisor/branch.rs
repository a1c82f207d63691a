//! What a supervisor decides, as pure code: no actor, no clock, no task.
//!
//! A [`Branch`] hears what happened and answers with [`Step`]s to carry out. It has one rule for
//! everything that has an order: a child starts only when nothing is being stopped and all before
//! it run, and stops only when all after it that have to stop are down. One-for-one drops that
//! rule once the branch is up.

use std::collections::VecDeque;
use std::time::Duration;

use helix_protocol::{Code, Failure};
use tokio::time::Instant;

use super::{Backoff, Intensity, Restart, Strategy};

/// Names a child within its branch for good; names may be used again, keys are not.
pub(crate) type Key = u64;

/// What has to be done now.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Start an incarnation; answered by `started` or `start_failed`.
    Start(Key),
    /// Stop the incarnation in order; answered by `ended`.
    Stop(Key),
    /// Call `due` with this delay after a random time of at most `ceiling`.
    Delay { key: Key, delay: u64, ceiling: Duration },
    /// All children run for the first time.
    Ready,
    /// The child added at run time did not start and is not kept.
    Refused(Key, Failure),
    /// The child has ended and will not be started again.
    Gone(Key, Option<Failure>),
    /// Everything is down: the supervisor ends, with this failure if there is one.
    Finished(Option<Failure>),
}

/// Whether a child was there from the start or came at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the supervisor's spec: it stays in the tree after its end.
    Declared,
    /// Added: it is forgotten after its end.
    Added,
}

/// Where the child's incarnation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none.
    Down,
    /// Its start runs.
    Starting,
    /// It runs.
    Up,
    /// It was told to stop.
    Stopping,
}

/// What is to become of a child.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It is to run.
    Kept,
    /// It is to run, but its present incarnation has to end first.
    Recycled,
    /// It is to end for good.
    Leaving(Option<Failure>),
    /// It has ended for good; `true` if it failed.
    Gone { failed: bool },
}

/// One child as the branch sees it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub key: Key,
    pub name: String,
    pub phase: Phase,
    pub fate: Fate,
    /// How often it was started again.
    pub restarts: u64,
    pub last_failure: Option<Failure>,
    restart: Restart,
    backoff: Backoff,
    origin: Origin,
    /// The delay it waits for before it may start.
    delay: Option<u64>,
    /// Failures in a row.
    failures: u32,
    /// When its incarnation came up.
    up_since: Option<Instant>,
    /// Whether it has ever run.
    proven: bool,
}

impl Child {
    fn alive(&self) -> bool {
        self.phase != Phase::Down
    }

    fn wanted(&self) -> bool {
        matches!(self.fate, Fate::Kept | Fate::Recycled)
    }

    /// Alive, and has to go down.
    fn halting(&self) -> bool {
        self.alive() && self.fate != Fate::Kept
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Goal {
    /// All children are to come up for the first time.
    Start,
    /// They are to stay up.
    Run,
    /// They are to go down, for this reason.
    End(Option<Failure>),
    /// They are down.
    Over,
}

/// One supervisor's children and what is to become of them.
#[derive(Debug)]
pub(crate) struct Branch {
    name: String,
    strategy: Strategy,
    intensity: Intensity,
    goal: Goal,
    children: Vec<Child>,
    /// When the restarts within the period were.
    restarts: VecDeque<Instant>,
    keys: Key,
    delays: u64,
}

impl Branch {
    pub fn new(name: impl Into<String>, strategy: Strategy, intensity: Intensity) -> Self {
        Self {
            name: name.into(),
            strategy,
            intensity,
            goal: Goal::Start,
            children: Vec::new(),
            restarts: VecDeque::new(),
            keys: 0,
            delays: 0,
        }
    }

    pub fn children(&self) -> &[Child] {
        &self.children
    }

    /// Whether it has begun to end.
    pub fn ending(&self) -> bool {
        matches!(self.goal, Goal::End(_) | Goal::Over)
    }

    /// Adds a child after the others. [`settle`](Self::settle) starts it.
    ///
    /// Refused where a child of that name is there, or the branch is ending.
    pub fn add(&mut self, name: &str, restart: Restart, backoff: Backoff, origin: Origin) -> Result<Key, Failure> {
        if self.ending() {
            return Err(Failure::new(Code::ShuttingDown, format!("{} is stopping and starts nothing new", self.name)));
        }
        if self.children.iter().any(|child| child.name == name && !matches!(child.fate, Fate::Gone { .. })) {
            return Err(Failure::new(Code::InvalidState, format!("{} already has a child called {name:?}", self.name))
                .hint("stop that one first, or choose another name"));
        }
        self.keys += 1;
        self.children.push(Child {
            key: self.keys,
            name: name.to_owned(),
            phase: Phase::Down,
            fate: Fate::Kept,
            restarts: 0,
            last_failure: None,
            restart,
            backoff,
            origin,
            delay: None,
            failures: 0,
            up_since: None,
            proven: false,
        });
        Ok(self.keys)
    }

    /// Makes room where a child of that name has ended for good.
    pub fn forget(&mut self, name: &str) -> Option<Key> {
        let at = self.children.iter().position(|child| child.name == name && matches!(child.fate, Fate::Gone { .. }))?;
        Some(self.children.remove(at).key)
    }

    /// Ends a child for good; `Gone` tells when it has.
    pub fn remove(&mut self, name: &str) -> Result<Key, Failure> {
        let child = self.children.iter_mut().find(|child| child.name == name && !matches!(child.fate, Fate::Gone { .. }));
        let child = child.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{} has no child called {name:?}", self.name)).hint("`helix tree` shows what runs")
        })?;
        if child.wanted() {
            child.fate = Fate::Leaving(None);
        }
        Ok(child.key)
    }

    /// Ends the branch: in order if `failure` is `None`.
    pub fn end(&mut self, failure: Option<Failure>) {
        if self.ending() {
            return;
        }
        for child in self.children.iter_mut().filter(|child| child.wanted()) {
            child.fate = Fate::Leaving(failure.clone());
        }
        self.goal = Goal::End(failure);
    }

    /// The child's incarnation runs.
    pub fn started(&mut self, key: Key, now: Instant) {
        if let Some(child) = self.find(key).filter(|child| child.phase == Phase::Starting) {
            child.phase = Phase::Up;
            child.up_since = Some(now);
            if std::mem::replace(&mut child.proven, true) {
                child.restarts += 1;
            }
        }
    }

    /// The child's incarnation did not come up.
    pub fn start_failed(&mut self, key: Key, failure: Failure, now: Instant, steps: &mut Vec<Step>) {
        let first = self.goal == Goal::Start;
        let Some(child) = self.find(key) else { return };
        let asked = child.halting();
        child.phase = Phase::Down;
        if asked {
            return;
        }
        child.last_failure = Some(failure.clone());
        if first {
            let message = format!("{} did not start: {}", child.name, failure.message);
            self.end(Some(Failure { message, ..failure }));
        } else if child.origin == Origin::Added && !child.proven {
            self.children.retain(|child| child.key != key);
            steps.push(Step::Refused(key, failure));
        } else {
            self.failed(key, failure, now, steps);
        }
    }

    /// Nothing of the child's incarnation runs any more; `failure` if its end was abnormal.
    pub fn ended(&mut self, key: Key, failure: Option<Failure>, now: Instant, steps: &mut Vec<Step>) {
        let Some(child) = self.find(key) else { return };
        let asked = child.halting();
        child.phase = Phase::Down;
        if failure.is_some() {
            child.last_failure.clone_from(&failure);
        }
        if asked {
            return;
        }
        match (child.restart, failure) {
            (Restart::Permanent, None) => {
                let failure = Failure::new(Code::Internal, "it ended, though it is permanent");
                self.failed(key, failure, now, steps);
            }
            (Restart::Permanent | Restart::Transient | Restart::Significant, Some(failure)) => {
                self.failed(key, failure, now, steps)
            }
            (Restart::Transient | Restart::Temporary | Restart::Significant, failure) => child.fate = Fate::Leaving(failure),
        }
    }

    /// A delay asked for is over. One that was overtaken by another is not heard.
    pub fn due(&mut self, key: Key, delay: u64) {
        if let Some(child) = self.find(key).filter(|child| child.delay == Some(delay)) {
            child.delay = None;
        }
    }

    /// The child failed by itself: its group goes down and comes up after a delay, or, where that
    /// happened too often, the branch ends.
    fn failed(&mut self, key: Key, failure: Failure, now: Instant, steps: &mut Vec<Step>) {
        let Some(at) = self.children.iter().position(|child| child.key == key) else { return };
        let child = &mut self.children[at];
        if child.restart == Restart::Significant {
            let message = format!("{} cannot go on without {}: {}", self.name, child.name, failure.message);
            return self.end(Some(Failure { message, ..failure }));
        }
        let quiet = child.up_since.take().is_some_and(|since| now.duration_since(since) >= child.backoff.most);
        child.failures = if quiet { 1 } else { child.failures.saturating_add(1) };
        let ceiling = child.backoff.ceiling(child.failures);
        let name = child.name.clone();

        self.restarts.push_back(now);
        while self.restarts.front().is_some_and(|then| now.duration_since(*then) > self.intensity.period) {
            self.restarts.pop_front();
        }
        if self.restarts.len() > self.intensity.restarts as usize {
            let times = format!("more than {} restarts within {:?}", self.intensity.restarts, self.intensity.period);
            let message = format!("{}: {times}; the last was for {name}: {}", self.name, failure.message);
            return self.end(Some(Failure { message, ..failure }));
        }

        let group = match self.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => at..self.children.len(),
        };
        self.delays += 1;
        let mut first = true;
        for child in self.children[group].iter_mut().filter(|child| child.wanted()) {
            child.delay = None;
            if child.restart == Restart::Temporary {
                let message = format!("stopped because {name} failed: {}", failure.message);
                child.fate = Fate::Leaving(Some(Failure::new(Code::Cancelled, message)));
                continue;
            }
            if child.alive() {
                child.fate = Fate::Recycled;
            }
            if std::mem::take(&mut first) {
                child.delay = Some(self.delays);
                steps.push(Step::Delay { key: child.key, delay: self.delays, ceiling });
            }
        }
    }

    /// Says what has to be done for every child to get where it is to be. Called after each event.
    pub fn settle(&mut self, steps: &mut Vec<Step>) {
        let ordered = self.strategy != Strategy::OneForOne || self.goal != Goal::Run;
        self.stop_what_has_to(ordered, steps);
        self.part_with_the_gone(steps);
        if let Goal::End(failure) = &self.goal {
            if self.children.iter().all(|child| !child.alive()) {
                steps.push(Step::Finished(failure.clone()));
                self.goal = Goal::Over;
            }
            return;
        }
        if !(ordered && self.children.iter().any(Child::halting)) {
            self.start_what_may(ordered, steps);
        }
        if self.goal == Goal::Start && self.children.iter().all(|child| !child.wanted() || child.phase == Phase::Up) {
            self.goal = Goal::Run;
            steps.push(Step::Ready);
        }
    }

    fn stop_what_has_to(&mut self, ordered: bool, steps: &mut Vec<Step>) {
        for child in self.children.iter_mut().rev().filter(|child| child.halting()) {
            if child.phase != Phase::Stopping {
                child.phase = Phase::Stopping;
                steps.push(Step::Stop(child.key));
            }
            if ordered {
                break;
            }
        }
    }

    fn part_with_the_gone(&mut self, steps: &mut Vec<Step>) {
        self.children.retain_mut(|child| {
            if child.alive() {
                return true;
            }
            if child.fate == Fate::Recycled {
                child.fate = Fate::Kept;
            }
            if let Fate::Leaving(failure) = &mut child.fate {
                let failure = failure.take();
                child.fate = Fate::Gone { failed: failure.is_some() };
                steps.push(Step::Gone(child.key, failure));
                return child.origin == Origin::Declared;
            }
            true
        });
    }

    fn start_what_may(&mut self, ordered: bool, steps: &mut Vec<Step>) {
        for child in self.children.iter_mut().filter(|child| child.fate == Fate::Kept) {
            if child.phase == Phase::Down && child.delay.is_none() {
                child.phase = Phase::Starting;
                steps.push(Step::Start(child.key));
            }
            if ordered && child.phase != Phase::Up {
                break;
            }
        }
    }

    fn find(&mut self, key: Key) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.key == key)
    }
}

#[cfg(test)]
mod tests;
