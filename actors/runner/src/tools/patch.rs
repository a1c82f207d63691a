//! `apply_patch`: several files changed by one patch, in the form that OpenAI's models were trained on.
//!
//! Every change is placed before the first file is written, on the files as the changes above it leave them, so a patch that does
//! not fit changes nothing. A hunk must have one place: hunks come in the order of the file, and `@@` lines say which of several
//! places is meant. Lines of context stay as the file has them, whatever their spaces look like in the patch.

pub(crate) mod form;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use helix_protocol::{Code, Failure, ToolOutcome};
use rustix::fs::FileType;

use self::form::{Change, Hunk, parse};
use self::text::Text;
use super::arguments::PatchArguments;
use crate::confine::{Confined, beneath};

/// Changes the files a patch names.
pub fn apply_patch(confined: &Confined, arguments: &PatchArguments) -> Result<ToolOutcome, Failure> {
    let mut plan = Plan { confined, files: BTreeMap::new(), actions: Vec::new(), report: Vec::new() };
    for change in parse(&arguments.patch)? {
        plan.take(change)?;
    }
    for action in &plan.actions {
        match action {
            Action::Write { place, text } => drop(confined.write(place, text.as_bytes())?),
            Action::Move { from, to } => confined.rename(from, to)?,
            Action::Remove { place } => confined.remove(place)?,
        }
    }
    Ok(ToolOutcome::ok(plan.report.join("\n")))
}

/// What is done to one file, in the order of the patch.
enum Action {
    Write { place: String, text: String },
    Move { from: String, to: String },
    Remove { place: String },
}

struct Plan<'a> {
    confined: &'a Confined,
    /// By their places, the files that the patch has touched so far: their text, or `None` where they are gone.
    files: BTreeMap<String, Option<String>>,
    actions: Vec<Action>,
    report: Vec<String>,
}

