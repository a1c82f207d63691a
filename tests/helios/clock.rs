//! The clock jumps under a running engine: by years, forwards and backwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{User, ended, programs};

const YEARS: i64 = 10 * 365 * 86_400;

/// A clock that a running engine takes for the system's.
struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    fn new(user: &User) -> Self {
        let clock = Self { library: user.path("clock.so"), offset: user.path("offset") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/helios/clock.c");
        // The linker that built this test comes with it.
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&clock.library).arg(source).arg("-ldl").status();
        assert!(built.expect("a C compiler").success());
        clock.jump(0);
        clock
    }

    /// From now on the time is so many seconds off, for everybody who has this clock.
    fn jump(&self, seconds: i64) {
        let draft = self.offset.with_extension("new");
        fs::write(&draft, seconds.to_string()).expect("written");
        fs::rename(&draft, &self.offset).expect("moved");
    }

    /// An engine with this clock, which serves the user's commands.
    fn engine(&self, user: &User) -> std::process::Child {
        let mut engine = user.program(programs().join("heliosd"), &user.path("home"));
        engine.arg("serve").env("LD_PRELOAD", &self.library).env("JUMPING_CLOCK", &self.offset);
        engine.spawn().expect("started")
    }
}

#[test]
fn a_clock_that_jumps_loses_nothing_hides_nothing_and_ends_no_engine() {
    let user = User::new();
    let clock = Clock::new(&user);
    let mut engine = clock.engine(&user);
    crate::harness::wait_until("the engine listens", || user.place().join("engine.sock").exists());
    let root = user.repository("work");
    let mut snapshots = Vec::new();
    let jumps = [0, YEARS, YEARS - 1, 0, -YEARS, 3_600, -3_600];
    for (number, jump) in jumps.into_iter().enumerate() {
        clock.jump(jump);
        // Of the same length each time: only what the file holds tells that it changed.
        snapshots.push(user.commit(&root, "f", &format!("{number}")));
        fs::write(root.join("f"), "x").expect("written");
        assert_eq!(user.ok(&root, &["status", "--porcelain"]), " M f\n", "after a jump of {jump} seconds");
        user.ok(&root, &["restore", "f"]);
    }
    assert_eq!(user.engine(), Some(engine.id()), "the same engine did all of it");
    // What a commit says of its time is what the clock said, so the clock did jump.
    let seconds = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        entry["committer"]["microseconds"].as_i64().expect("a time") / 1_000_000
    };
    let log = user.ok(&root, &["--json", "log"]);
    let times: Vec<i64> = log.lines().rev().map(seconds).collect();
    let jumped: Vec<i64> = times.iter().zip(jumps).map(|(time, jump)| (time - jump - times[0]) / 60).collect();
    assert_eq!(jumped, [0; 7], "{times:?}");
    let told = user.ok(&root, &["rev-parse", "HEAD~6", "HEAD~5", "HEAD~4", "HEAD~3", "HEAD~2", "HEAD~1", "HEAD"]);
    assert_eq!(told.lines().collect::<Vec<_>>(), snapshots);

    // Far in the future everything is old: what a name keeps stays all the same.
    clock.jump(YEARS);
    user.ok(&root, &["gc", "--remove-old-snapshots", "--before", "1h"]);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), jumps.len());
    // Back in the past nothing is old, and what is undone is what was done last.
    clock.jump(-YEARS);
    user.ok(&root, &["reset", "-q", "--hard", "HEAD~1"]);
    user.ok(&root, &["gc", "--remove-old-snapshots", "--before", "1h"]);
    user.ok(&root, &["undo"]);
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), snapshots[jumps.len() - 1]);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    let durable = user.ok(&root, &["--json", "commit", "--allow-empty", "-m", "on disk", "--durability", "sync"]);
    assert!(durable.contains("\"on_disk\":true"), "{durable}");
    user.ok(&root, &["engine", "stop"]);
    assert!(engine.wait().expect("it ends").success());
    // The next engine has the system's own clock.
    assert_eq!(ended(&mut user.helios(&root, &["status", "--porcelain"])).out, "");
}
