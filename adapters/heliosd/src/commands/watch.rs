//! `helios watch`: what happens to the repository, as it happens.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use helix_protocol::{Failure, Timestamp};
use helix_versions::{Operation, Repository};
use serde_json::{Value, json};

use super::{Verb, undo};
use crate::console::OK;
use crate::context::Context;
use crate::engine::location::Location;
use crate::engine::{Engine, OpenRepository, TICK, WANTED};

/// Prints every change of branches, heads and experiments as a line of JSON
///
/// Where the operation log has let some go before they were told, a line says which numbers: {"forgotten": {"first": 4, "last":
/// 9}}. Where it is another one than before, as after `helios backup restore --replace`, a line says its last number, and what
/// comes behind that is told: {"replaced": {"last": 3}}. Neither counts for --count.
#[derive(Parser)]
#[command(name = "watch", after_help = "Examples:\n  helios watch\n  helios watch --since 120 --count 1")]
pub struct Watch {
    /// Begins behind this operation of `helios oplog`; with what comes next where nothing is said
    #[arg(long, value_name = "OPERATION")]
    since: Option<u64>,
    /// Ends after this many
    #[arg(long, value_name = "NUMBER")]
    count: Option<usize>,
}

/// Operations read at once.
const AT_ONCE: usize = 256;
/// How often it is looked whether somebody still listens.
const LOOK_UP: Duration = Duration::from_millis(500);
/// How long a watcher stays away from a repository that another process waits for, so that the engine finds it unused.
const GIVE_WAY: Duration = TICK.saturating_add(WANTED);

impl Verb for Watch {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let location = Location::find(&context.caller.cwd)?;
        let engine = context.engine;
        let console = RefCell::new(&mut context.console);
        let watched = Watched {
            engine,
            open: &|| engine.repository(&location, &mut console.borrow_mut()),
            tell: &|event| {
                let mut console = console.borrow_mut();
                console.json(&event).and_then(|()| console.flush())
            },
            check: &|| console.borrow().check(),
        };
        watched.follow(self.since, self.count)?;
        Ok(OK)
    }
}

/// What is watched, and by whom.
pub struct Watched<'a> {
    /// The engine; it may leave.
    pub engine: &'a Engine,
    /// Opens the repository, where it is not open.
    pub open: &'a dyn Fn() -> Result<Arc<OpenRepository>, Failure>,
    /// Tells of an operation.
    pub tell: &'a dyn Fn(Value) -> Result<(), Failure>,
    /// Fails once nobody listens.
    pub check: &'a dyn Fn() -> Result<(), Failure>,
}

impl Watched<'_> {
    /// Tells of each operation behind `since`, or of those to come, until `count` were told, nobody listens, or the engine leaves.
    /// Between looks it holds nothing open, so that another process can have the store.
    pub fn follow(&self, since: Option<u64>, count: Option<usize>) -> Result<(), Failure> {
        let (mut told, mut left) = (since.map(|number| Told { number, time: None }), count.unwrap_or(usize::MAX));
        while left > 0 && !self.engine.is_leaving() {
            let open = (self.open)()?;
            let (changes, seen) = (Arc::clone(&open.changes), open.changes.seen());
            let newest = open.repository.operations(None, 1)?.pop();
            let last = newest.as_ref().map_or(0, |operation| operation.number);
            let mut upto = match told {
                None => Told::of(newest.as_ref()),
                Some(told) => match told.in_log(&open.repository, last)? {
                    Some(told) => told,
                    None => {
                        (self.tell)(json!({"replaced": {"last": last}}))?;
                        Told::of(newest.as_ref())
                    }
                },
            };
            while upto.number < last && left > 0 {
                let next = (upto.number + AT_ONCE as u64).min(last);
                let mut some = open.repository.operations(Some(next + 1), AT_ONCE)?;
                some.retain(|operation| operation.number > upto.number);
                some.reverse();
                let first = match some.first() {
                    Some(operation) => operation.number,
                    None => open.repository.first_operation()?.unwrap_or(last),
                };
                if first > upto.number + 1 {
                    (self.tell)(json!({"forgotten": {"first": upto.number + 1, "last": first - 1}}))?;
                    upto = Told { number: first - 1, time: None };
                    continue;
                }
                some.truncate(left);
                left -= some.len();
                some.iter().try_for_each(|operation| (self.tell)(undo::operation_json(operation)))?;
                upto = some.last().map_or(upto, |operation| Told::of(Some(operation)));
            }
            told = Some(upto);
            let away = if open.is_wanted() { GIVE_WAY } else { LOOK_UP };
            drop(open);
            (self.check)()?;
            if left > 0 {
                changes.wait(seen, away);
            }
        }
        Ok(())
    }
}

/// Up to which operation is told.
#[derive(Clone, Copy)]
struct Told {
    number: u64,
    /// Its own, where it was seen.
    time: Option<Timestamp>,
}

impl Told {
    fn of(operation: Option<&Operation>) -> Self {
        Self { number: operation.map_or(0, |operation| operation.number), time: operation.map(|operation| operation.time) }
    }

    /// The same in the log that ends with `last`; `None` where that is not the one this was told from: it ends before, or has
    /// another operation there.
    fn in_log(self, repository: &Repository, last: u64) -> Result<Option<Self>, Failure> {
        if last < self.number {
            return Ok(None);
        }
        let now = repository.operations(Some(self.number + 1), 1)?.pop().filter(|operation| operation.number == self.number);
        let now = now.map(|operation| operation.time);
        let is_another = self.time.zip(now).is_some_and(|(told, now)| told != now);
        Ok((!is_another).then_some(Self { time: self.time.or(now), ..self }))
    }
}
