//! A whole history from git and back.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::pairs::Pairs;
use crate::report::{Figure, Scale};
use crate::tools::{Stage, text};

/// Import and export of a generated history beside `git clone --no-local` of it.
pub fn there_and_back(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let commits = scale.pick(10_000, 500);
    let source = stage.folder("source.git")?;
    let git = stage.git(&source);
    git.run(&["init", "--quiet", "--bare"])?;
    let mut import = Command::new("git").arg("fast-import").arg("--quiet").current_dir(&source).stdin(Stdio::piped()).spawn()?;
    import.stdin.take().context("a pipe")?.write_all(generated(commits).as_bytes())?;
    ensure!(import.wait()?.success(), "git fast-import failed");
    git.run(&["repack", "-adq"])?;

    let path = source.display().to_string();
    let clone = |kind: &str, round: usize| {
        let target = stage.folder(kind)?.join(format!("clone{round}")).display().to_string();
        git.timed(&[&["clone", "--quiet", "--bare", "--no-local", &path, &target]])
    };
    let count = scale.pick(5, 2);
    let imports = Pairs::take(
        count,
        |round| {
            let helios = stage.helios(&stage.folder(&format!("imported{round}"))?);
            helios.run(&["init"])?;
            helios.timed(&[&["import", "--from-git", &path]])
        },
        |round| clone("beside-import", round),
    )?;
    let exports = Pairs::take(
        count,
        |round| {
            let target = stage.folder(&format!("exported{round}.git"))?;
            stage.git(&target).run(&["init", "--quiet", "--bare"])?;
            let helios = stage.helios(&stage.folder(&format!("imported{round}"))?);
            let millis = helios.timed(&[&["export", "--to-git", &target.display().to_string()]])?;
            let heads = |tool: &crate::tools::Tool| tool.run(&["rev-parse", "refs/heads/main"]);
            ensure!(heads(&stage.git(&target))? == heads(&git)?, "the exported branch is another one");
            Ok(millis)
        },
        |round| clone("beside-export", round),
    )?;
    Ok(vec![
        imports.figure(&format!("import of {commits} commits"), "git clone --no-local", Some(1.0)),
        exports.figure(&format!("export of {commits} commits, the same ids"), "git clone --no-local", Some(1.0)),
    ])
}

/// A stream for `git fast-import`: one branch, one of two hundred files changed in each commit.
fn generated(commits: usize) -> String {
    let mut stream = String::new();
    for number in 0..commits {
        let (message, content) = (format!("change {number}\n"), text(number % 200, number));
        let time = 1_700_000_000 + number * 60;
        write!(
            stream,
            "commit refs/heads/main\ncommitter Bench <bench@localhost> {time} +0100\ndata {}\n{message}M 100644 inline src/part{}/file{}.py\ndata {}\n{content}\n",
            message.len(),
            number % 7,
            number % 200,
            content.len()
        )
        .expect("writing to a string");
    }
    stream
}
