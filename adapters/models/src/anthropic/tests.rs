//! Both sides of the format against each other, and what the real one says.

use helix_ports::ModelCapabilities;
use helix_protocol::{
    Block, Code, Effort, Extra, Failure, ImageSource, Message, ModelDelta, ModelReply, ModelRequest, Role, Sampling, StopReason,
    Thinking, ThinkingControl, ToolChoice, ToolSchema, Usage, WireFormat,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::format::{DecodeError, Format, Turn};
use crate::testing::{arguments, body_of, conversation, never_shorter, read, served};
use crate::{ServedEvent, ServedStream};

mod caching;
mod streams;

const FORMAT: AnthropicMessages = AnthropicMessages;

fn encoded(request: &ModelRequest, capabilities: &ModelCapabilities) -> Value {
    FORMAT.encode(&turn(request, capabilities)).body
}

fn turn<'a>(request: &'a ModelRequest, capabilities: &'a ModelCapabilities) -> Turn<'a> {
    Turn { request, model: "m", capabilities, max_tokens: request.max_tokens, temperature: None, stream: false }
}

fn extra(fields: Value) -> Option<Box<Extra>> {
    Extra::of(WireFormat::Anthropic, fields.as_object().expect("an object").clone())
}

fn thought(text: &str, signature: &str) -> Block {
    Block::Thinking { text: text.to_owned(), extra: extra(json!({"signature": signature})) }
}

fn call(id: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: "read".to_owned(), input, extra: None }
}

fn tool(name: &str) -> ToolSchema {
    ToolSchema { name: name.to_owned(), description: "d".to_owned(), parameters: json!({"type": "object"}), extra: None }
}

fn user(text: &str) -> ModelRequest {
    ModelRequest { messages: vec![Message::text(Role::User, text)], max_tokens: 10_000, ..ModelRequest::default() }
}

#[test]
fn thinking_is_asked_for_as_the_model_lets_it() {
    let said = |thinking, control, efforts: &[Effort]| {
        let capabilities = ModelCapabilities { thinking: control, efforts: efforts.to_vec(), ..ModelCapabilities::default() };
        let request = ModelRequest { thinking, ..user("think step by step") };
        let body = encoded(&request, &capabilities);
        (body["thinking"].clone(), body["output_config"]["effort"].clone())
    };
    use ThinkingControl as Control;
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    let adaptive = json!({"type": "adaptive", "display": "omitted"});
    let all = [Effort::Low, Effort::Medium, Effort::High];
    for (thinking, control, expected) in [
        (Thinking::Budget(0), Control::Budget, (budget(8_000), Value::Null)),
        (Thinking::Detect, Control::Budget, (budget(8_000), Value::Null)),
        (Thinking::Adaptive, Control::Budget, (budget(8_000), Value::Null)),
        (Thinking::Off, Control::Budget, (json!({"type": "disabled"}), Value::Null)),
        (Thinking::Effort(Effort::Max), Control::Effort, (adaptive.clone(), json!("high"))),
        (Thinking::Adaptive, Control::Effort, (adaptive, Value::Null)),
        (Thinking::Budget(0), Control::AlwaysEffort, (Value::Null, json!("high"))),
        (Thinking::Off, Control::AlwaysEffort, (Value::Null, json!("low"))),
        (Thinking::Budget(0), Control::None, (Value::Null, Value::Null)),
    ] {
        assert_eq!(said(thinking, control, &all), expected, "{thinking:?} {control:?}");
    }
    let shown = ModelRequest { show_thinking: true, ..user("u") };
    let capabilities = ModelCapabilities { thinking: Control::AlwaysEffort, ..ModelCapabilities::default() };
    assert_eq!(encoded(&shown, &capabilities)["thinking"], json!({"type": "adaptive", "display": "summarized"}));
}

#[test]
fn a_budget_is_left_out_in_the_midst_of_calls_that_were_made_without_thinking() {
    let capabilities = ModelCapabilities { thinking: ThinkingControl::Budget, ..ModelCapabilities::default() };
    let result =
        Block::ToolResult { id: "a".to_owned(), content: "x".to_owned(), images: Vec::new(), is_error: false, extra: None };
    let body = |turn: Vec<Block>| {
        let mut request = ModelRequest { thinking: Thinking::Budget(0), ..user("u") };
        request.messages.push(Message { role: Role::Assistant, blocks: turn });
        request.messages.push(Message { role: Role::User, blocks: vec![result.clone()] });
        encoded(&request, &capabilities)
    };
    assert_eq!(body(vec![call("a", json!({}))]).get("thinking"), None);
    assert!(body(vec![thought("t", "s"), call("a", json!({}))]).get("thinking").is_some());
}

