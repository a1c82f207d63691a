//! `helix task diff`

use clap::Args;
use helix_messages::FileDiff;
use helix_protocol::{ChangeKind, Failure};

use super::Which;
use crate::cli::Context;
use crate::cli::style::Style;

/// Show what a task changed, or what differs between two of its steps
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task diff 3f2a91c0                      from what it began with to its last step
  helix task diff 3f2a91c0 --from 4 --to 7      between two steps
  helix task diff 3f2a91c0 --stat               paths only
  helix task diff 3f2a91c0 --all                what git ignores too
  helix task diff 3f2a91c0 | git apply          the patch, taken into your checkout")]
pub(in crate::cli) struct Diff {
    #[command(flatten)]
    which: Which,
    /// A step's number, id or checkpoint [default: what the task began with]
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// A step's number, id or checkpoint [default: the last step]
    #[arg(long, value_name = "STEP")]
    to: Option<String>,
    /// Paths only
    #[arg(long)]
    stat: bool,
    /// Files that git ignores too, which an export leaves out
    #[arg(long)]
    all: bool,
}

impl Diff {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut query = Vec::new();
        query.extend(self.from.as_deref().map(|step| ("from", step)));
        query.extend(self.to.as_deref().map(|step| ("to", step)));
        if self.all {
            query.push(("all", "true"));
        }
        let files: Vec<FileDiff> = context.client()?.query(&self.which.path("diff"), &query).await?;
        let shown = |file: &&FileDiff| self.all || !file.left_out;
        context.print(&files, |files| {
            let shown: Vec<&FileDiff> = files.iter().filter(shown).collect();
            if self.stat { stat(&shown, context.style) } else { patches(&shown, context.style) }
        })?;
        if let Some(note) = hidden(files.iter().filter(|file| !shown(file)).count()) {
            context.say(&note);
        }
        Ok(())
    }
}

/// What is said of files that are not shown.
fn hidden(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 file that git ignores is not shown; --all shows it".to_owned()),
        several => Some(format!("{several} files that git ignores are not shown; --all shows them")),
    }
}

fn stat(files: &[&FileDiff], style: Style) -> String {
    let mut out = String::new();
    for file in files {
        let mark = match file.change.kind {
            ChangeKind::Added => style.green("A"),
            ChangeKind::Modified => style.yellow("M"),
            ChangeKind::Removed => style.red("D"),
        };
        out.push_str(&format!("{mark} {}\n", file.change.path));
    }
    out
}

fn patches(files: &[&FileDiff], style: Style) -> String {
    let mut out = String::new();
    for file in files {
        if file.patch.is_empty() {
            out.push_str(&format!("{}\n", style.dim(format!("binary file {} differs", file.change.path))));
        }
        for line in file.patch.lines() {
            let painted = match line.as_bytes().first() {
                _ if line.starts_with("+++") || line.starts_with("---") => style.bold(line),
                Some(b'+') => style.green(line),
                Some(b'-') => style.red(line),
                Some(b'@') => style.cyan(line),
                _ => line.to_owned(),
            };
            out.push_str(&painted);
            out.push('\n');
        }
    }
    out
}
