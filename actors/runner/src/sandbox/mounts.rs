//! What of the machine's files is seen in the sandbox, and how: everything read-only, the workspace and what else is
//! granted writable on top of it and under a name that is the same on every worker, `/tmp`, `/run` and `/dev` its own, and
//! nothing where credentials are.
//!
//! Landlock refuses content and names; a read-only mount refuses modes, owners, times and attributes too. Devices are few, because
//! a device is written through a read-only mount. Sockets that lie in `/tmp`, `/run` or what is hidden are not there; those that
//! are listened on elsewhere when the sandbox is made are covered.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use helix_protocol::Isolation;
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount, open_tree};

use super::policy::{Policy, WORKSPACE};

/// Devices that commands find, with those of graphics cards.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
const CARDS: &[&str] = &["nvidia", "dri", "kfd"];
/// Of `/run`, what programs need to find names and, on some systems, themselves.
const OF_RUN: &[&str] = &[
    "/run/systemd/resolve",
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf",
    "/run/current-system",
    "/run/booted-system",
    "/run/opengl-driver",
];
/// Covers what is hidden and is no folder: programs find it empty, and do without.
pub(super) const COVER: &str = "/dev/.hidden";
/// How often something is covered that is another one each time.
const COVER_TRIES: u32 = 1_000;

/// A place with what shall be seen there.
struct Place {
    at: PathBuf,
    tree: OwnedFd,
}

/// Makes the view. In a mount namespace of its own, with every capability in it.
pub fn arrange(policy: &Policy, sockets: &[PathBuf]) -> Result<(), String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let root = Path::new("/");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| at(root, &error))?;
    // Taken while they can be seen and before everything becomes read-only.
    let mut writable = vec![place(&policy.temporary, Path::new("/tmp"))?];
    if fs::symlink_metadata("/var/tmp").is_ok_and(|found| found.is_dir()) {
        writable.push(place(&policy.temporary, Path::new("/var/tmp"))?);
    }
    let mut inner = Vec::new();
    let workspace = place(&policy.workspace, &policy.workspace)?;
    if policy.confinement.isolation == Isolation::ReadOnly {
        set_attributes(&workspace.tree, READ_ONLY).map_err(|error| at(&policy.workspace, &error))?;
    }
    inner.push(workspace);
    for path in &policy.writable {
        // What is granted may hold something that is hidden, and is covered after it; a cache lies in the
        // workspace, which comes last.
        let places = if path.starts_with(&policy.workspace) { &mut inner } else { &mut writable };
        places.push(place(path, path)?);
    }
    let devices = devices()?;
    let of_run: Vec<Place> = OF_RUN.iter().filter_map(|path| place(Path::new(path), Path::new(path)).ok()).collect();

    set_attributes_below(root, READ_ONLY).map_err(|error| at(root, &error))?;
    make_dev(&devices).map_err(|error| at(Path::new("/dev"), &error))?;
    make_run(&of_run).map_err(|error| at(Path::new("/run"), &error))?;
    writable.iter().try_for_each(|place| place.put().map_err(|error| at(&place.at, &error)))?;
    let mut covered = Vec::new();
    for path in policy.hidden.iter().chain(sockets) {
        if let Some(folder) = cover(path).map_err(|error| at(path, &error))? {
            covered.push(folder);
        }
    }
    inner.iter().try_for_each(|place| place.put().map_err(|error| at(&place.at, &error)))?;
    // Taken with the caches that were put into it.
    let everywhere = place(&policy.workspace, Path::new(WORKSPACE))?;
    everywhere.put().map_err(|error| at(&everywhere.at, &error))?;
    for folder in covered.into_iter().chain(["/dev".into(), "/run".into()]) {
        let attributes = READ_ONLY;
        open_tree(CWD, &folder, OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|mounted| set_attributes(&mounted, attributes))
            .map_err(|error| at(&folder, &error))?;
    }
    // The folder it was in is covered by now.
    std::env::set_current_dir(&policy.workspace).map_err(|error| at(&policy.workspace, &error))
}

fn place(from: &Path, at: &Path) -> Result<Place, String> {
    let failed = |error: io::Error| format!("{}: {error}", from.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, from, flags).map_err(|error| failed(error.into()))?;
    set_attributes(&tree, NO_PRIVILEGES).map_err(failed)?;
    Ok(Place { at: at.to_owned(), tree })
}

