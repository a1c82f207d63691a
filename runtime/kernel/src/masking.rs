//! Secrets are replaced wherever output is kept or shown, also where one is cut between two pieces.

use std::sync::Arc;

use regex::bytes::Regex;

/// What stands in a secret's place.
const MASK: &[u8] = b"[secret]";

/// The secrets of a workspace. Cheap to clone; its `Debug` shows none.
#[derive(Clone, Default)]
pub struct Secrets {
    inner: Option<Arc<Patterns>>,
}

struct Patterns {
    values: Vec<Vec<u8>>,
    any: Regex,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.inner.as_ref().map_or(0, |patterns| patterns.values.len()))
    }
}

impl Secrets {
    /// Masks these values. Empty ones are left out.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values: Vec<Vec<u8>> =
            values.into_iter().filter(|value| !value.is_empty()).map(|value| value.as_bytes().to_vec()).collect();
        // The longest first: one secret may begin with another.
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        if values.is_empty() {
            return Self::default();
        }
        let escaped: Vec<String> = values.iter().map(|value| escape(value)).collect();
        let any = Regex::new(&format!("(?s-u){}", escaped.join("|"))).expect("escaped bytes are a regular expression");
        Self { inner: Some(Arc::new(Patterns { values, any })) }
    }

    /// `text` without secrets.
    pub fn mask(&self, text: String) -> String {
        let Some(patterns) = &self.inner else { return text };
        if !patterns.any.is_match(text.as_bytes()) {
            return text;
        }
        String::from_utf8_lossy(&patterns.any.replace_all(text.as_bytes(), MASK)).into_owned()
    }

    /// Masks a stream.
    pub fn stream(&self) -> Masked {
        Masked { secrets: self.clone(), held: Vec::new() }
    }
}

fn escape(value: &[u8]) -> String {
    value.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// A stream of bytes that is masked as it comes. What could be the beginning of a secret is held back
/// until the next piece decides.
#[derive(Debug)]
pub struct Masked {
    secrets: Secrets,
    held: Vec<u8>,
}

impl Masked {
    /// Takes a piece and gives what can be shown of everything so far.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let Some(patterns) = &self.secrets.inner else { return piece.to_vec() };
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        loop {
            // A shorter secret that is found may turn out to be the beginning of a longer one: hold that back too.
            let undecided = at + beginning(&patterns.values, &text[at..]);
            match patterns.any.find_at(&text, at) {
                Some(found) if found.start() < undecided => {
                    out.extend_from_slice(&text[at..found.start()]);
                    out.extend_from_slice(MASK);
                    at = found.end();
                }
                _ => {
                    out.extend_from_slice(&text[at..undecided]);
                    self.held = text.split_off(undecided);
                    return out;
                }
            }
        }
    }

    /// The stream has ended: the rest.
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.held);
        match &self.secrets.inner {
            Some(patterns) => patterns.any.replace_all(&rest, MASK).into_owned(),
            None => rest,
        }
    }
}

/// Where in `text` something starts that reaches its end and could go on to be a secret; its length where nothing does.
fn beginning(values: &[Vec<u8>], text: &[u8]) -> usize {
    let longest = values.first().map_or(0, Vec::len);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    (from..text.len())
        .find(|start| {
            let tail = &text[*start..];
            values.iter().any(|value| value.len() > tail.len() && value.starts_with(tail))
        })
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_masked_wherever_the_output_is_cut() {
        let secrets = Secrets::new(["hunter2", "hunter22", "tok\nen", ""]);
        let text = b"a hunter2 b hunter22 c tok\nen hunter";
        for cut in 0..=text.len() {
            let mut stream = secrets.stream();
            let mut out = stream.push(&text[..cut]);
            out.extend(stream.push(&text[cut..]));
            out.extend(stream.finish());
            assert_eq!(String::from_utf8(out).expect("text"), "a [secret] b [secret] c [secret] hunter", "cut at {cut}");
        }
        assert_eq!(secrets.mask("hunter2".to_owned()), "[secret]");
        assert_eq!(format!("{secrets:?}"), "Secrets(3)");
    }

    proptest! {
        #[test]
        fn no_cut_shows_a_secret(pieces in proptest::collection::vec("[ab]{0,6}", 0..12)) {
            let secrets = Secrets::new(["abab", "bba"]);
            let mut stream = secrets.stream();
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend(stream.push(piece.as_bytes()));
            }
            out.extend(stream.finish());
            let shown = String::from_utf8(out).expect("text");
            for part in shown.split("[secret]") {
                prop_assert!(!part.contains("abab") && !part.contains("bba"), "{shown}");
            }
            prop_assert_eq!(shown, secrets.mask(pieces.concat()));
        }
    }
}
