//! What is kept, what goes, what is found wrong, and what names a content.

use std::collections::HashSet;
use std::time::Duration;

use helix_objects::{Collect, Kind, Sweep};

use super::*;

const DAY: i64 = 86_400 * 1_000_000;

fn bed() -> (Bed, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (Bed::over(store.clone()), store)
}

fn collect(bed: &Bed, store: &MemoryStore, ttl: Option<Duration>, how: Sweep) -> Collected {
    let rule = Retention { ttl, operations: None };
    let options = CollectOptions { rule, now: Timestamp(10 * DAY), how, patience: Duration::ZERO };
    bed.repository.collect(store, &options, &Vec::new).unwrap()
}

#[test]
fn what_a_name_or_the_log_keeps_stays_and_the_rest_goes_with_its_short_id() {
    let (bed, store) = bed();
    let first = bed.commit(&[("a", Some("kept"))], "one").unwrap();
    let dropped = bed.commit(&[("a", Some("dropped"))], "two").unwrap();
    bed.repository.reset(&bed.caller(), first, ResetKind::Hard).unwrap();
    let tree = bed.repository.tree(dropped).unwrap();
    assert_eq!(collect(&bed, &store, None, Sweep::Drop).swept.dropped, 0, "the log can bring it back");
    let counted = collect(&bed, &store, Some(Duration::from_secs(86_400)), Sweep::DryRun);
    assert_eq!(
        (counted.swept.dropped, counted.dropped_snapshots, bed.resolve(&dropped.to_string()[..12]).unwrap()),
        (0, 0, dropped),
        "the last operation stays, and it names it"
    );
    // The operation that names it is not the last one any more.
    bed.new_branch("later", first);
    let counted = collect(&bed, &store, Some(Duration::from_secs(86_400)), Sweep::DryRun);
    assert_eq!((counted.swept.dropped, counted.dropped_snapshots, counted.expired.operations), (3, 1, 4));
    assert_eq!(bed.resolve(&dropped.to_string()).unwrap(), dropped, "a dry run changes nothing");
    let done = collect(&bed, &store, Some(Duration::from_secs(86_400)), Sweep::Drop);
    assert_eq!(done, counted);
    assert!(matches!(bed.resolve(&dropped.to_string()[..12]), Err(VersionError::Unknown { .. })));
    assert!(matches!(bed.resolve(&dropped.to_string()), Err(VersionError::Unknown { .. })));
    assert_eq!(store.missing(&[tree, dropped.0]).unwrap(), [tree, dropped.0]);
    assert_eq!(
        (bed.files(bed.repository.tree(first).unwrap()), bed.repository.check().unwrap().1),
        (files(&[("a", "kept")]), Vec::new())
    );
    // And it can all be made again.
    bed.commit(&[("a", Some("dropped"))], "two").unwrap();
    assert_eq!(bed.repository.operations(None, 100).unwrap().iter().map(|operation| operation.number).collect::<Vec<_>>(), [6, 5]);
}

