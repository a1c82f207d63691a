//! What is sent, and what real servers answer.

use helix_ports::ModelCapabilities;
use helix_protocol::{
    Block, Effort, Extra, ImageSource, Message, ModelReply, ModelRequest, Role, StopReason, Thinking, ThinkingControl, ToolChoice,
    Usage, WireFormat, WorkspaceTool,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::format::{DecodeError, Decoder, Format, Measured, Turn};

mod streams;

fn encoded(request: &ModelRequest, capabilities: &ModelCapabilities) -> Value {
    let turn = Turn { request, model: "m", capabilities, max_tokens: 9, temperature: Some(0.5), stream: true };
    encode_request(&turn)
}

fn decoded(lines: &[Value]) -> Result<ModelReply, DecodeError> {
    let mut decoder = StreamDecoder::default();
    for line in lines {
        decoder.push(None, line.to_string().as_bytes())?;
    }
    Box::new(decoder).finish()
}

#[test]
fn a_conversation_is_sent_with_bare_pictures_objects_as_arguments_and_the_size_we_count_with() {
    let png = ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    let thought = Extra::field(WireFormat::Ollama, "field", json!("thinking"));
    let request = ModelRequest {
        messages: vec![
            Message::text(Role::System, "be brief"),
            Message { role: Role::User, blocks: vec![Block::text("look"), Block::Image { image: png, extra: None }] },
            Message {
                role: Role::Assistant,
                blocks: vec![
                    Block::Thinking { text: "hm".to_owned(), extra: thought },
                    Block::Thinking { text: "another's".to_owned(), extra: None },
                    Block::ToolUse { id: "a".to_owned(), name: "read".to_owned(), input: json!({"path": "x"}), extra: None },
                    Block::ToolUse { id: "b".to_owned(), name: "shell".to_owned(), input: json!("ls"), extra: None },
                ],
            },
            Message {
                role: Role::User,
                blocks: vec![Block::ToolResult {
                    id: "a".to_owned(),
                    content: "none".to_owned(),
                    images: Vec::new(),
                    is_error: true,
                    extra: None,
                }],
            },
        ],
        tools: vec![WorkspaceTool::Read.schema()],
        stop: vec!["END".to_owned()],
        ..ModelRequest::default()
    };
    let body = encoded(&request, &ModelCapabilities { context_tokens: 7_000, ..ModelCapabilities::default() });
    let raw = crate::chat::RAW_ARGUMENTS;
    assert_eq!(
        body["messages"],
        json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "look", "images": ["aGk="]},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                {"id": "a", "function": {"name": "read", "arguments": {"path": "x"}}},
                {"id": "b", "function": {"name": "shell", "arguments": {raw: "ls"}}},
            ]},
            {"role": "tool", "tool_name": "read", "tool_call_id": "a", "content": "error: none"},
        ])
    );
    assert_eq!(body["options"], json!({"num_ctx": 7_000, "num_predict": 9, "temperature": 0.5, "stop": ["END"]}));
    assert_eq!((&body["stream"], body.get("think")), (&json!(true), None));
}

#[test]
fn thinking_is_a_switch_or_a_word() {
    for (control, thinking, expected) in [
        (ThinkingControl::Switch, Thinking::Off, json!(false)),
        (ThinkingControl::Switch, Thinking::Budget(0), json!(true)),
        (ThinkingControl::AlwaysEffort, Thinking::Effort(Effort::Medium), json!("medium")),
    ] {
        let efforts = vec![Effort::Low, Effort::Medium, Effort::High];
        let capabilities = ModelCapabilities { thinking: control, efforts, ..ModelCapabilities::default() };
        let request = ModelRequest { thinking, ..ModelRequest::default() };
        assert_eq!(encoded(&request, &capabilities)["think"], expected);
    }
}

