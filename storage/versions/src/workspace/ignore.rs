//! git's ignore patterns.
//!
//! Globs are matched by gix's `wildmatch`; how lines become patterns and what a pattern is held against follows
//! gitignore(5) and, where that is silent, what git does (the tests ask git itself). The literal start of a pattern with a
//! slash is compared before the glob is looked at, so `a**/b` means `a` followed by `**/b`, as in git.

use std::sync::Arc;

use gix::bstr::ByteSlice;
use gix::glob::wildmatch;

/// The patterns of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    /// Without `!`, a leading and a final slash.
    text: Box<[u8]>,
    /// Bytes of `text` in front of the first of `*?[\`.
    literal: usize,
    verdict: Verdict,
    only_folders: bool,
    /// It is held against the name alone.
    anywhere: bool,
}

/// What the last pattern that fits says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ignore,
    Carry,
}

/// What a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Folder,
    Other,
}

impl Patterns {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        Self { patterns: lines.filter_map(Pattern::parse).collect() }
    }

    /// Adds stronger patterns.
    pub(super) fn append(&mut self, mut stronger: Self) {
        self.patterns.append(&mut stronger.patterns);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What these patterns say of `path`, which is seen from the folder they are for.
    fn verdict(&self, path: &[u8], sort: Sort) -> Option<Verdict> {
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(path, |slash| &path[slash + 1..]);
        self.patterns.iter().rev().find(|pattern| pattern.fits(path, name, sort)).map(|pattern| pattern.verdict)
    }
}

impl Pattern {
    fn parse(line: &[u8]) -> Option<Self> {
        if line.first() == Some(&b'#') {
            return None;
        }
        // A NUL ends a line for git.
        let line = line.find_byte(0).map_or(line, |end| &line[..end]);
        let line = without_trailing_spaces(line);
        let (verdict, text) = match line.strip_prefix(b"!") {
            Some(rest) => (Verdict::Carry, rest),
            None => (Verdict::Ignore, line),
        };
        let (only_folders, text) = match text.strip_suffix(b"/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let anywhere = !text.contains(&b'/');
        let text = text.strip_prefix(b"/").unwrap_or(text);
        if text.is_empty() {
            return None;
        }
        let literal = text.find_byteset(br"*?[\").unwrap_or(text.len());
        Some(Self { text: text.into(), literal, verdict, only_folders, anywhere })
    }

    fn fits(&self, path: &[u8], name: &[u8], sort: Sort) -> bool {
        if self.only_folders && sort != Sort::Folder {
            return false;
        }
        let (literal, glob) = self.text.split_at(self.literal);
        if self.anywhere {
            return match glob {
                b"" => name == literal,
                [b'*', end @ ..] if literal.is_empty() && end.find_byteset(br"*?[\").is_none() => name.ends_with(end),
                _ => name.starts_with(literal) && wildmatch(self.text.as_bstr(), name.as_bstr(), wildmatch::Mode::empty()),
            };
        }
        let Some(rest) = path.strip_prefix(literal) else { return false };
        if glob.is_empty() {
            return rest.is_empty();
        }
        wildmatch(glob.as_bstr(), rest.as_bstr(), wildmatch::Mode::NO_MATCH_SLASH_LITERAL)
    }
}

/// Spaces at the end do not count, unless the first of them is behind a backslash.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = None;
    let mut bytes = line.iter().enumerate();
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b' ' => {
                end.get_or_insert(place);
            }
            b'\\' if bytes.next().is_none() => return line,
            _ => end = None,
        }
    }
    end.map_or(line, |end| &line[..end])
}

/// The ignore files that speak about a folder, from its own up to the root's and what stands behind that.
#[derive(Debug)]
pub(super) struct Chain {
    parent: Option<Arc<Chain>>,
    /// Bytes of the path of the folder that the patterns are for, its final slash included.
    prefix: usize,
    patterns: Patterns,
}

impl Chain {
    /// Puts the patterns of the folder `path` in front of its parent's; none change nothing.
    pub(super) fn with(parent: Option<Arc<Chain>>, path: &[u8], patterns: Patterns) -> Option<Arc<Self>> {
        if patterns.is_empty() {
            return parent;
        }
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        Some(Arc::new(Self { parent, prefix, patterns }))
    }

    /// Whether a path in a folder that is not itself ignored is ignored.
    pub(super) fn ignores(chain: Option<&Arc<Self>>, path: &[u8], sort: Sort) -> bool {
        let mut link = chain;
        while let Some(chain) = link {
            if let Some(verdict) = chain.patterns.verdict(&path[chain.prefix..], sort) {
                return verdict == Verdict::Ignore;
            }
            link = chain.parent.as_ref();
        }
        false
    }
}

/// Reads bytes as an ignore file and asks it about each of its own lines, and some paths; what it says twice is the same.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let (patterns, again) = (Patterns::parse(bytes), Patterns::parse(bytes));
    let own = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line.len() < 256);
    for path in own.chain([b"a".as_slice(), b"a/b.c", b"target/debug/x"]) {
        for sort in [Sort::Folder, Sort::Other] {
            assert_eq!(patterns.verdict(path, sort), again.verdict(path, sort));
        }
    }
}
