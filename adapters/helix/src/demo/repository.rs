//! The git side of the demo: the sample repository, and the branch with the result.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use helix_protocol::{Code, Failure};

use crate::scripted::SAMPLE;

/// Refuses what is no git repository with a commit, before anything is started.
pub fn check(repository: &Path) -> Result<(), Failure> {
    if !repository.is_dir() {
        let message = format!("--repo names {}, which is no folder", repository.display());
        return Err(Failure::new(Code::InvalidRequest, message).hint("name a folder of a git repository on this machine"));
    }
    let refused = |message: String, hint: &str| Failure::new(Code::NotARepository, message).hint(hint);
    if git(repository, &["rev-parse", "--git-dir"]).is_err_and(|failure| failure.code == Code::GitFailed) {
        let message = format!("{} is not in a git repository", repository.display());
        return Err(refused(message, "name one with `--repo`, or run `git init` there and commit once"));
    }
    match git(repository, &["rev-parse", "--verify", "--quiet", "HEAD"]) {
        Err(failure) if failure.code == Code::GitFailed => Err(refused(
            format!("{} has no commit yet", repository.display()),
            "commit once, so that there is something to compare with",
        )),
        other => other.map(drop),
    }
}

/// Writes the sample program into a folder and commits it with git.
pub fn write_sample(folder: &Path) -> Result<PathBuf, Failure> {
    let repository = folder.join("sample");
    for file in SAMPLE {
        let path = repository.join(file.path);
        let parent = path.parent().expect("a file of the sample lies in the repository");
        let mode = if file.executable { 0o755 } else { 0o644 };
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, file.content))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .map_err(|error| Failure::io(path.display(), &error))?;
    }
    git(&repository, &["init", "--quiet", "--initial-branch=main"])?;
    git(&repository, &["add", "--all"])?;
    git(&repository, &["commit", "--quiet", "--message", "numerals and tables, with failing tests"])?;
    Ok(repository)
}

/// Merges `branches` into a new branch of the repository, in a clone of its own, and runs the sample's tests there.
pub fn merge_and_test(repository: &Path, folder: &Path, branches: &[String], result: &str) -> Result<bool, Failure> {
    let clone = folder.join("result");
    let (from, to) = (path_text(repository)?, path_text(&clone)?);
    git(folder, &["clone", "--quiet", from, to])?;
    git(&clone, &["switch", "--quiet", "--create", result])?;
    for branch in branches {
        git(&clone, &["merge", "--quiet", "--no-edit", &format!("origin/{branch}")])?;
    }
    git(&clone, &["push", "--quiet", "origin", result])?;
    let tests = clone.join("run-tests");
    let status = Command::new(&tests).current_dir(&clone).output().map_err(|error| Failure::io(tests.display(), &error))?;
    Ok(status.status.success())
}

/// The log of a branch since another one, with the files of each commit.
pub fn log_stat(repository: &Path, since: &str, branch: &str) -> Result<String, Failure> {
    git(repository, &["--no-pager", "log", "--stat", "--no-merges", "--format=%h %s", &format!("{since}..{branch}")])
}

/// The commit that the repository's head names.
pub fn head(repository: &Path) -> Result<String, Failure> {
    Ok(git(repository, &["rev-parse", "HEAD"])?.trim().to_owned())
}

/// Runs git for a person who may have configured no name.
fn git(folder: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let identity = ["user.name=Helix demo", "user.email=demo@localhost", "commit.gpgsign=false"];
    let mut command = Command::new("git");
    for setting in identity {
        command.args(["-c", setting]);
    }
    let output = command.current_dir(folder).args(arguments).output().map_err(|error| {
        Failure::new(Code::ProgramMissing, format!("git could not be started: {error}")).hint("install git and try again")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Code::GitFailed, format!("git {} failed: {}", arguments.join(" "), reason.trim())))
}

fn path_text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::new(Code::InvalidRequest, format!("{} is not UTF-8", path.display())))
}
