//! A git repository to read whole: refused where its history is not all there, read past replacements and grafts, every
//! object checked against its id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId as GitId;
use gix::objs::Kind;
use gix::odb::pack::Find;
use gix::odb::pack::cache::Never;
use sha1::{Digest, Sha1};

use super::map::{GitRefs, GitTarget};
use super::packs::{Packs, Place, Unpacker, Unread};
use super::{failed, open, place, whole};
use crate::VersionError;

type Handle = gix::odb::store::Handle<Arc<gix::odb::Store>>;

/// Bytes of objects that one reader keeps; two and more together keep twice as much, and each of them at least the second number.
const KEPT_BYTES: usize = 48 << 20;
const LEAST_KEPT_BYTES: usize = 16 << 20;

/// See the module.
pub(super) struct Source {
    pub(super) repository: gix::Repository,
    pub(super) place: PathBuf,
    objects: Handle,
    packs: Arc<Packs>,
}

impl Source {
    /// Opens the repository that a path lies in.
    pub(super) fn open(path: &Path) -> Result<Self, VersionError> {
        let repository = open_sha1(path)?;
        let place = place(&repository);
        let shown = place.display();
        if repository.is_shallow().map_err(|error| failed(&place, error))? {
            return Err(VersionError::Refused {
                message: format!("{shown} is a shallow clone: the older part of its history is not there"),
                hint: "run `git fetch --unshallow` in it, then try again",
            });
        }
        let folder = repository.objects.store_ref().path().to_owned();
        let packs = Arc::new(Packs::open(&folder));
        let handle = gix::odb::at(folder, gix::hash::Kind::Sha1).and_then(|handle| handle.into_arc());
        let mut objects = handle.map_err(|error| failed(&place, error))?.into_inner();
        objects.prevent_pack_unload();
        Ok(Self { repository, place, objects, packs })
    }

    /// A reader of its own for one thread.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            objects: self.objects.clone(),
            packs: Arc::clone(&self.packs),
            unpacker: Unpacker::new(KEPT_BYTES),
            place: self.place.clone(),
        }
    }

    /// One reader for each of so many threads that read together.
    pub(super) fn readers(&self, threads: usize) -> Vec<Reader> {
        let share = (2 * KEPT_BYTES / threads.max(2)).max(LEAST_KEPT_BYTES);
        (0..threads).map(|_| Reader { unpacker: Unpacker::new(share), ..self.reader() }).collect()
    }

    /// Where an object is among the packs, for reading many in the order of the disk. What is in none comes first.
    pub(super) fn position(&self, id: GitId) -> Option<Place> {
        self.packs.find(id)
    }

    /// Every ref with what it says, `HEAD` among them, without `refs/replace/`.
    pub(super) fn refs(&self) -> Result<GitRefs, VersionError> {
        let git = |error: gix::Error| whole(&self.place, &error);
        let mut refs = GitRefs::new();
        let platform = self.repository.references().map_err(git)?;
        for reference in platform.all().map_err(git)? {
            let reference = reference.map_err(git)?;
            let name: &[u8] = reference.name().as_bstr();
            if !name.starts_with(b"refs/replace/") {
                refs.insert(name.to_vec(), target(reference.target()));
            }
        }
        let head = self.repository.find_reference("HEAD").map_err(git)?;
        refs.insert(b"HEAD".to_vec(), target(head.target()));
        Ok(refs)
    }
}

fn target(target: gix::refs::TargetRef<'_>) -> GitTarget {
    match target {
        gix::refs::TargetRef::Object(id) => GitTarget::Object(id.to_owned()),
        gix::refs::TargetRef::Symbolic(name) => {
            let name: &[u8] = name.as_bstr();
            GitTarget::Ref(name.to_vec())
        }
    }
}

