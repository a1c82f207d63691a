//! What of a person's files a task carries, and what it says of those that it does not.

use std::path::{Path, PathBuf};

use crate::command_line::{Person, json, refusal};

/// A person whose files may have a megabyte, and whose repository has one commit.
fn person_with_a_repository() -> (Person, PathBuf) {
    let person = Person::new();
    let configuration = "workers: { local: 1, slots: 5 }\nworkspace: { file_cap_bytes: 1000000 }\n";
    std::fs::write(person.folder.path().join("helix.yaml"), configuration).expect("the folder is writable");
    let repository = person.folder.path().join("repository");
    std::fs::create_dir(&repository).expect("the folder is writable");
    person.git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    write(&repository, "kept", "2\n");
    person.git(&repository, &["add", "--all"]);
    person.git(&repository, &["commit", "--quiet", "--message", "one file"]);
    (person, repository)
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("the folder is writable");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of so many bytes that takes no place.
fn sparse(path: &Path, bytes: u64) {
    let file = std::fs::File::create(path).expect("the folder is writable");
    file.set_len(bytes).expect("the file system has sparse files");
}

#[test]
fn what_is_left_out_of_a_repository_is_named_and_a_tracked_change_is_never_left_out() {
    let (person, repository) = person_with_a_repository();
    let path = repository.display().to_string();
    sparse(&repository.join("disk.img"), 100 << 30);
    rustix::fs::mkfifoat(rustix::fs::CWD, repository.join("pipe"), rustix::fs::Mode::RUSR).expect("a fifo");

    let run = person.types(&["run", "--repo", &path, "--command", "ls"]);
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{said}");
    for named in ["left out: disk.img (100 GiB, too large)", "left out: pipe (no regular file)", "`workspace.file_cap_bytes`"] {
        assert!(said.contains(named), "{named:?} is missing: {said}");
    }
    let detached = json(&person.types(&["--json", "run", "--detach", "--repo", &path, "--command", "ls"]));
    let skipped = detached["imported"]["skipped"].as_array().expect("what was left out");
    assert_eq!(skipped.iter().map(|file| file["reason"].as_str()).collect::<Vec<_>>(), [Some("too_large"), Some("special")]);

    sparse(&repository.join("kept"), 2 << 20);
    let grown = ["--json", "run", "--repo", &path, "--command", "cat kept"];
    let refused = person.types(&grown);
    assert_eq!(refusal(&refused), (Some(4), "file_too_large".to_owned()));
    let said = text(&refused.stderr);
    assert!(["kept is tracked", "2 MiB", "--clean", "file_cap_bytes"].iter().all(|word| said.contains(word)), "{said}");
    let tasks = json(&person.types(&["task", "list", "--json"]));
    assert_eq!(tasks.as_array().map(Vec::len), Some(2), "a refused repository makes no task: {tasks}");
    let clean = person.types(&["--json", "run", "--repo", &path, "--clean", "--command", "test \"$(cat kept)\" = 2"]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
    person.git(&repository, &["commit", "--quiet", "--all", "--message", "grown"]);
    let committed = person.types(&["--json", "run", "--repo", &path, "--command", "true"]);
    assert_eq!(committed.status.code(), Some(0), "what is committed is taken whole: {}", text(&committed.stderr));
}

/// What git sees of a folder's files: modes, ids and paths.
fn tree_of(person: &Person, folder: &Path) -> String {
    person.git(folder, &["add", "--all"]);
    person.git(folder, &["ls-files", "--stage", "-z"])
}

/// The same of a commit.
fn committed(person: &Person, folder: &Path, commit: &str) -> String {
    let entries = person.git(folder, &["ls-tree", "-r", "-z", commit]).replace(" blob ", " ");
    entries.split_inclusive('\0').map(|entry| entry.replacen('\t', " 0\t", 1)).collect()
}

#[test]
fn what_a_task_changed_is_taken_by_git_apply_whole() {
    let (person, repository) = person_with_a_repository();
    for (name, text) in
        [("gone", "x\n"), ("script", "#!/bin/sh\n"), ("no end", "a\nb"), ("dos", "a\r\nb\r\n"), ("becomes", "file\n")]
    {
        write(&repository, name, text);
    }
    std::fs::write(repository.join("image"), [0, 1, 2, 255]).expect("the folder is writable");
    std::fs::write(repository.join("old.bin"), [0; 100]).expect("the folder is writable");
    std::os::unix::fs::symlink("kept", repository.join("link")).expect("a link");
    person.git(&repository, &["add", "--all"]);
    person.git(&repository, &["commit", "--quiet", "--message", "every kind of file"]);
    let clone = person.folder.path().join("clone");
    person.git(&repository, &["clone", "--quiet", ".", &clone.display().to_string()]);

    let change = r#"
        set -e
        printf '#!/bin/sh\necho tool\n' > tool; chmod 755 tool
        ln -s tool 'a link'; ln -sf script link
        head -c 3000 /dev/urandom > new.bin; printf '\000\001' > image; rm old.bin gone
        chmod 755 script
        printf 'a\nb\nc' > 'no end'; printf 'a\r\nB\r\n' > dos; printf 'x\ry' > 'bare return'
        : > empty; printf 'caf\351\n' > latin1
        mkdir -p 'deep/with space'; printf 'q\n' > 'deep/with space/"quoted" ü'
        printf 'tab\n' > "$(printf 'a\tb')"
        rm becomes; mkdir becomes; printf 'inside\n' > becomes/inside
        rm kept; ln -s script kept
        rm -rf .git; mkdir nothing
    "#;
    let run = person.types(&["--json", "run", "--repo", &repository.display().to_string(), "--command", change]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let task = json(&person.types(&["task", "list", "--json"]))[0]["id"].as_str().expect("a task").to_owned();
    let exported = json(&person.types(&["--json", "task", "export", &task]));
    let branch = exported["branch"].as_str().expect("it names the branch").to_owned();
    let expected = committed(&person, &repository, &branch);

    let patch = person.types(&["task", "diff", &task]);
    assert!(text(&patch.stderr).contains("folders without files"), "{}", text(&patch.stderr));
    let file = person.folder.path().join("patch");
    std::fs::write(&file, &patch.stdout).expect("the folder is writable");
    person.git(&clone, &["apply", &file.display().to_string()]);
    assert_eq!(tree_of(&person, &clone), expected, "{}", text(&patch.stdout));
    let before = committed(&person, &clone, "HEAD");
    person.git(&clone, &["apply", "--reverse", &file.display().to_string()]);
    assert_eq!(tree_of(&person, &clone), before, "a patch can be taken back");
}

#[test]
fn what_a_step_does_not_carry_is_told_wherever_the_step_is() {
    let (person, _) = person_with_a_repository();
    let run = person.types(&["run", "--command", "truncate -s 100M large; mkfifo pipe; echo small > small"]);
    let said = text(&run.stdout) + &text(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{said}");
    assert!(said.contains("1 file · 2 not carried"), "the timeline: {said}");
    let task = json(&person.types(&["task", "list", "--json"]))[0]["id"].as_str().expect("a task").to_owned();
    let named = "not carried: large (100 MiB, too large), pipe (no regular file)";
    let log = text(&person.types(&["task", "log", &task]).stdout);
    assert!(log.contains(named), "{log}");
    let steps = text(&person.types(&["task", "steps", &task]).stdout);
    assert!(steps.contains("(2 not carried)"), "{steps}");
    let show = text(&person.types(&["task", "show", &task]).stdout);
    assert!(show.contains("large (100 MiB, too large)") && show.contains("pipe (no regular file)"), "{show}");
    let expected = serde_json::json!([
        { "path": "large", "reason": "too_large", "size": 100 << 20 },
        { "path": "pipe", "reason": "special", "size": 0 },
    ]);
    assert_eq!(json(&person.types(&["--json", "task", "steps", &task]))[0]["skipped"], expected);
    assert_eq!(json(&person.types(&["--json", "task", "show", &task]))["skipped"], expected);
}

#[test]
fn artifacts_are_listed_and_fetched_as_they_were() {
    let (person, _) = person_with_a_repository();
    let command = "mkdir -p out; printf '\\000\\377' > out/data; printf '#!/bin/sh\\n' > out/tool; chmod 755 out/tool; \
                   ln -s data out/latest; echo no > other";
    let run = person.types(&["--json", "run", "--artifact", "out/*", "--command", command]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let task = json(&person.types(&["task", "list", "--json"]))[0]["id"].as_str().expect("a task").to_owned();
    let kept = json(&person.types(&["--json", "task", "artifacts", &task]));
    let paths: Vec<_> = kept.as_array().expect("a list").iter().filter_map(|kept| kept["path"].as_str()).collect();
    assert_eq!(paths, ["out/data", "out/latest", "out/tool"]);
    assert_eq!(json(&person.types(&["--json", "task", "steps", &task]))[0]["artifacts"], serde_json::json!(paths));
    for view in ["log", "show"] {
        let shown = text(&person.types(&["task", view, &task]).stdout);
        assert!(shown.contains("artifacts") && shown.contains("out/data"), "{shown}");
    }

    let fetched = person.folder.path().join("fetched");
    let out = fetched.display().to_string();
    assert_eq!(person.types(&["task", "artifacts", &task, "out/data", "--out", &out]).status.code(), Some(0));
    assert_eq!(std::fs::read(fetched.join("out/data")).expect("it was fetched"), [0, 255]);
    assert!(!fetched.join("out/tool").exists(), "only what was named");
    let again = person.types(&["--json", "task", "artifacts", &task, "--out", &out]);
    assert_eq!(refusal(&again), (Some(4), "invalid_state".to_owned()), "nothing is overwritten");
    let whole = person.folder.path().join("whole");
    let fetch = person.types(&["task", "artifacts", &task, "--out", &whole.display().to_string()]);
    assert_eq!(fetch.status.code(), Some(0), "{}", text(&fetch.stderr));
    assert_eq!(std::fs::read_link(whole.join("out/latest")).expect("a link"), Path::new("data"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&whole.join("out/tool").metadata().expect("it was fetched").permissions());
    assert_eq!(mode & 0o100, 0o100, "{mode:o}");
    let unknown = person.types(&["--json", "task", "artifacts", &task, "nothing"]);
    assert_eq!(refusal(&unknown), (Some(3), "not_found".to_owned()));
}

#[test]
fn of_artifacts_nothing_is_written_that_git_would_obey_or_that_leads_out_and_the_rest_is() {
    let (person, _) = person_with_a_repository();
    let command =
        "mkdir -p x/.git out; echo '[core]' > x/.git/config; echo yes > x/file; ln -s /tmp out/link; echo yes > out/other";
    let run = person.types(&["--json", "run", "--artifact", "**", "--command", command]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let task = json(&person.types(&["task", "list", "--json"]))[0]["id"].as_str().expect("a task").to_owned();
    let fetched = person.folder.path().join("fetched");
    let out = fetched.display().to_string();
    let fetch = person.types(&["task", "artifacts", &task, "--out", &out]);
    let said = text(&fetch.stderr);
    assert_eq!(fetch.status.code(), Some(4), "{said}");
    for named in ["left out: the artifact out/link", "left out: the artifact x/.git/config", "and so with 1 more"] {
        assert!(said.contains(named), "{named:?} is missing: {said}");
    }
    assert!(!fetched.join("x/.git").exists() && fetched.join("out/link").symlink_metadata().is_err(), "{said}");
    assert!(["x/file", "out/other"].iter().all(|path| fetched.join(path).is_file()), "{said}");
}
