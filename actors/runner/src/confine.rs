//! Files of a workspace, by descriptors that cannot lead out of it.
//!
//! The kernel resolves each path beneath the workspace's root (`openat2` with RESOLVE_BENEATH), so
//! there is no moment between a check and its use in which a link could be put in. Links inside the
//! workspace are followed where they stay inside. A kernel without openat2 gets a walk that follows no
//! link at all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use helix_protocol::{Code, Failure};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// The largest file that tools read whole, in bytes.
pub const LARGEST_READ: u64 = 16 * 1024 * 1024;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A workspace's root.
#[derive(Debug)]
pub struct Confined {
    root: OwnedFd,
    path: PathBuf,
}

impl Confined {
    /// Opens the root.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let root = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::io(path.display(), &error.into()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Where the root is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's bytes. Refused where it is no regular file or above [`LARGEST_READ`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let mut file = self.open_file(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file)
            .take(LARGEST_READ + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(path, &error.to_string()))?;
        if bytes.len() as u64 > LARGEST_READ {
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            return Err(Failure::new(
                Code::FileTooLarge,
                format!("{path} has {size} bytes, and {LARGEST_READ} is the most that is read at once"),
            )
            .hint("read parts of it with a command: head, tail, sed -n"));
        }
        Ok(bytes)
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, path: &str) -> Result<File, Failure> {
        let relative = beneath(path)?;
        // Without O_NONBLOCK a named pipe would hold us until somebody writes into it.
        let fd =
            self.resolve(&relative, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map_err(|error| self.refuse(path, error))?;
        let kind = FileType::from_raw_mode(fstat(&fd).map_err(|error| unreadable(path, &error.to_string()))?.st_mode);
        match kind {
            FileType::RegularFile => Ok(fd.into()),
            FileType::Directory => Err(unreadable(path, "it is a folder").hint("list its files with glob")),
            _ => Err(unreadable(path, "it is not a regular file")),
        }
    }

    /// What is at a path, a link itself and not what it leads to; `None` where nothing is.
    pub fn kind(&self, path: &str) -> Result<Option<FileType>, Failure> {
        match self.resolve(&beneath(path)?, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(|error| unreadable(path, &error.to_string()))?;
                Ok(Some(FileType::from_raw_mode(stat.st_mode)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.refuse(path, error)),
        }
    }

    /// A path without the links on its way, as far as it is there. It tells files apart and opens none, so it need not hold.
    pub fn place(&self, path: &str) -> Result<String, Failure> {
        let relative = beneath(path)?;
        let root = self.path.canonicalize().map_err(|error| Failure::io(path, &error))?;
        let found = relative.ancestors().find_map(|above| Some((above, root.join(above).canonicalize().ok()?)));
        let (above, real) = found.ok_or_else(|| unreadable(path, "the workspace is gone"))?;
        let real = real.strip_prefix(&root).map_err(|_| escapes(path, "it leads out of the workspace through a symbolic link"))?;
        let place = match relative.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real.to_owned(),
        };
        place.into_os_string().into_string().map_err(|_| unreadable(path, "it leads through a name that is not UTF-8"))
    }

    /// Replaces or makes a file, with the folders on its way. Another reader sees the old content or the new one.
    /// An existing file keeps its mode; through a link that stays inside, the file it names is replaced in place.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<Written, Failure> {
        let relative = beneath(path)?;
        let name = relative.file_name().ok_or_else(|| unreadable(path, "it names the workspace itself"))?;
        let folder = self.make_folders(path, relative.parent().unwrap_or(Path::new("")))?;
        let existing = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(self.refuse_writing(path, &error.into())),
        };
        match existing.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            None | Some(FileType::RegularFile) => {}
            Some(FileType::Symlink) => return self.write_through(path, &relative, content),
            Some(FileType::Directory) => return Err(unreadable(path, "it is a folder")),
            Some(_) => return Err(unreadable(path, "it is not a regular file")),
        }
        let draft = format!(".helix-{}.draft", uuid_text());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            openat(&folder, &draft, flags, Mode::from_raw_mode(0o644)).map_err(|error| self.refuse_writing(path, &error.into()))?;
        let written = (|| {
            let mut file = File::from(fd);
            file.write_all(content)?;
            if let Some(stat) = &existing {
                fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            }
            renameat(&folder, &draft, &folder, name)?;
            Ok(())
        })();
        written.map_err(|error: std::io::Error| {
            let _ = unlinkat(&folder, &draft, AtFlags::empty());
            self.refuse_writing(path, &error)
        })?;
        Ok(if existing.is_some() { Written::Replaced } else { Written::Made })
    }

    /// Deletes a file, or a link.
    pub fn remove(&self, path: &str) -> Result<(), Failure> {
        let relative = beneath(path)?;
        let (folder, name) = self.entry(path, &relative)?;
        unlinkat(&folder, name, AtFlags::empty()).map_err(|error| self.refuse(path, error))
    }

    /// Gives a file another place, with the folders on its way. What is there is replaced.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        let (old, new) = (beneath(from)?, beneath(to)?);
        let (from_folder, from_name) = self.entry(from, &old)?;
        let to_name = new.file_name().ok_or_else(|| unreadable(to, "it names the workspace itself"))?;
        let to_folder = self.make_folders(to, new.parent().unwrap_or(Path::new("")))?;
        renameat(&from_folder, from_name, &to_folder, to_name).map_err(|error| self.refuse(from, error))
    }

    /// The folder of a path that is there, and the name in it.
    fn entry<'a>(&self, path: &str, relative: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr), Failure> {
        let name = relative.file_name().ok_or_else(|| unreadable(path, "it names the workspace itself"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = self
            .resolve(relative.parent().unwrap_or(Path::new("")), flags, Mode::empty())
            .map_err(|error| self.refuse(path, error))?;
        Ok((folder, name))
    }

    fn write_through(&self, path: &str, relative: &Path, content: &[u8]) -> Result<Written, Failure> {
        let fd = self
            .resolve(relative, OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK, Mode::from_raw_mode(0o644))
            .map_err(|error| self.refuse(path, error))?;
        let kind = FileType::from_raw_mode(fstat(&fd).map_err(|error| unreadable(path, &error.to_string()))?.st_mode);
        if kind != FileType::RegularFile {
            return Err(unreadable(path, "it leads to something that is not a regular file"));
        }
        let mut file = File::from(fd);
        file.set_len(0).and_then(|()| file.write_all(content)).map_err(|error| self.refuse_writing(path, &error))?;
        Ok(Written::Replaced)
    }

    fn make_folders(&self, path: &str, folders: &Path) -> Result<OwnedFd, Failure> {
        let mut at = PathBuf::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut fd = self.root.try_clone().map_err(|error| Failure::io(path, &error))?;
        for part in folders.components() {
            at.push(part);
            fd = match self.resolve(&at, flags, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    match mkdirat(&fd, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(self.refuse_writing(path, &error.into())),
                    }
                    self.resolve(&at, flags, Mode::empty()).map_err(|error| self.refuse(path, error))?
                }
                Err(Errno::NOTDIR) => return Err(unreadable(path, &format!("{} is no folder", at.display()))),
                Err(error) => return Err(self.refuse(path, error)),
            };
        }
        Ok(fd)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match openat2(&self.root, path, flags, mode, BENEATH) {
                // Something was renamed meanwhile, and the kernel could not be sure.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path, flags, mode),
                done => return done,
            }
        }
    }

    /// As `resolve` on a kernel that cannot: a link anywhere on the way is refused.
    fn walk(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let mut parts = path.components().peekable();
        let mut fd = openat(&self.root, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let flags = if last { flags } else { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC };
            fd = openat(fd.as_fd(), part.as_os_str(), flags | OFlags::NOFOLLOW, if last { mode } else { Mode::empty() })?;
        }
        Ok(fd)
    }

    fn refuse(&self, path: &str, error: Errno) -> Failure {
        match error {
            Errno::XDEV | Errno::LOOP => escapes(path, "it leads out of the workspace through a symbolic link"),
            Errno::NOENT | Errno::NOTDIR => {
                let near = self.near(path);
                let failure = Failure::new(Code::FileNotFound, format!("the workspace has no file {path}"));
                if near.is_empty() { failure } else { failure.hint(format!("near names: {}", near.join(", "))) }
            }
            Errno::ACCESS | Errno::PERM => unreadable(path, "permission denied"),
            Errno::NOSPC | Errno::DQUOT => Failure::io(path, &error.into()),
            error => unreadable(path, &error.to_string()),
        }
    }

    /// As `refuse` of what was to be written. What the disk or the system lacks is not for who named the path to mend.
    fn refuse_writing(&self, path: &str, error: &std::io::Error) -> Failure {
        match Errno::from_io_error(error) {
            None | Some(Errno::IO | Errno::ROFS | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Failure::io(path, error),
            Some(error) => self.refuse(path, error),
        }
    }

    /// Files of the same name in other folders, or of a like name in this one.
    fn near(&self, path: &str) -> Vec<String> {
        let wanted = Path::new(path).file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let stem = wanted.split('.').next().unwrap_or_default().to_owned();
        let walk = ignore::WalkBuilder::new(&self.path).hidden(false).require_git(false).build();
        let names =
            walk.take(20_000).flatten().filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())).filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().to_lowercase();
                let fits = name == wanted || (stem.len() > 2 && name.starts_with(&stem));
                fits.then(|| entry.path().strip_prefix(&self.path).map(|path| path.display().to_string()).ok())?
            });
        names.take(5).collect()
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// There was no such file.
    Made,
    /// There was one.
    Replaced,
}

