//! The same commands to git and to Helios, by chance: after each of them both ended alike, the files are the same, and so are
//! `status`, what is staged and what the head has.
//!
//! `DIFFERENTIAL_CASES` sets how many sequences are tried. Renames are followed on neither side. Left out is what the guide names
//! as another way of doing it: a commit without anything staged; while a merge waits moves of the head, `commit -a` and `restore`.
//! Where one of both refuses to overwrite a file and the other goes on, nothing may be lost, and a sequence ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::harness::Ended;
use crate::like_git::Both;

const FILES: [&str; 5] = ["a", "b", "d/a", "d/e/f", "g"];
const PATHS: [&str; 9] = ["a", "b", "d/a", "d", "d/e/f", "g", ".", "*a", "d/*"];
const BRANCHES: [&str; 2] = ["one", "two"];
const REVISIONS: [&str; 4] = ["HEAD", "HEAD~1", "one", "two"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u8),
    Delete(usize),
    /// A command, which is left out where the guide says that it is another one here.
    Run(Vec<&'static str>),
    /// Commits everything, as `commit --work .` does.
    Work,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..FILES.len();
    let path = prop::sample::select(&PATHS[..]);
    let branch = prop::sample::select(&BRANCHES[..]);
    let revision = prop::sample::select(&REVISIONS[..]);
    let run = |words: &'static str| Just(Step::Run(words.split(' ').collect()));
    let with = |words: &'static str| move |last: &'static str| Step::Run(words.split(' ').chain([last]).collect());
    let step = prop_oneof![
        12 => (file.clone(), 0..4_u8).prop_map(|(file, variant)| Step::Write(file, variant)),
        4 => file.prop_map(Step::Delete),
        4 => path.clone().prop_map(with("add")),
        1 => path.clone().prop_map(with("add -u")),
        2 => run("add -A"),
        4 => run("commit -q -m staged"),
        2 => run("commit -q -a -m all"),
        3 => Just(Step::Work),
        1 => revision.clone().prop_map(with("reset -q --soft")),
        1 => revision.clone().prop_map(with("reset -q --mixed")),
        1 => revision.clone().prop_map(with("reset -q --hard")),
        2 => path.clone().prop_map(with("restore")),
        2 => path.clone().prop_map(with("restore --staged")),
        2 => path.clone().prop_map(with("restore --source HEAD~1")),
        1 => path.clone().prop_map(with("restore -s HEAD~1 -S -W")),
        1 => path.clone().prop_map(with("reset -q --")),
        4 => (revision.clone(), path).prop_map(|(revision, path)| Step::Run(vec!["checkout", "-q", revision, "--", path])),
        2 => branch.clone().prop_map(with("checkout -q")),
        1 => run("checkout -q -b three"),
        1 => run("checkout -q main"),
        1 => branch.clone().prop_map(with("checkout -q -f")),
        5 => branch.clone().prop_map(with("merge -q -m merged")),
        1 => run("merge --abort"),
        3 => branch.prop_map(with("cherry-pick")),
        1 => run("cherry-pick --abort"),
        1 => run("revert --no-edit HEAD"),
        1 => run("revert --abort"),
    ];
    prop::collection::vec(step, 4..30)
}

/// How a step went.
enum Went {
    /// The same on both sides.
    Alike,
    /// Not at all.
    LeftOut,
    /// Only on one side, with nothing lost here.
    Apart,
}

/// How a command ended, where git has more words for no than one.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Done,
    No,
    Fatal,
}

fn class(ended: &Ended) -> Class {
    match ended.code {
        0 => Class::Done,
        1 | 2 => Class::No,
        _ => Class::Fatal,
    }
}

