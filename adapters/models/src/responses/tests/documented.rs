//! Whole streams in the shapes in which services document them, read to the last field.

use super::*;
use crate::testing::{never_shorter, read, reported, text, thinking, tool_input, tool_use};

/// OpenAI's: a thought in two parts that goes back encrypted, a text with a citation, and two calls at once.
const PARALLEL: &str = r#"event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"status":"in_progress","model":"gpt-5.1-2025-11-13","output":[],"usage":null}}

event: response.in_progress
data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","object":"response","created_at":1,"status":"in_progress","model":"gpt-5.1-2025-11-13","output":[],"usage":null}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"rs_1","type":"reasoning","encrypted_content":"gAA","summary":[]}}

event: response.reasoning_summary_part.added
data: {"type":"response.reasoning_summary_part.added","sequence_number":3,"item_id":"rs_1","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","sequence_number":4,"item_id":"rs_1","output_index":0,"summary_index":0,"delta":"First","obfuscation":"aZ"}

event: response.reasoning_summary_text.done
data: {"type":"response.reasoning_summary_text.done","sequence_number":5,"item_id":"rs_1","output_index":0,"summary_index":0,"text":"First"}

event: response.reasoning_summary_part.done
data: {"type":"response.reasoning_summary_part.done","sequence_number":6,"item_id":"rs_1","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":"First"}}

event: response.reasoning_summary_part.added
data: {"type":"response.reasoning_summary_part.added","sequence_number":7,"item_id":"rs_1","output_index":0,"summary_index":1,"part":{"type":"summary_text","text":""}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","sequence_number":8,"item_id":"rs_1","output_index":0,"summary_index":1,"delta":"then","obfuscation":"q"}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":9,"output_index":0,"item":{"id":"rs_1","type":"reasoning","encrypted_content":"gAAAAB","summary":[{"type":"summary_text","text":"First"},{"type":"summary_text","text":"then"}]}}

: keep-alive

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":10,"output_index":1,"item":{"id":"msg_1","type":"message","status":"in_progress","content":[],"role":"assistant"}}

event: response.content_part.added
data: {"type":"response.content_part.added","sequence_number":11,"item_id":"msg_1","output_index":1,"content_index":0,"part":{"type":"output_text","annotations":[],"logprobs":[],"text":""}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":12,"item_id":"msg_1","output_index":1,"content_index":0,"delta":"Grü","logprobs":[],"obfuscation":"k"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":13,"item_id":"msg_1","output_index":1,"content_index":0,"delta":"n.","logprobs":[]}

event: response.output_text.annotation.added
data: {"type":"response.output_text.annotation.added","sequence_number":14,"item_id":"msg_1","output_index":1,"content_index":0,"annotation_index":0,"annotation":{"type":"url_citation","url":"https://example.org","title":"E","start_index":0,"end_index":5}}

event: response.output_text.done
data: {"type":"response.output_text.done","sequence_number":15,"item_id":"msg_1","output_index":1,"content_index":0,"text":"Grün.","logprobs":[]}

event: response.content_part.done
data: {"type":"response.content_part.done","sequence_number":16,"item_id":"msg_1","output_index":1,"content_index":0,"part":{"type":"output_text","annotations":[{"type":"url_citation","url":"https://example.org","title":"E","start_index":0,"end_index":5}],"logprobs":[],"text":"Grün."}}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":17,"output_index":1,"item":{"id":"msg_1","type":"message","status":"completed","content":[{"type":"output_text","annotations":[{"type":"url_citation","url":"https://example.org","title":"E","start_index":0,"end_index":5}],"logprobs":[],"text":"Grün."}],"role":"assistant"}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":18,"output_index":2,"item":{"id":"fc_a","type":"function_call","status":"in_progress","arguments":"","call_id":"call_a","name":"read"}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","sequence_number":19,"item_id":"fc_a","output_index":2,"delta":"{\"path\":","obfuscation":"zz"}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":20,"output_index":3,"item":{"id":"fc_b","type":"function_call","status":"in_progress","arguments":"","call_id":"call_b","name":"glob"}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","sequence_number":21,"item_id":"fc_b","output_index":3,"delta":"{ }"}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","sequence_number":22,"item_id":"fc_a","output_index":2,"delta":"\"a.rs\"}"}

