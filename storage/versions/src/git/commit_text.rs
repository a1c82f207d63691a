//! Commits as bytes, and snapshots as commits.
//!
//! [`write`] is the one commit a snapshot becomes, and [`read`] the one snapshot a commit becomes. Where writing
//! what was read gives the same bytes, the commit needs not be kept: it follows from its snapshot. What a commit
//! has no place for (microseconds, metadata) goes into a header `helios` of its own, so that reading what
//! was written gives the same snapshot, in this store or another.
//!
//! ```text
//! helios author 1700000000123456 60 Ann\tann@example.org
//!  committer …
//!  message …
//!  meta model\tsmall
//! ```
//!
//! One line for each part that plain git would not give back; `\\ \n \t \0` are escaped.

use gix::ObjectId as GitId;
use helix_protocol::{ObjectId, SnapshotId, Timestamp};

use crate::{Annotation, Signature, Snapshot};

/// Metadata that says which commit a snapshot is, where that does not follow from the rest of it.
pub(super) const COMMIT_KEY: &str = "git.commit";

/// A commit, its parts as they stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommitText<'a> {
    pub(super) tree: GitId,
    pub(super) parents: Vec<GitId>,
    author: &'a [u8],
    committer: &'a [u8],
    encoding: &'a [u8],
    helios: Option<Vec<u8>>,
    message: &'a [u8],
}

/// Finds the parts. Only a commit without a tree, or with ids that are none, is refused: git
/// repositories hold commits with all kinds of headers.
pub(super) fn parse(raw: &[u8]) -> Result<CommitText<'_>, &'static str> {
    let mut rest = raw;
    let tree = next_id(&mut rest, b"tree ")?.ok_or("it has no tree")?;
    let mut parents = Vec::new();
    while let Some(parent) = next_id(&mut rest, b"parent ")? {
        parents.push(parent);
    }
    let mut text = CommitText { tree, parents, author: b"", committer: b"", encoding: b"", helios: None, message: b"" };
    let mut in_helios = false;
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        if line.is_empty() {
            text.message = rest;
            break;
        }
        if let Some(more) = line.strip_prefix(b" ") {
            if let Some(helios) = text.helios.as_mut().filter(|_| in_helios) {
                helios.push(b'\n');
                helios.extend_from_slice(more);
            }
            continue;
        }
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        in_helios = name == b"helios" && text.helios.is_none();
        match name {
            b"author" if text.author.is_empty() => text.author = value,
            b"committer" if text.committer.is_empty() => text.committer = value,
            b"encoding" => text.encoding = value,
            _ if in_helios => text.helios = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok(text)
}

fn split_line(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    if rest.is_empty() {
        return None;
    }
    let end = rest.iter().position(|byte| *byte == b'\n');
    Some(end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 1..])))
}

fn next_id(rest: &mut &[u8], name: &[u8]) -> Result<Option<GitId>, &'static str> {
    let Some(after) = rest.strip_prefix(name) else { return Ok(None) };
    let (hex, after) = after.split_at_checked(40).ok_or("an id of it ends too early")?;
    let id = GitId::from_hex(hex).map_err(|_| "an id of it is none")?;
    *rest = after.strip_prefix(b"\n").ok_or("an id of it is too long")?;
    Ok(Some(id))
}

/// A commit as a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) snapshot: Snapshot,
    /// Whether [`write`] makes the commit's bytes from the snapshot, its [`COMMIT_KEY`] aside.
    pub(super) follows: bool,
}

/// Reads a commit. `git` is its id, `tree` and `parents` what its tree and parents became, `tree_follows`
/// whether the git tree can be told from `tree` alone. Where the commit does not follow from the snapshot, the snapshot
/// names it, so that no two commits become the same snapshot.
pub(super) fn read(
    raw: &[u8],
    text: &CommitText<'_>,
    git: GitId,
    tree: ObjectId,
    parents: Vec<SnapshotId>,
    tree_follows: bool,
) -> Read {
    let (author, committer) = (read_signature(text.author, text.encoding), read_signature(text.committer, text.encoding));
    let message = decode_text(text.message, text.encoding);
    let plain = Snapshot { tree, parents, author, committer, message, metadata: Default::default() };
    let with_helios = text.helios.as_deref().and_then(|lines| apply(plain.clone(), lines));
    let follows = |snapshot: &Snapshot| write(snapshot, text.tree, &text.parents) == raw;
    let (mut snapshot, follows) = match with_helios {
        Some(snapshot) if follows(&snapshot) => (snapshot, true),
        _ => {
            let follows = follows(&plain);
            (plain, follows)
        }
    };
    // A commit that carries this key in its header already cannot be told from one that was given it here.
    let follows = follows && (tree_follows || !snapshot.metadata.contains_key(COMMIT_KEY));
    if !(follows && tree_follows) {
        snapshot.metadata.insert(COMMIT_KEY.to_owned(), git.to_string());
    }
    Read { snapshot, follows }
}

