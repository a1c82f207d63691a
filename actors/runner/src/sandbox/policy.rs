//! What a sandbox allows, in full: decided by the worker, carried out inside.

use std::path::{Path, PathBuf};

use helix_protocol::{Confinement, Environment, Isolation};
use serde::{Deserialize, Serialize};

/// Where commands see their workspace, on whatever worker: what remembers paths (a virtual environment, a cache of CMake, an agent's
/// session) is right again after a move. It is seen where it lies as well.
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
}

/// What commands of a worker may not read: credentials in homes, the worker's folder, and what it was told beside them.
pub fn hidden(folder: &Path, told: &[PathBuf]) -> Vec<PathBuf> {
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
    outermost(all)
}

/// Those that exist, by their real paths, without those that lie in others. The whole system is never among them.
fn outermost(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut real: Vec<PathBuf> = paths.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    real.retain(|path| path.parent().is_some());
    real.sort();
    // Sorted by components, what lies in a folder follows it.
    real.dedup_by(|inner, outer| inner.starts_with(&*outer));
    real
}

/// What may be written beside the workspace: what the node grants outside, and the project's caches where the workspace itself is not.
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
        assert_eq!(outermost([paths, vec!["/".into()]].concat()), ["a", "a.d", "z"].map(|name| root.join(name)));
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
