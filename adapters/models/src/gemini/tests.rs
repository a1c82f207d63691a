//! Both sides of the format against each other, and what the real one says.

use helix_ports::{ModelCapabilities, RawCall, RawOperation};
use helix_protocol::{
    Block, Code, Effort, Extra, Failure, ImageSource, Message, ModelDelta, ModelReply, ModelRequest, Role, StopReason, Thinking,
    ThinkingControl, ToolChoice, ToolSchema, Usage, WireFormat,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ServedStream;
use crate::format::{DecodeError, Format, Turn};
use crate::testing::{arguments, body_of, conversation, never_shorter, read, served};

mod streams;

fn encoded(request: &ModelRequest, capabilities: &ModelCapabilities) -> Value {
    Gemini::default().encode(&turn(request, capabilities)).body
}

fn turn<'a>(request: &'a ModelRequest, capabilities: &'a ModelCapabilities) -> Turn<'a> {
    Turn { request, model: "gemini-x", capabilities, max_tokens: request.max_tokens, temperature: None, stream: true }
}

fn extra(fields: Value) -> Option<Box<Extra>> {
    Extra::of(WireFormat::Gemini, fields.as_object().expect("an object").clone())
}

fn call(id: &str, input: Value, extra: Option<Box<Extra>>) -> Block {
    Block::ToolUse { id: id.to_owned(), name: "read".to_owned(), input, extra }
}

fn result(id: &str, content: &str, is_error: bool) -> Block {
    Block::ToolResult { id: id.to_owned(), content: content.to_owned(), images: Vec::new(), is_error, extra: None }
}

fn tool(name: &str) -> ToolSchema {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    ToolSchema { name: name.to_owned(), description: "d".to_owned(), parameters, extra: None }
}

fn user(text: &str) -> ModelRequest {
    ModelRequest {
        model: Some("gemini-x".to_owned()),
        messages: vec![Message::text(Role::User, text)],
        max_tokens: 10_000,
        ..ModelRequest::default()
    }
}

#[test]
fn calls_without_ids_get_one_that_is_theirs_for_good() {
    let answer = |response: &str, prompt: u64| {
        let call = json!({"functionCall": {"name": "read", "args": {}}});
        let mut answer = json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [call, call]}}], "usageMetadata": {"promptTokenCount": prompt}});
        if !response.is_empty() {
            answer["responseId"] = json!(response);
        }
        let reply = decode_reply(answer.to_string().as_bytes()).expect("an answer");
        reply
            .blocks
            .into_iter()
            .map(|block| match block {
                Block::ToolUse { id, .. } => id,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(answer("r1", 1), ["call_r1_0", "call_r1_1"]);
    let made = answer("", 1);
    assert_eq!(made, answer("", 1));
    assert!(made.iter().all(|id| !answer("", 2).contains(id)));
    assert_ne!(made[0], made[1]);
}

#[test]
fn an_id_that_the_provider_gave_goes_back_with_call_and_result() {
    let body = json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [{"functionCall": {"id": "fc1", "name": "read", "args": {}}}]}}]});
    let reply = decode_reply(body.to_string().as_bytes()).expect("an answer");
    let mut request = user("u");
    request.messages.push(Message { role: Role::Assistant, blocks: reply.blocks });
    request.messages.push(Message { role: Role::User, blocks: vec![result("fc1", "x", false)] });
    let contents = encoded(&request, &ModelCapabilities::default())["contents"].clone();
    assert_eq!(contents[1]["parts"][0]["functionCall"]["id"], "fc1");
    assert_eq!(contents[2]["parts"][0]["functionResponse"]["id"], "fc1");
}

