//! What one provider signed or encrypted, in places where another format's clients give it back unchanged.
//!
//! A provider that thinks wants its signatures back, or it refuses the turn or thinks anew, and most clients drop fields that
//! they do not know. Each format has something that clients must not touch: the id of a call, or what its own models signed or
//! encrypted. There stands what is not that format's own, so that it can be told from it when it comes back.

use helix_protocol::{Block, Extra, WireFormat, extra_of};

use crate::tools::THOUGHT_SIGNATURE;

/// Begins what is ours.
const OURS: &str = "helix-1:";
/// Stands between the id of a call and what it was signed with.
const SIGNED: &str = "__helix-1__";

/// Another format's words, for clients of `format`.
pub(crate) fn pack(extra: &Option<Box<Extra>>, format: WireFormat) -> Option<String> {
    let foreign = extra.as_ref().filter(|extra| extra.format != format)?;
    Some(format!("{OURS}{}", serde_json::to_string(foreign).ok()?))
}

/// The reverse; nothing where it is none of ours.
pub(crate) fn unpack(packed: &str) -> Option<Box<Extra>> {
    serde_json::from_str(packed.strip_prefix(OURS)?).ok()
}

/// A whole thought of another format as text that is base64 as well: clients of Gemini read its signatures as bytes, and keep a
/// thought that came in pieces as so many.
pub(crate) fn pack_base64(block: &Block, format: WireFormat) -> Option<String> {
    let Block::Thinking { extra: Some(extra), .. } = block else { return None };
    let packed = (extra.format != format).then(|| serde_json::to_string(block).ok()).flatten()?;
    let mut text = escaped(&format!("{OURS}{packed}"), '+');
    let whole = text.len().next_multiple_of(4);
    text.extend(std::iter::repeat_n('/', whole - text.len()));
    Some(text)
}

/// The reverse. Some clients write the other alphabet of base64.
pub(crate) fn unpack_base64(packed: &str) -> Option<Block> {
    let text = packed.trim_end_matches(['/', '_']).replace('-', "+");
    serde_json::from_str(plain(&text, '+')?.strip_prefix(OURS)?).ok()
}

/// The id of a call for clients: with what Gemini signed it with, which refuses a call that lost that. It has no character that
/// another provider refuses in an id.
pub(crate) fn signed_id(id: &str, extra: &Option<Box<Extra>>) -> String {
    let signed = extra_of(extra, WireFormat::Gemini).filter(|fields| fields.contains_key(THOUGHT_SIGNATURE));
    match signed.and_then(|_| serde_json::to_string(extra).ok()) {
        Some(packed) => format!("{id}{SIGNED}{}", escaped(&packed, '_')),
        None => id.to_owned(),
    }
}

/// The id as the provider knows it, and what it was signed with.
pub(crate) fn opened_id(id: &str) -> (&str, Option<Box<Extra>>) {
    let opened = id.rsplit_once(SIGNED).and_then(|(id, packed)| {
        let extra: Extra = serde_json::from_str(&plain(packed, '_')?).ok()?;
        Some((id, Some(Box::new(extra))))
    });
    opened.unwrap_or((id, None))
}

/// Letters and digits as they are; of everything else each byte as two hexadecimal digits behind `sign`.
fn escaped(text: &str, sign: char) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            escaped.push(sign);
            escaped.push_str(&format!("{byte:02x}"));
        }
    }
    escaped
}

fn plain(escaped: &str, sign: char) -> Option<String> {
    let mut pieces = escaped.split(sign);
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (byte, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(byte, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
