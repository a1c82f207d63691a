//! Differences between trees, as git prints them.

use helix_objects::ObjectError;
use helix_protocol::{FileMode, ObjectId};
use helix_versions::{EntryChange, Origin, PathChange, TreeEntry, VersionError, diff_text, find_renames, is_binary};
use serde_json::{Value, json};

use super::path::{self, Quote};

/// Where contents are read.
pub type Read<'a> = dyn Fn(ObjectId) -> Result<bytes::Bytes, ObjectError> + 'a;

/// What is shown of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Line by line.
    Patch,
    /// How many lines of each file.
    Stat {
        /// How wide it may be.
        columns: u16,
    },
    /// The paths.
    Names,
    /// The paths with what became of them.
    NameStatus,
}

/// Whether a removal and an addition of nearly the same content are one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renames {
    /// They are, as in git.
    Found,
    /// They are two.
    Ignored,
}

impl Renames {
    /// The changes, with what was renamed.
    pub fn of(self, changes: Vec<EntryChange>, read: &Read<'_>) -> Result<Vec<PathChange>, VersionError> {
        match self {
            Self::Found => find_renames(changes, read),
            Self::Ignored => Ok(changes.into_iter().map(PathChange::from).collect()),
        }
    }
}

/// The changes as text.
pub fn render(changes: &[PathChange], shape: Shape, colour: bool, read: &Read<'_>) -> Result<String, VersionError> {
    let mut text = String::new();
    match shape {
        Shape::Patch => {
            for change in changes {
                text.push_str(&patch(change, colour, read)?);
            }
        }
        Shape::Stat { columns } => text = stat(changes, columns, read)?,
        Shape::Names => {
            changes.iter().for_each(|change| text.push_str(&format!("{}\n", path::show(&change.change.path, Quote::Unusual))));
        }
        Shape::NameStatus => {
            for PathChange { change, from } in changes {
                let path = path::show(&change.path, Quote::Unusual);
                match from {
                    Some(Origin { path: old, similarity }) => {
                        text.push_str(&format!("R{similarity:03}\t{}\t{path}\n", path::show(old, Quote::Unusual)));
                    }
                    None => text.push_str(&format!("{}\t{path}\n", letter(change))),
                }
            }
        }
    }
    Ok(text)
}

/// A path that a merge could not decide, as git tells of it before its changes.
pub fn unmerged(path: &[u8], shape: Shape) -> String {
    let path = path::show(path, Quote::Unusual);
    match shape {
        Shape::Patch => format!("* Unmerged path {path}\n"),
        Shape::Stat { .. } => format!(" {path} | Unmerged\n"),
        Shape::Names => format!("{path}\n"),
        Shape::NameStatus => format!("U\t{path}\n"),
    }
}

/// The changes for a program.
pub fn to_json(changes: &[PathChange]) -> Value {
    let side = |entry: &Option<TreeEntry>| {
        entry.as_ref().map(|entry| json!({"id": entry.id, "mode": mode(entry.mode), "size": entry.size}))
    };
    changes
        .iter()
        .map(|PathChange { change, from }| {
            let status = if from.is_some() { 'R' } else { letter(change) };
            let mut value = json!({
                "path": path::to_json(&change.path), "status": status.to_string(), "before": side(&change.before), "after": side(&change.after),
            });
            if let Some(Origin { path: old, similarity }) = from {
                value["from"] = path::to_json(old);
                value["similarity"] = json!(similarity);
            }
            value
        })
        .collect()
}

/// git's letter for what became of a path.
pub fn letter(change: &EntryChange) -> char {
    match (&change.before, &change.after) {
        (None, _) => 'A',
        (_, None) => 'D',
        (Some(before), Some(after)) if kind(before.mode) != kind(after.mode) => 'T',
        _ => 'M',
    }
}

/// git's number for what an entry is.
pub fn mode(mode: FileMode) -> &'static str {
    match mode {
        FileMode::Regular => "100644",
        FileMode::Executable => "100755",
        FileMode::Symlink => "120000",
        FileMode::Directory => "040000",
    }
}

