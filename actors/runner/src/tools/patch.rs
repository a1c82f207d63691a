//! `apply_patch`: several files changed by one patch, in the form that OpenAI's models were trained on.
//!
//! Every hunk is placed before the first file is written, so a patch that does not fit changes nothing. A hunk must have one
//! place: hunks come in the order of the file, and `@@` lines say which of several places is meant. Lines of context stay as the
//! file has them, whatever their spaces look like in the patch.

mod form;

use std::collections::BTreeMap;

use helix_protocol::{Code, Failure, ToolOutcome};

use self::form::{Change, Hunk, Line, parse};
use super::arguments::PatchArguments;
use super::matching::{Match, indented, nearest, places};
use crate::confine::Confined;

/// Changes the files a patch names.
pub fn apply_patch(confined: &Confined, arguments: &PatchArguments) -> Result<ToolOutcome, Failure> {
    let mut plan = Plan { confined, files: BTreeMap::new(), report: Vec::new() };
    for change in parse(&arguments.patch)? {
        plan.take(change)?;
    }
    for (path, planned) in &plan.files {
        match planned {
            Planned::Content { text, moved_from } => {
                if let Some(from) = moved_from {
                    confined.rename(from, path)?;
                }
                confined.write(path, text.as_bytes())?;
            }
            Planned::Gone => confined.remove(path)?,
            Planned::Moved => {}
        }
    }
    Ok(ToolOutcome::ok(plan.report.join("\n")))
}

/// What is to become of a file.
enum Planned {
    Content { text: String, moved_from: Option<String> },
    Gone,
    Moved,
}

struct Plan<'a> {
    confined: &'a Confined,
    files: BTreeMap<String, Planned>,
    report: Vec<String>,
}

impl Plan<'_> {
    fn take(&mut self, change: Change) -> Result<(), Failure> {
        match change {
            Change::Add { path, lines } => {
                if self.read(&path).is_ok() {
                    return Err(refused(format!("{path} is to be added and is there already"))
                        .hint("change it with `*** Update File:`, or delete it first"));
                }
                self.report.push(format!("made {path}: {} lines", lines.len()));
                let text = lines.iter().map(|line| format!("{line}\n")).collect();
                self.files.insert(path, Planned::Content { text, moved_from: None });
            }
            Change::Delete { path } => {
                self.read(&path)?;
                self.report.push(format!("deleted {path}"));
                self.files.insert(path, Planned::Gone);
            }
            Change::Update { path, move_to, hunks } => self.update(path, move_to, &hunks)?,
        }
        Ok(())
    }

    fn update(&mut self, path: String, move_to: Option<String>, hunks: &[Hunk]) -> Result<(), Failure> {
        let mut file = Text::of(&self.read(&path)?);
        let mut from = 0;
        let mut said = Vec::new();
        for hunk in hunks {
            let (words, next) = file.apply(&path, hunk, from)?;
            said.push(words);
            from = next;
        }
        let text = file.into_text();
        match move_to.filter(|to| *to != path) {
            None => {
                self.report.push(format!("updated {path}: {}", said.join("; ")));
                let moved_from = match self.files.remove(&path) {
                    Some(Planned::Content { moved_from, .. }) => moved_from,
                    _ => None,
                };
                self.files.insert(path, Planned::Content { text, moved_from });
            }
            Some(to) => {
                if self.read(&to).is_ok() {
                    return Err(refused(format!("{path} is to be moved to {to}, which is there already")));
                }
                let changed = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
                self.report.push(format!("moved {path} to {to}{changed}"));
                let made_here = matches!(self.files.get(&path), Some(Planned::Content { moved_from: None, .. }))
                    && self.confined.read(&path).is_err();
                let moved_from = (!made_here).then(|| path.clone());
                self.files.insert(path, Planned::Moved);
                self.files.insert(to, Planned::Content { text, moved_from });
            }
        }
        Ok(())
    }

    /// A file as the patch has left it so far.
    fn read(&self, path: &str) -> Result<String, Failure> {
        match self.files.get(path) {
            Some(Planned::Content { text, .. }) => Ok(text.clone()),
            Some(Planned::Gone | Planned::Moved) => {
                Err(Failure::new(Code::FileNotFound, format!("the patch has moved or deleted {path} before")))
            }
            None => String::from_utf8(self.confined.read(path)?)
                .map_err(|_| Failure::new(Code::FileUnreadable, format!("{path} is not UTF-8 text, so it cannot be patched"))),
        }
    }
}

/// A file by lines, without their breaks.
struct Text {
    lines: Vec<String>,
    line_break: &'static str,
    ends_with_break: bool,
}

