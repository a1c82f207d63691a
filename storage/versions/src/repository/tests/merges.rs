//! Merges: forward, of two sides, with conflicts, of lines that crossed; picking and reverting.

use proptest::prelude::*;

use super::*;

fn two_sides(
    base: &[(&str, Option<&str>)],
    ours: &[(&str, Option<&str>)],
    theirs: &[(&str, Option<&str>)],
) -> (Bed, SnapshotId, SnapshotId) {
    let bed = Bed::new();
    let first = bed.commit(base, "base").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let other = bed.commit(theirs, "theirs").unwrap();
    bed.switch("main");
    let mine = bed.commit(ours, "ours").unwrap();
    (bed, mine, other)
}

#[test]
fn a_merge_goes_forward_or_is_up_to_date_where_it_can_be() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let second = bed.commit(&[("a", Some("2"))], "two").unwrap();
    bed.switch("main");
    let request = |fast_forward| MergeRequest { fast_forward, ..MergeRequest::new(bed.caller(), second, "topic") };
    let forward = repository.merge(&request(FastForward::Only)).unwrap();
    assert_eq!((forward.kind, bed.head()), (MergeKind::FastForward, second));
    let again = repository.merge(&request(FastForward::Allow)).unwrap();
    assert_eq!((again.kind, again.recorded.operation), (MergeKind::UpToDate, None));
    repository.reset(&bed.caller(), first, ResetKind::Hard).unwrap();
    let made = repository.merge(&request(FastForward::Never)).unwrap();
    let snapshot = repository.snapshot(made.snapshot.unwrap()).unwrap();
    assert_eq!((made.kind, &snapshot.parents), (MergeKind::Merged, &vec![first, second]));
    assert_eq!((snapshot.tree, snapshot.message.as_str()), (repository.tree(second).unwrap(), "Merge branch 'topic'"));
}

#[test]
fn two_sides_come_together_and_the_snapshot_has_both_as_parents() {
    let (bed, mine, other) =
        two_sides(&[("a", Some("1\n2\n3\n4\n5\n"))], &[("a", Some("one\n2\n3\n4\n5\n"))], &[("a", Some("1\n2\n3\n4\nfive\n"))]);
    let only = MergeRequest { fast_forward: FastForward::Only, ..MergeRequest::new(bed.caller(), other, "topic") };
    assert!(matches!(bed.repository.merge(&only), Err(VersionError::Refused { .. })));
    let merged = bed.repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    assert_eq!(bed.files(merged.to), files(&[("a", "one\n2\n3\n4\nfive\n")]));
    assert_eq!(bed.repository.snapshot(bed.head()).unwrap().parents, [mine, other]);
    assert_eq!((merged.kind, merged.from), (MergeKind::Merged, bed.repository.tree(mine).unwrap()));
}

#[test]
fn a_conflict_is_remembered_until_it_is_decided_and_committed() {
    let (bed, mine, other) =
        two_sides(&[("a", Some("1\n")), ("b", Some("1"))], &[("a", Some("2\n"))], &[("a", Some("3\n")), ("b", Some("2"))]);
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    let stopped = repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    assert_eq!((stopped.kind, bed.head()), (MergeKind::Stopped, mine), "the head does not move");
    let text = "<<<<<<< HEAD\n2\n=======\n3\n>>>>>>> topic\n";
    assert_eq!(bed.files(stopped.to), files(&[("a", text), ("b", "2")]));
    let merging = repository.workspace(&main).unwrap().merging.unwrap();
    assert_eq!(
        (merging.kind, merging.other, merging.tree, &merging.unresolved),
        (MergingKind::Merge, other, stopped.to, &stopped.unresolved)
    );
    assert_eq!((stopped.unresolved.len(), stopped.unresolved[0].path.as_slice()), (1, b"a".as_slice()));
    assert_eq!(bed.resolve("MERGE_HEAD").unwrap(), other);
    // Whatever else would leave the merge behind is refused.
    let again = repository.merge(&MergeRequest::new(bed.caller(), other, "topic"));
    assert!(matches!(again, Err(VersionError::Refused { .. })));
    assert!(repository.switch(&bed.caller(), &Start::Branch(branch("topic")), Elsewhere::Refuse).is_err());
    assert!(repository.reset(&bed.caller(), mine, ResetKind::Soft).is_err());
    let refused = repository.commit(&CommitRequest::new(bed.caller(), stopped.to, "x"));
    assert!(matches!(refused, Err(VersionError::Unresolved(paths)) if paths == ["a"]));
    // So is a commit of single files of the head, which would be without what came from the other side.
    assert!(matches!(bed.commit(&[("a", Some("2 and 3\n"))], "merged"), Err(VersionError::Refused { .. })));
    assert_eq!(repository.workspace(&main).unwrap().merging, Some(merging));
    // Decided by editing.
    let committed =
        repository.commit(&CommitRequest::new(bed.caller(), bed.stored(&[("a", "2 and 3\n"), ("b", "2")]), "merged")).unwrap();
    assert_eq!(committed.parents, [mine, other]);
    assert_eq!(repository.workspace(&main).unwrap().merging, None);
}

