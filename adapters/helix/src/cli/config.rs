//! `helix config`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use helix_config::{Config, DEFAULTS, ProjectFile, nearest_variable, unread};
use helix_protocol::{Code, Failure};
use serde_json::json;

use super::Context;
use super::context::{names_of_variables, out};

/// Judge or show the configuration
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Judge a configuration: line, key and the nearest known key of whatever is wrong
    #[command(after_help = "\
Examples:
  helix config check
  helix config check ./helix.yaml
  helix config check helix.project.yaml         a project's file, by its name")]
    Check {
        /// The file [default: the one that would be loaded]
        file: Option<PathBuf>,
    },
    /// Show what holds, and where it comes from
    #[command(after_help = "\
Examples:
  helix config show
  helix config show --defaults > helix.yaml      a commented file to start from")]
    Show {
        /// The commented defaults instead
        #[arg(long)]
        defaults: bool,
    },
}

impl ConfigCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Check { file } => {
                if let Some(file) = file.as_deref().filter(|file| file.file_name().is_some_and(|name| name == ProjectFile::NAME)) {
                    return check_project(context, file);
                }
                let loaded = match file {
                    Some(file) => Config::load(Some(&file), &|name| std::env::var(name).ok())?,
                    None => context.load()?,
                };
                let sources: Vec<String> = loaded.sources.iter().map(ToString::to_string).collect();
                let unread = unread(&loaded.config, names_of_variables());
                for name in &unread {
                    let meant =
                        nearest_variable(&loaded.config, name).map_or_else(String::new, |known| format!("; did you mean {known}?"));
                    context.say(&format!("{name} is set, and nothing reads it{meant}"));
                }
                let answer = json!({ "valid": true, "sources": sources, "unread": unread });
                context.print(&answer, |_| format!("valid: {}", sources.join(" < ")))
            }
            Self::Show { defaults: true } => out(DEFAULTS),
            Self::Show { defaults: false } => {
                let mut loaded = context.load()?;
                loaded.config.database.url = without_password(&loaded.config.database.url);
                let sources: Vec<String> = loaded.sources.iter().map(ToString::to_string).collect();
                context.print(&json!({ "config": loaded.config, "sources": sources }), |_| {
                    let header: String = sources.iter().map(|source| format!("# {source}\n")).collect();
                    format!("# Later ones win:\n{header}{}", loaded.config.to_yaml())
                })
            }
        }
    }
}

/// Judges a project's file as an import does.
fn check_project(context: &Context, path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Code::InvalidConfig, format!("{}: {error}", path.display()))
            .hint("name a file that is there and is text in UTF-8; docs/configuration.md describes helix.project.yaml")
    })?;
    ProjectFile::parse(&text)?;
    let source = path.display().to_string();
    let answer = json!({ "valid": true, "sources": [source], "unread": [] });
    context.print(&answer, |_| format!("valid: {source}, read from the repository's root by `helix run --repo`"))
}

/// An address as it may be shown.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            format!("{scheme}://{}{host}", user.split_once(':').map_or(format!("{user}@"), |(name, _)| format!("{name}:***@")))
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("postgres://me:p@ss@db/helix"), "postgres://me:***@db/helix");
        assert_eq!(without_password("postgres://me@db/helix"), "postgres://me@db/helix");
        assert_eq!(without_password("sqlite:/x"), "sqlite:/x");
    }
}
