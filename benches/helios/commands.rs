//! Single commands, end to end: from the start of the process to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::least::{LEAST, client_of_nobody};
use crate::pairs::Pairs;
use crate::report::{Figure, Scale};
use crate::tools::{Stage, Tool, changing, root, text, twins, write_files};

/// What a figure says that is held against the file system and no other tool.
pub const BARE: &str = "beside the bare file system";

/// What a figure says that is held against the claim of the document that Helios is built from.
const SEED: &str = "git, a hundred times slower";

/// Commits with one file changed, the engine running, at several sizes; then with the engine not running.
pub fn commit(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for files in scale.pick(vec![100, 1_000, 10_000, 100_000], vec![100, 1_000]) {
        let (helios, git) = twins(stage, &format!("commit{files}"), files)?;
        let count = scale.pick(40, 6);
        let warm = Pairs::take(count, |round| commit_ours(&helios, round + 1), |round| commit_theirs(&git, round + 1))?;
        let goal = (files <= 10_000).then_some(10.0);
        figures.push(warm.figure(
            &format!("commit, one file of {files} changed, engine running"),
            "git add --all && git commit",
            goal,
        ));
        if files == 10_000 {
            figures.push(warm.figure("commit, one file of 10000 changed, beside what the seed claims", SEED, Some(100.0)));
        }

        let stopped = |round: usize| {
            helios.stop_engine()?;
            commit_ours(&helios, count + round + 1)
        };
        let cold = Pairs::take(scale.pick(40, 3), stopped, |round| commit_theirs(&git, count + round + 1))?;
        let name = format!("commit, one file of {files} changed, engine not running");
        let goal = (files >= 1_000).then_some(1.0);
        let figure = cold.figure(&name, "git add --all && git commit", goal);
        figures.push(figure);
        if files < 1_000 {
            figures.push(Figure::new(format!("{name}: slowest"), cold.slowest(), "ms").at_most(100.0));
        }
        fs::remove_dir_all(root(&helios))?;
        fs::remove_dir_all(root(&git))?;
    }
    Ok(figures)
}

fn commit_ours(helios: &Tool, version: usize) -> Result<f64> {
    fs::write(changing(root(helios)), text(42, version))?;
    helios.timed(&[&["commit", "-m", "next", "--work", "."]])
}

fn commit_theirs(git: &Tool, version: usize) -> Result<f64> {
    fs::write(changing(root(git)), text(42, version))?;
    git.timed(&[&["add", "--all"], &["commit", "--quiet", "--message", "next"]])
}

/// Looking for changes where there are none.
pub fn status(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for files in scale.pick(vec![1_000, 10_000, 100_000], vec![1_000]) {
        let (helios, git) = twins(stage, &format!("status{files}"), files)?;
        let look: &[&[&str]] = &[&["status", "--porcelain"]];
        // Git writes what it learned of files that are older than its index only at the second look.
        git.run(look[0])?;
        let pairs = Pairs::take(scale.pick(40, 6), |_| helios.timed(look), |_| git.timed(look))?;
        figures.push(pairs.figure(&format!("status without a change, {files} files"), "git status", Some(10.0)));
    }
    Ok(figures)
}

/// Branches, steps back, other versions, and further working folders.
pub fn moves(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let count = scale.pick(40, 6);
    let (helios, git) = twins(stage, "moves", 1_000)?;
    let mut figures = heads(&helios, &git, 1_000, count)?;
    let nobody = client_of_nobody(stage)?;
    let least = Pairs::take(
        count,
        |round| helios.timed(&[&["branch", &format!("c{round}")]]),
        |round| nobody.timed(&[&["branch", &format!("c{round}")]]),
    )?;
    figures.push(least.figure(&format!("branch, 1000 files, {LEAST}"), "the same client, answered by nobody", None));
    if scale == Scale::Full {
        let (helios, git) = twins(stage, "moves10000", 10_000)?;
        figures.extend(heads(&helios, &git, 10_000, count)?);
    }
    figures.extend(checkouts(stage, &helios, &git, count)?);
    figures.extend(further_folders(stage, &helios, &git, scale)?);
    Ok(figures)
}

