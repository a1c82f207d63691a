//! What the commands do, seen from outside.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::harness::User;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("made");
        fs::write(path, content).expect("written");
    }
}

#[test]
fn status_tells_staged_changed_and_untracked_files_apart() {
    let user = User::new();
    let root = user.repository("work");
    write(&root, &[("kept", "1"), ("changed", "1"), ("gone", "1"), ("d/inner", "1"), (".gitignore", "*.log\n")]);
    user.ok(&root, &["commit", "--work", "."]);
    write(&root, &[("changed", "2"), ("staged", "1"), ("new/a", "1"), ("new/b", "1"), ("x.log", "1"), ("with space", "1")]);
    fs::remove_file(root.join("gone")).expect("removed");
    user.ok(&root, &["add", "staged"]);
    let expected = " M changed\n D gone\nA  staged\n?? new/\n?? \"with space\"\n";
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), expected);
    assert!(user.ok(&root, &["status", "--porcelain", "-uall"]).contains("?? new/a\n?? new/b\n"));
    assert!(user.ok(&root, &["status", "--porcelain", "--ignored"]).ends_with("!! x.log\n"));
    // The staged file alone is committed.
    user.ok(&root, &["commit", "-m", "one"]);
    assert_eq!(user.ok(&root, &["show", "--name-status"]).lines().last(), Some("A\tstaged"));
    user.ok(&root, &["commit", "-m", "the rest"]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn a_part_of_the_folder_can_be_committed_alone() {
    let user = User::new();
    let root = user.repository("work");
    write(&root, &[("a/x", "1"), ("b/y", "1")]);
    user.ok(&root, &["commit", "--work", "."]);
    write(&root, &[("a/x", "2"), ("b/y", "2"), ("b/z", "1")]);
    user.ok(&root.join("a"), &["commit", "--work", ".", "-m", "only a"]);
    assert_eq!(user.ok(&root, &["diff", "--name-status", "HEAD~1", "HEAD"]), "M\ta/x\n");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), " M b/y\n?? b/z\n");
    user.ok(&root, &["commit", "--work", "b/z", "-m", "one file"]);
    assert_eq!(user.ok(&root, &["diff", "--name-status", "HEAD~1", "HEAD"]), "A\tb/z\n");
}

#[test]
fn checkout_goes_there_and_back_and_refuses_to_lose_changes() {
    let user = User::new();
    let root = user.repository("work");
    write(&root, &[("f", "1"), ("script", "#!/bin/sh\n")]);
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).expect("set");
    symlink("f", root.join("link")).expect("linked");
    user.ok(&root, &["commit", "--work", "."]);
    user.ok(&root, &["checkout", "-b", "other"]);
    user.commit(&root, "f", "2");
    user.commit(&root, "only-there", "x");
    user.ok(&root, &["checkout", "main"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "1");
    assert!(!root.join("only-there").exists());
    write(&root, &[("f", "mine"), ("only-there", "mine")]);
    let refused = user.run(&root, &["checkout", "other"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("\tf\n") && refused.err.contains("\tonly-there\n"), "{}", refused.err);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "mine", "nothing was touched");
    assert_eq!(user.ok(&root, &["branch", "--show-current"]), "main\n");
    user.ok(&root, &["checkout", "-f", "other"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "2");
    user.ok(&root, &["switch", "-"]);
    assert_eq!(user.ok(&root, &["rev-parse", "--abbrev-ref", "HEAD"]), "main\n");
    assert_eq!(fs::read_link(root.join("link")).expect("a link"), Path::new("f"));
    assert_eq!(fs::metadata(root.join("script")).expect("there").permissions().mode() & 0o111, 0o111);
    user.ok(&root, &["switch", "-c", "third", "other"]);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 3);
}

#[test]
fn reset_moves_head_stage_and_files_as_it_is_told() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["reset", "--soft", "HEAD~1"]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "M  f\n");
    user.ok(&root, &["reset", "HEAD"]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), " M f\n");
    let out = user.ok(&root, &["reset", "--hard", &two[..12]]);
    assert_eq!(out, format!("HEAD is now at {} f\n", &two[..12]));
    fs::write(root.join("f"), "lost").expect("written");
    user.ok(&root, &["reset", "--hard", "HEAD~1"]);
    assert_eq!(
        (fs::read_to_string(root.join("f")).expect("read").as_str(), user.ok(&root, &["rev-parse", "HEAD"]).trim()),
        ("1", one.as_str())
    );
    user.ok(&root, &["undo"]);
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), two);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "2");
}

