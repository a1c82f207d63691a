//! Tokens on the disk, encrypted.
//!
//! One file a login, sealed with ChaCha20-Poly1305 under a key of its own folder. Both are the user's alone (0600, in a
//! folder of 0700). The key lies beside what it opens: this keeps tokens out of backups and copies of single files, not from
//! whoever reads the folder.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// A token as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// What calls are made with.
    pub access: String,
    /// What another is had with.
    #[serde(default)]
    pub refresh: Option<String>,
    /// When it expires, in seconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

impl fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Which file a token lies in: every save makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
}

/// A folder of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStore {
    folder: PathBuf,
}

impl TokenStore {
    /// Tokens in `folder`, which is made with the first of them.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Those of the user: `helix/logins` in `$XDG_DATA_HOME`, else in `~/.local/share`. `None` where there is neither.
    pub fn of_user(env: &impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))?;
        Some(Self::new(data.join("helix/logins")))
    }

    /// Keeps `token` under `name`, in place of the one before, and says in which file.
    pub fn save(&self, name: &str, token: &StoredToken) -> Result<Stamp, Failure> {
        let path = self.path(name)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(|error| self.failed(&error))?;
        let mut sealed = serde_json::to_vec(token).expect("a token is plain data");
        let nonce = random::<NONCE_LEN>()?;
        let key = self.key(Missing::Made)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed)
            .map_err(|_| Failure::new(Code::StorageFailed, "the token cannot be encrypted"))?;
        let bytes: Vec<u8> = nonce.iter().copied().chain(sealed).collect();
        // Nobody else's, nor one that a process left which died: ids of processes come again.
        let draft = self.folder.join(format!(".{name}.{:016x}", u64::from_ne_bytes(random()?)));
        let saved = write_new(&draft, &bytes).and_then(|()| {
            let stamp = stamp_of(&draft)?;
            std::fs::rename(&draft, &path).map(|()| stamp)
        });
        saved.map_err(|error| {
            // What could not be put in place is of no use; an error would only hide the first one.
            let _ = std::fs::remove_file(&draft);
            Failure::io(path.display(), &error)
        })
    }

    /// Which file the token of `name` lies in now; `None` where there is none.
    pub fn stamp(&self, name: &str) -> Option<Stamp> {
        stamp_of(&self.path(name).ok()?).ok()
    }

    /// The token of `name`; `None` where nobody logged in. Refused where it cannot be opened.
    pub fn load(&self, name: &str) -> Result<Option<StoredToken>, Failure> {
        let path = self.path(name)?;
        let mut bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io(path.display(), &error)),
        };
        let unreadable = || {
            Failure::new(Code::StorageFailed, format!("{} cannot be decrypted", path.display()))
                .hint("it belongs to another key file, or was changed; delete it and log in again")
        };
        if bytes.len() < NONCE_LEN {
            return Err(unreadable());
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| unreadable())?;
        let plain = self.key(Missing::Refused)?.open_in_place(nonce, Aad::from(name), &mut sealed).map_err(|_| unreadable())?;
        serde_json::from_slice(plain).map(Some).map_err(|_| unreadable())
    }

    /// The names under which there are tokens, sorted.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(&error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| self.failed(&error))?.file_name();
            // A draft begins with a dot, which no name does.
            let name = file.to_str().and_then(|file| file.strip_suffix(".token")).filter(|name| !name.starts_with('.'));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Forgets the token of `name`. True where there was one.
    pub fn remove(&self, name: &str) -> Result<bool, Failure> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// Names come from a configuration, and must not lead out of the folder.
    fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if plain {
            return Ok(self.folder.join(format!("{name}.token")));
        }
        Err(Failure::new(Code::InvalidRequest, format!("{name:?} is no name of a login")).hint("letters, digits, - and _"))
    }

    fn key(&self, missing: Missing) -> Result<LessSafeKey, Failure> {
        let path = self.folder.join("key");
        let bytes = match (std::fs::read(&path), missing) {
            (Ok(bytes), _) => bytes,
            (Err(error), Missing::Made) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = random::<32>()?.to_vec();
                match write_new(&path, &bytes) {
                    Ok(()) => bytes,
                    // Another process was first.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                        std::fs::read(&path).map_err(|error| Failure::io(path.display(), &error))?
                    }
                    Err(error) => return Err(Failure::io(path.display(), &error)),
                }
            }
            (Err(error), _) => return Err(Failure::io(path.display(), &error)),
        };
        private(&path)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| {
            Failure::new(Code::StorageFailed, format!("{} is not a key", path.display()))
                .hint("delete it and the tokens beside it, and log in again")
        })?;
        Ok(LessSafeKey::new(key))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::io(self.folder.display(), error)
    }
}

/// What is done where there is no key yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Made,
    Refused,
}

/// Refuses a key that others can read.
fn private(path: &Path) -> Result<(), Failure> {
    let mode = std::fs::metadata(path).map_err(|error| Failure::io(path.display(), &error))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::new(Code::StorageFailed, format!("{} can be read by others", path.display()))
        .hint(format!("chmod 600 {}", path.display())))
}

fn stamp_of(path: &Path) -> std::io::Result<Stamp> {
    let file = std::fs::metadata(path)?;
    Ok(Stamp { inode: file.ino(), modified: (file.mtime(), file.mtime_nsec()) })
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(Code::StorageFailed, "the system gives no random numbers"))?;
    Ok(bytes)
}
