//! A file system of its own that fills up.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system mounted on a folder until this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many MiB. `None` where this user may not mount one, which is said.
    pub fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            // What the printing macros print is kept back where a test passes.
            let _ = writeln!(std::io::stderr(), "\n*** NOT RUN: a full disk: this user may not mount a file system ***");
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    /// Leaves no byte free, in a file that this names.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = File::create(&ballast).expect("there is room for a name");
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        ballast
    }

    /// Takes back what [`Self::fill`] took.
    pub fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
