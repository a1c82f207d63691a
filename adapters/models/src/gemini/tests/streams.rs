//! What the provider streams, read part by part and served again.

use super::*;

/// A recorded stream: a thought, text in pieces, a signature on a text that is empty, two calls of which the first is signed.
const RECORDED: &str = r#"data: {"candidates":[{"content":{"parts":[{"text":"I weigh it.","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":10,"totalTokenCount":30,"thoughtsTokenCount":20},"modelVersion":"gemini-x","responseId":"r1"}

data: {"candidates":[{"content":{"parts":[{"text":"Grü"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":2,"totalTokenCount":32,"thoughtsTokenCount":20},"modelVersion":"gemini-x","responseId":"r1"}

data: {"candidates":[{"content":{"parts":[{"text":"n"},{"text":"","thoughtSignature":"AAA="}],"role":"model"},"index":0}],"modelVersion":"gemini-x","responseId":"r1"}

data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"read","args":{"path":"a"}},"thoughtSignature":"BBB="},{"functionCall":{"name":"read","args":{"path":"b"}}}],"role":"model"},"index":0}],"modelVersion":"gemini-x","responseId":"r1"}

data: {"candidates":[{"content":{"parts":[{"executableCode":{"code":"1","language":"PYTHON"}}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,"candidatesTokenCount":9,"totalTokenCount":39,"thoughtsTokenCount":20},"modelVersion":"gemini-x","responseId":"r1"}

"#;

fn recorded() -> ModelReply {
    let code = json!({"executableCode": {"code": "1", "language": "PYTHON"}});
    ModelReply {
        model: "gemini-x".to_owned(),
        blocks: vec![
            Block::Thinking { text: "I weigh it.".to_owned(), extra: None },
            Block::text("Grün"),
            Block::Text { text: String::new(), extra: extra(json!({"thoughtSignature": "AAA="})) },
            call("call_r1_0", json!({"path": "a"}), extra(json!({"thoughtSignature": "BBB="}))),
            call("call_r1_1", json!({"path": "b"}), None),
            Block::Unknown { format: WireFormat::Gemini, block: code },
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 29, thinking_tokens: 20, ..Usage::default() },
    }
}

#[test]
fn a_recorded_stream_is_read_part_by_part_and_its_signatures_go_back_on_their_own_parts() {
    let (reply, shown) = read(&Gemini::default(), RECORDED.as_bytes(), 13).expect("an answer");
    assert_eq!(reply, recorded());
    assert_eq!(shown[1], ModelDelta::Text { text: "Grü".to_owned() });
    assert!(shown.contains(&ModelDelta::ToolInput { index: 1, text: "{\"path\":\"b\"}".to_owned() }));

    let mut request = user("u");
    request.messages.push(Message { role: Role::Assistant, blocks: reply.blocks });
    request
        .messages
        .push(Message { role: Role::User, blocks: vec![result("call_r1_0", "x", false), result("call_r1_1", "no", true)] });
    let thinks = ModelCapabilities { thinking: ThinkingControl::Budget, ..ModelCapabilities::default() };
    let expected = json!([
        {"role": "user", "parts": [{"text": "u"}]},
        {"role": "model", "parts": [
            {"text": "I weigh it.", "thought": true},
            {"text": "Grün"},
            {"text": "", "thoughtSignature": "AAA="},
            {"functionCall": {"name": "read", "args": {"path": "a"}}, "thoughtSignature": "BBB="},
            {"functionCall": {"name": "read", "args": {"path": "b"}}},
            {"executableCode": {"code": "1", "language": "PYTHON"}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"name": "read", "response": {"output": "x"}}},
            {"functionResponse": {"name": "read", "response": {"error": "no"}}},
        ]},
    ]);
    assert_eq!(encoded(&request, &thinks)["contents"], expected);
}

#[test]
fn a_signed_text_stands_alone() {
    let events = json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [
        {"text": "a"}, {"text": "b"}, {"text": "c", "thoughtSignature": "S"}, {"text": "d"},
    ]}}]});
    let signed = Block::Text { text: "c".to_owned(), extra: extra(json!({"thoughtSignature": "S"})) };
    let reply = decode_reply(events.to_string().as_bytes()).expect("an answer");
    assert_eq!(reply.blocks, [Block::text("ab"), signed, Block::text("d")]);
}

#[test]
fn a_stream_cut_at_any_byte_is_never_a_shorter_answer() {
    never_shorter(&Gemini::default(), RECORDED.as_bytes());
}