#[test]
fn a_call_is_asked_for_in_words_and_no_tools_are_sent_where_none_is_wanted() {
    let request = |tool_choice| ModelRequest { tools: vec![WorkspaceTool::Read.schema()], tool_choice, ..ModelRequest::default() };
    let body = encoded(&request(ToolChoice::Any), &ModelCapabilities::default());
    assert_eq!(body["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(encoded(&request(ToolChoice::None), &ModelCapabilities::default()).get("tools"), None);
}

#[test]
fn an_answer_keeps_the_order_of_its_parts_and_its_counts() {
    let lines = [
        json!({"model": "qwen3", "message": {"role": "assistant", "thinking": "h"}, "done": false}),
        json!({"model": "qwen3", "message": {"role": "assistant", "thinking": "m"}, "done": false}),
        json!({"model": "qwen3", "message": {"role": "assistant", "content": "I look."}, "done": false}),
        json!({"model": "qwen3", "message": {"content": "", "tool_calls": [
            {"function": {"name": "read", "arguments": {"path": "x"}}},
            {"id": "own", "function": {"name": "shell", "arguments": "not json"}},
        ]}, "done": false}),
        json!({"model": "qwen3", "message": {"content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 5}),
    ];
    let expected = ModelReply {
        model: "qwen3".to_owned(),
        blocks: vec![
            Block::Thinking { text: "hm".to_owned(), extra: Extra::field(WireFormat::Ollama, "field", json!("thinking")) },
            Block::text("I look."),
            Block::ToolUse { id: "call_0".to_owned(), name: "read".to_owned(), input: json!({"path": "x"}), extra: None },
            Block::ToolUse { id: "own".to_owned(), name: "shell".to_owned(), input: json!("not json"), extra: None },
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 11, output_tokens: 5, ..Usage::default() },
    };
    assert_eq!(decoded(&lines), Ok(expected));
}

#[test]
fn a_call_that_is_told_twice_is_one_and_one_without_an_id_is_another_each_time() {
    let call = |id: Option<&str>, path: &str| json!({"message": {"tool_calls": [{"id": id, "function": {"name": "read", "arguments": {"path": path}}}]}});
    let done = json!({"message": {"content": ""}, "done": true});
    let calls = |first, second| decoded(&[first, second, done.clone()]).expect("an answer").blocks.len();
    assert_eq!(calls(call(Some("a"), "x"), call(Some("a"), "x")), 1);
    assert_eq!(calls(call(Some("a"), "x"), call(Some("b"), "x")), 2);
    assert_eq!(calls(call(None, "x"), call(None, "x")), 2);
}

#[test]
fn an_answer_that_is_not_done_is_none_and_an_error_is_told() {
    let begun = json!({"message": {"content": "I"}, "done": false});
    assert!(matches!(decoded(std::slice::from_ref(&begun)), Err(DecodeError::Garbage(_))));
    match decoded(&[begun, json!({"error": "model runner has unexpectedly stopped"})]) {
        Err(DecodeError::Reported(error)) => assert_eq!(error.message, "model runner has unexpectedly stopped"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(decoded(&[json!({"unrelated": 1})]), Err(DecodeError::Garbage(_))));
}

#[test]
fn an_unknown_end_is_kept_and_missing_counts_are_flagged() {
    let reply = decoded(&[json!({"message": {"content": "x"}, "done": true, "done_reason": "unload", "eval_count": 3})])
        .expect("an answer");
    assert_eq!(reply.stop, StopReason::Other("unload".to_owned()));
    assert!(reply.usage.estimated);
}

#[test]
fn the_size_is_the_models_own_or_what_it_was_made_with() {
    let show = |parameters: &str| json!({"model_info": {"general.architecture": "qwen3", "qwen3.context_length": 131_072}, "parameters": parameters});
    assert_eq!(Ollama.decode_size("m", &show("")), Some(Measured { usual: 32_768, most: 131_072 }));
    assert_eq!(Ollama.decode_size("m", &show("stop \"x\"\nnum_ctx    8192")), Some(Measured { usual: 8_192, most: 131_072 }));
    assert_eq!(Ollama.decode_size("m", &json!({})), None);
    assert!(Ollama.decode_health(200, &json!({"version": "0.13"})).is_ok());
    assert!(Ollama.decode_health(200, &Value::Null).is_err());
}

#[test]
fn what_is_sent_is_read_as_it_was_and_calls_without_ids_find_their_results() {
    let body = json!({"model": "m", "stream": false, "think": true, "keep_alive": "5m",
        "options": {"num_ctx": 9, "num_predict": 5, "temperature": 0.5, "top_k": 3, "stop": ["END"], "mirostat": 1},
        "tools": [{"type": "function", "function": {"name": "read", "description": "reads"}}],
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "look", "images": ["iVBORw0KGgoAAA"]},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                {"function": {"name": "read", "arguments": {"path": "x"}}},
                {"function": {"name": "shell", "arguments": {crate::chat::RAW_ARGUMENTS: "ls"}}}]},
            {"role": "tool", "tool_name": "shell", "content": "error: none"},
            {"role": "tool", "content": "text"},
            {"role": "user", "content": "and now?"}]});
    let request = decode_request(&body).expect("a request");
    let result = |id: &str, content: &str, is_error| Block::ToolResult {
        id: id.to_owned(),
        content: content.to_owned(),
        images: Vec::new(),
        is_error,
        extra: None,
    };
    let results = [result("call_1", "none", true), result("call_0", "text", false), Block::text("and now?")];
    assert_eq!(request.messages[3].blocks, results);
    assert_eq!((request.max_tokens, request.thinking, request.stop.len()), (5, Thinking::Adaptive, 1));
    let extra = helix_protocol::extra_of(&request.extra, WireFormat::Ollama).expect("what has no place");
    assert_eq!(json!(extra), json!({"keep_alive": "5m", "options": {"mirostat": 1}}));
    let again = encoded(&request, &ModelCapabilities { context_tokens: 9, ..ModelCapabilities::default() });
    assert_eq!((&again["keep_alive"], &again["options"]["mirostat"]), (&json!("5m"), &json!(1)));
    assert_eq!(decode_request(&again).map(|request| request.messages), Ok(request.messages));
}

#[test]
fn what_cannot_be_read_is_named() {
    for (body, named) in [
        (json!({}), "`messages`"),
        (json!({"messages": [{"role": "user", "content": ["x"]}]}), "messages[0]"),
        (json!({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}), "images[0]"),
        (json!({"messages": [{"role": "tool", "content": "x", "tool_name": "t"}]}), "no call is open"),
        (json!({"messages": [], "think": "much"}), "`think`"),
        (json!({"messages": [], "tools": [{}]}), "tools[0]"),
    ] {
        assert!(decode_request(&body).expect_err("refused").contains(named), "{body}");
    }
}

#[test]
fn an_answer_that_is_served_is_read_as_it_was_whole_and_in_pieces() {
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![
            Block::Thinking { text: "hm".to_owned(), extra: Extra::field(WireFormat::Ollama, "field", json!("thinking")) },
            Block::text("I look ä"),
            Block::ToolUse { id: "a".to_owned(), name: "read".to_owned(), input: json!({"path": "x"}), extra: None },
            Block::ToolUse { id: "b".to_owned(), name: "shell".to_owned(), input: json!("not json"), extra: None },
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 11, output_tokens: 5, ..Usage::default() },
    };
    assert_eq!(decoded(&[encode_reply(&reply, "", 0)]), Ok(reply.clone()));
    use crate::served::ServedStream as _;
    for size in 1..9 {
        let mut encoder = StreamEncoder::new("m", 0);
        let mut events = encoder.start();
        events.extend(crate::served::deltas_of(&reply, size).iter().flat_map(|delta| encoder.push(delta)));
        events.extend(encoder.finish(&reply));
        let lines: Vec<Value> = events.into_iter().map(|event| event.data).collect();
        assert_eq!(decoded(&lines), Ok(reply.clone()), "{size}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = StreamDecoder::default();
        let _ = decoder.push(None, &data);
        let _ = Box::new(decoder).finish();
    }
}