#[test]
fn what_a_hard_reset_throws_away_is_kept_in_a_snapshot() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    fs::write(root.join("f"), "never committed").expect("written");
    let ended = user.run(&root, &["reset", "--hard"]);
    assert_eq!(ended.code, 0);
    let kept = ended
        .err
        .split_whitespace()
        .find(|word| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .expect("an id");
    assert_eq!(user.ok(&root, &["show", &format!("{kept}:f")]), "never committed");
    assert_eq!(user.run(&root, &["reset", "--hard"]).err, "", "nothing is thrown away, nothing is kept");
}

#[test]
fn a_merge_with_conflicts_is_listed_decided_or_given_up() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "a\nb\nc\n");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    user.commit(&root, "f", "a\ntheirs\nc\n");
    user.commit(&root, "theirs", "x");
    user.ok(&root, &["checkout", "-q", "main"]);
    let before = user.commit(&root, "f", "a\nours\nc\n");
    let ended = user.run(&root, &["merge", "other"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("CONFLICT (content): both sides changed f\n"), "{}", ended.out);
    assert!(user.ok(&root, &["status", "--porcelain"]).contains("UU f\n"));
    assert_eq!(user.run(&root, &["commit", "-a", "-m", "x"]).code, 128, "nobody decided yet");
    user.ok(&root, &["merge", "--abort"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "a\nours\nc\n");
    assert!(!root.join("theirs").exists());
    assert_eq!(user.run(&root, &["merge", "other"]).code, 1);
    fs::write(root.join("f"), "a\nboth\nc\n").expect("written");
    user.ok(&root, &["commit", "-a"]);
    let head: Value = serde_json::from_str(&user.ok(&root, &["--json", "log", "-n", "1"])).expect("JSON");
    assert_eq!(
        (head["message"].as_str().map(str::trim), head["parents"][0].as_str()),
        (Some("Merge branch 'other'"), Some(before.as_str()))
    );
    assert_eq!(user.ok(&root, &["merge", "other"]), "Already up to date.\n");
}

#[test]
fn a_merge_that_would_overwrite_local_changes_does_nothing() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    user.commit(&root, "f", "2");
    user.ok(&root, &["checkout", "-q", "main"]);
    fs::write(root.join("f"), "mine").expect("written");
    let refused = user.run(&root, &["merge", "other"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("\tf\n"), "{}", refused.err);
    assert_eq!(
        (user.ok(&root, &["rev-parse", "HEAD"]).trim(), fs::read_to_string(root.join("f")).expect("read").as_str()),
        (one.as_str(), "mine")
    );
}

#[test]
fn commits_carry_authors_metadata_and_expectations() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    fs::write(root.join("f"), "2").expect("written");
    let mut commit = user.helios(
        &root,
        &["--json", "commit", "-m", "subject", "-m", "body", "--meta", "model=m", "--durability", "sync", "--expect", &one],
    );
    let ended = crate::harness::ended(commit.env("HELIOS_AUTHOR_NAME", "Ada").env("HELIOS_AUTHOR_EMAIL", "ada@example.org"));
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(
        (told["on_disk"].as_bool(), told["files_changed"].as_u64(), told["branch"].as_str()),
        (Some(true), Some(1), Some("main"))
    );
    let head: Value = serde_json::from_str(&user.ok(&root, &["log", "-n", "1", "--where", "model=m", "--json"])).expect("JSON");
    assert_eq!((head["author"]["name"].as_str(), head["author"]["email"].as_str()), (Some("Ada"), Some("ada@example.org")));
    assert_eq!((head["message"].as_str(), head["metadata"]["model"].as_str()), (Some("subject\n\nbody\n"), Some("m")));
    fs::write(root.join("f"), "3").expect("written");
    let refused = user.run(&root, &["commit", "-m", "late", "--expect", &one]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert_eq!(user.run(&root, &["commit", "-m", "now"]).code, 0);
    assert_eq!(user.run(&root, &["commit", "-m", "again"]).code, 1, "nothing to commit");
    user.ok(&root, &["commit", "--amend", "-m", "better"]);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 3);
}