/// A path as tools take it: relative, and never upwards.
pub fn beneath(path: &str) -> Result<PathBuf, Failure> {
    if path.is_empty() || path.contains('\0') {
        return Err(Failure::new(Code::InvalidToolCall, "the path is empty or has a zero byte"));
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(escapes(path, "it goes up with `..`")),
            Component::RootDir | Component::Prefix(_) => return Err(escapes(path, "it is absolute")),
        }
    }
    Ok(clean)
}

fn escapes(path: &str, why: &str) -> Failure {
    Failure::new(Code::PathEscapes, format!("{path} is refused: {why}"))
        .hint("give a path relative to the workspace's root, such as src/main.rs")
}

fn unreadable(path: &str, why: &str) -> Failure {
    Failure::new(Code::FileUnreadable, format!("{path} cannot be used: {why}"))
}

fn uuid_text() -> String {
    helix_protocol::RunId::new().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, RawMode};
    use std::os::unix::fs::symlink;

    /// The mode bits that a file on disk has.
    fn mode_of(path: &Path) -> RawMode {
        statat(CWD, path, AtFlags::empty()).expect("it exists").st_mode & 0o7777
    }

    fn workspace() -> (tempfile::TempDir, Confined) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("src")).expect("made");
        std::fs::write(root.join("src/main.rs"), "fn main() {}").expect("written");
        std::fs::write(folder.path().join("outside"), "secret").expect("written");
        let confined = Confined::open(&root).expect("a root");
        (folder, confined)
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> Code {
        result.expect_err("refused").code
    }

    #[test]
    fn no_path_and_no_link_leads_out() {
        let (folder, confined) = workspace();
        let root = confined.path();
        symlink("../outside", root.join("up")).expect("linked");
        symlink(folder.path(), root.join("absolute")).expect("linked");
        symlink("src", root.join("inside")).expect("linked");
        for path in ["../outside", "/etc/passwd", "src/../../outside", "up", "absolute/outside", "/"] {
            assert_eq!(code(confined.read(path)), Code::PathEscapes, "{path}");
            assert_eq!(code(confined.write(path, b"x")), Code::PathEscapes, "{path}");
        }
        assert_eq!(code(confined.write("absolute/new/file", b"x")), Code::PathEscapes);
        assert_eq!(std::fs::read_to_string(folder.path().join("outside")).expect("untouched"), "secret");
        assert_eq!(confined.read("inside/main.rs"), Ok(b"fn main() {}".to_vec()));
        assert_eq!(confined.write("inside/new.rs", b"x"), Ok(Written::Made));
        assert_eq!(confined.read("./src//new.rs"), Ok(b"x".to_vec()));
    }

    #[test]
    fn a_write_makes_folders_keeps_the_mode_and_leaves_no_draft() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, confined) = workspace();
        let main = confined.path().join("src/main.rs");
        std::fs::set_permissions(&main, std::fs::Permissions::from_mode(0o750)).expect("set");
        assert_eq!(confined.write("src/main.rs", b"new"), Ok(Written::Replaced));
        assert_eq!(confined.write("a/b/c.txt", b"deep"), Ok(Written::Made));
        assert_eq!((mode_of(&main), confined.read("a/b/c.txt")), (0o750, Ok(b"deep".to_vec())));
        assert_eq!(std::fs::read_dir(confined.path().join("src")).expect("listed").count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_told_and_is_no_fault_of_the_disk() {
        let (_folder, confined) = workspace();
        symlink("round", confined.path().join("round")).expect("linked");
        let long = "x".repeat(300);
        for path in [long.as_str(), &format!("{long}/file"), &"d/".repeat(3_000), "src/main.rs/file", "src", "src/main.rs/a/file"] {
            assert_eq!(code(confined.write(path, b"x")), Code::FileUnreadable, "{path}");
        }
        assert_eq!(code(confined.write("round", b"x")), Code::PathEscapes);
        assert_eq!(code(confined.write("round/file", b"x")), Code::PathEscapes);
        let told = confined.write("src/main.rs/a/file", b"x").expect_err("refused").message;
        assert_eq!(told, "src/main.rs/a/file cannot be used: src/main.rs is no folder");
    }

    #[test]
    fn what_is_no_readable_file_is_named() {
        let (_folder, confined) = workspace();
        rustix::fs::mknodat(CWD, confined.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert_eq!((code(confined.read("pipe")), code(confined.read("src"))), (Code::FileUnreadable, Code::FileUnreadable));
        let missing = confined.read("lib/main.rs").expect_err("missing");
        assert_eq!((missing.code, missing.hint.as_str()), (Code::FileNotFound, "near names: src/main.rs"));
    }
}
