//! A process that writes is killed at random moments; nothing it acknowledged may be missing.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use helix_objects::{Durability, Mark, NewObject, ObjectStore, hash};
use helix_rocks::{RocksOptions, RocksStore};
use rand::{Rng, RngExt, SeedableRng};

const FOLDER: &str = "HELIX_CRASH_TEST_FOLDER";
const ROUND: &str = "HELIX_CRASH_TEST_ROUND";
/// Small, so that tables are written and merged while the process is killed.
const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 256 << 10, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };

/// What writer `thread` of a round puts as its `count`th object.
fn object(round: u64, thread: u64, count: u64) -> NewObject {
    let seed = hash(&[round, thread, count].map(u64::to_le_bytes).concat()).0;
    NewObject::new(seed.repeat(1 + seed[0] as usize).into())
}

#[test]
#[ignore = "the process that the crash test kills; it never ends by itself"]
fn writer_process() {
    let folder = std::env::var(FOLDER).expect("the crash test sets it");
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = RocksStore::open_with(Path::new(&folder), OPTIONS).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for count in 0.. {
                    let mark = store.put(&[object(round, thread, count)], Durability::Group).unwrap();
                    let line = format!("ack {thread} {count} {}\n", mark.0);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u64, u64, u64)> = Vec::new();
    let mut greatest = Mark(0);
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let kill_after = random.random_range(1..300);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            let Some(numbers) = line.strip_prefix("ack ") else { continue };
            let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
            acknowledged.push((round, numbers[0], numbers[1]));
            greatest = greatest.max(Mark(numbers[2]));
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(seen >= kill_after, "the writer ended by itself after {seen} of {kill_after}");
        child.wait().unwrap();
        let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
        store.verify_acknowledged(greatest).unwrap();
        for (round, thread, count) in &acknowledged {
            let expected = object(*round, *thread, *count);
            assert_eq!(&store.read(expected.id()).unwrap(), expected.bytes());
        }
        store.close().unwrap();
    }
}
