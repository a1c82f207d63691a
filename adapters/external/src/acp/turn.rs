//! What an agent says and asks in a turn, and what is answered.

use std::io::Write;

use helix_protocol::{AgentTurn, Approval, Message, Permission};
use serde_json::{Value, json};

use super::wire::{Incoming, METHOD_NOT_FOUND, PermissionOption, PermissionRequest, RpcError, ToolCall, Update};
use crate::transcript::{Call, Transcript, cut};

/// How much of a call a person is shown, in bytes.
const SHOWN: usize = 4_000;

/// What follows from a message of the agent's.
pub enum Heard {
    Nothing,
    /// It asked something: these messages go to it. Where they cancel the turn, its end is waited for and no more.
    Asked {
        answers: Vec<Value>,
        cancels: bool,
    },
    /// The answer to our request.
    Answer(Result<Value, RpcError>),
}

/// What a request of the agent's is answered with.
enum Answer {
    Result(Value),
    /// The same, and the turn is cancelled.
    Cancel {
        session: String,
        result: Value,
    },
    /// This client has no such thing.
    Unknown,
}

/// A turn under way.
pub struct Turn<'a> {
    turn: &'a AgentTurn,
    /// Where what it says is shown as it comes.
    shown: &'a mut (dyn Write + Send),
    /// The session that is listened to; none before the prompt.
    session: Option<String>,
    transcript: Transcript,
    asked: Option<(Permission, String)>,
}

impl<'a> Turn<'a> {
    pub fn new(turn: &'a AgentTurn, shown: &'a mut (dyn Write + Send)) -> Self {
        Self { turn, shown, session: None, transcript: Transcript::default(), asked: None }
    }

    /// From now on what the session says is the turn's.
    pub fn listen(&mut self, session: &str) {
        self.session = Some(session.to_owned());
    }

    /// What a person has to be asked, with what is shown of it.
    pub fn asked(&self) -> Option<(Permission, String)> {
        self.asked.clone()
    }

    pub fn into_messages(self) -> Vec<Message> {
        self.transcript.into_messages()
    }

    /// The agent says something while our request `asked` waits for its answer.
    pub fn hear(&mut self, message: Incoming, asked: i64) -> Heard {
        match message {
            Incoming { method: Some(method), id: Some(id), params, .. } => {
                let answered = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
                match self.asked_for(&method, params) {
                    Answer::Result(result) => Heard::Asked { answers: vec![answered(result)], cancels: false },
                    Answer::Cancel { session, result } => {
                        let params = json!({ "sessionId": session });
                        let cancel = json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": params });
                        Heard::Asked { answers: vec![answered(result), cancel], cancels: true }
                    }
                    Answer::Unknown => {
                        let error = json!({ "code": METHOD_NOT_FOUND, "message": format!("this client has no {method}") });
                        let refused = json!({ "jsonrpc": "2.0", "id": id, "error": error });
                        Heard::Asked { answers: vec![refused], cancels: false }
                    }
                }
            }
            Incoming { method: Some(method), params, .. } => {
                self.told(&method, params);
                Heard::Nothing
            }
            Incoming { id: Some(answered), error, result, .. } if answered == json!(asked) => {
                Heard::Answer(error.map_or_else(|| Ok(result.unwrap_or_default()), Err))
            }
            // An answer to nothing that was asked.
            Incoming { .. } => Heard::Nothing,
        }
    }

    /// The agent tells something.
    fn told(&mut self, method: &str, params: Value) {
        if method != "session/update" || self.session.is_none() {
            return;
        }
        let Ok(Update { session_id, update }) = serde_json::from_value(params) else { return };
        if self.session.as_deref() != Some(session_id.as_str()) {
            return;
        }
        let text = || update["content"]["text"].as_str().unwrap_or_default();
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => {
                self.show(text());
                self.transcript.say(text());
            }
            "agent_thought_chunk" => self.transcript.think(text()),
            "plan" => {
                let entries = update["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
                let line = |entry: &Value| {
                    format!(
                        "- [{}] {}",
                        entry["status"].as_str().unwrap_or("pending"),
                        entry["content"].as_str().unwrap_or_default()
                    )
                };
                self.transcript.plan(&entries.iter().map(line).collect::<Vec<_>>().join("\n"));
            }
            kind @ ("tool_call" | "tool_call_update") => {
                let begins = kind == "tool_call";
                if let Ok(call) = serde_json::from_value::<ToolCall>(update) {
                    if begins {
                        self.show(&format!("\n[{}]\n", cut(call.title.as_deref().unwrap_or("a tool"), 200)));
                    }
                    self.note(call);
                }
            }
            _ => {}
        }
    }

    /// The agent asks something.
    fn asked_for(&mut self, method: &str, params: Value) -> Answer {
        if method != "session/request_permission" {
            return Answer::Unknown;
        }
        let Ok(request) = serde_json::from_value::<PermissionRequest>(params) else { return Answer::Unknown };
        let PermissionRequest { tool_call, options } = request;
        let id = tool_call.tool_call_id.clone();
        self.note(tool_call);
        let call = self.transcript.call(&id);
        let permission = Permission { kind: call.kind.clone(), title: one_line(&call.title), call: Some(call_hash(call)) };
        let shown = call.input.as_ref().or(call.changes.as_ref());
        let detail = shown.map(|shown| cut(&shown.to_string(), SHOWN).to_owned()).unwrap_or_default();
        let cancelled = json!({ "outcome": { "outcome": "cancelled" } });
        let Some(session) = self.session.clone().filter(|_| self.asked.is_none()) else { return Answer::Result(cancelled) };
        let refused = self.turn.refused.iter().any(|refused| refused.covers(&permission));
        let chosen = if refused {
            option(&options, &["reject_once", "reject_always"])
        } else if self.may(&permission) {
            option(&options, &["allow_once", "allow_always"])
        } else {
            self.show(&format!("\n[asks for approval: {}]\n", permission.title));
            self.asked = Some((permission, detail));
            return Answer::Cancel { session, result: cancelled };
        };
        let outcome = chosen.map(|option| json!({ "outcome": { "outcome": "selected", "optionId": option.option_id } }));
        Answer::Result(outcome.unwrap_or(cancelled))
    }