#[test]
fn thinking_is_asked_for_as_the_model_lets_it() {
    use ThinkingControl as Control;
    let efforts = vec![Effort::Low, Effort::High];
    for (thinking, control, expected) in [
        (Thinking::Budget(0), Control::Budget, json!({"thinkingBudget": 8_000})),
        (Thinking::Detect, Control::Budget, json!({"thinkingBudget": 8_000})),
        (Thinking::Off, Control::Budget, json!({"thinkingBudget": 0})),
        (Thinking::Adaptive, Control::Budget, json!({"thinkingBudget": -1})),
        (Thinking::Effort(Effort::Max), Control::AlwaysEffort, json!({"thinkingLevel": "HIGH"})),
        (Thinking::Off, Control::AlwaysEffort, json!({"thinkingLevel": "LOW"})),
        (Thinking::Default, Control::Budget, Value::Null),
        (Thinking::Budget(0), Control::None, Value::Null),
    ] {
        let capabilities = ModelCapabilities { thinking: control, efforts: efforts.clone(), ..ModelCapabilities::default() };
        let request = ModelRequest { thinking, ..user("think") };
        assert_eq!(encoded(&request, &capabilities)["generationConfig"]["thinkingConfig"], expected, "{thinking:?} {control:?}");
    }
    let request = ModelRequest { show_thinking: true, ..user("u") };
    let capabilities = ModelCapabilities { thinking: Control::Budget, ..ModelCapabilities::default() };
    assert_eq!(encoded(&request, &capabilities)["generationConfig"]["thinkingConfig"], json!({"includeThoughts": true}));
}

#[test]
fn tools_are_forced_by_mode_and_names_or_asked_for_in_words() {
    for (choice, expected) in [
        (ToolChoice::Any, json!({"mode": "ANY"})),
        (ToolChoice::None, json!({"mode": "NONE"})),
        (ToolChoice::Named("read".to_owned()), json!({"mode": "ANY", "allowedFunctionNames": ["read"]})),
    ] {
        let request = ModelRequest { tools: vec![tool("read")], tool_choice: choice, ..user("u") };
        let body = encoded(&request, &ModelCapabilities::default());
        assert_eq!(body["toolConfig"]["functionCallingConfig"], expected);
        assert_eq!(decode_request(&body, "gemini-x"), Ok(request));
    }
    let request = ModelRequest { tools: vec![tool("read")], tool_choice: ToolChoice::Any, ..user("u") };
    let body = encoded(&request, &ModelCapabilities { forced_tools: false, ..ModelCapabilities::default() });
    assert_eq!((body.get("toolConfig"), body["contents"].as_array().map(Vec::len)), (None, Some(2)));
}

#[test]
fn what_a_client_asks_besides_comes_through() {
    let body = json!({
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [
                {"text": "u"},
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"fileData": {"fileUri": "https://example.org/a", "mimeType": "image/png"}},
                {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
            ]},
            {"role": "model", "parts": [{"functionCall": {"name": "read", "args": {}}, "thoughtSignature": "S"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "read", "response": {"result": {"deep": 1}}}}]},
        ],
        "tools": [
            {"functionDeclarations": [
                {"name": "read", "description": "d", "parametersJsonSchema": {"type": "object", "additionalProperties": false}},
                {"name": "glob", "description": "", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
            ]},
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["read", "glob"]}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "cachedContent": "cachedContents/1",
        "generationConfig": {"maxOutputTokens": 9, "temperature": 0.5, "topP": 0.5, "topK": 3, "stopSequences": ["x"], "seed": 7, "responseMimeType": "application/json"},
    });
    let request = decode_request(&body, "models/gemini-x").expect("decodes");
    assert_eq!(request.model.as_deref(), Some("gemini-x"));
    assert_eq!(encoded(&request, &ModelCapabilities::default()), body);
}

#[test]
fn the_nodes_thresholds_of_safety_are_sent_unless_the_request_has_its_own() {
    let format = Gemini::with_safety(vec![("HARM_CATEGORY_HARASSMENT", "BLOCK_NONE"), ("HARM_CATEGORY_JAILBREAK", "OFF")]);
    let sent = |request: &ModelRequest| format.encode(&turn(request, &ModelCapabilities::default())).body["safetySettings"].clone();
    let ours = json!([
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"},
        {"category": "HARM_CATEGORY_JAILBREAK", "threshold": "OFF"},
    ]);
    assert_eq!(sent(&user("u")), ours);
    let own = json!([{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_LOW_AND_ABOVE"}]);
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "u"}]}], "safetySettings": own});
    assert_eq!(sent(&decode_request(&body, "m").expect("decodes")), own);
    let counted = format.encode_count(&turn(&user("u"), &ModelCapabilities::default())).expect("it counts");
    assert!(counted.body.pointer("/generateContentRequest/safetySettings").is_none(), "they are no part of a prompt");
}

