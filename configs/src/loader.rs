//! Finding helix.yaml, reading it, overriding it, and judging the result.

use std::fmt;
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure};

use crate::{Config, ProjectFile, environment, model_table, refusal, validate};

/// The configuration and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// As it holds.
    pub config: Config,
    /// In the order in which they were applied; later ones win.
    pub sources: Vec<Source>,
}

impl Loaded {
    /// The file it was read from, if there was one.
    pub fn file(&self) -> Option<&Path> {
        self.sources.iter().find_map(|source| match source {
            Source::File(path) => Some(path.as_path()),
            Source::Defaults | Source::Variable { .. } => None,
        })
    }
}

/// Where a part of the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// What holds where nothing is said.
    Defaults,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
        /// The key it overrides.
        key: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable { name, key } => write!(f, "{name} ({key})"),
        }
    }
}

impl Config {
    /// Loads the configuration: `explicit` (from `--config`), else HELIX_CONFIG, else ./helix.yaml, else
    /// `helix/helix.yaml` in the user's configuration folder, else the defaults; then what the environment overrides.
    /// A file that was named must exist. Refused with `invalid_config`, or `storage_failed` where the file cannot be read.
    pub fn load(explicit: Option<&Path>, env: &impl Fn(&str) -> Option<String>) -> Result<Loaded, Failure> {
        let mut sources = vec![Source::Defaults];
        let mut config = Config::default();
        if let Some((path, text)) = find(explicit, env)? {
            config = refusal::parse(&text, &path.display().to_string())?;
            let is_named = explicit.is_some() || env("HELIX_CONFIG").is_some_and(|path| !path.is_empty());
            if !is_named && path == Path::new(HERE) && !config.tasks.secrets.is_empty() {
                // A repository may have brought it, and must not allow itself anything.
                return Err(Failure::new(Code::InvalidConfig, format!("./{HERE} has tasks.secrets, and nobody named that file"))
                    .hint(format!(
                        "where it is your own, name it with `--config {HERE}` or HELIX_CONFIG, or move it to ~/.config/helix"
                    )));
            }
            sources.push(Source::File(path));
        }
        sources.extend(environment::apply(&mut config, env)?);
        validate::check(&config)?;
        if !config.llm.models_file.as_os_str().is_empty() {
            config.llm.file_models = model_table::read(&config.llm.models_file)?;
            sources.push(Source::File(config.llm.models_file.clone()));
        }
        Ok(Loaded { config, sources })
    }

    /// Reads a whole file's text and judges it, without the environment. `source` names it in a refusal.
    pub fn parse(text: &str, source: &str) -> Result<Config, Failure> {
        let config = refusal::parse(text, source)?;
        validate::check(&config)?;
        Ok(config)
    }

    /// As YAML, every key written out.
    pub fn to_yaml(&self) -> String {
        serde_norway::to_string(self).expect("a configuration is plain data")
    }
}

impl ProjectFile {
    /// The file's name in a repository's root.
    pub const NAME: &str = "helix.project.yaml";

    /// Reads `helix.project.yaml`. Refused with `invalid_config`, naming line and key.
    pub fn parse(text: &str) -> Result<ProjectFile, Failure> {
        let file: ProjectFile = refusal::parse(text, Self::NAME)?;
        validate::check_project(&file)?;
        Ok(file)
    }
}

/// The file that counts and its text.
fn find(explicit: Option<&Path>, env: &impl Fn(&str) -> Option<String>) -> Result<Option<(PathBuf, String)>, Failure> {
    let named = explicit
        .map(|path| (path.to_owned(), "--config"))
        .or_else(|| env("HELIX_CONFIG").filter(|path| !path.is_empty()).map(|path| (PathBuf::from(path), "HELIX_CONFIG")));
    if let Some((path, by)) = named {
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new(Code::InvalidConfig, format!("{by} names {}, which does not exist", path.display()))
                    .hint("correct the path; `helix config show --defaults` prints a file to start from")
            }
            _ => unreadable(&path, &error),
        })?;
        return Ok(Some((path, text)));
    }
    for path in usual_places(env) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(None)
}

