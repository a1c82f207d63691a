//! `edit`: replaces text that must be found, and found once.
//!
//! The answer says how it was found and at which lines; see [`matching`](super::matching). A text that is there several times
//! is refused.

use helix_protocol::{Code, Failure, ToolOutcome};

use super::arguments::EditArguments;
use super::matching::{Match, indented, line_break, nearest, places};
use crate::confine::Confined;

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
    let line_break = line_break(text);
    let (old, new) = (&with_breaks(old, line_break), &with_breaks(new, line_break));
    if old == new {
        return Err(Failure::new(Code::InvalidToolCall, "the new text is the old one, so nothing would change"));
    }
    for by in Match::ALL {
        let places = match by {
            Match::Exact => text.match_indices(old).map(|(at, found)| (at, at + found.len())).collect(),
            by => by_lines(text, old, new, by),
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
            let put = match by {
                Match::Exact => within_a_line(text, *start, old, new),
                by => by_whole_lines(new, old, &text[*start..*end], line_break, by),
            };
            edited.push_str(&put.ok_or_else(|| {
                Failure::new(
                    Code::EditNotFound,
                    format!("the text to replace stands in {path} with another indentation; nothing was changed"),
                )
                .hint(format!("give whole lines with their indentation; {}", nearest(text, old)))
            })?);
            at = *end;
        }
        edited.push_str(&text[at..]);
        return Ok(Edited { text: edited, lines, by });
    }
    Err(Failure::new(Code::EditNotFound, format!("the text to replace is not in {path}; nothing was changed"))
        .hint(nearest(text, old)))
}

/// The new text where `old` was found as it is. Several lines for one whose indentation `old` leaves out are indented like it,
/// unless they all bring their own; `None` where some do and some do not.
fn within_a_line(text: &str, start: usize, old: &str, new: &str) -> Option<String> {
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[line..start];
    let Some((first, rest)) = new.split_once('\n') else { return Some(new.to_owned()) };
    if before.is_empty() || !before.trim().is_empty() || old.trim_end_matches('\n').contains('\n') {
        return Some(new.to_owned());
    }
    let filled = || rest.lines().filter(|line| !line.trim().is_empty());
    if filled().all(|line| line.starts_with(before)) {
        return Some(new.to_owned());
    }
    if filled().any(|line| line.starts_with(before)) {
        return None;
    }
    let indented = rest.split('\n').map(|line| if line.trim().is_empty() { line.to_owned() } else { format!("{before}{line}") });
    Some(format!("{first}\n{}", indented.collect::<Vec<_>>().join("\n")))
}

/// The new lines as they are put in for `found`, which was matched line by line: with the file's indentation and line breaks.
/// The last one's break is not part of what was matched.
fn by_whole_lines(new: &str, old: &str, found: &str, line_break: &str, by: Match) -> Option<String> {
    let new: Vec<&str> = new.lines().collect();
    let old: Vec<&str> = old.lines().collect();
    let was: Vec<&str> = found.lines().collect();
    let lines = match by {
        Match::Indentation => indented(&new, &old, &was)?,
        _ => new.iter().map(|line| (*line).to_owned()).collect(),
    };
    Some(lines.join(if found.contains("\r\n") { "\r\n" } else { line_break }))
}

/// A text of the model's with a file's line breaks. Where those are plain ones it means what it says.
fn with_breaks(text: &str, line_break: &str) -> String {
    if line_break == "\n" { text.to_owned() } else { text.replace(line_break, "\n").replace('\n', line_break) }
}

/// Where the lines of `old` stand in `text`, compared by `by`, without overlaps. The last line's break belongs to a place only
/// where a blank line follows, `old` takes it along and `new` does not bring one back: then a blank line is what goes.
fn by_lines(text: &str, old: &str, new: &str, by: Match) -> Vec<(usize, usize)> {
    let wanted: Vec<&str> = old.lines().collect();
    if wanted.iter().all(|line| line.trim().is_empty()) {
        return Vec::new();
    }
    let spans = spans(text);
    let lines: Vec<&str> = spans.iter().map(|(start, end)| &text[*start..*end]).collect();
    let takes_break = old.ends_with('\n') && !new.ends_with('\n');
    let place = |at: usize| {
        let end = spans[at + wanted.len() - 1].1;
        match spans.get(at + wanted.len()) {
            Some((start, next)) if takes_break && start == next => (spans[at].0, *start),
            _ => (spans[at].0, end),
        }
    };
    places(&lines, &wanted, by).into_iter().map(place).collect()
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
        let edited = one("  fn b() {\n      one();\n  }", "  fn b() {\n      two();\n  }").expect("found");
        assert_eq!(
            (edited.text.as_str(), edited.lines, edited.by),
            ("fn a() {\n    one();  \n}\n\nfn b() {\n    two();\n}\n", vec![(5, 7)], Match::Indentation)
        );
        let failure = one("fn b() {\none();\n}", "fn b() {\ntwo();\n}").expect_err("how deep two() shall stand is not said");
        assert_eq!(failure.code, Code::EditNotFound);
        assert!(failure.hint.contains("5\tfn b() {"), "{}", failure.hint);
    }

    #[test]
    fn line_breaks_stay_as_the_file_has_them() {
        let edited = replace("f", "a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\nz\n", Occurrences::One).expect("found");
        assert_eq!(edited.text, "x\r\ny\r\nz\r\nc\r\n");
        let edit = |text: &str, old: &str, new: &str| replace("f", text, old, new, Occurrences::One).expect("found").text;
        assert_eq!(edit("a\r\nb\r\n", "b", "x\ny"), "a\r\nx\r\ny\r\n");
        assert_eq!(edit("a\r\nb\r\n", "\nb", "\r\nx\ny"), "a\r\nx\r\ny\r\n");
        assert_eq!(edit("a {\r\n  b();\r\n}\r\n", "b();", "c();\nd();"), "a {\r\n  c();\r\n  d();\r\n}\r\n");
        assert_eq!(edit("a\r\n\tb  \r\n", "  b", "  x\n  y"), "a\r\n\tx\r\n\ty\r\n");
        assert_eq!(edit("a\nb\n", "b", "x\ny"), "a\nx\ny\n");
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

    #[test]
    fn several_lines_for_one_without_its_indentation_stand_where_it_stood() {
        let edit = |new: &str| replace("f", "a {\n  b();\n}\n", "b();", new, Occurrences::One).map(|edited| edited.text);
        assert_eq!(edit("c();\nd();").as_deref(), Ok("a {\n  c();\n  d();\n}\n"));
        assert_eq!(edit("c();\n  d();\n    e();").as_deref(), Ok("a {\n  c();\n  d();\n    e();\n}\n"));
        assert_eq!(edit("c();\n  d();\ne();").expect_err("which?").code, Code::EditNotFound);
    }

    proptest! {
        #[test]
        fn whatever_is_edited_nothing_panics_and_one_exact_match_is_a_plain_replacement(text in "[ab \n\t]{0,60}", old in "[ab \n]{1,6}", new in "[abc\n]{0,6}") {
            if let Ok(edited) = replace("f", &text, &old, &new, Occurrences::One)
                && edited.by == Match::Exact
                && !new.contains('\n')
            {
                prop_assert_eq!(edited.text, text.replacen(&old, &new, 1));
            }
        }
    }
}