#[test]
fn a_client_may_write_with_underscores_and_in_capitals() {
    let body = json!({
        "system_instruction": {"parts": {"text": "s"}},
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "aGk="}}]}],
        "tools": [{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}}]}],
        "generation_config": {"max_output_tokens": 5, "thinking_config": {"thinking_budget": 0}},
    });
    let request = decode_request(&body, "m").expect("decodes");
    let image = ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    assert_eq!(request.messages[1].blocks, [Block::Image { image, extra: None }]);
    assert_eq!(request.tools[0].parameters, json!({"type": "object", "properties": {"a": {"type": "string"}}}));
    assert_eq!((request.max_tokens, request.thinking), (5, Thinking::Off));
}

#[test]
fn results_without_ids_find_the_calls_that_they_answer() {
    let called = |name: &str| json!({"functionCall": {"name": name, "args": {}}});
    let answered = |name: &str, text: &str| json!({"functionResponse": {"name": name, "response": {"output": text}}});
    let body = json!({"contents": [
        {"role": "model", "parts": [called("a"), called("b"), called("a")]},
        {"role": "user", "parts": [answered("b", "1"), answered("a", "2"), answered("a", "3")]},
    ]});
    let request = decode_request(&body, "m").expect("decodes");
    let ids = |at: usize| -> Vec<String> {
        let id = |block: &Block| match block {
            Block::ToolUse { id, .. } | Block::ToolResult { id, .. } => id.clone(),
            other => panic!("{other:?}"),
        };
        request.messages[at].blocks.iter().map(id).collect()
    };
    let (calls, results) = (ids(0), ids(1));
    assert_eq!(results, [calls[1].clone(), calls[0].clone(), calls[2].clone()]);
    assert_eq!(calls.iter().collect::<std::collections::HashSet<_>>().len(), 3);
}

#[test]
fn a_request_that_cannot_be_read_says_where_it_is_wrong() {
    let part = |part: Value| json!({"contents": [{"parts": [part]}]});
    for (body, expected) in [
        (json!([]), "the request is not an object"),
        (json!({}), "`contents` is missing or not a list"),
        (
            json!({"contents": [{"role": "critic", "parts": []}]}),
            "contents[0]: `role` \"critic\" is not known; it is user or model",
        ),
        (json!({"contents": [{"role": "user"}]}), "contents[0]: `parts` is missing or not a list"),
        (part(json!("t")), "contents[0]: parts[0]: a part is an object"),
        (part(json!({"functionCall": {}})), "contents[0]: parts[0]: `functionCall.name` is missing"),
        (
            json!({"contents": [], "generationConfig": {"candidateCount": 2}}),
            "`candidateCount` is above 1; one answer is given to each request",
        ),
    ] {
        assert_eq!(decode_request(&body, "m"), Err(expected.to_owned()));
    }
}

#[test]
fn paths_name_the_model_and_lead_nowhere_else() {
    let path = |model: &str, operation| {
        let call = RawCall { operation, model: model.to_owned(), headers: Vec::new(), body: bytes::Bytes::new() };
        Gemini::default().raw_path(&call).expect("a path")
    };
    assert_eq!(path("gemini-x", RawOperation::Generate), "models/gemini-x:generateContent");
    assert_eq!(path("models/gemini-x", RawOperation::Stream), "models/gemini-x:streamGenerateContent?alt=sse");
    assert_eq!(path("tunedModels/mine", RawOperation::CountTokens), "tunedModels/mine:countTokens");
    assert_eq!(path("../../v1/files?x=", RawOperation::Generate), "v1/files%3Fx%3D:generateContent");
    assert_eq!(path("..", RawOperation::Generate), "models/unnamed:generateContent");
}

#[test]
fn tokens_are_counted_and_models_listed_by_its_own_calls() {
    let request = user("u");
    let count = Gemini::default().encode_count(&turn(&request, &ModelCapabilities::default())).expect("it counts");
    assert_eq!(count.path, "models/gemini-x:countTokens");
    assert_eq!(count.body["generateContentRequest"]["model"], "models/gemini-x");
    assert_eq!(decode_request(&count.body, "gemini-x").map(|request| request.messages), Ok(request.messages));
    assert_eq!(Gemini::default().decode_count(&json!({"totalTokens": 7})), Some(7));
    let models = json!({"models": [{"name": "models/gemini-x", "inputTokenLimit": 2_097_152}]});
    assert_eq!(Gemini::default().decode_models(&models), Some(vec!["gemini-x".to_owned()]));
}

