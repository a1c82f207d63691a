//! Both sides of the format against each other, and what real servers do to it.

use helix_ports::ModelCapabilities;
use helix_protocol::{
    Block, Extra, ImageSource, Message, ModelDelta, ModelReply, ModelRequest, Role, StopReason, ToolChoice, Usage, WireFormat,
    WorkspaceTool,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::format::Turn;
use crate::{ServedEvent, ServedStream};

mod streams;

/// `request` as a streamed call.
fn encoded(request: &ModelRequest, length: LengthField) -> Value {
    encoded_for(request, length, &ModelCapabilities::default())
}

fn encoded_for(request: &ModelRequest, length: LengthField, capabilities: &ModelCapabilities) -> Value {
    let max_tokens = request.max_tokens;
    let turn = Turn { request, model: "m", capabilities, max_tokens, temperature: None, stream: true };
    encode_request(&turn, ChatCompletions { length, thinking: ThinkingField::ReasoningEffort })
}

/// The blocks that these events make.
fn blocks_of(events: &[Value]) -> Vec<Block> {
    let mut decoder = StreamDecoder::default();
    for event in events {
        decoder.take(event.to_string().as_bytes()).expect("an event");
    }
    decoder.into_reply().expect("an answer").blocks
}

fn fragment(call: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
}

fn call(id: &str, name: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: name.to_owned(), input, extra: None }
}

#[test]
fn allowed_tools_are_the_only_ones_left_and_a_choice_that_is_not_known_is_refused() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let custom = json!({"type": "custom", "custom": {"name": "grep"}});
    let decoded = |choice: Value| {
        let tools = json!([function("read"), function("glob"), custom]);
        let request = decode_request(&json!({"messages": [], "tools": tools, "tool_choice": choice}))?;
        Ok::<_, String>((request.tool_choice, request.tools.into_iter().map(|tool| tool.name).collect::<Vec<_>>()))
    };
    let all = || ["read", "glob", "grep"].map(str::to_owned).to_vec();
    let named = |name: &str| ToolChoice::Named(name.to_owned());
    let allowed = |mode: &str, tools: Value| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
    for (choice, expected) in [
        (Value::Null, (ToolChoice::Auto, all())),
        (json!("required"), (ToolChoice::Any, all())),
        (function("glob"), (named("glob"), all())),
        (custom.clone(), (named("grep"), all())),
        (allowed("required", json!([function("glob")])), (ToolChoice::Any, vec!["glob".to_owned()])),
        (allowed("auto", json!([custom, function("read")])), (ToolChoice::Auto, vec!["read".to_owned(), "grep".to_owned()])),
    ] {
        assert_eq!(decoded(choice.clone()), Ok(expected), "{choice}");
    }
    for choice in
        [json!("perhaps"), json!({"type": "function"}), json!(3), allowed("auto", json!([])), allowed("never", json!([custom]))]
    {
        assert!(decoded(choice.clone()).is_err(), "{choice}");
    }
}

#[test]
fn fragments_find_their_call_in_any_order_and_repeated_names_count_once() {
    let events = [
        fragment(json!({"index": 1, "id": "b", "function": {"name": "glob", "arguments": "{\"pattern\""}})),
        fragment(json!({"index": 0, "id": "a", "function": {"name": "read", "arguments": ""}})),
        fragment(json!({"index": 1, "id": "b", "function": {"name": "glob", "arguments": ":\"*\"}"}})),
        fragment(json!({"index": 0, "function": {"arguments": "{\"path\":\"x\"}"}})),
    ];
    assert_eq!(blocks_of(&events), [call("a", "read", json!({"path": "x"})), call("b", "glob", json!({"pattern": "*"}))]);
}

#[test]
fn calls_without_an_index_or_with_the_same_one_are_told_apart_by_their_ids() {
    for index in [Value::Null, json!(0)] {
        let events = [
            fragment(json!({"index": index, "id": "a", "function": {"name": "read", "arguments": "{\"path\":"}})),
            fragment(json!({"index": index, "function": {"arguments": "\"x\"}"}})),
            fragment(json!({"index": index, "id": "b", "function": {"name": "read", "arguments": "{\"path\":"}})),
            fragment(json!({"index": index, "function": {"arguments": "\"y\"}"}})),
        ];
        assert_eq!(
            blocks_of(&events),
            [call("a", "read", json!({"path": "x"})), call("b", "read", json!({"path": "y"}))],
            "{index}"
        );
    }
}

#[test]
fn a_call_without_an_id_is_given_one_and_no_arguments_are_an_empty_object() {
    let events = [
        fragment(json!({"index": 0, "function": {"name": "todo"}})),
        fragment(json!({"index": 1, "function": {"name": "todo", "arguments": {"items": []}}})),
    ];
    assert_eq!(blocks_of(&events), [call("call_0", "todo", json!({})), call("call_1", "todo", json!({"items": []}))]);
}