#[test]
fn workspaces_have_heads_of_their_own_and_share_what_is_committed() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent-1"]);
    let other = user.path("agent-1");
    assert_eq!(fs::read_to_string(other.join("f")).expect("read"), "1");
    let made = user.commit(&other, "g", "2");
    assert!(!root.join("g").exists());
    assert_eq!(user.ok(&root, &["rev-parse", "agent-1"]).trim(), made);
    user.ok(&root, &["merge", "agent-1"]);
    assert_eq!(fs::read_to_string(root.join("g")).expect("read"), "2");
    let nested = user.run(&root, &["workspace", "add", "../agent-1/inside"]);
    assert!(nested.code == 1 && nested.err.contains("lies in workspace agent-1"), "{nested:?}");
    assert!(!other.join("inside").exists(), "nothing is left of it");
    let refused = user.run(&root, &["checkout", "agent-1"]);
    assert_eq!(refused.code, 128);
    assert!(refused.err.contains("workspace agent-1"), "{}", refused.err);
    fs::write(other.join("g"), "not committed").expect("written");
    assert_eq!(user.run(&root, &["workspace", "remove", "agent-1", "--delete"]).code, 1);
    user.ok(&root, &["workspace", "remove", "agent-1", "--delete", "--force"]);
    assert!(!other.exists());
    assert_eq!(user.ok(&root, &["rev-parse", "agent-1"]).trim(), made, "the branch stays");
}

#[test]
fn undo_goes_back_step_by_step_and_forward_again() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "1");
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["branch", "b"]);
    user.ok(&root, &["undo"]);
    assert_eq!(user.ok(&root, &["branch"]), "* main\n");
    user.ok(&root, &["undo"]);
    assert_eq!(
        (user.ok(&root, &["rev-parse", "HEAD"]).trim(), fs::read_to_string(root.join("f")).expect("read").as_str()),
        (one.as_str(), "1")
    );
    user.ok(&root, &["undo", "--redo"]);
    assert_eq!(
        (user.ok(&root, &["rev-parse", "HEAD"]).trim(), fs::read_to_string(root.join("f")).expect("read").as_str()),
        (two.as_str(), "2")
    );
}

#[test]
fn undo_leaves_what_was_done_in_another_workspace_and_says_so() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let [one, two] = ["w1", "w2"].map(|name| {
        user.ok(&root, &["workspace", "add", &format!("../{name}")]);
        user.path(name)
    });
    user.commit(&one, "one.txt", "1");
    let made = user.commit(&two, "two.txt", "2");
    let undone = user.run(&one, &["undo"]);
    assert_eq!((undone.code, one.join("one.txt").exists(), two.join("two.txt").exists()), (0, false, true), "{}", undone.err);
    let hints: Vec<&str> = undone.err.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(matches!(hints[..], [hint] if hint.contains("(commit two.txt)") && hint.contains("workspace w2")), "{}", undone.err);
    assert_eq!(user.ok(&two, &["rev-parse", "HEAD"]).trim(), made);
    let again = user.run(&one, &["undo"]);
    assert!(again.code == 1 && again.err.contains("nothing to undo in workspace w1"), "{}", again.err);
    let number = hints[0].split('`').nth(1).and_then(|command| command.rsplit(' ').next()).expect("a command");
    user.ok(&one, &["undo", number]);
    assert!(!two.join("two.txt").exists(), "whoever names it takes it back");
}

#[test]
fn picked_and_reverted_changes_are_new_snapshots() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    user.commit(&root, "g", "1");
    user.ok(&root, &["checkout", "-q", "main"]);
    user.ok(&root, &["cherry-pick", "other"]);
    assert_eq!(fs::read_to_string(root.join("g")).expect("read"), "1");
    user.ok(&root, &["revert", "HEAD"]);
    assert!(!root.join("g").exists());
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 3);
}

