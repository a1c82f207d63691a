//! Branches, tags, revisions and the history.

use super::*;

#[test]
fn branches_are_made_renamed_and_removed_as_git_does_it() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    bed.new_branch("topic", first);
    let taken = repository.create_branch(&bed.caller(), &branch("topic"), first, Existing::Refuse);
    assert!(matches!(taken, Err(VersionError::Exists { kind: "branch", .. })));
    for name in ["topic/a", "main/b"] {
        let beneath = repository.create_branch(&bed.caller(), &branch(name), first, Existing::Refuse);
        assert!(matches!(beneath, Err(VersionError::Exists { .. })), "a branch is no folder: {name}");
    }
    bed.new_branch("a/b", first);
    assert!(repository.create_branch(&bed.caller(), &branch("a"), first, Existing::Refuse).is_err());
    bed.switch("topic");
    let second = bed.commit(&[("a", Some("2"))], "two").unwrap();
    repository.rename_branch(&bed.caller(), &branch("topic"), &branch("work"), Existing::Refuse).unwrap();
    let head = Head { target: HeadTarget::Branch(branch("work")), snapshot: Some(second) };
    assert_eq!(repository.head(&WorkspaceName::main()).unwrap(), head, "who is on it stays on it");
    let here = repository.delete_branch(&bed.caller(), &branch("work"), Unmerged::Drop);
    assert!(matches!(here, Err(VersionError::HeldByWorkspace { .. })));
    bed.switch("main");
    let unmerged = repository.delete_branch(&bed.caller(), &branch("work"), Unmerged::Refuse);
    assert!(matches!(unmerged, Err(VersionError::Unmerged(name)) if name == "work"));
    assert_eq!(repository.delete_branch(&bed.caller(), &branch("work"), Unmerged::Drop).unwrap().0, second);
    repository.delete_branch(&bed.caller(), &branch("a/b"), Unmerged::Refuse).unwrap();
    assert_eq!(repository.branches().unwrap(), [(branch("main"), first)]);
    let unknown = repository.delete_branch(&bed.caller(), &branch("mian"), Unmerged::Refuse);
    assert!(matches!(unknown, Err(VersionError::Unknown { nearest: Some(near), .. }) if near == "main"));
}

#[test]
fn tags_are_lightweight_or_say_who_and_why() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let annotation = Annotation { tagger: who("ada", 5), message: "the first".to_owned() };
    repository.create_tag(&bed.caller(), &branch("v1"), first, Some(&annotation), Existing::Refuse).unwrap();
    repository.create_tag(&bed.caller(), &branch("light"), first, None, Existing::Refuse).unwrap();
    assert!(repository.create_tag(&bed.caller(), &branch("v1"), first, None, Existing::Refuse).is_err());
    let tags = vec![
        Tag { name: "light".to_owned(), target: first, annotation: None },
        Tag { name: "v1".to_owned(), target: first, annotation: Some(annotation) },
    ];
    assert_eq!(repository.tags().unwrap(), tags);
    assert_eq!((bed.resolve("v1").unwrap(), bed.resolve("v1^{}").unwrap()), (first, first));
    assert_eq!(repository.delete_tag(&bed.caller(), &branch("v1")).unwrap().0, first);
    let unknown = repository.delete_tag(&bed.caller(), &branch("lihgt"));
    assert!(matches!(unknown, Err(VersionError::Unknown { nearest: Some(near), .. }) if near == "light"));
}