/// Two repositories with a base and two branches of it that differ.
fn begin() -> Both {
    let both = Both::new();
    let config = both.user.path("home/.gitconfig");
    let text = fs::read_to_string(&config).expect("it is there") + "[merge]\n\trenames = false\n[diff]\n\trenames = false\n";
    fs::write(config, text).expect("written");
    both.done(&["commit", "-q", "--allow-empty", "-m", "root"]);
    both.done(&["tag", "root"]);
    for file in ["a", "d/a", "d/e/f"] {
        both.write(file, &content(file, 0));
    }
    both.commit("base");
    for (branch, changes) in [("one", [("a", 1), ("b", 1)]), ("two", [("a", 2), ("d/a", 1)])] {
        both.done(&["checkout", "-q", "-b", branch, "main"]);
        for (file, variant) in changes {
            both.write(file, &content(file, variant));
            both.commit(file);
        }
    }
    both.done(&["checkout", "-q", "main"]);
    both
}

/// Twelve lines of which two are other ones: variants merge with each other where they are of different parts.
fn content(file: &str, variant: u8) -> String {
    let line = |number: u8| match number {
        number if variant > 0 && number == variant * 3 => format!("{file} {number} as {variant}\n"),
        5 if variant > 1 => format!("{file} five as {variant}\n"),
        number => format!("{file} {number}\n"),
    };
    (0..12).map(line).collect()
}

impl Step {
    /// Does it on both sides.
    fn run(&self, both: &Both) -> Went {
        match self {
            Self::Write(file, variant) => {
                let path = FILES[*file];
                both.write(path, &content(path, *variant));
                Went::Alike
            }
            Self::Delete(file) => {
                for root in [&both.git, &both.helios] {
                    let _ = fs::remove_file(root.join(FILES[*file]));
                }
                Went::Alike
            }
            Self::Work => {
                if waits(both) {
                    return Went::LeftOut;
                }
                assert_eq!(both.git("", &["add", "-A"]).code, 0);
                assert_eq!(both.git("", &["commit", "-q", "--allow-empty", "-m", "work"]).code, 0);
                assert_eq!(both.helios("", &["commit", "-q", "--work", ".", "-m", "work"]).code, 0);
                Went::Alike
            }
            Self::Run(words) => {
                if is_left_out(both, words) {
                    return Went::LeftOut;
                }
                let (waited, before) = (waits(both), files(&both.helios));
                let helios: Vec<&str> = words.iter().copied().filter(|word| !is_gits(words[0], word)).collect();
                let (git, ours) = (both.git("", words), both.helios("", &helios));
                if git.code == 0 && class(&ours) == Class::No && ours.err.contains("would be overwritten by") {
                    assert_eq!(before, files(&both.helios), "{words:?} was refused: {ours:?}");
                    return Went::Apart;
                }
                // What holds already what would be written is in nobody's way here, also where a conflict comes of it.
                let went_on = class(&ours) != Class::Fatal && !ours.err.contains("would be overwritten by");
                if went_on && git.err.contains("would be overwritten by") {
                    let after = files(&both.helios);
                    let named = git.err.lines().filter_map(|line| line.strip_prefix('\t'));
                    named.for_each(|path| {
                        assert_eq!(before.get(path), after.get(path), "{words:?}: {path} was overwritten: {git:?}")
                    });
                    return Went::Apart;
                }
                // git gives nothing up where files were edited after they were added; here they are kept first.
                if words.get(1) == Some(&"--abort") && class(&git) == Class::Fatal && class(&ours) == Class::Done {
                    let after = files(&both.helios);
                    let kept =
                        ours.err.split_once(" is kept in ").and_then(|(_, rest)| rest.split(' ').next()).expect("it is told");
                    for (path, text) in before.iter().filter(|(path, text)| after.get(*path) != Some(*text)) {
                        let shown = both.helios("", &["show", &format!("{kept}:{path}")]);
                        assert_eq!(plain(&shown.out), *text, "{path} is lost: {ours:?}");
                    }
                    return Went::Apart;
                }
                assert_eq!(class(&git), class(&ours), "{words:?}: git: {git:?}\nhelios: {ours:?}");
                if !waited && both.git("", &["ls-files", "-u"]).out.is_empty() && matches!(words[0], "cherry-pick" | "revert") {
                    // git waits for somebody to skip what changes nothing; here it is refused.
                    for name in ["CHERRY_PICK_HEAD", "REVERT_HEAD"] {
                        let _ = fs::remove_file(both.git.join(".git").join(name));
                    }
                }
                Went::Alike
            }
        }
    }
}

