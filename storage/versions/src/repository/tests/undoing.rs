//! The operation log, undo and redo.

use super::*;

fn verbs(bed: &Bed) -> Vec<String> {
    bed.repository.operations(None, 100).unwrap().into_iter().map(|operation| operation.verb).collect()
}

#[test]
fn every_change_is_one_entry_that_says_who_when_what_and_from_where_to_where() {
    let bed = Bed::new();
    let first = bed.commit(&[("a", Some("1"))], "one\nbody").unwrap();
    let second = bed.commit(&[("a", Some("2"))], "two").unwrap();
    let last = bed.repository.operations(None, 1).unwrap().pop().unwrap();
    let change =
        OperationChange { name: "refs/heads/main".to_owned(), before: Some(first.to_string()), after: Some(second.to_string()) };
    let expected = Operation {
        number: 3,
        time: Timestamp(2_000_000),
        who: "ada".to_owned(),
        workspace: "main".to_owned(),
        verb: "commit".to_owned(),
        text: "two".to_owned(),
        cause: OperationCause::Itself,
        changes: vec![change],
    };
    assert_eq!(last, expected);
    assert_eq!(verbs(&bed), ["commit", "commit", "init"]);
    assert_eq!(bed.repository.operations(Some(3), 1).unwrap()[0].text, "one");
}

#[test]
fn undoing_goes_back_one_by_one_and_redoing_forward_again() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let made: Vec<SnapshotId> = (0..4).map(|count| bed.commit(&[("a", Some(&count.to_string()))], "x").unwrap()).collect();
    for expected in [made[2], made[1], made[0]] {
        let undone = repository.undo(&bed.caller(), Undo::Last).unwrap();
        assert_eq!((bed.head(), undone.moved.len()), (expected, 1));
        assert_eq!(undone.moved[0].to, repository.tree(expected).unwrap());
    }
    for expected in [made[1], made[2]] {
        repository.redo(&bed.caller()).unwrap();
        assert_eq!(bed.head(), expected);
    }
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!(bed.head(), made[1], "an undo after a redo takes back what was redone");
    let other = bed.commit(&[("b", Some("1"))], "elsewhere").unwrap();
    assert!(matches!(repository.redo(&bed.caller()), Err(VersionError::Refused { .. })), "something else was done since");
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!(bed.head(), made[1]);
    repository.redo(&bed.caller()).unwrap();
    assert_eq!(bed.head(), other);
}

#[test]
fn undoing_ends_where_nothing_is_left() {
    let bed = Bed::new();
    bed.commit(&[("a", Some("1"))], "x").unwrap();
    bed.repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!(bed.repository.head(&WorkspaceName::main()).unwrap().snapshot, None, "as before the first commit");
    assert!(matches!(bed.repository.undo(&bed.caller(), Undo::Last), Err(VersionError::Refused { .. })));
    assert!(matches!(bed.repository.undo(&bed.caller(), Undo::Entry(99)), Err(VersionError::Unknown { kind: "operation", .. })));
}

#[test]
fn an_undo_takes_what_was_done_in_its_own_workspace_and_any_operation_that_is_named() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let head = |name: &str| repository.head(&name.parse().unwrap()).unwrap().snapshot.unwrap();
    let add = |name: &str| {
        let start = match repository.branch(&branch(name)).unwrap() {
            None => Start::NewBranch(branch(name), first),
            Some(_) => Start::Branch(branch(name)),
        };
        repository.add_workspace(&bed.caller(), &name.parse().unwrap(), "", &start).unwrap();
    };
    add("w1");
    add("w2");
    let [one, two] = ["w1", "w2"].map(|name| bed.commit_in(name, &[(name, Some("1"))], name).unwrap());
    let undone = repository.undo(&bed.caller_in("w1"), Undo::Last).unwrap();
    assert_eq!((undone.operations, head("w1"), head("w2")), (vec![5], first, two));
    assert_eq!(undone.left.map(|left| (left.number, left.workspace)), Some((6, "w2".to_owned())));
    let refused = repository.undo(&bed.caller_in("w1"), Undo::Last);
    assert!(matches!(&refused, Err(VersionError::Refused { message, .. }) if message.contains("6 (commit w2)")), "{refused:?}");
    bed.commit_in("w2", &[("w2", Some("2"))], "more").unwrap();
    assert!(matches!(repository.redo(&bed.caller_in("w2")), Err(VersionError::Refused { .. })), "w2 has taken nothing back");
    repository.redo(&bed.caller_in("w1")).unwrap();
    assert_eq!(head("w1"), one, "what w2 did meanwhile is in nobody's way");
    // Whoever names an operation takes it back, and it is not taken back a second time where it was done.
    repository.undo(&bed.caller_in("w1"), Undo::Entry(8)).unwrap();
    assert_eq!(head("w2"), two);
    let undone = repository.undo(&bed.caller_in("w2"), Undo::Last).unwrap();
    assert_eq!((undone.operations, undone.left.map(|left| left.number), head("w2")), (vec![6], None, first));
    // A new workspace of an old name has nothing of the old one's.
    repository.remove_workspace(&bed.caller(), &"w1".parse().unwrap()).unwrap();
    add("w1");
    assert!(matches!(repository.undo(&bed.caller_in("w1"), Undo::Last), Err(VersionError::Refused { .. })));
    assert_eq!(head("w1"), one);
}