#[test]
fn heads_staged_trees_merges_and_experiments_keep_what_they_name() {
    let (bed, store) = bed();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1\n"))], "one").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let other = bed.commit(&[("a", Some("2\n"))], "two").unwrap();
    bed.switch("main");
    bed.commit(&[("a", Some("3\n"))], "three").unwrap();
    repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    repository.delete_branch(&bed.caller(), &branch("topic"), Unmerged::Drop).unwrap();
    let agent: WorkspaceName = "agent".parse().unwrap();
    repository.add_workspace(&bed.caller(), &agent, "", &Start::Detached(first)).unwrap();
    let detached = bed.commit_in("agent", &[("a", Some("detached"))], "four").unwrap();
    let blob = helix_objects::NewObject::new(Bytes::from_static(b"staged"));
    let entry = crate::TreeEntry { name: b"s".to_vec(), mode: helix_protocol::FileMode::Regular, size: 6, id: blob.id() };
    let staged = Tree::new(vec![entry]).unwrap().encode();
    repository.stage(&agent, Some(Staged { tree: staged.id(), onto: None }), &[blob.clone(), staged.clone()]).unwrap();
    let start = StartExperiment {
        name: "trial".parse().unwrap(),
        base: first,
        goal: Goal::Highest,
        variants: vec!["v".parse().unwrap()],
        metadata: BTreeMap::new(),
    };
    repository.start_experiment(&bed.caller(), &start).unwrap();
    let trial: WorkspaceName = "trial".parse().unwrap();
    repository.add_workspace(&bed.caller(), &trial, "", &Start::Branch(branch("experiments/trial/v"))).unwrap();
    let scored = bed.commit_in("trial", &[("a", Some("scored"))], "five").unwrap();
    let score = ScoreVariant {
        experiment: start.name.clone(),
        variant: "v".parse().unwrap(),
        snapshot: None,
        value: 1.0,
        metadata: BTreeMap::new(),
    };
    repository.score_variant(&bed.caller(), &score).unwrap();
    repository.discard_experiment(&bed.caller(), &start.name).unwrap();
    repository.remove_workspace(&bed.caller(), &trial).unwrap();
    bed.new_branch("last", first);
    // Only the last operation is left: everything below is kept by what it is.
    let rule = Retention { ttl: None, operations: Some(1) };
    let options = CollectOptions { rule, now: Timestamp(0), how: Sweep::Drop, patience: Duration::ZERO };
    repository.collect(&*store, &options, &Vec::new).unwrap();
    assert_eq!(store.missing(&[other.0, detached.0, blob.id(), staged.id(), scored.0]).unwrap(), []);
    assert_eq!(repository.check().unwrap().1, Vec::new());
    // A closed experiment is forgotten when it is too old, and then what it measured goes.
    collect(&bed, &store, Some(Duration::from_secs(1)), Sweep::Drop);
    assert_eq!((repository.experiments().unwrap(), store.missing(&[scored.0, detached.0]).unwrap()), (Vec::new(), vec![scored.0]));
    repository.abort_merge(&bed.caller()).unwrap();
    bed.new_branch("really-last", first);
    collect(&bed, &store, Some(Duration::from_secs(1)), Sweep::Drop);
    assert_eq!(store.missing(&[other.0]).unwrap(), [other.0], "a merge that was given up keeps nothing");
}

