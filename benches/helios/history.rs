//! A whole history from git and back.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::pairs::Pairs;
use crate::report::{Figure, Scale};
use crate::tools::{Stage, text};

/// Import and export of generated histories, a short one and a long one, beside `git clone --no-local` of them. An import ends with
/// the files of the head, and so does the clone beside it; the clone beside an export is bare, as what is exported to.
pub fn there_and_back(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = one(stage, 500, scale.pick(11, 2))?;
    if scale == Scale::Full {
        figures.extend(one(stage, 10_000, 11)?);
    }
    Ok(figures)
}

fn one(stage: &Stage, commits: usize, count: usize) -> Result<Vec<Figure>> {
    let source = stage.folder(&format!("source{commits}.git"))?;
    let git = stage.git(&source);
    git.run(&["init", "--quiet", "--bare"])?;
    let mut import = Command::new("git").arg("fast-import").arg("--quiet").current_dir(&source).stdin(Stdio::piped()).spawn()?;
    import.stdin.take().context("a pipe")?.write_all(generated(commits).as_bytes())?;
    ensure!(import.wait()?.success(), "git fast-import failed");
    git.run(&["repack", "-adq"])?;

    let path = source.display().to_string();
    let clone = |files: &str, round: usize| {
        let target = stage.folder(&format!("clones{files}{commits}"))?.join(format!("clone{round}")).display().to_string();
        git.timed(&[&["clone", "--quiet", "--no-local", files, &path, &target]])
    };
    let imports = Pairs::take(
        count,
        |round| {
            let helios = stage.helios(&stage.folder(&format!("imported{commits}-{round}"))?);
            helios.run(&["init"])?;
            helios.timed(&[&["import", "--from-git", &path]])
        },
        |round| clone("--no-bare", round),
    )?;
    let exports = Pairs::take(
        count,
        |round| {
            let target = stage.folder(&format!("exported{commits}-{round}.git"))?;
            stage.git(&target).run(&["init", "--quiet", "--bare"])?;
            let helios = stage.helios(&stage.folder(&format!("imported{commits}-{round}"))?);
            let millis = helios.timed(&[&["export", "--to-git", &target.display().to_string()]])?;
            let heads = |tool: &crate::tools::Tool| tool.run(&["rev-parse", "refs/heads/main"]);
            ensure!(heads(&stage.git(&target))? == heads(&git)?, "the exported branch is another one");
            Ok(millis)
        },
        |round| clone("--bare", round),
    )?;
    Ok(vec![
        imports.figure(&format!("import of {commits} commits, with the files of the head"), "git clone --no-local", Some(1.0)),
        exports.figure(&format!("export of {commits} commits, the same ids"), "git clone --bare --no-local", Some(1.0)),
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
