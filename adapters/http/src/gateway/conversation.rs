//! Whose conversation a request belongs to: what the client says, else how the conversation begins, which stays
//! the same while it grows.

use serde_json::Value;

use super::keys::Caller;

/// Where formats put what stands before the messages.
const BEFORE: [&str; 4] = ["system", "instructions", "systemInstruction", "system_instruction"];

/// A conversation of a caller's; `None` where the request is none.
pub(crate) fn session(caller: Option<&Caller>, body: &Value) -> Option<String> {
    let whose = caller.map(|caller| caller.key.id.to_string()).unwrap_or_default();
    let said = ["/prompt_cache_key", "/metadata/user_id", "/conversation"].iter().find_map(|at| body.pointer(at)?.as_str());
    let which = said.map(str::to_owned).or_else(|| beginning(body))?;
    Some(format!("{whose}:{which}"))
}

/// A hash of the leading instructions and the first question: whatever comes after them comes with later turns.
fn beginning(body: &Value) -> Option<String> {
    let messages = ["messages", "contents", "input"].iter().find_map(|field| body.get(*field))?;
    let mut hash = blake3::Hasher::new();
    BEFORE.iter().filter_map(|field| body.get(*field)).for_each(|part| read(part, &mut hash));
    let Some(messages) = messages.as_array() else {
        read(messages, &mut hash);
        return Some(hash.finalize().to_hex().to_string());
    };
    // Gemini may leave the role of a question out.
    let role = |message: &Value| message.get("role").and_then(Value::as_str).unwrap_or("user").to_owned();
    let instructs = |message: &&Value| matches!(role(message).as_str(), "system" | "developer");
    let asks = |message: &&Value| role(message) == "user";
    for message in messages.iter().take_while(instructs).chain(messages.iter().find(asks)) {
        read(["content", "parts"].iter().find_map(|field| message.get(*field)).unwrap_or(message), &mut hash);
    }
    Some(hash.finalize().to_hex().to_string())
}

/// Reads content for what it says: a text is the same alone and as a part, and where a client marks what shall be cached
/// changes with every turn.
fn read(content: &Value, hash: &mut blake3::Hasher) {
    match content {
        Value::String(text) => {
            hash.update(text.as_bytes()).update(&[0]);
        }
        Value::Array(parts) => parts.iter().for_each(|part| read(part, hash)),
        Value::Object(fields) => match fields.get("text") {
            Some(text @ Value::String(_)) => read(text, hash),
            _ => {
                let mut fields: Vec<_> = fields.iter().filter(|(name, _)| *name != "cache_control").collect();
                fields.sort_unstable_by_key(|(name, _)| *name);
                for (name, value) in fields {
                    hash.update(name.as_bytes()).update(&[1]);
                    read(value, hash);
                }
            }
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            hash.update(content.to_string().as_bytes()).update(&[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The first, the second and the third request of a conversation that begins with this question, in each
    /// format, as clients send them.
    fn conversations(question: &str) -> Vec<[Value; 3]> {
        let turns = |of: &dyn Fn(usize) -> Value| [0, 1, 2].map(of);
        let chat = |system: bool, role: &'static str| {
            move |turn: usize| {
                let mut messages = vec![json!({"role": "user", "content": question})];
                if system {
                    messages.insert(0, json!({"role": role, "content": "be brief"}));
                }
                for at in 0..turn {
                    messages.push(json!({"role": "assistant", "content": format!("answer {at}")}));
                    messages.push(json!({"role": "user", "content": "more"}));
                }
                json!({"model": "m", "messages": messages})
            }
        };
        // The mark moves along, and only what is marked is written as a part.
        let anthropic = |turn: usize| {
            let marked = |text: &str| json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
            let mut messages = vec![json!({"role": "user", "content": question})];
            for at in 0..turn {
                messages.push(json!({"role": "assistant", "content": format!("answer {at}")}));
                messages.push(json!({"role": "user", "content": format!("more {at}")}));
            }
            let last = messages.last_mut().expect("a question");
            last["content"] = marked(last["content"].as_str().expect("a text"));
            json!({"model": "m", "system": marked("be brief"), "messages": messages})
        };
        let responses = |turn: usize| {
            let mut input = vec![json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]})];
            for at in 0..turn {
                input.push(json!({"type": "reasoning", "id": format!("rs_{at}"), "summary": []}));
                input.push(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "answer"}]}));
                input.push(json!({"role": "user", "content": "more"}));
            }
            let input = if turn == 0 { json!(question) } else { json!(input) };
            json!({"model": "m", "instructions": "be brief", "input": input})
        };
        let gemini = |turn: usize| {
            let mut contents = vec![json!({"parts": [{"text": question}]})];
            for at in 0..turn {
                contents.push(json!({"role": "model", "parts": [{"text": format!("answer {at}")}]}));
                contents.push(json!({"role": "user", "parts": [{"text": "more"}]}));
            }
            json!({"systemInstruction": {"parts": [{"text": "be brief"}]}, "contents": contents})
        };
        vec![
            turns(&chat(false, "")),
            turns(&chat(true, "system")),
            turns(&chat(true, "developer")),
            turns(&anthropic),
            turns(&responses),
            turns(&gemini),
        ]
    }

    #[test]
    fn a_conversation_is_the_same_from_its_first_turn_on_and_another_that_begins_otherwise() {
        for (one, other) in conversations("what is a").into_iter().zip(conversations("what is b")) {
            let [first, second, third] = one.each_ref().map(|body| session(None, body).expect("a conversation"));
            assert_eq!((&second, &third), (&first, &first), "{}", one[2]);
            assert_ne!(session(None, &other[0]), Some(first), "{}", other[0]);
        }
        let other = json!({"messages": [{"role": "system", "content": "be long"}, {"role": "user", "content": "what is a"}]});
        assert_ne!(session(None, &other), session(None, &conversations("what is a")[1][0]));
    }

    #[test]
    fn a_picture_is_part_of_a_question_and_what_a_client_says_stands_above_it() {
        let of = |data: &str| json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": data}}]}]});
        assert_ne!(session(None, &of("x")), session(None, &of("y")));
        assert_eq!(session(None, &json!({"prompt_cache_key": "k", "messages": []})), Some(":k".to_owned()));
        assert_eq!(session(None, &json!({"prompt": "hi"})), None);
    }
}