#[test]
fn one_operation_of_the_past_is_undone_only_where_nothing_built_on_it() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    bed.new_branch("gone", first);
    let (_, deleted) = repository.delete_branch(&bed.caller(), &branch("gone"), Unmerged::Drop).unwrap();
    let second = bed.commit(&[("a", Some("2"))], "two").unwrap();
    repository.undo(&bed.caller(), Undo::Entry(deleted.operation.unwrap())).unwrap();
    assert_eq!((repository.branch(&branch("gone")).unwrap(), bed.head()), (Some(first), second));
    let refused = repository.undo(&bed.caller(), Undo::Entry(2));
    assert!(matches!(refused, Err(VersionError::Refused { message, .. }) if message.contains("refs/heads/main")));
}

#[test]
fn going_back_to_an_operation_puts_every_name_back_and_can_be_taken_back() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let at = repository.operations(None, 1).unwrap()[0].number;
    bed.commit(&[("a", Some("2"))], "two").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let third = bed.commit(&[("a", Some("3"))], "three").unwrap();
    let undone = repository.undo(&bed.caller(), Undo::To(at)).unwrap();
    assert_eq!(undone.operations, [6, 5, 4, 3]);
    assert_eq!(repository.refs("refs/").unwrap(), [("refs/heads/main".parse().unwrap(), first)]);
    assert_eq!((bed.head(), undone.moved.len()), (first, 1));
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    let head = Head { target: HeadTarget::Branch(branch("topic")), snapshot: Some(third) };
    assert_eq!(repository.head(&WorkspaceName::main()).unwrap(), head);
}

#[test]
fn a_merge_that_stopped_is_undone_with_its_questions() {
    let bed = Bed::new();
    let (repository, main) = (&bed.repository, WorkspaceName::main());
    let first = bed.commit(&[("a", Some("1\n"))], "one").unwrap();
    bed.new_branch("topic", first);
    bed.commit(&[("a", Some("2\n"))], "two").unwrap();
    bed.switch("topic");
    let other = bed.commit(&[("a", Some("3\n"))], "three").unwrap();
    bed.switch("main");
    repository.merge(&MergeRequest::new(bed.caller(), other, "topic")).unwrap();
    let merging = repository.workspace(&main).unwrap().merging;
    repository.mark_resolved(&main, &[b"a"]).unwrap();
    repository.commit(&CommitRequest::new(bed.caller(), bed.stored(&[("a", "both\n")]), "merged")).unwrap();
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    let again = repository.workspace(&main).unwrap().merging.unwrap();
    assert_eq!((again.other, again.unresolved.len(), merging.unwrap().unresolved.len()), (other, 0, 1));
    repository.undo(&bed.caller(), Undo::Last).unwrap();
    assert_eq!(repository.workspace(&main).unwrap().merging, None);
}

#[test]
fn the_log_is_found_whole_after_it_was_opened_again() {
    let store = Arc::new(MemoryStore::new());
    let bed = Bed::over(store.clone());
    for count in 0..300 {
        bed.commit(&[("a", Some(&count.to_string()))], "x").unwrap();
        if count % 100 == 7 {
            let opened = Repository::open(store.clone()).unwrap();
            assert_eq!(opened.operations(None, 1).unwrap()[0].number, count + 2);
        }
    }
    let numbers: Vec<u64> = bed.repository.operations(None, 1_000).unwrap().iter().map(|operation| operation.number).collect();
    assert_eq!(numbers, (1..=301).rev().collect::<Vec<u64>>());
}