#[test]
fn a_model_that_cannot_be_forced_is_asked_behind_the_cache_markers() {
    let capabilities =
        ModelCapabilities { forced_tools: false, cache_markers: true, cache_least: 0, ..ModelCapabilities::default() };
    let request = ModelRequest { tools: vec![tool("read")], tool_choice: ToolChoice::Named("read".to_owned()), ..user("u") };
    let body = encoded(&request, &capabilities);
    assert_eq!(body["tool_choice"], json!({"type": "auto"}));
    let content = &body["messages"][0]["content"];
    assert_eq!(content[0]["cache_control"], json!({"type": "ephemeral"}));
    assert!(content[1]["text"].as_str().is_some_and(|text| text.contains("`read`")), "{content}");
    assert_eq!(content[1].get("cache_control"), None);
    let able = encoded(&request, &ModelCapabilities::default());
    assert_eq!(able["tool_choice"], json!({"type": "tool", "name": "read"}));
    assert!(!FORMAT.forces_tools(&turn(&request, &capabilities)));
}

#[test]
fn a_model_that_can_be_forced_is_asked_in_words_while_it_thinks_and_that_is_told() {
    let forced = |control, thinking| {
        let capabilities =
            ModelCapabilities { thinking: control, efforts: vec![Effort::Low, Effort::High], ..ModelCapabilities::default() };
        let request = ModelRequest { tools: vec![tool("read")], tool_choice: ToolChoice::Any, thinking, ..user("u") };
        let sent = encoded(&request, &capabilities)["tool_choice"]["type"] == "any";
        assert_eq!(FORMAT.forces_tools(&turn(&request, &capabilities)), sent, "{control:?} {thinking:?}");
        sent
    };
    for (control, thinking, expected) in [
        (ThinkingControl::Budget, Thinking::Default, true),
        (ThinkingControl::Budget, Thinking::Off, true),
        (ThinkingControl::Budget, Thinking::Budget(0), false),
        (ThinkingControl::Budget, Thinking::Effort(Effort::High), false),
        (ThinkingControl::Effort, Thinking::Default, true),
        (ThinkingControl::Effort, Thinking::Effort(Effort::High), false),
        (ThinkingControl::None, Thinking::Effort(Effort::High), true),
    ] {
        assert_eq!(forced(control, thinking), expected, "{control:?} {thinking:?}");
    }
}

#[test]
fn sampling_goes_with_the_version_that_takes_it_and_nowhere_else() {
    let sampling = Sampling { temperature: Some(1.5), top_p: Some(0.5), top_k: Some(3) };
    let request = ModelRequest { sampling, ..user("u") };
    let able = ModelCapabilities::default();
    let encoded = FORMAT.encode(&turn(&request, &able));
    assert_eq!(encoded.headers, [("anthropic-version", "2023-06-01".to_owned())]);
    assert_eq!((&encoded.body["temperature"], &encoded.body["top_k"]), (&json!(1.0), &json!(3)));
    let refuses = ModelCapabilities { sampling: false, ..ModelCapabilities::default() };
    let encoded = FORMAT.encode(&turn(&request, &refuses));
    assert_eq!((encoded.headers.len(), encoded.body.get("temperature"), encoded.body.get("top_p")), (0, None, None));
    assert_eq!(FORMAT.headers(), [("anthropic-version", "2026-10-21".to_owned())]);
}

#[test]
fn what_a_client_asks_besides_comes_through() {
    let body = json!({
        "model": "m", "max_tokens": 9, "stop_sequences": ["END"], "metadata": {"user_id": "someone"}, "service_tier": "auto",
        "system": [{"type": "text", "text": "s"}],
        "tools": [
            {"name": "read", "description": "d", "input_schema": {"type": "object"}, "strict": true},
            {"type": "web_search_20260209", "name": "web_search", "max_uses": 2},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "document", "source": {"type": "text", "data": "d", "media_type": "text/plain"}, "title": "t"},
            ]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "read", "input": {}, "caller": {"type": "direct"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "is_error": true, "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                ]},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "search_result", "title": "t"}, {"type": "text", "text": "x"}]},
            ]},
        ],
    });
    let request = decode_request(&body).expect("decodes");
    assert_eq!(encoded(&request, &ModelCapabilities::default()), body);
    assert_eq!(request.session.as_deref(), Some("someone"));
    let Block::ToolResult { content, images, is_error, .. } = &request.messages[3].blocks[0] else { panic!("a result") };
    assert_eq!((content.as_str(), images.len(), *is_error), ("see", 1, true));
}