#[test]
fn a_refusal_has_the_formats_own_word() {
    let error = encode_error(429, &Failure::new(Code::Overloaded, "too much").hint("wait"));
    assert_eq!(error, json!({"error": {"code": 429, "message": "too much (wait)", "status": "RESOURCE_EXHAUSTED"}}));
}

/// What a model can say. Ids are the provider's own, because a client is always told them.
fn answer() -> impl Strategy<Value = Vec<Block>> {
    let signed = |signature: Option<String>| signature.and_then(|signature| extra(json!({"thoughtSignature": signature})));
    let thinking = ".{1,20}".prop_map(|text| Block::Thinking { text, extra: None });
    let text = ".{1,40}".prop_map(Block::text);
    let signature = "[A-Z]{1,9}".prop_map(move |signature| Block::Text { text: String::new(), extra: signed(Some(signature)) });
    let unknown = "[a-z]{1,9}"
        .prop_map(|code| Block::Unknown { format: WireFormat::Gemini, block: json!({"executableCode": {"code": code}}) });
    let calls = proptest::collection::vec((arguments(), proptest::option::of("[A-Z]{1,9}")), 0..4).prop_map(|calls| {
        let block = |(at, (input, signature)): (usize, (Value, Option<String>))| {
            let mut fields = json!({"functionCall": {"id": format!("id{at}")}});
            if let Some(signature) = signature {
                fields["thoughtSignature"] = json!(signature);
            }
            call(&format!("id{at}"), input, extra(fields))
        };
        calls.into_iter().enumerate().map(block).collect::<Vec<_>>()
    });
    (proptest::collection::vec(prop_oneof![thinking, text, signature, unknown], 0..4), calls).prop_map(|(spoken, calls)| {
        // Pieces in a row are one text, as on the wire.
        let mut blocks: Vec<Block> = Vec::new();
        for block in spoken {
            let same = |last: &Block| {
                matches!(
                    (last, &block),
                    (Block::Text { extra: None, .. }, Block::Text { extra: None, .. })
                        | (Block::Thinking { .. }, Block::Thinking { .. })
                )
            };
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
        let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
        let stop = if calls { StopReason::ToolUse } else { StopReason::EndTurn };
        let usage = Usage { input_tokens: input, cached_tokens: input / 2, output_tokens: output, thinking_tokens: output / 2, ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks, stop, usage };
        prop_assert_eq!(decode_reply(encode_reply(&reply, "id", 1).to_string().as_bytes()), Ok(reply.clone()));
        let events = served(&mut StreamEncoder::new("m", "id", 1), &reply, piece);
        prop_assert_eq!(read(&Gemini::default(), &body_of(&events), 50).map(|(reply, _)| reply), Ok(reply));
    }

    #[test]
    fn a_conversation_survives_the_wire(turns in proptest::collection::vec((answer(), ".{0,20}"), 0..4)) {
        let turns: Vec<_> = turns.into_iter().filter(|(blocks, _)| !blocks.is_empty()).collect();
        // Ids are once in a conversation.
        let mut messages = conversation(turns);
        for (at, message) in messages.iter_mut().enumerate() {
            for block in &mut message.blocks {
                match block {
                    Block::ToolUse { id, extra: Some(extra), .. } => {
                        *id = format!("{at}_{id}");
                        extra.fields["functionCall"]["id"] = json!(id);
                    }
                    Block::ToolResult { id, extra, .. } => {
                        *id = format!("{}_{id}", at - 1);
                        *extra = None;
                    }
                    _ => {}
                }
            }
        }
        let request = ModelRequest { messages, tools: vec![tool("read")], ..user("") };
        prop_assert_eq!(decode_request(&encoded(&request, &ModelCapabilities::default()), "gemini-x"), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_reply(&data);
        let _ = read(&Gemini::default(), &data, 9);
        let _ = serde_json::from_slice::<Value>(&data).map(|body| decode_request(&body, "m"));
    }
}
