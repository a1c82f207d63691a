//! A kind for tests: turns of a model call, a tool, and a second model call, of which one may wait for a
//! task of its own (a command, or a `part` that talks), one ask, and one do without its model.

use std::time::Duration;

use async_trait::async_trait;
use helix_ports::{StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{CommandSpec, Failure, Message, ModelRequest, Role, Subject, TaskSpec, TaskWork, ToolCall};

pub struct Talk;

/// Said in a turn that found its conversation at rest for so long that the task wants to know.
pub const AFTER_A_REST: &str = ", after a rest";

fn request(messages: Vec<Message>) -> ModelRequest {
    ModelRequest { messages, max_tokens: 10, ..ModelRequest::default() }
}

#[async_trait]
impl TaskKind for Talk {
    fn name(&self) -> &str {
        "talk"
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let TaskWork::Custom { input, .. } = host.task().spec.work.clone() else { unreachable!("it is asked for by name") };
        let steps = input["steps"].as_u64().unwrap_or(1);
        assert_ne!(input["panic"].as_u64(), Some(host.ordinal()), "the test wants this step to bring its actor down");
        let mut messages = host.conversation().await?;
        let before = messages.len();
        let least = input["rest_ms"].as_u64().map(Duration::from_millis);
        let is_silent = input["silent"].as_u64() == Some(host.ordinal());
        let has_rested = match least.filter(|_| !is_silent) {
            Some(least) => host.has_rested(least).await?,
            None => false,
        };
        let rest = if has_rested { AFTER_A_REST } else { "" };
        messages.push(Message::text(Role::User, format!("turn {}{rest}", host.ordinal())));
        for _ in 0..if is_silent { 0 } else { 2 } {
            let reply = host.model(request(messages.clone())).await?;
            messages.push(Message { role: Role::Assistant, blocks: reply.blocks });
            let said = messages.last().map(Message::as_text).unwrap_or_default();
            let key = host.next_call();
            let input = serde_json::json!({"path": "log", "text": format!("{}: {said}\n", host.ordinal())});
            host.tool(ToolCall { key, name: "append".to_owned(), input }).await?;
        }
        let end = if input["wait"].as_u64() == Some(host.ordinal()) {
            let work = match &input["part"] {
                serde_json::Value::Null => {
                    TaskWork::Command(CommandSpec { commands: vec!["sleep 60000".to_owned()], artifacts: Vec::new() })
                }
                part => TaskWork::Custom { name: "talk".to_owned(), input: part.clone() },
            };
            TurnEnd::Await { tasks: vec![host.child("child", TaskSpec::new("a child", work), 2).await?] }
        } else if input["ask"].as_u64() == Some(host.ordinal()) {
            TurnEnd::Ask { subject: Subject::Conversation, question: "which?".to_owned(), choices: Vec::new() }
        } else if host.ordinal() >= steps {
            TurnEnd::Finished
        } else {
            TurnEnd::Continue
        };
        Ok(StepResult { summary: format!("turn {}", host.ordinal()), messages: messages.split_off(before), exits: Vec::new(), end })
    }
}
