//! Both sides of the format against each other, and what real servers send.

use helix_ports::ModelCapabilities;
use helix_protocol::{
    Block, Code, Effort, Extra, Failure, ImageSource, Message, ModelDelta, ModelReply, ModelRequest, Role, StopReason, Thinking,
    ThinkingControl, ToolChoice, Usage, WireFormat, WorkspaceTool,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::format::{DecodeError, Decoder, Turn};
use crate::served::{ServedEvent, ServedStream, deltas_of};

mod documented;
mod streams;

const FORMAT: WireFormat = WireFormat::OpenaiResponses;

fn encoded(request: &ModelRequest) -> Value {
    let capabilities = ModelCapabilities {
        thinking: ThinkingControl::Effort,
        efforts: vec![Effort::Low, Effort::High],
        ..ModelCapabilities::default()
    };
    let max_tokens = request.max_tokens;
    encode_request(&Turn { request, model: "m", capabilities: &capabilities, max_tokens, temperature: None, stream: false })
}

fn request(messages: Vec<Message>) -> ModelRequest {
    ModelRequest { model: Some("m".to_owned()), messages, max_tokens: 9, ..ModelRequest::default() }
}

fn call(id: &str, name: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: name.to_owned(), input, extra: None }
}

fn read(events: &[Value]) -> (Result<ModelReply, DecodeError>, Vec<ModelDelta>) {
    let mut decoder = StreamDecoder::default();
    let mut shown = Vec::new();
    for event in events {
        match decoder.push(None, event.to_string().as_bytes()) {
            Ok(deltas) => shown.extend(deltas),
            Err(error) => return (Err(error), shown),
        }
    }
    (Box::new(decoder).finish(), shown)
}

/// Output as a server sends it: a thought that only it can read, a text with a citation, and a call.
fn output() -> Value {
    json!([
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "I look.", "annotations": [{"type": "url_citation", "url": "https://example.org"}], "logprobs": []},
        ]},
        {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_a", "name": "read", "arguments": "{\"path\": \"x\"}"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ])
}

fn response(output: Value) -> Value {
    json!({"id": "resp_1", "object": "response", "status": "completed", "model": "m-1", "output": output, "usage": {
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 120}})
}

#[test]
fn a_session_is_named_in_as_many_characters_as_the_service_takes() {
    let of_the_gateway = format!("{}:{}", "0".repeat(36), "f".repeat(64));
    let body = encoded(&ModelRequest { session: Some(of_the_gateway), ..request(Vec::new()) });
    assert_eq!(body["prompt_cache_key"].as_str().map(str::len), Some(64));
}

#[test]
fn what_a_server_said_goes_back_to_it_unchanged() {
    let reply = decode_reply(response(output()).to_string().as_bytes()).expect("an answer");
    let usage = Usage { input_tokens: 100, cached_tokens: 60, output_tokens: 20, thinking_tokens: 7, ..Usage::default() };
    assert_eq!((reply.model.as_str(), &reply.stop, reply.usage), ("m-1", &StopReason::ToolUse, usage));
    assert!(matches!(&reply.blocks[0], Block::Thinking { text, .. } if text == "hm"));
    assert!(matches!(&reply.blocks[1], Block::Text { text, .. } if text == "I look."));
    let body = encoded(&request(vec![Message { role: Role::Assistant, blocks: reply.blocks }]));
    let mut expected = output();
    // Nothing is stored, so whether it was completed says nothing, and empty lists do not either.
    expected[1].as_object_mut().expect("an item").remove("status");
    expected[1]["content"][0].as_object_mut().expect("a part").remove("logprobs");
    expected[2].as_object_mut().expect("an item").remove("status");
    assert_eq!(body["input"], expected);
    assert_eq!((&body["store"], &body["include"]), (&json!(false), &json!(["reasoning.encrypted_content"])));
}

