//! How long a repository's changes take in process, over RocksDB: commits of one file, branches, resets, reads.
//!
//! `cargo run --release -p helix-versions --example commit_speed -- [FOLDER]`; one JSON line per figure, times in microseconds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_objects::{Cached, Durability, MemoryStore, RecordStore};
use helix_protocol::{FileMode, Timestamp};
use helix_rocks::RocksStore;
use helix_versions::{
    Caller, CreateOptions, Existing, FileEdit, FilesRequest, Repository, ResetKind, Signature, Start, WorkspaceName,
};

const FILE_BYTES: usize = 10 << 10;
const COMMITS: usize = 4_000;

fn main() {
    let given = std::env::args().nth(1);
    let folder = given.map_or_else(|| std::env::temp_dir().join(format!("commit-speed-{}", std::process::id())), Into::into);
    for files in [100, 1_000, 10_000] {
        let repository = repository(&folder.join(files.to_string()));
        fill(&repository, files);
        commits(&repository, "rocksdb", files);
        branches_and_resets(&repository, files);
        reads(&repository, files);
    }
    // What the repository itself takes, without a database.
    let in_memory = create(Arc::new(MemoryStore::new()));
    fill(&in_memory, 1_000);
    commits(&in_memory, "store in memory", 1_000);
    many_writers(&folder.join("many"));
    std::fs::remove_dir_all(&folder).unwrap();
}

fn repository(path: &Path) -> Repository {
    std::fs::create_dir_all(path).unwrap();
    create(Arc::new(Cached::new(RocksStore::open(path).unwrap(), 512 << 20)))
}

fn create(store: Arc<dyn RecordStore>) -> Repository {
    let options =
        CreateOptions { branch: "main".parse().unwrap(), root: String::new(), durability: Durability::NoSync, who: who(0) };
    Repository::create(store, options).unwrap()
}

fn who(time: i64) -> Signature {
    Signature { name: "bench".to_owned(), email: String::new(), time: Timestamp(time), offset_minutes: 0 }
}

fn caller(workspace: &WorkspaceName, time: i64) -> Caller {
    Caller { workspace: workspace.clone(), who: who(time), durability: None, committer: None }
}

/// Twenty files in each folder.
fn path(file: usize) -> Vec<u8> {
    format!("src/part{}/module{}/file{}.py", file / 400, file / 20 % 20, file % 20).into_bytes()
}

/// Text that differs in each version.
fn content(seed: usize) -> Vec<u8> {
    let line = |number: usize| format!("value_{number} = compute({}, {})\n", number * 7, (seed * 31 + number) % 1_000);
    let mut text = format!("# version {seed}\n");
    (0..).map(line).take(FILE_BYTES / 16).for_each(|line| text += &line);
    text.truncate(FILE_BYTES);
    text.into_bytes()
}

fn request(workspace: &WorkspaceName, edits: Vec<FileEdit>, time: i64) -> FilesRequest {
    FilesRequest {
        caller: caller(workspace, time),
        expect: None,
        edits,
        message: format!("step {time}"),
        author: None,
        metadata: BTreeMap::new(),
        allow_empty: false,
    }
}

fn edit(file: usize, seed: usize) -> FileEdit {
    FileEdit { path: path(file), content: Some((FileMode::Regular, content(seed).into())) }
}

fn fill(repository: &Repository, files: usize) {
    let edits = (0..files).map(|file| edit(file, file)).collect();
    repository.commit_files(&request(&WorkspaceName::main(), edits, 1)).unwrap();
}

fn commits(repository: &Repository, store: &str, files: usize) {
    let requests: Vec<FilesRequest> = (0..COMMITS)
        .map(|count| request(&WorkspaceName::main(), vec![edit(count * 7 % files, files + count)], 2 + count as i64))
        .collect();
    let mut times = Vec::with_capacity(COMMITS);
    let began = Instant::now();
    for request in &requests {
        let start = Instant::now();
        repository.commit_files(request).unwrap();
        times.push(start.elapsed());
    }
    let rate = COMMITS as f64 / began.elapsed().as_secs_f64();
    report(&format!("commit one 10 KiB file, {store}"), files, times);
    println!("{{\"figure\":\"commits per second\",\"files\":{files},\"value\":{rate:.0}}}");
}

fn branches_and_resets(repository: &Repository, files: usize) {
    let main = WorkspaceName::main();
    let head = repository.resolve(&main, "HEAD").unwrap();
    let (mut branches, mut resets) = (Vec::new(), Vec::new());
    for count in 0..1_000 {
        let (name, caller) = (format!("b{count}").parse().unwrap(), caller(&main, 10_000 + count));
        let start = Instant::now();
        repository.create_branch(&caller, &name, head, Existing::Refuse).unwrap();
        branches.push(start.elapsed());
        let start = Instant::now();
        let to = repository.resolve(&main, "HEAD~1").unwrap();
        repository.reset(&caller, to, ResetKind::Hard).unwrap();
        resets.push(start.elapsed());
    }
    report("branch", files, branches);
    report("back one commit", files, resets);
}

fn reads(repository: &Repository, files: usize) {
    let main = WorkspaceName::main();
    let paths: Vec<Vec<u8>> = (0..files.min(1_000)).map(path).collect();
    for path in &paths {
        repository.read_file(&main, path).unwrap().unwrap();
    }
    let mut times = Vec::new();
    for path in paths.iter().cycle().take(20_000) {
        let start = Instant::now();
        repository.read_file(&main, path).unwrap().unwrap();
        times.push(start.elapsed());
    }
    report("read from memory", files, times);
}

/// Sixteen writers in workspaces of their own, each commit on disk.
fn many_writers(path: &Path) {
    const EACH: usize = 200;
    let repository = repository(path);
    fill(&repository, 1_000);
    let head = repository.resolve(&WorkspaceName::main(), "HEAD").unwrap();
    let names: Vec<WorkspaceName> = (0..16).map(|writer| format!("agent-{writer}").parse().unwrap()).collect();
    for name in &names {
        let branch = name.as_str().parse().unwrap();
        repository.add_workspace(&caller(&WorkspaceName::main(), 2), name, "", &Start::NewBranch(branch, head)).unwrap();
    }
    for durability in [Durability::NoSync, Durability::Group] {
        let began = Instant::now();
        let mut times: Vec<Duration> = std::thread::scope(|scope| {
            let write = |(writer, name)| {
                let repository = &repository;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for count in 0..EACH {
                        let mut request = request(name, vec![edit(writer * 31 + count % 31, writer * 1_000 + count)], count as i64);
                        request.caller.durability = Some(durability);
                        request.allow_empty = true;
                        let start = Instant::now();
                        repository.commit_files(&request).unwrap();
                        times.push(start.elapsed());
                    }
                    times
                })
            };
            let writers: Vec<_> = names.iter().enumerate().map(write).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        let rate = (16 * EACH) as f64 / began.elapsed().as_secs_f64();
        println!("{{\"figure\":\"16 writers, commits per second\",\"class\":\"{durability:?}\",\"value\":{rate:.0}}}");
        times.sort_unstable();
        report(&format!("16 writers, {durability:?}"), 1_000, times);
    }
}

fn report(figure: &str, files: usize, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1_000.0;
    let (p50, p95, p99, min) = (at(0.5), at(0.95), at(0.99), at(0.0));
    println!(
        "{{\"figure\":\"{figure}\",\"files\":{files},\"p50_us\":{p50:.2},\"p95_us\":{p95:.2},\"p99_us\":{p99:.2},\"min_us\":{min:.2}}}"
    );
}
