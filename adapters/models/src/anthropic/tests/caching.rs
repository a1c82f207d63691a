//! Where the markers of the prompt cache stand.

use super::*;

/// Where the markers stand.
fn marked(body: &Value) -> Vec<String> {
    let mut places = Vec::new();
    let marker = |value: &Value| value.get("cache_control").is_some();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for field in ["tools", "system"] {
        places.extend(
            list(&body[field]).iter().enumerate().filter(|(_, value)| marker(value)).map(|(at, _)| format!("{field}[{at}]")),
        );
    }
    for (at, message) in list(&body["messages"]).iter().enumerate() {
        places.extend(
            list(&message["content"])
                .iter()
                .enumerate()
                .filter(|(_, value)| marker(value))
                .map(|(block, _)| format!("{at}.{block}")),
        );
    }
    places
}

#[test]
fn cache_markers_end_tools_system_and_the_users_last_two_messages() {
    let capabilities = ModelCapabilities { cache_markers: true, cache_least: 1_024, ..ModelCapabilities::default() };
    let long = "word ".repeat(3_000);
    let mut request = ModelRequest { tools: vec![tool("a"), tool("b")], ..user("u") };
    request.tools[1].description.clone_from(&long);
    request.messages = conversation(vec![
        (vec![Block::text("one")], "1".to_owned()),
        (vec![call("x", json!({})), call("y", json!({}))], "2".to_owned()),
        (vec![Block::text("three")], "3".to_owned()),
    ]);
    assert_eq!(marked(&encoded(&request, &capabilities)), ["tools[1]", "system[0]", "4.1", "6.0"]);
    request.tools.clear();
    request.messages[0] = Message::text(Role::System, long);
    assert_eq!(marked(&encoded(&request, &capabilities)), ["system[0]", "2.0", "4.1", "6.0"]);
    request.messages[0] = Message::text(Role::System, "short");
    assert_eq!(marked(&encoded(&request, &capabilities)), Vec::<String>::new());
    let without = ModelCapabilities { cache_markers: false, ..capabilities };
    request.messages[0] = Message::text(Role::System, "word ".repeat(3_000));
    assert_eq!(marked(&encoded(&request, &without)), Vec::<String>::new());
}

#[test]
fn what_was_written_for_an_hour_is_counted_apart_streamed_or_not() {
    let usage = json!({
        "input_tokens": 10, "cache_creation_input_tokens": 700, "cache_read_input_tokens": 100, "output_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 500},
    });
    let expected = Usage {
        input_tokens: 810,
        cached_tokens: 100,
        cache_write_tokens: 700,
        cache_write_1h_tokens: 500,
        output_tokens: 2,
        ..Usage::default()
    };
    let content = json!([{"type": "text", "text": "t"}]);
    let whole = json!({"model": "m", "content": content, "stop_reason": "end_turn", "usage": usage});
    assert_eq!(FORMAT.decode(whole.to_string().as_bytes()).expect("an answer").usage, expected);
    let events = [
        json!({"type": "message_start", "message": {"model": "m", "usage": usage}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ];
    let (reply, _) = read(&FORMAT, &body_of(&events.map(ServedEvent::unnamed)), 99).expect("an answer");
    assert_eq!(reply.usage, expected);
}

#[test]
fn a_clients_own_markers_stay_and_none_are_added() {
    let capabilities = ModelCapabilities { cache_markers: true, cache_least: 0, ..ModelCapabilities::default() };
    let body = json!({
        "model": "m", "max_tokens": 9,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]}],
    });
    assert_eq!(encoded(&decode_request(&body).expect("decodes"), &capabilities), body);
}
