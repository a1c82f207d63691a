//! `helix task artifacts`

use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use clap::Args;
use helix_adapter_http::api::{Artifact, ArtifactList};
use helix_protocol::{Code, Failure, FileMode};

use super::Which;
use crate::cli::Context;
use crate::cli::style::{Style, Table, bytes};
use crate::client::Client;

/// List the files that a task keeps as artifacts, or fetch them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task artifacts 3f2a91c0
  helix task artifacts 3f2a91c0 --out results                  every one, below the folder results
  helix task artifacts 3f2a91c0 report.xml --out results       that one

`helix run --artifact GLOB` says which files a command task keeps.")]
pub(in crate::cli) struct Artifacts {
    #[command(flatten)]
    which: Which,
    /// Only these, by their paths in the workspace
    path: Vec<String>,
    /// Write them below this folder, which is made where it is missing; nothing that is there is overwritten
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Artifacts {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let list: ArtifactList = client.get(&self.which.path("artifacts")).await?;
        let known: Vec<&str> = list.artifacts.iter().map(|kept| kept.path.as_str()).collect();
        if let Some(missing) = self.path.iter().find(|path| !known.contains(&path.as_str())) {
            return Err(Failure::new(Code::NotFound, format!("task {} keeps no artifact {missing}", self.which.task))
                .hint("`helix task artifacts TASK` lists them; --artifact of `helix run` says which files are kept"));
        }
        let chosen = |kept: &Artifact| self.path.is_empty() || self.path.contains(&kept.path);
        let artifacts: Vec<Artifact> = list.artifacts.into_iter().filter(chosen).collect();
        if let Some(folder) = &self.out {
            for artifact in &artifacts {
                self.fetch(&client, artifact, folder).await?;
                context.say(&format!("wrote {}", folder.join(&artifact.path).display()));
            }
        }
        context.print(&artifacts, |artifacts| if self.out.is_some() { String::new() } else { render(artifacts, context.style) })
    }

    async fn fetch(&self, client: &Client, artifact: &Artifact, folder: &Path) -> Result<(), Failure> {
        let relative = Path::new(&artifact.path);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Failure::new(Code::PathEscapes, format!("{} does not stay below a folder", artifact.path)));
        }
        let content = client.bytes(&self.which.path(&format!("artifacts/{}", artifact.object))).await?;
        let place = folder.join(relative);
        write(&place, artifact.mode, &content).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::new(Code::InvalidState, format!("{} is there already", place.display())).hint("name another folder")
            }
            _ => Failure::io(place.display(), &error),
        })
    }
}

fn write(place: &Path, mode: FileMode, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt;
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    if mode == FileMode::Symlink {
        return symlink(std::ffi::OsStr::from_bytes(content), place);
    }
    let bits = if mode == FileMode::Executable { 0o777 } else { 0o666 };
    fs::OpenOptions::new().write(true).create_new(true).mode(bits).open(place)?.write_all(content)
}

fn render(artifacts: &[Artifact], style: Style) -> String {
    if artifacts.is_empty() {
        return "no artifacts\n".to_owned();
    }
    let mut table = Table::new(style, &["PATH", "SIZE", "STEP"]);
    for artifact in artifacts {
        table.row([artifact.path.clone(), bytes(artifact.size), artifact.ordinal.to_string()]);
    }
    table.render()
}
