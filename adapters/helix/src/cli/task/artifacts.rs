//! `helix task artifacts`

mod folder;

use std::path::{Path, PathBuf};

use clap::Args;
use helix_adapter_http::api::{Artifact, ArtifactList};
use helix_protocol::{Code, Failure};

use self::folder::Folder;
use super::Which;
use crate::cli::Context;
use crate::cli::style::{Style, Table, bytes};
use crate::client::Client;

/// Most refused artifacts that are named.
const SHOWN: usize = 5;

/// List the files that a task keeps as artifacts, or fetch them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task artifacts 3f2a91c0
  helix task artifacts 3f2a91c0 --out results                  every one, below the folder results
  helix task artifacts 3f2a91c0 report.xml --out results       that one

`helix run --artifact GLOB` says which files a command task keeps. What git or helios would take for a
repository's own, and a link that leads out of the folder, is not written, and named.")]
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
        if let Some(out) = &self.out {
            self.fetch(context, &client, &artifacts, out).await?;
        }
        context.print(&artifacts, |artifacts| if self.out.is_some() { String::new() } else { render(artifacts, context.style) })
    }

    /// Writes what may be written, so that one file too many does not keep the others, and says what was not.
    async fn fetch(&self, context: &Context, client: &Client, artifacts: &[Artifact], out: &Path) -> Result<(), Failure> {
        let folder = Folder::open(out)?;
        let mut refused: Vec<String> = Vec::new();
        for artifact in artifacts {
            let content = client.bytes(&self.which.path(&format!("artifacts/{}", artifact.object))).await?;
            match folder.write(&artifact.path, artifact.mode, &content) {
                Err(failure) if failure.code == Code::PathEscapes => {
                    if refused.len() < SHOWN {
                        context.say(&format!("left out: {}", failure.message));
                    }
                    refused.push(failure.message);
                }
                written => {
                    written?;
                    context.say(&format!("wrote {}", out.join(&artifact.path).display()));
                }
            }
        }
        let Some(first) = refused.first() else { return Ok(()) };
        let others = match refused.len() - 1 {
            0 => String::new(),
            more => format!(", and so with {more} more"),
        };
        Err(Failure::new(Code::PathEscapes, format!("{first}{others}; it was left out, and the rest written"))
            .hint("let the task keep it in an archive, and look into that before it is unpacked"))
    }
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
