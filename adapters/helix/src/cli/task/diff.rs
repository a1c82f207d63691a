//! `helix task diff`

use std::io::IsTerminal;

use clap::Args;
use helix_messages::FileDiff;
use helix_protocol::{ChangeKind, Failure};

use super::Which;
use crate::cli::Context;
use crate::cli::style::{Style, bytes};

/// Who reads the patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Somebody at a terminal.
    Person,
    /// `git apply`, a pager or a file.
    Program,
}

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
        let reader = if std::io::stdout().is_terminal() { Reader::Person } else { Reader::Program };
        context.print_content(&files, |files| {
            let shown: Vec<&FileDiff> = files.iter().filter(shown).collect();
            if self.stat { stat(&shown, context.style) } else { patches(&shown, context.style, reader) }
        })?;
        if let Some(note) = hidden(files.iter().filter(|file| !shown(file)).count()) {
            context.say(&note);
        }
        let folders = files.iter().filter(|file| shown(file) && file.patch.is_empty()).count();
        if folders > 0 && !self.stat {
            context.say("folders without files are in no patch: git does not know them; --stat names them");
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

/// The patches: whole where a program reads them, and without the bytes of binary files where a person does.
fn patches(files: &[&FileDiff], style: Style, reader: Reader) -> String {
    let mut out = String::new();
    for file in files {
        let (text, binary) = match file.before_bytes().filter(|_| reader == Reader::Person) {
            Some(head) => (head, true),
            None => (file.patch.as_str(), false),
        };
        // A line ends with its line feed: a carriage return before it belongs to the patch.
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n').unwrap_or(line);
            let painted = match line.as_bytes().first() {
                _ if line.starts_with("+++") || line.starts_with("---") || line.starts_with("diff --git ") => style.bold(line),
                Some(b'+') => style.green(line),
                Some(b'-') => style.red(line),
                Some(b'@') => style.cyan(line),
                _ => line.to_owned(),
            };
            out.push_str(&painted);
            out.push('\n');
        }
        if binary {
            out.push_str(&format!(
                "{}\n",
                style.dim(format!("binary file, {} now; a pipe gets its bytes", bytes(file.change.size)))
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use helix_protocol::Change;

    use super::*;

    #[test]
    fn a_person_is_spared_the_bytes_of_binary_files_and_a_pipe_gets_the_patch_as_it_is() {
        let patch = "diff --git a/x b/x\nnew file mode 100755\nGIT binary patch\nliteral 1\nIcmZQz00IC2\n\n".to_owned();
        let text = FileDiff {
            change: Change { path: "y".to_owned(), kind: ChangeKind::Modified, size: 3 },
            patch: "diff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\r\n+b\r\n".to_owned(),
            left_out: false,
        };
        let change = Change { path: "x".to_owned(), kind: ChangeKind::Added, size: 1 };
        let binary = FileDiff { change, patch, left_out: false };
        assert_eq!(patches(&[&binary, &text], Style::Plain, Reader::Program), binary.patch.clone() + &text.patch);
        assert_eq!(
            patches(&[&binary], Style::Plain, Reader::Person),
            "diff --git a/x b/x\nnew file mode 100755\nbinary file, 1 byte now; a pipe gets its bytes\n"
        );
    }
}
