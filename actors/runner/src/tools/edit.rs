//! `edit`: replaces text that must be found, and found once.
//!
//! Models copy text almost exactly. So the text is looked for as it is, then line by line without
//! regard to spaces at the ends of lines, then without regard to spaces at either end; the answer says
//! which it was. Nothing looser is tried, because it would change what nobody meant.

use helix_protocol::{Code, Failure, ToolOutcome};

use super::arguments::EditArguments;
use crate::confine::Confined;

/// How an old text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Exact,
    TrailingSpace,
    Indentation,
}

impl Match {
    fn words(self) -> &'static str {
        match self {
            Self::Exact => "matched exactly",
            Self::TrailingSpace => "matched without regard to spaces at line ends",
            Self::Indentation => "matched without regard to indentation, so check the new lines' indentation",
        }
    }
}

/// Replaces text in a file.
pub fn edit(confined: &Confined, arguments: &EditArguments) -> Result<ToolOutcome, Failure> {
    let EditArguments { path, old, new, all } = arguments;
    let text = String::from_utf8(confined.read(path)?)
        .map_err(|_| Failure::new(Code::FileUnreadable, format!("{path} is not UTF-8 text, so it cannot be edited")))?;
    let edited = replace(path, &text, old, new, if *all { Occurrences::All } else { Occurrences::One })?;
    confined.write(path, edited.text.as_bytes())?;
    let lines: Vec<String> = edited
        .lines
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let times = if edited.lines.len() == 1 { String::new() } else { format!(" at {} places", edited.lines.len()) };
    Ok(ToolOutcome::ok(format!("edited {path}{times}, line {}: {}", lines.join(", "), edited.by.words())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occurrences {
    One,
    All,
}

#[derive(Debug, PartialEq, Eq)]
struct Edited {
    text: String,
    /// First and last line of each place, in the old text.
    lines: Vec<(usize, usize)>,
    by: Match,
}

fn replace(path: &str, text: &str, old: &str, new: &str, occurrences: Occurrences) -> Result<Edited, Failure> {
    if old.is_empty() {
        return Err(Failure::new(Code::InvalidToolCall, "the text to replace is empty")
            .hint("write the file with `write`, or give the text that is there"));
    }
    if old == new {
        return Err(Failure::new(Code::InvalidToolCall, "the new text is the old one, so nothing would change"));
    }
    for by in [Match::Exact, Match::TrailingSpace, Match::Indentation] {
        let places = match by {
            Match::Exact => text.match_indices(old).map(|(at, found)| (at, at + found.len())).collect(),
            Match::TrailingSpace => by_lines(text, old, str::trim_end),
            Match::Indentation => by_lines(text, old, str::trim),
        };
        if places.is_empty() {
            continue;
        }
        let lines: Vec<(usize, usize)> =
            places.iter().map(|(start, end)| (line_of(text, *start), line_of(text, end.saturating_sub(1).max(*start)))).collect();
        if places.len() > 1 && occurrences == Occurrences::One {
            let shown: Vec<String> = lines.iter().take(20).map(|(first, _)| first.to_string()).collect();
            return Err(Failure::new(
                Code::EditAmbiguous,
                format!(
                    "the text to replace occurs {} times in {path}, at lines {}; nothing was changed",
                    places.len(),
                    shown.join(", ")
                ),
            )
            .hint("give more of the surrounding text, or set `all` to true"));
        }
        let mut edited = String::with_capacity(text.len() + new.len());
        let mut at = 0;
        for (start, end) in &places {
            edited.push_str(&text[at..*start]);
            // Lines were compared without their break, so the last one's is kept.
            edited.push_str(if by == Match::Exact { new } else { new.strip_suffix('\n').unwrap_or(new) });
            at = *end;
        }
        edited.push_str(&text[at..]);
        return Ok(Edited { text: edited, lines, by });
    }
    Err(Failure::new(Code::EditNotFound, format!("the text to replace is not in {path}; nothing was changed"))
        .hint(nearest(text, old)))
}

/// Where the lines of `old` stand in `text`, compared after `trim`, without overlaps. Blank lines at the ends of
/// `old` do not count.
fn by_lines(text: &str, old: &str, trim: impl Fn(&str) -> &str) -> Vec<(usize, usize)> {
    let wanted: Vec<&str> = old.lines().map(&trim).collect();
    if wanted.iter().all(|line| line.is_empty()) {
        return Vec::new();
    }
    let lines = spans(text);
    let mut places = Vec::new();
    let mut at = 0;
    while at + wanted.len() <= lines.len() {
        let here = &lines[at..at + wanted.len()];
        if here.iter().zip(&wanted).all(|((start, end), wanted)| trim(&text[*start..*end]) == *wanted) {
            places.push((here[0].0, here[here.len() - 1].1));
            at += wanted.len();
        } else {
            at += 1;
        }
    }
    places
}

/// Each line's bytes without its break.
fn spans(text: &str) -> Vec<(usize, usize)> {
    let mut start = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let span = (start, start + line.trim_end_matches(['\n', '\r']).len());
            start += line.len();
            span
        })
        .collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The lines of `text` that are most like `old`, with their numbers.
fn nearest(text: &str, old: &str) -> String {
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
    use proptest::prelude::*;

    const TEXT: &str = "fn a() {\n    one();  \n}\n\nfn b() {\n    one();\n}\n";

    fn one(old: &str, new: &str) -> Result<Edited, Failure> {
        replace("f.rs", TEXT, old, new, Occurrences::One)
    }

    #[test]
    fn an_exact_match_is_replaced_and_its_lines_reported() {
        let edited = one("fn a() {", "fn c() {").expect("found");
        assert_eq!(edited, Edited { text: TEXT.replace("fn a()", "fn c()"), lines: vec![(1, 1)], by: Match::Exact });
    }

    #[test]
    fn spaces_at_line_ends_and_indentation_are_forgiven_in_this_order() {
        let edited = one("fn a() {\n    one();\n}\n", "fn a() {}\n").expect("found");
        assert_eq!((edited.text.as_str(), edited.by), ("fn a() {}\n\nfn b() {\n    one();\n}\n", Match::TrailingSpace));
        let edited = one("fn b() {\none();\n}", "fn b() {}").expect("found");
        assert_eq!(
            (edited.text.as_str(), edited.lines, edited.by),
            ("fn a() {\n    one();  \n}\n\nfn b() {}\n", vec![(5, 7)], Match::Indentation)
        );
    }

    #[test]
    fn an_ambiguous_text_is_refused_with_its_lines_unless_all_are_meant() {
        let failure = one("one();", "two();").expect_err("twice");
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (Code::EditAmbiguous, "the text to replace occurs 2 times in f.rs, at lines 2, 6; nothing was changed")
        );
        let edited = replace("f.rs", TEXT, "one();", "two();", Occurrences::All).expect("all");
        assert_eq!((edited.text, edited.lines), (TEXT.replace("one", "two"), vec![(2, 2), (6, 6)]));
    }

    #[test]
    fn a_text_that_is_not_there_is_answered_with_the_nearest_one() {
        let failure = one("fn bb() {\n    one(1);\n}", "x").expect_err("missing");
        assert_eq!(
            (failure.code, failure.hint.as_str()),
            (Code::EditNotFound, "the nearest text is at line 5:\n5\tfn b() {\n6\t    one();\n7\t}")
        );
        assert_eq!(one("zzzzzzzz", "x").expect_err("missing").hint, "nothing in the file is like it; read the file again");
        assert_eq!(one("", "x").expect_err("empty").code, Code::InvalidToolCall);
    }

    proptest! {
        #[test]
        fn whatever_is_edited_nothing_panics_and_one_exact_match_is_a_plain_replacement(text in "[ab \n\t]{0,60}", old in "[ab \n]{1,6}", new in "[abc\n]{0,6}") {
            if let Ok(edited) = replace("f", &text, &old, &new, Occurrences::One)
                && edited.by == Match::Exact
            {
                prop_assert_eq!(edited.text, text.replacen(&old, &new, 1));
            }
        }
    }
}
