//! What keeps a store small: letting go of what nothing keeps, and packing the rest.

use std::time::Duration;

use helix_objects::{Mark, ObjectStore, Packed, Sweep};
use helix_protocol::{Failure, Timestamp};
use helix_rocks::Effort;
use helix_versions::{CollectOptions, Collected, Retention};

use super::OpenRepository;

/// How hard packing tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// What is not packed yet.
    Plain,
    /// Everything anew.
    Aggressive,
}

/// What was done.
pub struct Upkeep {
    /// What was let go.
    pub collected: Collected,
    /// What was packed.
    pub packed: Packed,
    /// The store's size before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

/// Up to which write a repository is packed.
pub struct Rhythm {
    packed: Mark,
}

/// What is to be done for a repository that nobody is using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// What is not packed is to be packed.
    Pack,
    /// What is old is to go.
    Collect,
}

/// A repository is packed when nobody has used it for this long …
const IDLE: Duration = Duration::from_secs(60);
/// … and there were so many writes since the last time, through however many engines: each object is one, and each commit one more.
const WRITES: u64 = 4_000;
/// Where the settings ask for it, what is old goes once in this time.
const EACH: Duration = Duration::from_secs(3_600);

impl Rhythm {
    /// The one that an earlier engine left, of a store that has been written up to `written`: a backup in its place may
    /// have been written less far.
    pub fn new(packed: Mark, written: Mark) -> Self {
        Self { packed: packed.min(written) }
    }

    /// What is due, which is then taken as done: a failure is tried again the next time, not at once.
    /// `collected` is how long ago the last collection was, where the settings ask for them at all.
    pub fn take(&mut self, idle: Duration, written: Mark, collected: Option<Duration>) -> Due {
        if idle < IDLE {
            Due::Nothing
        } else if collected.is_some_and(|ago| ago >= EACH) {
            self.packed = written;
            Due::Collect
        } else if written.0 >= self.packed.0 + WRITES {
            self.packed = written;
            Due::Pack
        } else {
            Due::Nothing
        }
    }
}

/// Does what is due for a repository that nobody is using.
pub fn look_after(open: &OpenRepository, due: Due) {
    let rule = open.settings().retention();
    let done = match due {
        Due::Nothing => return,
        Due::Pack => pack(open, Thoroughness::Plain),
        Due::Collect => collect(open, rule, Sweep::Drop, Thoroughness::Plain).map(|upkeep| upkeep.packed),
    };
    match done {
        Ok(packed) => tracing::info!(root = %open.root.display(), ?due, objects = packed.objects, "a repository was looked after"),
        Err(error) => tracing::warn!(root = %open.root.display(), ?due, %error, "a repository could not be looked after"),
    }
}

/// How long writers that began before a collection may go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets go of what nothing keeps; what the operation log has is kept, as far as the rule says. Then packs.
pub fn collect(open: &OpenRepository, rule: Retention, how: Sweep, thoroughness: Thoroughness) -> Result<Upkeep, Failure> {
    let bytes_before = open.store.stats()?.stored_bytes;
    let collected = let_go(open, rule, how)?;
    let packed = if how == Sweep::Drop { pack(open, thoroughness)? } else { Packed::default() };
    Ok(Upkeep { collected, packed, bytes_before, bytes_after: open.store.stats()?.stored_bytes })
}

/// Lets go of what nothing keeps, as [`collect`] does, and packs nothing.
pub fn let_go(open: &OpenRepository, rule: Retention, how: Sweep) -> Result<Collected, Failure> {
    let options = CollectOptions { rule, now: Timestamp::now(), how, patience: PATIENCE };
    Ok(open.repository.collect(&open.store, &options, &|| open.trees_on_their_way())?)
}

/// Packs what is alive.
pub fn pack(open: &OpenRepository, thoroughness: Thoroughness) -> Result<Packed, Failure> {
    let (mut hints, written) = (Vec::new(), open.store.store().mark());
    open.repository.mark(&open.repository.roots(None)?, |alive| hints.push(alive.pack_hint()))?;
    let effort = if thoroughness == Thoroughness::Aggressive { Effort::Aggressive } else { Effort::Idle };
    let rocks = open.store.store();
    let mut packed = rocks.pack(&hints, effort)?;
    let again = rocks.repack()?;
    packed.groups += again.groups;
    rocks.compact()?;
    open.packed_up_to(written);
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_packed_after_many_writes_and_only_while_nobody_uses_it() {
        let mut rhythm = Rhythm::new(Mark(10), Mark(10));
        let written = Mark(10 + WRITES);
        assert_eq!(rhythm.take(Duration::ZERO, written, Some(EACH)), Due::Nothing);
        assert_eq!(rhythm.take(IDLE, Mark(written.0 - 1), None), Due::Nothing);
        assert_eq!(rhythm.take(IDLE, written, None), Due::Pack);
        assert_eq!(rhythm.take(IDLE, Mark(written.0 + 1), Some(Duration::ZERO)), Due::Nothing);
        assert_eq!(rhythm.take(IDLE, Mark(written.0 + 1), Some(EACH)), Due::Collect);
    }

    #[test]
    fn a_store_that_a_backup_replaced_is_packed_after_as_many_writes_as_any() {
        let mut rhythm = Rhythm::new(Mark(1_000_000), Mark(10));
        assert_eq!(rhythm.take(IDLE, Mark(10 + WRITES), None), Due::Pack);
    }
}