#[test]
fn thinking_that_a_client_asks_for_is_understood() {
    for (body, expected, shown) in [
        (json!({"thinking": {"type": "enabled", "budget_tokens": 2_000}}), Thinking::Budget(2_000), true),
        (json!({"thinking": {"type": "adaptive"}}), Thinking::Adaptive, false),
        (
            json!({"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "max"}}),
            Thinking::Effort(Effort::Max),
            true,
        ),
        (
            json!({"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}}}),
            Thinking::Effort(Effort::Low),
            false,
        ),
        (json!({"thinking": {"type": "disabled"}}), Thinking::Off, false),
        (json!({"thinking": {"type": "between_tools"}}), Thinking::Default, false),
    ] {
        let mut body = body;
        body["messages"] = json!([]);
        let request = decode_request(&body).expect("decodes");
        assert_eq!((request.thinking, request.show_thinking), (expected, shown), "{body}");
    }
}

#[test]
fn a_request_that_cannot_be_read_says_where_it_is_wrong() {
    let content = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (body, expected) in [
        (json!({}), "`messages` is missing or not a list"),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0]: `role` \"tool\" is not known; it is user or assistant",
        ),
        (content(json!({"type": "text"})), "messages[0]: content[0]: `text` is missing"),
        (content(json!("text")), "messages[0]: content[0]: a block is an object"),
        (json!({"messages": [], "tools": [{"name": "a"}]}), "tools[0]: `input_schema` is missing or not a JSON Schema"),
        (json!({"messages": [], "tool_choice": {"type": "tool"}}), "`tool_choice.name` is missing"),
        (json!({"messages": [], "thinking": {"type": "enabled"}}), "`thinking.budget_tokens` is missing"),
        (json!({"messages": [], "stop_sequences": "x"}), "`stop_sequences` is not a list of texts"),
    ] {
        assert_eq!(decode_request(&body), Err(expected.to_owned()));
    }
}

#[test]
fn what_the_provider_would_refuse_is_left_out_or_mended() {
    let foreign =
        Block::Thinking { text: "t".to_owned(), extra: Extra::field(WireFormat::OpenaiChat, "field", json!("reasoning")) };
    let mut request = user("");
    request.messages.push(Message { role: Role::Assistant, blocks: vec![foreign, call("a.b|c", json!("not json"))] });
    let result =
        Block::ToolResult { id: "a.b|c".to_owned(), content: "r".to_owned(), images: Vec::new(), is_error: false, extra: None };
    request.messages.push(Message { role: Role::User, blocks: vec![Block::text("and"), result] });
    let raw = json!({crate::chat::RAW_ARGUMENTS: "not json"});
    let expected = json!([
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a_b_c", "name": "read", "input": raw}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a_b_c", "content": "r"},
            {"type": "text", "text": "and"},
        ]},
    ]);
    assert_eq!(encoded(&request, &ModelCapabilities::default())["messages"], expected);
}

#[test]
fn overlapping_calls_are_written_one_after_the_other_and_only_as_objects() {
    let begin = |index, id: &str| ModelDelta::ToolUse { index, id: id.to_owned(), name: "read".to_owned(), extra: None };
    let input = |index, text: &str| ModelDelta::ToolInput { index, text: text.to_owned() };
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![call("a", json!({"x": 1})), call("b", json!({"y": 2})), call("c", json!("ls -l")), Block::text("done")],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 1, ..Usage::default() },
    };
    let mut encoder = StreamEncoder::new("m", "id", 0);
    let mut events = encoder.start();
    let deltas = [
        begin(0, "a"),
        begin(1, "b"),
        input(1, "{\"y\""),
        input(0, "{\"x\":"),
        input(1, ":2}"),
        input(0, "1}"),
        begin(2, "c"),
        input(2, "ls "),
        input(2, "-l"),
        ModelDelta::Text { text: "done".to_owned() },
    ];
    events.extend(deltas.iter().flat_map(|delta| encoder.push(delta)));
    events.extend(encoder.finish(&reply));
    assert_eq!(read(&FORMAT, &body_of(&events), 33).map(|(reply, _)| reply), Ok(reply));
}

#[test]
fn a_refusal_has_the_formats_own_kind() {
    let failure = Failure::new(Code::ContextOverflow, "it is longer than the model takes").hint("shorten it");
    let error = encode_error(400, &failure);
    let message = "prompt is too long: it is longer than the model takes (shorten it)";
    assert_eq!(error, json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}}));
    for (status, kind) in [(401, "authentication_error"), (429, "rate_limit_error"), (529, "overloaded_error"), (500, "api_error")]
    {
        assert_eq!(encode_error(status, &failure)["error"]["type"], kind);
    }
}