/// What a tag object names.
pub(super) fn tag_target(raw: &[u8]) -> Option<GitId> {
    GitId::from_hex(raw.strip_prefix(b"object ")?.get(..40)?).ok()
}

/// What a tag object says.
pub(super) fn read_tag(raw: &[u8]) -> Annotation {
    let (mut rest, mut tagger) = (raw, &b""[..]);
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        tagger = line.strip_prefix(b"tagger ").unwrap_or(tagger);
    }
    Annotation { tagger: read_signature(tagger, b""), message: decode_text(rest, b"") }
}

/// The tag object of an annotated tag.
pub(super) fn write_tag(annotation: &Annotation, name: &str, commit: GitId) -> Vec<u8> {
    let (tagger, message) = (signature_line(&annotation.tagger), annotation.message.replace('\0', " "));
    format!("object {commit}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message}").into_bytes()
}

/// The commit of a snapshot.
pub(super) fn write(snapshot: &Snapshot, tree: GitId, parents: &[GitId]) -> Vec<u8> {
    let (author, committer) = (signature_line(&snapshot.author), signature_line(&snapshot.committer));
    let message = snapshot.message.replace('\0', " ");
    let mut lines: Vec<String> = Vec::new();
    for (name, signature, line) in [("author", &snapshot.author, &author), ("committer", &snapshot.committer, &committer)] {
        if read_signature(line.as_bytes(), b"") != *signature {
            let (name_text, email) = (escape(&signature.name), escape(&signature.email));
            lines.push(format!("{name} {} {} {name_text}\t{email}", signature.time.0, signature.offset_minutes));
        }
    }
    if message != snapshot.message {
        lines.push(format!("message {}", escape(&snapshot.message)));
    }
    lines.extend(snapshot.metadata.iter().map(|(key, value)| format!("meta {}\t{}", escape(key), escape(value))));

    let mut out = Vec::with_capacity(256 + message.len());
    let mut header = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    };
    header("tree", &tree.to_string());
    for parent in parents {
        header("parent", &parent.to_string());
    }
    header("author", &author);
    header("committer", &committer);
    if !lines.is_empty() {
        header("helios", &lines.join("\n "));
    }
    out.push(b'\n');
    out.extend_from_slice(message.as_bytes());
    out
}

/// The lines of a `helios` header over what plain git said; `None` where they are not such lines.
fn apply(mut snapshot: Snapshot, lines: &[u8]) -> Option<Snapshot> {
    for line in std::str::from_utf8(lines).ok()?.split('\n') {
        let (name, value) = line.split_once(' ')?;
        match name {
            "author" => snapshot.author = apply_signature(value)?,
            "committer" => snapshot.committer = apply_signature(value)?,
            "message" => snapshot.message = unescape(value)?,
            "meta" => {
                let (key, value) = value.split_once('\t')?;
                snapshot.metadata.insert(unescape(key)?, unescape(value)?);
            }
            _ => return None,
        }
    }
    Some(snapshot)
}

fn apply_signature(value: &str) -> Option<Signature> {
    let (time, rest) = value.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (name, email) = rest.split_once('\t')?;
    Some(Signature {
        name: unescape(name)?,
        email: unescape(email)?,
        time: Timestamp(time.parse().ok()?),
        offset_minutes: offset.parse().ok()?,
    })
}

/// `Name <email> seconds ±hhmm`, with what git allows.
fn signature_line(signature: &Signature) -> String {
    let clean = |text: &str| text.replace(['<', '>', '\n', '\0'], " ").trim().to_owned();
    let (name, email) = (clean(&signature.name), clean(&signature.email));
    let seconds = signature.time.0.div_euclid(1_000_000).max(0);
    let offset = i32::from(signature.offset_minutes).clamp(-5_999, 5_999);
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{name} <{email}> {seconds} {sign}{:02}{:02}", offset.abs() / 60, offset.abs() % 60)
}

fn read_signature(line: &[u8], encoding: &[u8]) -> Signature {
    let open = line.iter().position(|byte| *byte == b'<').unwrap_or(line.len());
    let close = line.iter().rposition(|byte| *byte == b'>').filter(|close| *close > open).unwrap_or(line.len());
    let name = line[..open].strip_suffix(b" ").unwrap_or(&line[..open]);
    let email = line.get(open + 1..close).unwrap_or(b"");
    let when = std::str::from_utf8(line.get(close + 1..).unwrap_or(b"")).unwrap_or("");
    let mut words = when.split_ascii_whitespace();
    let seconds: i64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Signature {
        name: decode_text(name, encoding),
        email: decode_text(email, encoding),
        time: Timestamp(seconds.saturating_mul(1_000_000)),
        offset_minutes: words.next().and_then(read_zone).unwrap_or(0),
    }
}

fn read_zone(word: &str) -> Option<i16> {
    let (sign, digits) = match word.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let value: i16 = (digits.len() == 4).then(|| digits.parse().ok())??;
    Some(sign * (value / 100 * 60 + value % 100))
}