impl Place {
    /// Puts it there, making what it is put on where it was covered.
    fn put(&self) -> io::Result<()> {
        if fs::symlink_metadata(&self.at).is_err() {
            let is_folder = rustix::fs::fstat(&self.tree).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())?;
            let folder = if is_folder { Some(self.at.as_path()) } else { self.at.parent() };
            folder.map_or(Ok(()), fs::create_dir_all)?;
            if !is_folder {
                fs::File::create(&self.at)?;
            }
        }
        move_mount(&self.tree, "", CWD, &self.at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(())
    }
}

fn devices() -> Result<Vec<Place>, String> {
    let mut found: Vec<PathBuf> = DEVICES.iter().map(|name| Path::new("/dev").join(name)).filter(|path| path.exists()).collect();
    let cards = fs::read_dir("/dev").into_iter().flatten().flatten();
    let cards = cards.filter(|entry| CARDS.iter().any(|card| entry.file_name().to_string_lossy().starts_with(card)));
    found.extend(cards.map(|entry| entry.path()));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    found
        .into_iter()
        .map(|at| match open_tree(CWD, &at, flags) {
            Ok(tree) => Ok(Place { at, tree }),
            Err(error) => Err(format!("{}: {error}", at.display())),
        })
        .collect()
}

/// A `/dev` with few devices, terminals and shared memory of the sandbox's own.
fn make_dev(devices: &[Place]) -> io::Result<()> {
    memory("/dev", "mode=0755", MountFlags::NOSUID | MountFlags::NOEXEC)?;
    devices.iter().try_for_each(Place::put)?;
    for folder in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(folder)?;
    }
    memory("/dev/shm", "mode=1777", MountFlags::NOSUID | MountFlags::NODEV)?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", terminals, Some(c"newinstance,ptmxmode=0666,mode=0620"))?;
    for (name, target) in [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, Path::new("/dev").join(name))?;
    }
    fs::File::create(COVER)?;
    fs::set_permissions(COVER, fs::Permissions::from_mode(0o444))
}

/// A `/run` without the sockets of services.
fn make_run(kept: &[Place]) -> io::Result<()> {
    memory("/run", "mode=0755", MountFlags::NOSUID | MountFlags::NODEV)?;
    kept.iter().try_for_each(Place::put)?;
    // A system that keeps its own `/var/run` apart keeps sockets in it.
    if fs::symlink_metadata("/var/run").is_ok_and(|found| found.is_dir()) {
        memory("/var/run", "mode=0755", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY)?;
    }
    Ok(())
}

/// Puts nothing where something was. A folder is named: what belongs inside may have to be put there before it is closed.
fn cover(path: &Path) -> io::Result<Option<PathBuf>> {
    let is_gone = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let mut tries = 0;
    loop {
        let found = match fs::symlink_metadata(path) {
            // It went with what was covered before, or by itself, as a socket does whose program ends.
            Err(error) if is_gone(&error) => return Ok(None),
            found => found?,
        };
        tries += 1;
        match put_nothing_at(path, &found) {
            // It went after the look, and something else may have its name by now.
            Err(error) if is_gone(&error) && tries < COVER_TRIES => {}
            covered => return covered,
        }
    }
}

fn put_nothing_at(path: &Path, found: &fs::Metadata) -> io::Result<Option<PathBuf>> {
    if found.is_dir() {
        // It may be passed through and not listed.
        memory(path, "mode=0711", MountFlags::NOSUID | MountFlags::NODEV)?;
        return Ok(Some(path.to_owned()));
    }
    if found.is_file() || found.file_type().is_socket() {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, COVER, flags)?;
        move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(None)
}

fn memory(at: impl AsRef<Path>, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = std::ffi::CString::new(options).expect("our own options have no zero byte");
    mount("tmpfs", at.as_ref(), "tmpfs", flags, Some(options.as_c_str())).map_err(io::Error::from)
}

/// Sockets with a name in the file system that somebody listens on, as far as this machine's own list tells.
pub fn sockets() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut named: Vec<PathBuf> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|name| name.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    named.sort();
    named.dedup();
    named.retain(|path| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()));
    named
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_PRIVILEGES: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

fn set_attributes(tree: &OwnedFd, attributes: u64) -> io::Result<()> {
    mount_setattr(tree, c"", libc::AT_EMPTY_PATH, attributes)
}

fn set_attributes_below(path: &Path, attributes: u64) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    mount_setattr(CWD, &path, libc::AT_RECURSIVE, attributes)
}

#[allow(unsafe_code)]
fn mount_setattr(folder: impl AsFd, path: &std::ffi::CStr, flags: i32, attributes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let set = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let folder = folder.as_fd().as_raw_fd();
    // SAFETY: path and attributes are valid for the time of the call, and the kernel is told how long the latter are.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            &raw const set,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a folder that only its owner sees, or says why not.
pub fn make_private(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
