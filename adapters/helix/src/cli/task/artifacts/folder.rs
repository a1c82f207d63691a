//! The folder that artifacts are fetched into. What a task ran, and its worker, have chosen their names and their content: nothing
//! is written outside of the folder or through a link, and nothing that git or helios would take for a repository's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use helix_protocol::{Code, Failure, FileMode};
use helix_versions::leads_into_a_repository;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, statat, symlinkat};
use rustix::io::Errno;

/// A folder on the way: it need not be readable.
const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// By its descriptor. Every name below it is opened relative to its folder and never through a symbolic link.
#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
}

impl Folder {
    /// Opens it, made where it is missing. Only here a link is followed: the person chose the path.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let opened = fs::create_dir_all(path).and_then(|()| Ok(open(path, ON_THE_WAY, Mode::empty())?));
        opened.map(|root| Self { root }).map_err(|error| Failure::io(path.display(), &error))
    }

    /// Writes a file or a link that is not there yet, with the folders on its way. What must not be written is refused with
    /// `path_escapes`.
    pub fn write(&self, path: &str, mode: FileMode, content: &[u8]) -> Result<(), Failure> {
        let names = names(path)?;
        let Some((name, folders)) = names.split_last() else { return Err(escapes(path, "names no file")) };
        if mode == FileMode::Symlink && !stays(content, folders.len()) {
            let target = String::from_utf8_lossy(content);
            return Err(escapes(path, &format!("is a link to {target}, which leads out of the folder or into a repository")));
        }
        let failed = |error: Errno| match error {
            Errno::EXIST => {
                Failure::new(Code::InvalidState, format!("{path} is there already")).hint("name another folder with --out")
            }
            Errno::NAMETOOLONG => escapes(path, "has a name that no folder can hold"),
            Errno::LOOP | Errno::NOTDIR => escapes(path, "leads through a link, or through something else that is no folder"),
            error => Failure::io(path, &error.into()),
        };
        let mut opened: Option<OwnedFd> = None;
        for part in folders {
            let folder = opened.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            refuse_a_repository(folder, part, path)?;
            opened = Some(enter(folder, part).map_err(failed)?);
        }
        let folder = opened.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        refuse_a_repository(folder, name, path)?;
        if mode == FileMode::Symlink {
            return symlinkat(OsStr::from_bytes(content), folder, *name).map_err(failed);
        }
        let bits = Mode::from_raw_mode(if mode == FileMode::Executable { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, *name, flags, bits).map_err(failed)?;
        File::from(file).write_all(content).map_err(|error: io::Error| Failure::io(path, &error))
    }
}

/// The names of a path, which must stay beneath a folder and lead into no repository.
fn names(path: &str) -> Result<Vec<&OsStr>, Failure> {
    let name = |part| match part {
        Component::Normal(name) if leads_into_a_repository(name.as_bytes()) => {
            Err(escapes(path, "is what git or helios would take for a repository's own"))
        }
        Component::Normal(name) => Ok(name),
        _ => Err(escapes(path, "does not stay below a folder")),
    };
    Path::new(path).components().map(name).collect()
}

/// Whether a link so many folders deep stays beneath the folder. It may go up at its beginning alone: behind a name could be
/// another link.
fn stays(target: &[u8], depth: usize) -> bool {
    let parts = Path::new(OsStr::from_bytes(target)).components().filter(|part| *part != Component::CurDir);
    let parts: Vec<Component<'_>> = parts.collect();
    let up = parts.iter().take_while(|part| **part == Component::ParentDir).count();
    let is_plain = |part: &Component<'_>| matches!(part, Component::Normal(name) if !leads_into_a_repository(name.as_bytes()));
    !target.is_empty() && up <= depth && parts[up..].iter().all(is_plain)
}