#[test]
fn a_turn_is_sent_with_everything_it_asks() {
    let png = ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    let result = Block::ToolResult {
        id: "a".to_owned(),
        content: "none".to_owned(),
        images: vec![png.clone()],
        is_error: true,
        extra: None,
    };
    let mut asked = request(vec![
        Message::text(Role::System, "be brief"),
        Message { role: Role::User, blocks: vec![Block::text("look"), Block::Image { image: png, extra: None }] },
        Message { role: Role::Assistant, blocks: vec![call("a", "read", json!({"path": "x"}))] },
        Message { role: Role::User, blocks: vec![result, Block::text("and now?")] },
    ]);
    asked.tools = vec![WorkspaceTool::Read.schema()];
    asked.tool_choice = ToolChoice::Named("read".to_owned());
    asked.parallel_tools = Some(false);
    asked.thinking = Thinking::Effort(Effort::High);
    asked.show_thinking = true;
    asked.session = Some("task-1".to_owned());
    asked.sampling.temperature = Some(0.5);
    let body = encoded(&asked);
    assert_eq!(
        body["input"],
        json!([
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be brief"}]},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
            ]},
            {"type": "function_call", "call_id": "a", "name": "read", "arguments": "{\"path\":\"x\"}"},
            {"type": "function_call_output", "call_id": "a", "output": [
                {"type": "input_text", "text": "error: none"},
                {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
            ]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
        ])
    );
    assert_eq!(body["tool_choice"], json!({"type": "function", "name": "read"}));
    assert_eq!((&body["tools"][0]["type"], &body["tools"][0]["strict"]), (&json!("function"), &json!(false)));
    assert_eq!(body["reasoning"], json!({"effort": "high", "summary": "auto"}));
    assert_eq!((&body["parallel_tool_calls"], &body["prompt_cache_key"]), (&json!(false), &json!("task-1")));
    assert_eq!((&body["max_output_tokens"], &body["temperature"]), (&json!(9), &json!(0.5)));
    let decoded = decode_request(&body).expect("our own request");
    let include = Extra::field(FORMAT, "include", json!(["reasoning.encrypted_content"]));
    assert_eq!(decoded, ModelRequest { extra: include, ..asked });
}

#[test]
fn a_model_that_refuses_sampling_and_forcing_is_sent_neither() {
    let capabilities = ModelCapabilities { sampling: false, forced_tools: false, ..ModelCapabilities::default() };
    let mut asked = request(vec![Message::text(Role::User, "go")]);
    asked.tools = vec![WorkspaceTool::Read.schema()];
    asked.tool_choice = ToolChoice::Any;
    asked.sampling.temperature = Some(1.0);
    let body = encode_request(&Turn {
        request: &asked,
        model: "m",
        capabilities: &capabilities,
        max_tokens: 9,
        temperature: Some(1.0),
        stream: true,
    });
    assert_eq!((body.get("temperature"), &body["tool_choice"]), (None, &json!("auto")));
    assert_eq!(body["input"].as_array().map(Vec::len), Some(2), "it is asked in words");
}

#[test]
fn a_summary_alone_is_not_sent_and_a_model_that_does_not_think_is_asked_for_nothing_encrypted() {
    let item = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]});
    let thought = Block::Thinking { text: "hm".to_owned(), extra: Extra::field(FORMAT, "item", item) };
    let asked = request(vec![Message { role: Role::Assistant, blocks: vec![thought] }]);
    let capabilities = ModelCapabilities::default();
    let turn = Turn { request: &asked, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
    let body = encode_request(&turn);
    assert_eq!((&body["input"], body.get("include")), (&json!([]), None));
}

#[test]
fn anothers_thought_is_not_sent_and_survives_a_client() {
    let signature = Extra::field(WireFormat::Anthropic, "signature", json!("sig=="));
    let thought = Block::Thinking { text: "hm".to_owned(), extra: signature };
    let body = encoded(&request(vec![Message { role: Role::Assistant, blocks: vec![thought.clone()] }]));
    assert_eq!(body["input"], json!([]));
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![thought.clone(), Block::text("done")],
        stop: StopReason::EndTurn,
        usage: Usage::default(),
    };
    let served = encode_reply(&reply, "resp_1", 1);
    let back = decode_request(&json!({"model": "m", "input": served["output"]})).expect("what we served");
    assert_eq!(back.messages[0].blocks[0], thought);
}

