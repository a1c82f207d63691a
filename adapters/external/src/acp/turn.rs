//! What an agent says and asks in a turn, and what is answered.

use std::io::Write;

use agent_client_protocol_schema::v1::{
    AGENT_METHOD_NAMES, CLIENT_METHOD_NAMES, CancelNotification, ContentBlock, Error, ErrorCode, PermissionOption,
    PermissionOptionKind, PlanEntry, RequestPermissionOutcome, RequestPermissionResponse, SelectedPermissionOutcome, SessionId,
    SessionUpdate, ToolCallContent, ToolCallStatus, ToolCallUpdate,
};
use helix_protocol::{AgentTurn, Approval, Message, Permission};
use serde_json::{Value, json};

use super::wire::{self, Incoming, PermissionRequest, Update};
use crate::transcript::{Call, Transcript, cut};

/// How much of a call a person is shown, in bytes.
const SHOWN: usize = 4_000;
/// Most files that a call is said to be about.
const PLACES: usize = 64;

/// What follows from a message of the agent's.
pub enum Heard {
    Nothing,
    /// It asked something: these messages go to it. Where they cancel the turn, its end is waited for and no more.
    Asked {
        answers: Vec<Value>,
        cancels: bool,
    },
    /// The answer to our request.
    Answer(Result<Value, Error>),
}

/// What a request of the agent's is answered with.
enum Answer {
    Chosen(RequestPermissionOutcome),
    /// Nothing is chosen, and the turn is cancelled.
    Cancel(SessionId),
    Refused(Error),
}

/// A turn under way.
pub struct Turn<'a> {
    turn: &'a AgentTurn,
    /// Where what it says is shown as it comes.
    shown: &'a mut (dyn Write + Send),
    /// The session that is listened to; none before the prompt.
    session: Option<SessionId>,
    transcript: Transcript,
    asked: Option<(Permission, String)>,
}

impl<'a> Turn<'a> {
    pub fn new(turn: &'a AgentTurn, shown: &'a mut (dyn Write + Send)) -> Self {
        Self { turn, shown, session: None, transcript: Transcript::default(), asked: None }
    }

