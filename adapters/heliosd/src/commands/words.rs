//! Revisions and paths that stand behind each other, told apart as git does: revisions first, then paths that are there and
//! patterns of them. What is both, or neither, is refused; a `--` between them says which is which.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use helix_protocol::{Code, Failure};

use crate::context::Context;
use crate::here::Here;
use crate::pathspec::is_pattern;

/// Words that were told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Snapshots, and ranges of them.
    pub revisions: Vec<String>,
    /// Files and folders as they were typed.
    pub paths: Vec<OsString>,
}

/// Tells words apart. `behind` is what stands behind a `--`; where there was one, all words before it are revisions.
pub fn split(context: &Context<'_>, here: &Here, words: &[OsString], behind: &[OsString]) -> Result<Words, Failure> {
    let cwd = &context.caller.cwd;
    let mut told = Words { revisions: Vec::new(), paths: behind.to_vec() };
    for (place, word) in words.iter().enumerate() {
        if context.has_dashes {
            told.revisions.push(text(word)?.to_owned());
            continue;
        }
        match (resolves(here, cwd, word), is_there(here, cwd, word)?) {
            (Ok(()), true) => {
                let message = format!("ambiguous argument '{}': both revision and filename", word.display());
                return Err(Failure::new(Code::InvalidRequest, message).hint(separate()));
            }
            (Ok(()), false) => told.revisions.push(text(word)?.to_owned()),
            (Err(_), is_there) if is_there || is_pattern(word.as_bytes()) => {
                let paths = &words[place..];
                for path in paths {
                    if !is_pattern(path.as_bytes()) && !self::is_there(here, cwd, path)? {
                        return Err(neither(path, resolves(here, cwd, path).err()));
                    }
                }
                told.paths = paths.to_vec();
                break;
            }
            (Err(failure), _) => return Err(neither(word, Some(failure))),
        }
    }
    Ok(told)
}

/// The refusal of a word that is nothing. What its revision lacks is told, since it may be a name that was mistyped.
fn neither(word: &OsStr, failure: Option<Failure>) -> Failure {
    let message = format!("ambiguous argument '{}': unknown revision or path not in the working tree", word.display());
    match failure {
        // A short id for several, a damaged record: it is a revision, and this is what is wrong with it.
        Some(failure) if !matches!(failure.code, Code::NotFound | Code::FileNotFound | Code::InvalidRequest) => failure,
        Some(failure) => Failure::new(Code::NotFound, message).hint(format!("{}\n{}", failure.message, separate())),
        None => Failure::new(Code::NotFound, message).hint(separate()),
    }
}

fn separate() -> String {
    "`--` separates paths from revisions: helios COMMAND [REVISION...] -- [PATH...]".to_owned()
}

/// A word that is to be a revision.
pub fn text(word: &OsStr) -> Result<&str, Failure> {
    word.to_str().ok_or_else(|| {
        Failure::new(Code::InvalidRequest, format!("{} is no revision: it is no text", word.display())).hint(separate())
    })
}

/// Whether a word is a revision, or a range.
pub fn is_revision(here: &Here, cwd: &Path, word: &OsStr) -> bool {
    resolves(here, cwd, word).is_ok()
}

/// Whether a word stands for something in the history: a revision, a range, or what is not to be shown (`^main`).
fn resolves(here: &Here, cwd: &Path, word: &OsStr) -> Result<(), Failure> {
    let revision = text(word)?;
    let side = |side: &str| here.resolve_object(cwd, if side.is_empty() { "HEAD" } else { side }).map(drop);
    match revision.split_once("...").or_else(|| revision.split_once("..")) {
        // The folder above, as in git.
        Some(("", "")) if revision == ".." => Err(Failure::new(Code::NotFound, "it is a folder")),
        Some((one, other)) => side(one).and_then(|()| side(other)),
        None => here.resolve_object(cwd, revision.strip_prefix('^').unwrap_or(revision)).map(drop),
    }
}

/// Whether a file or a folder of the workspace is there under a word.
fn is_there(here: &Here, cwd: &Path, word: &OsStr) -> Result<bool, Failure> {
    if word.is_empty() || fs::symlink_metadata(cwd.join(word)).is_err() {
        return Ok(false);
    }
    here.path(cwd, word).map(|_| true)
}
