//! Paths as git shows them where a line must stay a line.

use std::fmt::Write as _;

/// When a path is put into quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// Where it has bytes that are not plain ASCII, a quote or a backslash.
    Unusual,
    /// Where it has a space, too: `status` in its short form.
    Spaces,
}

/// A path, quoted in the way of C where it is unusual.
pub fn show(path: &[u8], quote: Quote) -> String {
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

/// A path for a program: bytes that are no UTF-8 become U+FFFD.
pub fn plain(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Whether a path is another one, or lies beneath it. Everything lies beneath the empty one.
pub fn is_beneath(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::{Quote, show};

    #[test]
    fn unusual_paths_are_quoted_as_git_quotes_them() {
        assert_eq!(show(b"src/a.rs", Quote::Spaces), "src/a.rs");
        assert_eq!((show(b"a b", Quote::Unusual), show(b"a b", Quote::Spaces)), ("a b".to_owned(), "\"a b\"".to_owned()));
        assert_eq!(show("ä\n\"\\\x01".as_bytes(), Quote::Unusual), "\"\\303\\244\\n\\\"\\\\\\001\"");
    }
}