    fn show(&mut self, text: &str) {
        // Nobody looks any more: the transcript is what counts.
        let _ = self.shown.write_all(text.as_bytes());
    }

    fn may(&self, asked: &Permission) -> bool {
        let by_policy = match (self.turn.approval, asked.kind.as_str()) {
            (Approval::Full, _) | (_, "read" | "search" | "think") => true,
            (Approval::AutoEdit, kind) => kind == "edit",
            (Approval::Suggest, _) => false,
        };
        by_policy || self.turn.allowed.iter().any(|allowed| allowed.covers(asked))
    }

    /// Takes note of what is new of a call.
    fn note(&mut self, new: ToolCall) {
        let call = self.transcript.call(&new.tool_call_id);
        if let Some(title) = new.title {
            call.title = title;
        }
        if let Some(kind) = new.kind {
            call.kind = kind;
        }
        if let Some(locations) = new.locations {
            call.places = locations.into_iter().map(|location| location.path).take(64).collect();
        }
        if new.raw_input.is_some() {
            call.input = new.raw_input;
        }
        let content = new.content.unwrap_or_default();
        let changes: Vec<Value> = content.iter().filter(|part| part["type"] == "diff").cloned().collect();
        if !changes.is_empty() {
            call.changes = Some(Value::Array(changes));
        }
        let ended = matches!(new.status.as_deref(), Some("completed" | "failed"));
        call.failed = call.failed || new.status.as_deref() == Some("failed");
        for part in content {
            match part["type"].as_str().unwrap_or_default() {
                "content" if ended => call.add_result(part["content"]["text"].as_str().unwrap_or_default()),
                "diff" => {
                    let path = part["path"].as_str().unwrap_or_default().to_owned();
                    if !call.places.contains(&path) && call.places.len() < 64 {
                        call.places.push(path);
                    }
                }
                _ => {}
            }
        }
        if let Some(output) = new.raw_output.filter(|_| ended && call.result.is_empty()) {
            let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
            call.add_result(&text);
        }
    }
}

/// What tells a call from others: its whole title, its arguments, and the changes of files that it shows. The keys of JSON are
/// sorted, so what is equal has the same hash.
fn call_hash(call: &Call) -> String {
    let all = json!([call.title, call.input, call.changes]).to_string();
    blake3::hash(all.as_bytes()).to_hex().to_string()
}

/// A title as a question shows it.
fn one_line(title: &str) -> String {
    cut(&title.split_whitespace().collect::<Vec<_>>().join(" "), 500).trim_end().to_owned()
}

fn option<'a>(options: &'a [PermissionOption], kinds: &[&str]) -> Option<&'a PermissionOption> {
    kinds.iter().find_map(|kind| options.iter().find(|option| option.kind == *kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acp::fuzzing;

    /// What a person has to be asked about a call; `None` where it is allowed already.
    fn asks(allowed: &[Permission], call: &Value) -> Option<Permission> {
        let turn = AgentTurn { allowed: allowed.to_vec(), ..fuzzing::turn(Approval::Suggest) };
        let mut shown = std::io::sink();
        let mut state = Turn::new(&turn, &mut shown);
        state.listen("s");
        let options = json!([{ "optionId": "y", "kind": "allow_once" }]);
        state.asked_for("session/request_permission", json!({ "sessionId": "s", "toolCall": call, "options": options }));
        state.asked().map(|(permission, _)| permission)
    }

    #[test]
    fn what_is_allowed_is_a_call_and_not_its_title() {
        let long = "make ".repeat(200);
        let call =
            |id: &str, title: &str, input: Value| json!({ "toolCallId": id, "kind": "execute", "title": title, "rawInput": input });
        let diff = |text: &str| {
            let content = json!([{ "type": "diff", "path": "a", "oldText": "", "newText": text }]);
            json!({ "toolCallId": "c", "kind": "edit", "title": "edit a", "content": content })
        };
        let pairs = [
            (
                call("1", "run", json!({ "command": "make", "in": "a" })),
                call("1", "run", json!({ "command": "rm -rf a", "in": "a" })),
            ),
            (call("1", &format!("{long}a"), Value::Null), call("1", &format!("{long}b"), Value::Null)),
            (call("1", "", json!({ "command": "make" })), call("1", "", json!({ "command": "rm" }))),
            (diff("x"), diff("y")),
        ];
        for (one, other) in pairs {
            let allowed = [asks(&[], &one).expect("it is asked")];
            let mut again = one.clone();
            again["toolCallId"] = json!("another session's id");
            assert_eq!(asks(&allowed, &again), None, "{again}");
            assert!(asks(&allowed, &other).is_some(), "{other}");
        }
        let of_before = Permission { title: "run".to_owned(), ..Permission::of_kind("execute") };
        let run = call("1", "run", json!({ "command": "make" }));
        assert!(asks(&[of_before], &run).is_some());
        assert_eq!(asks(&[Permission::of_kind("execute")], &run), None);
    }
}