/// Opens the repository that a path lies in, unless its ids are not SHA-1 or its refs are no files.
pub(super) fn open_sha1(path: &Path) -> Result<gix::Repository, VersionError> {
    let sha256 = |place: &Path| VersionError::Refused {
        message: format!("{} names its objects by SHA-256, which is not supported", place.display()),
        hint: "clone it into a repository made with `git init --object-format=sha1` where that is possible",
    };
    let reftable = |place: &Path| VersionError::Refused {
        message: format!("{} keeps its refs in a reftable, which is not supported", place.display()),
        hint: "`git refs migrate --ref-format=files` in it makes files of them; then try again",
    };
    let repository = open(path).map_err(|error| {
        tracing::debug!(%error, "a git repository could not be opened");
        if says(path, "objectformat=sha256") {
            sha256(path)
        } else if says(path, "refstorage=reftable") {
            reftable(path)
        } else {
            error
        }
    })?;
    if repository.object_hash() != gix::hash::Kind::Sha1 {
        return Err(sha256(&place(&repository)));
    }
    let storage = repository.config_snapshot().string("extensions.refStorage");
    if storage.is_some_and(|storage| storage.starts_with(b"reftable")) {
        return Err(reftable(&place(&repository)));
    }
    Ok(repository)
}

/// Whether the configuration asks for something, read as text because the library does not open such a repository at all.
fn says(path: &Path, wanted: &str) -> bool {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folders = absolute.ancestors().flat_map(|folder| [folder.join(".git/config"), folder.join("config")]);
    let texts = folders.filter_map(|config| std::fs::read_to_string(config).ok());
    let says = |text: String| {
        let lines = text.lines().map(|line| line.to_ascii_lowercase().split_whitespace().collect::<String>());
        lines.into_iter().any(|line| line == wanted)
    };
    texts.take(1).any(says)
}

/// Reads objects, remembering what others are stored as differences from.
pub(super) struct Reader {
    objects: Handle,
    packs: Arc<Packs>,
    unpacker: Unpacker,
    place: PathBuf,
}

impl Reader {
    /// An object of a kind, checked against its id.
    pub(super) fn read(&mut self, id: GitId, kind: Kind) -> Result<Bytes, VersionError> {
        let (found, bytes) = self.read_any(id)?;
        if found != kind {
            return Err(failed(&self.place, format!("object {id} is a {found}, not a {kind}")));
        }
        Ok(bytes)
    }

    /// An object of any kind, checked against its id.
    pub(super) fn read_any(&mut self, id: GitId) -> Result<(Kind, Bytes), VersionError> {
        if id.is_empty_tree() {
            return Ok((Kind::Tree, Bytes::new()));
        }
        for place in self.packs.places(id) {
            match self.unpacker.object(&self.packs, place) {
                Ok((kind, bytes)) if git_id(kind, &bytes) == id => return Ok((kind, bytes)),
                Err(Unread::TooLong) => {
                    return Err(VersionError::Refused {
                        message: format!(
                            "object {id} in {} is made of differences, and longer than git makes any",
                            self.place.display()
                        ),
                        hint: "where it is meant, `git -c core.bigFileThreshold=512m repack -adF` there stores it whole",
                    });
                }
                Ok(_) | Err(Unread::Elsewhere) => {}
            }
        }
        // Loose, in another repository's folder, or damaged, and there once more perhaps.
        self.read_elsewhere(id)
    }

    fn read_elsewhere(&self, id: GitId) -> Result<(Kind, Bytes), VersionError> {
        let mut buffer = Vec::new();
        let found = self.objects.try_find_cached(&id, &mut buffer, &mut Never);
        let kind = match found.map(|found| found.map(|(data, _)| data.kind)) {
            Ok(Some(kind)) => kind,
            Ok(None) => {
                let reason = format!("object {id} is missing: the repository is damaged, or a partial clone");
                return Err(failed(&self.place, reason));
            }
            Err(error) => return Err(failed(&self.place, format!("object {id} cannot be read: {error}"))),
        };
        if git_id(kind, &buffer) != id {
            return Err(failed(&self.place, format!("object {id} is damaged: its bytes have another hash")));
        }
        Ok((kind, Bytes::from(buffer)))
    }

    /// Whether the repository has the object.
    pub(super) fn has(&self, id: GitId) -> bool {
        self.objects.contains(&id)
    }
}

/// Git's id of some bytes.
pub(super) fn git_id(kind: Kind, bytes: &[u8]) -> GitId {
    let name = match kind {
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Commit => "commit",
        Kind::Tag => "tag",
    };
    let header = format!("{name} {}\0", bytes.len());
    GitId::Sha1(Sha1::new().chain_update(header.as_bytes()).chain_update(bytes).finalize().into())
}
