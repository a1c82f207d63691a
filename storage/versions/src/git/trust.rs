//! What git says of a folder beside its history: whether it tracks something in it, and whether the person trusts it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice;

use super::failed;
use crate::VersionError;

/// Whether `safe.directory` of the person's or the system's configuration names a folder, a path without symbolic links: itself,
/// one above it with `/*`, or `*`. An empty value takes back those before it.
pub fn is_safe_directory(folder: &Path) -> bool {
    let Ok(config) = gix::config::File::from_globals() else { return false };
    let values = config.strings("safe.directory").unwrap_or_default();
    values.iter().fold(false, |is_safe, value| match value.as_bytes() {
        b"" => false,
        b"*" => true,
        path => is_safe || names(path, folder),
    })
}

fn names(path: &[u8], folder: &Path) -> bool {
    let path = match path.strip_prefix(b"~/") {
        Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(OsStr::from_bytes(rest)),
        None => PathBuf::from(OsStr::from_bytes(path)),
    };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match path.parent().filter(|_| path.ends_with("*")) {
        Some(above) => folder.starts_with(real(above)),
        None => folder == real(&path),
    }
}

/// Whether the index of the git repository that a folder, a path without symbolic links, lies in has a name in
/// it, or anything beneath.
pub fn tracks(folder: &Path, name: &str) -> Result<bool, VersionError> {
    if !folder.ancestors().any(|above| above.join(".git").exists()) {
        return Ok(false);
    }
    // The person's configuration says nothing about the index, and to read it takes time.
    let isolated = gix::open::Options::isolated();
    let options = gix::sec::trust::Mapping { full: isolated.clone(), reduced: isolated };
    let repository = gix::ThreadSafeRepository::discover_opts(folder, gix::discover::upwards::Options::default(), options);
    let repository = repository.map_err(|error| failed(folder, error))?.to_thread_local();
    let workdir = repository.workdir().and_then(|workdir| fs::canonicalize(workdir).ok());
    let Some(inside) = workdir.as_deref().and_then(|workdir| folder.strip_prefix(workdir).ok()) else { return Ok(false) };
    let index = repository.index_or_empty().map_err(|error| failed(folder, error))?;
    let path = inside.join(name);
    let path = path.as_os_str().as_bytes();
    let beneath = [path, b"/"].concat();
    let has_beneath = index.prefixed_entries(beneath.as_bstr()).is_some_and(|entries| !entries.is_empty());
    Ok(has_beneath || index.entry_by_path(path.as_bstr()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_itself_by_what_is_above_it_or_from_home() {
        let place = tempfile::tempdir().unwrap();
        let above = fs::canonicalize(place.path()).unwrap();
        let folder = above.join("work");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, above.join("link")).unwrap();
        let named = |path: &str| names(above.join(path).as_os_str().as_bytes(), &folder);
        let found = ["work", "work/", "*", "link", "wor", "work/deep", "other/*", ""].map(named);
        assert_eq!(found, [true, true, true, true, false, false, false, false]);
        assert!(!names(b"work", &folder));
    }
}
