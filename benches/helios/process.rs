//! In one process, without a working folder: what a program pays that calls the libraries, beside libgit2 and gix.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use helix_objects::{Cached, Durability, Kind, NewObject, ObjectStore, PackHint};
use helix_protocol::{FileMode, ObjectId, Timestamp};
use helix_rocks::{Effort, RocksStore};
use helix_versions::{
    BranchName, Caller, CreateOptions, Elsewhere, Existing, FileEdit, FilesRequest, Repository, ResetKind, Signature, Start,
    WorkspaceName, entry_at,
};

use crate::report::{Figure, Scale, quantile, readable};
use crate::tools::Stage;

/// The folder that commits are made in has this many files, in ten folders.
const FILES: usize = 100;
/// Bytes of the file that changes.
const LONG: usize = 10 * 1024;
/// Who commits in groups.
const WRITERS: usize = 16;

type Store = Arc<Cached<RocksStore>>;

/// Commits, branches, steps back, and reads of each tier.
pub fn library(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let store: Store = Arc::new(Cached::new(RocksStore::open(&stage.folder("process")?)?, 512 << 20));
    let repository = repository(&store, Durability::NoSync)?;
    let mut figures = commits(stage, &repository, scale)?;
    figures.extend(sustained(stage, scale)?);
    figures.extend(steps(&repository, scale)?);
    figures.extend(reads(stage, &store, &repository, scale)?);
    figures.extend(agent_loop(stage, scale)?);
    figures.extend(groups(stage, scale)?);
    Ok(figures)
}

fn who() -> Signature {
    Signature { name: "Bench".into(), email: "bench@localhost".into(), time: Timestamp::now(), offset_minutes: 0 }
}

fn caller() -> Caller {
    Caller { workspace: WorkspaceName::main(), who: who(), durability: None, committer: None }
}

fn repository(store: &Store, durability: Durability) -> Result<Repository> {
    let options = CreateOptions { branch: "main".parse()?, root: String::new(), durability, who: who() };
    let repository = Repository::create(Arc::clone(store) as _, options)?;
    let edits = (0..FILES).map(|number| edit(&path(number), content(number, 0))).collect();
    commit(&repository, edits)?;
    Ok(repository)
}

fn path(number: usize) -> String {
    format!("part{}/file{number:03}.py", number % 10)
}

/// Ten KiB of text of which a line tells the version.
fn content(number: usize, version: usize) -> Bytes {
    let mut text = format!("# file {number}, version {version}\n");
    while text.len() < LONG {
        text += &format!("value_{} = {}\n", text.len(), text.len() * (number + 1) % 9_973);
    }
    text.truncate(LONG);
    Bytes::from(text)
}

fn edit(path: &str, bytes: Bytes) -> FileEdit {
    FileEdit { path: path.as_bytes().to_vec(), content: Some((FileMode::Regular, bytes)) }
}

fn commit(repository: &Repository, edits: Vec<FileEdit>) -> Result<()> {
    let request = FilesRequest {
        caller: caller(),
        expect: None,
        edits,
        message: "next".to_owned(),
        author: None,
        metadata: BTreeMap::new(),
        allow_empty: false,
    };
    repository.commit_files(&request)?;
    Ok(())
}

