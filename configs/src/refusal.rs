//! What a person is told of a file that cannot be taken: file and line, the key's path, and the nearest known key.

use helix_protocol::{Code, Failure};
use serde::de::DeserializeOwned;

/// Reads YAML, refusing unknown keys, wrong types and repeated keys. `source` is the file's name in the refusal.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, source: &str) -> Result<T, Failure> {
    // Typed maps keep the last of two equal keys; the untyped form refuses them.
    let untyped = serde_norway::from_str::<serde_norway::Value>(text).map_err(|error| refuse(&error, source))?;
    if let Some((path, number)) = not_finite(&untyped, "") {
        return Err(Failure::new(Code::InvalidConfig, format!("{path} is {number}")).hint("it must be a finite number"));
    }
    serde_norway::from_str(text).map_err(|error| refuse(&error, source))
}

/// The first number that is none, or has no end, with its path: no key takes one, and JSON has none.
fn not_finite(value: &serde_norway::Value, path: &str) -> Option<(String, f64)> {
    match value {
        serde_norway::Value::Number(number) => {
            number.as_f64().filter(|number| !number.is_finite()).map(|number| (path.to_owned(), number))
        }
        serde_norway::Value::Mapping(fields) => {
            fields.iter().find_map(|(key, field)| not_finite(field, &join(path, key.as_str().unwrap_or("?"))))
        }
        serde_norway::Value::Sequence(items) => {
            items.iter().enumerate().find_map(|(at, item)| not_finite(item, &format!("{path}[{at}]")))
        }
        _ => None,
    }
}

fn refuse(error: &serde_norway::Error, source: &str) -> Failure {
    let line = error.location().map_or(1, |at| at.line());
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    let (section, fault) = split_path(text);
    let place = format!("{source}:{line}");
    let hint = "`helix config show --defaults` prints every key with its meaning";
    if let Some(unknown) = Unknown::read(fault, "unknown field") {
        let path = join(section, unknown.word);
        return Failure::new(Code::InvalidConfig, format!("{place}: there is no key {path}"))
            .hint(unknown.nearest().map_or_else(|| hint.to_owned(), |known| format!("did you mean {}?", join(section, known))));
    }
    if let Some(unknown) = Unknown::read(fault, "unknown variant") {
        let known: Vec<&str> = unknown.known.iter().copied().filter(|word| !FORMER.contains(word)).collect();
        let mut advice = format!("one of: {}", known.join(", "));
        if let Some(known) = unknown.nearest() {
            advice = format!("did you mean {known}? {advice}");
        }
        return Failure::new(Code::InvalidConfig, format!("{place}: {section} cannot be {:?}", unknown.word)).hint(advice);
    }
    if let Some((found, expected)) = fault.split_once(", expected ") {
        let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
        let subject = if section.is_empty() { "the file" } else { section };
        let message = format!("{place}: {subject} is {found}, and {} is expected", plain_type(expected));
        return Failure::new(Code::InvalidConfig, message).hint(hint);
    }
    let subject = if section.is_empty() { String::new() } else { format!("{section}: ") };
    let advice = if fault.contains("duplicate") { "keep one of the two" } else { hint };
    Failure::new(Code::InvalidConfig, format!("{place}: {subject}{fault}")).hint(advice)
}

/// Words of before that are still read, and not offered.
const FORMER: [&str; 1] = ["process"];

/// A word that is not known, and those that are, as serde writes them.
struct Unknown<'a> {
    word: &'a str,
    known: Vec<&'a str>,
}

impl<'a> Unknown<'a> {
    fn read(fault: &'a str, what: &str) -> Option<Self> {
        let rest = fault.strip_prefix(what)?;
        let mut quoted = rest.split('`').skip(1).step_by(2);
        Some(Self { word: quoted.next()?, known: quoted.collect() })
    }

    fn nearest(&self) -> Option<&'a str> {
        nearest(self.word, self.known.iter().copied())
    }
}