#[test]
fn no_head_moves_beneath_a_merge_that_waits() {
    let (bed, mine, other) = two_sides(&[("a", Some("1\n"))], &[("a", Some("2\n"))], &[("a", Some("3\n"))]);
    let (repository, agent) = (&bed.repository, "agent".parse::<WorkspaceName>().unwrap());
    let last = repository.operations(None, 1).unwrap()[0].number;
    let start = StartExperiment {
        name: "trial".parse().unwrap(),
        base: mine,
        goal: Goal::Highest,
        variants: vec!["v".parse().unwrap()],
        metadata: BTreeMap::new(),
    };
    repository.start_experiment(&bed.caller(), &start).unwrap();
    repository.add_workspace(&bed.caller(), &agent, "", &Start::Branch(branch("experiments/trial/v"))).unwrap();
    let made = bed.commit_in("agent", &[("new", Some("1"))], "in a variant").unwrap();
    let stopped = repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    let variant = "v".parse().unwrap();
    let promoted = repository.promote_experiment(&bed.caller_in("agent"), &start.name, Some(&variant), Some(&branch("main")));
    let undone = repository.undo(&bed.caller_in("agent"), Undo::Entry(last)).map(drop);
    let mut import = repository.batch();
    import.set_ref(RefName::branch(&branch("main")), RefExpect::Anything, Some((made, None)));
    let imported = import.write(&bed.caller_in("agent"), "import", "from git").map(drop);
    for refused in [promoted.map(drop), undone, imported] {
        assert!(
            matches!(&refused, Err(VersionError::Refused { message, .. }) if message.contains("middle of a merge")),
            "{refused:?}"
        );
    }
    assert_eq!(bed.head(), mine);
    repository
        .commit(&CommitRequest { undecided: Undecided::Keep, ..CommitRequest::new(bed.caller(), stopped.to, "merged") })
        .unwrap();
    repository.promote_experiment(&bed.caller_in("agent"), &start.name, Some(&variant), Some(&branch("main"))).unwrap();
}

#[test]
fn a_conflict_can_be_kept_marked_as_decided_or_given_up() {
    let sides = || two_sides(&[("d/a", Some("1\n"))], &[("d/a", Some("2\n"))], &[("d/a", Some("3\n"))]);
    let main = WorkspaceName::main();

    let (bed, mine, other) = sides();
    let stopped = bed.repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    let keep = CommitRequest { undecided: Undecided::Keep, ..CommitRequest::new(bed.caller(), stopped.to, "kept") };
    let kept = bed.repository.commit(&keep).unwrap();
    let metadata = &bed.repository.snapshot(kept.snapshot).unwrap().metadata;
    assert_eq!((metadata.get("conflicts").map(String::as_str), kept.parents), (Some("d/a"), vec![mine, other]));

    let (bed, mine, other) = sides();
    let stopped = bed.repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    assert_eq!(bed.repository.mark_resolved(&main, &[b"d/x"]).unwrap().len(), 1);
    assert_eq!(bed.repository.mark_resolved(&main, &[b"d"]).unwrap(), []);
    let committed = bed.repository.commit(&CommitRequest::new(bed.caller(), stopped.to, "as it is")).unwrap();
    assert_eq!(committed.parents, [mine, other]);

    let (bed, mine, other) = sides();
    let stopped = bed.repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    let back = bed.repository.abort_merge(&bed.caller()).unwrap();
    assert_eq!((back.from, back.to, bed.head()), (stopped.to, bed.repository.tree(mine).unwrap(), mine));
    assert!(matches!(bed.repository.abort_merge(&bed.caller()), Err(VersionError::NoMerge)));
}