#[test]
fn arguments_that_are_no_object_stay_as_they_were_and_go_back_as_valid_json() {
    for raw in ["{\"path\": \"cut off", "[1]", "\"text\"", "ls -l"] {
        let blocks = blocks_of(&[fragment(json!({"index": 0, "id": "a", "function": {"name": "shell", "arguments": raw}}))]);
        assert_eq!(blocks, [call("a", "shell", json!(raw))]);
        let request = request(vec![Message { role: Role::Assistant, blocks: blocks.clone() }]);
        let body = encoded(&request, LengthField::MaxTokens);
        let arguments = body["messages"][0]["tool_calls"][0]["function"]["arguments"].as_str().expect("a string");
        assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object()), "{arguments}");
        assert_eq!(decode_request(&body).expect("decodes").messages[0].blocks, blocks);
    }
}

#[test]
fn openai_gets_the_name_of_the_limit_that_its_models_accept() {
    let request = request(Vec::new());
    let body = encoded(&request, LengthField::MaxCompletionTokens);
    assert_eq!((body.get("max_completion_tokens"), body.get("max_tokens")), (Some(&json!(9)), None));
}

#[test]
fn results_stand_right_after_their_calls_and_before_any_text() {
    let result = Block::ToolResult {
        id: "a".to_owned(),
        content: "no such file".to_owned(),
        images: Vec::new(),
        is_error: true,
        extra: None,
    };
    let message = Message { role: Role::User, blocks: vec![Block::Text { text: "and now?".to_owned(), extra: None }, result] };
    let body = encoded(&request(vec![message]), LengthField::MaxTokens);
    let expected = json!([
        {"role": "tool", "tool_call_id": "a", "content": "error: no such file"},
        {"role": "user", "content": "and now?"},
    ]);
    assert_eq!(body["messages"], expected);
}

#[test]
fn pictures_are_parts_of_what_the_user_says_and_those_of_a_result_follow_it() {
    let png = ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    let far = ImageSource::Url { url: "https://example.org/a.png".to_owned() };
    let shown = Message { role: Role::User, blocks: vec![Block::text("look"), Block::Image { image: far.clone(), extra: None }] };
    let result =
        Block::ToolResult { id: "a".to_owned(), content: "a.png".to_owned(), images: vec![png], is_error: false, extra: None };
    let asked = request(vec![shown.clone(), Message { role: Role::User, blocks: vec![result] }]);
    let body = encoded(&asked, LengthField::MaxTokens);
    let expected = json!([
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "a.png"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
    ]);
    assert_eq!(body["messages"], expected);
    assert_eq!(decode_request(&body).expect("decodes").messages[0], shown);
}

#[test]
fn stop_reasons_follow_the_calls_where_a_server_contradicts_itself() {
    let text = [Block::Text { text: "t".to_owned(), extra: None }];
    let calls = [call("a", "read", json!({}))];
    for (finish, blocks, expected) in [
        (Some("stop"), &text[..], StopReason::EndTurn),
        (Some("stop"), &calls[..], StopReason::ToolUse),
        (Some("tool_calls"), &text[..], StopReason::EndTurn),
        (Some("length"), &calls[..], StopReason::MaxTokens),
        (Some("content_filter"), &text[..], StopReason::Refusal),
        (None, &calls[..], StopReason::ToolUse),
        (Some("odd"), &text[..], StopReason::Other("odd".to_owned())),
    ] {
        assert_eq!(super::reply::decode_stop(finish, blocks, false), expected, "{finish:?}");
    }
}

#[test]
fn a_model_that_calls_one_tool_at_a_time_is_sent_no_word_about_several() {
    let request =
        ModelRequest { tools: vec![WorkspaceTool::Read.schema()], parallel_tools: Some(false), ..ModelRequest::default() };
    let sent = |parallel_tools| {
        let capabilities = ModelCapabilities { parallel_tools, ..ModelCapabilities::default() };
        encoded_for(&request, LengthField::MaxTokens, &capabilities).get("parallel_tool_calls").cloned()
    };
    assert_eq!((sent(true), sent(false)), (Some(json!(false)), None));
}

#[test]
fn what_a_client_asks_besides_comes_through() {
    let body = json!({
        "model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "parallel_tool_calls": false,
        "reasoning_effort": "low", "seed": 7,
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        ]}],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true}},
            {"type": "custom", "custom": {"name": "grammar"}},
        ],
        "tool_choice": "required",
    });
    let request = decode_request(&body).expect("decodes");
    let capabilities = ModelCapabilities { thinking: helix_protocol::ThinkingControl::Effort, ..ModelCapabilities::default() };
    let turn = Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
    assert_eq!(encode_request(&turn, ChatCompletions::at("")), body);
    assert_eq!(request.tools[1].name, "grammar");
}

