//! `helios watch`: what happens to the repository, as it happens.

use std::time::Duration;

use clap::Parser;
use helix_protocol::Failure;
use serde_json::Value;

use super::{Verb, undo};
use crate::console::OK;
use crate::context::Context;
use crate::engine::Engine;
use crate::here::Here;

/// Prints every change of branches, heads and experiments as a line of JSON
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

impl Verb for Watch {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let engine = context.engine;
        let console = std::cell::RefCell::new(&mut context.console);
        let tell = &mut |event| {
            let mut console = console.borrow_mut();
            console.json(&event).and_then(|()| console.flush())
        };
        follow(&here, engine, self.since, self.count, tell, &|| console.borrow().check())?;
        Ok(OK)
    }
}

/// Tells of each operation behind `since`, or of those to come, until `count` were told, nobody listens, or the engine leaves.
pub fn follow(
    here: &Here,
    engine: &Engine,
    since: Option<u64>,
    count: Option<usize>,
    tell: &mut dyn FnMut(Value) -> Result<(), Failure>,
    check: &dyn Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let newest = || Ok::<_, Failure>(here.repository().operations(None, 1)?.first().map_or(0, |operation| operation.number));
    let mut told = since.map_or_else(newest, Ok)?;
    let mut left = count.unwrap_or(usize::MAX);
    let mut seen = here.open.changes.seen();
    while left > 0 && !engine.is_leaving() {
        let last = newest()?;
        while told < last && left > 0 {
            let upto = (told + AT_ONCE as u64).min(last);
            let mut some = here.repository().operations(Some(upto + 1), AT_ONCE)?;
            some.retain(|operation| operation.number > told);
            some.reverse();
            some.truncate(left);
            left -= some.len();
            some.iter().try_for_each(|operation| tell(undo::operation_json(operation)))?;
            told = upto;
        }
        here.open.touch();
        check()?;
        if left > 0 {
            seen = here.open.changes.wait(seen, LOOK_UP);
        }
    }
    Ok(())
}