#[test]
fn limits_are_read_from_the_headers_by_the_servers_clock() {
    let headers = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "1994-11-06T08:49:39Z"),
        ("anthropic-ratelimit-input-tokens-limit", "1000"),
        ("anthropic-ratelimit-input-tokens-remaining", "10"),
    ];
    let headers = headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect();
    let limits = FORMAT.rate_limits(&headers);
    assert_eq!(limits.requests.map(|window| (window.limit, window.remaining, window.reset_ms)), Some((50, 49, 2_000)));
    assert_eq!(limits.tokens.map(|window| (window.limit, window.remaining, window.reset_ms)), Some((1_000, 10, 0)));
}

#[test]
fn tokens_are_counted_and_models_listed_by_its_own_calls() {
    let request = ModelRequest { tools: vec![tool("read")], ..user("u") };
    let count = FORMAT.encode_count(&turn(&request, &ModelCapabilities::default())).expect("it counts");
    assert_eq!((count.path.as_str(), count.body.get("max_tokens")), ("messages/count_tokens", None));
    assert_eq!(FORMAT.decode_count(&json!({"input_tokens": 7})), Some(7));
    let models = json!({"data": [{"type": "model", "id": "claude-x"}], "has_more": false});
    assert_eq!(FORMAT.decode_models(&models), Some(vec!["claude-x".to_owned()]));
}

/// What a model can say.
fn answer() -> impl Strategy<Value = Vec<Block>> {
    let thinking = (".{0,20}", "[A-Za-z0-9]{1,9}").prop_map(|(text, signature)| thought(&text, &signature));
    let redacted = "[a-z]{1,9}"
        .prop_map(|data| Block::Thinking { text: String::new(), extra: extra(json!({"type": "redacted_thinking", "data": data})) });
    let text = (".{1,40}", any::<bool>()).prop_map(|(text, cited)| {
        let cited = cited.then(|| extra(json!({"citations": [{"type": "char_location", "cited_text": text}]}))).flatten();
        Block::Text { text, extra: cited }
    });
    let unknown = "[a-z]{1,9}"
        .prop_map(|data| Block::Unknown { format: WireFormat::Anthropic, block: json!({"type": "novel", "data": data}) });
    let calls = proptest::collection::vec(arguments(), 0..4)
        .prop_map(|inputs| inputs.into_iter().enumerate().map(|(at, input)| call(&format!("id{at}"), input)).collect::<Vec<_>>());
    let spoken = proptest::collection::vec(prop_oneof![thinking, redacted, text.boxed(), unknown], 0..4);
    (spoken, calls).prop_map(|(spoken, calls)| {
        // Texts in a row are told apart only where the pieces of one end; the provider does not send them so.
        let mut blocks: Vec<Block> = Vec::new();
        for block in spoken {
            let same = |last: &Block| matches!((last, &block), (Block::Text { extra: None, .. }, Block::Text { .. }));
            if !blocks.last().is_some_and(same) {
                blocks.push(block);
            }
        }
        blocks.extend(calls);
        blocks
    })
}

proptest! {
    #[test]
    fn a_reply_survives_both_forms_of_the_wire(blocks in answer(), piece in 1usize..9, input in 0u64..1_000, output in 0u64..1_000) {
        let usage = Usage { input_tokens: input, cached_tokens: input / 2, cache_write_tokens: input / 4, output_tokens: output, thinking_tokens: output / 2, ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks, stop: StopReason::EndTurn, usage };
        prop_assert_eq!(decode_reply(encode_reply(&reply, "id", 1).to_string().as_bytes()), Ok(reply.clone()));
        let events = served(&mut StreamEncoder::new("m", "id", 1), &reply, piece);
        prop_assert_eq!(read(&FORMAT, &body_of(&events), 50).map(|(reply, _)| reply), Ok(reply));
    }

    #[test]
    fn a_conversation_survives_the_wire(turns in proptest::collection::vec((answer(), ".{0,20}"), 0..4)) {
        let turns = turns.into_iter().filter(|(blocks, _)| !blocks.is_empty()).collect();
        let image = Block::Image { image: ImageSource::Url { url: "https://example.org/a.png".to_owned() }, extra: None };
        let mut request = ModelRequest { model: Some("m".to_owned()), tools: vec![tool("read")], max_tokens: 9, ..ModelRequest::default() };
        request.messages = conversation(turns);
        request.messages.push(Message { role: Role::User, blocks: vec![image] });
        prop_assert_eq!(decode_request(&encoded(&request, &ModelCapabilities::default())), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_reply(&data);
        let _ = read(&FORMAT, &data, 9);
        let mut decoder = FORMAT.decoder();
        let _ = decoder.push(None, &data);
        let _ = decoder.finish();
    }
}

trait AsText {
    fn as_text(&self) -> String;
}

impl AsText for ModelReply {
    fn as_text(&self) -> String {
        Message { role: Role::Assistant, blocks: self.blocks.clone() }.as_text()
    }
}