impl Text {
    fn of(text: &str) -> Self {
        let breaks = text.matches('\n').count();
        let windows = breaks > 0 && text.matches("\r\n").count() == breaks;
        let line_break = if windows { "\r\n" } else { "\n" };
        let body = text.strip_suffix(line_break);
        let lines = match (text.is_empty(), body.unwrap_or(text)) {
            (true, _) => Vec::new(),
            (false, body) => body.split(line_break).map(str::to_owned).collect(),
        };
        Self { lines, line_break, ends_with_break: body.is_some() || text.is_empty() }
    }

    fn into_text(self) -> String {
        let end = if self.ends_with_break && !self.lines.is_empty() { self.line_break } else { "" };
        self.lines.join(self.line_break) + end
    }

    /// Puts a hunk in at or below line `from` (from 0). Answers with what was done and the first line below it.
    fn apply(&mut self, path: &str, hunk: &Hunk, from: usize) -> Result<(String, usize), Failure> {
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

fn refused(message: String) -> Failure {
    Failure::new(Code::InvalidToolCall, format!("{message}; nothing was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, Confined) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            std::fs::write(folder.path().join(path), content).expect("written");
        }
        let confined = Confined::open(folder.path()).expect("a root");
        (folder, confined)
    }

    fn apply(confined: &Confined, body: &str) -> Result<String, Failure> {
        let patch = format!("*** Begin Patch\n{body}\n*** End Patch");
        apply_patch(confined, &PatchArguments { patch }).map(|outcome| outcome.content)
    }

    #[test]
    fn one_patch_makes_changes_moves_and_deletes_files() {
        let (folder, confined) = workspace(&[("a", "one\ntwo\nthree\n"), ("b", "x\n"), ("c", "gone\n")]);
        let report = apply(
            &confined,
            "*** Update File: a\n@@\n one\n-two\n+TWO\n three\n*** Add File: new/d\n+hello\n+\n*** Update File: b\n*** Move to: e\n@@\n-x\n+y\n*** Delete File: c",
        );
        let expected = "updated a: line 1 matched exactly\nmade new/d: 2 lines\nmoved b to e: line 1 matched exactly\ndeleted c";
        assert_eq!(report.as_deref(), Ok(expected));
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(read("a").as_deref(), Some("one\nTWO\nthree\n"));
        assert_eq!(read("new/d").as_deref(), Some("hello\n\n"));
        assert_eq!((read("b"), read("e").as_deref(), read("c")), (None, Some("y\n"), None));
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing() {
        let (folder, confined) = workspace(&[("a", "one\ntwo\n"), ("b", "x\n")]);
        let failure = apply(&confined, "*** Update File: b\n@@\n-x\n+y\n*** Update File: a\n@@\n-twoo\n+2").expect_err("refused");
        assert_eq!((failure.code, failure.hint.as_str()), (Code::EditNotFound, "the nearest text is at line 2:\n2\ttwo"));
        assert_eq!(std::fs::read_to_string(folder.path().join("b")).expect("read"), "x\n");
        let codes = [
            ("*** Add File: a\n+x", Code::InvalidToolCall),
            ("*** Delete File: z", Code::FileNotFound),
            ("*** Update File: ../z\n@@\n-x\n+y", Code::PathEscapes),
            ("*** Update File: a\n@@\n+x", Code::EditNotFound),
            ("hello", Code::InvalidToolCall),
        ];
        for (body, code) in codes {
            assert_eq!(apply(&confined, body).expect_err(body).code, code, "{body}");
        }
    }

    #[test]
    fn an_anchor_says_which_of_two_places_is_meant_and_without_one_neither_is_changed() {
        let text = "fn a() {\n    go();\n}\nfn b() {\n    go();\n}\n";
        let (folder, confined) = workspace(&[("f", text)]);
        let failure = apply(&confined, "*** Update File: f\n@@\n-    go();\n+    stop();").expect_err("twice");
        assert_eq!(failure.code, Code::EditAmbiguous);
        assert_eq!(failure.message, "a hunk's lines occur 2 times in f, at lines 2, 5; nothing was changed");
        apply(&confined, "*** Update File: f\n@@ fn a() {\n-    go();\n+    stop();").expect("placed");
        let read = || std::fs::read_to_string(folder.path().join("f")).expect("read");
        assert_eq!(read(), text.replacen("go", "stop", 1));
        std::fs::write(folder.path().join("f"), text).expect("written");
        apply(&confined, "*** Update File: f\n@@ fn b() {\n-    go();\n+    stop();").expect("placed");
        assert_eq!(read(), "fn a() {\n    go();\n}\nfn b() {\n    stop();\n}\n");
    }

    #[test]
    fn context_stays_as_the_file_has_it_and_a_last_line_without_a_break_stays_one() {
        let (folder, confined) = workspace(&[("f", "\ta  \n\tb\n\tc")]);
        apply(&confined, "*** Update File: f\n@@\n a\n-b\n+B\n c\n*** End of File").expect("placed");
        assert_eq!(std::fs::read_to_string(folder.path().join("f")).expect("read"), "\ta  \n\tB\n\tc");
    }
}