/// Text in the encoding that a commit names; where that is not one we know, what is not UTF-8 becomes U+FFFD.
fn decode_text(bytes: &[u8], encoding: &[u8]) -> String {
    let known: String =
        encoding.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) if matches!(known.as_str(), "iso88591" | "latin1" | "l1" | "windows1252" | "cp1252") => {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        }
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\0', "\\0")
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use gix::ObjectId as GitId;
    use helix_objects::hash;
    use helix_protocol::{SnapshotId, Timestamp};
    use proptest::prelude::*;

    use super::{COMMIT_KEY, parse, read, write};
    use crate::{Signature, Snapshot};

    fn id(byte: u8) -> GitId {
        GitId::Sha1([byte; 20])
    }

    fn commit(headers: &str, message: &str) -> Vec<u8> {
        format!("tree {}\nparent {}\n{headers}\n{message}", id(1), id(2)).into_bytes()
    }

    fn follows(raw: &[u8]) -> (bool, Snapshot) {
        let text = parse(raw).unwrap();
        let read = read(raw, &text, id(9), hash(b"tree"), vec![SnapshotId(hash(b"parent"))], true);
        assert_eq!(read.snapshot.metadata.contains_key(COMMIT_KEY), !read.follows);
        (read.follows, read.snapshot)
    }

    #[test]
    fn an_ordinary_commit_follows_from_its_snapshot() {
        let raw = commit("author Ann <a@b> 1700000000 +0130\ncommitter Bob <b@c> 1700000001 -0800\n", "why\n\nbody\n");
        let (follows, snapshot) = follows(&raw);
        assert!(follows);
        assert_eq!(
            snapshot.author,
            Signature { name: "Ann".into(), email: "a@b".into(), time: Timestamp(1_700_000_000_000_000), offset_minutes: 90 }
        );
        assert_eq!((snapshot.committer.offset_minutes, snapshot.message.as_str()), (-480, "why\n\nbody\n"));
    }

    #[test]
    fn a_commit_that_does_not_follow_is_named_by_its_snapshot() {
        let who = "author Ann <a@b> 1 +0000\ncommitter Ann <a@b> 1 +0000\n";
        for (headers, message) in [
            ("author Ann <a@b> 1 -0000\ncommitter Ann <a@b> 1 +0000\n".to_owned(), "x"),
            ("author Ann  <a@b>  1 +0000\ncommitter Ann <a@b> 1 +0000\n".to_owned(), "x"),
            ("author Ann <a@b> 99999999999999999999 +0000\ncommitter Ann <a@b> 1 +0000\n".to_owned(), "x"),
            (format!("{who}gpgsig -----BEGIN\n  abc\n -----END\n"), "x"),
            (format!("{who}encoding ISO-8859-1\n"), "x"),
            (format!("{who}helios meta a\n"), "x"),
            (format!("{who}helios what is this\n"), "x"),
            (String::new(), "x"),
        ] {
            assert!(!follows(&commit(&headers, message)).0, "{headers:?}");
        }
        let raw = [commit(&format!("{who}encoding ISO-8859-1\n"), "caf"), vec![0xe9]].concat();
        assert_eq!(follows(&raw).1.message, "café");
    }

    prop_compose! {
        fn signatures()(name in ".{0,12}", email in ".{0,12}", time in any::<i64>(), offset_minutes in any::<i16>()) -> Signature {
            Signature { name, email, time: Timestamp(time), offset_minutes }
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_survives_being_a_commit(
            author in signatures(), committer in signatures(), message in any::<String>(),
            metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..3), parents in 0..3_u8,
        ) {
            let ours: Vec<SnapshotId> = (0..parents).map(|n| SnapshotId(hash(&[n]))).collect();
            let theirs: Vec<GitId> = (0..parents).map(id).collect();
            let snapshot = Snapshot { tree: hash(b"t"), parents: ours.clone(), author, committer, message, metadata };
            let raw = write(&snapshot, id(7), &theirs);
            let text = parse(&raw).unwrap();
            prop_assert_eq!((text.tree, &text.parents), (id(7), &theirs));
            let read = read(&raw, &text, id(9), snapshot.tree, ours, true);
            prop_assert_eq!((read.snapshot, read.follows), (snapshot, true));
        }

        #[test]
        fn whatever_the_bytes_are_reading_ends(bytes in prop::collection::vec(any::<u8>(), 0..200), headers in "[a-z <>0-9+\\-\n]{0,80}") {
            for raw in [bytes.clone(), commit(&headers, "m"), [commit(&headers, ""), bytes].concat()] {
                if let Ok(text) = parse(&raw) {
                    let read = read(&raw, &text, id(9), hash(b"t"), Vec::new(), true);
                    prop_assert!(read.follows || read.snapshot.metadata.contains_key(COMMIT_KEY));
                }
            }
        }
    }
}
