//! How far a long import or export is.

use std::time::{Duration, Instant};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Finding the commits that are new.
    Finding,
    /// Reading or writing them with everything they name.
    Copying,
    /// Making it durable and visible.
    Finishing,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Commits done.
    pub done: u64,
    /// Commits in all; what is known of it while they are being found.
    pub total: u64,
    /// Objects read or written.
    pub objects: u64,
    /// Objects per second since the phase began.
    pub per_second: f64,
}

/// Tells somebody, about ten times a second and at the end of each phase.
pub(super) struct Reporter<'a> {
    tell: &'a mut dyn FnMut(&Progress),
    phase: Phase,
    began: Instant,
    told: Option<Instant>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut(&Progress)) -> Self {
        Self { tell, phase: Phase::Finding, began: Instant::now(), told: None }
    }

    pub(super) fn report(&mut self, phase: Phase, done: u64, total: u64, objects: u64) {
        if phase != self.phase {
            (self.phase, self.began, self.told) = (phase, Instant::now(), None);
        }
        if done < total && self.told.is_some_and(|told| told.elapsed() < Duration::from_millis(100)) {
            return;
        }
        self.told = Some(Instant::now());
        let seconds = self.began.elapsed().as_secs_f64();
        let per_second = if seconds > 0.0 { objects as f64 / seconds } else { 0.0 };
        (self.tell)(&Progress { phase, done, total, objects, per_second });
    }
}