#[test]
fn revisions_are_written_as_in_git() {
    let bed = Bed::new();
    let main = WorkspaceName::main();
    assert!(matches!(bed.resolve("HEAD"), Err(VersionError::Unborn)), "nothing is committed yet");
    let first = bed.commit(&[("d/a", Some("1"))], "one").unwrap();
    let second = bed.commit(&[("d/a", Some("2"))], "two").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let side = bed.commit(&[("b", Some("3"))], "side").unwrap();
    bed.switch("main");
    let merged = bed.repository.merge(&MergeRequest::new(bed.caller(), side, "topic")).unwrap().snapshot.unwrap();
    let hex = merged.to_string();
    for (revision, expected) in [
        ("HEAD", merged),
        ("@", merged),
        ("main", merged),
        ("refs/heads/main", merged),
        ("heads/main", merged),
        (&hex, merged),
        (&hex[..12], merged),
        (&hex[..12].to_uppercase(), merged),
        ("HEAD^", second),
        ("HEAD^1", second),
        ("HEAD^2", side),
        ("HEAD^0", merged),
        ("HEAD~1", second),
        ("HEAD~2", first),
        ("HEAD^2^", first),
        ("main~1^{}~1", first),
        ("topic^{commit}", side),
        ("main@{1}", second),
        ("main@{2}", first),
        ("@{1}", second),
        ("topic@{1}", first),
        ("@{-1}", side),
        ("HEAD@{0}", merged),
        ("HEAD@{1}", second),
        ("HEAD@{2}", side),
        ("HEAD@{3}", first),
        ("HEAD@{4}", second),
        ("HEAD@{5}", first),
    ] {
        assert_eq!(bed.resolve(revision).map_err(|error| format!("{revision}: {error}")), Ok(expected), "{revision}");
    }
    for wrong in [
        "",
        "HEAD^3",
        "HEAD~3",
        "HEAD^{",
        "HEAD^{blob}",
        "main@{99}",
        "main@{x}",
        "main@{1",
        "@{-9}",
        "HEAD~x",
        "main:d/a",
        "^",
        "~1",
    ] {
        assert!(bed.resolve(wrong).is_err(), "{wrong}");
    }
    let file = |revision: &str| match bed.repository.resolve_object(&main, revision) {
        Ok(Resolved::Entry(entry)) => bed.repository.store().read(entry.id).map(|bytes| bytes.to_vec()).ok(),
        _ => None,
    };
    assert_eq!((file("HEAD~2:d/a"), file("main:d/a"), file(":b")), (Some(b"1".to_vec()), Some(b"2".to_vec()), Some(b"3".to_vec())));
    assert!(matches!(bed.repository.resolve_object(&main, "main:nowhere"), Err(VersionError::NotFound { .. })));
    assert!(matches!(bed.repository.resolve_object(&main, "main:../x"), Err(VersionError::InvalidPath(_))));
    let tree = bed.repository.tree(merged).unwrap();
    assert_eq!(bed.repository.resolve_tree(&main, "main^{tree}").unwrap(), tree);
    assert_eq!(bed.repository.resolve_tree(&main, "main:").unwrap(), tree);
    let unknown = bed.resolve("mani");
    assert!(matches!(unknown, Err(VersionError::Unknown { kind: "revision", nearest: Some(near), .. }) if near == "main"));
}

#[test]
fn short_ids_are_told_apart_or_their_candidates_are_named() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    // With a thousand snapshots some share their first four digits, and nearly none six.
    for count in 0..1_000 {
        ids.push(bed.commit(&[("a", Some(&count.to_string()))], "x").unwrap().to_string());
    }
    let sharing = |id: &str, digits: usize| ids.iter().filter(|other| other[..digits] == id[..digits]).count();
    for id in &ids {
        for digits in [4, 5, 7, 64] {
            let found = bed.resolve(&id[..digits]);
            match sharing(id, digits) {
                1 => assert_eq!(found.unwrap().to_string(), *id),
                count => match found {
                    Err(VersionError::Ambiguous { candidates, .. }) => {
                        assert_eq!(candidates.len(), count.min(8));
                        assert!(candidates.iter().all(|candidate| candidate.starts_with(&id[..digits])));
                    }
                    other => panic!("{digits} digits of {id}: {other:?}"),
                },
            }
        }
        assert_eq!(bed.repository.short_id(SnapshotId(id.parse().unwrap()), 12).unwrap(), id[..12]);
    }
    assert!(ids.iter().any(|id| sharing(id, 4) > 1), "the test meets an ambiguous one");
    assert!(matches!(bed.resolve("abc"), Err(VersionError::Unknown { .. })), "three digits are too few");
}

