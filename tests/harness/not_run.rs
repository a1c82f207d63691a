//! A test that cannot run here says so, on a line of its own that `NOT RUN` counts.

use std::io::Write as _;

/// Says that this was not run, and why, also where the output of tests that pass is kept back.
pub fn not_run(what: &str, why: &str) {
    // What the printing macros print is kept back.
    let _ = writeln!(std::io::stderr(), "\n*** NOT RUN: {what}: {why} ***");
}
