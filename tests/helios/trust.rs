//! What a `.helios` that came from elsewhere may make the engine do: nothing outside of it, and nothing in anybody else's folder.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Ended, Program, User, ended};

/// A copy with everything in it, as `cp -r` makes it.
fn copy(user: &User, from: &Path, to: &str) -> PathBuf {
    user.run(from, &["engine", "stop"]);
    let to = user.path(to);
    let copied = ended(user.program("cp", from).arg("-r").args([from, &to]));
    assert_eq!(copied.code, 0, "{}", copied.err);
    to
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("read")
}

/// The folders of the workspaces that there are, as `list` shows them.
fn listed(user: &User, root: &Path) -> Vec<String> {
    let list = user.ok(root, &["workspace", "list"]);
    list.lines().map(|line| line.split_once("] ").expect("it is on a branch").1.to_owned()).collect()
}

fn is_refused(ended: &Ended, told: &str) {
    assert!(ended.code == 128 && ended.err.contains(told), "{ended:?}");
}

#[test]
fn a_copy_leaves_the_folders_of_the_original_as_they_are() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent"]);
    let agent = user.path("agent");
    user.commit(&agent, "f", "2");
    let last = user.ok(&root, &["oplog", "-n", "1"]).trim().split(' ').next().expect("a number").to_owned();
    let copied = copy(&user, &root, "copy");
    user.ok(&root, &["backup", "create", "../backup"]);
    let restored = user.path("restored");
    user.ok(&root, &["backup", "restore", "../backup", restored.to_str().expect("text")]);
    for other in [&copied, &restored] {
        user.ok(other, &["undo", &last]);
        assert_eq!(read(&agent.join("f")), "2", "it is the original's");
        let commit = json!({"op": "commit_files", "path": other, "workspace": "agent", "message": "x", "files": [{"path": "f", "content": "3"}]});
        assert_eq!(Program::new(&user).ok(commit)["folder_follows"], json!(null));
        assert_eq!(read(&agent.join("f")), "2", "it is the original's");
        let (main, agent) = (other.canonicalize().expect("there"), agent.canonicalize().expect("there"));
        assert_eq!(listed(&user, other), [format!("{} (elsewhere)", agent.display()), main.display().to_string()]);
        let refused = user.run(other, &["workspace", "repair", "../agent"]);
        assert!(refused.code != 0 && refused.err.contains("is workspace agent of"), "{refused:?}");
        let removed = user.run(other, &["workspace", "remove", "agent", "--delete"]);
        assert!(removed.code == 0 && removed.err.contains("no folder was deleted"), "{removed:?}");
        assert_eq!(read(&agent.join("f")), "2", "it is the original's");
    }
    user.ok(&root, &["undo", &last]);
    assert_eq!(read(&agent.join("f")), "1", "the original's own follow");
}

#[test]
fn a_folder_that_says_nothing_is_no_workspace_whatever_the_store_says() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent"]);
    let agent = user.path("agent");
    user.commit(&agent, "f", "2");
    fs::remove_file(agent.join(".helios")).expect("removed");
    let last = user.ok(&root, &["oplog", "-n", "1"]).trim().split(' ').next().expect("a number").to_owned();
    user.ok(&root, &["undo", &last]);
    assert_eq!(read(&agent.join("f")), "2");
    user.ok(&root, &["workspace", "remove", "agent", "--delete", "--force"]);
    assert_eq!(read(&agent.join("f")), "2");
}

#[test]
fn a_workspace_that_was_moved_is_one_again_where_somebody_says_so_and_a_copy_of_it_is_none() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent"]);
    let (agent, moved) = (user.path("agent"), user.path("moved"));
    let copied = copy(&user, &agent, "copied");
    is_refused(&user.run(&copied, &["commit", "--work", "."]), "and that workspace is in");
    let second = user.run(&root, &["workspace", "repair", "../copied"]);
    assert!(second.code == 1 && second.err.contains("a workspace has one folder"), "{second:?}");
    fs::rename(&agent, &moved).expect("moved");
    is_refused(&user.run(&moved, &["status"]), "helios workspace repair");
    assert!(listed(&user, &root)[0].ends_with("agent (elsewhere)"));
    user.ok(&root, &["workspace", "repair", "../moved"]);
    let made = user.commit(&moved, "f", "2");
    assert_eq!(user.ok(&root, &["rev-parse", "agent"]).trim(), made);
    // The repository moves too.
    user.ok(&root, &["engine", "stop"]);
    let elsewhere = user.path("elsewhere");
    fs::rename(&root, &elsewhere).expect("moved");
    is_refused(&user.run(&moved, &["status"]), "helios workspace repair");
    user.ok(&elsewhere, &["workspace", "repair", "../moved"]);
    user.commit(&moved, "f", "3");
    user.ok(&elsewhere, &["workspace", "remove", "agent", "--delete"]);
    assert!(!moved.exists() && copied.exists());
}

