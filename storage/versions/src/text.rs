//! Texts and paths, for people, for models and for git.

use std::fmt::Write as _;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// A unified diff of two texts with three lines of context, headed `--- old` and `+++ new`. Empty
/// where they are equal. Bytes that are not UTF-8 are shown as U+FFFD.
pub fn diff_text(old_name: &str, old: &[u8], new_name: &str, new: &[u8]) -> String {
    if old == new {
        return String::new();
    }
    if is_binary(old) || is_binary(new) {
        return format!("binary files {old_name} and {new_name} differ\n");
    }
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    format!("--- {old_name}\n+++ {new_name}\n{}", hunks(&old, &new))
}

/// The hunks of a unified diff. A line ends with its line feed, as for git; a carriage return is a part of it.
pub(crate) fn hunks(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let mut text = String::new();
    for group in similar::group_diff_ops(capture_diff_slices(Algorithm::Myers, &old, &new), CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (before, after) = (first.old_range().start..last.old_range().end, first.new_range().start..last.new_range().end);
        let _ = writeln!(text, "@@ -{} +{} @@", numbers(&before), numbers(&after));
        for op in group {
            if matches!(op, DiffOp::Equal { .. }) {
                lines(&mut text, ' ', &old[op.old_range()]);
            } else {
                lines(&mut text, '-', &old[op.old_range()]);
                lines(&mut text, '+', &new[op.new_range()]);
            }
        }
    }
    text
}

/// `3,2`, `3` for a single line, and `2,0` where nothing stands behind line 2.
fn numbers(range: &Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => (range.start + 1).to_string(),
        length => format!("{},{length}", range.start + 1),
    }
}

fn lines(text: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// As git decides: a NUL among the first 8,000 bytes.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(8_000).any(|byte| *byte == 0)
}

/// When a path is put into quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// Where it has bytes that are not plain ASCII, a quote or a backslash.
    Unusual,
    /// Where it has a space, too: `status` in its short form.
    Spaces,
}

/// A path, quoted in the way of C where it is unusual.
pub fn quote_path(path: &[u8], quote: Quote) -> String {
    let unusual =
        |byte: &u8| !(0x20..0x7f).contains(byte) || matches!(byte, b'"' | b'\\') || (*byte == b' ' && quote == Quote::Spaces);
    if !path.iter().any(unusual) {
        return String::from_utf8_lossy(path).into_owned();
    }
    let mut text = String::from("\"");
    for byte in path {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            0x0b => text.push_str("\\v"),
            0x0c => text.push_str("\\f"),
            0x20..0x7f => text.push(char::from(*byte)),
            byte => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::diff_text;

    #[test]
    fn a_changed_line_is_shown_with_its_surroundings() {
        let old = b"a\nb\nc\nd\ne\nf\ng\nh\n";
        let new = b"a\nb\nc\nd\nE\nf\ng\nh\n";
        let expected = "--- a/x\n+++ b/x\n@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n";
        assert_eq!(diff_text("a/x", old, "b/x", new), expected);
        assert_eq!(diff_text("a/x", old, "b/x", old), "");
        assert_eq!(diff_text("a/x", b"\0", "b/x", b"text"), "binary files a/x and b/x differ\n");
    }

    #[test]
    fn a_line_ends_with_its_line_feed_alone() {
        let text = |old: &str, new: &str| diff_text("a", old.as_bytes(), "b", new.as_bytes());
        assert_eq!(text("", "x\n"), "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n");
        assert_eq!(
            text("a\rb", "a\rb\r\nc"),
            "--- a\n+++ b\n@@ -1 +1,2 @@\n-a\rb\n\\ No newline at end of file\n+a\rb\r\n+c\n\\ No newline at end of file\n"
        );
    }
}
