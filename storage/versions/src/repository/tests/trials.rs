//! Experiments: started, scored, promoted or discarded as a whole.

use super::*;

fn name(text: &str) -> ExperimentName {
    text.parse().unwrap()
}

fn variant(text: &str) -> VariantName {
    text.parse().unwrap()
}

fn start(bed: &Bed, goal: Goal, variants: &[&str]) -> SnapshotId {
    let base = bed.commit(&[("a", Some("base")), ("b", Some("base"))], "base").unwrap();
    let variants = variants.iter().map(|text| variant(text)).collect();
    let start = StartExperiment { name: name("sort"), base, goal, variants, metadata: BTreeMap::new() };
    bed.repository.start_experiment(&bed.caller(), &start).unwrap();
    base
}

/// A workspace on a variant's branch, with one commit.
fn work(bed: &Bed, which: &str, text: &str) -> SnapshotId {
    let (workspace, on) = (which.parse().unwrap(), branch(&format!("experiments/sort/{which}")));
    if bed.repository.head(&workspace).is_err() {
        bed.repository.add_workspace(&bed.caller(), &workspace, which, &Start::Branch(on)).unwrap();
    }
    bed.commit_in(which, &[("a", Some(text))], text).unwrap()
}

fn score(bed: &Bed, which: &str, value: f64) -> Result<(Score, Recorded), VersionError> {
    let (experiment, metadata) = (name("sort"), BTreeMap::new());
    let request = ScoreVariant { experiment, variant: variant(which), snapshot: None, value, metadata };
    bed.repository.score_variant(&bed.caller(), &request)
}

#[test]
fn the_best_score_counts_with_the_snapshot_it_was_given_for() {
    for (goal, values, expected) in [(Goal::Highest, [0.5, 0.9, 0.9], "b"), (Goal::Lowest, [0.5, 0.9, 0.7], "a")] {
        let bed = Bed::new();
        start(&bed, goal, &["a", "b", "c"]);
        let mut made = BTreeMap::new();
        for (which, value) in ["a", "b", "c"].into_iter().zip(values) {
            made.insert(which, work(&bed, which, which));
            score(&bed, which, value).unwrap();
            // Something worse comes later.
            work(&bed, which, "worse");
            score(&bed, which, if goal == Goal::Highest { 0.0 } else { 1.0 }).unwrap();
        }
        let (best, found) = bed.repository.best_variant(&name("sort")).unwrap().unwrap();
        assert_eq!((best, found.snapshot), (variant(expected), made[expected]), "{goal:?}");
        let shown = bed.repository.experiment(&name("sort")).unwrap();
        assert_eq!(shown.variants.iter().map(|variant| variant.scores).collect::<Vec<_>>(), [2, 2, 2]);
        assert!(shown.variants.iter().all(|variant| variant.head != variant.best.as_ref().map(|best| best.snapshot)));
    }
    let bed = Bed::new();
    start(&bed, Goal::Highest, &["a"]);
    assert_eq!(bed.repository.best_variant(&name("sort")).unwrap(), None);
    for no_number in [f64::NAN, f64::INFINITY, "-1e400".parse().unwrap()] {
        assert!(matches!(score(&bed, "a", no_number), Err(VersionError::Refused { .. })));
    }
    assert!(
        matches!(score(&bed, "x", 1.0), Err(VersionError::Unknown { kind: "variant", nearest: Some(near), .. }) if near == "a")
    );
}