#[test]
fn ranges_and_filters_choose_from_the_history() {
    let bed = Bed::new();
    let repository = &bed.repository;
    let first = bed.commit(&[("a", Some("1"))], "one").unwrap();
    let second = bed.commit(&[("d/b", Some("1"))], "two").unwrap();
    bed.new_branch("topic", first);
    bed.switch("topic");
    let side = bed.commit(&[("c", Some("1"))], "Side").unwrap();
    bed.switch("main");
    let merged = repository.merge(&MergeRequest::new(bed.caller(), side, "topic")).unwrap().snapshot.unwrap();
    let last = bed.commit(&[("d/b", Some("2"))], "last").unwrap();
    let ids = |query: LogQuery| -> Vec<SnapshotId> {
        let query = if query.include.is_empty() { LogQuery { include: vec![last], ..query } } else { query };
        repository.log(&query).unwrap().map(|entry| entry.unwrap().id).collect()
    };
    let all = LogQuery::default;
    assert_eq!(ids(all()), [last, merged, side, second, first]);
    assert_eq!(ids(LogQuery { order: Order::Topological, ..all() }), [last, merged, side, second, first]);
    assert_eq!(ids(LogQuery { order: Order::Reverse, ..all() }), [first, second, side, merged, last]);
    assert_eq!(ids(LogQuery { first_parent: true, ..all() }), [last, merged, second, first]);
    assert_eq!(ids(LogQuery { skip: 1, limit: Some(2), ..all() }), [merged, side]);
    assert_eq!(ids(LogQuery { merges: Merges::Only, ..all() }), [merged]);
    assert_eq!(ids(LogQuery { merges: Merges::Without, limit: Some(2), ..all() }), [last, side]);
    assert_eq!(ids(LogQuery { grep: Some("side".into()), ..all() }), [side]);
    assert_eq!(ids(LogQuery { author: Some("ADA@".into()), limit: Some(1), ..all() }), [last]);
    assert_eq!(ids(LogQuery { author: Some("eve".into()), ..all() }), []);
    assert_eq!(ids(LogQuery { paths: vec![b"d".to_vec()], ..all() }), [last, second]);
    assert_eq!(ids(LogQuery { paths: vec![b"c".to_vec(), b"a".to_vec()], ..all() }), [side, first]);
    let range = |text: &[&str]| repository.resolve_range(&WorkspaceName::main(), text).unwrap();
    let between = |text: &[&str]| {
        let Range { include, exclude } = range(text);
        ids(LogQuery { include, exclude, ..all() })
    };
    assert_eq!(between(&["topic..main"]), [last, merged, second]);
    assert_eq!(between(&["HEAD~2.."]), [last, merged, side]);
    assert_eq!(between(&["topic", "^main~3"]), [side]);
    assert_eq!(between(&["topic...HEAD~2"]), [side, second]);
    assert_eq!(between(&["main..topic"]), []);
    assert_eq!(between(&[]), [last, merged, side, second, first]);
    // In topological order a gap is closed: what is told has what is told as parents.
    let drawn = |query: LogQuery| -> Vec<(SnapshotId, Vec<SnapshotId>)> {
        let query = LogQuery { include: vec![last], order: Order::Topological, ..query };
        repository.log(&query).unwrap().map(|entry| entry.map(|entry| (entry.id, entry.parents)).unwrap()).collect()
    };
    let merges_left_out = LogQuery { merges: Merges::Without, ..all() };
    assert_eq!(drawn(merges_left_out), [(last, vec![second, side]), (side, vec![first]), (second, vec![first]), (first, vec![])]);
    assert_eq!(drawn(LogQuery { exclude: vec![second], ..all() }), [(last, vec![merged]), (merged, vec![side]), (side, vec![])]);
    assert_eq!(repository.ahead_behind(second, side).unwrap(), (1, 1));
    assert_eq!(repository.ahead_behind(last, side).unwrap(), (3, 0));
}

#[test]
fn metadata_is_searched_by_key_and_by_value() {
    let bed = Bed::new();
    let mut made = Vec::new();
    for (count, (key, value)) in [("task", "t1"), ("task", "t2"), ("score", "1")].into_iter().enumerate() {
        let request = FilesRequest {
            caller: bed.caller(),
            expect: None,
            edits: vec![edit("a", Some(&count.to_string()))],
            message: String::new(),
            author: None,
            metadata: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            allow_empty: false,
        };
        made.push(bed.repository.commit_files(&request).unwrap().snapshot);
    }
    let find = |key: &str, value: Option<&str>| -> Vec<SnapshotId> {
        let metadata = vec![(key.to_owned(), value.map(str::to_owned))];
        let query = LogQuery { include: vec![bed.head()], metadata, ..LogQuery::default() };
        bed.repository.log(&query).unwrap().map(|entry| entry.unwrap().id).collect()
    };
    assert_eq!(find("task", Some("t1")), [made[0]]);
    assert_eq!(find("task", None), [made[1], made[0]]);
    assert_eq!(find("task", Some("t3")), []);
}

#[test]
fn the_history_of_clocks_that_jumped_is_whole_and_topological_where_asked() {
    let bed = Bed::new();
    let mut made = Vec::new();
    for (count, time) in [900, 100, 500, 5, 700].into_iter().enumerate() {
        let caller = Caller { workspace: WorkspaceName::main(), who: who("ada", time), durability: None, committer: None };
        let request = FilesRequest {
            caller,
            expect: None,
            edits: vec![edit("a", Some(&count.to_string()))],
            message: String::new(),
            author: None,
            metadata: BTreeMap::new(),
            allow_empty: false,
        };
        made.push(bed.repository.commit_files(&request).unwrap().snapshot);
    }
    made.reverse();
    for order in [Order::Date, Order::Topological] {
        let query = LogQuery { include: vec![bed.head()], order, ..LogQuery::default() };
        let ids: Vec<SnapshotId> = bed.repository.log(&query).unwrap().map(|entry| entry.unwrap().id).collect();
        assert_eq!(ids, made, "{order:?}");
    }
    assert_eq!(bed.repository.merge_bases(made[0], made[3]).unwrap(), [made[3]]);
    assert!(bed.repository.is_ancestor(made[4], made[0]).unwrap());
}
