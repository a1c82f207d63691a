//! A file that is patched, by lines, and where a hunk stands in it.

use helix_protocol::{Code, Failure};

use super::form::{Hunk, Line};
use crate::tools::matching::{Match, indented, line_break, nearest, places};

/// A file by lines, without their breaks.
pub struct Text {
    lines: Vec<String>,
    line_break: &'static str,
    ends_with_break: bool,
}

impl Text {
    /// From a file's content.
    pub fn of(text: &str) -> Self {
        let line_break = line_break(text);
        let body = text.strip_suffix(line_break);
        let lines = match (text.is_empty(), body.unwrap_or(text)) {
            (true, _) => Vec::new(),
            (false, body) => body.split(line_break).map(str::to_owned).collect(),
        };
        Self { lines, line_break, ends_with_break: body.is_some() || text.is_empty() }
    }

    /// As the content of a file.
    pub fn into_text(self) -> String {
        let end = if self.ends_with_break && !self.lines.is_empty() { self.line_break } else { "" };
        self.lines.join(self.line_break) + end
    }

    /// Puts a hunk in at or below line `from` (from 0). Answers with what was done and the first line below it.
    pub fn apply(&mut self, path: &str, hunk: &Hunk, from: usize) -> Result<(String, usize), Failure> {
        let old = hunk.old();
        let (at, by) = self.place(path, hunk, &old, from)?;
        let found = self.lines[at..at + old.len()].to_vec();
        let (was, added): (Vec<&str>, Vec<&str>) = (found.iter().map(String::as_str).collect(), hunk.added());
        let added = match by {
            Match::Indentation => indented(&added, &old, &was).ok_or_else(|| {
                let message = format!("a hunk stands in {path} with another indentation; nothing was changed");
                Failure::new(Code::EditNotFound, message).hint(nearest(&self.lines.join("\n"), &old.join("\n")))
            })?,
            _ => added.into_iter().map(str::to_owned).collect(),
        };
        let (mut found, mut added) = (found.into_iter(), added.into_iter());
        let mut new = Vec::new();
        for line in &hunk.lines {
            match line {
                Line::Stays(_) => new.extend(found.next()),
                Line::Goes(_) => drop(found.next()),
                Line::Comes(_) => new.extend(added.next()),
            }
        }
        let next = at + new.len();
        let words = format!("line {} {}", at + 1, by.words());
        self.lines.splice(at..at + old.len(), new);
        Ok((words, next))
    }

    fn place(&self, path: &str, hunk: &Hunk, old: &[&str], from: usize) -> Result<(usize, Match), Failure> {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        if old.is_empty() {
            return self.insertion(path, hunk, &lines, from).map(|at| (at, Match::Exact));
        }
        for by in Match::ALL {
            let mut found: Vec<usize> = places(&lines[from..], old, by).into_iter().map(|at| at + from).collect();
            if hunk.at_end {
                found.retain(|at| at + old.len() == lines.len());
            }
            match found.as_slice() {
                [] => {}
                [at] => return Ok((*at, by)),
                several => return self.meant(path, hunk, &lines, from, several).map(|at| (at, by)),
            }
        }
        let above = Match::ALL.into_iter().find_map(|by| places(&lines[..from], old, by).first().copied());
        let failure = Failure::new(Code::EditNotFound, format!("a hunk's lines are not in {path}; nothing was changed"));
        Err(match above {
            Some(at) => {
                failure.hint(format!("they stand at line {}, above the hunk before; give hunks in the file's order", at + 1))
            }
            None => failure.hint(nearest(&lines.join("\n"), &old.join("\n"))),
        })
    }

    /// Which of several places the `@@` lines mean.
    fn meant(&self, path: &str, hunk: &Hunk, lines: &[&str], from: usize, found: &[usize]) -> Result<usize, Failure> {
        let shown: Vec<String> = found.iter().take(20).map(|at| (at + 1).to_string()).collect();
        let ambiguous = Failure::new(
            Code::EditAmbiguous,
            format!("a hunk's lines occur {} times in {path}, at lines {}; nothing was changed", found.len(), shown.join(", ")),
        )
        .hint("give more lines of context, or a line above that is not repeated after `@@`");
        let Some(anchor) = anchored(lines, &hunk.anchors, from) else { return Err(ambiguous) };
        let end = scope(lines, anchor);
        match found.iter().filter(|at| **at > anchor && **at < end).collect::<Vec<_>>().as_slice() {
            [at] => Ok(**at),
            _ => Err(ambiguous),
        }
    }

    /// Where lines are put in that have none around them: below the `@@` line, at the end where the hunk says so.
    fn insertion(&self, path: &str, hunk: &Hunk, lines: &[&str], from: usize) -> Result<usize, Failure> {
        if lines.is_empty() || (hunk.at_end && hunk.anchors.is_empty()) {
            return Ok(lines.len());
        }
        anchored(lines, &hunk.anchors, from).map(|anchor| anchor + 1).ok_or_else(|| {
            Failure::new(
                Code::EditNotFound,
                format!("a hunk for {path} only adds lines and does not say where; nothing was changed"),
            )
            .hint("give unchanged lines around them, a `@@` line that occurs once, or `*** End of File` below them")
        })
    }
}

/// The line that the last of the `@@` lines names, each looked for below the one before; `None` where one of them is missing
/// or is there several times.
fn anchored(lines: &[&str], anchors: &[String], from: usize) -> Option<usize> {
    let mut at = None;
    for anchor in anchors {
        let below = at.map_or(from, |at| at + 1);
        let found =
            Match::ALL.into_iter().map(|by| places(&lines[below..], &[anchor.as_str()], by)).find(|found| !found.is_empty())?;
        let [only] = found.as_slice() else { return None };
        at = Some(below + only);
    }
    at
}

/// The first line below `anchor` that is indented no deeper and begins something else.
fn scope(lines: &[&str], anchor: usize) -> usize {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &&str| {
        let first = line.trim_start().chars().next();
        first.is_some_and(|first| !")]}".contains(first)) && depth(line) <= depth(lines[anchor])
    };
    lines[anchor + 1..].iter().position(begins).map_or(lines.len(), |below| anchor + 1 + below)
}
