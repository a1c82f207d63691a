//! What following a working folder costs, beside what git needs for the same: one JSON line per figure.
//!
//! `cargo run --release -p helix-versions --features git --example followed -- 100 1000 10000`

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use helix_objects::{Durability, MemoryStore, ObjectStore};
use helix_protocol::ObjectId;
use helix_versions::{Events, FolderRules, LocalChanges, WorkingFolder};

const ROUNDS: usize = 41;
/// New workspaces of larger folders are not made: that takes disk, and tells nothing new.
const MOST_COPIED: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    for count in std::env::args().skip(1) {
        measure(count.parse()?)?;
    }
    Ok(())
}

fn measure(count: usize) -> Result<(), Box<dyn Error>> {
    let place = std::env::temp_dir().join(format!("followed-{}-{count}", std::process::id()));
    let root = place.join("root");
    for number in 0..count {
        let path = root.join(format!("d{:03}/e{:02}/f{number}.py", number / 100, number / 10 % 10));
        fs::create_dir_all(path.parent().ok_or("a file lies in a folder")?)?;
        fs::write(path, format!("def f{number}():\n    return {number}\n").repeat(40))?;
    }
    for (name, events) in [("events", Events::Use), ("scan", Events::Ignore)] {
        let state = place.join(name);
        let store = MemoryStore::new();
        let started = Instant::now();
        let mut folder = WorkingFolder::open(&root, &state, FolderRules { events, ..FolderRules::default() })?;
        let mut base = commit(&mut folder, &store, None)?;
        tell(count, name, "first_refresh", &mut [started.elapsed()]);
        let mut figures: [(&str, Vec<Duration>); 4] = [
            ("refresh_one_changed", vec![]),
            ("status_unchanged", vec![]),
            ("checkout_one_changed", vec![]),
            ("status_after_checkout", vec![]),
        ];
        for round in 0..ROUNDS {
            fs::write(root.join("d000/e00/f1.py"), format!("changed = {round}\n").repeat(500))?;
            let before = base;
            figures[0].1.push(timed(|| commit(&mut folder, &store, Some(before)).map(|tree| base = tree))?);
            figures[1].1.push(timed(|| folder.status(&store, Some(base)).map(drop))?);
            figures[2].1.push(timed(|| folder.switch(&store, Some(base), before, LocalChanges::Keep).map(drop))?);
            figures[3].1.push(timed(|| folder.status(&store, Some(before)).map(drop))?);
            folder.switch(&store, Some(before), base, LocalChanges::Keep)?;
        }
        for (figure, times) in &mut figures {
            tell(count, name, figure, times);
        }
        let started = Instant::now();
        for _ in 0..1000 {
            folder.entry(b"d000/e00/f1.py").ok_or("the file is there")?;
        }
        tell(count, name, "entry_by_path", &mut [started.elapsed() / 1000]);
        println!(r#"{{"files":{count},"mode":"{name}","figure":"memory_bytes","value":{}}}"#, folder.memory_bytes());
        let mut times = Vec::new();
        for turn in 0..if count > MOST_COPIED { 0 } else { 5 } {
            let (root, state) = (place.join(format!("{name}-workspace-{turn}")), place.join(format!("{name}-state-{turn}")));
            fs::create_dir_all(&root)?;
            times.push(timed(|| {
                let mut made = WorkingFolder::open(&root, &state, FolderRules { events, ..FolderRules::default() })?;
                made.populate(&store, base, &folder).map(drop)
            })?);
        }
        tell(count, name, "workspace_created", &mut times);
        folder.save()?;
        drop(folder);
        let started = Instant::now();
        let mut folder = WorkingFolder::open(&root, &state, FolderRules { events, ..FolderRules::default() })?;
        folder.status(&store, Some(base))?;
        tell(count, name, "reopened_status", &mut [started.elapsed()]);
    }
    git(&place, &root, count)?;
    fs::remove_dir_all(&place)?;
    Ok(())
}

fn git(place: &Path, root: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]).args(arguments);
        command.output()
    };
    git(&["init", "-q"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "m"])?;
    let mut figures: [(&str, Vec<Duration>); 3] =
        [("add_and_commit", vec![]), ("status", vec![]), ("checkout_one_changed", vec![])];
    for round in 0..ROUNDS {
        fs::write(root.join("d000/e00/f1.py"), format!("changed = git {round}\n").repeat(500))?;
        figures[0].1.push(timed(|| git(&["add", "-A"]).and_then(|_| git(&["commit", "-q", "-m", "m"])))?);
        figures[1].1.push(timed(|| git(&["status", "--porcelain"]))?);
        figures[2].1.push(timed(|| git(&["checkout", "-q", "HEAD~1"]))?);
        git(&["checkout", "-q", "-"])?;
    }
    let mut times = Vec::new();
    for turn in 0..if count > MOST_COPIED { 0 } else { 5 } {
        let worktree = place.join(format!("worktree-{turn}"));
        let path = worktree.to_str().ok_or("the folder's name is text")?;
        times.push(timed(|| git(&["worktree", "add", "-q", "--detach", path]))?);
    }
    for (figure, times) in figures.iter_mut().map(|(figure, times)| (*figure, times)).chain([("workspace_created", &mut times)]) {
        tell(count, "git", figure, times);
    }
    Ok(())
}

fn commit(
    folder: &mut WorkingFolder,
    store: &MemoryStore,
    base: Option<ObjectId>,
) -> Result<ObjectId, helix_versions::VersionError> {
    let found = folder.refresh(store, base)?;
    store.put(&found.objects, Durability::NoSync)?;
    Ok(found.tree)
}

fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn tell(count: usize, mode: &str, figure: &str, times: &mut [Duration]) {
    if times.is_empty() {
        return;
    }
    times.sort_unstable();
    let micros = |at: usize| times[at].as_secs_f64() * 1e6;
    let (middle, least) = (micros(times.len() / 2), micros(0));
    println!(r#"{{"files":{count},"mode":"{mode}","figure":"{figure}","p50_us":{middle:.1},"min_us":{least:.1}}}"#);
}