#[test]
fn settings_are_kept_in_a_file_and_checked() {
    let user = User::new();
    let root = user.repository("work");
    user.ok(&root, &["config", "set", "storage.pebbledb.write_buffer_size", "512MB"]);
    assert_eq!(user.ok(&root, &["config", "get", "storage.rocksdb.write_buffer_size"]), "512MB\n");
    let list = user.ok(&root, &["config", "list"]);
    assert!(list.contains("storage.rocksdb.write_buffer_size=512MB\n") && list.lines().all(|line| line.contains('=')), "{list}");
    let described = user.ok(&root, &["config", "list", "--describe"]);
    assert_eq!(described.lines().count(), 2 * list.lines().count(), "{described}");
    let refused = user.run(&root, &["config", "set", "performance.l1_cash_size", "2GB"]);
    assert!(refused.code == 128 && refused.err.contains("performance.l1_cache_size"), "{}", refused.err);
}

#[test]
fn every_command_explains_itself_with_examples() {
    let user = User::new();
    let home = user.path("home");
    let help = user.ok(&home, &["help"]);
    let names: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("   ")?.split_whitespace().next()).collect();
    assert!(names.len() > 20, "{help}");
    for name in names {
        let text = user.ok(&home, &[name, "--help"]);
        assert!(text.contains("Examples:"), "{name}");
    }
    let script = user.ok(&home, &["completions", "bash"]);
    assert!(script.contains("cherry-pick"));
}

#[test]
fn every_nested_command_has_a_page_of_its_own() {
    let user = User::new();
    let home = user.path("home");
    let pages =
        [("workspace add", "--detach"), ("config set", "<VALUE>"), ("experiment start", "--lowest"), ("backup create", "<TO>")];
    for (command, told) in pages {
        let words: Vec<&str> = command.split(' ').collect();
        let page = user.ok(&home, &[&["help"], words.as_slice()].concat());
        let usage = format!("Usage: helios [-C FOLDER] {command} ");
        assert!(page.contains(&usage) && page.contains(told) && page.contains("Examples:"), "{command}: {page}");
        assert!(user.ok(&home, &[words.as_slice(), &["--help"]].concat()).contains("Examples:"));
    }
    let unknown = user.run(&home, &["help", "workspace", "nope"]);
    assert!(unknown.code == 128 && unknown.err.contains("`helios workspace` has no command \"nope\""), "{}", unknown.err);
}

#[test]
fn ids_that_were_mistyped_or_cut_short_are_found() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "f", "first\n");
    user.commit(&root, "f", "second\n");
    let wrong = |place: usize, length: usize| {
        let mut digits = one[..length].to_owned().into_bytes();
        digits[place] = if digits[place] == b'0' { b'1' } else { b'0' };
        String::from_utf8(digits).expect("digits")
    };
    for typed in [wrong(3, 12), wrong(0, 12), wrong(11, 12), wrong(5, 64)] {
        let told = user.run(&root, &["show", &typed]).err;
        assert!(told.contains(&format!("the nearest is {:?}", &one[..typed.len()])), "{typed}: {told}");
    }
    let diff = user.ok(&root, &["diff", "HEAD~1", "HEAD"]);
    let line = diff.lines().find_map(|line| line.strip_prefix("index ")).expect("the ids of both");
    let (before, after) = line.split(' ').next().and_then(|ids| ids.split_once("..")).expect("two ids");
    assert_eq!(user.ok(&root, &["cat-file", "-p", before]), "first\n");
    assert_eq!(user.ok(&root, &["cat-file", "-p", after]), "second\n");
    assert_eq!(user.ok(&root, &["cat-file", "-t", after]), "blob\n");
    assert_eq!(user.run(&root, &["cat-file", "-p", "0123456"]).code, 128);
}

#[test]
fn what_keeps_an_object_is_said_of_ids_that_were_cut_short_and_of_paths() {
    let user = User::new();
    let root = user.repository("work");
    let head = user.commit(&root, "f", "1");
    let id = user.ok(&root, &["rev-parse", "HEAD:f"]);
    let by = user.ok(&root, &["fsck", "--reached-by", "HEAD"]);
    assert!(by.contains("refs/heads/main"), "{by}");
    for named in [&head, &head[..12], "HEAD:f", id.trim(), &id[..12]] {
        assert_eq!(user.ok(&root, &["fsck", "--reached-by", named]), by, "{named}");
    }
}

