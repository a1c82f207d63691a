//! Sixteen agents that commit at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::report::{Figure, Scale, readable};
use crate::tools::{Stage, Tool, root, text, twins};

const AGENTS: usize = 16;

/// What a crowd did.
struct Crowd {
    failed: usize,
    per_second: f64,
}

/// Each agent writes a file of its own and commits, again and again.
fn crowd(folders: &[PathBuf], commits: usize, commit: &(dyn Fn(&Path, usize) -> Result<bool> + Sync)) -> Result<Crowd> {
    let begin = Instant::now();
    let failed = thread::scope(|scope| {
        let agents: Vec<_> = folders
            .iter()
            .enumerate()
            .map(|(agent, folder)| {
                scope.spawn(move || -> Result<usize> {
                    let mut failed = 0;
                    for round in 0..commits {
                        fs::write(folder.join(format!("solution_{agent}.py")), text(agent, round + 1))?;
                        failed += usize::from(!commit(folder, agent)?);
                    }
                    Ok(failed)
                })
            })
            .collect();
        agents.into_iter().map(|agent| agent.join().map_err(|_| anyhow!("an agent panicked"))?).sum::<Result<usize>>()
    })?;
    let made = folders.len() * commits - failed;
    Ok(Crowd { failed, per_second: made as f64 / begin.elapsed().as_secs_f64() })
}

/// In one folder, and in a folder each; git as worktrees, which is how it can be done there at all. Each crowd once, one after the
/// other.
pub fn side_by_side(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let (helios, git) = twins(stage, "agents", 1_000)?;
    let commits = scale.pick(50, 5);
    let ours = |folder: &Path, agent: usize| committed(&helios.at(folder), agent);
    let theirs = |folder: &Path, agent: usize| -> Result<bool> {
        let git = git.at(folder);
        let file = format!("solution_{agent}.py");
        Ok(git.output(&["add", &file])?.status.success()
            && git.output(&["commit", "--quiet", "--message", "next"])?.status.success())
    };
    let worktrees: Vec<PathBuf> = (0..AGENTS).map(|agent| root(&git).with_file_name(format!("git{agent}"))).collect();
    for (agent, folder) in worktrees.iter().enumerate() {
        git.run(&["worktree", "add", "--quiet", "-b", &format!("agent{agent}"), &folder.display().to_string()])?;
    }
    let workspaces: Vec<PathBuf> = (0..AGENTS).map(|agent| root(&helios).with_file_name(format!("helios{agent}"))).collect();
    for (agent, folder) in workspaces.iter().enumerate() {
        helios.run(&["workspace", "add", &folder.display().to_string(), "-b", &format!("agent{agent}")])?;
    }

    let beside = crowd(&worktrees, commits, &theirs)?;
    let same = crowd(&vec![root(&helios).to_owned(); AGENTS], commits, &ours)?;
    let apart = crowd(&workspaces, commits, &ours)?;
    let one_git = crowd(&vec![root(&git).to_owned(); AGENTS], scale.pick(10, 2), &theirs)?;
    let against = format!(
        "once each, one after the other; git, a worktree each: {} commits/s, {} failed; git, one folder: {} of {} failed",
        readable(beside.per_second),
        beside.failed,
        one_git.failed,
        AGENTS * scale.pick(10, 2)
    );
    let mut figures = Vec::new();
    for (name, done) in [("in one folder", same), ("in a workspace each", apart)] {
        let name = format!("{AGENTS} agents × {commits} commits {name}");
        figures.push(
            Figure::new(&name, done.per_second, "commits/s")
                .against(&against)
                .times(done.per_second / beside.per_second, Some(10.0)),
        );
        figures.push(Figure::new(format!("{name}: failed"), done.failed as f64, "commits").at_most(0.0));
    }
    Ok(figures)
}

/// In one folder the change may be in another agent's commit already; then there is nothing to commit, which is not a failure.
fn committed(helios: &Tool, agent: usize) -> Result<bool> {
    let output = helios.output(&["commit", "-m", &format!("agent {agent}"), "--work", "."])?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    Ok(output.status.success() || String::from_utf8_lossy(&said).contains("nothing to commit"))
}