#[test]
fn what_is_staged_is_in_the_way_of_a_merge_that_would_lose_it() {
    let (bed, mine, other) = two_sides(&[("a", Some("1\n"))], &[("b", Some("ours\n"))], &[("a", Some("theirs\n"))]);
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    let base = repository.snapshot(mine).unwrap().parents[0];
    let tree = |id| repository.tree(id).unwrap();
    let stage = |staged: SnapshotId, onto: SnapshotId| {
        repository.stage(&main, Some(Staged { tree: tree(staged), onto: Some(tree(onto)) }), &[]).unwrap();
    };
    let merge = |other| repository.merge(&MergeRequest::new(bed.caller(), other, "it")).map(|outcome| outcome.kind);
    let refused = |paths: &[&str]| VersionError::WouldOverwrite { paths: paths.iter().map(|path| (*path).to_owned()).collect() };

    // A snapshot of both sides has no room for it, whatever it is; where nothing is to be merged it stays.
    stage(mine, base);
    assert_eq!(merge(other).unwrap_err().to_string(), refused(&["b"]).to_string());
    assert_eq!(merge(base).unwrap(), MergeKind::UpToDate);
    // Forward it goes along, but for what is otherwise there.
    repository.reset(&bed.caller(), base, ResetKind::Hard).unwrap();
    let more = bed.commit(&[("a", Some("mine\n")), ("c", Some("1\n"))], "more").unwrap();
    repository.reset(&bed.caller(), base, ResetKind::Hard).unwrap();
    stage(more, base);
    assert_eq!(merge(other).unwrap_err().to_string(), refused(&["a"]).to_string());
    assert_eq!((merge(mine).unwrap(), bed.head()), (MergeKind::FastForward, mine));
    assert_eq!(repository.workspace(&main).unwrap().staged.map(|staged| staged.tree), Some(tree(more)));
}

#[test]
fn histories_without_a_common_beginning_are_merged_only_on_demand() {
    let bed = Bed::new();
    let (repository, other) = (&bed.repository, WorkspaceName::main());
    bed.commit(&[("a", Some("1"))], "one").unwrap();
    repository.switch(&bed.caller(), &Start::Unborn(branch("orphan")), Elsewhere::Refuse).unwrap();
    let orphan = bed.commit(&[("b", Some("1"))], "alone").unwrap();
    assert_eq!(repository.snapshot(orphan).unwrap().parents, []);
    bed.switch("main");
    let request = MergeRequest::new(bed.caller(), orphan, "orphan");
    assert!(matches!(repository.merge(&request), Err(VersionError::Refused { .. })));
    let merged = repository.merge(&MergeRequest { allow_unrelated: true, ..request }).unwrap();
    assert_eq!(bed.files(merged.to), files(&[("a", "1"), ("b", "1")]));
    assert!(repository.workspace(&other).unwrap().merging.is_none());
}

#[test]
fn lines_that_crossed_have_two_bases_and_are_merged_over_both() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let start = bed.commit(&[("a", Some("1\n2\n3\n4\n5\n6\n7\n"))], "start").unwrap();
    bed.new_branch("topic", start);
    let left = bed.commit(&[("a", Some("left\n2\n3\n4\n5\n6\n7\n"))], "left").unwrap();
    bed.switch("topic");
    let right = bed.commit(&[("a", Some("1\n2\n3\n4\n5\n6\nright\n"))], "right").unwrap();
    let crossed = repository.merge(&MergeRequest::new(bed.caller(), left, "main")).unwrap().snapshot.unwrap();
    bed.switch("main");
    let other = repository.merge(&MergeRequest::new(bed.caller(), right, "topic")).unwrap().snapshot.unwrap();
    let mut bases = repository.merge_bases(crossed, other).unwrap();
    bases.sort();
    let mut expected = vec![left, right];
    expected.sort();
    assert_eq!(bases, expected);
    bed.commit(&[("a", Some("left\n2\n3\nmain\n5\n6\nright\n"))], "more").unwrap();
    let merged = repository.merge(&MergeRequest::new(bed.caller(), crossed, "topic")).unwrap();
    assert_eq!(merged.kind, MergeKind::Merged);
    assert_eq!(bed.files(merged.to), files(&[("a", "left\n2\n3\nmain\n5\n6\nright\n")]));
}

