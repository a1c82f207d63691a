//! Import and export of a whole history beside `git clone --no-local` of the same repository, in turns.
//!
//! `git_history COMMITS [ROUNDS]` makes a repository of so many commits (or takes the one that `GIT_HISTORY` names), then in each
//! round clones it with git, imports it into a new store and exports that into a new repository. One JSON line per round, then the
//! medians of the ratios.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use helix_objects::{Durability, RecordStore};
use helix_protocol::Timestamp;
use helix_rocks::RocksStore;
use helix_versions::git::{ExportRefs, export_history, import_history};
use helix_versions::{Caller, CreateOptions, Repository, Signature, WorkspaceName};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let commits: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let rounds: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let source = match std::env::var_os("GIT_HISTORY") {
        Some(path) => path.into(),
        None => {
            let path = folder.path().join("source.git");
            generate(&path, commits);
            path
        }
    };
    let (mut import_ratios, mut export_ratios) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let at = |name: &str| folder.path().join(format!("{name}-{round}"));
        let clone = timed(|| git(&["clone", "-q", "--bare", "--no-local", text(&source), text(&at("clone"))]));
        let store: Arc<dyn RecordStore> = Arc::new(RocksStore::open(&at("store")).expect("the store opens"));
        let who = Signature { name: "bench".into(), email: "bench@localhost".into(), time: Timestamp(0), offset_minutes: 0 };
        let options = CreateOptions {
            branch: "main".parse().expect("it is a branch's name"),
            root: String::new(),
            durability: Durability::Group,
            who: who.clone(),
        };
        let repository = Repository::create(store.clone(), options).expect("the store is new");
        let caller = Caller { workspace: WorkspaceName::main(), who, durability: None, committer: None };
        let mut report = None;
        let import = timed(|| report = Some(import_history(&repository, &caller, &source, &mut |_| {}).expect("it imports")));
        let export = timed(|| {
            export_history(&repository, &caller, &at("export"), &ExportRefs::All, &mut |_| {}).expect("it exports");
        });
        let same = refs(&source) == refs(&at("export"));
        let stats = store.stats().expect("the store is open");
        let report = report.expect("it was imported");
        println!(
            "{{\"commits\":{},\"objects\":{},\"clone_s\":{clone:.3},\"import_s\":{import:.3},\"export_s\":{export:.3},\"same\":{same},\"clone_bytes\":{},\"store_bytes\":{},\"export_bytes\":{}}}",
            report.commits,
            report.objects,
            bytes(&at("clone")),
            stats.stored_bytes,
            bytes(&at("export")),
        );
        import_ratios.push(import / clone);
        export_ratios.push(export / clone);
        store.close().expect("it closes");
        for name in ["clone", "store", "export"] {
            std::fs::remove_dir_all(at(name)).expect("it was made here");
        }
    }
    println!("{{\"import_over_clone\":{:.3},\"export_over_clone\":{:.3}}}", median(import_ratios), median(export_ratios));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timed(act: impl FnOnce()) -> f64 {
    let began = Instant::now();
    act();
    began.elapsed().as_secs_f64()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the temporary folder's name is text")
}

fn git(arguments: &[&str]) {
    let status = Command::new("git").args(["-c", "gc.auto=0"]).args(arguments).status().expect("git is installed");
    assert!(status.success(), "git {arguments:?}");
}

fn refs(repository: &Path) -> String {
    let output = Command::new("git").arg("-C").arg(repository).args(["for-each-ref"]).output().expect("git is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().map_or(0, |meta| meta.len()) })
        .sum()
}

/// A project of a thousand files in forty folders; each commit edits one to three of them in the middle, now and then a branch is
/// merged. The same every time.
fn generate(path: &Path, commits: u64) {
    git(&["init", "-q", "--bare", "-b", "main", text(path)]);
    let mut child = Command::new("git")
        .arg("-C")
        .arg(path)
        .args(["fast-import", "--quiet", "--force"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut out = std::io::BufWriter::new(child.stdin.take().expect("it was asked for"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut files: Vec<Vec<String>> = (0..1_000)
        .map(|file| (0..20 + next(120)).map(|line| format!("file {file} line {line}: {:x}", next(u64::MAX))).collect())
        .collect();
    let name = |file: usize| format!("src/part{:02}/module{:02}/file{file:03}.rs", file % 8, file % 40);
    for commit in 0..commits {
        let branch = if commit % 50 == 49 { "refs/heads/side" } else { "refs/heads/main" };
        let mut text = format!(
            "commit {branch}\nmark :{}\ncommitter Ann <ann@example.org> {} +0100\ndata 11\nedit {commit:06}\n",
            commit + 1,
            1_600_000_000 + commit * 60
        );
        if commit > 0 {
            text += &format!("from :{commit}\n");
        }
        if commit % 50 == 0 && commit > 50 {
            text += &format!("merge :{}\n", commit - 1 - next(40));
        }
        let touched: Vec<usize> =
            if commit == 0 { (0..files.len()).collect() } else { (0..=next(3)).map(|_| next(1_000) as usize).collect() };
        for file in touched {
            let place = next(files[file].len() as u64) as usize;
            files[file][place] = format!("edited at {commit}: {:x}", next(u64::MAX));
            let content = files[file].join("\n");
            text += &format!("M 100644 inline {}\ndata {}\n{content}\n", name(file), content.len());
        }
        out.write_all(text.as_bytes()).expect("git reads it");
        out.write_all(b"\n").expect("git reads it");
    }
    drop(out);
    assert!(child.wait().expect("it was started").success(), "git fast-import");
    git(&["-C", text(path), "repack", "-adq", "--window=10"]);
}