#[test]
fn what_each_root_keeps_is_said_and_what_no_other_one_does() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    user.commit(&root, "g", &"a line\n".repeat(1_000));
    let amounts = |by: &str, which: &str| -> (u64, u64, u64) {
        let told: serde_json::Value = serde_json::from_str(&user.ok(&root, &["--json", "fsck", "--roots"])).expect("JSON");
        let found = told["roots"].as_array().expect("rows").iter().find(|row| row["by"] == by).expect("it is a root");
        let amount = |key: &str| found[which][key].as_u64().expect("a number");
        (amount("snapshots"), amount("objects"), amount("bytes"))
    };
    let [main, other] = ["refs refs/heads/main", "refs refs/heads/other"];
    let (snapshots, objects, bytes) = amounts(main, "reached");
    assert_eq!((snapshots, objects, amounts(main, "only_from_there")), (1, 3, (0, 0, 0)), "the other branch has it too");
    let own = amounts(other, "only_from_there");
    assert_eq!((own.0, own.1), (1, 3), "a snapshot, its folder and a file");
    assert!(own.2 > 7_000, "{own:?}");
    assert_eq!(amounts(other, "reached"), (snapshots + own.0, objects + own.1, bytes + own.2));
    assert_eq!(amounts("oplog", "only_from_there"), (0, 0, 0));
    // From now on only the log has it.
    user.ok(&root, &["checkout", "-q", "main"]);
    user.ok(&root, &["branch", "-D", "other"]);
    assert_eq!(amounts("oplog", "only_from_there"), own);
    let line = format!("{main}: 1 snapshots, 3 objects, ");
    assert!(user.ok(&root, &["fsck", "--roots"]).lines().any(|told| told.starts_with(&line)));
}

#[test]
fn what_each_root_keeps_is_said_after_versions_of_a_conflict_were_purged() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, ".env", "base");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    user.commit(&root, ".env", "theirs");
    user.ok(&root, &["checkout", "-q", "main"]);
    user.commit(&root, ".env", "ours");
    assert_eq!(user.run(&root, &["merge", "other"]).code, 1, "it conflicts");
    std::fs::write(root.join(".env"), "decided").expect("written");
    user.ok(&root, &["add", ".env"]);
    user.ok(&root, &["commit", "-m", "merged"]);
    user.ok(&root, &["purge", ".env"]);
    user.ok(&root, &["fsck"]);
    assert!(user.ok(&root, &["fsck", "--roots"]).contains("oplog: "));
}

#[test]
fn bisect_runs_at_the_root_of_the_workspace() {
    let user = User::new();
    let root = user.repository("work");
    let good = user.commit(&root, "f", "1");
    user.commit(&root, "f", "2");
    write(&root, &[("late/x", "1")]);
    let bad = user.commit(&root, "f", "broken");
    let found = user.run(&root.join("late"), &["bisect", "run", &good, "HEAD", "--", "sh", "-c", "! grep -q broken f"]);
    assert_eq!(found.code, 0, "{}{}", found.out, found.err);
    assert!(found.out.contains(&format!("{} is the first bad commit", &bad[..12])), "{}", found.out);
}