/// `1 file changed, 2 insertions(+), 1 deletion(-)`.
pub fn summary(files: usize, added: usize, removed: usize) -> String {
    let many = |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let mut text = format!(" {} changed", many(files, "file", "files"));
    if added > 0 || removed == 0 {
        text.push_str(&format!(", {}", many(added, "insertion(+)", "insertions(+)")));
    }
    if removed > 0 || added == 0 {
        text.push_str(&format!(", {}", many(removed, "deletion(-)", "deletions(-)")));
    }
    text
}

fn kind(mode: FileMode) -> u8 {
    match mode {
        FileMode::Regular | FileMode::Executable => 0,
        FileMode::Symlink => 1,
        FileMode::Directory => 2,
    }
}

fn patch(changed: &PathChange, colour: bool, read: &Read<'_>) -> Result<String, VersionError> {
    let PathChange { change, from } = changed;
    // A path that became another kind of thing is one that went and one that came, as in git.
    if letter(change) == 'T' && from.is_none() {
        let gone = EntryChange { after: None, ..change.clone() };
        let came = EntryChange { before: None, ..change.clone() };
        return Ok(patch(&gone.into(), colour, read)? + &patch(&came.into(), colour, read)?);
    }
    let side = |prefix: &str, path: &[u8]| path::show(&[prefix.as_bytes(), path].concat(), Quote::Unusual);
    let old_path = from.as_ref().map_or(&change.path, |from| &from.path);
    let (a, b) = (side("a/", old_path), side("b/", &change.path));
    let mut head = format!("diff --git {a} {b}\n");
    match (&change.before, &change.after) {
        (None, Some(after)) => head.push_str(&format!("new file mode {}\n", mode(after.mode))),
        (Some(before), None) => head.push_str(&format!("deleted file mode {}\n", mode(before.mode))),
        (Some(before), Some(after)) if before.mode != after.mode => {
            head.push_str(&format!("old mode {}\nnew mode {}\n", mode(before.mode), mode(after.mode)));
        }
        _ => {}
    }
    if let Some(Origin { path: old, similarity }) = from {
        let (old, new) = (path::show(old, Quote::Unusual), path::show(&change.path, Quote::Unusual));
        head.push_str(&format!("similarity index {similarity}%\nrename from {old}\nrename to {new}\n"));
    }
    let (old, new) = (content(change.before.as_ref(), read)?, content(change.after.as_ref(), read)?);
    if old != new {
        let short = |entry: &Option<TreeEntry>| entry.as_ref().map_or_else(|| "0".repeat(12), |entry| entry.id.short());
        let both = change.before.as_ref().zip(change.after.as_ref());
        let same_mode = both
            .filter(|(before, after)| before.mode == after.mode)
            .map_or(String::new(), |(_, after)| format!(" {}", mode(after.mode)));
        head.push_str(&format!("index {}..{}{same_mode}\n", short(&change.before), short(&change.after)));
    }
    let name = |entry: &Option<TreeEntry>, shown: String| if entry.is_some() { shown } else { "/dev/null".to_owned() };
    let (a, b) = (name(&change.before, a), name(&change.after, b));
    let body = if is_binary(&old) || is_binary(&new) {
        if old == new { String::new() } else { format!("Binary files {a} and {b} differ\n") }
    } else {
        diff_text(&a, &old, &b, &new)
    };
    Ok(if colour { paint(&head, &body) } else { head + &body })
}

/// How a rename stands in one line: `src/{old => new}/file`, what both paths begin and end with told once.
fn both_paths(old: &[u8], new: &[u8]) -> String {
    let (old_text, new_text) = (path::show(old, Quote::Unusual), path::show(new, Quote::Unusual));
    if old_text.starts_with('"') || new_text.starts_with('"') {
        return format!("{old_text} => {new_text}");
    }
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let begin = old[..same].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    // The slash that ends what both begin with may begin what both end with as well.
    let longest = old.len().min(new.len()) - begin.saturating_sub(1).min(old.len().min(new.len()));
    let same = old.iter().rev().zip(new.iter().rev()).take(longest).take_while(|(a, b)| a == b).count();
    let end = old[old.len() - same..].iter().position(|byte| *byte == b'/').map_or(0, |at| same - at);
    if begin + end == 0 {
        return format!("{old_text} => {new_text}");
    }
    let middle = |path: &[u8]| String::from_utf8_lossy(path.get(begin..path.len() - end).unwrap_or_default()).into_owned();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{{{} => {}}}{}", text(&old[..begin]), middle(old), middle(new), text(&old[old.len() - end..]))
}