#[test]
fn a_file_that_came_with_a_clone_leads_into_no_other_repository() {
    let user = User::new();
    let root = user.repository("private");
    user.commit(&root, "f", "1");
    user.ok(&root, &["workspace", "add", "../agent"]);
    Program::new(&user).ok(json!({"op": "workspace", "path": root, "name": "bare"}));
    let before = user.ok(&root, &["oplog"]);
    let clone = user.path("clone");
    fs::create_dir(&clone).expect("made");
    fs::write(clone.join("f"), "theirs").expect("written");
    for (name, told) in [("main", "does not name"), ("agent", "that workspace is in"), ("bare", "that workspace has no folder")] {
        fs::write(clone.join(".helios"), format!("repository: {}\nworkspace: {name}\n", root.display())).expect("written");
        for command in [&["commit", "--work", "."][..], &["status"], &["checkout", "-f", "main"], &["undo"]] {
            let refused = user.run(&clone, command);
            assert!(refused.code != 0 && refused.err.contains(told), "{command:?}: {refused:?}");
        }
        let accepted = user.run(&clone, &["backup", "accept-loss", "--yes"]);
        assert_ne!(accepted.code, 0, "{accepted:?}");
    }
    assert_eq!((user.ok(&root, &["oplog"]), read(&clone.join("f")).as_str()), (before, "theirs"));
    // Two files that name each other.
    let other = user.path("other");
    fs::create_dir(&other).expect("made");
    for (from, to) in [(&clone, &other), (&other, &clone)] {
        fs::write(from.join(".helios"), format!("repository: {}\nworkspace: agent\n", to.display())).expect("written");
    }
    assert!(user.run(&clone, &["status"]).err.contains("is not a helios repository any more"));
}

#[test]
fn another_users_repository_is_refused_until_git_calls_it_safe() {
    if !rustix::process::geteuid().is_root() {
        return crate::not_run::not_run("another user's repository", "only root can give a folder away");
    }
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    fs::create_dir(root.join("deep")).expect("made");
    chown(root.join(".helios"), Some(65_534), None).expect("given away");
    let refused = user.run(&root.join("deep"), &["status"]);
    is_refused(&refused, "is owned by another user, 65534");
    let real = root.canonicalize().expect("there");
    let (_, allow) = refused.err.split_once("`git ").expect("a way to allow it");
    assert!(allow.starts_with(&format!("config --global --add safe.directory {}`", real.display())), "{refused:?}");
    is_refused(&user.run(&root, &["init"]), "is owned by another user");
    let config = user.path("home/.gitconfig");
    for (safe, is_safe) in [("/elsewhere", false), ("~/../work", true), ("*\n\tdirectory =", false), ("*", true)] {
        fs::write(&config, format!("[safe]\n\tdirectory = {safe}\n")).expect("written");
        assert_eq!(user.run(&root, &["status"]).code == 0, is_safe, "{safe}");
    }
    user.git(&root, &["config", "--global", "--add", "safe.directory", "/elsewhere"]);
    user.ok(&root, &["status"]);
}

#[test]
fn nothing_is_written_through_a_link() {
    let user = User::new();
    let root = user.repository("work");
    let precious = user.path("precious");
    fs::write(&precious, "mine").expect("written");
    user.commit(&root, "f", "1");
    let own = root.join(".helios");
    // Put there while the engine has the repository open.
    for place in ["packed", "helios.yaml.new", "workspaces/main/stat.new"] {
        symlink(&precious, own.join(place)).expect("linked");
    }
    fs::write(root.join("g"), "2").expect("written");
    user.ok(&root, &["gc"]);
    assert_eq!(user.run(&root, &["config", "set", "user.name", "A"]).code, 128);
    user.ok(&root, &["engine", "stop"]);
    for place in ["packed", "helios.yaml.new", "workspaces/main/stat.new"] {
        fs::remove_file(own.join(place)).expect("removed");
    }
    for place in [
        "packed",
        "wanted",
        "collected",
        "broad",
        "workspaces/main/events",
        "workspaces/main/stat.new",
        "store/mark.new",
        "store/db/9.sst",
    ] {
        let (link, aside) = (own.join(place), user.path("aside"));
        let was_there = fs::rename(&link, &aside).is_ok();
        symlink(&precious, &link).expect("linked");
        let no_engine = |command: &[&str]| ended(user.helios(&root, command).env("HELIOS_NO_ENGINE", "1"));
        for command in [&["status"][..], &["commit", "--work", "."], &["init"], &["fsck"], &["backup", "accept-loss"]] {
            is_refused(&user.run(&root, command), "is a symbolic link");
            is_refused(&no_engine(command), "is a symbolic link");
        }
        fs::remove_file(&link).expect("removed");
        if was_there {
            fs::rename(&aside, &link).expect("back");
        }
        user.ok(&root, &["status"]);
        user.ok(&root, &["engine", "stop"]);
    }
    // The folder itself.
    let other = user.path("other");
    fs::create_dir(&other).expect("made");
    symlink(&own, other.join(".helios")).expect("linked");
    is_refused(&user.run(&other, &["init"]), "is a symbolic link");
    assert_eq!(read(&precious), "mine");
    user.ok(&root, &["status"]);
}

#[test]
fn a_repository_that_git_brought_is_refused() {
    let user = User::new();
    let root = user.repository("theirs");
    user.commit(&root, "f", "1");
    user.ok(&root, &["engine", "stop"]);
    user.git(&root, &["init", "-q"]);
    user.git(&root, &["add", "."]);
    user.ok(&root, &["status"]);
    user.ok(&root, &["engine", "stop"]);
    user.git(&root, &["add", "-f", ".helios"]);
    user.git(&root, &["commit", "-q", "-m", "x"]);
    let clone = user.path("clone");
    user.git(&root, &["clone", "-q", ".", clone.to_str().expect("text")]);
    for command in [&["status"][..], &["sync"], &["init"]] {
        is_refused(&user.run(&clone, command), "is tracked by git");
    }
    is_refused(&user.run(&root, &["status"]), "git rm -r --cached .helios");
    user.git(&root, &["rm", "-r", "-q", "--cached", ".helios"]);
    user.ok(&root, &["status"]);
    user.git(&clone, &["rm", "-r", "-q", ".helios"]);
    user.ok(&clone, &["import", "--from-git", ".", "-q"]);
}