event: response.function_call_arguments.done
data: {"type":"response.function_call_arguments.done","sequence_number":23,"item_id":"fc_a","output_index":2,"arguments":"{\"path\":\"a.rs\"}"}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":24,"output_index":2,"item":{"id":"fc_a","type":"function_call","status":"completed","arguments":"{\"path\":\"a.rs\"}","call_id":"call_a","name":"read"}}

event: response.function_call_arguments.done
data: {"type":"response.function_call_arguments.done","sequence_number":25,"item_id":"fc_b","output_index":3,"arguments":"{ }"}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":26,"output_index":3,"item":{"id":"fc_b","type":"function_call","status":"completed","arguments":"{ }","call_id":"call_b","name":"glob"}}

event: response.completed
data: {"type":"response.completed","sequence_number":27,"response":{"id":"resp_1","object":"response","created_at":1,"status":"completed","error":null,"incomplete_details":null,"model":"gpt-5.1-2025-11-13","output":[{"id":"rs_1","type":"reasoning","encrypted_content":"gAAAAB","summary":[{"type":"summary_text","text":"First"},{"type":"summary_text","text":"then"}]},{"id":"msg_1","type":"message","status":"completed","content":[{"type":"output_text","annotations":[{"type":"url_citation","url":"https://example.org","title":"E","start_index":0,"end_index":5}],"logprobs":[],"text":"Grün."}],"role":"assistant"},{"id":"fc_a","type":"function_call","status":"completed","arguments":"{\"path\":\"a.rs\"}","call_id":"call_a","name":"read"},{"id":"fc_b","type":"function_call","status":"completed","arguments":"{ }","call_id":"call_b","name":"glob"}],"parallel_tool_calls":true,"store":false,"usage":{"input_tokens":120,"input_tokens_details":{"cached_tokens":100},"output_tokens":44,"output_tokens_details":{"reasoning_tokens":20},"total_tokens":164}}}

"#;

fn extra(fields: Value) -> Option<Box<Extra>> {
    Extra::of(FORMAT, fields.as_object().expect("an object").clone())
}

/// The blocks of [`PARALLEL`].
fn parallel() -> Vec<Block> {
    let thought = json!({"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAAAB", "summary": [
        {"type": "summary_text", "text": "First"}, {"type": "summary_text", "text": "then"}]});
    let cited = json!([{"type": "url_citation", "url": "https://example.org", "title": "E", "start_index": 0, "end_index": 5}]);
    let called = |id: &str, name: &str, input: Value, fields: Value| Block::ToolUse {
        id: id.to_owned(),
        name: name.to_owned(),
        input,
        extra: extra(fields),
    };
    vec![
        Block::Thinking { text: "First\n\nthen".to_owned(), extra: extra(json!({"item": thought})) },
        Block::Text {
            text: "Grün.".to_owned(), extra: extra(json!({"message": {"id": "msg_1"}, "part": {"annotations": cited}}))
        },
        called("call_a", "read", json!({"path": "a.rs"}), json!({"id": "fc_a"})),
        // The server's cache goes by the bytes, so what is not written as we would is kept.
        called("call_b", "glob", json!({}), json!({"id": "fc_b", "arguments": "{ }"})),
    ]
}

