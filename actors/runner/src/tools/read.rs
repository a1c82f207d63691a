//! `read` and `write`.

use helix_protocol::{Code, Failure, ToolOutcome};

use super::arguments::{ReadArguments, WriteArguments};
use super::images;
use crate::confine::{Confined, Written};

/// Lines of a page where the call does not say.
const PAGE: usize = 2000;

/// A file's lines with their numbers, or the picture that it is.
pub fn read(confined: &Confined, arguments: &ReadArguments, limit: usize) -> Result<ToolOutcome, Failure> {
    let path = &arguments.path;
    let bytes = confined.read(path)?;
    if let Some(picture) = images::picture(path, &bytes)? {
        return Ok(picture);
    }
    if helix_versions::is_binary(&bytes) {
        let size = bytes.len();
        return Err(Failure::new(Code::FileUnreadable, format!("{path} is a binary file of {size} bytes"))
            .hint("look at it with a command: file, xxd, strings"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let total = text.lines().count();
    if total == 0 {
        return Ok(ToolOutcome::ok(format!("{path} is empty")));
    }
    let first = arguments.offset.unwrap_or(1).max(1);
    if first > total {
        return Err(Failure::new(Code::InvalidToolCall, format!("{path} has {total} lines, so there is no line {first}")));
    }
    let wanted = arguments.limit.unwrap_or(PAGE).max(1);
    let mut page = String::new();
    let mut last = first - 1;
    for (at, line) in text.lines().enumerate().skip(first - 1).take(wanted) {
        let numbered = format!("{:>6}\t{line}\n", at + 1);
        if page.len() + numbered.len() + 100 > limit {
            if page.is_empty() {
                let cut = line.floor_char_boundary(limit.saturating_sub(100).max(1));
                page = format!("{:>6}\t{} [the line goes on for {} bytes]\n", at + 1, &line[..cut], line.len() - cut);
                last = at + 1;
            }
            break;
        }
        page.push_str(&numbered);
        last = at + 1;
    }
    let truncated = last < total;
    if truncated {
        page.push_str(&format!("[lines {first} to {last} of {total}; go on with offset {}]\n", last + 1));
    }
    Ok(ToolOutcome { truncated, ..ToolOutcome::ok(page) })
}

/// Writes a whole file.
pub fn write(confined: &Confined, arguments: &WriteArguments) -> Result<ToolOutcome, Failure> {
    let WriteArguments { path, content } = arguments;
    let did = match confined.write(path, content.as_bytes())? {
        Written::Made => "made",
        Written::Replaced => "replaced",
    };
    Ok(ToolOutcome::ok(format!("{did} {path}: {} lines, {} bytes", content.lines().count(), content.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(content: &[u8]) -> (tempfile::TempDir, Confined) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f"), content).expect("written");
        let confined = Confined::open(folder.path()).expect("a root");
        (folder, confined)
    }

    fn lines(offset: usize, limit: usize) -> ReadArguments {
        ReadArguments { path: "f".into(), offset: Some(offset), limit: Some(limit) }
    }

    #[test]
    fn a_page_says_which_lines_it_has_and_how_to_go_on() {
        let (_folder, confined) = workspace(b"one\ntwo\nthree\nfour\n");
        let page = read(&confined, &lines(2, 2), 10_000).expect("read");
        assert_eq!(
            (page.content.as_str(), page.truncated),
            ("     2\ttwo\n     3\tthree\n[lines 2 to 3 of 4; go on with offset 4]\n", true)
        );
        let last = read(&confined, &lines(4, 2), 10_000).expect("read");
        assert_eq!((last.content.as_str(), last.truncated), ("     4\tfour\n", false));
        assert_eq!(read(&confined, &lines(5, 1), 10_000).expect_err("beyond").message, "f has 4 lines, so there is no line 5");
    }

    #[test]
    fn a_binary_file_and_a_line_without_end_are_reported() {
        let (_folder, confined) = workspace(b"\0\x01\x02");
        assert_eq!(read(&confined, &lines(1, 1), 1000).expect_err("binary").message, "f is a binary file of 3 bytes");
        let (_folder, confined) = workspace(&[b'x'; 5000]);
        let page = read(&confined, &lines(1, 1), 1000).expect("read");
        assert!(page.content.len() <= 1000 && page.content.contains("[the line goes on for 4100 bytes]"), "{}", page.content);
    }
}