    /// From now on what the session says is the turn's.
    pub fn listen(&mut self, session: SessionId) {
        self.session = Some(session);
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
                let (cancels, answer) = match self.asked_for(&method, params) {
                    Answer::Chosen(outcome) => (None, Ok(RequestPermissionResponse::new(outcome))),
                    Answer::Cancel(session) => {
                        (Some(session), Ok(RequestPermissionResponse::new(RequestPermissionOutcome::Cancelled)))
                    }
                    Answer::Refused(error) => (None, Err(error)),
                };
                let mut answers = vec![wire::answer(id, answer)];
                let cancelled =
                    cancels.map(|session| wire::notification(AGENT_METHOD_NAMES.session_cancel, CancelNotification::new(session)));
                let cancels = cancelled.is_some();
                answers.extend(cancelled);
                Heard::Asked { answers, cancels }
            }
            Incoming { method: Some(method), params, .. } => {
                self.told(&method, params);
                Heard::Nothing
            }
            Incoming { id: Some(answered), error, result, .. } if answered == asked.into() => {
                Heard::Answer(error.map_or_else(|| Ok(result.unwrap_or_default()), |error| Err(wire::refusal(error))))
            }
            // An answer to nothing that was asked.
            Incoming { .. } => Heard::Nothing,
        }
    }

    /// The agent tells something.
    fn told(&mut self, method: &str, params: Value) {
        if method != CLIENT_METHOD_NAMES.session_update || self.session.is_none() {
            return;
        }
        let Ok(Update { session_id, update }) = serde_json::from_value(params) else { return };
        if self.session != Some(session_id) {
            return;
        }
        // What begins a call is read as what is new of one: it may leave out what the agent does not know yet.
        if update["sessionUpdate"] == "tool_call" {
            if let Ok(call) = serde_json::from_value::<ToolCallUpdate>(update) {
                self.show(&format!("\n[{}]\n", cut(call.fields.title.as_deref().unwrap_or("a tool"), 200)));
                self.note(call);
            }
            return;
        }
        let Ok(update) = serde_json::from_value(update) else { return };
        match update {
            SessionUpdate::AgentMessageChunk(chunk) => {
                self.show(text(&chunk.content));
                self.transcript.say(text(&chunk.content));
            }
            SessionUpdate::AgentThoughtChunk(chunk) => self.transcript.think(text(&chunk.content)),
            SessionUpdate::Plan(plan) => {
                let line = |entry: &PlanEntry| format!("- [{}] {}", wire::word(&entry.status), entry.content);
                self.transcript.plan(&plan.entries.iter().map(line).collect::<Vec<_>>().join("\n"));
            }
            SessionUpdate::ToolCallUpdate(call) => self.note(call),
            _ => {}
        }
    }

    /// The agent asks something.
    fn asked_for(&mut self, method: &str, params: Value) -> Answer {
        if method != CLIENT_METHOD_NAMES.session_request_permission {
            let message = format!("this client has no {method}");
            return Answer::Refused(Error::new(ErrorCode::MethodNotFound.into(), message));
        }
        let PermissionRequest { tool_call, options } = match serde_json::from_value(params) {
            Ok(request) => request,
            Err(error) => return Answer::Refused(Error::invalid_params().data(Value::String(error.to_string()))),
        };
        let options: Vec<PermissionOption> = options.into_iter().filter_map(|option| serde_json::from_value(option).ok()).collect();
        let id = tool_call.tool_call_id.clone();
        self.note(tool_call);
        let call = self.transcript.call(&id.0);
        let permission = Permission { kind: call.kind.clone(), title: one_line(&call.title), call: Some(call_hash(call)) };
        let shown = call.input.as_ref().or(call.changes.as_ref());
        let detail = shown.map(|shown| cut(&shown.to_string(), SHOWN).to_owned()).unwrap_or_default();
        let cancelled = RequestPermissionOutcome::Cancelled;
        let Some(session) = self.session.clone().filter(|_| self.asked.is_none()) else { return Answer::Chosen(cancelled) };
        let refused = self.turn.refused.iter().any(|refused| refused.covers(&permission));
        let chosen = if refused {
            option(&options, [PermissionOptionKind::RejectOnce, PermissionOptionKind::RejectAlways])
        } else if self.may(&permission) {
            option(&options, [PermissionOptionKind::AllowOnce, PermissionOptionKind::AllowAlways])
        } else {
            self.show(&format!("\n[asks for approval: {}]\n", permission.title));
            self.asked = Some((permission, detail));
            return Answer::Cancel(session);
        };
        let selected = |option: &PermissionOption| {
            RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option.option_id.clone()))
        };
        Answer::Chosen(chosen.map_or(cancelled, selected))
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
    fn note(&mut self, ToolCallUpdate { tool_call_id, fields: new, .. }: ToolCallUpdate) {
        let call = self.transcript.call(&tool_call_id.0);
        if let Some(title) = new.title {
            call.title = title;
        }
        if let Some(kind) = new.kind {
            call.kind = wire::word(kind);
        }
        if let Some(locations) = new.locations {
            call.places = locations.into_iter().map(|location| location.path.display().to_string()).take(PLACES).collect();
        }
        if new.raw_input.is_some() {
            call.input = new.raw_input;
        }
        let content = new.content.unwrap_or_default();
        let changes: Vec<&ToolCallContent> = content.iter().filter(|part| matches!(part, ToolCallContent::Diff(_))).collect();
        if !changes.is_empty() {
            call.changes = Some(json!(changes));
        }
        let ended = matches!(new.status, Some(ToolCallStatus::Completed | ToolCallStatus::Failed));
        call.failed = call.failed || new.status == Some(ToolCallStatus::Failed);
        for part in content {
            match part {
                ToolCallContent::Content(content) if ended => call.add_result(text(&content.content)),
                ToolCallContent::Diff(diff) => {
                    let path = diff.path.display().to_string();
                    if !call.places.contains(&path) && call.places.len() < PLACES {
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

/// The text of what an agent says; nothing of what is none.
fn text(content: &ContentBlock) -> &str {
    match content {
        ContentBlock::Text(text) => &text.text,
        _ => "",
    }
}

/// What tells a call from others: its whole title, its arguments, and the changes of files that it shows, in whichever order.
fn call_hash(call: &Call) -> String {
    let mut all = json!([call.title, call.input, call.changes]);
    all.sort_all_objects();
    blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
}

/// A title as a question shows it.
fn one_line(title: &str) -> String {
    cut(&title.split_whitespace().collect::<Vec<_>>().join(" "), 500).trim_end().to_owned()
}

fn option(options: &[PermissionOption], kinds: [PermissionOptionKind; 2]) -> Option<&PermissionOption> {
    kinds.into_iter().find_map(|kind| options.iter().find(|option| option.kind == kind))
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
        state.listen("s".into());
        let options = json!([{ "optionId": "y", "name": "Allow", "kind": "allow_once" }]);
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

    #[test]
    fn what_is_newer_than_the_schema_is_passed_over_and_the_rest_counts() {
        let turn = fuzzing::turn(Approval::Full);
        let mut shown = Vec::new();
        let mut state = Turn::new(&turn, &mut shown);
        state.listen("s".into());
        let begun = json!({ "sessionUpdate": "tool_call", "toolCallId": "c", "kind": "teleport" });
        state.told("session/update", json!({ "sessionId": "s", "update": begun }));
        let options = json!([
            { "optionId": "m", "name": "Maybe", "kind": "allow_on_sundays" },
            { "optionId": "y", "name": "Allow", "kind": "allow_once" },
        ]);
        let asked = json!({ "sessionId": "s", "toolCall": { "toolCallId": "c", "title": "go" }, "options": options });
        match state.asked_for("session/request_permission", asked) {
            Answer::Chosen(RequestPermissionOutcome::Selected(chosen)) => assert_eq!(&*chosen.option_id.0, "y"),
            _ => panic!("it is allowed"),
        }
        assert_eq!(state.transcript.call("c").title, "go");
        assert_eq!(String::from_utf8(shown).expect("text"), "\n[a tool]\n");
    }
}
