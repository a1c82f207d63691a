//! The form of a patch: `*** Begin Patch`, a section for each file, `*** End Patch`.

use helix_protocol::{Code, Failure};

/// What becomes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is made.
    Add { path: String, lines: Vec<String> },
    /// It is deleted.
    Delete { path: String },
    /// It is changed, and perhaps moved.
    Update { path: String, move_to: Option<String>, hunks: Vec<Hunk> },
}

/// Lines that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunk {
    /// The lines after `@@`, outermost first.
    pub anchors: Vec<String>,
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// It ends where the file ends.
    pub at_end: bool,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// It is there and stays.
    Stays(String),
    /// It is there and goes.
    Goes(String),
    /// It is put in.
    Comes(String),
}

impl Hunk {
    /// The lines that must be there.
    pub fn old(&self) -> Vec<&str> {
        let old = |line: &'_ Line| matches!(line, Line::Stays(_) | Line::Goes(_));
        self.lines.iter().filter(|line| old(line)).map(Line::text).collect()
    }

    /// The lines that are put in.
    pub fn added(&self) -> Vec<&str> {
        self.lines.iter().filter(|line| matches!(line, Line::Comes(_))).map(Line::text).collect()
    }
}

impl Line {
    fn text(&self) -> &str {
        match self {
            Self::Stays(text) | Self::Goes(text) | Self::Comes(text) => text,
        }
    }
}

/// The changes that a patch asks for, in order.
pub fn parse(patch: &str) -> Result<Vec<Change>, Failure> {
    let mut lines: Vec<&str> = patch.trim().lines().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    // Some models write it as the shell command that other programs take it from.
    if lines.first().is_some_and(|line| line.contains("<<")) {
        lines.remove(0);
        if lines.last().is_some_and(|line| !line.starts_with("***")) {
            lines.pop();
        }
    }
    let (Some(&"*** Begin Patch"), Some(&"*** End Patch")) = (lines.first(), lines.last()) else {
        return Err(wrong("a patch begins with the line `*** Begin Patch` and ends with `*** End Patch`"));
    };
    let mut changes = Vec::new();
    let mut rest = &lines[1..lines.len() - 1];
    while let Some((header, below)) = rest.split_first() {
        let length = below.iter().position(|line| begins_section(line)).unwrap_or(below.len());
        let (body, after) = below.split_at(length);
        rest = after;
        changes.push(change(header, body)?);
    }
    if changes.is_empty() { Err(wrong("the patch changes no file")) } else { Ok(changes) }
}

fn begins_section(line: &str) -> bool {
    ["*** Add File: ", "*** Delete File: ", "*** Update File: "].iter().any(|header| line.starts_with(header))
}

fn change(header: &str, body: &[&str]) -> Result<Change, Failure> {
    if let Some(path) = header.strip_prefix("*** Add File: ") {
        let line = |line: &&str| line.strip_prefix('+').map(str::to_owned);
        let lines: Option<Vec<String>> = body.iter().map(line).collect();
        let lines = lines.ok_or_else(|| wrong(&format!("each line of the new file {path} begins with `+`")))?;
        return Ok(Change::Add { path: path.trim().to_owned(), lines });
    }
    if let Some(path) = header.strip_prefix("*** Delete File: ") {
        return match body.iter().all(|line| line.trim().is_empty()) {
            true => Ok(Change::Delete { path: path.trim().to_owned() }),
            false => Err(wrong(&format!("nothing stands below `*** Delete File: {path}`"))),
        };
    }
    let Some(path) = header.strip_prefix("*** Update File: ") else {
        return Err(wrong(&format!("expected `*** Add File:`, `*** Update File:` or `*** Delete File:`, found {header:?}")));
    };
    let move_to = body.first().and_then(|line| line.strip_prefix("*** Move to: ")).map(|to| to.trim().to_owned());
    let hunks = hunks(path, &body[usize::from(move_to.is_some())..])?;
    if hunks.is_empty() && move_to.is_none() {
        return Err(wrong(&format!("nothing stands below `*** Update File: {path}`")));
    }
    Ok(Change::Update { path: path.trim().to_owned(), move_to, hunks })
}

fn hunks(path: &str, body: &[&str]) -> Result<Vec<Hunk>, Failure> {
    let mut hunks: Vec<Hunk> = Vec::new();
    let mut now = Hunk::default();
    for line in body {
        if let Some(anchor) = line.strip_prefix("@@") {
            if !now.lines.is_empty() {
                hunks.push(std::mem::take(&mut now));
            }
            let anchor = anchor.strip_prefix(' ').unwrap_or(anchor);
            // Line numbers of other kinds of patches say nothing here.
            let numbers = anchor.trim_start().starts_with('-') && anchor.trim_end().ends_with("@@");
            if !anchor.trim().is_empty() && !numbers {
                now.anchors.push(anchor.to_owned());
            }
            continue;
        }
        if *line == "*** End of File" {
            now.at_end = true;
            continue;
        }
        let mut letters = line.chars();
        now.lines.push(match letters.next() {
            None => Line::Stays(String::new()),
            Some(' ') => Line::Stays(letters.as_str().to_owned()),
            Some('-') => Line::Goes(letters.as_str().to_owned()),
            Some('+') => Line::Comes(letters.as_str().to_owned()),
            Some(_) => {
                return Err(wrong(&format!(
                    "each line of a hunk for {path} begins with a space, `-` or `+`; this one does not: {line}"
                )));
            }
        });
    }
    if !now.lines.is_empty() {
        hunks.push(now);
    }
    if hunks.iter().all(|hunk| hunk.lines.iter().all(|line| matches!(line, Line::Stays(_)))) && !hunks.is_empty() {
        return Err(wrong(&format!("the hunks for {path} change nothing")));
    }
    Ok(hunks)
}

fn wrong(message: &str) -> Failure {
    Failure::new(Code::InvalidToolCall, format!("{message}; nothing was changed")).hint("the tool's description shows the form")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_patch_is_read_with_its_anchors_and_without_a_shell_around_it() {
        let text =
            "apply_patch <<'EOF'\n*** Begin Patch\n*** Update File: a b\n@@ class A\n@@ def f\n x\n\n-y\n+z\n*** End Patch\nEOF";
        let stays = |text: &str| Line::Stays(text.into());
        let hunk = Hunk {
            anchors: vec!["class A".into(), "def f".into()],
            lines: vec![stays("x"), stays(""), Line::Goes("y".into()), Line::Comes("z".into())],
            at_end: false,
        };
        let expected = Change::Update { path: "a b".into(), move_to: None, hunks: vec![hunk] };
        assert_eq!(parse(text), Ok(vec![expected]));
    }

    proptest! {
        #[test]
        fn whatever_is_read_nothing_panics(text in "(\\*\\*\\* (Begin Patch|End Patch|Update File: a|Add File: b|Delete File: c|Move to: d|End of File)\n|[-+@ ]{0,2}[ab]{0,2}\n){0,12}") {
            let _ = parse(&text);
            let _ = parse(&format!("*** Begin Patch\n{text}*** End Patch"));
        }
    }
}
