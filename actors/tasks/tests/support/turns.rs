//! A kind for tests: in each turn one call of a tool, of which `shell` starts a command in the background and every other one only
//! looks.

use async_trait::async_trait;
use helix_ports::{SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{Failure, TaskWork, ToolCall};

pub struct Turns;

#[async_trait]
impl TaskKind for Turns {
    fn name(&self) -> &str {
        "turns"
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let TaskWork::Custom { input, .. } = host.task().spec.work.clone() else { unreachable!("it is asked for by name") };
        let calls = input["calls"].as_array().expect("the test names them");
        let at = usize::try_from(host.ordinal()).expect("few") - 1;
        let name = calls[at]["tool"].as_str().expect("a name").to_owned();
        let call = ToolCall { key: host.next_call(), name, input: calls[at]["input"].clone() };
        if call.name != "shell" {
            host.note(SnapshotNote::NoFiles);
        }
        let summary = call.name.clone();
        host.tool(call).await?;
        let end = if at + 1 == calls.len() { TurnEnd::Finished } else { TurnEnd::Continue };
        Ok(StepResult { summary, messages: Vec::new(), exits: Vec::new(), end })
    }
}
