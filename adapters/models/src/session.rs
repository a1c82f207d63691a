//! The name of a session, in as many characters as a service takes.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};

/// `session` as it is, or 64 characters of a hash where it has more than `most` bytes.
pub(crate) fn named_within(session: &str, most: usize) -> Cow<'_, str> {
    if session.len() <= most {
        return Cow::Borrowed(session);
    }
    Cow::Owned(digest(&SHA256, session.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_hashed_and_stays_apart_from_others() {
        let long = |end: &str| format!("{}{end}", "x".repeat(64));
        assert_eq!(named_within(&"x".repeat(64), 64), "x".repeat(64));
        let hashed = named_within(&long("a"), 64).into_owned();
        assert_eq!(hashed.len(), 64);
        assert_eq!(named_within(&long("a"), 64), hashed);
        assert_ne!(named_within(&long("b"), 64), hashed);
    }
}