#[test]
fn picking_repeats_one_change_with_its_author_and_reverting_takes_it_back() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1")), ("b", Some("1"))], "one").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    bed.commit(&[("b", Some("2"))], "not this").unwrap();
    let wanted = bed.commit(&[("a", Some("2"))], "this").unwrap();
    bed.switch("main");
    let pick = |snapshot| PickRequest { caller: bed.caller(), snapshot, mainline: None };
    let picked = repository.cherry_pick(&pick(wanted)).unwrap();
    let snapshot = repository.snapshot(picked.snapshot.unwrap()).unwrap();
    assert_eq!(bed.files(picked.to), files(&[("a", "2"), ("b", "1")]));
    assert_eq!(
        (snapshot.message.as_str(), &snapshot.parents, snapshot.author.time),
        ("this", &vec![first], repository.snapshot(wanted).unwrap().author.time)
    );
    assert!(matches!(repository.cherry_pick(&pick(wanted)), Err(VersionError::NothingToCommit(_))), "it is there already");
    let reverted = repository.revert(&pick(picked.snapshot.unwrap())).unwrap();
    assert_eq!(reverted.to, repository.tree(first).unwrap());
    let message = &repository.snapshot(reverted.snapshot.unwrap()).unwrap().message;
    assert!(message.starts_with("Revert \"this\"\n\nThis reverts commit "), "{message}");
}

#[test]
fn giving_up_is_told_by_what_was_begun() {
    let (bed, _, other) = two_sides(&[("a", Some("1\n"))], &[("a", Some("2\n"))], &[("a", Some("3\n"))]);
    let pick = PickRequest { caller: bed.caller(), snapshot: other, mainline: None };
    let begin: [(&str, &dyn Fn()); 3] = [
        ("merge abort", &|| drop(bed.repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap())),
        ("cherry-pick abort", &|| drop(bed.repository.cherry_pick(&pick).unwrap())),
        ("revert abort", &|| drop(bed.repository.revert(&pick).unwrap())),
    ];
    for (told, begin) in begin {
        begin();
        bed.repository.abort_merge(&bed.caller()).unwrap();
        assert_eq!(bed.repository.operations(None, 1).unwrap()[0].verb, told);
    }
}

fn edits() -> impl Strategy<Value = Vec<(&'static str, Option<&'static str>)>> {
    let path = prop::sample::select(vec!["a", "b", "d/a", "d/e/f"]);
    let text =
        prop::sample::select(vec![None, Some("1\n2\n3\n"), Some("0\n1\n2\n3\n"), Some("1\n2\n3\n4\n"), Some("x\n"), Some("")]);
    prop::collection::btree_map(path, text, 1..4).prop_map(|edits| edits.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A merge gives the same files and the same open questions whichever side it is made from, but for whose text stands first.
    #[test]
    fn a_merge_is_the_same_from_both_sides(base in edits(), ours in edits(), theirs in edits()) {
        let bed = Bed::new();
        bed.commit(&[("root", Some("r"))], "root").unwrap();
        let start = bed.commit(&base, "base").unwrap_or_else(|_| bed.head());
        let mut tips = Vec::new();
        for (name, edits) in [("one", &ours), ("other", &theirs)] {
            bed.new_branch(name, start);
            bed.switch(name);
            tips.push(bed.commit(edits, name).unwrap_or(start));
        }
        let mut outcomes = Vec::new();
        for (here, there) in [("one", 1), ("other", 0)] {
            bed.switch(here);
            outcomes.push(bed.repository.merge(&MergeRequest::new(bed.caller(), tips[there], "x")).unwrap());
            if outcomes.last().unwrap().kind == MergeKind::Stopped {
                bed.repository.abort_merge(&bed.caller()).unwrap();
            }
            let tip = tips[1 - there];
            bed.repository.reset(&bed.caller(), tip, ResetKind::Hard).unwrap();
        }
        let paths = |outcome: &MergeOutcome| outcome.unresolved.iter().map(|path| path.path.clone()).collect::<Vec<_>>();
        prop_assert_eq!(paths(&outcomes[0]), paths(&outcomes[1]));
        if outcomes[0].unresolved.is_empty() {
            prop_assert_eq!(bed.files(outcomes[0].to), bed.files(outcomes[1].to));
        }
    }
}