#[test]
fn every_object_is_told_once_older_ones_first_with_where_it_was_met() {
    let (bed, _) = bed();
    bed.commit(&[("d/a", Some("1")), ("b", Some("same"))], "one").unwrap();
    bed.commit(&[("d/a", Some("2")), ("c", Some("same"))], "two").unwrap();
    let mut told = Vec::new();
    let roots = bed.repository.roots(None).unwrap();
    let live = bed
        .repository
        .mark(&roots, |alive| told.push((alive.id, alive.kind, String::from_utf8(alive.path.to_vec()).unwrap())))
        .unwrap();
    assert_eq!(told.iter().map(|(id, ..)| *id).collect::<HashSet<_>>(), live);
    let shown: Vec<(Kind, &str)> = told.iter().map(|(_, kind, path)| (*kind, path.as_str())).collect();
    use Kind::{File, Snapshot, Tree};
    let expected = [
        (Snapshot, ""),
        (Tree, ""),
        (File, "b"),
        (Tree, "d"),
        (File, "d/a"),
        (Snapshot, ""),
        (Tree, ""),
        (Tree, "d"),
        (File, "d/a"),
        // The empty folder, which is always there.
        (Tree, ""),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn what_is_missing_or_damaged_is_told_with_the_name_that_leads_to_it() {
    let (bed, store) = bed();
    let first = bed.commit(&[("d/a", Some("1")), ("b", Some("2"))], "one").unwrap();
    let id = bed.repository.resolve_object(&WorkspaceName::main(), "HEAD:d/a").unwrap();
    let Resolved::Entry(entry) = id else { panic!("a file") };
    assert_eq!(bed.repository.reached_from(entry.id).unwrap(), ["refs refs/heads/main", "oplog 2"]);
    store.purge(&[entry.id]).unwrap();
    let (_, faults) = bed.repository.check().unwrap();
    let told: Vec<(&str, &[u8], ObjectId)> =
        faults.iter().map(|fault| (fault.by.as_str(), fault.path.as_slice(), fault.id)).collect();
    assert_eq!(told, [("refs refs/heads/main", b"d/a".as_slice(), entry.id)]);
    // Files that are gone are in nobody's way; a folder that is gone ends a collection before anything is dropped.
    collect(&bed, &store, None, Sweep::Drop);
    let folder = bed.repository.tree(first).unwrap();
    store.purge(&[folder]).unwrap();
    let options = CollectOptions { rule: Retention::default(), now: Timestamp(0), how: Sweep::Drop, patience: Duration::ZERO };
    assert!(bed.repository.collect(&*store, &options, &Vec::new).is_err());
    assert_eq!(bed.repository.check().unwrap().1[0].id, folder);
}

#[test]
fn a_purge_names_every_snapshot_and_path_that_has_the_content() {
    let (bed, store) = bed();
    let first = bed.commit(&[("keys/secret", Some("s1")), ("copy", Some("s1"))], "one").unwrap();
    let second = bed.commit(&[("keys/secret", Some("s2"))], "two").unwrap();
    let third = bed.commit(&[("keys/secret", None), ("copy", None), ("x", Some("y"))], "three").unwrap();
    let object = |text: &str| helix_objects::hash(text.as_bytes());
    let plan = bed.repository.plan_purge(&PurgeTarget::Path(b"keys".to_vec())).unwrap();
    let mut expected = vec![object("s1"), object("s2")];
    expected.sort();
    let paths = |paths: &[&str]| paths.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(plan.objects, expected);
    assert_eq!(plan.snapshots, [(first, paths(&["copy", "keys/secret"])), (second, paths(&["copy", "keys/secret"]))]);
    let one = bed.repository.plan_purge(&PurgeTarget::Object(object("y"))).unwrap();
    assert_eq!((one.objects, one.snapshots), (vec![object("y")], vec![(third, paths(&["x"]))]));
    assert!(bed.repository.plan_purge(&PurgeTarget::Path(b"nowhere".to_vec())).is_err());
    bed.repository.purge(&*store, &plan.objects, Timestamp(7)).unwrap();
    assert_eq!(bed.repository.purged().unwrap().into_keys().collect::<Vec<_>>(), expected);
    assert_eq!(bed.repository.check().unwrap().1, Vec::new(), "it was removed on purpose");
    bed.commit(&[("again", Some("s1"))], "four").unwrap();
    assert_eq!(bed.repository.purged().unwrap().into_keys().collect::<Vec<_>>(), [object("s2")], "it is back");
    store.purge(&[object("s1")]).unwrap();
    let faults = bed.repository.check().unwrap().1;
    assert_eq!(faults.iter().map(|fault| fault.id).collect::<Vec<_>>(), [object("s1")], "nobody meant that");
}

#[test]
fn a_purge_of_what_is_no_file_is_refused() {
    let (bed, _) = bed();
    let first = bed.commit(&[("d/f", Some("1"))], "one").unwrap();
    let plan = |id: ObjectId| bed.repository.plan_purge(&PurgeTarget::Object(id));
    let tree = bed.repository.tree(first).unwrap();
    for id in [first.0, tree] {
        assert!(matches!(plan(id), Err(VersionError::Refused { .. })), "others need it");
    }
    let unknown = plan(helix_objects::hash(b"never there"));
    assert!(matches!(unknown, Err(VersionError::Unknown { kind: "object", .. })), "{unknown:?}");
}

#[test]
fn a_snapshot_that_comes_back_while_a_collection_runs_is_marked_or_refused() {
    let (bed, _) = bed();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("kept"))], "one").unwrap();
    let dangling = bed.commit(&[("a", Some("dangling"))], "two").unwrap();
    let other = bed.commit(&[("a", Some("other"))], "three").unwrap();
    repository.reset(&bed.caller(), first, ResetKind::Hard).unwrap();
    let watch = crate::repository::watch::Watch::begin(repository).unwrap();
    assert!(crate::repository::watch::Watch::begin(repository).is_err(), "one at a time");
    bed.new_branch("back", dangling);
    let live = watch
        .marked(|named| {
            assert!(named.contains(&dangling) && !named.contains(&other), "{named:?}");
            Ok(HashSet::from([first.0, dangling.0]))
        })
        .unwrap();
    assert_eq!(live.len(), 2);
    let refused = repository.create_branch(&bed.caller(), &branch("too-late"), other, Existing::Refuse);
    assert!(matches!(refused, Err(VersionError::Refused { .. })));
    bed.new_branch("alive", dangling);
    let made = bed.commit(&[("b", Some("new"))], "goes on").unwrap();
    bed.new_branch("new", made);
    drop(watch);
    bed.new_branch("too-late", other);
}

