//! Paths that somebody typed. As in git, one stands for a file or for a folder with all beneath it, and one with `*`, `?` or `[`
//! for every file whose whole path fits it too: `*` goes across folders.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobMatcher};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, FileMode, ObjectId};
use helix_versions::{VersionError, entry_at, walk};

use crate::here::Here;
use crate::render::path::is_beneath;

/// A path that was typed, or a pattern.
#[derive(Debug)]
pub struct Pathspec {
    /// As it was typed.
    pub typed: OsString,
    /// From the workspace's root; empty for the root itself.
    pub path: Vec<u8>,
    pattern: Option<GlobMatcher>,
}

impl Pathspec {
    /// What was typed in a folder.
    pub fn read(here: &Here, cwd: &Path, typed: &OsStr) -> Result<Self, Failure> {
        let magic = |text: &str| text.starts_with(":(") || [":/", ":!", ":^"].iter().any(|magic| text.starts_with(magic));
        if typed.to_str().is_some_and(magic) && std::fs::symlink_metadata(cwd.join(typed)).is_err() {
            let message = format!("pathspec '{}': git's words with a colon are not read here", typed.display());
            return Err(Failure::new(Code::InvalidRequest, message).hint("name files and folders, or a pattern such as '*.py'"));
        }
        let path = here.path(cwd, typed)?;
        let special = typed.as_bytes().iter().any(|byte| b"*?[\\".contains(byte));
        let pattern = if special { compile(&path, &here.folder_of(cwd)?) } else { None };
        Ok(Self { typed: typed.to_owned(), path, pattern })
    }

    /// All that were typed.
    pub fn all(here: &Here, cwd: &Path, typed: &[OsString]) -> Result<Vec<Self>, Failure> {
        typed.iter().map(|typed| Self::read(here, cwd, typed)).collect()
    }

    /// A path that may not be a pattern, for `verb`: it follows one file or folder. A file may have such a name all the same.
    pub fn plain(here: &Here, cwd: &Path, typed: &OsStr, verb: &str) -> Result<Vec<u8>, Failure> {
        let Self { path, pattern, .. } = Self::read(here, cwd, typed)?;
        if pattern.is_some() && std::fs::symlink_metadata(cwd.join(typed)).is_err() {
            let message = format!("{verb} takes files and folders, and '{}' is a pattern", typed.display());
            return Err(Failure::new(Code::InvalidRequest, message).hint("`helios ls-files PATTERN` lists the files that fit one"));
        }
        Ok(path)
    }

    /// Whether a file is meant, by its path from the root.
    pub fn matches(&self, path: &[u8]) -> bool {
        let fits = |pattern: &GlobMatcher| pattern.is_match(OsStr::from_bytes(path));
        is_beneath(path, &self.path) || self.pattern.as_ref().is_some_and(fits)
    }

    /// The paths that it stands for in some trees: its own where one of them has it, and the files that fit a pattern.
    pub fn paths_in(&self, store: &dyn ObjectStore, trees: &[ObjectId]) -> Result<Vec<Vec<u8>>, VersionError> {
        let mut found = Vec::new();
        for tree in trees {
            if self.path.is_empty() || entry_at(store, *tree, &self.path)?.is_some() {
                return Ok(vec![self.path.clone()]);
            }
            if self.pattern.is_some() {
                let files = walk(store, *tree)?.into_iter().filter(|entry| entry.mode != FileMode::Directory);
                found.extend(files.map(|file| file.path).filter(|path| self.matches(path)));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Whether git would take a word for a pattern.
pub fn is_pattern(word: &[u8]) -> bool {
    let mut bytes = word.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// What fits a path from the root that is a pattern; nothing where it is none after all. What it has in common with the folder that
/// it was typed in is no pattern.
fn compile(path: &[u8], folder: &[u8]) -> Option<GlobMatcher> {
    let (path, folder) = (std::str::from_utf8(path).ok()?, std::str::from_utf8(folder).ok()?);
    let same = path.split('/').zip(folder.split('/')).take_while(|(one, other)| one == other);
    let literal = same.map(|(part, _)| part.len() + 1).sum::<usize>().min(path.len());
    let mut pattern = String::new();
    for character in path[..literal].chars() {
        pattern.extend((!character.is_alphanumeric() && character != '/').then_some('\\'));
        pattern.push(character);
    }
    for character in path[literal..].chars() {
        match character {
            // Two are one: it goes across folders as it is.
            '*' if pattern.ends_with('*') && !pattern.ends_with("\\*") => {}
            // Alternatives are a word of the shell's.
            '{' | '}' => pattern.extend(['\\', character]),
            _ => pattern.push(character),
        }
    }
    GlobBuilder::new(&pattern).backslash_escape(true).build().as_ref().map(Glob::compile_matcher).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::{compile, is_pattern};

    #[test]
    fn patterns_fit_what_they_fit_in_git() {
        let fits = |pattern: &str, folder: &str, path: &str| {
            compile(pattern.as_bytes(), folder.as_bytes())
                .is_some_and(|matcher| matcher.is_match(OsStr::from_bytes(path.as_bytes())))
        };
        for (pattern, folder, path) in [
            ("*.py", "", "a.py"),
            ("*.py", "", "d/e/a.py"),
            ("d/*", "", "d/e/f"),
            ("**/a", "", "d/e/a"),
            ("d?e", "", "d/e"),
            ("[!x]b", "", "ab"),
            ("a\\*", "", "a*"),
            ("{a,b}*", "", "{a,b}c"),
            ("d[1]/*.py", "d[1]", "d[1]/a.py"),
        ] {
            assert!(fits(pattern, folder, path), "{pattern} in {folder:?} fits {path}");
        }
        for (pattern, folder, path) in [
            ("*.py", "", "a.pyc"),
            ("d/*.py", "d", "a.py"),
            ("**/a", "", "a"),
            ("a\\*", "", "ab"),
            ("{a,b}*", "", "ac"),
            ("d[1]/*.py", "d[1]", "d1/a.py"),
            ("[", "", "["),
        ] {
            assert!(!fits(pattern, folder, path), "{pattern} in {folder:?} does not fit {path}");
        }
    }

    #[test]
    fn a_word_is_a_pattern_where_git_takes_it_for_one() {
        assert!([&b"*.py"[..], b"a?", b"[ab]"].iter().all(|word| is_pattern(word)));
        assert!([&b"a.py"[..], b"a\\*", b"{a,b}", b""].iter().all(|word| !is_pattern(word)));
    }
}