/// Microseconds of each of `count` calls.
fn micros(count: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    (0..count)
        .map(|round| {
            let begin = Instant::now();
            call(round)?;
            Ok(begin.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// One 10 KiB file changes in each commit; the three libraries take turns, a hundred commits each.
fn commits(stage: &Stage, repository: &Repository, scale: Scale) -> Result<Vec<Figure>> {
    let libgit2 = Libgit2::new(&stage.folder("libgit2")?)?;
    let gitoxide = Gitoxide::new(&stage.folder("gix")?)?;
    let (rounds, batch) = (scale.pick(20, 2), 100);
    let (mut ours, mut two, mut ox) = (Vec::new(), Vec::new(), Vec::new());
    let mut version = 0;
    for _ in 0..rounds {
        // Made before, so that nobody pays for the generator.
        let contents: Vec<Bytes> = (1..=batch).map(|step| content(42, version + step)).collect();
        version += batch;
        ours.extend(micros(batch, |at| commit(repository, vec![edit(&path(42), contents[at].clone())]))?);
        two.extend(micros(batch, |at| libgit2.commit(&contents[at]))?);
        ox.extend(micros(batch, |at| gitoxide.commit(&contents[at]))?);
    }
    let per_second = ours.len() as f64 / (ours.iter().sum::<f64>() / 1e6);
    let [ours, two, ox] = [ours, two, ox].map(sorted);
    let median = |values: &[f64]| quantile(values, 0.5);
    let name = "in process: a commit of one 10 KiB file, class nosync";
    Ok(vec![
        Figure::new(format!("{name}: p50 of {}", ours.len()), median(&ours), "µs").at_most(70.0),
        Figure::new(format!("{name}: p99"), quantile(&ours, 0.99), "µs"),
        Figure::new(format!("{name}: by one writer, in turns"), per_second, "commits/s"),
        Figure::new(format!("{name}, beside libgit2"), median(&ours), "µs")
            .against(format!("libgit2, blob, trees and commit without an index: {} µs", readable(median(&two))))
            .times(median(&two) / median(&ours), Some(5.0)),
        Figure::new(format!("{name}, beside gix"), median(&ours), "µs")
            .against(format!("gix, the same: {} µs", readable(median(&ox))))
            .times(median(&ox) / median(&ours), Some(5.0)),
    ])
}

/// One writer for as long as it takes to fill several of the database's write buffers, so that what they cost later is paid.
fn sustained(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let store: Store = Arc::new(Cached::new(RocksStore::open(&stage.folder("sustained")?)?, 512 << 20));
    let repository = repository(&store, Durability::NoSync)?;
    let (rounds, batch) = (scale.pick(60, 2), 500);
    let mut took = Duration::ZERO;
    for round in 0..rounds {
        let contents: Vec<Bytes> = (1..=batch).map(|step| content(42, round * batch + step)).collect();
        let begin = Instant::now();
        contents.into_iter().try_for_each(|content| commit(&repository, vec![edit(&path(42), content)]))?;
        took += begin.elapsed();
    }
    let count = rounds * batch;
    let written = readable((count * LONG) as f64 / f64::from(1 << 20));
    let name = "in process: a commit of one 10 KiB file, class nosync: sustained by one writer";
    Ok(vec![
        Figure::new(name, count as f64 / took.as_secs_f64(), "commits/s")
            .against(format!("{count} commits, {written} MiB of files"))
            .at_least(14_000.0),
    ])
}

/// Branches, and one commit back.
fn steps(repository: &Repository, scale: Scale) -> Result<Vec<Figure>> {
    let count = scale.pick(1_000, 50);
    let head = repository.head(&WorkspaceName::main())?.snapshot.context("a head")?;
    let branch = sorted(micros(count, |round| {
        let name: BranchName = format!("b{round}").parse()?;
        repository.create_branch(&caller(), &name, head, Existing::Refuse)?;
        Ok(())
    })?);
    let back = sorted(micros(count, |_| {
        let parent = repository.resolve(&WorkspaceName::main(), "HEAD~1")?;
        repository.reset(&caller(), parent, ResetKind::Hard)?;
        Ok(())
    })?);
    Ok(vec![
        Figure::new("in process: a branch: p50", quantile(&branch, 0.5), "µs").at_most(70.0),
        Figure::new("in process: back one commit: p50", quantile(&back, 0.5), "µs").at_most(100.0),
    ])
}

/// A read of each tier.
fn reads(stage: &Stage, store: &Store, repository: &Repository, scale: Scale) -> Result<Vec<Figure>> {
    let count = scale.pick(20_000, 1_000);
    let main = WorkspaceName::main();
    let paths: Vec<String> = (0..FILES).map(path).collect();
    let each = |count: usize, read: &mut dyn FnMut(usize) -> Result<()>| -> Result<f64> {
        let begin = Instant::now();
        for round in 0..count {
            read(round)?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6 / count as f64)
    };
    let mut of_tree = |round: usize| -> Result<()> {
        ensure!(repository.read_file(&main, paths[round % FILES].as_bytes())?.is_some(), "a file of the head");
        Ok(())
    };
    each(FILES, &mut of_tree)?;
    let l0 = each(count, &mut of_tree)?;

    let ids: Vec<ObjectId> = (0..1_000).map(|number| NewObject::new(content(number, 1_000_000)).id()).collect();
    let objects: Vec<NewObject> = (0..1_000).map(|number| NewObject::new(content(number, 1_000_000))).collect();
    store.put(&objects, Durability::NoSync)?;
    let mut of_cache = |round: usize| -> Result<()> {
        store.read(ids[round % ids.len()])?;
        Ok(())
    };
    let just_put = each(count, &mut of_cache)?;
    // What nobody asked for in a while is kept compressed, until somebody does.
    store.squeeze();
    let l1 = each(ids.len(), &mut of_cache)?;
    // The same from a store that was just opened, without a cache in front.
    let batches = |cold: &RocksStore| {
        let read = micros(10, |round| {
            let found = cold.get_many(&ids[round * 100..(round + 1) * 100])?;
            ensure!(found.iter().all(Option::is_some), "what was put is there");
            Ok(())
        })?;
        Ok::<_, anyhow::Error>(quantile(&sorted(read), 0.5) / 1e3)
    };
    let folder = stage.folder("cold")?;
    let cold = RocksStore::open(&folder)?;
    cold.put(&objects, Durability::Sync)?;
    cold.close()?;
    let cold = RocksStore::open(&folder)?;
    let loose = batches(&cold)?;
    let hints: Vec<PackHint> = ids.iter().map(|id| PackHint { id: *id, kind: Kind::File, near: 0 }).collect();
    ensure!(cold.pack(&hints, Effort::Idle)?.objects > 0, "something was packed");
    cold.close()?;
    let packed = batches(&RocksStore::open(&folder)?)?;
    Ok(vec![
        Figure::new("in process: a file of the head from L0", l0, "µs").at_most(1.0),
        Figure::new("in process: a 10 KiB object from L1, kept compressed", l1, "µs").at_most(10.0),
        Figure::new("in process: a 10 KiB object from L1, asked for a moment ago", just_put, "µs").at_most(10.0),
        Figure::new("in process: 100 objects of 10 KiB from L2, never read before: p50", loose, "ms").at_most(5.0),
        Figure::new("in process: 100 objects of 10 KiB from L2, out of cold packs: p50", packed, "ms").at_most(5.0),
    ])
}

/// What the seed's agents do: write a variant, commit it, read some files, and go back when it was no better.
fn agent_loop(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let store: Store = Arc::new(Cached::new(RocksStore::open(&stage.folder("loop")?)?, 512 << 20));
    let repository = repository(&store, Durability::NoSync)?;
    let main = WorkspaceName::main();
    for round in 0..scale.pick(2_000, 100) {
        commit(&repository, vec![edit(&path(42), content(42, round + 1))])?;
        for number in 0..5 {
            let head = repository.resolve_tree(&main, "HEAD")?;
            let found = entry_at(&*store, head, path((round * 7 + number) % FILES).as_bytes())?;
            store.read(found.context("a file of the head")?.id)?;
        }
        if round % 3 == 0 {
            let parent = repository.resolve(&main, "HEAD~1")?;
            repository.switch(&caller(), &Start::Detached(parent), Elsewhere::Allow)?;
            let branch: BranchName = "main".parse()?;
            repository.switch(&caller(), &Start::Branch(branch), Elsewhere::Allow)?;
        }
    }
    let stats = store.cache_stats();
    let ratio = stats.hits as f64 / (stats.hits + stats.misses).max(1) as f64 * 100.0;
    Ok(vec![Figure::new("in process: hits of L1 in the agent loop", ratio, "%").at_least(90.0)])
}

/// Many writers that all wait for the disk.
fn groups(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let store: Store = Arc::new(Cached::new(RocksStore::open(&stage.folder("groups")?)?, 64 << 20));
    let repository = repository(&store, Durability::Group)?;
    let each = scale.pick(200, 10);
    let before = store.store().syncs();
    let begin = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let repository = &repository;
                scope.spawn(move || -> Result<()> {
                    for round in 0..each {
                        commit(repository, vec![edit(&path(writer), content(writer, round + 1))])?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    let (done, syncs) = ((WRITERS * each) as f64, (store.store().syncs() - before).max(1) as f64);
    let per_second = done / begin.elapsed().as_secs_f64();
    Ok(vec![
        Figure::new(format!("in process: class group, {WRITERS} writers: commits per sync"), done / syncs, "commits"),
        Figure::new(format!("in process: class group, {WRITERS} writers"), per_second, "commits/s"),
    ])
}

/// libgit2 without an index: a blob, the two trees above it, a commit, the branch.
struct Libgit2(git2::Repository);

impl Libgit2 {
    fn new(folder: &Path) -> Result<Self> {
        let repository = git2::Repository::init(folder)?;
        {
            let mut root = repository.treebuilder(None)?;
            for part in 0..10 {
                let mut tree = repository.treebuilder(None)?;
                for number in (part..FILES).step_by(10) {
                    tree.insert(format!("file{number:03}.py"), repository.blob(&content(number, 0))?, 0o100_644)?;
                }
                root.insert(format!("part{part}"), tree.write()?, 0o040_000)?;
            }
            let who = git2::Signature::now("Bench", "bench@localhost")?;
            let tree = repository.find_tree(root.write()?)?;
            repository.commit(Some("refs/heads/main"), &who, &who, "first", &tree, &[])?;
        }
        repository.set_head("refs/heads/main")?;
        Ok(Self(repository))
    }

    fn commit(&self, bytes: &[u8]) -> Result<()> {
        let repository = &self.0;
        let parent = repository.head()?.peel_to_commit()?;
        let root = parent.tree()?;
        let part = root.get_name("part2").context("the folder")?.to_object(repository)?.peel_to_tree()?;
        let mut tree = repository.treebuilder(Some(&part))?;
        tree.insert("file042.py", repository.blob(bytes)?, 0o100_644)?;
        let mut whole = repository.treebuilder(Some(&root))?;
        whole.insert("part2", tree.write()?, 0o040_000)?;
        let who = git2::Signature::now("Bench", "bench@localhost")?;
        let tree = repository.find_tree(whole.write()?)?;
        repository.commit(Some("HEAD"), &who, &who, "next", &tree, &[&parent])?;
        Ok(())
    }
}

/// gix, the same.
struct Gitoxide(gix::Repository);

impl Gitoxide {
    fn new(folder: &Path) -> Result<Self> {
        // libgit2's beginning serves both.
        Libgit2::new(folder)?;
        Ok(Self(gix::open(folder)?))
    }

    fn commit(&self, bytes: &[u8]) -> Result<()> {
        let repository = &self.0;
        let parent = repository.head_commit()?;
        let mut tree = repository.edit_tree(parent.tree_id()?)?;
        tree.upsert("part2/file042.py", gix::objs::tree::EntryKind::Blob, repository.write_blob(bytes)?)?;
        let tree = tree.write()?;
        let mut buffer = gix::date::parse::TimeBuf::default();
        let who = gix::actor::Signature {
            name: "Bench".into(),
            email: "bench@localhost".into(),
            time: gix::date::Time::now_local_or_utc(),
        };
        let who = who.to_ref(&mut buffer);
        repository.commit_as(who, who, "HEAD", "next", tree, [parent.id])?;
        Ok(())
    }
}