#[test]
fn thoughts_citations_and_calls_at_once_are_read_event_by_event_and_go_back_unchanged() {
    let blocks = parallel();
    let whole = |at: usize| ModelDelta::Block { block: blocks[at].clone() };
    let shown = vec![
        thinking("First"),
        thinking("\n\nthen"),
        whole(0),
        text("Grü"),
        text("n."),
        whole(1),
        tool_use(0, "call_a", "read"),
        tool_input(0, "{\"path\":"),
        tool_use(1, "call_b", "glob"),
        tool_input(1, "{ }"),
        tool_input(0, "\"a.rs\"}"),
        whole(2),
        whole(3),
    ];
    let expected = ModelReply {
        model: "gpt-5.1-2025-11-13".to_owned(),
        blocks: blocks.clone(),
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 120, cached_tokens: 100, output_tokens: 44, thinking_tokens: 20, ..Usage::default() },
    };
    for piece in [1, 13, PARALLEL.len()] {
        assert_eq!(read(&Responses, PARALLEL.as_bytes(), piece), Ok((expected.clone(), shown.clone())), "pieces of {piece}");
    }
    never_shorter(&Responses, PARALLEL.as_bytes());

    let body = encoded(&request(vec![Message { role: Role::Assistant, blocks }]));
    let last = PARALLEL.lines().rev().find_map(|line| line.strip_prefix("data: ")).expect("the last event");
    let mut sent: Value = serde_json::from_str(last).expect("JSON");
    let output = sent["response"]["output"].take();
    let input: Vec<Value> = output.as_array().into_iter().flatten().cloned().map(without_what_is_not_sent).collect();
    assert_eq!(body["input"], json!(input));
}

/// Nothing is stored, so whether an item was completed says nothing, and empty lists do not either.
fn without_what_is_not_sent(mut item: Value) -> Value {
    item.as_object_mut().expect("an item").remove("status");
    for part in item.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        part.as_object_mut().expect("a part").remove("logprobs");
    }
    item
}

#[test]
fn a_refusal_is_shown_as_it_comes_and_has_its_own_end() {
    let body = r#"event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","content":[],"role":"assistant"}}

event: response.content_part.added
data: {"type":"response.content_part.added","sequence_number":3,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"refusal","refusal":""}}

event: response.refusal.delta
data: {"type":"response.refusal.delta","sequence_number":4,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"I can't "}

event: response.refusal.delta
data: {"type":"response.refusal.delta","sequence_number":5,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"help."}

event: response.refusal.done
data: {"type":"response.refusal.done","sequence_number":6,"item_id":"msg_1","output_index":0,"content_index":0,"refusal":"I can't help."}

event: response.completed
data: {"type":"response.completed","sequence_number":7,"response":{"id":"resp_1","object":"response","status":"completed","model":"gpt-5.1","output":[{"id":"msg_1","type":"message","status":"completed","content":[{"type":"refusal","refusal":"I can't help."}],"role":"assistant"}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":14}}}

"#;
    let refused = extra(json!({"message": {"id": "msg_1"}, "part": {"type": "refusal"}}));
    let expected = ModelReply {
        model: "gpt-5.1".to_owned(),
        blocks: vec![Block::Text { text: "I can't help.".to_owned(), extra: refused }],
        stop: StopReason::Refusal,
        usage: Usage { input_tokens: 9, output_tokens: 5, ..Usage::default() },
    };
    assert_eq!(read(&Responses, body.as_bytes(), 29), Ok((expected, vec![text("I can't "), text("help.")])));
}

#[test]
fn a_thought_that_is_open_and_an_answer_that_ends_too_soon_are_read_as_far_as_they_came() {
    // As servers of open models write it; the counts name what was written into the cache.
    let body = r#"event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[],"content":[]}}

event: response.reasoning_text.delta
data: {"type":"response.reasoning_text.delta","sequence_number":3,"item_id":"rs_1","output_index":0,"content_index":0,"delta":"Let me "}

event: response.reasoning_text.delta
data: {"type":"response.reasoning_text.delta","sequence_number":4,"item_id":"rs_1","output_index":0,"content_index":0,"delta":"see."}

event: response.reasoning_text.done
data: {"type":"response.reasoning_text.done","sequence_number":5,"item_id":"rs_1","output_index":0,"content_index":0,"text":"Let me see."}

event: response.incomplete
data: {"type":"response.incomplete","sequence_number":6,"response":{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"model":"gpt-oss-120b","output":[{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"Let me see."}]}],"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":20},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":34}}}

"#;
    let item =
        json!({"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Let me see."}]});
    let expected = ModelReply {
        model: "gpt-oss-120b".to_owned(),
        blocks: vec![Block::Thinking { text: "Let me see.".to_owned(), extra: extra(json!({"item": item})) }],
        stop: StopReason::MaxTokens,
        usage: Usage {
            input_tokens: 30,
            cached_tokens: 10,
            cache_write_tokens: 20,
            output_tokens: 4,
            thinking_tokens: 4,
            ..Usage::default()
        },
    };
    assert_eq!(read(&Responses, body.as_bytes(), 29), Ok((expected, vec![thinking("Let me "), thinking("see.")])));
}

