//! How long a commit takes in process: `cargo run --release -p helix-rocks --example commit_latency [commits] [nosync|group|sync]`.
//!
//! Each commit is a new file of 10 KB, a folder, a version, a record with compare-and-swap and a new record, through the cache.
//! Hashing is part of it. Then reads: from the cache, and 100 objects at once from the database; then opening the store.

use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_objects::{Cached, Durability, Expect, Family, NewObject, ObjectStore, RecordChange, RecordStore, hash};
use helix_protocol::ObjectId;
use helix_rocks::RocksStore;

fn text(seed: u64) -> Bytes {
    let words = hash(&seed.to_le_bytes()).0;
    let line =
        |at: u64| format!("    let value_{} = call_{}({at}, {seed});\n", words[(at % 32) as usize], words[(at / 7 % 32) as usize]);
    let mut text: String = (0..260).map(line).collect();
    text.truncate(10_240);
    text.into()
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let sum: Duration = times.iter().sum();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_nanos() as f64 / 1000.0;
    println!(
        "{{\"what\":\"{what}\",\"count\":{},\"p50_us\":{:.1},\"p95_us\":{:.1},\"p99_us\":{:.1},\"min_us\":{:.1},\"per_second\":{:.0}}}",
        times.len(),
        at(50),
        at(95),
        at(99),
        at(0),
        times.len() as f64 / sum.as_secs_f64()
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let durability = match arguments.next().as_deref() {
        Some("sync") => Durability::Sync,
        Some("group") => Durability::Group,
        _ => Durability::NoSync,
    };
    let path = std::env::current_dir()?.join(format!("target-commit-{}", std::process::id()));
    let store = Cached::new(RocksStore::open(&path)?, 512 << 20);
    let contents: Vec<Bytes> = (0..count).map(text).collect();
    let (mut head, mut times, mut ids) = (None::<Bytes>, Vec::new(), Vec::new());
    for (number, content) in contents.iter().enumerate() {
        let started = Instant::now();
        let file = NewObject::new(content.clone());
        let tree = NewObject::new([b"tree src/main.rs ".as_slice(), &file.id().0].concat().into());
        let before = head.as_deref().unwrap_or_default();
        let snapshot = NewObject::new([b"snapshot agent model prompt step ".as_slice(), &tree.id().0, before].concat().into());
        let value = Bytes::copy_from_slice(&snapshot.id().0);
        let expect = head.take().map_or(Expect::Absent, Expect::Value);
        let branch =
            RecordChange { family: Family::Refs, key: Bytes::from_static(b"branch/main"), expect, value: Some(value.clone()) };
        let key = Bytes::copy_from_slice(&(number as u64).to_be_bytes());
        let entry = [b"commit main agent ".as_slice(), &value].concat().into();
        let log = RecordChange { family: Family::Oplog, key, expect: Expect::Absent, value: Some(entry) };
        ids.push(file.id());
        store.commit(&[file, tree, snapshot], &[branch, log], durability)?;
        times.push(started.elapsed());
        head = Some(value);
    }
    show("commit", times);
    let read = |id: &ObjectId| {
        let started = Instant::now();
        let found = store.read(*id).map(|bytes| bytes.len());
        found.map(|_| started.elapsed())
    };
    show("read from the cache", ids.iter().rev().take(5_000).map(read).collect::<Result<_, _>>()?);
    drop(store);
    let started = Instant::now();
    let store = Cached::new(RocksStore::open(&path)?, 512 << 20);
    show("open after a kill", vec![started.elapsed()]);
    store.store().compact()?;
    let batch = |ids: &[ObjectId]| {
        let started = Instant::now();
        store.store().get_many(ids).map(|_| started.elapsed())
    };
    show("100 objects from the database", ids.chunks_exact(100).take(100).map(batch).collect::<Result<_, _>>()?);
    store.close()?;
    let open = |_| {
        let started = Instant::now();
        let store = RocksStore::open(&path)?;
        let took = started.elapsed();
        store.close().map(|()| took)
    };
    show("open", (0..20).map(open).collect::<Result<_, _>>()?);
    std::fs::remove_dir_all(path)?;
    Ok(())
}
