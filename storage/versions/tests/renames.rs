//! Files that have another path: the pairs and their similarity are git's.
//!
//! `DIFFERENTIAL_CASES` sets how many random pairs of trees are tried.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use helix_objects::{Durability, MemoryStore, NewObject, ObjectError, ObjectStore};
use helix_protocol::{FileMode, ObjectId};
use helix_versions::{PathChange, Tree, TreeEntry, diff_entries, find_renames};
use proptest::prelude::*;

const PATHS: [&str; 14] = ["a", "a.b", "a.txt", "b", "b.rs", "c", "d/a", "d/b", "d/b.rs", "e/a", "e/f/a", "e/f/b", "g", "h/new"];

type Files = BTreeMap<usize, Vec<u8>>;

/// Texts of a few families: two of one family have most lines in common, and some lines are longer than a piece.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let text = (0..3_u8, 4..14_usize, prop::collection::vec((0..14_usize, 0..4_u8), 0..5), any::<bool>());
    let text = text.prop_map(|(family, lines, edits, carriage)| {
        let line = |at: usize| match edits.iter().find(|(line, _)| *line == at) {
            Some((_, other)) => format!("other {other} of {at}"),
            None => format!("{} family {family} line {at}", "long ".repeat(at * 2)),
        };
        let end = if carriage { "\r\n" } else { "\n" };
        (0..lines).map(|at| line(at) + end).collect::<String>().into_bytes()
    });
    prop_oneof![
        8 => text,
        1 => Just(Vec::new()),
        1 => (0..4_u8).prop_map(|byte| [&[0, byte][..], &[7; 200]].concat()),
    ]
}

fn files() -> impl Strategy<Value = Files> {
    prop::collection::btree_map(0..PATHS.len(), content(), 1..10).prop_map(|mut files| {
        // A file cannot lie where a folder is.
        if files.keys().any(|at| PATHS[*at].starts_with("d/")) {
            files.retain(|at, _| PATHS[*at] != "d");
        }
        files
    })
}

/// Stores the files, and gives their tree.
fn tree(store: &MemoryStore, files: &[(&str, &[u8])]) -> ObjectId {
    let mut folders: BTreeMap<&str, Vec<(&str, &[u8])>> = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, content) in files {
        match path.split_once('/') {
            Some((folder, rest)) => folders.entry(folder).or_default().push((rest, content)),
            None => {
                let object = NewObject::new(content.to_vec().into());
                let (name, size, id) = (path.as_bytes().to_vec(), content.len() as u64, object.id());
                store.put(&[object], Durability::NoSync).unwrap();
                entries.push(TreeEntry { name, mode: FileMode::Regular, size, id });
            }
        }
    }
    for (folder, files) in folders {
        let id = tree(store, &files);
        entries.push(TreeEntry { name: folder.as_bytes().to_vec(), mode: FileMode::Directory, size: 0, id });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let object = Tree::new(entries).unwrap().encode();
    store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
    object.id()
}

fn named(files: &Files) -> Vec<(&str, &[u8])> {
    files.iter().map(|(at, content)| (PATHS[*at], content.as_slice())).collect()
}

fn ours(before: &Files, after: &Files) -> Vec<String> {
    let store = MemoryStore::new();
    let (older, newer) = (tree(&store, &named(before)), tree(&store, &named(after)));
    let changes = diff_entries(&store, Some(older), newer).unwrap();
    let renamed = find_renames(changes, |id| store.read(id)).map_err(|error| error.to_string()).unwrap();
    let mut shown: Vec<(Vec<u8>, String)> = renamed.iter().map(|change| (change.change.path.clone(), show(change))).collect();
    shown.sort();
    shown.into_iter().map(|(_, shown)| shown).collect()
}

fn show(change: &PathChange) -> String {
    let path = String::from_utf8_lossy(&change.change.path);
    match (&change.from, &change.change.before, &change.change.after) {
        (Some(from), ..) => format!("R{:03} {} {path}", from.similarity, String::from_utf8_lossy(&from.path)),
        (None, None, _) => format!("A {path}"),
        (None, _, None) => format!("D {path}"),
        _ => format!("M {path}"),
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args([
            "-c",
            "core.autocrlf=false",
            "-c",
            "core.quotePath=false",
            "-c",
            "gc.auto=0",
            "-c",
            "user.name=G",
            "-c",
            "user.email=g@e",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn gits(before: &Files, after: &Files) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "-q", "-b", "main"]);
    let mut trees = Vec::new();
    for files in [before, after] {
        for entry in fs::read_dir(folder.path()).unwrap().flatten().filter(|entry| entry.file_name() != ".git") {
            if entry.path().is_dir() { fs::remove_dir_all(entry.path()).unwrap() } else { fs::remove_file(entry.path()).unwrap() }
        }
        for (path, content) in named(files) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        git(folder.path(), &["add", "--all"]);
        trees.push(git(folder.path(), &["write-tree"]).trim().to_owned());
    }
    let said = git(folder.path(), &["diff", "--name-status", &trees[0], &trees[1]]);
    said.lines().map(|line| line.replace('\t', " ")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("DIFFERENTIAL_CASES").map_or(120, |text| text.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_same_files_are_renamed_as_in_git((before, after) in (files(), files())) {
        prop_assert_eq!(ours(&before, &after), gits(&before, &after));
    }
}

#[test]
fn a_content_that_cannot_be_read_is_told() {
    let store = MemoryStore::new();
    let (one, two) = (b"one line\nand another\n".as_slice(), b"one line\nand one other\n".as_slice());
    let (older, newer) = (tree(&store, &[("a", one)]), tree(&store, &[("b", two)]));
    let changes = diff_entries(&store, Some(older), newer).unwrap();
    assert!(find_renames(changes, |id| Err::<_, ObjectError>(ObjectError::Missing(id))).is_err());
}