#[test]
fn promoting_moves_the_branch_and_removes_every_variant_at_once() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let base = start(&bed, Goal::Highest, &["a", "b"]);
    let nothing = repository.promote_experiment(&bed.caller(), &name("sort"), None, None);
    assert!(matches!(nothing, Err(VersionError::Refused { .. })), "nothing is scored yet");
    let (one, other) = (work(&bed, "a", "from a"), work(&bed, "b", "from b"));
    score(&bed, "a", 1.0).unwrap();
    score(&bed, "b", 2.0).unwrap();
    let before = repository.operations(None, 1_000).unwrap().len();
    let closed = repository.promote_experiment(&bed.caller(), &name("sort"), None, None).unwrap();
    assert_eq!((closed.promoted.clone(), bed.head()), (Some((variant("b"), other)), other));
    assert_eq!(closed.removed, [(branch("experiments/sort/a"), one), (branch("experiments/sort/b"), other)]);
    assert_eq!(closed.detached, ["a".parse().unwrap(), "b".parse().unwrap()]);
    assert_eq!(closed.moved.iter().map(|moved| moved.workspace.as_str()).collect::<Vec<_>>(), ["main"]);
    assert_eq!(repository.operations(None, 1_000).unwrap().len(), before + 1, "one operation");
    assert_eq!(repository.head(&"a".parse().unwrap()).unwrap().target, HeadTarget::Detached(one));
    assert_eq!(repository.branches().unwrap(), [(branch("main"), other)]);
    let state = repository.experiment(&name("sort")).unwrap().state;
    assert_eq!(state, ExperimentState::Promoted { variant: variant("b"), snapshot: other });
    assert!(matches!(score(&bed, "a", 3.0), Err(VersionError::Refused { .. })), "it is closed");
    // And all of it comes back.
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!((bed.head(), repository.branches().unwrap().len()), (base, 3));
    assert_eq!(repository.experiment(&name("sort")).unwrap().state, ExperimentState::Open);
    assert_eq!(repository.head(&"a".parse().unwrap()).unwrap().target, HeadTarget::Branch(branch("experiments/sort/a")));
}

#[test]
fn promoting_into_a_branch_that_went_on_merges_or_does_nothing() {
    let bed = Bed::new();
    let repository = &bed.repository;
    start(&bed, Goal::Highest, &["a"]);
    let variant_head = work(&bed, "a", "from a");
    let main = bed.commit(&[("b", Some("main went on"))], "on").unwrap();
    let closed = repository.promote_experiment(&bed.caller(), &name("sort"), Some(&variant("a")), Some(&branch("main"))).unwrap();
    let merged = closed.promoted.unwrap().1;
    assert_eq!(repository.snapshot(merged).unwrap().parents, [main, variant_head]);
    assert_eq!(bed.files(repository.tree(merged).unwrap()), files(&[("a", "from a"), ("b", "main went on")]));
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    let conflicting = bed.commit(&[("a", Some("from main"))], "on").unwrap();
    let refused = repository.promote_experiment(&bed.caller(), &name("sort"), Some(&variant("a")), None);
    assert!(matches!(refused, Err(VersionError::Unresolved(paths)) if paths == ["a"]));
    assert_eq!((bed.head(), repository.branches().unwrap().len()), (conflicting, 2), "nothing was done");
}

#[test]
fn discarding_leaves_the_branch_and_removes_every_variant_at_once() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let base = start(&bed, Goal::Highest, &["a", "b"]);
    repository.add_variant(&bed.caller(), &name("sort"), &variant("c"), None).unwrap();
    let taken = repository.add_variant(&bed.caller(), &name("sort"), &variant("c"), None);
    assert!(matches!(taken, Err(VersionError::Exists { kind: "variant", .. })));
    work(&bed, "a", "from a");
    assert!(matches!(repository.remove_experiment(&bed.caller(), &name("sort")), Err(VersionError::Refused { .. })));
    let closed = repository.discard_experiment(&bed.caller(), &name("sort")).unwrap();
    assert_eq!((closed.removed.len(), closed.promoted, bed.head()), (3, None, base));
    assert_eq!(repository.branches().unwrap(), [(branch("main"), base)]);
    repository.remove_experiment(&bed.caller(), &name("sort")).unwrap();
    assert_eq!(repository.experiments().unwrap(), []);
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!(repository.branches().unwrap().len(), 4);
}