/// Why a file that is there is no configuration.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let place = path.display();
    let wrong = |message: String, hint: String| Failure::new(Code::InvalidConfig, message).hint(hint);
    match error.kind() {
        std::io::ErrorKind::InvalidData => wrong(format!("{place} is not text in UTF-8"), "save it as UTF-8".to_owned()),
        std::io::ErrorKind::IsADirectory => {
            wrong(format!("{place} is a folder"), format!("name the file in it, for example {}", path.join("helix.yaml").display()))
        }
        _ => Failure::io(place, error).hint("correct its owner or its mode, or name another file with --config"),
    }
}

/// The file of the present folder that counts where none is named.
const HERE: &str = "helix.yaml";

/// Where a file is looked for that nobody named.
fn usual_places(env: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let folder = env("XDG_CONFIG_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".config")));
    let mut places = vec![PathBuf::from(HERE)];
    places.extend(folder.map(|folder| folder.join("helix/helix.yaml")));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let loaded = Config::load(None, &nothing).expect("defaults are valid");
        assert_eq!(loaded, Loaded { config: Config::default(), sources: vec![Source::Defaults] });
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let failure = Config::load(Some(Path::new("/nowhere/helix.yaml")), &nothing).expect_err("it does not");
        assert_eq!(failure.message, "--config names /nowhere/helix.yaml, which does not exist");
        let env = |name: &str| (name == "HELIX_CONFIG").then(|| "/nowhere/x.yaml".to_owned());
        assert_eq!(
            Config::load(None, &env).expect_err("nor this").message,
            "HELIX_CONFIG names /nowhere/x.yaml, which does not exist"
        );
    }

    #[test]
    fn a_folder_and_bytes_that_are_no_text_are_refused_as_configurations() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("helix.yaml");
        std::fs::write(&file, b"workers: \xff\n").expect("writable");
        for (path, what) in [(folder.path(), "is a folder"), (&file, "is not text in UTF-8")] {
            let failure = Config::load(Some(path), &nothing).expect_err("it is no file of ours");
            assert_eq!((failure.code, failure.message), (Code::InvalidConfig, format!("{} {what}", path.display())));
            assert!(!failure.hint.is_empty());
        }
    }

    #[test]
    fn a_number_that_is_none_is_not_blamed_on_a_variable() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("helix.yaml");
        std::fs::write(&file, "budgets: {daily_usd: .nan}\n").expect("writable");
        let env = |name: &str| (name == "HELIX_DATA").then(|| "/work".to_owned());
        assert_eq!(Config::load(Some(&file), &env).expect_err("no number").message, "budgets.daily_usd is NaN");
    }

    #[test]
    fn the_users_folder_is_read_and_the_environment_wins_over_it() {
        let home = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(home.path().join("helix")).expect("writable");
        let path = home.path().join("helix/helix.yaml");
        std::fs::write(&path, "workers:\n  local: 4\n  slots: 2\n").expect("writable");
        let folder = home.path().display().to_string();
        let env = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some(folder.clone()),
            "HELIX_WORKERS_LOCAL" => Some("7".to_owned()),
            _ => None,
        };
        let loaded = Config::load(None, &env).expect("both are right");
        assert_eq!((loaded.config.workers.local, loaded.config.workers.slots), (7, 2));
        let variable = Source::Variable { name: "HELIX_WORKERS_LOCAL".to_owned(), key: "workers.local".to_owned() };
        assert_eq!(loaded.sources, vec![Source::Defaults, Source::File(path), variable]);
    }

    #[test]
    fn a_project_file_is_read_whole() {
        let text = "setup: npm ci\nlockfiles: [package-lock.json]\ncaches: [node_modules]\nports: 2\nverify: npm test\n";
        let file = ProjectFile::parse(text).expect("it is right");
        assert_eq!(
            file,
            ProjectFile {
                setup: Some("npm ci".to_owned()),
                lockfiles: vec!["package-lock.json".to_owned()],
                caches: vec!["node_modules".to_owned()],
                ports: 2,
                verify: Some("npm test".to_owned()),
                ..ProjectFile::default()
            }
        );
    }

    #[test]
    fn a_project_files_fault_names_line_and_key() {
        let failure = ProjectFile::parse("setup: npm ci\nlockfile: [a]\n").expect_err("lockfile is not a key");
        assert_eq!(failure.message, "helix.project.yaml:2: there is no key lockfile");
        assert_eq!(failure.hint, "did you mean lockfiles?");
    }
}