#[test]
fn tools_of_the_service_are_kept_as_they_are() {
    let searched =
        json!({"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}});
    let body = format!(
        r#"event: response.output_item.added
data: {{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{{"id":"ws_1","type":"web_search_call","status":"in_progress"}}}}

event: response.web_search_call.in_progress
data: {{"type":"response.web_search_call.in_progress","sequence_number":3,"output_index":0,"item_id":"ws_1"}}

event: response.web_search_call.searching
data: {{"type":"response.web_search_call.searching","sequence_number":4,"output_index":0,"item_id":"ws_1"}}

event: response.web_search_call.completed
data: {{"type":"response.web_search_call.completed","sequence_number":5,"output_index":0,"item_id":"ws_1"}}

event: response.output_item.done
data: {{"type":"response.output_item.done","sequence_number":6,"output_index":0,"item":{searched}}}

event: response.completed
data: {{"type":"response.completed","sequence_number":7,"response":{{"id":"resp_1","status":"completed","model":"grok-4","output":[{searched}],"usage":{{"input_tokens":3,"output_tokens":1}}}}}}

"#
    );
    let block = Block::Unknown { format: FORMAT, block: searched };
    let expected = ModelReply {
        model: "grok-4".to_owned(),
        blocks: vec![block.clone()],
        stop: StopReason::EndTurn,
        usage: Usage { input_tokens: 3, output_tokens: 1, ..Usage::default() },
    };
    assert_eq!(read(&Responses, body.as_bytes(), 29), Ok((expected, vec![ModelDelta::Block { block }])));
}

#[test]
fn an_error_in_the_midst_is_told_in_each_shape() {
    let begun = r#"data: {"type":"response.output_text.delta","sequence_number":4,"output_index":0,"content_index":0,"delta":"I"}"#;
    for (event, message, kind, status) in [
        (
            r#"{"type":"response.failed","sequence_number":5,"response":{"id":"resp_1","status":"failed","error":{"code":"server_error","message":"boom"},"output":[],"usage":null}}"#,
            "boom",
            "server_error",
            None,
        ),
        (
            r#"{"type":"error","sequence_number":5,"code":"rate_limit_exceeded","message":"slow down","param":null}"#,
            "slow down",
            "rate_limit_exceeded error",
            None,
        ),
        (
            r#"{"type":"error","sequence_number":5,"error":{"type":"invalid_request_error","code":"context_length_exceeded","message":"too long","param":"input"}}"#,
            "too long",
            "context_length_exceeded invalid_request_error",
            None,
        ),
        // A server that speaks of it as chat completions do.
        (r#"{"error":{"message":"overloaded","type":"overloaded","code":"503"}}"#, "overloaded", "503 overloaded", Some(503)),
    ] {
        let told = crate::chat::WireError { message: message.to_owned(), kind: kind.to_owned(), status };
        let body = format!("{begun}\n\ndata: {event}\n\n");
        assert_eq!(reported(&Responses, body.as_bytes()), (vec![text("I")], told));
    }
}
