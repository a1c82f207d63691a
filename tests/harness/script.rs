//! What the scripted model says, written as values.

use serde_json::{Value, json};

/// A transcript of these scenarios.
pub fn transcript(scenarios: impl IntoIterator<Item = Value>) -> Value {
    json!({"model": "scripted", "chunk_ms": 1, "scenarios": scenarios.into_iter().collect::<Vec<_>>()})
}

/// A conversation, chosen where the prompt contains `phrase`.
pub fn scenario(phrase: &str, turns: impl IntoIterator<Item = Value>) -> Value {
    json!({"name": phrase, "phrase": phrase, "turns": turns.into_iter().collect::<Vec<_>>()})
}

/// A conversation of so many turns before its end. Each appends to the files of the turn before, one that git ignores included, and
/// reads what is there: a turn that is made twice, or on files that are not those of the turn before, shows in the final tree.
pub fn diligent(phrase: &str, turns: usize, delay_ms: u64) -> Value {
    let working = (1..=turns).map(|number| {
        let grow = format!("echo step-{number} >> log; mkdir -p build; wc -l < log >> build/lines; sleep 0.02");
        let check = format!("test $(wc -l < log) = {number} || echo wrong >> wrong; cat log");
        json!({
            "text": format!("I make step {number}."),
            "delay_ms": delay_ms,
            "calls": [
                {"tool": "shell", "arguments": {"command": grow}},
                {"tool": "write", "arguments": {"path": format!("parts/{number}.txt"), "content": format!("part {number}\n")}},
                {"tool": "shell", "arguments": {"command": check}},
            ],
        })
    });
    scenario(phrase, working.chain([json!({"text": "All steps are made."})]))
}
