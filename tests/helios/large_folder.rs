//! A folder of very many files (100,000 where HELIX_CAMPAIGN is set, else 20,000): what changed is found among them, by events and
//! without, and older versions come back whole.

use std::fs;
use std::path::Path;

use crate::harness::{User, is_campaign};

/// Files in each folder, and in each folder of folders.
const WIDE: usize = 100;

fn path(number: usize) -> String {
    format!("d{}/e{}/file{number}.py", number / (WIDE * WIDE), number / WIDE % WIDE)
}

/// Every file beneath a folder that is not Helios's own.
fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("read").flatten().filter(|entry| entry.file_name() != ".helios");
    entries.map(|entry| if entry.file_type().expect("known").is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[test]
fn what_changes_among_very_many_files_is_found_and_older_versions_come_back() {
    let files = if is_campaign() { 100_000 } else { 20_000 };
    let user = User::new();
    let root = user.repository("work");
    for number in 0..files {
        let place = root.join(path(number));
        if number % WIDE == 0 {
            fs::create_dir_all(place.parent().expect("it is beneath the root")).expect("made");
        }
        fs::write(place, format!("value = {number}\n")).expect("written");
    }
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "all"]);
    assert_eq!(user.ok(&root, &["ls-files"]).lines().count(), files);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");

    // Of which the engine hears.
    let one = path(files / 2);
    fs::write(root.join(&one), "changed\n").expect("written");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), format!(" M {one}\n"));
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "one"]);
    assert_eq!(user.ok(&root, &["diff", "--name-status", "HEAD~1", "HEAD"]), format!("M\t{one}\n"));

    // Of which nobody hears: the next engine looks at every name.
    user.kill_engine();
    let (gone, new) = (Path::new(&path(0)).parent().expect("a folder").to_owned(), "d0/new");
    fs::remove_dir_all(root.join(&gone)).expect("removed");
    fs::write(root.join(new), "new\n").expect("written");
    user.ok(&root, &["commit", "-q", "--work", ".", "-m", "a folder less"]);
    let changed = user.ok(&root, &["diff", "--name-status", "HEAD~1", "HEAD"]);
    assert_eq!(changed.lines().filter(|line| line.starts_with("D\t")).count(), WIDE);
    assert_eq!(changed.lines().filter(|line| !line.starts_with("D\t")).collect::<Vec<_>>(), [format!("A\t{new}")]);

    user.ok(&root, &["checkout", "-q", "HEAD~2"]);
    assert_eq!((count(&root), root.join(new).exists()), (files, false));
    assert_eq!(fs::read_to_string(root.join(&one)).expect("read"), format!("value = {}\n", files / 2));
    assert_eq!(fs::read_to_string(root.join(path(7))).expect("read"), "value = 7\n");
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
    user.ok(&root, &["checkout", "-q", "main"]);
    assert_eq!((count(&root), root.join(gone).exists()), (files - WIDE + 1, false));
}
