//! The data folder: whose it is, which format it has, and where things lie in it.
//!
//! One folder, one node: the lock is taken before anything else is opened and held until the process ends, so it
//! is never left behind by a crash.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure, NodeId};
use rustix::fs::{FlockOperation, flock};

/// The format of the folder's layout that this build writes and knows.
const FORMAT: u32 = 1;

/// The longest path a Unix socket can be bound to on Linux, its final NUL left out.
const LONGEST_SOCKET_PATH: usize = 107;

/// The paths of a data folder. Nothing is opened by naming them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// The folder that `configured` names; where it is empty, `$XDG_DATA_HOME/helix` or `~/.local/share/helix`.
    pub fn locate(configured: &Path) -> Result<Self, Failure> {
        if !configured.as_os_str().is_empty() {
            let root = std::path::absolute(configured).map_err(|error| Failure::io(configured.display(), &error))?;
            return Ok(Self { root });
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        base.map(|base| Self { root: base.join("helix") }).ok_or_else(|| {
            Failure::new(Code::InvalidConfig, "neither HOME nor XDG_DATA_HOME is set, so there is no default data folder")
                .hint("name one with --data or HELIX_DATA")
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the node answers. A folder whose path is too long for a socket gets one in the runtime folder.
    pub fn socket(&self) -> PathBuf {
        let inside = self.root.join("helix.sock");
        if inside.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return inside;
        }
        let name = helix_objects::hash(self.root.as_os_str().as_encoded_bytes()).short();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        runtime.join(format!("helix-{name}.sock"))
    }

    /// The records, where the database is SQLite.
    pub fn records(&self) -> PathBuf {
        self.root.join("records.db")
    }

    /// The content store.
    pub fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    /// Folders of the workers that the node starts on its own machine.
    pub fn workers(&self) -> PathBuf {
        self.root.join("workers")
    }

    /// The log of a node that runs in the background.
    pub fn log(&self) -> PathBuf {
        self.root.join("node.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("node.lock")
    }

    /// Makes the folder where it is missing, and takes it for this process.
    ///
    /// Refused with `node_running` where another process holds it, and with `newer_format` where a newer version wrote it.
    pub fn take(&self) -> Result<TakenFolder, Failure> {
        std::fs::create_dir_all(&self.root).map_err(|error| Failure::io(self.root.display(), &error))?;
        std::fs::set_permissions(&self.root, Permissions::from_mode(0o700))
            .map_err(|error| Failure::io(self.root.display(), &error))?;
        let lock = self.lock()?;
        self.check_format()?;
        let node = self.node_id()?;
        Ok(TakenFolder { folder: self.clone(), node, _lock: lock })
    }

    /// The process that holds the folder, as it wrote itself into the lock file.
    pub fn holder(&self) -> Option<u32> {
        let lock = File::open(self.lock_file()).ok()?;
        if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        std::fs::read_to_string(self.lock_file()).ok()?.trim().parse().ok()
    }

    fn lock(&self) -> Result<File, Failure> {
        let path = self.lock_file();
        let io = |error: std::io::Error| Failure::io(path.display(), &error);
        let mut lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            return Err(Failure::new(
                Code::NodeRunning,
                format!("process {} holds the data folder {}", holder.trim(), self.root.display()),
            )
            .hint("use that node (`helix status`), stop it, or name another folder with --data"));
        }
        lock.set_len(0).map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(lock)
    }

    fn check_format(&self) -> Result<(), Failure> {
        let path = self.root.join("format");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found <= FORMAT => Ok(()),
                Ok(found) => Err(Failure::new(
                    Code::NewerFormat,
                    format!("{} has format {found}, and this version knows formats up to {FORMAT}", self.root.display()),
                )
                .hint("install the newer version of Helix again, or name another folder with --data")),
                Err(_) => Err(Failure::new(Code::StorageFailed, format!("{} holds {text:?}, not a format number", path.display()))
                    .hint("if this is not a Helix data folder, name another one with --data")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_whole(&path, &format!("{FORMAT}\n")),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    fn node_id(&self) -> Result<NodeId, Failure> {
        let path = self.root.join("node.id");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                Failure::new(Code::StorageFailed, format!("{} holds {text:?}, not a node id", path.display()))
                    .hint("restore the file from a backup: workers know this node by it")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let node = NodeId::new();
                write_whole(&path, &format!("{node}\n"))?;
                Ok(node)
            }
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }
}

/// A data folder that this process holds until the value is dropped.
#[derive(Debug)]
pub struct TakenFolder {
    /// Its paths.
    pub folder: DataFolder,
    /// The node it belongs to.
    pub node: NodeId,
    _lock: File,
}

/// Writes a small file so that a crash leaves either none or all of it.
fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let written = std::fs::write(&temporary, text)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| Failure::io(path.display(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_on_one_folder_is_refused_and_told_who_holds_it() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::locate(temp.path()).expect("a named folder");
        let taken = folder.take().expect("nobody holds it");
        assert_eq!(folder.holder(), Some(std::process::id()));
        let refused = folder.take().expect_err("held by this very process");
        assert_eq!(refused.code, Code::NodeRunning);
        assert!(refused.message.contains(&std::process::id().to_string()), "{refused:?}");
        drop(taken);
        assert_eq!(folder.holder(), None);
        folder.take().expect("free again");
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(temp.path().join("format"), "2\n").expect("a writable folder");
        let refused = DataFolder::locate(temp.path()).and_then(|folder| folder.take()).expect_err("format 2 is newer");
        assert_eq!(refused.code, Code::NewerFormat);
        assert_eq!(std::fs::read_to_string(temp.path().join("format")).expect("still there"), "2\n");
        assert!(!temp.path().join("node.id").exists());
    }

    #[test]
    fn a_node_keeps_its_id() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::locate(temp.path()).expect("a named folder");
        let first = folder.take().expect("nobody holds it").node;
        assert_eq!(folder.take().expect("free again").node, first);
    }

    #[test]
    fn a_path_too_long_for_a_socket_gets_a_short_one() {
        let folder = DataFolder::locate(Path::new(&format!("/tmp/{}", "x".repeat(120)))).expect("a named folder");
        assert!(folder.socket().as_os_str().len() <= LONGEST_SOCKET_PATH);
    }
}
