//! Where a line comes from, and which snapshot broke something.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn each_line_is_told_with_the_snapshot_that_brought_it() {
    let bed = Bed::new();
    let first = bed.commit(&[("d/a", Some("1\n2\n3\n4\n5\n"))], "one").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let side = bed.commit(&[("d/a", Some("1\n2\n3\n4\nfive\n"))], "side").unwrap();
    bed.switch("main");
    let second = bed.commit(&[("d/a", Some("zero\n1\n2\n3\n4\n5\n"))], "two").unwrap();
    bed.commit(&[("other", Some("x"))], "elsewhere").unwrap();
    bed.repository.merge(&MergeRequest::new(bed.caller(), side, "topic")).unwrap();
    let lines = bed.repository.blame(bed.head(), b"d/a").unwrap();
    let told: Vec<(SnapshotId, usize, &[u8])> = lines.iter().map(|line| (line.snapshot, line.number, line.text.as_ref())).collect();
    let expected: [(SnapshotId, usize, &[u8]); 6] = [
        (second, 1, b"zero\n"),
        (first, 1, b"1\n"),
        (first, 2, b"2\n"),
        (first, 3, b"3\n"),
        (first, 4, b"4\n"),
        (side, 5, b"five\n"),
    ];
    assert_eq!(told, expected);
    assert!(matches!(bed.repository.blame(bed.head(), b"nowhere"), Err(VersionError::NotFound { .. })));
    bed.commit(&[("bin", Some("\0"))], "binary").unwrap();
    assert!(matches!(bed.repository.blame(bed.head(), b"bin"), Err(VersionError::Refused { .. })));
}

/// A history of commits on two lines with merges, and which of them have the one that broke it in their history.
fn history(choices: &[u8], broken: usize) -> (Bed, Vec<SnapshotId>, SnapshotId) {
    let bed = Bed::new();
    let root = bed.commit(&[("root", Some("r"))], "root").unwrap();
    bed.new_branch("topic", root);
    let mut made = Vec::new();
    for (count, choice) in choices.iter().enumerate() {
        bed.switch(if choice % 2 == 0 { "main" } else { "topic" });
        let other = if choice % 2 == 0 { "topic" } else { "main" };
        let tip = bed.resolve(other).unwrap();
        let merged = if choice % 5 == 0 {
            let request = MergeRequest { fast_forward: FastForward::Never, ..MergeRequest::new(bed.caller(), tip, other) };
            Some(bed.repository.merge(&request).unwrap()).filter(|merged| merged.kind == MergeKind::Merged)
        } else {
            None
        };
        made.push(match merged {
            Some(merged) => merged.snapshot.unwrap(),
            None => bed.commit(&[(&format!("f{count}"), Some("x"))], "x").unwrap(),
        });
    }
    let culprit = made[broken % made.len()];
    (bed, made, culprit)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn halving_finds_the_one_that_broke_it_and_tests_none_twice(
        choices in prop::collection::vec(any::<u8>(), 2..24), broken in any::<usize>(), pick in any::<usize>(),
    ) {
        let (bed, made, culprit) = history(&choices, broken);
        let has_it = |id: &SnapshotId| bed.repository.is_ancestor(culprit, *id).unwrap();
        let all_bad: Vec<SnapshotId> = made.iter().copied().filter(|id| has_it(id)).collect();
        let mut bad = all_bad[pick % all_bad.len()];
        let (mut good, mut tested) = (vec![bed.resolve("main").unwrap()], HashSet::new());
        good.clear();
        loop {
            match bed.repository.bisect(bad, &good, &HashSet::new()).unwrap() {
                BisectStep::Test { snapshot, .. } => {
                    prop_assert!(tested.insert(snapshot));
                    if has_it(&snapshot) { bad = snapshot } else { good.push(snapshot) }
                }
                step => {
                    prop_assert_eq!(step, BisectStep::Found(culprit));
                    break;
                }
            }
        }
    }
}

#[test]
fn a_line_of_snapshots_is_halved() {
    let bed = Bed::new();
    let made: Vec<SnapshotId> = (0..33).map(|count| bed.commit(&[("a", Some(&count.to_string()))], "x").unwrap()).collect();
    let step = |skipped: &[SnapshotId]| bed.repository.bisect(made[32], &made[..1], &skipped.iter().copied().collect()).unwrap();
    assert_eq!(step(&[]), BisectStep::Test { snapshot: made[16], left: 32, steps: 5 });
    let BisectStep::Test { snapshot, .. } = step(&[made[16]]) else { panic!("others can be tested") };
    assert!([made[15], made[17]].contains(&snapshot));
    let between: Vec<SnapshotId> = made[1..32].to_vec();
    let expected: Vec<SnapshotId> = made[1..].iter().rev().copied().collect();
    assert_eq!(step(&between), BisectStep::OneOf(expected));
    assert_eq!(bed.repository.bisect(made[1], &made[..1], &HashSet::new()).unwrap(), BisectStep::Found(made[1]));
    assert_eq!(bed.repository.bisect(made[1], &made[1..2], &HashSet::new()).unwrap(), BisectStep::Nothing);
}