#[test]
fn a_call_that_another_provider_made_is_marked_as_not_to_be_checked() {
    let thinks = ModelCapabilities { thinking: ThinkingControl::Budget, ..ModelCapabilities::default() };
    let mut request = user("u");
    request.messages.push(Message { role: Role::Assistant, blocks: vec![call("a", json!({}), None), call("b", json!({}), None)] });
    request.messages.push(Message { role: Role::User, blocks: vec![result("a", "x", false)] });
    let parts = encoded(&request, &thinks)["contents"][1]["parts"].clone();
    assert_eq!(parts[0]["thoughtSignature"], "skip_thought_signature_validator");
    assert_eq!(parts[1].get("thoughtSignature"), None);
    // What came before the user's last word is not checked.
    request.messages.push(Message::text(Role::User, "go on"));
    assert_eq!(encoded(&request, &thinks)["contents"][1]["parts"][0].get("thoughtSignature"), None);
}

#[test]
fn a_signature_survives_a_client_of_the_chat_format() {
    use crate::chat;
    let reply = recorded();
    let message = chat::encode_reply(&reply, "id", 0)["choices"][0]["message"].clone();
    let request = chat::decode_request(&json!({"messages": [message]})).expect("decodes");
    let signed = |blocks: &[Block]| {
        blocks.iter().find_map(|block| match block {
            Block::ToolUse { extra: Some(extra), .. } => Some(extra.clone()),
            _ => None,
        })
    };
    assert_eq!(signed(&request.messages[0].blocks), signed(&reply.blocks));
    let (_, shown) = read(&Gemini::default(), RECORDED.as_bytes(), 99).expect("an answer");
    let mut encoder = chat::StreamEncoder::new("m", "id", 0);
    let mut events: Vec<_> = shown.iter().flat_map(|delta| encoder.push(delta)).collect();
    events.extend(encoder.finish(&reply));
    let mut body = body_of(&events);
    body.extend_from_slice(b"data: [DONE]\n\n");
    let (streamed, _) = read(&chat::ChatCompletions::at(""), &body, 99).expect("an answer");
    assert_eq!(signed(&streamed.blocks), signed(&reply.blocks));
}

#[test]
fn reasons_to_finish_have_their_meaning() {
    let read = |answer: Value| decode_reply(answer.to_string().as_bytes()).map(|reply| reply.stop);
    for (word, stop) in [
        ("STOP", StopReason::EndTurn),
        ("MAX_TOKENS", StopReason::MaxTokens),
        ("SAFETY", StopReason::Refusal),
        ("IMAGE_PROHIBITED_CONTENT", StopReason::Refusal),
        ("RECITATION", StopReason::Refusal),
        ("MALFORMED_FUNCTION_CALL", StopReason::Other("MALFORMED_FUNCTION_CALL".to_owned())),
        ("TO_BE_INVENTED", StopReason::Other("TO_BE_INVENTED".to_owned())),
    ] {
        assert_eq!(read(json!({"candidates": [{"finishReason": word}]})), Ok(stop.clone()), "{word}");
        let reply = ModelReply { blocks: vec![Block::text("t")], stop: stop.clone(), ..recorded() };
        assert_eq!(read(encode_reply(&reply, "id", 0)), Ok(stop), "{word}");
    }
    assert_eq!(read(json!({"promptFeedback": {"blockReason": "SAFETY"}})), Ok(StopReason::Refusal));
    assert!(read(json!({"candidates": [{"content": {"parts": [{"text": "half"}]}}]})).is_err());
    assert!(read(json!({})).is_err());
}

#[test]
fn a_blocked_prompt_ends_its_stream() {
    let body =
        b"data: {\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"},\"usageMetadata\":{\"promptTokenCount\":3}}\n\n";
    let (reply, _) = read(&Gemini::default(), body, 9).expect("an answer");
    assert_eq!((reply.stop, reply.blocks.len(), reply.usage.input_tokens), (StopReason::Refusal, 0, 3));
}

#[test]
fn an_error_is_reported_whether_alone_or_in_a_list() {
    let error = json!({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}});
    for body in [error.clone(), json!([error])] {
        let Err(DecodeError::Reported(error)) = decode_reply(body.to_string().as_bytes()) else { panic!("an error is an error") };
        assert_eq!((error.status, error.message.as_str()), (Some(503), "overloaded"));
    }
}
