//! Our providers over something that was not written here: a LiteLLM proxy, in each format that it serves,
//! before the scripted model.
//!
//! It is large and slow to start, so it runs in `make campaign` only.

use std::sync::Arc;

use helix::scripted::{ScriptedServer, Transcript};
use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::chat::ChatCompletions;
use helix_adapter_models::gemini::Gemini;
use helix_adapter_models::responses::Responses;
use helix_adapter_models::{ApiKey, Format, HttpProvider, Settings};
use helix_ports::Provider;
use helix_protocol::{Block, Message, ModelDelta, ModelReply, ModelRequest, Role, StopReason, WorkspaceTool};
use tokio::sync::mpsc;

use crate::harness::litellm::{KEY, LiteLlm, MODEL, program};

/// A call, then what follows from its answer.
const TRANSCRIPT: &str = "
model: scripted
piece: 4
scenarios:
  - name: look
    phrase: look at
    turns:
      - text: I look.
        calls: [{ tool: read, arguments: { path: \"notes ä.md\" } }]
      - text: It says hello.
";

fn provider(name: &str, base_url: String, format: impl Format) -> Arc<dyn Provider> {
    let settings = Settings {
        name: name.to_owned(),
        base_url,
        key: ApiKey::new(KEY),
        model: MODEL.to_owned(),
        max_tokens: 500,
        ..Settings::default()
    };
    Arc::new(HttpProvider::new(settings, format).expect("a provider"))
}

/// The answer, and the text that was shown while it came.
async fn streamed(provider: &dyn Provider, request: &ModelRequest) -> (ModelReply, String) {
    let (sink, mut pieces) = mpsc::channel(256);
    let collected = tokio::spawn(async move {
        let mut text = String::new();
        while let Some(piece) = pieces.recv().await {
            if let ModelDelta::Text { text: more } = piece {
                text.push_str(&more);
            }
        }
        text
    });
    let reply = provider.generate_stream(request, sink).await;
    let reply = reply.unwrap_or_else(|error| panic!("{}: {error:?}", provider.name()));
    (reply, collected.await.expect("the pieces are collected"))
}

fn said(reply: &ModelReply) -> String {
    Message { role: Role::Assistant, blocks: reply.blocks.clone() }.as_text()
}

/// A call and its answer, whole and in pieces.
async fn converses(provider: &dyn Provider) {
    let name = provider.name();
    let mut request = ModelRequest {
        messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "look at the notes")],
        tools: vec![WorkspaceTool::Read.schema()],
        ..ModelRequest::default()
    };
    let whole = provider.generate(&request).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let (pieced, shown) = streamed(provider, &request).await;
    for reply in [&whole, &pieced] {
        assert_eq!((said(reply).as_str(), &reply.stop), ("I look.", &StopReason::ToolUse), "{name}: {reply:?}");
        let call = reply.blocks.iter().find_map(|block| match block {
            Block::ToolUse { name, input, .. } => Some((name.as_str(), input["path"].as_str())),
            _ => None,
        });
        assert_eq!(call, Some(("read", Some("notes ä.md"))), "{name}: {reply:?}");
    }
    // LiteLLM streams Gemini's format with counts of zero.
    let counted = if name == "generateContent" { &[&whole][..] } else { &[&whole, &pieced] };
    for reply in counted {
        assert!(reply.usage.input_tokens > 0 && reply.usage.output_tokens > 0, "{name}: {:?}", reply.usage);
    }
    assert_eq!(shown, "I look.", "{name}");
    let id = whole.blocks.iter().find_map(|block| match block {
        Block::ToolUse { id, .. } => Some(id.clone()),
        _ => None,
    });
    let result = Block::ToolResult {
        id: id.expect("checked above"),
        content: "hello".to_owned(),
        images: Vec::new(),
        is_error: false,
        extra: None,
    };
    request.messages.push(Message { role: Role::Assistant, blocks: whole.blocks });
    request.messages.push(Message { role: Role::User, blocks: vec![result] });
    let (last, shown) = streamed(provider, &request).await;
    assert_eq!(
        (said(&last).as_str(), shown.as_str(), last.stop),
        ("It says hello.", "It says hello.", StopReason::EndTurn),
        "{name}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn our_providers_converse_over_a_litellm_proxy_in_every_format_that_it_serves() {
    if std::env::var_os("HELIX_CAMPAIGN").is_none() {
        eprintln!("not run: LiteLLM takes long to start, so `make campaign` runs this (HELIX_CAMPAIGN)");
        return;
    }
    let Some(program) = program("our providers over LiteLLM").expect("LiteLLM is installed") else { return };
    // Whoever was first has set it, and that is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().expect("a folder");
    let transcript = Transcript::parse(TRANSCRIPT).expect("a transcript");
    let log = folder.path().join("model.jsonl");
    let server = ScriptedServer::start(transcript, ([127, 0, 0, 1], 0).into(), &log).await.expect("the model server");
    let proxy = LiteLlm::start(&program, folder.path(), &server.base_url(), "scripted", 1).await.expect("LiteLLM starts");
    let base = &proxy.base;
    let mut formats = vec![
        provider("chat completions", format!("{base}/v1"), ChatCompletions::at(base)),
        provider("messages", format!("{base}/v1"), AnthropicMessages),
        provider("generateContent", format!("{base}/v1beta"), Gemini::default()),
        provider("responses", format!("{base}/v1"), Responses),
    ];
    while let Some(provider) = formats.pop() {
        converses(&*provider).await;
        println!("{} over LiteLLM: a call, its answer, whole and in pieces", provider.name());
    }
    server.stop().await;
}
