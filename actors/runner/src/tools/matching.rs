//! Finding text that a model copied almost exactly.
//!
//! It is looked for as it is, then line by line without regard to spaces at the ends of lines, then without regard to spaces at
//! either end. Nothing looser is tried, because it would change what nobody meant. What was found without its indentation is
//! replaced by text that is indented as the file is; where that cannot be told for sure, it is not replaced.

use std::collections::HashMap;

/// How a text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// As it is.
    Exact,
    /// Without regard to spaces at the ends of lines.
    TrailingSpace,
    /// Without regard to spaces at either end.
    Indentation,
}

impl Match {
    /// From the strictest on.
    pub const ALL: [Match; 3] = [Self::Exact, Self::TrailingSpace, Self::Indentation];

    /// For the model.
    pub fn words(self) -> &'static str {
        match self {
            Self::Exact => "matched exactly",
            Self::TrailingSpace => "matched without regard to spaces at line ends",
            Self::Indentation => "matched without regard to indentation; the new lines were indented as the file is",
        }
    }

    fn trim(self, line: &str) -> &str {
        match self {
            Self::Exact => line,
            Self::TrailingSpace => line.trim_end(),
            Self::Indentation => line.trim(),
        }
    }
}

/// How the lines of a file end. Where they differ, a plain break is put in.
pub fn line_break(text: &str) -> &'static str {
    let breaks = text.matches('\n').count();
    if breaks > 0 && text.matches("\r\n").count() == breaks { "\r\n" } else { "\n" }
}

/// Where the lines of `wanted` stand in `lines`, compared by `by`, without overlaps: the index of the first line of each place.
pub fn places(lines: &[&str], wanted: &[&str], by: Match) -> Vec<usize> {
    let wanted: Vec<&str> = wanted.iter().map(|line| by.trim(line)).collect();
    let mut places = Vec::new();
    let mut at = 0;
    while !wanted.is_empty() && at + wanted.len() <= lines.len() {
        if lines[at..at + wanted.len()].iter().zip(&wanted).all(|(line, wanted)| by.trim(line) == *wanted) {
            places.push(at);
            at += wanted.len();
        } else {
            at += 1;
        }
    }
    places
}

/// `new` indented as the file is, where `old` is how the model wrote the lines that stand in the file as `found`. `None` where
/// the two do not tell: one indentation of the model's stands for several of the file's.
pub fn indented(new: &[&str], old: &[&str], found: &[&str]) -> Option<Vec<String>> {
    let mut known: HashMap<&str, &str> = HashMap::new();
    for (old, found) in old.iter().zip(found).filter(|(old, _)| !old.trim().is_empty()) {
        let (theirs, ours) = (indent(old), indent(found));
        if *known.entry(theirs).or_insert(ours) != ours {
            return None;
        }
    }
    let added = known.iter().map(|(theirs, ours)| ours.strip_suffix(theirs)).reduce(same).flatten();
    let removed = known.iter().map(|(theirs, ours)| theirs.strip_suffix(ours)).reduce(same).flatten();
    let line = |line: &&str| {
        if line.trim().is_empty() {
            return Some((*line).to_owned());
        }
        let (theirs, text) = line.split_at(indent(line).len());
        let ours = match (known.get(theirs), added, removed) {
            (Some(ours), ..) => (*ours).to_owned(),
            (None, Some(added), _) => format!("{added}{theirs}"),
            (None, None, Some(removed)) => theirs.strip_prefix(removed)?.to_owned(),
            (None, None, None) => return None,
        };
        Some(format!("{ours}{text}"))
    };
    new.iter().map(line).collect()
}

fn same<'a>(one: Option<&'a str>, other: Option<&'a str>) -> Option<&'a str> {
    one.filter(|_| one == other)
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// The lines of `text` that are most like `old`, with their numbers.
pub fn nearest(text: &str, old: &str) -> String {
    let wanted: Vec<&str> = old.lines().collect();
    let lines: Vec<&str> = text.lines().collect();
    let height = wanted.len().clamp(1, 20);
    let likeness = |window: &[&str]| {
        let pairs = window.iter().zip(&wanted);
        pairs.map(|(line, wanted)| similarity(line.trim(), wanted.trim())).sum::<f32>() / height as f32
    };
    // A file of very many lines is looked at in part: the hint is a kindness.
    let best = lines
        .windows(height.min(lines.len().max(1)))
        .take(5_000)
        .enumerate()
        .map(|(at, window)| (at, likeness(window)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    match best {
        Some((at, likeness)) if likeness > 0.4 => {
            let shown: Vec<String> = lines[at..(at + height).min(lines.len())]
                .iter()
                .enumerate()
                .map(|(below, line)| format!("{}\t{line}", at + below + 1))
                .collect();
            format!("the nearest text is at line {}:\n{}", at + 1, shown.join("\n"))
        }
        _ => "nothing in the file is like it; read the file again".to_owned(),
    }
}

/// From 0 to 1: how many words two lines share.
fn similarity(a: &str, b: &str) -> f32 {
    if a == b {
        return 1.0;
    }
    let length = a.len() + b.len();
    if length == 0 || length > 2_000 {
        return 0.0;
    }
    similar::TextDiff::from_chars(a, b).ratio()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_lines_are_indented_as_the_file_is_or_not_at_all() {
        let deeper = indented(&["a", "  b"], &["x", "  y"], &["    x", "      y"]);
        assert_eq!(deeper, Some(vec!["    a".to_owned(), "      b".to_owned()]));
        let tabs = indented(&["    a", "        b"], &["    x", "        y"], &["\tx", "\t\ty"]);
        assert_eq!(tabs, Some(vec!["\ta".to_owned(), "\t\tb".to_owned()]));
        let shallower = indented(&["    a", "        b", ""], &["    x"], &["x"]);
        assert_eq!(shallower, Some(vec!["a".to_owned(), "    b".to_owned(), String::new()]));
        assert_eq!(indented(&["a"], &["x", "y"], &["  x", "    y"]), None, "one of theirs stands for two of ours");
        assert_eq!(indented(&["      a"], &["    x", "        y"], &["\tx", "\t\ty"]), None, "never seen");
    }
}
