//! One line for the timeline.

use helix_protocol::ToolOutcome;
use serde_json::Value;

/// Calls that are named; the others are counted.
const NAMED: usize = 4;
/// Characters of a command or text that are shown.
const SHOWN: usize = 60;

/// A call as one phrase: `edit src/lib.rs`, `shell cargo test → exit 1`.
pub(crate) fn of_call(name: &str, input: &Value, outcome: &ToolOutcome) -> String {
    let subject = ["path", "command", "pattern", "run", "title", "url", "query", "question"]
        .iter()
        .find_map(|key| input.get(key).and_then(Value::as_str));
    let mut phrase = match subject {
        Some(subject) => format!("{name} {}", shortened(subject)),
        None => name.to_owned(),
    };
    match outcome.exit_code {
        Some(code) if code != 0 => phrase.push_str(&format!(" → exit {code}")),
        None if outcome.is_error => phrase.push_str(" → error"),
        _ => {}
    }
    phrase
}

/// A call with all that it would do.
pub(crate) fn asked_for(name: &str, input: &Value) -> String {
    let field = |key: &str| input.get(key).and_then(Value::as_str);
    let subject = ["command", "path", "patch", "title"].iter().find_map(|key| field(key));
    let mut text = subject.map_or_else(|| input.to_string(), str::to_owned);
    if input.get("all") == Some(&Value::Bool(true)) {
        text.push_str(", everywhere in it");
    }
    for (key, sign) in [("old", "-"), ("new", "+"), ("content", "+"), ("prompt", ">")] {
        text.extend(field(key).into_iter().flat_map(str::lines).map(|line| format!("\n    {sign} {line}")));
    }
    format!("{name} {text}")
}

/// A call of a step as a person is asked about it, so that nothing is allowed unseen: of what is very long
/// it says where the rest is.
pub(crate) fn to_approve(name: &str, input: &Value, step: u64) -> String {
    const MOST: usize = 4_000;
    let text = asked_for(name, input);
    let rest = text.chars().count().saturating_sub(MOST);
    if rest == 0 {
        return text;
    }
    let shown: String = text.chars().take(MOST).collect();
    format!("{shown}… and {rest} more characters; all of it: `helix task log TASK --step {step} --whole`")
}

/// Phrases as one line.
pub(crate) fn of_calls(phrases: &[String]) -> String {
    let mut named: Vec<String> = phrases.iter().take(NAMED).cloned().collect();
    if phrases.len() > NAMED {
        named.push(format!("{} more", phrases.len() - NAMED));
    }
    named.join(" · ")
}

/// The first line of a text, cut.
pub(crate) fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let more = line.chars().count() > SHOWN || text.trim().lines().count() > 1;
    let shown: String = line.chars().take(SHOWN).collect();
    if more { format!("{}…", shown.trim_end()) } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_is_shown_what_a_change_takes_away_and_what_it_puts_in_its_place() {
        let edit = json!({"path": "a.rs", "old": "one\ntwo", "new": "three", "all": true});
        let shown = "edit a.rs, everywhere in it\n    - one\n    - two\n    + three";
        assert_eq!(asked_for("edit", &edit), shown);
        assert_eq!(asked_for("write", &json!({"path": "a", "content": "x\ny\n"})), "write a\n    + x\n    + y");
        assert_eq!(asked_for("sub_agent", &json!({"title": "t", "prompt": "do it"})), "sub_agent t\n    > do it");
        assert_eq!(asked_for("shell", &json!({"command": "make\nmake install"})), "shell make\nmake install");
        let long = to_approve("write", &json!({"path": "a", "content": "x".repeat(9_000)}), 3);
        assert!(
            long.ends_with("… and 5014 more characters; all of it: `helix task log TASK --step 3 --whole`"),
            "{}",
            &long[long.len() - 80..]
        );
    }
}
