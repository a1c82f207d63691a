//! git's ignore rules, held against git.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use helix_objects::{Durability, MemoryStore};
use helix_protocol::FileMode;
use proptest::prelude::*;

use super::{Events, FolderRules, WorkingFolder};
use crate::walk;

/// A population in which the patterns below find something.
const NAMES: [&str; 34] = [
    "a",
    "b",
    "ab",
    "abc",
    "a.o",
    "b.o",
    "a b",
    "a ",
    "a\\",
    "#a",
    "!a",
    "[a]",
    "a*",
    "A",
    "AB",
    "é",
    "build/a",
    "build/a.o",
    "build/x/a",
    "build/x/y/b.o",
    "x/a",
    "x/build/a",
    "x/y/a",
    "x/y/z/a.o",
    "x/y/z/b",
    "abcd/x/a",
    "a-b/c",
    "a]b",
    "-",
    "x/ab/a",
    "foo/bar",
    "fooz/bar",
    "foo/x/bar",
    "1",
];

fn piece() -> impl Strategy<Value = String> {
    let known = [
        "a",
        "b",
        "ab",
        "abc",
        "build",
        "x",
        "y",
        "z",
        "a.o",
        "foo",
        "bar",
        "*",
        "**",
        "*.o",
        "?",
        "a*",
        "*b",
        "a?",
        "[ab]",
        "[!a]",
        "[^b]",
        "[a-c]",
        "[]a]",
        "[a",
        "[[:alpha:]]",
        "[[:upper:]]*",
        "[[:nope:]]",
        "[a-",
        "[\\]a]",
        "\\a",
        "\\*",
        "a\\ ",
        "foo**",
        "**a",
        "a**b",
        "é",
        "[é]",
        "[^-]",
        "\\",
        "A",
        "[A-Z]",
        "[c-a]",
        "***",
        "?*",
        "[!]]",
        ".",
        "..",
    ];
    prop_oneof![12 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[ab*?\\[\\]!^\\-/\\\\ ]{1,5}"]
}

fn line() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(piece(), 1..4).prop_map(|pieces| pieces.join("/"));
    let start = prop::sample::select(vec!["", "", "", "", "/", "!", "!", "!/", "\\!", "\\#", "#", " ", "**/", "\u{feff}"]);
    let end = prop::sample::select(vec!["", "", "", "", "/", "/", "/*", "/**", " ", "  ", "\\ ", "\\  ", "\t", "\r", "/ ", "\\"]);
    prop_oneof![
        12 => (start, pieces, end).prop_map(|(start, pieces, end)| format!("{start}{pieces}{end}")),
        1 => prop::sample::select(vec!["", "/", "!", "!/", "//", "\\", " ", "*", "**", "**/", "/*", "/**", "!*", "!*/", "\t"]).prop_map(str::to_owned),
    ]
}

/// The text of an ignore file.
fn text() -> impl Strategy<Value = String> {
    (prop::collection::vec(line(), 1..6), prop::sample::select(vec!["\n", "\n", "\r\n"]), any::<bool>()).prop_map(
        |(lines, end, last)| {
            let text = lines.join(end);
            if last { text + end } else { text }
        },
    )
}

fn git(root: &Path, arguments: &[&str]) -> Vec<Vec<u8>> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(OsStr::from_bytes(path.as_bytes()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn show(paths: impl IntoIterator<Item = Vec<u8>>) -> BTreeSet<String> {
    paths.into_iter().map(|path| String::from_utf8_lossy(&path).into_owned()).collect()
}

/// The paths that one of us has and the other does not, with the ignore file of their folder.
fn differing(root: &Path, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> Vec<String> {
    let explain = |path: &String| {
        let folder = root.join(path.split('/').next().unwrap());
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        format!(
            "{path:?} {} {:?} {:?}",
            if ours.contains(path) { "ours" } else { "git's" },
            read(".gitignore"),
            read("x/.gitignore")
        )
    };
    ours.symmetric_difference(theirs).map(explain).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn git_and_we_carry_the_same_files_and_ignore_the_same(
        outer in text(), top in text(), texts in prop::collection::vec((text(), prop::option::of(text())), 20), tracked in any::<u8>(),
    ) {
        let (root, state, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), MemoryStore::new());
        git(root.path(), &["init", "-q"]);
        write(root.path(), ".git/info/exclude", &outer);
        for (number, _) in texts.iter().enumerate() {
            for name in NAMES {
                write(root.path(), &format!("{number}/{name}"), "x");
            }
        }
        let mut folder = WorkingFolder::open(root.path(), state.path(), FolderRules::default()).unwrap();
        // Some files are tracked from the time before they were ignored.
        let mut base = None;
        if tracked % 2 == 1 {
            for path in git(root.path(), &["ls-files", "-zo"]) {
                if helix_objects::hash(&path).0[0] > tracked / 4 + 160 {
                    fs::create_dir_all(root.path().join("kept")).unwrap();
                } else {
                    fs::remove_file(root.path().join(OsStr::from_bytes(&path))).unwrap();
                }
            }
            fs::write(root.path().join(".git/info/exclude"), "").unwrap();
            git(root.path(), &["add", "-A"]);
            let found = folder.refresh(&store, None).unwrap();
            helix_objects::ObjectStore::put(&store, &found.objects, Durability::NoSync).unwrap();
            base = Some(found.tree);
            write(root.path(), ".git/info/exclude", &outer);
            for (number, _) in texts.iter().enumerate() {
                for name in NAMES {
                    write(root.path(), &format!("{number}/{name}"), "x");
                }
            }
        }
        write(root.path(), ".gitignore", &top);
        for (number, (text, inner)) in texts.iter().enumerate() {
            write(root.path(), &format!("{number}/.gitignore"), text);
            if let Some(inner) = inner {
                write(root.path(), &format!("{number}/x/.gitignore"), inner);
            }
        }
        let found = folder.refresh(&store, base).unwrap();
        helix_objects::ObjectStore::put(&store, &found.objects, Durability::NoSync).unwrap();
        let files = walk(&store, found.tree).unwrap().into_iter().filter(|entry| entry.mode != FileMode::Directory);
        let ours = show(files.map(|entry| entry.path));
        let theirs = show(git(root.path(), &["ls-files", "-zco", "--exclude-standard"]));
        prop_assert_eq!(differing(root.path(), &ours, &theirs), Vec::<String>::new(), "carried; outer {:?}, top {:?}", outer, top);
        let status = git(root.path(), &["status", "--porcelain", "-z", "-uall", "--ignored=matching"]);
        let theirs = status.into_iter().filter_map(|line| line.strip_prefix(b"!! ").map(<[u8]>::to_vec));
        let (ours, theirs) = (show(folder.ignored().unwrap()), show(theirs));
        prop_assert_eq!(differing(root.path(), &ours, &theirs), Vec::<String>::new(), "ignored; outer {:?}, top {:?}", outer, top);
        // And the same without what was known.
        let (state, rules) = (tempfile::tempdir().unwrap(), FolderRules { events: Events::Ignore, ..FolderRules::default() });
        let again = WorkingFolder::open(root.path(), state.path(), rules).unwrap().refresh(&store, base).unwrap();
        prop_assert_eq!(again.tree, found.tree);
    }
}
