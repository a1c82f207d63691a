//! A store that comes back with less than it acknowledged: refused with what can be done, restored, or accepted by somebody.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, thread};

use rand::RngExt as _;
use serde_json::Value;

use crate::harness::{User, chance, ended, rounds, wait_until};

/// A repository whose engine has left: `one` and `two` are commits that were acknowledged as on disk, and
/// there is a backup with `one`.
struct Stage {
    user: User,
    root: PathBuf,
    one: String,
    two: String,
}

impl Stage {
    fn new() -> Self {
        let user = User::new();
        let root = user.repository("work");
        user.ok(&root, &["config", "set", "commit.durability", "group"]);
        let one = user.commit(&root, "f", "1");
        user.ok(&root, &["backup", "create", "../backup"]);
        stop(&user, &root);
        copy(&root.join(".helios/store/db"), &user.path("db-with-one"));
        let two = user.commit(&root, "f", "2");
        stop(&user, &root);
        Self { user, root, one, two }
    }

    /// The database as it was after the first commit, as a disk leaves it that forgot what it said it had written.
    fn lose_two(&self) {
        let database = self.root.join(".helios/store/db");
        fs::remove_dir_all(&database).expect("removed");
        copy(&self.user.path("db-with-one"), &database);
    }

    /// The refusal of any command, which must name what this program can do.
    fn refusal(&self) -> String {
        let refused = self.user.run(&self.root, &["status"]);
        assert_eq!(refused.code, 128, "{}", refused.err);
        for way in ["helios backup restore --replace", "helios backup accept-loss"] {
            assert!(refused.err.contains(way), "{way}: {}", refused.err);
        }
        assert!(!refused.err.to_lowercase().contains("helix"), "{}", refused.err);
        refused.err
    }

    fn head(&self) -> String {
        self.user.ok(&self.root, &["rev-parse", "HEAD"]).trim().to_owned()
    }
}

