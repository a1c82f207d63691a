//! What a sandbox allows, in full: decided by the worker, carried out inside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use helix_protocol::{Confinement, Environment, Isolation};
use serde::{Deserialize, Serialize};

/// Where commands see their workspace, on whatever worker: what remembers paths (a virtual environment, a cache of CMake, an
/// agent's session) is right again after a move. It is seen where it lies as well.
pub const WORKSPACE: &str = "/run/workspace";

/// Below a home: what holds keys, tokens, sessions and histories. Folders and files.
const PRIVATE_IN_HOME: &[&str] = &[
    ".ssh",
    ".aws",
    ".azure",
    ".gnupg",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".s3cfg",
    ".boto",
    ".vault-token",
    ".password-store",
    ".terraform.d/credentials.tfrc.json",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/gcloud",
    ".config/github-copilot",
    ".config/git/credentials",
    ".config/helix",
    ".config/op",
    ".config/rclone",
    ".config/sops",
    ".config/google-chrome",
    ".config/chromium",
    ".local/share/helix",
    ".local/share/keyrings",
    ".mozilla",
    ".config/containers/auth.json",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".cache/huggingface/token",
    ".cache/huggingface/stored_tokens",
    ".claude.json",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".codex/.credentials.json",
    ".config/goose/secrets.yaml",
    ".config/opencode",
    ".local/share/opencode/auth.json",
    ".local/share/opencode/mcp-auth.json",
    ".gemini/.env",
    ".gemini/gemini-credentials.json",
    ".gemini/mcp-oauth-tokens.json",
    ".gemini/oauth_creds.json",
    ".aider.conf.yml",
    ".aider/oauth-keys.env",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
];

/// Of the machine: readable for root only, and root is who a worker may run as.
const PRIVATE_OF_ROOT: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/NetworkManager/system-connections",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/etc/kubernetes",
];

/// Everything a sandbox must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The level, the network, and the layers that must be on: with fewer nothing is run.
    pub confinement: Confinement,
    /// The workspace's root.
    pub workspace: PathBuf,
    /// A folder of the task's own for temporary files.
    pub temporary: PathBuf,
    /// What else may be written.
    pub writable: Vec<PathBuf>,
    /// What may not be read, each by its real path; none lies in another.
    pub hidden: Vec<PathBuf>,
    /// Where something that is to be hidden is, or may come to be: only what lies in these now can be read.
    pub listed: Vec<PathBuf>,
    /// When these were changed last, as of then.
    #[serde(skip)]
    pub changed: Vec<Option<SystemTime>>,
}

/// What commands of a worker may not read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// As [`Policy::hidden`].
    pub paths: Vec<PathBuf>,
    /// As [`Policy::listed`].
    pub listed: Vec<PathBuf>,
}

impl Policy {
    /// Where commands work, as they see it. Only a view of files can give every worker's the same name.
    pub fn seen_workspace(&self) -> &Path {
        if self.confinement.namespaces { Path::new(WORKSPACE) } else { &self.workspace }
    }

    /// Where commands put temporary files, as they see it.
    pub fn seen_temporary(&self) -> &Path {
        if self.confinement.namespaces { Path::new("/tmp") } else { &self.temporary }
    }

    /// Whether what can be read is what a sandbox that is made now would let be read.
    pub fn is_current(&self) -> bool {
        self.changed == changed(&self.listed)
    }
}

/// When something came into each folder last, or left it.
pub fn changed(folders: &[PathBuf]) -> Vec<Option<SystemTime>> {
    folders.iter().map(|folder| std::fs::metadata(folder).and_then(|found| found.modified()).ok()).collect()
}

/// What commands of a worker may not read: credentials in homes, the worker's folder, and what it was told beside them.
pub fn hidden(folder: &Path, told: &[PathBuf]) -> Hidden {
    let is_root = rustix::process::geteuid().is_root();
    let mut homes: Vec<PathBuf> = std::env::var_os("HOME").map(PathBuf::from).into_iter().collect();
    let mut all: Vec<PathBuf> = told.to_vec();
    all.push(folder.to_owned());
    all.extend(std::env::var_os("XDG_DATA_HOME").map(|data| Path::new(&data).join("helix")));
    all.extend(std::env::var_os("XDG_CONFIG_HOME").map(|data| Path::new(&data).join("helix")));
    if is_root {
        homes.push("/root".into());
        homes.extend(std::fs::read_dir("/home").into_iter().flatten().flatten().map(|home| home.path()));
        all.extend(PRIVATE_OF_ROOT.iter().map(PathBuf::from));
        let keys = std::fs::read_dir("/etc/ssh").into_iter().flatten().flatten().map(|entry| entry.path());
        all.extend(keys.filter(|key| key.extension().is_none_or(|end| end != "pub") && key.to_string_lossy().contains("_key")));
    }
    homes.sort();
    homes.dedup();
    all.extend(homes.iter().flat_map(|home| PRIVATE_IN_HOME.iter().map(|name| home.join(name))));
    let mut found = outermost(&all);
    // Whoever comes to have a home there.
    found.listed.extend(is_root.then(|| "/home".into()));
    found
}

