//! What the provider streams, read block by block and served again.

use super::*;

/// A recorded stream: thinking, text with a citation, a tool of the provider's, a call, and pings between them.
const RECORDED: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":7,"cache_read_input_tokens":100,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me "}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"see."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwK"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"query\":\"rust\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"Grün"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"citations_delta","citation":{"type":"char_location","cited_text":"g"}}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

event: content_block_start
data: {"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_1","name":"read","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{\"path\": \"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":".rs\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":4}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89,"output_tokens_details":{"thinking_tokens":40}}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn recorded() -> ModelReply {
    let searched = json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rust"}});
    let cited = extra(json!({"citations": [{"type": "char_location", "cited_text": "g"}]}));
    ModelReply {
        model: "claude-x".to_owned(),
        blocks: vec![
            thought("Let me see.", "EqQB"),
            Block::Thinking { text: String::new(), extra: extra(json!({"type": "redacted_thinking", "data": "EmwK"})) },
            Block::Unknown { format: WireFormat::Anthropic, block: searched },
            Block::Text { text: "Grün".to_owned(), extra: cited },
            call("toolu_1", json!({"path": "a.rs"})),
        ],
        stop: StopReason::ToolUse,
        usage: Usage {
            input_tokens: 132,
            cached_tokens: 100,
            cache_write_tokens: 7,
            output_tokens: 89,
            thinking_tokens: 40,
            ..Usage::default()
        },
    }
}

#[test]
fn a_recorded_stream_is_read_block_by_block_and_goes_back_unchanged() {
    let (reply, shown) = read(&FORMAT, RECORDED.as_bytes(), 11).expect("an answer");
    assert_eq!(reply, recorded());
    assert_eq!(shown.first(), Some(&ModelDelta::Thinking { text: "Let me ".to_owned() }));
    assert!(shown.contains(&ModelDelta::ToolUse { index: 0, id: "toolu_1".to_owned(), name: "read".to_owned(), extra: None }));
    assert!(shown.contains(&ModelDelta::ToolInput { index: 0, text: ".rs\"}".to_owned() }));

    let mut request = user("u");
    request.messages.push(Message { role: Role::Assistant, blocks: reply.blocks });
    let body = encoded(&request, &ModelCapabilities::default());
    let expected = json!([
        {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rust"}},
        {"type": "text", "text": "Grün", "citations": [{"type": "char_location", "cited_text": "g"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a.rs"}},
    ]);
    assert_eq!(body["messages"][1]["content"], expected);
}

#[test]
fn a_recorded_stream_served_again_is_the_same_answer() {
    let (reply, shown) = read(&FORMAT, RECORDED.as_bytes(), 64).expect("an answer");
    let mut encoder = StreamEncoder::new("claude-x", "msg_1", 0);
    let mut events = encoder.start();
    events.extend(shown.iter().flat_map(|delta| encoder.push(delta)));
    events.extend(encoder.finish(&reply));
    assert_eq!(read(&FORMAT, &body_of(&events), 64).map(|(reply, _)| reply), Ok(reply));
}

#[test]
fn a_stream_cut_at_any_byte_is_never_a_shorter_answer() {
    never_shorter(&FORMAT, RECORDED.as_bytes());
}

#[test]
fn events_out_of_order_doubled_or_missing_are_errors() {
    let start = json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}});
    let open = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let add = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "t"}});
    let close = json!({"type": "content_block_stop", "index": 0});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}});
    let stop = json!({"type": "message_stop"});
    let outcome = |events: &[&Value]| {
        let events: Vec<ServedEvent> = events.iter().map(|data| ServedEvent::unnamed((*data).clone())).collect();
        read(&FORMAT, &body_of(&events), 99).map(|(reply, _)| reply.as_text())
    };
    assert_eq!(outcome(&[&start, &open, &add, &close, &delta, &stop]), Ok("t".to_owned()));
    for events in [
        &[&start, &start, &open, &add, &close, &delta, &stop][..],
        &[&start, &open, &open, &close, &delta, &stop],
        &[&start, &add, &delta, &stop],
        &[&start, &open, &close, &add, &delta, &stop],
        &[&start, &open, &add, &delta, &stop],
        &[&start, &open, &add, &close, &stop],
        &[&start, &close, &delta, &stop],
        &[&stop],
    ] {
        assert!(outcome(events).is_err_and(|error| error != "cut"), "{events:?}");
    }
}

#[test]
fn an_error_in_the_midst_is_reported_with_its_kind() {
    let mut decoder = FORMAT.decoder();
    let error = br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#;
    let Err(DecodeError::Reported(error)) = decoder.push(Some("error"), error) else { panic!("an error is an error") };
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("overloaded_error", "Overloaded"));
}

#[test]
fn every_stop_reason_has_its_meaning_and_comes_back() {
    for (word, stop) in [
        ("end_turn", StopReason::EndTurn),
        ("tool_use", StopReason::ToolUse),
        ("max_tokens", StopReason::MaxTokens),
        ("refusal", StopReason::Refusal),
        ("pause_turn", StopReason::Pause),
        ("model_context_window_exceeded", StopReason::ContextFull),
        ("stop_sequence", StopReason::StopSequence("END".to_owned())),
        ("to_be_invented", StopReason::Other("to_be_invented".to_owned())),
    ] {
        let reply = ModelReply { stop: stop.clone(), ..recorded() };
        let written = encode_reply(&reply, "id", 0);
        assert_eq!(written["stop_reason"], word);
        assert_eq!(decode_reply(written.to_string().as_bytes()).map(|reply| reply.stop), Ok(stop));
    }
    let without = json!({"type": "message", "content": [], "usage": {}});
    assert!(decode_reply(without.to_string().as_bytes()).is_err());
}
