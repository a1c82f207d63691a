//! Random operations against a model: a map of refs, heads, and the states that undo goes back through.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Commit(u8, u8),
    Delete(u8),
    Branch(u8),
    Remove(u8),
    Switch(u8),
    Detach(usize),
    Reset(usize),
    Tag(u8),
    Undo,
    Redo,
    UndoTo(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..6_u8, any::<u8>()).prop_map(|(path, text)| Step::Commit(path, text)),
        1 => (0..6_u8).prop_map(Step::Delete),
        2 => (0..4_u8).prop_map(Step::Branch),
        1 => (0..4_u8).prop_map(Step::Remove),
        2 => (0..4_u8).prop_map(Step::Switch),
        1 => any::<usize>().prop_map(Step::Detach),
        2 => any::<usize>().prop_map(Step::Reset),
        1 => (0..3_u8).prop_map(Step::Tag),
        3 => Just(Step::Undo),
        2 => Just(Step::Redo),
        1 => any::<usize>().prop_map(Step::UndoTo),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a repository is, as far as anybody can see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    refs: BTreeMap<String, SnapshotId>,
    head: HeadTarget,
}

impl State {
    fn at(&self) -> Option<SnapshotId> {
        match &self.head {
            HeadTarget::Branch(branch) => self.refs.get(&format!("refs/heads/{branch}")).copied(),
            HeadTarget::Detached(id) => Some(*id),
        }
    }

    fn go(&mut self, id: SnapshotId) {
        match &self.head {
            HeadTarget::Branch(branch) => drop(self.refs.insert(format!("refs/heads/{branch}"), id)),
            HeadTarget::Detached(_) => self.head = HeadTarget::Detached(id),
        }
    }
}

struct Model {
    state: State,
    snapshots: Vec<(SnapshotId, BTreeMap<String, String>)>,
    /// After each entry of the log, the first one included.
    states: Vec<State>,
    /// States before each operation that undo would take back next, and after each that redo would make again.
    undo: Vec<State>,
    redo: Vec<State>,
}

impl Model {
    fn files(&self, id: Option<SnapshotId>) -> BTreeMap<String, String> {
        self.snapshots.iter().find(|(made, _)| Some(*made) == id).map(|(_, files)| files.clone()).unwrap_or_default()
    }

    /// An operation led here; where it changed nothing, it was none.
    fn done(&mut self, next: State) {
        if next != self.state {
            self.undo.push(std::mem::replace(&mut self.state, next));
            self.redo.clear();
            self.states.push(self.state.clone());
        }
    }
}