/// The known word most like `word`, if any is alike at all.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// Splits `workers.lease: unknown field …` into its path and its fault.
fn split_path(text: &str) -> (&str, &str) {
    match text.split_once(": ") {
        Some((path, fault)) if !path.contains(' ') && !path.contains('`') => (path, fault),
        _ => ("", text),
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// serde's name of a type, in words.
fn plain_type(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative and not too large".to_owned(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" => "text".to_owned(),
        "path string" => "a path".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other == "a map" || other.starts_with("struct ") => "a section of keys and values".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn refusal(text: &str) -> (String, String) {
        let failure = parse::<Config>(text, "helix.yaml").expect_err("the text is wrong");
        assert_eq!(failure.code, Code::InvalidConfig);
        (failure.message, failure.hint)
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let (message, hint) = refusal("workers:\n  lease:\n    heartbet_ms: 5\n");
        assert_eq!(message, "helix.yaml:3: there is no key workers.lease.heartbet_ms");
        assert_eq!(hint, "did you mean workers.lease.heartbeat_ms?");
        let (message, hint) = refusal("worker:\n  local: 1\n");
        assert_eq!((message.as_str(), hint.as_str()), ("helix.yaml:1: there is no key worker", "did you mean workers?"));
    }

    #[test]
    fn an_unknown_key_below_a_name_of_ones_own_is_refused_too() {
        let (message, hint) = refusal("llm:\n  providers:\n    mine:\n      prices:\n        large: {inputs: 1.0}\n");
        assert_eq!(message, "helix.yaml:5: there is no key llm.providers.mine.prices.large.inputs");
        assert_eq!(hint, "did you mean llm.providers.mine.prices.large.input?");
    }

    #[test]
    fn a_mistyped_value_names_what_is_expected() {
        let (message, _) = refusal("workers:\n  local: many\n");
        assert_eq!(
            message,
            "helix.yaml:2: workers.local is string \"many\", and a whole number that is not negative and not too large is expected"
        );
        let (message, _) = refusal("workers: 3\n");
        assert_eq!(message, "helix.yaml:1: workers is integer `3`, and a section of keys and values is expected");
    }

    #[test]
    fn a_word_outside_the_list_is_refused_with_the_list() {
        let (message, hint) = refusal("logging:\n  format: jsn\n");
        assert_eq!(message, "helix.yaml:2: logging.format cannot be \"jsn\"");
        assert_eq!(hint, "did you mean json? one of: text, json");
    }

    #[test]
    fn a_word_of_before_is_read_and_not_offered() {
        assert_eq!(refusal("tasks: {isolation: none}\n").1, "one of: read_only, workspace, full");
        assert!(parse::<Config>("tasks: {isolation: process}\n", "helix.yaml").is_ok());
    }

    #[test]
    fn a_number_that_is_none_is_refused_by_its_own_key() {
        assert_eq!(refusal("budgets: {daily_usd: .nan}\n").0, "budgets.daily_usd is NaN");
        let text = "llm:\n  providers:\n    mine: {prices: {large: {input: .inf}}}\n";
        assert_eq!(refusal(text).0, "llm.providers.mine.prices.large.input is inf");
    }

    #[test]
    fn a_key_given_twice_is_refused_in_sections_and_in_maps() {
        assert!(refusal("workers:\n  local: 1\n  local: 2\n").0.contains("duplicate"));
        assert!(refusal("llm:\n  providers:\n    mine: {}\n    mine: {}\n").0.contains("duplicate"));
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse::<Config>("", "helix.yaml"), Ok(Config::default()));
        assert_eq!(parse::<Config>("workers:\n", "helix.yaml"), Ok(Config::default()));
    }

    #[test]
    fn every_refusal_has_a_next_step() {
        for text in ["workers: [\n", "workers:\n  local: 1\n  local: 2\n", "\tworkers: 1\n"] {
            let (message, hint) = refusal(text);
            assert!(!hint.is_empty(), "{message}");
        }
        let nameless = crate::ProjectFile::parse("secrets: [{}]\n").expect_err("a secret has a name");
        assert!(nameless.message.contains("missing field") && !nameless.hint.is_empty(), "{nameless:?}");
    }
}
