//! How small a series of versions becomes: `cargo run --release -p helix-rocks --example pack_folder FOLDER`.
//!
//! Each subfolder of FOLDER, in the order of their names, is a version. Files, folders (names and ids) and versions (folder and
//! version before) are stored, packed idly, then aggressively; every byte of the store's folder is counted.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use helix_objects::{Durability, Kind, NewObject, ObjectStore, PackHint, similarity};
use helix_protocol::ObjectId;
use helix_rocks::{Effort, RocksStore};

/// What was stored, in the order of age.
#[derive(Default)]
struct Series {
    objects: Vec<NewObject>,
    hints: HashMap<ObjectId, (usize, PackHint)>,
}

impl Series {
    fn add(&mut self, bytes: Vec<u8>, kind: Kind, path: &Path) -> ObjectId {
        let object = NewObject::new(bytes.into());
        let id = object.id();
        if !self.hints.contains_key(&id) {
            let near = similarity(path.as_os_str().as_encoded_bytes());
            self.hints.insert(id, (self.objects.len(), PackHint { id, kind, near }));
            self.objects.push(object);
        }
        id
    }

    fn folder(&mut self, root: &Path, path: &Path) -> Result<ObjectId, Box<dyn Error>> {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        entries.sort();
        let mut tree = b"tree".to_vec();
        for entry in entries {
            let inside = entry.strip_prefix(root)?.to_owned();
            let id = if entry.is_dir() { self.folder(root, &entry)? } else { self.add(fs::read(&entry)?, Kind::File, &inside) };
            tree.extend_from_slice(entry.file_name().unwrap_or_default().as_encoded_bytes());
            tree.push(0);
            tree.extend_from_slice(&id.0);
        }
        Ok(self.add(tree, Kind::Tree, path.strip_prefix(root)?))
    }
}

fn bytes_in(folder: &Path) -> Result<u64, std::io::Error> {
    fs::read_dir(folder)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        Ok(sum + if entry.file_type()?.is_dir() { bytes_in(&entry.path())? } else { entry.metadata()?.len() })
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = PathBuf::from(std::env::args().nth(1).ok_or("which folder?")?);
    let mut versions: Vec<PathBuf> =
        fs::read_dir(&corpus)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    versions.sort();
    let mut series = Series::default();
    let mut before = None;
    for version in &versions {
        let tree = series.folder(version, version)?;
        let mut snapshot = format!("snapshot of {}\n", version.display()).into_bytes();
        snapshot.extend_from_slice(&tree.0);
        snapshot.extend(before.iter().flat_map(|id: &ObjectId| id.0));
        before = Some(series.add(snapshot, Kind::Snapshot, Path::new("")));
    }
    let path = std::env::current_dir()?.join(format!("target-pack-{}", std::process::id()));
    let store = RocksStore::open(&path)?;
    for part in series.objects.chunks(500) {
        store.put(part, Durability::NoSync)?;
    }
    let mut hints: Vec<(usize, PackHint)> = series.hints.into_values().collect();
    hints.sort_by_key(|(age, _)| *age);
    let hints: Vec<PackHint> = hints.into_iter().map(|(_, hint)| hint).collect();
    let stats = store.stats()?;
    println!("{} versions, {} objects, {} bytes", versions.len(), stats.objects, stats.logical_bytes);
    for effort in [Effort::Idle, Effort::Aggressive] {
        let started = Instant::now();
        let packed = store.pack(&hints, effort)?;
        let took = started.elapsed();
        store.compact()?;
        println!(
            "{effort:?}: {} groups of {} bytes, {} bytes with everything, packed in {took:.1?}, then merged: {:.1?}",
            packed.groups,
            packed.stored_bytes,
            bytes_in(&path)?,
            started.elapsed(),
        );
    }
    store.close()?;
    fs::remove_dir_all(path)?;
    Ok(())
}
