//! How fast a conversation of a megabyte is written for a provider and read from a client, in each format.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::gemini::Gemini;
use helix_adapter_models::ollama::Ollama;
use helix_adapter_models::responses::Responses;
use helix_adapter_models::{Format, Turn, client_formats};
use helix_ports::ModelCapabilities;
use helix_protocol::{Block, Message, ModelRequest, Role, WorkspaceTool};
use serde_json::{Value, json};

use crate::report::{Figure, Scale, quantile};

/// Turns of the conversation: a call with its arguments and its answer, a kilobyte and three.
const TURNS: usize = 256;
const MIB: f64 = 1024.0 * 1024.0;

/// A conversation as an agent's is: a prompt, then calls and their answers, about a megabyte.
fn conversation() -> ModelRequest {
    let line = "    let found = table.get(&name).ok_or_else(|| format!(\"{name} is \\\"not\\\" there\"))?;\n";
    let mut messages = vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "mend the parser")];
    for number in 0..TURNS {
        let id = format!("call_{number}");
        let input = json!({"path": format!("src/part{number}.rs"), "old": line.repeat(5), "new": line.repeat(6)});
        let call = Block::ToolUse { id: id.clone(), name: "edit".to_owned(), input, extra: None };
        messages.push(Message { role: Role::Assistant, blocks: vec![Block::text("I change the next part."), call] });
        let content = line.repeat(35);
        let result = Block::ToolResult { id, content, images: Vec::new(), is_error: false, extra: None };
        messages.push(Message { role: Role::User, blocks: vec![result] });
    }
    let tools = [WorkspaceTool::Read, WorkspaceTool::Write, WorkspaceTool::Shell].map(|tool| tool.schema()).to_vec();
    ModelRequest { messages, tools, ..ModelRequest::default() }
}

/// Figures of each format.
pub fn throughput(scale: Scale) -> Result<Vec<Figure>> {
    let formats: [(&str, Box<dyn Format>); 5] = [
        ("chat completions", Box::new(ChatCompletions::at(""))),
        ("responses", Box::new(Responses)),
        ("messages", Box::new(AnthropicMessages)),
        ("generateContent", Box::<Gemini>::default()),
        ("Ollama's chat", Box::new(Ollama)),
    ];
    let (request, capabilities, clients) = (conversation(), ModelCapabilities::default(), client_formats());
    let turn =
        Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 1_000, temperature: None, stream: true };
    let mut figures = Vec::new();
    for (name, format) in &formats {
        let bytes = serde_json::to_vec(&format.encode(&turn).body)?;
        let size = bytes.len() as f64 / MIB;
        let mut write = || drop(serde_json::to_vec(&format.encode(&turn).body));
        let figure = |what: &str, took: Duration| {
            Figure::new(format!("{what}, {name}"), size / took.as_secs_f64(), "MiB/s")
                .against(format!("a conversation of {size:.2} MiB in {:.2} ms", took.as_secs_f64() * 1_000.0))
        };
        figures.push(figure("writing", median(scale, &mut write)));
        let Some(client) = clients.iter().find(|client| client.wire() == format.wire()) else { continue };
        let read = || -> Result<ModelRequest> {
            let body: Value = serde_json::from_slice(&bytes)?;
            client.decode(&body).map_err(anyhow::Error::msg)
        };
        let again = read().with_context(|| (*name).to_owned())?;
        anyhow::ensure!(again.messages.len() >= TURNS, "{name} lost messages: {}", again.messages.len());
        figures.push(figure("reading", median(scale, &mut || drop(read()))));
    }
    Ok(figures)
}

fn median(scale: Scale, work: &mut dyn FnMut()) -> Duration {
    let once = |_| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_secs_f64()
    };
    let mut times: Vec<f64> = (0..scale.pick(101, 5)).map(once).collect();
    times.sort_by(f64::total_cmp);
    Duration::from_secs_f64(quantile(&times, 0.5))
}