#[test]
fn allowed_tools_are_the_only_ones_left_and_what_needs_a_memory_is_refused() {
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
    let body = json!({"input": "go", "tools": [tool("a"), tool("b")], "tool_choice": {
        "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}});
    let decoded = decode_request(&body).expect("right");
    assert_eq!((decoded.tool_choice, decoded.tools.len(), decoded.tools[0].name.as_str()), (ToolChoice::Any, 1, "b"));
    for body in [
        json!({"input": "go", "previous_response_id": "resp_1"}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": "go", "background": true}),
        json!({"input": 3}),
        json!({}),
        json!({"input": [{"role": "robot", "content": "x"}]}),
        json!({"input": "go", "reasoning": {"effort": "huge"}}),
        json!({"input": "go", "tool_choice": "perhaps"}),
        json!({"input": [{"type": "function_call_output", "output": "x"}]}),
    ] {
        assert!(decode_request(&body).is_err(), "{body}");
    }
}

#[test]
fn arguments_that_are_no_object_stay_as_they_were_and_go_back_as_valid_json() {
    let item = json!([{"type": "function_call", "call_id": "a", "name": "shell", "arguments": "ls -l"}]);
    let reply = decode_reply(response(item).to_string().as_bytes()).expect("an answer");
    assert_eq!(reply.blocks, [call("a", "shell", json!("ls -l"))]);
    let body = encoded(&request(vec![Message { role: Role::Assistant, blocks: reply.blocks.clone() }]));
    let arguments = body["input"][0]["arguments"].as_str().expect("a text");
    assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object()));
    assert_eq!(decode_request(&body).expect("ours").messages[0].blocks, reply.blocks);
}

/// Every event of a served stream: numbered without gaps, named after its type, items opened before they are
/// written and closed once.
fn judge(events: &[ServedEvent]) {
    let mut open: Vec<u64> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.data["sequence_number"], json!(at), "{event:?}");
        assert_eq!(event.name, event.data["type"].as_str());
        let place = event.data["output_index"].as_u64();
        match (event.name, place) {
            (Some("response.output_item.added"), Some(place)) => open.push(place),
            (Some("response.output_item.done"), Some(place)) => {
                assert!(open.contains(&place), "{event:?}");
                open.retain(|known| *known != place);
            }
            (_, Some(place)) => assert!(open.contains(&place), "{event:?}"),
            (_, None) => {}
        }
    }
    assert_eq!(open, Vec::<u64>::new());
}

fn stream_of(reply: &ModelReply, piece: usize) -> Vec<ServedEvent> {
    let mut encoder = StreamEncoder::new(&reply.model, "r", 1);
    let mut events = encoder.start();
    events.extend(deltas_of(reply, piece).iter().flat_map(|delta| encoder.push(delta)));
    events.extend(encoder.finish(reply));
    events
}

#[test]
fn a_broken_answer_ends_in_a_failed_response() {
    let mut encoder = StreamEncoder::new("m", "r", 1);
    encoder.start();
    let events = encoder.error(503, &Failure::new(Code::ModelFailed, "it broke off"));
    assert_eq!(events[0].name, Some("response.failed"));
    assert_eq!(events[0].data["response"]["error"]["message"], "it broke off");
}

fn arguments() -> impl Strategy<Value = Value> {
    let object = proptest::collection::btree_map(".{0,8}", ".{0,12}", 0..3).prop_map(|map| json!(map));
    let raw = "[a-z{\\[\" ]{1,12}".prop_filter("an object or blank is not raw", |text| {
        !text.trim().is_empty() && !serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    });
    prop_oneof![object, raw.prop_map(Value::String)]
}

/// What a model can say: thoughts with what is encrypted in them, texts, calls, and what nobody here knows, in any order.
fn answer() -> impl Strategy<Value = Vec<Block>> {
    let thought = ".{1,20}".prop_map(|text| {
        let item =
            json!({"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": text}], "encrypted_content": "e"});
        Block::Thinking { text, extra: Extra::field(FORMAT, "item", item) }
    });
    let text = ".{1,40}".prop_map(Block::text);
    let calls = ("[a-z_]{1,10}", arguments()).prop_map(|(name, input)| call("", &name, input));
    let unknown = Just(Block::Unknown { format: FORMAT, block: json!({"type": "web_search_call", "id": "ws"}) });
    proptest::collection::vec(prop_oneof![thought, text, calls, unknown], 1..6).prop_map(|mut blocks| {
        for (at, block) in blocks.iter_mut().enumerate() {
            if let Block::ToolUse { id, .. } = block {
                *id = format!("id{at}");
            }
        }
        // Two texts in a row would be two messages on the way out, and pieces of one in a stream.
        blocks.dedup_by(|a, b| matches!((a, b), (Block::Text { .. }, Block::Text { .. })));
        blocks
    })
}