/// Those that exist, by their real paths, without those that lie in others; the whole system is never among them. And the folders
/// that these lie in, and that the others would be made in.
fn outermost(paths: &[PathBuf]) -> Hidden {
    let mut folders: HashMap<&Path, Option<PathBuf>> = HashMap::new();
    let (mut real, mut listed) = (Vec::new(), Vec::new());
    for path in paths {
        match std::fs::canonicalize(path) {
            Ok(path) if path.parent().is_none() => {}
            Ok(path) => {
                listed.extend(path.parent().map(Path::to_owned));
                real.push(path);
            }
            Err(_) => {
                // Many share a folder.
                let mut real_folder = |folder| folders.entry(folder).or_insert_with(|| std::fs::canonicalize(folder).ok()).clone();
                listed.extend(path.ancestors().skip(1).find_map(&mut real_folder));
            }
        }
    }
    real.sort();
    // Sorted by components, what lies in a folder follows it.
    real.dedup_by(|inner, outer| inner.starts_with(&*outer));
    listed.sort();
    listed.dedup();
    listed.retain(|folder| !real.iter().any(|hidden| folder.starts_with(hidden)));
    Hidden { paths: real, listed }
}

/// What may be written beside the workspace: what the node grants outside, and the project's caches where the
/// workspace itself is not.
pub fn writable(environment: &Environment, workspace: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let granted = environment.writable.iter().filter_map(|path| match path.strip_prefix('~') {
        Some(rest) => home.as_ref().map(|home| home.join(rest.trim_start_matches('/'))),
        None => Some(PathBuf::from(path)),
    });
    let granted = granted.filter_map(|path| std::fs::canonicalize(path).ok());
    // What is hidden stays hidden, and a grant of the whole system would be no sandbox.
    let granted = granted.filter(|path| path.parent().is_some() && hidden.iter().all(|hidden| !path.starts_with(hidden)));
    let mut all: Vec<PathBuf> = granted.collect();
    if environment.isolation() == Isolation::ReadOnly {
        let caches = environment.caches.iter().map(|cache| workspace.join(cache.trim_matches('/')));
        all.extend(caches.filter(|cache| is_plain_folder(cache, workspace)));
    }
    all.sort();
    all.dedup();
    all
}

/// A cache that is a folder of the workspace itself: a link must not make something else writable.
fn is_plain_folder(path: &Path, workspace: &Path) -> bool {
    path.is_dir() && std::fs::canonicalize(path).is_ok_and(|real| real == path && real != workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_exists_and_does_not_lie_in_what_is_hidden_already() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("real");
        for name in ["a/b/c", "a.d", "z"] {
            std::fs::create_dir_all(root.join(name)).expect("made");
        }
        std::os::unix::fs::symlink("z", root.join("link")).expect("linked");
        let paths = ["a/b", "a", "a.d", "a/b/c", "link", "gone"].map(|name| root.join(name)).to_vec();
        let found = outermost(&[paths, vec!["/".into()]].concat());
        assert_eq!(found.paths, ["a", "a.d", "z"].map(|name| root.join(name)));
        assert_eq!(found.listed, [root]);
    }

    #[test]
    fn what_is_not_there_yet_would_be_made_in_the_last_folder_on_its_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("real");
        std::fs::create_dir_all(root.join("home/.config")).expect("made");
        std::os::unix::fs::symlink("home", root.join("me")).expect("linked");
        let paths = ["me/.aws/credentials", "me/.netrc", "me/.config/gh"].map(|name| root.join(name));
        let listed = ["home", "home/.config"].map(|name| root.join(name)).to_vec();
        assert_eq!(outermost(&paths), Hidden { paths: Vec::new(), listed });
    }

    #[test]
    fn a_cache_that_is_a_link_and_a_grant_of_what_is_hidden_are_not_writable() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("real");
        let (workspace, hidden) = (root.join("w"), root.join("hidden"));
        for name in ["w/target", "hidden/in", "shared"] {
            std::fs::create_dir_all(root.join(name)).expect("made");
        }
        std::os::unix::fs::symlink("/etc", workspace.join("out")).expect("linked");
        let text = |path: &str| root.join(path).display().to_string();
        let environment = Environment {
            caches: ["target", "out", "missing", "."].map(str::to_owned).to_vec(),
            writable: vec![text("shared"), text("hidden/in"), "/".to_owned(), text("missing")],
            isolation: Some(Isolation::ReadOnly),
            ..Environment::default()
        };
        assert_eq!(writable(&environment, &workspace, &[hidden]), [root.join("shared"), workspace.join("target")]);
    }
}
