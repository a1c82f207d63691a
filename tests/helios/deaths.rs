//! The engine is killed at any moment, and content is collected and packed without a pause, while eight clients commit. What was
//! acknowledged is there afterwards.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::{Value, json};

use crate::harness::{Program, User, chance, is_campaign, rounds};

const CLIENTS: usize = 8;
/// A history is checked whole after each death, so it is not let grow longer than this many rounds make it.
const ROUNDS_OF_ONE: u32 = 25;

#[test]
fn every_commit_that_was_acknowledged_survives_the_death_of_the_engine() {
    let mut chance = chance("deaths");
    let mut acknowledged = 0;
    let mut left = rounds(20);
    while left > 0 {
        let stage = Stage::new();
        for round in 0..left.min(ROUNDS_OF_ONE) {
            stage.round(round, Duration::from_millis(chance.random_range(20..400)));
            stage.check();
        }
        acknowledged += stage.acknowledged.lock().expect("nobody panicked").len();
        left -= left.min(ROUNDS_OF_ONE);
    }
    assert!(acknowledged > CLIENTS, "there were commits: {acknowledged}");
}

/// One user whose engine dies again and again. The first half of the clients work in one folder, the others in
/// workspaces of their own.
struct Stage {
    user: User,
    root: PathBuf,
    /// Where each client works.
    folders: Vec<PathBuf>,
    /// The branch and the snapshot of each commit that a client was told of.
    acknowledged: Mutex<HashSet<(String, String)>>,
}

impl Stage {
    fn new() -> Self {
        let user = User::new();
        let root = user.repository("work");
        user.commit(&root, "base", "0");
        let add = |name: &str| {
            user.ok(&root, &["workspace", "add", &format!("../{name}")]);
            user.path(name)
        };
        let folders =
            (0..CLIENTS).map(|client| if client < CLIENTS / 2 { root.clone() } else { add(&format!("client-{client}")) }).collect();
        add("waste");
        Self { user, root, folders, acknowledged: Mutex::default() }
    }

    fn round(&self, round: u32, until_death: Duration) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (client, folder) in self.folders.iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || self.commit_until(stop, folder, &format!("f-{client}-{round}")));
            }
            scope.spawn(|| self.waste_and_collect_until(&stop));
            // A moment by chance is what is tested here, so this one wait is by the clock.
            thread::sleep(until_death);
            self.user.kill_engine();
            stop.store(true, Ordering::Release);
        });
    }

    fn commit_until(&self, stop: &AtomicBool, folder: &Path, file: &str) {
        for number in 0.. {
            if stop.load(Ordering::Acquire) {
                return;
            }
            fs::write(folder.join(file), format!("{number}")).expect("written");
            let ended = self.user.run(folder, &["--json", "commit", "--work", file]);
            if ended.code == 0 {
                let told: Value = serde_json::from_str(&ended.out).expect("JSON");
                let text = |key: &str| told[key].as_str().expect("a text").to_owned();
                self.acknowledged.lock().expect("nobody panicked").insert((text("branch"), text("snapshot")));
            }
        }
    }

    /// Makes what nothing keeps, and has it collected and the rest packed.
    fn waste_and_collect_until(&self, stop: &AtomicBool) {
        let waste = self.user.path("waste");
        for number in 0.. {
            if stop.load(Ordering::Acquire) {
                return;
            }
            fs::write(waste.join("waste"), format!("{number}").repeat(1_000)).expect("written");
            let collect: &[&str] =
                if number % 3 == 2 { &["gc", "--aggressive"] } else { &["gc", "--remove-old-snapshots", "--before", "0s"] };
            // Each of them may meet the engine's death.
            for command in [&["commit", "-q", "--work", "."], &["reset", "-q", "--hard", "HEAD~1"] as &[&str], collect] {
                self.user.run(&waste, command);
            }
        }
    }

    /// Everything acknowledged is in the history of its branch, the store is sound, and nothing has to be unlocked.
    fn check(&self) {
        let acknowledged = self.acknowledged.lock().expect("nobody panicked");
        let branches: HashSet<&String> = acknowledged.iter().map(|(branch, _)| branch).collect();
        let mut found = HashSet::new();
        for branch in branches {
            for line in self.user.ok(&self.root, &["--json", "log", branch]).lines() {
                let entry: Value = serde_json::from_str(line).expect("JSON");
                found.insert((branch.clone(), entry["snapshot"].as_str().expect("an id").to_owned()));
            }
        }
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(self.user.ok(&self.root, &["fsck"]).ends_with("everything is sound\n"));
        self.user.ok(&self.root, &["commit", "-q", "--work", ".", "-m", "after the death"]);
    }
}