/// A folder needs no `.git` to be a repository: git takes one with these names for a bare one and obeys its `config`.
fn refuse_a_repository(folder: BorrowedFd<'_>, name: &OsStr, path: &str) -> Result<(), Failure> {
    let has = |wanted: &str| name.eq_ignore_ascii_case(wanted) || statat(folder, wanted, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if has("HEAD") && (has("commondir") || (has("objects") && has("refs"))) {
        return Err(escapes(path, "is in a folder that git would take for a repository"));
    }
    Ok(())
}

fn enter(folder: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    match mkdirat(folder, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => openat(folder, name, ON_THE_WAY | OFlags::NOFOLLOW, Mode::empty()),
        Err(error) => Err(error),
    }
}

fn escapes(path: &str, why: &str) -> Failure {
    Failure::new(Code::PathEscapes, format!("the artifact {path} {why}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder to fetch into, in another one that has to stay as it is.
    fn folder() -> (tempfile::TempDir, Folder) {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&outer.path().join("results")).expect("it is made");
        (outer, folder)
    }

    fn code(done: Result<(), Failure>) -> Option<Code> {
        done.err().map(|failure| failure.code)
    }

    #[test]
    fn files_and_links_are_written_beneath_the_folder_and_nothing_is_overwritten() {
        let (outer, folder) = folder();
        folder.write("a/b/file", FileMode::Executable, b"x").expect("a file");
        folder.write("a/b/link", FileMode::Symlink, b"../../a/./b/file").expect("a link");
        let root = outer.path().join("results");
        assert_eq!(fs::read(root.join("a/b/link")).expect("it leads to the file"), b"x");
        assert_eq!(code(folder.write("a/b/file", FileMode::Regular, b"y")), Some(Code::InvalidState));
        assert_eq!(code(folder.write("a/b/link", FileMode::Regular, b"y")), Some(Code::InvalidState));
        assert_eq!(fs::read(root.join("a/b/file")).expect("untouched"), b"x");
    }

    #[test]
    fn a_path_out_of_the_folder_through_a_link_or_into_a_repository_is_refused() {
        let (outer, folder) = folder();
        fs::create_dir(outer.path().join("victim")).expect("a folder");
        symlink("../victim", outer.path().join("results/out")).expect("a link");
        for path in
            ["", "/x", "../x", "a/../../x", "out/rc", "x/.git/config", ".git", "x/.GIT", "x/git~1/config", ".helios", "a/.Helios/x"]
        {
            assert_eq!(code(folder.write(path, FileMode::Regular, b"x")), Some(Code::PathEscapes), "{path:?}");
        }
        assert_eq!(fs::read_dir(outer.path().join("victim")).expect("readable").count(), 0);
        assert_eq!(fs::read_dir(outer.path()).expect("readable").count(), 2);
    }

    #[test]
    fn a_link_that_leads_out_or_into_a_repository_is_refused_wherever_the_names_before_it_lead() {
        let (_outer, folder) = folder();
        folder.write("s/t/root", FileMode::Symlink, b"../..").expect("the folder itself");
        for target in ["/etc", "../../..", "../../../x", "root/../../x", "x/..", "../../.git/config", ".helios"] {
            let done = folder.write("s/t/link", FileMode::Symlink, target.as_bytes());
            assert_eq!(code(done), Some(Code::PathEscapes), "{target:?}");
        }
        assert_eq!(code(folder.write("top", FileMode::Symlink, b"..")), Some(Code::PathEscapes));
        assert_eq!(code(folder.write("nothing", FileMode::Symlink, b"")), Some(Code::PathEscapes));
        assert_eq!(code(folder.write(&"x".repeat(256), FileMode::Regular, b"x")), Some(Code::PathEscapes));
        folder.write("s/t/link", FileMode::Symlink, b"../t").expect("it stays");
    }

    #[test]
    fn no_folder_becomes_a_repository_in_whatever_order_its_files_come() {
        let bare = ["x/HEAD", "x/objects/info/packs", "x/refs/heads/main"];
        for last in 0..bare.len() {
            let (_outer, folder) = folder();
            for path in bare.iter().enumerate().filter(|(at, _)| *at != last).map(|(_, path)| path) {
                folder.write(path, FileMode::Regular, b"ref: refs/heads/main\n").expect("no repository yet");
            }
            assert_eq!(code(folder.write(bare[last], FileMode::Regular, b"x")), Some(Code::PathEscapes), "{}", bare[last]);
        }
        let (_outer, folder) = folder();
        folder.write("y/commondir", FileMode::Regular, b"elsewhere").expect("no repository yet");
        assert_eq!(code(folder.write("y/HEAD", FileMode::Symlink, b"refs/heads/main")), Some(Code::PathEscapes));
    }
}
