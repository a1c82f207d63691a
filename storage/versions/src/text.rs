//! Differences between texts, for people and for models.

use similar::TextDiff;

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
    TextDiff::from_lines(old.as_ref(), new.as_ref()).unified_diff().context_radius(3).header(old_name, new_name).to_string()
}

/// As git decides: a NUL among the first 8,000 bytes.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(8_000).any(|byte| *byte == 0)
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
}