#[test]
fn pictures_in_the_result_of_a_tool_are_read_and_what_has_no_place_there_is_refused() {
    let said = |content: Value| json!({"messages": [{"role": "tool", "tool_call_id": "a", "content": content}]});
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    let request = decode_request(&said(json!([{"type": "text", "text": "see"}, picture, {"text": " it"}]))).expect("decodes");
    let images = vec![ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() }];
    let result = Block::ToolResult { id: "a".to_owned(), content: "see it".to_owned(), images, is_error: false, extra: None };
    assert_eq!(request.messages[0].blocks, [result]);
    let refused = decode_request(&said(json!([{"type": "file", "file": {"file_id": "f"}}])));
    assert_eq!(refused, Err("messages[0]: only texts and images can stand here".to_owned()));
}

#[test]
fn a_request_that_cannot_be_served_says_which_field_is_wrong() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for (body, expected) in [
        (json!({}), "`messages` is missing or not a list"),
        (json!({"messages": [], "n": 2}), "`n` is above 1; one answer is given to each request"),
        (json!({"messages": [], "stop": 1}), "`stop` is neither a text nor a list of texts"),
        (json!({"messages": [{"role": "critic"}]}), "messages[0]: `role` \"critic\" is not known"),
        (user(json!({"type": "image_url"})), "messages[0]: content[0]: `image_url` is missing"),
        (json!({"messages": [], "tools": [{"type": "function"}]}), "tools[0]: `function` is missing"),
    ] {
        assert_eq!(decode_request(&body), Err(expected.to_owned()));
    }
    assert!(decode_request(&json!({"messages": [], "reasoning_effort": "vast"})).is_err_and(|error| error.contains("vast")));
}

#[test]
fn a_stream_without_pieces_brings_the_whole_answer_at_its_end_and_one_with_them_only_the_rest() {
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![Block::text("hello"), call("a", "read", json!({"path": "x"}))],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 1, output_tokens: 2, ..Usage::default() },
    };
    let texts = |events: &[ServedEvent]| -> String {
        events.iter().filter_map(|event| event.data["choices"][0]["delta"]["content"].as_str()).collect()
    };
    let mut encoder = StreamEncoder::new("m", "id", 1);
    assert_eq!(texts(&encoder.finish(&reply)), "hello");
    let mut encoder = StreamEncoder::new("m", "id", 1).without_usage();
    encoder.push(&ModelDelta::Text { text: "hel".to_owned() });
    let rest = encoder.finish(&reply);
    assert_eq!(texts(&rest), "lo");
    assert_eq!(rest.last().map(|event| event.data["choices"][0]["finish_reason"].clone()), Some(json!("tool_calls")));
}

fn request(messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        model: Some("m".to_owned()),
        messages,
        tools: vec![WorkspaceTool::Edit.schema()],
        max_tokens: 9,
        ..ModelRequest::default()
    }
}

fn arguments() -> impl Strategy<Value = Value> {
    let object = proptest::collection::btree_map(".{0,8}", ".{0,12}", 0..3).prop_map(|map| json!(map));
    let raw = "[a-z{\\[\" ]{1,12}".prop_filter("an object or blank is not raw", |text| {
        !text.trim().is_empty() && !serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    });
    prop_oneof![object, raw.prop_map(Value::String)]
}

/// What a model can say, in the order in which the format can say it.
fn answer() -> impl Strategy<Value = Vec<Block>> {
    let thinking = proptest::option::of(".{1,20}").prop_map(|text| {
        text.map(|text| Block::Thinking { text, extra: Extra::field(WireFormat::OpenaiChat, "field", json!("reasoning_content")) })
    });
    let text = ".{1,40}".prop_map(|text| Block::Text { text, extra: None });
    let calls = proptest::collection::vec(("[a-z_]{1,10}", arguments()), 0..4).prop_map(|calls| {
        let block = |(at, (name, input)): (usize, (String, Value))| call(&format!("id{at}"), &name, input);
        calls.into_iter().enumerate().map(block).collect::<Vec<_>>()
    });
    (thinking, text, calls).prop_map(|(thinking, text, calls)| thinking.into_iter().chain([text]).chain(calls).collect())
}

proptest! {
    #[test]
    fn a_reply_survives_both_forms_of_the_wire(blocks in answer(), piece in 1usize..9, input in 0u64..1_000, output in 0u64..1_000) {
        let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
        let stop = if calls { StopReason::ToolUse } else { StopReason::EndTurn };
        let usage = Usage { input_tokens: input, cached_tokens: input / 2, output_tokens: output, ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks, stop, usage };
        prop_assert_eq!(decode_reply(encode_reply(&reply, "id", 1).to_string().as_bytes()), Ok(reply.clone()));
        let mut decoder = StreamDecoder::default();
        for chunk in encode_chunks(&reply, "id", 1, piece) {
            decoder.take(chunk.to_string().as_bytes()).expect("our own chunk");
        }
        prop_assert_eq!(decoder.into_reply(), Ok(reply));
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
            let next = if results.is_empty() { vec![Block::Text { text: content, extra: None }] } else { results };
            messages.push(Message { role: Role::User, blocks: next });
        }
        let request = request(messages);
        prop_assert_eq!(decode_request(&encoded(&request, LengthField::MaxTokens)), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = StreamDecoder::default();
        let _ = decoder.take(&data);
        let _ = decoder.into_reply();
    }
}