fn content(entry: Option<&TreeEntry>, read: &Read<'_>) -> Result<bytes::Bytes, VersionError> {
    match entry.filter(|entry| entry.mode != FileMode::Directory) {
        Some(entry) => Ok(read(entry.id)?),
        None => Ok(bytes::Bytes::new()),
    }
}

fn paint(head: &str, body: &str) -> String {
    let mut text = String::with_capacity(head.len() + body.len() * 5 / 4);
    let bold = |line: &str| format!("\x1b[1m{line}\x1b[m\n");
    head.lines().for_each(|line| text.push_str(&bold(line)));
    for (number, line) in body.lines().enumerate() {
        match line.as_bytes().first() {
            Some(b'-' | b'+') if number < 2 => text.push_str(&bold(line)),
            Some(b'@') => text.push_str(&format!("\x1b[36m{line}\x1b[m\n")),
            Some(b'-') => text.push_str(&format!("\x1b[31m{line}\x1b[m\n")),
            Some(b'+') => text.push_str(&format!("\x1b[32m{line}\x1b[m\n")),
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

fn stat(changes: &[PathChange], columns: u16, read: &Read<'_>) -> Result<String, VersionError> {
    enum Size {
        Lines { added: usize, removed: usize },
        Bytes { before: usize, after: usize },
    }
    let mut rows = Vec::with_capacity(changes.len());
    for PathChange { change, from } in changes {
        let (old, new) = (content(change.before.as_ref(), read)?, content(change.after.as_ref(), read)?);
        let size = if is_binary(&old) || is_binary(&new) {
            Size::Bytes { before: old.len(), after: new.len() }
        } else {
            let text = diff_text("", &old, "", &new);
            let count = |sign: char| text.lines().skip(2).filter(|line| line.starts_with(sign)).count();
            Size::Lines { added: count('+'), removed: count('-') }
        };
        let name = match from {
            Some(from) => both_paths(&from.path, &change.path),
            None => path::show(&change.path, Quote::Unusual),
        };
        rows.push((name, size));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let most =
        rows.iter().map(|(_, size)| if let Size::Lines { added, removed } = size { added + removed } else { 0 }).max().unwrap_or(0);
    let binary = rows.iter().any(|(_, size)| matches!(size, Size::Bytes { .. }));
    let digits = most.to_string().len().max(if binary { 3 } else { 1 });
    let columns = if columns == 0 { 80 } else { usize::from(columns) };
    let room = columns.saturating_sub(width + digits + 6).max(10);
    let scale = |count: usize| if most <= room || count == 0 { count } else { (count * room / most).max(1) };
    let (mut text, mut all_added, mut all_removed) = (String::new(), 0, 0);
    for (name, size) in &rows {
        match size {
            Size::Bytes { before, after } => {
                text.push_str(&format!(" {name:<width$} | {:>digits$} {before} -> {after} bytes\n", "Bin"))
            }
            Size::Lines { added, removed } => {
                all_added += added;
                all_removed += removed;
                let bar = "+".repeat(scale(*added)) + &"-".repeat(scale(*removed));
                let row = format!(" {name:<width$} | {:>digits$} {bar}", added + removed);
                text.push_str(row.trim_end());
                text.push('\n');
            }
        }
    }
    if !rows.is_empty() {
        text.push_str(&summary(rows.len(), all_added, all_removed));
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use helix_objects::hash;

    use super::*;

    fn entry(content: &str, mode: FileMode) -> TreeEntry {
        TreeEntry { name: b"f".to_vec(), mode, size: content.len() as u64, id: hash(content.as_bytes()) }
    }

    fn shown(changes: &[PathChange], shape: Shape, contents: &[&str]) -> String {
        let contents: HashMap<ObjectId, Bytes> =
            contents.iter().map(|text| (hash(text.as_bytes()), Bytes::copy_from_slice(text.as_bytes()))).collect();
        render(changes, shape, false, &|id| Ok(contents[&id].clone())).unwrap()
    }

    fn change(path: &str, before: Option<TreeEntry>, after: Option<TreeEntry>) -> PathChange {
        EntryChange { path: path.as_bytes().to_vec(), before, after }.into()
    }

    #[test]
    fn a_rename_is_told_as_git_tells_it() {
        let (one, two) = ("a\nb\nc\nd\n", "a\nb\nc\ne\n");
        let changed = change("src/new/f", Some(entry(one, FileMode::Regular)), Some(entry(two, FileMode::Regular)));
        let renamed = PathChange { from: Some(Origin { path: b"src/old/f".to_vec(), similarity: 75 }), ..changed };
        let expected = format!(
            "diff --git a/src/old/f b/src/new/f\nsimilarity index 75%\nrename from src/old/f\nrename to src/new/f\nindex {}..{} 100644\n\
             --- a/src/old/f\n+++ b/src/new/f\n@@ -1,4 +1,4 @@\n a\n b\n c\n-d\n+e\n",
            hash(one.as_bytes()).short(),
            hash(two.as_bytes()).short()
        );
        assert_eq!(shown(std::slice::from_ref(&renamed), Shape::Patch, &[one, two]), expected);
        assert_eq!(shown(std::slice::from_ref(&renamed), Shape::NameStatus, &[]), "R075\tsrc/old/f\tsrc/new/f\n");
        let expected = " src/{old => new}/f | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n";
        assert_eq!(shown(&[renamed], Shape::Stat { columns: 80 }, &[one, two]), expected);
        for (old, new, told) in [
            ("a", "b", "a => b"),
            ("d/a", "d/b", "d/{a => b}"),
            ("a/f", "b/f", "{a => b}/f"),
            ("a/b/f", "a/f", "a/{b => }/f"),
            ("a/f", "a/b/f", "a/{ => b}/f"),
        ] {
            assert_eq!(both_paths(old.as_bytes(), new.as_bytes()), told);
        }
    }

    #[test]
    fn a_patch_is_headed_as_gits() {
        let (one, two) = ("a\nb\n", "a\nc\n");
        let modified = change("d/f", Some(entry(one, FileMode::Regular)), Some(entry(two, FileMode::Executable)));
        let ids = (hash(one.as_bytes()).short(), hash(two.as_bytes()).short());
        let expected = format!(
            "diff --git a/d/f b/d/f\nold mode 100644\nnew mode 100755\nindex {}..{}\n--- a/d/f\n+++ b/d/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
            ids.0, ids.1
        );
        assert_eq!(shown(&[modified], Shape::Patch, &[one, two]), expected);
        let added = change("f", None, Some(entry(one, FileMode::Regular)));
        let expected = format!(
            "diff --git a/f b/f\nnew file mode 100644\nindex 000000000000..{}\n--- /dev/null\n+++ b/f\n@@ -0,0 +1,2 @@\n+a\n+b\n",
            ids.0
        );
        assert_eq!(shown(&[added], Shape::Patch, &[one]), expected);
    }

    #[test]
    fn a_stat_counts_lines_and_sums_them() {
        let (one, two, binary) = ("a\nb\n", "a\nc\nd\n", "\0x");
        let changes = [
            change("a", Some(entry(one, FileMode::Regular)), Some(entry(two, FileMode::Regular))),
            change("long", None, Some(entry(binary, FileMode::Regular))),
        ];
        let expected = " a    |   3 ++-\n long | Bin 0 -> 2 bytes\n 2 files changed, 2 insertions(+), 1 deletion(-)\n";
        assert_eq!(shown(&changes, Shape::Stat { columns: 80 }, &[one, two, binary]), expected);
        assert_eq!(shown(&changes, Shape::NameStatus, &[]), "M\ta\nA\tlong\n");
    }
}
