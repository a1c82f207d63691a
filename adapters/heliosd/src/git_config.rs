//! What git's own configuration says of a person and a repository, as far as it holds here too.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Of git's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GitConfig {
    /// `user.name`.
    pub name: Option<String>,
    /// `user.email`.
    pub email: Option<String>,
    /// Where rules lie that hold in every repository: `core.excludesFile`, else where git looks by itself.
    pub excludes: Option<PathBuf>,
}

/// What a file in git's form says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    name: Option<String>,
    email: Option<String>,
    excludes: Option<String>,
}

impl GitConfig {
    /// Reads the person's files, which `variable` finds, and the repository's in `root`; the nearest wins. Files that they include
    /// are not read.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Self {
        let folder = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config"))).map(|config| config.join("git"));
        let files = [
            config.as_ref().map(|config| config.join("config")),
            home.as_ref().map(|home| home.join(".gitconfig")),
            Some(root.join(".git/config")),
        ];
        let mut found = Said::default();
        for text in files.into_iter().flatten().filter_map(|file| fs::read_to_string(file).ok()) {
            let nearer = Said::parse(&text);
            found = Said {
                name: nearer.name.or(found.name),
                email: nearer.email.or(found.email),
                excludes: nearer.excludes.or(found.excludes),
            };
        }
        let excludes = match found.excludes.as_deref().map(|path| (path, path.strip_prefix("~/"))) {
            Some((_, Some(below))) => home.map(|home| home.join(below)),
            Some((path, None)) => Some(PathBuf::from(path)),
            None => config.map(|config| config.join("ignore")),
        };
        Self { name: found.name, email: found.email, excludes }
    }
}

impl Said {
    fn parse(text: &str) -> Self {
        let (mut found, mut section) = (Self::default(), String::new());
        for line in text.lines().map(str::trim) {
            if let Some(heading) = line.strip_prefix('[') {
                section = heading.split(']').next().unwrap_or_default().trim().to_ascii_lowercase();
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.split(['#', ';']).next().unwrap_or_default().trim().trim_matches('"');
                let place = match (section.as_str(), key.trim().to_ascii_lowercase().as_str()) {
                    ("user", "name") => &mut found.name,
                    ("user", "email") => &mut found.email,
                    ("core", "excludesfile") => &mut found.excludes,
                    _ => continue,
                };
                *place = Some(value).filter(|value| !value.is_empty()).map(str::to_owned).or(place.take());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_in_its_section_and_no_other() {
        let said = Said::parse(
            "[core]\n\tname = no\n\texcludesFile = ~/hidden # here\n[user]\n\tname = \"Ada L\"  # she\n\temail=ada@example.org\n\
             [user \"x\"]\nname=no\n[alias]\nemail = no\nexcludesfile = no\n",
        );
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(said, Said { name: of("Ada L"), email: of("ada@example.org"), excludes: of("~/hidden") });
    }

    #[test]
    fn rules_for_every_repository_lie_where_git_has_them() {
        let (home, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = || GitConfig::read(|name| (name == "HOME").then(|| home.path().into()), root.path()).excludes;
        assert_eq!(read(), Some(home.path().join(".config/git/ignore")));
        fs::write(home.path().join(".gitconfig"), "[core]\nexcludesFile = ~/own\n").unwrap();
        assert_eq!(read(), Some(home.path().join("own")));
        fs::create_dir(root.path().join(".git")).unwrap();
        fs::write(root.path().join(".git/config"), "[core]\nexcludesFile = /of/this/repository\n").unwrap();
        assert_eq!(read(), Some("/of/this/repository".into()));
    }
}