/// What moves a head: branches, and steps back.
fn heads(helios: &Tool, git: &Tool, files: usize, count: usize) -> Result<Vec<Figure>> {
    let branch = Pairs::take(
        count,
        |round| helios.timed(&[&["branch", &format!("b{round}")]]),
        |round| git.timed(&[&["branch", &format!("b{round}")]]),
    )?;
    for version in 1..=count + 1 {
        commit_ours(helios, version)?;
        commit_theirs(git, version)?;
    }
    let back: &[&[&str]] = &[&["reset", "--hard", "HEAD~1"]];
    let pairs = Pairs::take(count, |_| helios.timed(back), |_| git.timed(back))?;
    Ok(vec![
        branch.figure(&format!("branch, {files} files"), "git branch", Some(10.0)),
        pairs.figure(&format!("reset --hard HEAD~1, one file of {files} differs"), "git reset", Some(10.0)),
    ])
}

/// From one version to the other and back, where fifty files differ.
fn checkouts(stage: &Stage, helios: &Tool, git: &Tool, count: usize) -> Result<Vec<Figure>> {
    for tool in [helios, git] {
        for number in 0..50 {
            fs::write(root(tool).join(format!("src/part000/file{number:05}.py")), text(number, 9_000))?;
        }
    }
    helios.run(&["checkout", "-b", "other"])?;
    helios.run(&["commit", "-m", "other", "--work", "."])?;
    git.run(&["checkout", "--quiet", "-b", "other"])?;
    git.run(&["commit", "--quiet", "--all", "--message", "other"])?;
    let there = |round: usize| if round.is_multiple_of(2) { "main" } else { "other" };
    let pairs = Pairs::take(
        count,
        |round| helios.timed(&[&["checkout", there(round)]]),
        |round| git.timed(&[&["checkout", "--quiet", there(round)]]),
    )?;
    let name = "checkout of a version, 50 files of 1,000 differ";
    let beside_git = pairs.figure(name, "git checkout", Some(10.0));
    // What the file system takes for it, in a folder of its own.
    let bare = stage.folder("moves-bare")?;
    write_files(&bare, 1_000)?;
    let versions: [Vec<(PathBuf, String)>; 2] = [0, 9_000].map(|version| {
        (0..50).map(|number| (PathBuf::from(format!("src/part000/file{number:05}.py")), text(number, version))).collect()
    });
    let pairs = Pairs::take(
        count,
        |round| helios.timed(&[&["checkout", there(round)]]),
        |round| replace(&bare, &versions[(round + 1) % 2]),
    )?;
    let beside_nothing = pairs.figure(&format!("{name}, {BARE}"), "the 50 files removed and written in a loop", None);
    Ok(vec![beside_git, beside_nothing])
}

/// Further working folders of one repository.
fn further_folders(stage: &Stage, helios: &Tool, git: &Tool, scale: Scale) -> Result<Vec<Figure>> {
    let (ours, theirs) = (stage.folder("ours")?, stage.folder("theirs")?);
    let pairs = Pairs::take(
        scale.pick(40, 4),
        |round| helios.timed(&[&["workspace", "add", &ours.join(format!("w{round}")).display().to_string()]]),
        |round| git.timed(&[&["worktree", "add", "--quiet", "--detach", &theirs.join(format!("w{round}")).display().to_string()]]),
    )?;
    let name = "a further working folder of 1,000 files";
    let beside_git = pairs.figure(name, "git worktree add", Some(10.0));
    let all: Vec<(PathBuf, String)> = (0..1_000)
        .map(|number| (PathBuf::from(format!("src/part{:03}/file{number:05}.py", number / 100)), text(number, 0)))
        .collect();
    let pairs = Pairs::take(
        scale.pick(40, 4),
        |round| helios.timed(&[&["workspace", "add", &ours.join(format!("v{round}")).display().to_string()]]),
        |round| write_anew(&theirs.join(format!("v{round}")), &all),
    )?;
    let beside_nothing = pairs.figure(&format!("{name}, {BARE}"), "the 1,000 files written in a loop", None);
    Ok(vec![beside_git, beside_nothing])
}

/// Milliseconds that it takes to have other files under the same names, as git does it: each is removed and made.
fn replace(root: &Path, files: &[(PathBuf, String)]) -> Result<f64> {
    let begin = Instant::now();
    for (path, content) in files {
        let path = root.join(path);
        fs::remove_file(&path)?;
        fs::write(path, content)?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds that it takes to write files and the folders they are in.
fn write_anew(root: &Path, files: &[(PathBuf, String)]) -> Result<f64> {
    let begin = Instant::now();
    let mut folder = PathBuf::new();
    for (path, content) in files {
        let path = root.join(path);
        let parent = path.parent().unwrap_or(root);
        if parent != folder {
            folder = parent.to_owned();
            fs::create_dir_all(&folder)?;
        }
        fs::write(path, content)?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
