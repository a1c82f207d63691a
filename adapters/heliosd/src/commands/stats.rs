//! `helios stats`: how the repository does.

use clap::Parser;
use helix_objects::{Family, RecordStore};
use helix_protocol::{Failure, Timestamp};
use serde_json::{Map, Value, json};

use super::Verb;
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;

/// Shows figures of the repository, one per line
///
/// commit_latency_* are of the latest commits in this engine, from the request to its answer; commits_per_hour counts those
/// of the last hour; storage_utilization is everything the store takes on disk; memory_usage is the whole engine,
/// memory_of_trees what it holds of all repositories' folders and heads (L0), and memory_of_content what it holds of their content,
/// compressed (L1). What these two are at most between commands, performance.l0_cache_size and performance.l1_cache_size say.
#[derive(Parser)]
#[command(name = "stats", after_help = "Examples:\n  helios stats\n  helios stats | grep commit_latency\n  helios stats --json")]
pub struct Stats {}

/// Operations read at once.
const AT_ONCE: usize = 1_000;
const HOUR: i64 = 3_600 * 1_000_000;

impl Verb for Stats {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let rocks = here.open.store.store().rocks_stats()?;
        let cache = here.open.store.cache_stats();
        let latency = here.open.meter.percentiles();
        let reads = cache.hits + cache.misses;
        let hit_ratio = (reads > 0).then(|| cache.hits as f64 / reads as f64);
        let per_hour = commits_of_last_hour(&here)?;
        let snapshots = count(&here, Family::Snapshots)?;
        let memory = memory_bytes();
        let milliseconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}ms"));
        let rows: Vec<(&str, String, Value)> = vec![
            ("commit_latency_p50", milliseconds(latency.map(|found| found.p50)), json!(latency.map(|found| found.p50))),
            ("commit_latency_p95", milliseconds(latency.map(|found| found.p95)), json!(latency.map(|found| found.p95))),
            ("commit_latency_p99", milliseconds(latency.map(|found| found.p99)), json!(latency.map(|found| found.p99))),
            ("commits_measured", here.open.meter.commits().to_string(), json!(here.open.meter.commits())),
            (
                "cache_hit_ratio",
                hit_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1}%", ratio * 100.0)),
                json!(hit_ratio),
            ),
            ("cache_bytes", bytes(cache.bytes), json!(cache.bytes)),
            ("storage_utilization", bytes(rocks.stored_bytes), json!(rocks.stored_bytes)),
            ("logical_bytes", bytes(rocks.logical_bytes), json!(rocks.logical_bytes)),
            ("compression_ratio", format!("{:.2}:1", rocks.compression_ratio()), json!(rocks.compression_ratio())),
            ("compaction_pending", bytes(rocks.compaction_pending_bytes), json!(rocks.compaction_pending_bytes)),
            ("commits_per_hour", per_hour.to_string(), json!(per_hour)),
            ("active_snapshots", snapshots.to_string(), json!(snapshots)),
            ("objects", rocks.objects.to_string(), json!(rocks.objects)),
            ("packs", rocks.groups.to_string(), json!(rocks.groups)),
            ("syncs", rocks.syncs.to_string(), json!(rocks.syncs)),
            ("memory_usage", bytes(memory), json!(memory)),
            ("memory_of_database", bytes(rocks.memory_bytes), json!(rocks.memory_bytes)),
            ("memory_of_trees", bytes(context.engine.live_bytes() as u64), json!(context.engine.live_bytes())),
            ("memory_of_content", bytes(context.engine.content_bytes() as u64), json!(context.engine.content_bytes())),
            ("memory_of_folders", bytes(here.open.folder_bytes() as u64), json!(here.open.folder_bytes())),
        ];
        if context.is_json() {
            let object: Map<String, Value> = rows.into_iter().map(|(key, _, value)| (key.to_owned(), value)).collect();
            context.console.json(&object.into())?;
        } else {
            rows.iter().try_for_each(|(key, text, _)| context.console.line(format!("{key}: {text}")))?;
        }
        Ok(OK)
    }
}

fn commits_of_last_hour(here: &Here) -> Result<usize, Failure> {
    let since = Timestamp(Timestamp::now().0 - HOUR);
    let (mut before, mut commits) = (None, 0);
    loop {
        let some = here.repository().operations(before, AT_ONCE)?;
        let recent = some.iter().filter(|operation| operation.time >= since);
        commits += recent.clone().filter(|operation| operation.verb == "commit").count();
        if some.len() < AT_ONCE || recent.count() < some.len() {
            return Ok(commits);
        }
        before = some.last().map(|operation| operation.number);
    }
}

fn count(here: &Here, family: Family) -> Result<usize, Failure> {
    let (mut after, mut found) = (None, 0);
    loop {
        let some = here.open.store.records(family, b"", after.as_deref(), AT_ONCE)?;
        found += some.len();
        match some.last() {
            Some((key, _)) if some.len() == AT_ONCE => after = Some(key.clone()),
            _ => return Ok(found),
        }
    }
}

/// The memory of this process that is in use, in bytes.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// A size as people read it.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.1}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            (bytes(0), bytes(1_023), bytes(1_536), bytes(5 << 30)),
            ("0B".into(), "1023B".into(), "1.5KB".into(), "5.0GB".into())
        );
    }
}
