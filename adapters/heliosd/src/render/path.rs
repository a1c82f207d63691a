//! Paths as git shows them where a line must stay a line.

use helios_client::Text;
pub use helix_versions::{Quote, quote_path as show};
use serde_json::{Value, json};

/// A path in JSON: a string, or `{"base64": …}` where it is no UTF-8.
pub fn to_json(path: &[u8]) -> Value {
    json!(Text::new(path))
}

/// A path within a message: bytes that are no UTF-8 become U+FFFD.
pub fn plain(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Whether a path is another one, or lies beneath it. Everything lies beneath the empty one.
pub fn is_beneath(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A path as it is written in a folder of the workspace, both from its root: `../a`. The folder itself is `./`.
pub fn from_folder(path: &[u8], folder: &[u8]) -> Vec<u8> {
    let (mut above, mut written) = (folder, Vec::new());
    while !is_beneath(path, above) {
        above = above.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |place| &above[..place]);
        written.extend_from_slice(b"../");
    }
    let rest = &path[above.len()..];
    written.extend_from_slice(rest.strip_prefix(b"/").filter(|_| !above.is_empty()).unwrap_or(rest));
    if written.is_empty() { b"./".to_vec() } else { written }
}

#[cfg(test)]
mod tests {
    use super::{Quote, from_folder, show};

    #[test]
    fn paths_are_written_from_the_folder_that_one_is_in() {
        let cases = [
            ("a", "", "a"),
            ("d/a", "d", "a"),
            ("a", "d", "../a"),
            ("d/a", "d/e", "../a"),
            ("de/a", "d", "../de/a"),
            ("d/", "d", "./"),
            ("d/", "d/e", "../"),
            ("e/f/", "d", "../e/f/"),
            ("x", "a/b/c", "../../../x"),
            ("a/b/c/x", "a/b", "c/x"),
        ];
        for (path, folder, written) in cases {
            assert_eq!(from_folder(path.as_bytes(), folder.as_bytes()), written.as_bytes(), "{path} in {folder:?}");
        }
    }

    #[test]
    fn unusual_paths_are_quoted_as_git_quotes_them() {
        assert_eq!(show(b"src/a.rs", Quote::Spaces), "src/a.rs");
        assert_eq!((show(b"a b", Quote::Unusual), show(b"a b", Quote::Spaces)), ("a b".to_owned(), "\"a b\"".to_owned()));
        assert_eq!(show("ä\n\"\\\x01".as_bytes(), Quote::Unusual), "\"\\303\\244\\n\\\"\\\\\\001\"");
    }
}