fn run(bed: &Bed, model: &mut Model, step: &Step) {
    let repository = &bed.repository;
    let mut next = model.state.clone();
    let chosen = |place: &usize| model.snapshots.get(place % model.snapshots.len().max(1)).map(|(id, _)| *id);
    match step {
        Step::Commit(path, text) => {
            let path = ["a", "b", "d/a", "d/b", "d/e/f", "g/h"][usize::from(*path)];
            let text = text.to_string();
            let mut files = model.files(model.state.at());
            if files.insert(path.to_owned(), text.clone()) == Some(text.clone()) {
                assert!(matches!(bed.commit(&[(path, Some(&text))], "x"), Err(VersionError::NothingToCommit(_))));
                return;
            }
            let id = bed.commit(&[(path, Some(&text))], "x").unwrap();
            model.snapshots.push((id, files));
            next.go(id);
        }
        Step::Delete(path) => {
            let path = ["a", "b", "d/a", "d/b", "d/e/f", "g/h"][usize::from(*path)];
            let mut files = model.files(model.state.at());
            if files.remove(path).is_none() {
                assert!(matches!(bed.commit(&[(path, None)], "x"), Err(VersionError::NothingToCommit(_))));
                return;
            }
            let id = bed.commit(&[(path, None)], "x").unwrap();
            model.snapshots.push((id, files));
            next.go(id);
        }
        Step::Branch(name) => {
            let Some(at) = model.state.at() else { return };
            let name = format!("b{name}");
            let made = repository.create_branch(&bed.caller(), &branch(&name), at, Existing::Refuse);
            let taken = next.refs.contains_key(&format!("refs/heads/{name}"));
            assert_eq!(made.is_ok(), !taken);
            next.refs.entry(format!("refs/heads/{name}")).or_insert(at);
        }
        Step::Remove(name) => {
            let name = format!("b{name}");
            let removed = repository.delete_branch(&bed.caller(), &branch(&name), Unmerged::Drop);
            let key = format!("refs/heads/{name}");
            let free = next.head != HeadTarget::Branch(branch(&name)) && next.refs.contains_key(&key);
            assert_eq!(removed.is_ok(), free);
            if free {
                next.refs.remove(&key);
            }
        }
        Step::Switch(name) => {
            let name = if *name == 3 { "main".to_owned() } else { format!("b{name}") };
            let target = branch(&name);
            let switched = repository.switch(&bed.caller(), &Start::Branch(target.clone()), Elsewhere::Refuse);
            let there = next.refs.contains_key(&format!("refs/heads/{name}")) || name == "main";
            assert_eq!(switched.is_ok(), there);
            if there {
                next.head = HeadTarget::Branch(target);
            }
        }
        Step::Detach(place) => {
            let Some(id) = chosen(place) else { return };
            repository.switch(&bed.caller(), &Start::Detached(id), Elsewhere::Refuse).unwrap();
            next.head = HeadTarget::Detached(id);
        }
        Step::Reset(place) => {
            let Some(id) = chosen(place) else { return };
            repository.reset(&bed.caller(), id, ResetKind::Hard).unwrap();
            next.go(id);
        }
        Step::Tag(name) => {
            let Some(at) = model.state.at() else { return };
            repository.create_tag(&bed.caller(), &branch(&format!("t{name}")), at, None, Existing::Move).unwrap();
            next.refs.insert(format!("refs/tags/t{name}"), at);
        }
        Step::Undo => {
            let undone = repository.undo(&bed.caller(), Undo::Last);
            assert_eq!(undone.is_ok(), !model.undo.is_empty(), "{undone:?}");
            if let Some(before) = model.undo.pop() {
                model.redo.push(std::mem::replace(&mut model.state, before));
                model.states.push(model.state.clone());
            }
            return;
        }
        Step::Redo => {
            let redone = repository.redo(&bed.caller());
            assert_eq!(redone.is_ok(), !model.redo.is_empty(), "{redone:?}");
            if let Some(after) = model.redo.pop() {
                model.undo.push(std::mem::replace(&mut model.state, after));
                model.states.push(model.state.clone());
            }
            return;
        }
        Step::UndoTo(place) => {
            let place = place % model.states.len();
            repository.undo(&bed.caller(), Undo::To(place as u64 + 1)).unwrap();
            next = model.states[place].clone();
        }
    }
    model.done(next);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_sequence_of_operations_agrees_with_a_map_of_refs(steps in steps()) {
        let bed = Bed::new();
        let start = State { refs: BTreeMap::new(), head: HeadTarget::Branch(branch("main")) };
        let mut model = Model { state: start.clone(), snapshots: Vec::new(), states: vec![start], undo: Vec::new(), redo: Vec::new() };
        for step in &steps {
            run(&bed, &mut model, step);
            let refs = bed.repository.refs("refs/").unwrap().into_iter().map(|(name, id)| (name.to_string(), id)).collect();
            let head = bed.repository.head(&WorkspaceName::main()).unwrap();
            prop_assert_eq!(&State { refs, head: head.target.clone() }, &model.state, "after {:?}", step);
            prop_assert_eq!(head.snapshot, model.state.at());
            let expected = model.files(head.snapshot);
            for path in ["a", "b", "d/a", "d/b", "d/e/f", "g/h"] {
                let read = bed.repository.read_file(&WorkspaceName::main(), path.as_bytes()).unwrap();
                prop_assert_eq!(read.as_deref(), expected.get(path).map(String::as_bytes), "{} in memory", path);
            }
        }
        for (id, expected) in &model.snapshots {
            prop_assert_eq!(&bed.files(bed.repository.tree(*id).unwrap()), expected);
        }
        prop_assert_eq!(bed.repository.operations(None, usize::MAX).unwrap().len(), model.states.len());
    }
}