/// Counts down when it goes, also when its thread panics: nobody waits for it then.
struct Leaving<'a>(&'a std::sync::atomic::AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn collections_beside_writers_that_commit_reset_branch_merge_and_undo_lose_nothing() {
    let (bed, store) = bed();
    let first = bed.commit(&[("start", Some("s"))], "start").unwrap();
    let agents: Vec<WorkspaceName> = (0..4).map(|agent| format!("agent{agent}").parse().unwrap()).collect();
    for name in &agents {
        let start = Start::NewBranch(branch(name.as_str()), first);
        bed.repository.add_workspace(&bed.caller(), name, "", &start).unwrap();
    }
    let (repository, working) = (&bed.repository, std::sync::atomic::AtomicUsize::new(agents.len()));
    let collections = std::thread::scope(|scope| {
        for name in &agents {
            let leaving = Leaving(&working);
            scope.spawn(move || {
                let _leaving = leaving;
                let caller =
                    |time| Caller { workspace: name.clone(), who: who(name.as_str(), time), durability: None, committer: None };
                for count in 0..120_i64 {
                    let request = FilesRequest {
                        caller: caller(count),
                        expect: None,
                        edits: vec![edit(&format!("{name}/d{}/f", count % 3), Some(&format!("{name} {count}")))],
                        message: String::new(),
                        author: None,
                        metadata: BTreeMap::new(),
                        allow_empty: false,
                    };
                    let made = match repository.commit_files(&request) {
                        // Somebody's undo brought a merge back that had been given up.
                        Err(VersionError::Unresolved(_)) => {
                            drop(repository.abort_merge(&caller(count)));
                            continue;
                        }
                        made => made.unwrap(),
                    };
                    let before = made.parents[0];
                    match count % 6 {
                        0 => drop(repository.reset(&caller(count), before, ResetKind::Hard).unwrap()),
                        1 => drop(repository.create_branch(
                            &caller(count),
                            &branch(&format!("{name}-{count}")),
                            before,
                            Existing::Refuse,
                        )),
                        // What was done before may be forgotten by then, and what it named on its way out.
                        2 => drop(repository.undo(&caller(count), Undo::Last)),
                        3 => {
                            let main = repository.branch(&branch("agent0")).unwrap().unwrap();
                            let merged = repository.merge(&MergeRequest::new(caller(count), main, "agent0"));
                            // Who took what the other took back meanwhile is in conflict with it, rightly.
                            if merged.is_ok_and(|outcome| !outcome.unresolved.is_empty()) {
                                // Somebody's undo may have taken the merge back before.
                                drop(repository.abort_merge(&caller(count)));
                            }
                        }
                        _ => {}
                    }
                }
            });
        }
        let mut collections = 0;
        while working.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            let rule = Retention { ttl: None, operations: Some(3) };
            let options = CollectOptions { rule, now: Timestamp(0), how: Sweep::Drop, patience: Duration::from_secs(60) };
            repository.collect(&*store, &options, &Vec::new).unwrap();
            assert_eq!(repository.check().unwrap().1, Vec::new());
            collections += 1;
        }
        collections
    });
    assert!(collections > 0);
    let (live, faults) = repository.check().unwrap();
    assert_eq!(faults, Vec::new());
    let options = CollectOptions { rule: Retention::default(), now: Timestamp(0), how: Sweep::Drop, patience: Duration::ZERO };
    repository.collect(&*store, &options, &Vec::new).unwrap();
    assert_eq!(store.stats().unwrap().objects, live.len() as u64, "and nothing is left behind");
}

#[test]
fn a_tree_that_is_held_stays_with_all_beneath_it_and_one_that_is_gone_is_passed_over() {
    let (bed, store) = bed();
    let first = bed.commit(&[("a", Some("kept"))], "one").unwrap();
    let left = bed.commit(&[("d/a", Some("on its way"))], "two").unwrap();
    let tree = bed.repository.tree(left).unwrap();
    bed.repository.reset(&bed.caller(), first, ResetKind::Hard).unwrap();
    // The last operation is never forgotten.
    bed.commit(&[("a", Some("next"))], "three").unwrap();
    let options = CollectOptions {
        rule: Retention { ttl: Some(Duration::ZERO), operations: None },
        now: Timestamp(10 * DAY),
        how: Sweep::Drop,
        patience: Duration::ZERO,
    };
    let held = || vec![helix_objects::hash(b"gone"), tree];
    bed.repository.collect(&*store, &options, &held).unwrap();
    assert_eq!(crate::read_file(&*store, tree, b"d/a").unwrap().as_ref(), b"on its way");
    bed.repository.collect(&*store, &options, &Vec::new).unwrap();
    assert_eq!(store.missing(&[tree]).unwrap(), [tree]);
}