/// Without the ids that a server gave.
fn plain(blocks: Vec<Block>) -> Vec<Block> {
    let strip = |block| match block {
        Block::Text { text, .. } => Block::text(text),
        Block::ToolUse { id, name, input, .. } => Block::ToolUse { id, name, input, extra: None },
        other => other,
    };
    blocks.into_iter().map(strip).collect()
}

/// JSON of any shape, with the words that the format has in the places of keys and values.
fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "type",
        "role",
        "content",
        "message",
        "input",
        "output",
        "text",
        "function_call",
        "reasoning",
        "tools",
        "tool_choice",
        "user",
        "assistant",
        "input_image",
        "image_url",
        "name",
        "call_id",
        "allowed_tools",
        "instructions",
        "input_text",
    ];
    let word = proptest::sample::select(words.to_vec());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        word.clone().prop_map(|word| json!(word)),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn no_request_and_no_answer_makes_us_panic(body in any_json()) {
        if let Ok(decoded) = decode_request(&body) {
            encoded(&decoded);
        }
        let _ = decode_reply(body.to_string().as_bytes());
        for kind in ["response.completed", "response.output_item.added", "response.output_item.done", "response.output_text.delta"] {
            let mut decoder = StreamDecoder::default();
            let event = json!({"type": kind, "response": body, "item": body, "delta": body, "output_index": 0});
            let _ = decoder.push(None, event.to_string().as_bytes());
            let _ = decoder.push(None, json!({"type": "response.completed", "response": {}}).to_string().as_bytes());
            let _ = Box::new(decoder).finish();
        }
    }

    #[test]
    fn a_reply_survives_both_forms_of_the_wire(blocks in answer(), piece in 1usize..9, input in 0u64..1_000, output in 0u64..1_000) {
        let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
        let stop = if calls { StopReason::ToolUse } else { StopReason::EndTurn };
        let usage = Usage { input_tokens: input, cached_tokens: input / 2, output_tokens: output, ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks, stop, usage };
        let whole = decode_reply(encode_reply(&reply, "r", 1).to_string().as_bytes()).expect("our own answer");
        prop_assert_eq!(ModelReply { blocks: plain(whole.blocks), ..whole }, reply.clone());
        let events = stream_of(&reply, piece);
        judge(&events);
        let datas: Vec<Value> = events.into_iter().map(|event| event.data).collect();
        let (streamed, shown) = read(&datas);
        let streamed = streamed.expect("our own stream");
        prop_assert_eq!(ModelReply { blocks: plain(streamed.blocks), ..streamed }, reply.clone());
        let texts = |blocks: &[Block]| blocks.iter().filter_map(|block| match block { Block::Text { text, .. } => Some(text.clone()), _ => None }).collect::<String>();
        let text: String = shown.iter().filter_map(|delta| match delta { ModelDelta::Text { text } => Some(text.as_str()), _ => None }).collect();
        prop_assert_eq!(text, texts(&reply.blocks));
    }

    #[test]
    fn a_conversation_survives_the_wire(turns in proptest::collection::vec((answer(), ".{0,20}"), 0..4)) {
        let mut messages = vec![Message::text(Role::System, "s"), Message::text(Role::User, "u")];
        for (blocks, content) in turns {
            let results: Vec<Block> = blocks.iter().filter_map(|block| match block {
                Block::ToolUse { id, .. } => Some(Block::ToolResult { id: id.clone(), content: content.clone(), images: Vec::new(), is_error: content.len() % 2 == 1, extra: None }),
                _ => None,
            }).collect();
            messages.push(Message { role: Role::Assistant, blocks });
            let next = if results.is_empty() { vec![Block::text(content)] } else { results };
            messages.push(Message { role: Role::User, blocks: next });
        }
        let asked = request(messages);
        prop_assert_eq!(decode_request(&encoded(&asked)).map(|decoded| decoded.messages), Ok(asked.messages));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = StreamDecoder::default();
        let _ = decoder.push(Some("response.output_item.done"), &data);
        let _ = Box::new(decoder).finish();
    }
}
