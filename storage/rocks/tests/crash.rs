//! A process with eight writers, collections and packing is killed at random moments: nothing it acknowledged may be missing, and
//! nothing may be damaged.
//!
//! A few rounds in every test run; HELIX_CAMPAIGN says how many else, HELIX_SEED repeats one.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use helix_objects::{
    Collect, Collection, Durability, Expect, Family, Kind, Mark, NewObject, ObjectStore, PackHint, RecordChange, RecordStore,
    Sweep, hash,
};
use helix_protocol::ObjectId;
use helix_rocks::{Effort, RocksOptions, RocksStore};
use rand::{Rng, RngExt, SeedableRng};

const FOLDER: &str = "HELIX_CRASH_TEST_FOLDER";
const WRITERS: u64 = 8;
/// So many of its last objects a writer's record names; older ones may be dropped.
const NAMED: u64 = 20;
/// Small, so that tables are written and merged while the process is killed.
const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 256 << 10, block_cache_bytes: 1 << 20, reserve_bytes: 0, ..RocksOptions::DEFAULT };

/// What a writer puts as its `count`th object.
fn object(writer: u64, count: u64) -> NewObject {
    let seed = hash(&[writer, count].map(u64::to_le_bytes).concat()).0;
    NewObject::new(seed.repeat(1 + seed[0] as usize).into())
}

fn key(writer: u64) -> Bytes {
    format!("writer/{writer}").into()
}

/// The count, then the ids of the objects up to it.
fn value(writer: u64, count: u64) -> Bytes {
    let ids = (count.saturating_sub(NAMED - 1)..=count).flat_map(|count| object(writer, count).id().0);
    count.to_be_bytes().into_iter().chain(ids).collect()
}

fn named(value: &[u8]) -> impl Iterator<Item = ObjectId> {
    value[8..].as_chunks::<32>().0.iter().map(|id| ObjectId(*id))
}

fn count_of(store: &RocksStore, writer: u64) -> Option<u64> {
    let value = store.record(Family::Refs, &key(writer)).unwrap()?;
    Some(u64::from_be_bytes(value[..8].try_into().unwrap()))
}

#[test]
#[ignore = "the process that the crash test kills; it never ends by itself"]
fn writer_process() {
    let folder = std::env::var(FOLDER).expect("the crash test sets it");
    let store = RocksStore::open_with(Path::new(&folder), OPTIONS).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || write(store, writer));
        }
        scope.spawn(|| {
            for round in 0_u64.. {
                collect_and_pack(&store, round);
            }
        });
    });
}

fn write(store: &RocksStore, writer: u64) {
    let first = count_of(store, writer).map_or(0, |count| count + 1);
    for count in first.. {
        let expect = if count == 0 { Expect::Absent } else { Expect::Value(value(writer, count - 1)) };
        let change = RecordChange { family: Family::Refs, key: key(writer), expect, value: Some(value(writer, count)) };
        let made = object(writer, count);
        let mark = if count.is_multiple_of(3) {
            let _lease = store.lease();
            store.put(&[made], Durability::NoSync).unwrap();
            store.commit(&[], &[change], Durability::Group).unwrap()
        } else {
            store.commit(&[made], &[change], Durability::Group).unwrap()
        };
        // One write, so that lines are never mixed.
        let line = format!("ack {writer} {count} {}\n", mark.0);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn marked(store: &RocksStore, collection: &Collection) -> HashSet<ObjectId> {
    let records = store.records(Family::Refs, b"", None, usize::MAX).unwrap().into_iter().map(|(_, value)| value);
    let lost = collection.displaced().into_iter().map(|lost| lost.value);
    records.chain(lost).flat_map(|value| named(&value).collect::<Vec<_>>()).collect()
}

fn collect_and_pack(store: &RocksStore, round: u64) {
    let collection = store.begin_collection(Duration::from_secs(10)).unwrap();
    let live = marked(store, &collection);
    store.sweep(&collection, &|id| live.contains(&id), Sweep::Drop).unwrap();
    drop(collection);
    let hints: Vec<PackHint> = live.into_iter().map(|id| PackHint { id, kind: Kind::File, near: 0 }).collect();
    store.pack(&hints, Effort::Idle).unwrap();
    store.repack().unwrap();
    if round % 4 == 3 {
        store.compact().unwrap();
    }
}

/// What the parent was told.
#[derive(Default)]
struct Told {
    counts: BTreeMap<u64, u64>,
    mark: Mark,
}

/// Runs the process, kills it after so many acknowledgements, and notes all that it gave.
fn run_and_kill(folder: &Path, after: u64, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    while let Some(Ok(line)) = lines.next() {
        let Some(numbers) = line.strip_prefix("ack ") else { continue };
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        told.counts.insert(numbers[0], numbers[1]);
        told.mark = told.mark.max(Mark(numbers[2]));
        seen += 1;
        if seen == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= after, "the process ended by itself after {seen} of {after}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("it is a number"));
    let seed = number("HELIX_SEED").unwrap_or_else(|| rand::rng().next_u64());
    println!("HELIX_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..number("HELIX_CAMPAIGN").unwrap_or(5) {
        run_and_kill(folder.path(), random.random_range(1..1_500), &mut told);
        let store = RocksStore::open_with(folder.path(), OPTIONS).unwrap();
        store.verify_acknowledged(told.mark).unwrap();
        for (writer, count) in &told.counts {
            let found = count_of(&store, *writer).unwrap();
            assert!(found >= *count, "round {round}: writer {writer} was told of {count}, and {found} is there");
            assert_eq!(store.record(Family::Refs, &key(*writer)).unwrap().unwrap(), value(*writer, found));
            for count in found.saturating_sub(NAMED - 1)..=found {
                let expected = object(*writer, count);
                assert_eq!(&store.read(expected.id()).unwrap(), expected.bytes(), "round {round}");
            }
        }
        let checked = store.verify().unwrap();
        assert!(checked.is_sound(), "round {round}: {:?} {:?}", checked.damaged, checked.faults);
        store.close().unwrap();
    }
}
