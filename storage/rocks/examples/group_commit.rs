//! How many commits share a sync: `cargo run --release -p helix-rocks --example group_commit [writers] [commits of each]`.
//!
//! Every commit is one object of 2 KB and one record, in class `group`.

use std::time::Instant;

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, NewObject, ObjectStore, RecordChange, RecordStore};
use helix_rocks::RocksStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let writers = numbers.next().transpose()?.unwrap_or(16);
    let rounds = numbers.next().transpose()?.unwrap_or(200);
    let folder = std::env::current_dir()?.join(format!("target-group-commit-{}", std::process::id()));
    let store = RocksStore::open(&folder)?;
    let started = Instant::now();
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                scope.spawn({
                    let store = &store;
                    move || write(store, writer, rounds)
                })
            })
            .collect();
        let mut times: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().expect("a writer does not panic")).collect();
        times.sort_unstable();
        times
    });
    let seconds = started.elapsed().as_secs_f64();
    let (commits, syncs) = (times.len() as u64, store.syncs());
    println!(
        "{{\"writers\":{writers},\"commits\":{commits},\"syncs\":{syncs},\"commits_per_sync\":{:.1},\"commits_per_second\":{:.0},\"p50_us\":{},\"p99_us\":{}}}",
        commits as f64 / syncs as f64,
        commits as f64 / seconds,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    store.close()?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// How long each commit took, in microseconds.
fn write(store: &RocksStore, writer: u64, rounds: u64) -> Vec<u64> {
    let commit = |round: u64| {
        let object = NewObject::new(format!("{writer} {round} ").repeat(200).into());
        let key = Bytes::from(format!("branch-{writer}"));
        let change = RecordChange { family: Family::Refs, key, expect: Expect::Anything, value: Some(round.to_string().into()) };
        let started = Instant::now();
        store.commit(&[object], &[change], Durability::Group).expect("a commit succeeds");
        started.elapsed().as_micros() as u64
    };
    (0..rounds).map(commit).collect()
}
