//! Copies of a whole store.
//!
//! A backup is a folder like a store's, with a file `manifest` that names every other file of it with its length and BLAKE3 hash.
//! The manifest is written last and ends with a hash of itself, so a backup that was cut off is none.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use helix_objects::{Mark, ObjectError, hash};
use helix_protocol::ObjectId;

use super::check::{Checked, check_all};
use super::{FORMAT, MARK, RocksStore};
use crate::RocksOptions;
use crate::engine::Engine;
use crate::mark_file::{Acknowledged, MarkFile};

const MANIFEST: &str = "manifest";
const TITLE: &str = "helios backup 1";

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Files, the manifest aside.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything up to here is in it.
    pub mark: Mark,
    /// Objects.
    pub objects: u64,
}

impl RocksStore {
    /// Writes a backup into `to`, which must not exist or be empty. Writers go on; what they write meanwhile is not in it. On the
    /// same file system tables are shared with the store and take no room.
    pub fn backup(&self, to: &Path) -> Result<Backup, ObjectError> {
        let _upkeep = self.upkeep.lock();
        empty_folder(to)?;
        self.with(|engine| engine.copy_to(&to.join("db")))?;
        let head = Engine::open_read_only(&to.join("db"), &self.options)?.head()?;
        let mark = Mark(head.ordinal);
        write_synced(&to.join("format"), format!("{FORMAT}\n").as_bytes())?;
        MarkFile::make(&to.join(MARK), Acknowledged { mark, clean: true })?;
        let listed = list(to)?;
        let manifest = Manifest { mark, objects: head.objects, files: listed };
        write_synced(&to.join(MANIFEST), manifest.encode().as_bytes())?;
        File::open(to).and_then(|folder| folder.sync_all()).map_err(|error| ObjectError::io(to, error))?;
        Ok(manifest.summary())
    }

    /// Whether a folder holds a backup, whole or damaged.
    pub fn is_backup(path: &Path) -> bool {
        path.join(MANIFEST).exists()
    }

    /// Reads a whole backup: every file against the manifest, and every object against its id.
    pub fn verify_backup(path: &Path) -> Result<(Backup, Checked), ObjectError> {
        let manifest = read_manifest(path)?;
        let found = list(path)?;
        if let Some(file) = manifest.files.iter().find(|file| !found.contains(file)) {
            return Err(ObjectError::Backend(format!("{} of the backup is damaged or gone", path.join(&file.name).display())));
        }
        if let Some(file) = found.iter().find(|file| !manifest.files.contains(file)) {
            return Err(ObjectError::Backend(format!("{} is no part of the backup", path.join(&file.name).display())));
        }
        let engine = Engine::open_read_only(&path.join("db"), &RocksOptions::DEFAULT)?;
        let head = engine.head()?;
        if (Mark(head.ordinal), head.objects) != (manifest.mark, manifest.objects) {
            return Err(ObjectError::Backend(format!("{} holds less than its manifest says", path.display())));
        }
        Ok((manifest.summary(), check_all(&engine)?))
    }

    /// Makes a store in `to`, which must not exist or be empty, from a backup that is found sound first.
    pub fn restore(from: &Path, to: &Path) -> Result<Backup, ObjectError> {
        let (backup, checked) = Self::verify_backup(from)?;
        if !checked.is_sound() {
            let damaged = checked.damaged.len() + checked.faults.len();
            return Err(ObjectError::Backend(format!("{} is damaged in {damaged} places", from.display())));
        }
        empty_folder(to)?;
        let manifest = read_manifest(from)?;
        for file in &manifest.files {
            let (source, target) = (from.join(&file.name), to.join(&file.name));
            let parent = target.parent().unwrap_or(to);
            fs::create_dir_all(parent).map_err(|error| ObjectError::io(parent, error))?;
            fs::copy(&source, &target).map_err(|error| ObjectError::io(&source, error))?;
            File::open(&target).and_then(|copy| copy.sync_all()).map_err(|error| ObjectError::io(&target, error))?;
        }
        for folder in [&to.join("db"), to] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| ObjectError::io(folder, error))?;
        }
        if list(to)? != manifest.files {
            return Err(ObjectError::Backend(format!("{} is not what was copied to it", to.display())));
        }
        Ok(backup)
    }
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// From the backup's folder on.
    name: String,
    bytes: u64,
    hash: ObjectId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Manifest {
    mark: Mark,
    objects: u64,
    files: Vec<Listed>,
}

impl Manifest {
    fn summary(&self) -> Backup {
        let bytes = self.files.iter().map(|file| file.bytes).sum();
        Backup { files: self.files.len() as u64, bytes, mark: self.mark, objects: self.objects }
    }

