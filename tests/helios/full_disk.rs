//! The disk is full in the middle of a commit, a checkout, an import, a collection: it is told, nothing is lost, and with
//! room again it all works.
//!
//! A file system of its own is needed for it, which not every user may mount: these tests say so and end then.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{Ended, User, ended};

/// A file system in memory, of so many bytes, and a file that fills it.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir(folder).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            crate::not_run::not_run("a full disk", "this user may not mount a file system");
            return None;
        }
        Some(Self { folder: folder.to_owned() })
    }

    /// A repository on it.
    fn repository(&self, user: &User) -> PathBuf {
        let root = self.folder.join("work");
        fs::create_dir(&root).expect("made");
        user.ok(&root, &["init", "-q"]);
        root
    }

    /// Leaves no more than this free.
    fn fill(&self, leave_mebibytes: u64) {
        let mut ballast = fs::File::create(self.folder.join("ballast")).expect("made");
        let block = vec![1_u8; 64 << 10];
        while ballast.write_all(&block).is_ok() {}
        let length = ballast.metadata().expect("it is open").len();
        ballast.set_len(length.saturating_sub(leave_mebibytes << 20)).expect("cut");
    }

    fn make_room(&self) {
        fs::remove_file(self.folder.join("ballast")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// Nothing that can be compressed.
fn noise(seed: u64, mebibytes: usize) -> Vec<u8> {
    let mut noise = vec![0_u8; mebibytes << 20];
    StdRng::seed_from_u64(seed).fill(noise.as_mut_slice());
    noise
}

fn is_told(refused: &Ended) {
    assert!(refused.code == 128 && refused.err.contains("space"), "there is no room for it: {refused:?}");
}

#[test]
fn a_workspace_for_which_there_is_no_room_leaves_nothing_behind() {
    let user = User::new();
    let root = user.repository("work");
    fs::write(root.join("large"), noise(3, 8)).expect("written");
    user.commit(&root, "f", "1");
    let Some(disk) = SmallDisk::mount(&user.path("disk"), 4) else { return };
    let (folder, kept) = (disk.folder.join("agent"), disk.folder.join("kept"));
    fs::create_dir(&kept).expect("made");
    for folder in [&folder, &kept] {
        let refused = user.run(&root, &["workspace", "add", "--name", "agent", folder.to_str().expect("text")]);
        is_told(&refused);
    }
    assert!(!folder.exists());
    assert_eq!(fs::read_dir(&kept).expect("it was there before").count(), 0);
    assert!(!root.join(".helios/workspaces/agent").exists());
    assert_eq!(user.ok(&root, &["workspace", "list"]).lines().count(), 1);
    assert_eq!(user.ok(&root, &["branch"]), "* main\n");
    user.ok(&root, &["workspace", "add", "../agent"]);
}

#[test]
fn a_full_disk_refuses_commits_and_loses_none() {
    let user = User::new();
    let Some(disk) = SmallDisk::mount(&user.path("disk"), 256) else { return };
    let root = disk.repository(&user);
    let one = user.commit(&root, "f", "1");
    // Too much for the room that the database has taken for its log in advance.
    fs::write(root.join("g"), noise(7, 60)).expect("written");
    disk.fill(0);
    is_told(&user.run(&root, &["commit", "--work", "."]));
    user.kill_engine();
    disk.make_room();
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), one);
    user.commit(&root, "f", "2");
    assert_eq!(user.ok(&root, &["ls-files"]), "f\ng\n");
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_full_disk_takes_back_what_moves_a_head_and_its_files() {
    let user = User::new();
    let Some(disk) = SmallDisk::mount(&user.path("disk"), 256) else { return };
    let root = disk.repository(&user);
    fs::write(root.join("gone-there"), "1").expect("written");
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["checkout", "-q", "-b", "other"]);
    fs::remove_file(root.join("gone-there")).expect("removed");
    for number in 0..6 {
        fs::create_dir_all(root.join("d")).expect("made");
        fs::write(root.join(format!("d/f{number}")), noise(number, 8)).expect("written");
    }
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["checkout", "-q", "main"]);
    // The next engine makes files of the database's log, and once it has left nothing goes away later that could make room: what
    // there is holds some of the files and not all.
    user.kill_engine();
    for command in [&["status"][..], &["engine", "stop"], &["status"]] {
        user.ok(&root, command);
    }
    disk.fill(20);
    let is_as_before = |when: &str| {
        let head = (user.ok(&root, &["rev-parse", "HEAD"]), user.ok(&root, &["branch", "--show-current"]));
        assert_eq!((head.0.trim(), head.1.trim()), (one.as_str(), "main"), "{when}");
        assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "1", "{when}");
        assert_eq!(user.ok(&root, &["status", "--porcelain"]), "", "{when}");
    };
    for command in [&["checkout", "other"][..], &["checkout", "-f", "other"], &["reset", "--hard", "other"], &["merge", "other"]] {
        let refused = user.run(&root, command);
        is_told(&refused);
        assert!(refused.err.contains(" is taken back, head and files are as before"), "{refused:?}");
        is_as_before(&command.join(" "));
    }
    // A commit now records what there is, and not a step back from a head whose files never came.
    user.ok(&root, &["commit", "-q", "--work", "."]);
    assert_eq!(user.ok(&root, &["diff", "--name-status", &one, "HEAD"]), "");
    user.ok(&root, &["reset", "-q", "--hard", &one]);
    user.kill_engine();
    disk.make_room();
    is_as_before("with room again");
    user.ok(&root, &["checkout", "-q", "other"]);
    assert_eq!(
        (user.ok(&root, &["rev-parse", "HEAD"]).trim(), user.ok(&root, &["status", "--porcelain"]).as_str()),
        (two.as_str(), "")
    );
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_full_disk_ends_an_import_with_nothing_of_it_seen_and_it_can_be_made_again() {
    let user = User::new();
    let Some(disk) = SmallDisk::mount(&user.path("disk"), 384) else { return };
    let git = user.path("git");
    fs::create_dir(&git).expect("made");
    let commit = "git add . && git -c user.name=G -c user.email=g@example.org commit -q -m next";
    assert_eq!(ended(user.program("git", &git).args(["init", "-q", "-b", "main"])).code, 0);
    for number in 0..8 {
        fs::write(git.join(format!("f{number}")), noise(number, 8)).expect("written");
        assert_eq!(ended(user.program("sh", &git).args(["-c", commit])).code, 0);
    }
    let root = disk.repository(&user);
    let one = user.commit(&root, "kept", "1");
    disk.fill(24);
    let from = git.display().to_string();
    is_told(&user.run(&root, &["import", "--from-git", &from]));
    assert_eq!((user.ok(&root, &["rev-parse", "HEAD"]).trim(), user.ok(&root, &["branch"]).as_str()), (one.as_str(), "* main\n"));
    user.kill_engine();
    disk.make_room();
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    // The branch that is checked out here is another one than git's, so that neither stands in the other's way.
    user.ok(&root, &["checkout", "-q", "-b", "ours"]);
    user.ok(&root, &["branch", "-D", "main"]);
    user.ok(&root, &["import", "--from-git", &from]);
    assert_eq!(user.ok(&root, &["log", "--oneline", "main"]).lines().count(), 8);
    user.ok(&root, &["export", "--to-git", "../../back.git"]);
    let head = |folder: &Path| ended(user.program("git", folder).args(["rev-parse", "main"])).out;
    assert_eq!(head(&user.path("back.git")), head(&git));
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_full_disk_ends_a_collection_and_what_is_kept_stays() {
    let user = User::new();
    let Some(disk) = SmallDisk::mount(&user.path("disk"), 256) else { return };
    let root = disk.repository(&user);
    for number in 0..4 {
        fs::write(root.join(format!("f{number}")), noise(number, 8)).expect("written");
        user.ok(&root, &["commit", "-q", "--work", "."]);
    }
    let one = user.ok(&root, &["rev-parse", "HEAD"]);
    user.commit(&root, "lost", "lost");
    user.ok(&root, &["reset", "-q", "--hard", "HEAD~1"]);
    disk.fill(4);
    // A pack has to be written and read back before what it holds is let go, and there is no room for one.
    is_told(&user.run(&root, &["gc", "--aggressive"]));
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]), one);
    user.kill_engine();
    disk.make_room();
    assert_eq!((user.ok(&root, &["rev-parse", "HEAD"]), user.ok(&root, &["status", "--porcelain"])), (one, String::new()));
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    user.ok(&root, &["gc", "--aggressive"]);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
    for number in 0..4 {
        let shown = user.helios(&root, &["show", &format!("HEAD:f{number}")]).output().expect("it runs");
        assert!(shown.stdout == noise(number, 8), "f{number} is what it was");
    }
}
