//! Where a user's engine is: a folder that is theirs alone, with a socket, a lock and a log.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The folder of a user's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// The place of who runs this process: `$XDG_RUNTIME_DIR/helios`, else `/tmp/helios-UID`. It is made where it is missing,
    /// and refused where others could get at it.
    pub fn find() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir());
        let folder = match runtime {
            Some(runtime) => runtime.join("helios"),
            None => PathBuf::from(format!("/tmp/helios-{}", geteuid().as_raw())),
        };
        Self::at(folder)
    }

    /// The place in a folder, as [`find`](Self::find) makes and checks it.
    pub fn at(folder: PathBuf) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(&folder)?;
        let refuse = |reason| Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {reason}", folder.display())));
        if !found.is_dir() {
            return refuse("is not a folder");
        }
        if found.uid() != geteuid().as_raw() {
            return refuse("belongs to another user");
        }
        if found.permissions().mode() & 0o077 != 0 {
            return refuse("can be entered by others: its mode must be 0700");
        }
        Ok(Self { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the engine listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("engine.sock")
    }

    /// Whoever holds the lock of this file is the engine.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("engine.lock")
    }

    /// The engine's log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("engine.log")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_place_is_the_users_alone_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::at(folder.path().join("helios")).expect("made");
        assert_eq!(fs::metadata(place.folder()).expect("it is there").permissions().mode() & 0o777, 0o700);
        fs::set_permissions(place.folder(), fs::Permissions::from_mode(0o750)).expect("changed");
        assert_eq!(Place::at(place.folder().to_owned()).expect_err("open to a group").kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(place.folder(), fs::Permissions::from_mode(0o700)).expect("changed");
        let link = folder.path().join("link");
        symlink(place.folder(), &link).expect("linked");
        assert_eq!(Place::at(link).expect_err("a link").kind(), io::ErrorKind::PermissionDenied);
    }
}