#[test]
fn collections_beside_eight_writers_lose_nothing_that_is_named() {
    let lasting = Duration::from_secs(if is_campaign() { 60 } else { 8 });
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "base", "0");
    user.ok(&root, &["workspace", "add", "../waste"]);
    let (until, reached) = (Instant::now() + lasting, AtomicU64::new(0));
    let (written, (collections, dropped)) = thread::scope(|scope| {
        let (user, root, reached) = (&user, root.as_path(), &reached);
        let writers: Vec<_> =
            (0..CLIENTS).map(|writer| scope.spawn(move || write_until(user, root, writer, until, reached))).collect();
        scope.spawn(move || waste_until(user, until, reached));
        let collector = scope.spawn(move || collect_until(user, root, until));
        let written: Vec<Vec<Written>> = writers.into_iter().map(|writer| writer.join().expect("it ends")).collect();
        (written, collector.join().expect("it ends"))
    });
    eprintln!("{} commits, {collections} collections, {dropped} objects dropped", written.iter().map(Vec::len).sum::<usize>());
    assert!(collections > 1 && dropped > 0, "{collections} collections dropped {dropped} objects");
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    let mut program = Program::new(&user);
    for (writer, written) in written.iter().enumerate() {
        assert!(!written.is_empty(), "writer {writer} has written");
        for Written { snapshot, file, content } in written {
            let read = program.ok(json!({"op": "read_file", "path": root, "file": file, "revision": snapshot}));
            assert_eq!(read["content"], *content, "{file} in {snapshot}");
        }
    }
}

/// A commit that was acknowledged: its snapshot, and a file of it.
struct Written {
    snapshot: String,
    file: String,
    content: String,
}

/// Content that every writer makes at some time, and the one who wastes it made a little before.
fn shared(number: u64) -> String {
    format!("shared {number} ").repeat(100)
}

/// Commits over the socket.
fn write_until(user: &User, root: &Path, writer: usize, until: Instant, reached: &AtomicU64) -> Vec<Written> {
    let mut program = Program::new(user);
    let workspace = format!("writer-{writer}");
    program.ok(json!({"op": "workspace", "path": root, "name": workspace, "branch": workspace}));
    let mut written = Vec::new();
    let mut number = 0;
    while Instant::now() < until {
        let (file, content) = (format!("d{}/f{}", number % 7, number % 50), format!("{writer} {number} ").repeat(40));
        // Waste may be dropped at the very moment in which this names it again.
        let common = reached.load(Ordering::Relaxed);
        let (second, wasted) = (format!("shared/{}", common % 10), shared(common));
        let commit = json!({
            "op": "commit_files", "path": root, "workspace": workspace, "message": "next", "allow_empty": true,
            "files": [{"path": file, "content": content}, {"path": second, "content": wasted}],
        });
        let snapshot = program.ok(commit)["snapshot"].as_str().expect("an id").to_owned();
        let (file, content) = if number % 2 == 0 { (file, content) } else { (second, wasted) };
        written.push(Written { snapshot, file, content });
        number += 1;
    }
    written
}

/// Commits content and takes it back, again and again.
fn waste_until(user: &User, until: Instant, reached: &AtomicU64) {
    let waste = user.path("waste");
    for number in 1.. {
        if Instant::now() >= until {
            return;
        }
        fs::write(waste.join("waste"), shared(number)).expect("written");
        user.ok(&waste, &["commit", "-q", "--work", "."]);
        user.ok(&waste, &["reset", "-q", "--hard", "HEAD~1"]);
        reached.store(number, Ordering::Relaxed);
    }
}

/// How many collections there were, and how many objects they dropped.
fn collect_until(user: &User, root: &Path, until: Instant) -> (u64, u64) {
    let (mut collections, mut dropped) = (0, 0);
    while Instant::now() < until {
        let told = user.ok(root, &["--json", "gc", "--remove-old-snapshots", "--before", "0s"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        dropped += told["objects_dropped"].as_u64().expect("a number");
        collections += 1;
    }
    (collections, dropped)
}