#[test]
fn a_file_with_another_path_is_renamed() {
    let user = User::new();
    let root = user.repository("work");
    let text: String = (0..20).map(|line| format!("line {line}\n")).collect();
    write(&root, &[("src/old.rs", &text), ("kept", "1")]);
    user.ok(&root, &["commit", "--work", "."]);
    fs::remove_file(root.join("src/old.rs")).expect("removed");
    write(&root, &[("src/new name.rs", &text.replace("line 7\n", "line seven\n"))]);
    assert_eq!(
        user.ok(&root, &["status", "--porcelain"]),
        " D src/old.rs\n?? \"src/new name.rs\"\n",
        "as long as it is not staged"
    );
    user.ok(&root, &["add", "."]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "R  src/old.rs -> \"src/new name.rs\"\n");
    assert_eq!(user.ok(&root, &["status", "--porcelain", "-z"]), "R  src/new name.rs\0src/old.rs\0");
    assert_eq!(user.ok(&root, &["status", "--porcelain", "--no-renames"]), "A  \"src/new name.rs\"\nD  src/old.rs\n");
    assert!(user.ok(&root, &["status"]).contains("renamed:    src/old.rs -> src/new name.rs\n"));
    user.ok(&root, &["commit", "-m", "moved"]);
    let git = "R092\tsrc/old.rs\tsrc/new name.rs\n";
    assert_eq!(user.ok(&root, &["diff", "--name-status", "HEAD~1", "HEAD"]), git);
    assert!(user.ok(&root, &["show", "--name-status"]).ends_with(git));
    let stat = " src/{old.rs => new name.rs} | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n";
    assert!(user.ok(&root, &["log", "--stat", "-n", "1"]).ends_with(stat));
    assert!(
        user.ok(&root, &["log", "-p", "-n", "1"])
            .contains("similarity index 92%\nrename from src/old.rs\nrename to src/new name.rs\n")
    );
    let told: Value = serde_json::from_str(&user.ok(&root, &["--json", "diff", "HEAD~1", "HEAD"])).expect("JSON");
    assert_eq!((&told[0]["status"], &told[0]["from"], &told[0]["similarity"]), (&"R".into(), &"src/old.rs".into(), &92.into()));
    assert_eq!(user.ok(&root, &["diff", "--no-renames", "--name-status", "HEAD~1", "HEAD"]), "A\tsrc/new name.rs\nD\tsrc/old.rs\n");
}

#[test]
fn a_name_of_which_only_the_case_changes_is_another_name() {
    let user = User::new();
    let root = user.repository("work");
    let one = user.commit(&root, "A.txt", "1\n");
    fs::rename(root.join("A.txt"), root.join("a.txt")).expect("renamed");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), " D A.txt\n?? a.txt\n");
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "lower"]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    assert!(user.ok(&root, &["show", "--stat"]).contains("A.txt => a.txt"));
    let names = || {
        let listed = fs::read_dir(&root).expect("there").map(|entry| entry.expect("listed").file_name().into_string());
        let mut names: Vec<_> = listed.map(|name| name.expect("text")).filter(|name| name != ".helios").collect();
        names.sort();
        names
    };
    user.ok(&root, &["checkout", "-q", &one]);
    assert_eq!((names(), user.ok(&root, &["status", "--porcelain"])), (vec!["A.txt".to_owned()], String::new()));
    user.ok(&root, &["checkout", "-q", "main"]);
    assert_eq!((names(), user.ok(&root, &["ls-files"])), (vec!["a.txt".to_owned()], "a.txt\n".to_owned()));
    // Both at once are two files.
    fs::write(root.join("A.txt"), "2\n").expect("written");
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "both"]);
    assert_eq!(user.ok(&root, &["ls-files"]), "A.txt\na.txt\n");
    assert_eq!((user.ok(&root, &["show", "HEAD:A.txt"]), user.ok(&root, &["show", "HEAD:a.txt"])), ("2\n".into(), "1\n".into()));
}

#[test]
fn the_holes_of_a_sparse_file_are_zeros_and_take_no_room_in_the_store() {
    const LENGTH: u64 = 48 << 20;
    let user = User::new();
    let root = user.repository("work");
    let file = fs::File::create(root.join("sparse")).expect("made");
    file.set_len(LENGTH).expect("a hole");
    for (text, place) in [("begin", 5 << 20), ("end", LENGTH - 3)] {
        file.write_all_at(text.as_bytes(), place).expect("written");
    }
    // What went beyond the end has made it longer.
    file.set_len(LENGTH).expect("cut");
    drop(file);
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "sparse"]);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    user.ok(&root, &["workspace", "add", "../other"]);
    let bytes = fs::read(root.join("sparse")).expect("read");
    assert_eq!(bytes.len() as u64, LENGTH);
    assert!(fs::read(user.path("other/sparse")).expect("read") == bytes, "the same content elsewhere");
    user.ok(&root, &["gc"]);
    let stats: Value = serde_json::from_str(&user.ok(&root, &["--json", "stats"])).expect("JSON");
    let room = stats["storage_utilization"].as_u64().expect("bytes");
    assert!(room < 1 << 20, "{room} bytes");
}
