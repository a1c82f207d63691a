//! What a server streams, and how its answer ends.

use super::*;

#[test]
fn a_stream_is_its_last_event_whatever_came_before() {
    let mut events = vec![
        json!({"type": "response.created", "sequence_number": 0, "response": {}}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {"type": "message", "content": []}}),
        json!({"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0, "content_index": 0, "delta": "I "}),
        json!({"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0, "content_index": 0, "delta": "I "}),
        json!({"type": "response.output_text.delta", "sequence_number": 3, "output_index": 0, "content_index": 0, "delta": "look."}),
        json!({"type": "response.output_item.added", "sequence_number": 4, "output_index": 1, "item":
            {"type": "function_call", "call_id": "a", "name": "read", "arguments": ""}}),
        json!({"type": "response.function_call_arguments.delta", "sequence_number": 5, "output_index": 1, "delta": "{}"}),
        json!({"type": "response.something_new", "sequence_number": 6}),
    ];
    let without = |output: Value| json!({"type": "response.completed", "sequence_number": 7, "response": response(output)});
    events.push(without(json!([])));
    let (reply, shown) = read(&events);
    let reply = reply.expect("an answer");
    assert_eq!(reply.blocks, [Block::text("I look."), call("a", "read", json!({}))]);
    assert_eq!(
        shown,
        [
            ModelDelta::Text { text: "I ".to_owned() },
            ModelDelta::Text { text: "look.".to_owned() },
            ModelDelta::ToolUse { index: 0, id: "a".to_owned(), name: "read".to_owned(), extra: None },
            ModelDelta::ToolInput { index: 0, text: "{}".to_owned() },
        ]
    );
    events.pop();
    assert!(matches!(read(&events).0, Err(DecodeError::Garbage(_))), "without its last event it is none");
    events.push(without(output()));
    assert_eq!(read(&events).0.expect("an answer").blocks.len(), 4, "the last event counts");
}

#[test]
fn failures_and_limits_are_told_apart() {
    let failed =
        json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "boom"}}});
    match read(&[failed]).0 {
        Err(DecodeError::Reported(error)) => assert_eq!((error.message.as_str(), error.kind.as_str()), ("boom", "server_error")),
        other => panic!("{other:?}"),
    }
    match read(&[json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": null})]).0 {
        Err(DecodeError::Reported(error)) => assert!(error.kind.contains("rate_limit"), "{error:?}"),
        other => panic!("{other:?}"),
    }
    for (details, calls, expected) in [
        (json!({"reason": "max_output_tokens"}), true, StopReason::MaxTokens),
        (json!({"reason": "content_filter"}), false, StopReason::Refusal),
        (json!({"reason": "odd"}), false, StopReason::Other("odd".to_owned())),
        (Value::Null, true, StopReason::ToolUse),
    ] {
        let mut body = response(if calls { output() } else { json!([]) });
        body["incomplete_details"] = details.clone();
        assert_eq!(decode_reply(body.to_string().as_bytes()).expect("an answer").stop, expected, "{details}");
    }
    let refusal = json!([{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]);
    assert_eq!(decode_reply(response(refusal).to_string().as_bytes()).expect("an answer").stop, StopReason::Refusal);
    for body in ["", "{}", "[]", "{\"output\": 3}", "{\"status\": \"queued\", \"output\": []}"] {
        assert!(decode_reply(body.as_bytes()).is_err(), "{body}");
    }
}
