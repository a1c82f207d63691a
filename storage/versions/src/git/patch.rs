//! Differences as patches that `git apply` takes whole: modes, links, and bytes that are no text.

use bytes::Bytes;
use gix::zlib::Compression;
use gix::zlib::stream::deflate::Compress;
use helix_objects::ObjectStore;
use helix_protocol::FileMode;

use super::failed;
use super::pack_writer::deflate;
use crate::text::hunks;
use crate::{EntryChange, Quote, TreeEntry, VersionError, is_binary, quote_path};

/// git's alphabet for numbers of base 85.
const DIGITS: &[u8; 85] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
/// How many bytes a line of a binary patch has.
const LINE: usize = 52;
/// How much of an id is shown where git does not need it whole.
const SHORT: usize = 12;

/// One change as git would write it with `git diff --binary`. Empty for a folder without files, which git does not know.
pub fn patch(store: &dyn ObjectStore, change: &EntryChange) -> Result<String, VersionError> {
    let file = |entry: &Option<TreeEntry>| entry.clone().filter(|entry| entry.mode != FileMode::Directory);
    let (before, after) = (file(&change.before), file(&change.after));
    match (&before, &after) {
        (None, None) => Ok(String::new()),
        // What became another kind of thing is one that went and one that came.
        (Some(old), Some(new)) if (old.mode == FileMode::Symlink) != (new.mode == FileMode::Symlink) => {
            Ok(one(store, &change.path, Some(old), None)? + &one(store, &change.path, None, Some(new))?)
        }
        (old, new) => one(store, &change.path, old.as_ref(), new.as_ref()),
    }
}

fn one(
    store: &dyn ObjectStore,
    path: &[u8],
    before: Option<&TreeEntry>,
    after: Option<&TreeEntry>,
) -> Result<String, VersionError> {
    let content = |entry: Option<&TreeEntry>| entry.map_or_else(|| Ok(Bytes::new()), |entry| store.read(entry.id));
    let (old, new) = (content(before)?, content(after)?);
    let side = |prefix: &str| quote_path(&[prefix.as_bytes(), path].concat(), Quote::Unusual);
    let (a, b) = (side("a/"), side("b/"));
    let mut text = format!("diff --git {a} {b}\n");
    match (before, after) {
        (None, Some(after)) => text.push_str(&format!("new file mode {}\n", mode(after.mode))),
        (Some(before), None) => text.push_str(&format!("deleted file mode {}\n", mode(before.mode))),
        (Some(before), Some(after)) if before.mode != after.mode => {
            text.push_str(&format!("old mode {}\nnew mode {}\n", mode(before.mode), mode(after.mode)));
        }
        _ => {}
    }
    if before.is_some() && after.is_some() && old == new {
        return Ok(text);
    }
    let (old_text, new_text) = (as_text(&old), as_text(&new));
    let shown = if old_text.is_some() && new_text.is_some() { SHORT } else { 40 };
    let same_mode = before.zip(after).filter(|(before, after)| before.mode == after.mode);
    let same_mode = same_mode.map_or_else(String::new, |(_, after)| format!(" {}", mode(after.mode)));
    let (old_id, new_id) = (blob_id(before, &old)?, blob_id(after, &new)?);
    text.push_str(&format!("index {}..{}{same_mode}\n", &old_id[..shown], &new_id[..shown]));
    match (old_text, new_text) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => {
            let name = |entry: Option<&TreeEntry>, name: &str| match entry {
                // A tab ends a name that has spaces.
                Some(_) if name.contains(' ') && !name.starts_with('"') => format!("{name}\t"),
                Some(_) => name.to_owned(),
                None => "/dev/null".to_owned(),
            };
            text.push_str(&format!("--- {}\n+++ {}\n{}", name(before, &a), name(after, &b), hunks(old, new)));
        }
        _ => text.push_str(&format!("GIT binary patch\n{}\n{}\n", literal(&new), literal(&old))),
    }
    Ok(text)
}

/// Bytes that a patch of lines can have: it is text itself.
fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|_| !is_binary(bytes))
}

fn mode(mode: FileMode) -> &'static str {
    match mode {
        FileMode::Regular => "100644",
        FileMode::Executable => "100755",
        FileMode::Symlink => "120000",
        FileMode::Directory => "040000",
    }
}

/// The id that git has for a file, 40 digits; zeros where there is none. git holds binary patches against it.
fn blob_id(entry: Option<&TreeEntry>, bytes: &[u8]) -> Result<String, VersionError> {
    if entry.is_none() {
        return Ok("0".repeat(40));
    }
    let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, bytes);
    id.map(|id| id.to_string()).map_err(|error| failed("a patch".as_ref(), error))
}

/// Whole content: its length, then the bytes as zlib has them, each line with its own length and in base 85.
fn literal(bytes: &[u8]) -> String {
    let packed = deflate(&mut Compress::new(Compression::BEST_SPEED), bytes);
    let mut text = format!("literal {}\n", bytes.len());
    for line in packed.chunks(LINE) {
        let length = line.len() as u8;
        text.push(char::from(if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 }));
        for four in line.chunks(4) {
            let mut whole = [0; 4];
            whole[..four.len()].copy_from_slice(four);
            text.push_str(&base_85(u32::from_be_bytes(whole)));
        }
        text.push('\n');
    }
    text
}

/// Five digits.
fn base_85(mut number: u32) -> String {
    let mut digits = [0; 5];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 85) as usize];
        number /= 85;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}