    /// A title, the mark, the number of objects, a line for each file, and the hash of all these lines.
    fn encode(&self) -> String {
        let mut text = format!("{TITLE}\nmark {}\nobjects {}\n", self.mark.0, self.objects);
        for Listed { name, bytes, hash } in &self.files {
            writeln!(text, "{hash} {bytes} {name}").expect("writing to a string succeeds");
        }
        let sum = hash(text.as_bytes());
        writeln!(text, "{sum}").expect("writing to a string succeeds");
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = &text[..body.len() + 1];
        if hash(body.as_bytes()).to_string() != sum {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mark = Mark(lines.next()?.strip_prefix("mark ")?.parse().ok()?);
        let objects = lines.next()?.strip_prefix("objects ")?.parse().ok()?;
        let file = |line: &str| {
            let (hash, rest) = line.split_once(' ')?;
            let (bytes, name) = rest.split_once(' ')?;
            let inside =
                !name.is_empty() && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            inside.then_some(Listed { name: name.to_owned(), bytes: bytes.parse().ok()?, hash: hash.parse().ok()? })
        };
        let files = lines.map(file).collect::<Option<_>>()?;
        Some(Self { mark, objects, files })
    }
}

fn read_manifest(backup: &Path) -> Result<Manifest, ObjectError> {
    let path = backup.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| ObjectError::io(&path, error))?;
    Manifest::decode(&text).ok_or_else(|| ObjectError::Backend(format!("{} is damaged", path.display())))
}

/// Every file but the manifest and the lock, by name.
fn list(folder: &Path) -> Result<Vec<Listed>, ObjectError> {
    let mut listed = Vec::new();
    for path in files_in(folder)?.into_iter().chain(files_in(&folder.join("db"))?) {
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
        let name = name.ok_or_else(|| ObjectError::Backend(format!("{} has a name that no backup has", path.display())))?;
        if name == MANIFEST || name == "lock" || name == "db/LOCK" {
            continue;
        }
        let file = File::open(&path).map_err(|error| ObjectError::io(&path, error))?;
        let (hash, bytes) = helix_objects::hash_reader(file).map_err(|error| ObjectError::io(&path, error))?;
        listed.push(Listed { name: name.to_owned(), bytes, hash });
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// The files of one folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let read = || {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
        Ok(files)
    };
    read().map_err(|error: std::io::Error| ObjectError::io(folder, error))
}

fn empty_folder(path: &Path) -> Result<(), ObjectError> {
    fs::create_dir_all(path).map_err(|error| ObjectError::io(path, error))?;
    match fs::read_dir(path).map_err(|error| ObjectError::io(path, error))?.next() {
        None => Ok(()),
        Some(_) => Err(ObjectError::io(path, std::io::Error::from(ErrorKind::DirectoryNotEmpty))),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ObjectError> {
    let draft = path.with_extension("new");
    let write = || {
        fs::write(&draft, bytes)?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| ObjectError::io(path, error))
}

#[cfg(test)]
mod tests {
    use helix_objects::{Mark, hash};
    use proptest::prelude::*;

    use super::{Listed, Manifest};

    fn manifest() -> impl Strategy<Value = Manifest> {
        let file = ("[a-zA-Z0-9._ -]{1,12}", any::<u64>(), any::<u64>()).prop_map(|(name, bytes, seed)| {
            let name = format!("db/{}x", name.trim());
            Listed { name, bytes, hash: hash(&seed.to_le_bytes()) }
        });
        (any::<u64>(), any::<u64>(), prop::collection::vec(file, 0..5)).prop_map(|(mark, objects, files)| Manifest {
            mark: Mark(mark),
            objects,
            files,
        })
    }

    proptest! {
        #[test]
        fn a_manifest_is_what_it_was_and_any_change_of_it_is_refused(manifest in manifest(), at in any::<prop::sample::Index>()) {
            let text = manifest.encode();
            prop_assert_eq!(Manifest::decode(&text), Some(manifest));
            let at = at.index(text.len());
            prop_assert_eq!(Manifest::decode(&text[..at]), None, "cut at {}", at);
            let mut changed = text.into_bytes();
            changed[at] ^= 1;
            if let Ok(changed) = String::from_utf8(changed) {
                prop_assert_eq!(Manifest::decode(&changed), None, "changed at {}", at);
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,200}") {
            prop_assert_eq!(Manifest::decode(&text), None);
        }
    }

    #[test]
    fn a_manifest_names_no_file_outside_its_folder() {
        for name in ["../escape", "/etc/passwd", "db/../../x", ""] {
            let file = Listed { name: name.to_owned(), bytes: 1, hash: hash(b"x") };
            let manifest = Manifest { mark: Mark(1), objects: 1, files: vec![file] };
            assert_eq!(Manifest::decode(&manifest.encode()), None, "{name}");
        }
    }
}
