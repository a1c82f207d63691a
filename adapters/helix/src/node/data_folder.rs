//! The data folder: whose it is, which format it has, and where things lie in it.
//!
//! One folder, one node: the lock is taken before anything else is opened and held until the process ends, so it is never left
//! behind by a crash. Nothing is written into a folder before it was looked at: one that is somebody else's, or a newer
//! version's, stays as it is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_protocol::{Code, Failure, NodeId, RecordsId};
use rustix::fs::{FlockOperation, flock};

/// The format of the folder's layout that this build writes and knows.
const FORMAT: u32 = 1;

/// The longest path a Unix socket can be bound to on Linux, its final NUL left out.
const LONGEST_SOCKET_PATH: usize = 107;

/// How the name of a socket outside of its data folder begins.
const SOCKET_ELSEWHERE: &str = "helix-";

/// What may lie in a folder that no node has used yet: what Helix puts there itself, before the first start or in one that was cut
/// short, a configuration, and what every new file system has.
const BEFORE_FIRST_START: [&str; 7] = ["helix.yaml", "logins", "lost+found", "node.id", "node.lock", "node.log", "socket"];

/// How often the lock is tried for: whoever looks whether the folder is held has it for an instant.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

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

    /// Where the node answers. A folder whose path is too long for a socket names the one that its node made elsewhere; where none
    /// did, the path inside, which nobody can bind.
    pub fn socket(&self) -> PathBuf {
        let inside = self.root.join("helix.sock");
        if inside.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return inside;
        }
        std::fs::read_to_string(self.socket_file()).map_or(inside, |text| PathBuf::from(text.trim_end_matches('\n')))
    }

    /// Names the socket of a folder whose path is too long for one. It lies in `$XDG_RUNTIME_DIR`, else among temporary files,
    /// under a name that nobody can know before; whoever reads the folder finds it, whatever their environment says.
    fn name_socket(&self) -> Result<(), Failure> {
        let before = self.socket();
        if before.starts_with(&self.root) && before.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return Ok(());
        }
        if before.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SOCKET_ELSEWHERE)) {
            // A crash left it. That it is gone already is no error.
            let _ = std::fs::remove_file(before);
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let folder = runtime.map_or_else(std::env::temp_dir, PathBuf::from);
        let socket = folder.join(format!("{SOCKET_ELSEWHERE}{}.sock", uuid::Uuid::now_v7().simple()));
        write_whole(&self.socket_file(), &format!("{}\n", socket.display()))
    }

    fn socket_file(&self) -> PathBuf {
        self.root.join("socket")
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

    /// Makes the folder where it is missing, for this user alone. One that exists is looked at and left as it is.
    ///
    /// Refused with `invalid_config` where it is a file, or holds something and is no data folder, and with `newer_format` where
    /// a newer version wrote it.
    pub fn prepare(&self) -> Result<(), Failure> {
        match std::fs::metadata(&self.root) {
            Ok(found) if !found.is_dir() => {
                return Err(Failure::new(Code::InvalidConfig, format!("the data folder {} is a file", self.root.display()))
                    .hint("name a folder with --data or HELIX_DATA; it is made where it is missing"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = self.root.parent().unwrap_or(Path::new("/"));
                let made = std::fs::create_dir_all(parent).and_then(|()| DirBuilder::new().mode(0o700).create(&self.root));
                match made {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(self.unusable(&error)),
                    _ => {}
                }
            }
            Err(error) => return Err(self.unusable(&error)),
        }
        if self.format()?.is_some() {
            return Ok(());
        }
        for entry in std::fs::read_dir(&self.root).map_err(|error| self.unusable(&error))? {
            let name = entry.map_err(|error| self.unusable(&error))?.file_name();
            let name = name.to_string_lossy();
            let is_ours = BEFORE_FIRST_START.contains(&name.strip_suffix(".new").unwrap_or(&name)) || name == "format.new";
            // What another process writes, which starts at this moment, comes after the format.
            if !is_ours && self.format()?.is_none() {
                let message = format!("{} is no data folder of Helix, and it is not empty: it holds {name}", self.root.display());
                return Err(Failure::new(Code::InvalidConfig, message).hint(format!(
                    "name a new or an empty folder with --data, for example {}",
                    self.root.join("helix").display()
                )));
            }
        }
        Ok(())
    }

    /// True where other users of this machine may read the folder.
    pub fn is_open_to_others(&self) -> bool {
        std::fs::metadata(&self.root).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
    }

    /// Makes the folder where it is missing, and takes it for this process.
    ///
    /// Refused as [`prepare`](Self::prepare) refuses, and with `node_running` where another process holds it.
    pub fn take(&self) -> Result<TakenFolder, Failure> {
        self.prepare()?;
        let lock = self.lock()?;
        if self.format()?.is_none() {
            write_whole(&self.format_file(), &format!("{FORMAT}\n"))?;
        }
        let node = self.node_id()?;
        self.name_socket()?;
        Ok(TakenFolder { folder: self.clone(), node, _lock: lock })
    }

    fn unusable(&self, error: &std::io::Error) -> Failure {
        let failure = Failure::io(self.root.display(), error);
        if failure.hint.is_empty() { failure.hint("give another folder with --data, or correct its owner") } else { failure }
    }

    /// True where a process holds the folder.
    pub fn is_held(&self) -> bool {
        File::open(self.lock_file()).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// The process that holds the folder, as it wrote itself into the lock file.
    pub fn holder(&self) -> Option<u32> {
        if !self.is_held() {
            return None;
        }
        std::fs::read_to_string(self.lock_file()).ok()?.trim().parse().ok()
    }

    fn lock(&self) -> Result<File, Failure> {
        let path = self.lock_file();
        let io = |error: std::io::Error| Failure::io(path.display(), &error);
        let mut lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        let mut tries = 1..LOCK_TRIES;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if tries.next().is_some() {
                std::thread::sleep(LOCK_PAUSE);
                continue;
            }
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

    fn format_file(&self) -> PathBuf {
        self.root.join("format")
    }

    /// The format that the folder says; `None` where it says none. Refused with `newer_format` where this version does not know it.
    fn format(&self) -> Result<Option<u32>, Failure> {
        let path = self.format_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found <= FORMAT => Ok(Some(found)),
                Ok(found) => Err(Failure::new(
                    Code::NewerFormat,
                    format!("{} has format {found}, and this version knows formats up to {FORMAT}", self.root.display()),
                )
                .hint("install the newer version of Helix again, or name another folder with --data")),
                Err(_) => Err(Failure::new(Code::StorageFailed, format!("{} holds {text:?}, not a format number", path.display()))
                    .hint("if this is not a Helix data folder, name another one with --data")),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// The records that the content belongs to; `None` where none were noted.
    pub fn noted_records(&self) -> Result<Option<RecordsId>, Failure> {
        let path = self.root.join("records.id");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| {
                Failure::new(Code::StorageFailed, format!("{} holds {text:?}, not an id of records", path.display()))
                    .hint("restore the file from a backup, or remove it: it is written anew where the database names the content")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// Notes the records that the content belongs to.
    pub fn note_records(&self, id: RecordsId) -> Result<(), Failure> {
        if self.noted_records()? == Some(id) {
            return Ok(());
        }
        write_whole(&self.root.join("records.id"), &format!("{id}\n"))
    }

    fn node_id(&self) -> Result<NodeId, Failure> {
        let path = self.root.join("node.id");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                Failure::new(Code::StorageFailed, format!("{} holds {text:?}, not a node id", path.display()))
                    .hint("restore the file from a backup: workers know this node by it")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
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
    fn whoever_looks_whether_a_folder_is_held_is_in_nobodys_way() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::locate(temp.path()).expect("a named folder");
        drop(folder.take().expect("nobody holds it"));
        let looking = File::open(folder.lock_file()).expect("it was made");
        flock(&looking, FlockOperation::NonBlockingLockShared).expect("nobody holds it");
        let gone = std::thread::spawn(move || {
            std::thread::sleep(LOCK_PAUSE * 2);
            drop(looking);
        });
        folder.take().expect("somebody only looked");
        gone.join().expect("it only sleeps");
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it exists").permissions().mode() & 0o7777
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("it can be read").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// A folder with these files, and a mode that no folder gets by itself.
    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(temp.path().join(name), text).expect("a writable folder");
        }
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o1755)).expect("ours");
        temp
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
        let temp = folder_with(&[("format", "2\n")]);
        let refused = DataFolder::locate(temp.path()).and_then(|folder| folder.take()).expect_err("format 2 is newer");
        assert_eq!(refused.code, Code::NewerFormat);
        assert_eq!(std::fs::read_to_string(temp.path().join("format")).expect("still there"), "2\n");
        assert_eq!((names(temp.path()), mode(temp.path())), (vec!["format".to_owned()], 0o1755));
    }

    #[test]
    fn a_folder_of_something_else_is_refused_and_left_alone() {
        let temp = folder_with(&[("thesis.tex", ""), ("helix.yaml", "")]);
        let refused = DataFolder::locate(temp.path()).and_then(|folder| folder.take()).expect_err("it is somebody's");
        assert_eq!(refused.code, Code::InvalidConfig);
        assert!(refused.message.ends_with("it holds thesis.tex") && refused.hint.contains("--data"), "{refused:?}");
        assert_eq!(names(temp.path()), ["helix.yaml", "thesis.tex"]);
        assert_eq!(mode(temp.path()), 0o1755);
        let file = temp.path().join("thesis.tex");
        let refused = DataFolder::locate(&file).and_then(|folder| folder.take()).expect_err("it is a file");
        assert_eq!((refused.code, refused.hint.is_empty()), (Code::InvalidConfig, false));
    }

    #[test]
    fn a_folder_that_is_made_is_private_and_one_that_was_there_keeps_its_mode() {
        let temp = folder_with(&[("helix.yaml", ""), ("node.log", ""), ("format.new", "")]);
        let folder = DataFolder::locate(temp.path()).expect("a named folder");
        drop(folder.take().expect("nothing in it is a stranger's"));
        assert_eq!((mode(temp.path()), folder.is_open_to_others()), (0o1755, true));
        let made = DataFolder::locate(&temp.path().join("a/b")).expect("a named folder");
        drop(made.take().expect("it can be made"));
        assert_eq!((mode(made.root()), made.is_open_to_others()), (0o700, false));
        drop(made.take().expect("it is a data folder now, whatever lies in it"));
    }

    #[test]
    fn a_node_keeps_its_id() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::locate(temp.path()).expect("a named folder");
        let first = folder.take().expect("nobody holds it").node;
        assert_eq!(folder.take().expect("free again").node, first);
    }

    #[test]
    fn a_path_too_long_for_a_socket_names_another_one_that_nobody_can_guess() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::locate(&temp.path().join("x".repeat(120))).expect("a named folder");
        drop(folder.take().expect("nobody holds it"));
        let first = folder.socket();
        assert!(first.as_os_str().len() <= LONGEST_SOCKET_PATH && !first.starts_with(folder.root()), "{}", first.display());
        drop(folder.take().expect("free again"));
        assert_ne!(folder.socket(), first, "its name cannot be known before");
    }
}
