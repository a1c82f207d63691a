//! What must be so before anything in a `.helios` is believed: it is the user's own, git did not bring it, and
//! nothing in it leads out of it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use helix_protocol::{Code, Failure};
use helix_versions::git;
use rustix::process::geteuid;

use super::location::MARKER;

/// Refuses the `.helios` of a folder, a path without symbolic links, that another user owns: its owner decides what is written
/// where. git's `safe.directory` allows it.
pub fn refuse_others(folder: &Path, marker: &Metadata) -> Result<(), Failure> {
    if marker.uid() == geteuid().as_raw() || git::is_safe_directory(folder) {
        return Ok(());
    }
    let message = format!("{} is owned by another user, {}", folder.join(MARKER).display(), marker.uid());
    Err(Failure::new(Code::Forbidden, message).hint(format!(
        "if you trust them, as whoever runs helios: `git config --global --add safe.directory {}`",
        folder.display()
    )))
}

/// Refuses the `.helios` of a folder that is another user's, that came with a clone, or that has links among its files: what is
/// written there must be there. It is asked before a store is opened or made.
pub fn admit(root: &Path) -> Result<(), Failure> {
    let own = root.join(MARKER);
    match fs::symlink_metadata(&own) {
        Ok(found) if found.is_symlink() => return Err(a_link(&own)),
        Ok(found) => refuse_others(root, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::io(own.display(), &error)),
    }
    refuse_links(&own)?;
    let is_tracked = git::tracks(root, MARKER).unwrap_or_else(|error| {
        tracing::warn!(%error, root = %root.display(), "it is not known whether git tracks the repository");
        false
    });
    if is_tracked {
        let message = format!("{} is tracked by git: it is somebody else's who made the commits", own.display());
        return Err(Failure::new(Code::Forbidden, message)
            .hint("if you did not make it: `git rm -r .helios`\nif it is your own: `git rm -r --cached .helios`"));
    }
    Ok(())
}

fn refuse_links(own: &Path) -> Result<(), Failure> {
    let mut folders = vec![own.to_owned()];
    while let Some(folder) = folders.pop() {
        let io = |error: io::Error| Failure::io(folder.display(), &error);
        let entries = match fs::read_dir(&folder) {
            // Its owner removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let kind = match entry.file_type() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                kind => kind.map_err(io)?,
            };
            if kind.is_symlink() {
                return Err(a_link(&entry.path()));
            }
            if kind.is_dir() && is_written(own, &folder, &entry.file_name()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Whether anything is written in a folder. In a store that was set aside nothing is; `db.log` has links to the store's own files,
/// and what a death left of it is removed unread.
fn is_written(own: &Path, parent: &Path, name: &OsStr) -> bool {
    if parent == own { name == "store" || name == "workspaces" } else { name != "db.log" }
}

fn a_link(path: &Path) -> Failure {
    let message = format!("{} is a symbolic link, and nothing is written through one in .helios", path.display());
    Failure::new(Code::Forbidden, message)
        .hint("if you made it, put what it leads to in its place; otherwise delete it, or the whole .helios if it came with a copy")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_refused_wherever_something_is_written() {
        for (place, refused) in [
            ("packed", true),
            ("workspaces", true),
            ("workspaces/agent/stat.new", true),
            ("store/db/000012.sst", true),
            ("store", true),
            ("store/db.log/000007.log", false),
            ("store.replaced-1/db.log/000007.log", false),
        ] {
            let root = tempfile::tempdir().unwrap();
            let link = root.path().join(MARKER).join(place);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            assert_eq!(admit(root.path()), Ok(()));
            symlink("/nowhere", &link).unwrap();
            assert_eq!(admit(root.path()).is_err_and(|failure| failure.message.contains(place)), refused, "{place}");
        }
    }

    #[test]
    fn the_folder_itself_is_no_link() {
        let root = tempfile::tempdir().unwrap();
        symlink("/tmp", root.path().join(MARKER)).unwrap();
        assert_eq!(admit(root.path()).unwrap_err().code, Code::Forbidden);
    }
}