fn stop(user: &User, root: &Path) {
    user.ok(root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// The numbers after the word "mark", in the order in which they stand.
fn marks(text: &str) -> Vec<u64> {
    text.split("mark ")
        .skip(1)
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

#[test]
fn acknowledged_commits_that_are_gone_are_told_and_their_loss_is_accepted_by_whoever_says_so() {
    let stage = Stage::new();
    stage.lose_two();
    let told = marks(&stage.refusal());
    let [there, promised] = told[..] else { panic!("both marks are named: {told:?}") };
    assert!(there < promised, "{there} of {promised}");
    let asked = stage.user.run(&stage.root, &["backup", "accept-loss"]);
    assert_eq!((asked.code, marks(&asked.err)), (1, vec![promised, there]), "{}", asked.err);
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    stage.refusal();
    let accepted: Value =
        serde_json::from_str(&stage.user.ok(&stage.root, &["--json", "backup", "accept-loss", "--yes"])).expect("JSON");
    assert_eq!((accepted["recovered"].as_u64(), accepted["acknowledged"].as_u64()), (Some(there), Some(promised)));
    assert_eq!((stage.head(), stage.user.ok(&stage.root, &["status", "--porcelain"]).as_str()), (stage.one.clone(), " M f\n"));
    let log = stage.user.ok(&stage.root, &["oplog", "-n", "1"]);
    assert!(log.contains("accept-loss") && marks(&log) == [promised, there], "{log}");
    assert!(stage.user.ok(&stage.root, &["fsck"]).ends_with("everything is sound\n"));
    stage.user.commit(&stage.root, "f", "again");
    stage.user.ok(&stage.root, &["undo"]);
    stage.user.ok(&stage.root, &["undo"]);
    assert!(stage.user.run(&stage.root, &["rev-parse", "HEAD"]).code != 0, "undoing steps over what changed no name");
    let nothing = stage.user.ok(&stage.root, &["backup", "accept-loss"]);
    assert_eq!(nothing, "nothing that was acknowledged is missing\n");
}

/// Commits, a collection, commits, and a clean stop; gives the snapshots.
fn packed(user: &User, root: &Path) -> Vec<String> {
    let mut made: Vec<String> = (0..3).map(|number| user.commit(root, "f", &number.to_string())).collect();
    user.ok(root, &["gc"]);
    made.extend((3..5).map(|number| user.commit(root, "f", &number.to_string())));
    stop(user, root);
    made
}

#[test]
fn a_damaged_log_behind_a_collection_and_a_clean_stop_is_told_and_its_loss_is_accepted() {
    for cut in [true, false] {
        let user = User::new();
        let root = user.repository("work");
        let made = packed(&user, &root);
        let files = fs::read_dir(root.join(".helios/store/db")).expect("read").map(|entry| entry.expect("read").path());
        let log = files.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().expect("there is a log");
        let mut bytes = fs::read(&log).expect("read");
        let torn = bytes.len() - 5;
        if cut {
            bytes.truncate(torn);
        } else {
            bytes[torn] ^= 0x10;
        }
        fs::write(&log, &bytes).expect("written");
        let stage = Stage { user, root, one: made[3].clone(), two: made[4].clone() };
        for _ in 0..2 {
            let told = marks(&stage.refusal());
            let [there, promised] = told[..] else { panic!("both marks are named: {told:?}") };
            assert!(there < promised, "{there} of {promised}");
            stop(&stage.user, &stage.root);
        }
        assert_eq!(stage.user.run(&stage.root, &["backup", "accept-loss"]).code, 1);
        stage.user.ok(&stage.root, &["backup", "accept-loss", "--yes"]);
        for _ in 0..2 {
            assert_eq!(stage.head(), stage.one);
            assert!(stage.user.ok(&stage.root, &["fsck"]).ends_with("everything is sound\n"));
            stop(&stage.user, &stage.root);
        }
        assert_ne!(stage.user.commit(&stage.root, "f", "again"), stage.two);
    }
}

#[test]
fn a_check_goes_on_behind_a_damaged_table_and_names_what_is_damaged() {
    let user = User::new();
    let root = user.repository("work");
    packed(&user, &root);
    let database = root.join(".helios/store/db");
    let tables: Vec<PathBuf> = fs::read_dir(&database)
        .expect("read")
        .map(|entry| entry.expect("read").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .collect();
    assert!(tables.len() > 3, "{tables:?}");
    for table in tables {
        let whole = fs::read(&table).expect("read");
        for at in [10, whole.len() / 2, whole.len() - 8] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&table, &bytes).expect("written");
            let checked = user.run(&root, &["fsck"]);
            let name = table.file_name().expect("named").to_string_lossy().into_owned();
            // Not every byte of a table is read for what is in it.
            let sound = checked.code == 0 && checked.out.ends_with("everything is sound\n");
            let told = checked.code == 1 && checked.out.contains(&name) && checked.err.contains("helios backup restore --replace");
            assert!(sound || told, "{name} at {at}: {} {}{}", checked.code, checked.out, checked.err);
            assert!(told || at != 10, "{name}: the first block is read: {}", checked.out);
            let json: Value = serde_json::from_str(&user.run(&root, &["--json", "fsck"]).out).expect("JSON");
            assert_eq!(json["sound"], !told);
            for command in [&["log"][..], &["show", "HEAD~4:f"], &["oplog"]] {
                let ended = user.run(&root, command);
                let hinted = ["helios fsck", "helios backup restore --replace"].iter().all(|way| ended.err.contains(way));
                assert!(ended.code == 0 || hinted, "{command:?} on {name} at {at}: {} {}", ended.code, ended.err);
            }
            user.kill_engine();
            fs::write(&table, &whole).expect("written");
        }
    }
}

#[test]
fn a_backup_takes_the_place_of_a_store_that_lost_commits() {
    let stage = Stage::new();
    stage.lose_two();
    stage.refusal();
    stage.user.ok(&stage.root, &["backup", "restore", "--replace", "../backup"]);
    assert_eq!(stage.head(), stage.one);
    assert!(stage.user.ok(&stage.root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_restore_or_an_import_that_fails_leaves_no_repository_behind() {
    let user = User::new();
    let place = user.path("place");
    fs::create_dir_all(place.join("source/.git/objects")).expect("made");
    fs::write(place.join("source/.git/HEAD"), "ref: refs/heads/main\n").expect("written");
    let restored = user.run(&place, &["backup", "restore", "NOPE", "new"]);
    assert!(restored.code == 128 && !place.join("new").exists(), "{} {}", restored.code, restored.err);
    user.run(&place, &["backup", "restore", "NOPE", "."]);
    let imported = user.run(&place, &["import", "--from-git", "source"]);
    assert_ne!(imported.code, 0, "{}", imported.out);
    assert!(!place.join(".helios").exists(), "{}", imported.err);
    assert!(user.run(&place, &["status"]).err.contains("no helios repository"));
}

#[test]
fn a_restore_that_is_killed_leaves_the_store_that_was_there_or_the_restored_one() {
    let user = User::new();
    let root = user.repository("work");
    let mut chance = chance("killed restores");
    for number in 0..40 {
        let bytes: Vec<u8> = (0..100_000).map(|_| chance.random()).collect();
        fs::write(root.join(format!("f{number}")), bytes).expect("written");
    }
    let one = user.commit(&root, "f", "1");
    user.ok(&root, &["backup", "create", "../backup"]);
    let two = user.commit(&root, "f", "2");
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
    let restore = ["backup", "restore", "--replace", "../backup"];
    for _ in 0..rounds(12) {
        let mut restoring = user.helios(&root, &restore);
        let restoring = restoring.env("HELIOS_NO_ENGINE", "1").stdout(Stdio::null()).stderr(Stdio::null());
        let mut restoring = restoring.spawn().expect("started");
        // A moment by chance is what is tested here, so this one wait is by the clock.
        thread::sleep(Duration::from_millis(chance.random_range(5..250)));
        restoring.kill().expect("killed");
        restoring.wait().expect("it ends");
        let head = ended(user.helios(&root, &["rev-parse", "HEAD"]).env("HELIOS_NO_ENGINE", "1"));
        assert!(head.code == 0 && [&one, &two].contains(&&head.out.trim().to_owned()), "{}{}", head.out, head.err);
    }
    user.ok(&root, &restore);
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), one);
    assert!(user.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn a_mark_that_cannot_be_read_is_accepted_as_a_loss_and_takes_nothing() {
    for damage in [None, Some([7; 600])] {
        let stage = Stage::new();
        let mark = stage.root.join(".helios/store/mark");
        match damage {
            None => fs::remove_file(&mark).expect("removed"),
            Some(bytes) => fs::write(&mark, bytes).expect("written"),
        }
        let refused = stage.refusal();
        assert!(refused.contains(".helios/store/mark is "), "{refused}");
        let asked = stage.user.run(&stage.root, &["backup", "accept-loss"]);
        assert!(asked.code == 1 && asked.err.contains("nobody knows"), "{}", asked.err);
        stage.user.ok(&stage.root, &["backup", "accept-loss", "--yes"]);
        assert_eq!((stage.head(), stage.user.ok(&stage.root, &["status", "--porcelain"]).as_str()), (stage.two.clone(), ""));
    }
}

#[test]
fn where_the_whole_log_is_gone_a_new_repository_can_be_begun() {
    let stage = Stage::new();
    fs::remove_dir_all(stage.root.join(".helios/store/db")).expect("removed");
    assert_eq!(marks(&stage.refusal())[0], 0);
    let accepted = stage.user.run(&stage.root, &["backup", "accept-loss", "--yes"]);
    assert!(accepted.code == 0 && accepted.err.contains("`helios init`"), "{}{}", accepted.out, accepted.err);
    stage.user.ok(&stage.root, &["init"]);
    assert_ne!(stage.user.commit(&stage.root, "f", "3"), stage.two);
}