/// Options that only git needs.
fn is_gits(command: &str, word: &str) -> bool {
    word == "--no-edit" || command == "merge" && word == "-q"
}

fn waits(both: &Both) -> bool {
    ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"].iter().any(|name| both.git.join(".git").join(name).exists())
}

fn is_left_out(both: &Both, words: &[&str]) -> bool {
    let waits = waits(both);
    match words[0] {
        "commit" if words.contains(&"-a") => waits,
        "commit" => !waits && both.git("", &["diff", "--cached", "--quiet"]).code == 0,
        "checkout" => waits && !words.contains(&"--"),
        "restore" => waits,
        // A merge that git refuses brings back what is staged and removed in the folder.
        "merge" if !words.contains(&"--abort") => {
            both.git("", &["status", "--porcelain"]).out.lines().any(|line| line.starts_with("AD") || line.starts_with("MD"))
        }
        _ => false,
    }
}

/// A file without what stands beside a conflict's marker, which is another name for the same snapshot.
fn plain(text: &str) -> String {
    let plain = |line: &str| line.get(..8).filter(|mark| ["<<<<<<< ", ">>>>>>> "].contains(mark)).unwrap_or(line).to_owned();
    text.lines().map(|line| plain(line) + "\n").collect()
}

/// Every file beneath a folder.
fn files(root: &Path) -> BTreeMap<String, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("read").flatten() {
            if entry.file_name() == ".git" || entry.file_name() == ".helios" {
                continue;
            }
            if entry.path().is_dir() {
                open.push(entry.path());
                continue;
            }
            let name = entry.path().strip_prefix(root).expect("it is beneath").to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).expect("text");
            found.insert(name, plain(&text));
        }
    }
    found
}

/// A patch without the ids of what it is between, without the function's name that git writes behind `@@`, and without what stands
/// beside a conflict's marker.
fn patch(ended: &Ended) -> String {
    let plain = |line: &str| match line.strip_prefix("@@ ").and_then(|rest| rest.split_once(" @@")) {
        Some((numbers, _)) => format!("@@ {numbers} @@\n"),
        None => match line.chars().next().filter(|sign| " +-".contains(*sign)) {
            Some(sign) => format!("{sign}{}", plain(&format!("{}\n", &line[1..]))),
            None => format!("{line}\n"),
        },
    };
    ended.out.lines().filter(|line| !line.starts_with("index ")).map(plain).collect()
}

fn compare(both: &Both, after: &str) {
    let asked = |arguments: &[&str]| (both.git("", arguments), both.helios("", arguments));
    let (git, ours) = asked(&["status", "--porcelain", "--no-renames"]);
    assert_eq!(git.out, ours.out, "status after {after}");
    assert_eq!(files(&both.git), files(&both.helios), "files after {after}");
    let (git, ours) = asked(&["diff", "--no-renames", "root", "HEAD"]);
    assert_eq!(patch(&git), patch(&ours), "the head after {after}");
    if !waits(both) {
        for arguments in [&["diff", "--no-renames", "--cached"][..], &["diff", "--no-renames"]] {
            let (git, ours) = asked(arguments);
            assert_eq!(patch(&git), patch(&ours), "{arguments:?} after {after}");
        }
    }
}

fn cases() -> u32 {
    std::env::var("DIFFERENTIAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_typed_git_and_helios_end_alike_with_the_same(steps in steps()) {
        let both = begin();
        compare(&both, "the beginning");
        let mut done = Vec::new();
        for step in &steps {
            match step.run(&both) {
                Went::Alike => {
                    done.push(format!("{step:?}"));
                    compare(&both, &done.join("\n"));
                }
                Went::LeftOut => {}
                Went::Apart => break,
            }
        }
    }
}