impl Plan<'_> {
    fn take(&mut self, change: Change) -> Result<(), Failure> {
        match change {
            Change::Add { path, lines } => {
                let place = self.place(&path)?;
                if self.is_there(&place)? {
                    return Err(refused(format!("{path} is to be added and is there already"))
                        .hint("change it with `*** Update File:`, or delete it first"));
                }
                self.check_room(&path, &place)?;
                self.report.push(format!("made {path}: {} lines", lines.len()));
                self.write(place, lines.iter().map(|line| format!("{line}\n")).collect());
            }
            Change::Delete { path } => {
                let place = self.entry(&path)?;
                // Nobody has to read what goes.
                if !matches!(self.on_disk(&place)?, Some(FileType::RegularFile | FileType::Symlink)) {
                    self.read(&path, &place)?;
                }
                self.report.push(format!("deleted {path}"));
                self.files.insert(place.clone(), None);
                self.actions.push(Action::Remove { place });
            }
            Change::Update { path, move_to, hunks } => self.update(&path, move_to.as_deref(), &hunks)?,
        }
        Ok(())
    }

    fn update(&mut self, path: &str, move_to: Option<&str>, hunks: &[Hunk]) -> Result<(), Failure> {
        let place = self.place(path)?;
        let mut file = Text::of(&self.read(path, &place)?);
        let mut from = 0;
        let mut said = Vec::new();
        for hunk in hunks {
            let (words, next) = file.apply(path, hunk, from)?;
            said.push(words);
            from = next;
        }
        let text = file.into_text();
        let target = match move_to {
            Some(to) => Some((to, self.place(to)?)),
            None => None,
        };
        match target.filter(|(_, target)| *target != place) {
            None => {
                self.report.push(format!("updated {path}: {}", said.join("; ")));
                self.write(place, text);
            }
            Some((to, target)) => {
                if self.entry(path)? != place {
                    return Err(refused(format!("{path} is to be moved and is a symbolic link"))
                        .hint(format!("move {place}, which it leads to")));
                }
                if self.is_there(&target)? {
                    return Err(refused(format!("{path} is to be moved to {to}, which is there already"))
                        .hint("name another place, or delete that file first"));
                }
                self.check_room(to, &target)?;
                let changed = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
                self.report.push(format!("moved {path} to {to}{changed}"));
                self.files.insert(place.clone(), None);
                self.actions.push(Action::Move { from: place, to: target.clone() });
                self.write(target, text);
            }
        }
        Ok(())
    }

    fn write(&mut self, place: String, text: String) {
        self.files.insert(place.clone(), Some(text.clone()));
        self.actions.push(Action::Write { place, text });
    }

    /// Where the file is that a path leads to: two paths to one file have one place.
    fn place(&self, path: &str) -> Result<String, Failure> {
        let entry = self.entry(path)?;
        if self.on_disk(&entry)? == Some(FileType::Symlink) { self.confined.place(&entry) } else { Ok(entry) }
    }

    /// The same for the link itself, where a path ends at one.
    fn entry(&self, path: &str) -> Result<String, Failure> {
        let relative = beneath(path)?;
        let name = relative.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        let folder = match relative.parent().and_then(Path::to_str).filter(|folder| !folder.is_empty()) {
            Some(folder) => self.confined.place(folder)?,
            None => String::new(),
        };
        Ok(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
    }

    /// What is at a place that the patch has left alone so far.
    fn on_disk(&self, place: &str) -> Result<Option<FileType>, Failure> {
        if self.files.contains_key(place) { Ok(None) } else { self.confined.kind(place) }
    }

    fn is_there(&self, place: &str) -> Result<bool, Failure> {
        Ok(matches!(self.files.get(place), Some(Some(_))) || self.on_disk(place)?.is_some())
    }

    /// Refuses a new file where the patch needs a folder, or one that a file would have to hold.
    fn check_room(&self, path: &str, place: &str) -> Result<(), Failure> {
        let place = Path::new(place);
        if self.files.keys().map(Path::new).any(|other| other != place && other.starts_with(place)) {
            return Err(refused(format!("{path} is to be made and is a folder")));
        }
        let above = place.ancestors().skip(1).filter_map(Path::to_str).filter(|above| !above.is_empty());
        for above in above {
            let is_file = matches!(self.files.get(above), Some(Some(_)));
            if is_file || self.on_disk(above)?.is_some_and(|kind| kind != FileType::Directory) {
                return Err(refused(format!("{path} is to be made, and {above} is no folder")));
            }
        }
        Ok(())
    }

    /// A file as the patch has left it so far.
    fn read(&self, path: &str, place: &str) -> Result<String, Failure> {
        match self.files.get(place) {
            Some(Some(text)) => Ok(text.clone()),
            Some(None) => Err(Failure::new(Code::FileNotFound, format!("the patch has moved or deleted {path} before"))),
            None => String::from_utf8(self.confined.read(place)?)
                .map_err(|_| Failure::new(Code::FileUnreadable, format!("{path} is not UTF-8 text, so it cannot be patched"))),
        }
    }
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

    /// Every file of a workspace.
    fn files(folder: &tempfile::TempDir) -> Vec<(String, String)> {
        let walk = ignore::WalkBuilder::new(folder.path()).hidden(false).sort_by_file_path(Ord::cmp).build();
        let files = walk.flatten().filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()));
        let relative = |path: &Path| path.strip_prefix(folder.path()).expect("beneath").display().to_string();
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("read")).into_owned();
        files.map(|entry| (relative(entry.path()), read(entry.path()))).collect()
    }

    fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn changes_follow_each_other_in_the_order_of_the_patch() {
        let moved = "*** Update File: config.py\n*** Move to: settings.py\n@@\n-old\n+new\n";
        let cases: [(&str, &[(&str, &str)]); 6] = [
            (
                &format!("{moved}*** Add File: config.py\n+again"),
                &[("config.py", "again\n"), ("settings.py", "new\n"), ("z", "z\n")],
            ),
            (
                "*** Update File: config.py\n*** Move to: t\n*** Update File: z\n*** Move to: config.py\n*** Update File: t\n*** Move to: z",
                &[("config.py", "z\n"), ("z", "old\n")],
            ),
            ("*** Add File: a/b\n+b\n*** Delete File: a/b", &[("config.py", "old\n"), ("z", "z\n")]),
            ("*** Delete File: z\n*** Add File: z/y\n+y", &[("config.py", "old\n"), ("z/y", "y\n")]),
            ("*** Update File: ./z\n@@\n z\n+1\n*** Update File: z\n@@\n 1\n+2", &[("config.py", "old\n"), ("z", "z\n1\n2\n")]),
            (
                "*** Update File: z\n*** Move to: a//z\n*** Update File: a/./z\n@@\n-z\n+y",
                &[("a/z", "y\n"), ("config.py", "old\n")],
            ),
        ];
        for (body, expected) in cases {
            let (folder, confined) = workspace(&[("config.py", "old\n"), ("z", "z\n")]);
            apply(&confined, body).expect(body);
            assert_eq!(files(&folder), owned(expected), "{body}");
        }
    }

    #[test]
    fn what_is_there_is_not_replaced_unread() {
        let large = usize::try_from(crate::confine::LARGEST_READ).expect("small") + 1;
        for there in [&b"\x89PNG"[..], &vec![b'x'; large]] {
            let (folder, confined) = workspace(&[("a", "a\n")]);
            std::fs::write(folder.path().join("data"), there).expect("written");
            std::fs::create_dir(folder.path().join("folder")).expect("made");
            for body in [
                "*** Add File: z\n+z\n*** Add File: data\n+x",
                "*** Add File: z\n+z\n*** Add File: ./folder\n+x",
                "*** Add File: z\n+z\n*** Add File: data/x\n+x",
                "*** Add File: z\n+z\n*** Add File: z/x\n+x",
                "*** Add File: z/z\n+z\n*** Add File: z\n+x",
                "*** Add File: z\n+z\n*** Update File: a\n*** Move to: data",
                "*** Add File: z\n+z\n*** Update File: a\n*** Move to: a/b",
            ] {
                assert_eq!(apply(&confined, body).expect_err(body).code, Code::InvalidToolCall, "{body}");
                assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 3, "{body}");
            }
            assert_eq!(apply(&confined, "*** Delete File: folder").expect_err("a folder").code, Code::FileUnreadable);
            apply(&confined, "*** Delete File: data\n*** Add File: data\n+x").expect("it is deleted first");
            assert_eq!(files(&folder), owned(&[("a", "a\n"), ("data", "x\n")]));
        }
    }

    #[test]
    fn a_file_is_one_file_through_whatever_link_it_is_named() {
        use std::os::unix::fs::symlink;
        let (folder, confined) = workspace(&[("f", "1\n")]);
        symlink(".", folder.path().join("here")).expect("linked");
        symlink("f", folder.path().join("link")).expect("linked");
        apply(&confined, "*** Update File: here/f\n@@\n 1\n+2\n*** Update File: link\n@@\n 2\n+3\n*** Update File: f\n@@\n 3\n+4")
            .expect("placed");
        assert_eq!(std::fs::read_to_string(folder.path().join("f")).expect("read"), "1\n2\n3\n4\n");
        let failure = apply(&confined, "*** Add File: new\n+a\n*** Add File: here/new\n+b").expect_err("twice");
        assert_eq!(failure.code, Code::InvalidToolCall);
        let failure = apply(&confined, "*** Update File: link\n*** Move to: g").expect_err("a link");
        assert_eq!((failure.code, failure.hint.as_str()), (Code::InvalidToolCall, "move f, which it leads to"));
        apply(&confined, "*** Delete File: here/link\n*** Update File: f\n*** Move to: g").expect("placed");
        let names = || std::fs::read_dir(folder.path()).expect("listed").flatten().map(|entry| entry.file_name());
        assert_eq!(names().collect::<std::collections::BTreeSet<_>>(), ["g".into(), "here".into()].into());
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
