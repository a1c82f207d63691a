//! Ids of content in text: rows name content in many places, and what is named must be kept, so they are looked for in all of it.

use std::collections::HashSet;

use helix_protocol::ObjectId;

/// The length of an id in text.
const DIGITS: usize = 64;

/// Adds every run of exactly 64 hexadecimal digits in lower case.
pub(crate) fn collect(text: &str, named: &mut HashSet<ObjectId>) {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    for run in text.as_bytes().split(|byte| !digit(byte)).filter(|run| run.len() == DIGITS) {
        named.extend(std::str::from_utf8(run).ok().and_then(|run| run.parse::<ObjectId>().ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_anywhere_and_longer_or_shorter_runs_are_none() {
        let id = ObjectId([0xa7; 32]);
        let text = format!(
            "{{\"tree\":\"{id}\",\"long\":\"{id}0\",\"short\":\"{}\",\"upper\":\"{}\"}}",
            &id.to_string()[1..],
            "A".repeat(64)
        );
        let mut named = HashSet::new();
        collect(&text, &mut named);
        assert_eq!(named, HashSet::from([id]));
    }
}
