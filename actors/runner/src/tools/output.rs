//! Keeping an answer within its limit: the beginning and the end, and what was left out between them.

/// A text within its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The text.
    pub text: String,
    /// Whether something was left out.
    pub truncated: bool,
}

/// Keeps the first and the last part of a text that is longer than `limit` bytes. `more` says in the
/// gap where the rest is found.
pub fn shorten(text: String, limit: usize, more: &str) -> Cut {
    if text.len() <= limit {
        return Cut { text, truncated: false };
    }
    let left_out = |head: usize, tail: usize| text.len() - head - tail;
    let half = limit.saturating_sub(more.len() + 64) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    let gap = left_out(head, text.len() - tail);
    let text =
        format!("{}\n[{gap} bytes left out{}{more}]\n{}", &text[..head], if more.is_empty() { "" } else { ": " }, &text[tail..]);
    Cut { text, truncated: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_gap_says_how_much_is_missing_and_where_it_is() {
        let cut = shorten("a".repeat(500) + &"b".repeat(500), 200, "read_output");
        assert_eq!(
            cut,
            Cut { text: format!("{}\n[876 bytes left out: read_output]\n{}", "a".repeat(62), "b".repeat(62)), truncated: true }
        );
    }

    proptest! {
        #[test]
        fn a_cut_text_is_within_its_limit(text in "\\PC{0,400}", limit in 100..300usize) {
            let cut = shorten(text.clone(), limit, "more");
            prop_assert!(cut.text.len() <= limit, "{} > {limit}", cut.text.len());
            prop_assert_eq!(cut.truncated, text.len() > limit);
        }
    }
}
