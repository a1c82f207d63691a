//! Held against `git merge-file`, where git is installed, and against what every merge must do.

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Labels, MergedText, merge_lines};

const LABELS: Labels<'_> = Labels { ours: "ours", theirs: "theirs", longer: 0 };

fn merged(base: &str, ours: &str, theirs: &str) -> (String, bool) {
    let MergedText { text, conflicted } = merge_lines(base.as_bytes(), ours.as_bytes(), theirs.as_bytes(), LABELS);
    (String::from_utf8(text).unwrap(), conflicted)
}

#[test]
fn changes_apart_are_both_taken_and_changes_that_touch_are_a_conflict() {
    let base = "1\n2\n3\n4\n5\n";
    assert_eq!(merged(base, "one\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n"), ("one\n2\n3\n4\nfive\n".to_owned(), false));
    let touching = "1\n<<<<<<< ours\ntwo\n3\n=======\n2\nthree\n>>>>>>> theirs\n4\n5\n";
    assert_eq!(merged(base, "1\ntwo\n3\n4\n5\n", "1\n2\nthree\n4\n5\n"), (touching.to_owned(), true));
}

#[test]
fn what_both_made_alike_is_no_conflict_even_within_one() {
    let (base, ours, theirs) = ("1\n2\n", "1\na\nb\nc\nd\ne\nours\n2\n", "1\na\nb\nc\nd\ne\ntheirs\n2\n");
    let expected = "1\na\nb\nc\nd\ne\n<<<<<<< ours\nours\n=======\ntheirs\n>>>>>>> theirs\n2\n";
    assert_eq!(merged(base, ours, theirs), (expected.to_owned(), true));
}

#[test]
fn markers_stand_on_lines_of_their_own_with_the_ends_that_the_lines_have() {
    assert_eq!(merged("1", "2", "3"), ("<<<<<<< ours\n2\n=======\n3\n>>>>>>> theirs\n".to_owned(), true));
    let crlf = "a\r\n<<<<<<< ours\r\n2\r\n=======\r\n3\r\n>>>>>>> theirs\r\n";
    assert_eq!(merged("a\r\n1\r\n", "a\r\n2\r\n", "a\r\n3\r\n"), (crlf.to_owned(), true));
    let longer = merge_lines(b"1", b"2", b"3", Labels { longer: 2, ..LABELS });
    assert!(longer.text.starts_with(b"<<<<<<<<< ours\n"));
}

fn texts() -> impl Strategy<Value = (Vec<String>, Vec<String>, Vec<String>)> {
    let line = prop::sample::select(vec!["a", "b", "c", "}", "", "x", "\tend"]);
    let base = prop::collection::vec(line.clone(), 0..24);
    let edit = (any::<prop::sample::Index>(), 0_usize..3, prop::collection::vec(line, 0..3));
    let edits = prop::collection::vec(edit, 0..4);
    (base, edits.clone(), edits, any::<bool>(), any::<bool>()).prop_map(|(base, ours, theirs, cut, crlf)| {
        let apply = |edits: Vec<(prop::sample::Index, usize, Vec<&'static str>)>| {
            let mut lines = base.clone();
            for (place, removed, added) in edits {
                let start = place.index(lines.len() + 1);
                let end = lines.len().min(start + removed);
                lines.splice(start..end, added);
            }
            let mut ended: Vec<String> = lines.iter().map(|line| format!("{line}{}", if crlf { "\r\n" } else { "\n" })).collect();
            if cut && let Some(last) = ended.last_mut() {
                *last = last.trim_end_matches(['\r', '\n']).to_owned();
            }
            ended
        };
        (apply(Vec::new()), apply(ours), apply(theirs))
    })
}

/// Whether git is there and can be told which method it is to use.
fn git_merges() -> bool {
    Command::new("git").args(["merge-file", "-h"]).output().is_ok_and(|help| {
        let text = [help.stdout, help.stderr].concat();
        String::from_utf8_lossy(&text).contains("--diff-algorithm")
    })
}

#[test]
fn every_merge_is_the_one_git_makes() {
    if !git_merges() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Each case starts a process.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    let outcome = runner.run(&texts(), |(base, ours, theirs)| {
        let (base, ours, theirs) = (base.concat(), ours.concat(), theirs.concat());
        for (name, text) in [("base", &base), ("ours", &ours), ("theirs", &theirs)] {
            fs::write(path(name), text).unwrap();
        }
        let output = Command::new("git")
            .current_dir(folder.path())
            .args([
                "merge-file",
                "-p",
                "--diff-algorithm",
                "histogram",
                "-L",
                "ours",
                "-L",
                "base",
                "-L",
                "theirs",
                "ours",
                "base",
                "theirs",
            ])
            .output()
            .unwrap();
        let expected = (String::from_utf8(output.stdout).unwrap(), output.status.code() != Some(0));
        prop_assert_eq!(merged(&base, &ours, &theirs), expected);
        Ok(())
    });
    outcome.unwrap();
}

proptest! {
    #[test]
    fn a_side_that_did_nothing_takes_the_other_and_equal_sides_agree((base, ours, _) in texts()) {
        let (base, ours) = (base.concat(), ours.concat());
        prop_assert_eq!(merged(&base, &base, &ours), (ours.clone(), false));
        prop_assert_eq!(merged(&base, &ours, &base), (ours.clone(), false));
        prop_assert_eq!(merged(&base, &ours, &ours), (ours.clone(), false));
    }

    #[test]
    fn whether_there_is_a_conflict_does_not_depend_on_the_side((base, ours, theirs) in texts()) {
        let (base, ours, theirs) = (base.concat(), ours.concat(), theirs.concat());
        let (one, other) = (merged(&base, &ours, &theirs), merged(&base, &theirs, &ours));
        prop_assert_eq!(one.1, other.1);
        if !one.1 {
            prop_assert_eq!(one.0, other.0);
        }
    }
}
