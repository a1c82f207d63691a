//! Every record survives its encoding; whatever else is read is refused or is the one encoding of what it says.

use helix_objects::hash;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn ids() -> impl Strategy<Value = ObjectId> {
    any::<u16>().prop_map(|seed| hash(&seed.to_le_bytes()))
}

fn snapshots() -> impl Strategy<Value = SnapshotId> {
    ids().prop_map(SnapshotId)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn branches() -> impl Strategy<Value = BranchName> {
    "[a-z]{1,6}(/[a-z]{1,6})?".prop_map(|name| name.parse().unwrap())
}

fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(".{0,6}", ".{0,6}", 0..3)
}

fn byte_strings() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

prop_compose! {
    fn signatures()(name in ".{0,8}", email in ".{0,8}", time in times(), offset_minutes in any::<i16>()) -> Signature {
        Signature { name, email, time, offset_minutes }
    }
}

prop_compose! {
    fn refs()(
        target in snapshots(), tag in prop::option::of((signatures(), ".{0,20}")),
    ) -> RefRecord {
        RefRecord { target, annotation: tag.map(|(tagger, message)| Annotation { tagger, message }) }
    }
}

prop_compose! {
    fn workspaces()(root in ".{0,12}", made in times(), branch in branches(), id in prop::option::of(snapshots())) -> WorkspaceRecord {
        WorkspaceRecord { root, made, head: id.map_or(HeadTarget::Branch(branch), HeadTarget::Detached) }
    }
}

fn sides() -> impl Strategy<Value = Option<(FileMode, ObjectId)>> {
    let modes = select(vec![FileMode::Regular, FileMode::Executable, FileMode::Symlink, FileMode::Directory]);
    prop::option::of((modes, ids()))
}

prop_compose! {
    fn undecided()(
        path in byte_strings(), stands in prop::option::of(ids()), base in sides(), ours in sides(), theirs in sides(),
    ) -> Unresolved {
        Unresolved { path: path.to_vec(), stands, base, ours, theirs }
    }
}

prop_compose! {
    fn merges()(
        kind in select(vec![MergingKind::Merge, MergingKind::CherryPick, MergingKind::Revert]), began in prop::option::of(snapshots()),
        other in snapshots(), tree in ids(), message in ".{0,20}", unresolved in prop::collection::vec(undecided(), 0..3),
        author in prop::option::of(signatures()),
    ) -> Merging {
        Merging { kind, began, other, tree, message, unresolved, author }
    }
}

prop_compose! {
    fn changes()(
        family in select(Family::ALL.to_vec()), key in byte_strings(), before in prop::option::of(byte_strings()),
        after in prop::option::of(byte_strings()),
    ) -> ChangeRecord {
        ChangeRecord { family, key, before, after }
    }
}

prop_compose! {
    fn operations()(
        time in times(), who in ".{0,8}", workspace in ".{0,8}", verb in ".{0,8}", text in ".{0,8}",
        cause in prop_oneof![Just(Cause::Itself), any::<u64>().prop_map(Cause::Undoes), any::<u64>().prop_map(Cause::Redoes)],
        changes in prop::collection::vec(changes(), 0..3),
    ) -> OperationRecord {
        OperationRecord { time, who, workspace, verb, text, cause, changes }
    }
}

prop_compose! {
    fn scores()(snapshot in snapshots(), value in -1e9..1e9, time in times(), metadata in maps()) -> Score {
        Score { snapshot, value, time, metadata }
    }
}

prop_compose! {
    fn experiments()(
        base in snapshots(), lowest in any::<bool>(), made in times(), metadata in maps(),
        state in prop_oneof![
            Just(ExperimentState::Open), Just(ExperimentState::Discarded),
            ("[a-z]{1,6}", snapshots()).prop_map(|(name, snapshot)| ExperimentState::Promoted { variant: name.parse().unwrap(), snapshot }),
        ],
    ) -> ExperimentRecord {
        ExperimentRecord { base, goal: if lowest { Goal::Lowest } else { Goal::Highest }, state, made, metadata }
    }
}

prop_compose! {
    fn variants()(
        branch in branches(), made in times(), scores_given in any::<u64>(), best in prop::option::of(scores()), last in prop::option::of(scores()),
    ) -> VariantRecord {
        VariantRecord { branch, made, scores: scores_given, best, last }
    }
}

prop_compose! {
    fn repositories()(
        format in any::<u64>(), branch in branches(), made in times(),
        durability in select(vec![Durability::NoSync, Durability::Group, Durability::Sync]),
    ) -> RepositoryRecord {
        RepositoryRecord { format, branch, durability, made }
    }
}

/// A value comes back as it was, and what its damaged bytes are read as is encoded as those bytes.
fn holds<R: Record + PartialEq + std::fmt::Debug>(value: &R, damage: &[(prop::sample::Index, u8)]) -> Result<(), TestCaseError> {
    let bytes = value.encode();
    let read = R::decode(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(value));
    let mut damaged = bytes.to_vec();
    for (place, byte) in damage {
        let place = place.index(damaged.len());
        damaged[place] = *byte;
    }
    if let Ok(read) = R::decode(&damaged) {
        prop_assert_eq!(read.encode().to_vec(), damaged);
    }
    prop_assert!(R::decode(&bytes[..bytes.len() - 1]).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn every_record_survives_its_encoding_and_damage_is_refused_or_read_as_it_is(
        one in refs(), two in workspaces(), three in merges(), four in operations(), five in experiments(), six in variants(),
        seven in repositories(), eight in (any::<u64>(), times()), nine in (ids(), prop::option::of(ids())),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        holds(&one, &damage)?;
        holds(&two, &damage)?;
        holds(&three, &damage)?;
        holds(&four, &damage)?;
        holds(&five, &damage)?;
        holds(&six, &damage)?;
        holds(&seven, &damage)?;
        holds(&SnapshotRecord { depth: eight.0, time: eight.1 }, &damage)?;
        holds(&Staged { tree: nine.0, onto: nine.1 }, &damage)?;
    }

    #[test]
    fn random_bytes_are_refused_without_taking_memory(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let bytes = [&[VERSION], bytes.as_slice()].concat();
        let read = [
            RefRecord::decode(&bytes).map(|read| read.encode()),
            Merging::decode(&bytes).map(|read| read.encode()),
            OperationRecord::decode(&bytes).map(|read| read.encode()),
            VariantRecord::decode(&bytes).map(|read| read.encode()),
        ];
        for again in read.into_iter().flatten() {
            prop_assert_eq!(again.to_vec(), bytes.clone());
        }
    }
}

#[test]
fn a_record_of_a_newer_version_is_refused() {
    let mut bytes = Staged { tree: hash(b""), onto: None }.encode().to_vec();
    bytes[0] = 2;
    assert_eq!(Staged::decode(&bytes), Err("its version is not known"));
}
