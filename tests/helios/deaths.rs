//! The engine is killed at any moment while eight clients commit. What it acknowledged is there afterwards.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{User, rounds};

const CLIENTS: usize = 8;

#[test]
fn every_commit_that_was_acknowledged_survives_the_death_of_the_engine() {
    let seed = match std::env::var("HELIX_SEED") {
        Ok(text) => text.parse().expect("HELIX_SEED is a number"),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970").subsec_nanos().into(),
    };
    eprintln!("HELIX_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "base", "0");
    let acknowledged: Mutex<Vec<String>> = Mutex::default();
    for round in 0..rounds(4) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (user, root, acknowledged, stop) = (&user, &root, &acknowledged, &stop);
                scope.spawn(move || commit_until(stop, user, root, acknowledged, &format!("{round}-{client}")));
            }
            // A moment by chance is what is tested here, so this one wait is by the clock.
            thread::sleep(Duration::from_millis(chance.random_range(20..400)));
            user.kill_engine();
            stop.store(true, Ordering::Release);
        });
        check(&user, &root, &acknowledged.lock().expect("nobody panicked"));
    }
    let total = acknowledged.lock().expect("nobody panicked").len();
    assert!(total > CLIENTS, "there were commits: {total}");
}

fn commit_until(stop: &AtomicBool, user: &User, root: &Path, acknowledged: &Mutex<Vec<String>>, name: &str) {
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        fs::write(root.join(format!("f-{name}")), format!("{number}")).expect("written");
        let ended = user.run(root, &["--json", "commit", "--work", &format!("f-{name}")]);
        if ended.code == 0 {
            let told: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
            acknowledged.lock().expect("nobody panicked").push(told["snapshot"].as_str().expect("an id").to_owned());
        }
    }
}

/// Everything acknowledged is in the head's history, the store is sound, and nothing has to be unlocked.
fn check(user: &User, root: &Path, acknowledged: &[String]) {
    let history: std::collections::HashSet<String> = user
        .ok(root, &["--json", "log"])
        .lines()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            entry["snapshot"].as_str().expect("an id").to_owned()
        })
        .collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|snapshot| !history.contains(*snapshot)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    user.ok(root, &["fsck"]);
    user.ok(root, &["commit", "-q", "--work", ".", "-m", "after the death"]);
}
