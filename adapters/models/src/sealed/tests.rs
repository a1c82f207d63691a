//! What a provider signed goes through a client of every format and comes back as it was.

use helix_ports::{AnswerHead, ModelCapabilities};
use helix_protocol::{ModelReply, ThinkingControl};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::anthropic::AnthropicMessages;
use crate::gemini::Gemini;
use crate::responses::Responses;
use crate::servers::OpenRouter;
use crate::{Format, Turn, client_formats};

const CLIENTS: [WireFormat; 5] =
    [WireFormat::OpenaiChat, WireFormat::OpenaiResponses, WireFormat::Anthropic, WireFormat::Gemini, WireFormat::Ollama];
/// Those that have a place for what was thought.
const THOUGHTFUL: [WireFormat; 4] =
    [WireFormat::OpenaiChat, WireFormat::OpenaiResponses, WireFormat::Anthropic, WireFormat::Gemini];

/// How an answer is read, and written to a client.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    Streamed,
}

/// What a client of `client` has of the model's turn, in its own words, put together as official clients do.
fn told(client: WireFormat, form: Form, format: &dyn Format, events: &[Value]) -> Value {
    let clients = client_formats();
    let client_format = clients.iter().find(|served| served.wire() == client).expect("it is served");
    let head = AnswerHead { id: "1".to_owned(), created: 0, model: "m".to_owned() };
    let mut decoder = format.decoder();
    let mut stream = client_format.stream(&json!({}), &head);
    let mut written = stream.start();
    for event in events {
        for delta in decoder.push(None, event.to_string().as_bytes()).expect("an event") {
            written.push_str(&stream.push(&delta));
        }
    }
    let reply: ModelReply = decoder.finish().expect("an answer");
    match form {
        Form::Whole => whole(client, &client_format.encode(&reply, &head)),
        Form::Streamed => {
            written.push_str(&stream.finish(&reply));
            let data = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line)).ok();
            streamed(client, &written.lines().filter_map(data).collect::<Vec<_>>())
        }
    }
}

fn whole(client: WireFormat, answer: &Value) -> Value {
    match client {
        WireFormat::OpenaiChat => answer["choices"][0]["message"].clone(),
        WireFormat::OpenaiResponses => answer["output"].clone(),
        WireFormat::Anthropic => json!({"role": "assistant", "content": answer["content"]}),
        WireFormat::Gemini => answer["candidates"][0]["content"].clone(),
        WireFormat::Ollama => answer["message"].clone(),
    }
}

fn streamed(client: WireFormat, events: &[Value]) -> Value {
    let list = |values: &Value| values.as_array().cloned().unwrap_or_default();
    match client {
        WireFormat::OpenaiChat => events.iter().fold(json!({}), |mut message, event| {
            add(&mut message, &event["choices"][0]["delta"]);
            message
        }),
        WireFormat::OpenaiResponses => {
            events.iter().filter(|event| event["type"] == "response.output_item.done").map(|event| event["item"].clone()).collect()
        }
        WireFormat::Anthropic => {
            let mut content: Vec<Value> = Vec::new();
            let mut input = String::new();
            for event in events {
                match (event["type"].as_str().unwrap_or_default(), &event["delta"]) {
                    ("content_block_start", _) => content.push(event["content_block"].clone()),
                    ("content_block_delta", delta) => {
                        let open = content.last_mut().expect("a block is open");
                        match delta["type"].as_str().expect("it has a type") {
                            "input_json_delta" => input.push_str(delta["partial_json"].as_str().expect("a text")),
                            "signature_delta" => open["signature"] = delta["signature"].clone(),
                            "thinking_delta" => add(&mut open["thinking"], &delta["thinking"]),
                            _ => add(&mut open["text"], &delta["text"]),
                        }
                    }
                    ("content_block_stop", _) if !input.is_empty() => {
                        let input = std::mem::take(&mut input);
                        content.last_mut().expect("a block is open")["input"] = serde_json::from_str(&input).expect("JSON");
                    }
                    _ => {}
                }
            }
            json!({"role": "assistant", "content": content})
        }
        WireFormat::Gemini => {
            let parts: Vec<Value> = events.iter().flat_map(|event| list(&event["candidates"][0]["content"]["parts"])).collect();
            json!({"role": "model", "parts": parts})
        }
        WireFormat::Ollama => events.iter().fold(json!({}), |mut message, event| {
            add(&mut message, &event["message"]);
            message
        }),
    }
}

/// Adds a piece as clients do that know nothing of what it is: texts and lists go on, and what has an index is its like.
fn add(known: &mut Value, piece: &Value) {
    match (known, piece) {
        (Value::String(known), Value::String(more)) => known.push_str(more),
        (Value::Object(known), Value::Object(more)) => {
            for (field, value) in more {
                match known.get_mut(field).filter(|_| field != "role" && field != "type") {
                    Some(known) => add(known, value),
                    None => drop(known.insert(field.clone(), value.clone())),
                }
            }
        }
        (Value::Array(known), Value::Array(more)) => {
            for value in more {
                let same = |known: &&mut Value| value.get("index").is_some() && known["index"] == value["index"];
                match known.iter_mut().find(same) {
                    Some(known) => add(known, value),
                    None => known.push(value.clone()),
                }
            }
        }
        (known @ Value::Null, value) => *known = value.clone(),
        _ => {}
    }
}

/// The next turn of the client: what it has, and the result of the call.
fn next_turn(client: WireFormat, told: Value) -> Value {
    let tool = |call: &Value| json!({"role": "tool", "tool_call_id": call["id"], "tool_name": "read", "content": "x"});
    let user = json!({"role": "user", "content": "go"});
    match client {
        WireFormat::OpenaiChat | WireFormat::Ollama => {
            let result = tool(&told["tool_calls"][0]);
            json!({"messages": [user, told, result]})
        }
        WireFormat::OpenaiResponses => {
            let items = told.as_array().expect("items").clone();
            let call = items.iter().find(|item| item["type"] == "function_call").expect("a call");
            let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "x"});
            let input = [vec![user], items, vec![result]].concat();
            json!({"input": input})
        }
        WireFormat::Anthropic => {
            let blocks = told["content"].as_array().expect("blocks");
            let call = blocks.iter().find(|block| block["type"] == "tool_use").expect("a call");
            let result = json!({"type": "tool_result", "tool_use_id": call["id"], "content": "x"});
            json!({"max_tokens": 9, "messages": [user, told, {"role": "user", "content": [result]}]})
        }
        WireFormat::Gemini => {
            let parts = told["parts"].as_array().expect("parts");
            let call = parts.iter().find_map(|part| part.get("functionCall")).expect("a call");
            let result = json!({"functionResponse": {"name": "read", "id": call["id"], "response": {"output": "x"}}});
            let user = json!({"role": "user", "parts": [{"text": "go"}]});
            json!({"contents": [user, told, {"role": "user", "parts": [result]}]})
        }
    }
}

/// The provider's next request, after its answer went through a client.
fn asked_again(client: WireFormat, form: Form, format: &dyn Format, events: &[Value]) -> Value {
    let said = next_turn(client, told(client, form, format, events));
    let clients = client_formats();
    let client_format = clients.iter().find(|served| served.wire() == client).expect("it is served");
    let request = client_format.decode(&said).expect("it is read");
    let capabilities = ModelCapabilities { thinking: ThinkingControl::Effort, ..ModelCapabilities::default() };
    let turn = Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
    format.encode(&turn).body
}

/// Looks at the provider's next request after every client of these, whole and streamed.
fn through(clients: &[WireFormat], format: &dyn Format, events: &[Value], look: impl Fn(&Value, &str)) {
    for client in clients {
        for form in [Form::Whole, Form::Streamed] {
            look(&asked_again(*client, form, format, events), &format!("{client:?} {form:?}"));
        }
    }
}

#[test]
fn a_call_that_gemini_signed_comes_back_signed_from_every_client() {
    let call = json!({"functionCall": {"name": "read", "args": {"path": "x"}}, "thoughtSignature": "Cq+/x=="});
    let event = json!({"candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}], "responseId": "r"});
    through(&CLIENTS, &Gemini::default(), &[event], |body, case| {
        let parts = body["contents"][1]["parts"].as_array().expect("parts");
        let said: Vec<_> = parts.iter().map(|part| (&part["functionCall"]["args"], &part["thoughtSignature"])).collect();
        assert_eq!(said, [(&json!({"path": "x"}), &json!("Cq+/x=="))], "{case}");
        assert_eq!(body["contents"][2]["parts"][0]["functionResponse"]["name"], "read", "{case}");
    });
}

#[test]
fn what_anthropic_signed_comes_back_from_every_client_that_has_a_place_for_thoughts() {
    let block = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let piece = |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let end = |index: u64| json!({"type": "content_block_stop", "index": index});
    let events = [
        json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}),
        block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        piece(0, json!({"type": "thinking_delta", "thinking": "I read "})),
        piece(0, json!({"type": "thinking_delta", "thinking": "it."})),
        piece(0, json!({"type": "signature_delta", "signature": "s+/=="})),
        end(0),
        block(1, json!({"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}})),
        piece(1, json!({"type": "input_json_delta", "partial_json": "{\"path\":\"x\"}"})),
        end(1),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ];
    through(&THOUGHTFUL, &AnthropicMessages, &events, |body, case| {
        let expected = json!([
            {"type": "thinking", "thinking": "I read it.", "signature": "s+/=="},
            {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "x"}},
        ]);
        assert_eq!(body["messages"][1]["content"], expected, "{case}");
        assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "toolu_1", "{case}");
    });
}

#[test]
fn what_openrouter_signed_or_encrypted_comes_back_from_every_client_that_has_a_place_for_thoughts() {
    let delta = |delta: Value| json!({"choices": [{"delta": delta}]});
    let text = |text: &str| json!({"type": "reasoning.text", "text": text, "index": 0, "format": "anthropic-claude-v1"});
    let signed = json!({"type": "reasoning.text", "signature": "s+/==", "index": 0, "format": "anthropic-claude-v1"});
    let encrypted = json!({"type": "reasoning.encrypted", "data": "e+/==", "id": "rs_1", "index": 1});
    let call = json!({"index": 0, "id": "a", "function": {"name": "read", "arguments": "{\"path\":\"x\"}"}});
    let finished = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]});
    let shown = [
        delta(json!({"reasoning": "I read ", "reasoning_details": [text("I read ")]})),
        delta(json!({"reasoning": "it.", "reasoning_details": [text("it.")]})),
        delta(json!({"reasoning_details": [signed]})),
        delta(json!({"reasoning_details": [encrypted]})),
        delta(json!({"tool_calls": [call]})),
        finished.clone(),
    ];
    let whole = json!({
        "type": "reasoning.text", "text": "I read it.", "signature": "s+/==", "index": 0, "format": "anthropic-claude-v1",
    });
    let openrouter = OpenRouter::new(Vec::new());
    through(&THOUGHTFUL, &openrouter, &shown, |body, case| {
        assert_eq!(body["messages"][1]["reasoning_details"], json!([whole, encrypted]), "{case}");
        assert_eq!(body["messages"][2]["tool_call_id"], "a", "{case}");
    });
    let hidden = [delta(json!({"reasoning_details": [encrypted], "tool_calls": [call]})), finished];
    through(&THOUGHTFUL, &openrouter, &hidden, |body, case| {
        assert_eq!(body["messages"][1]["reasoning_details"], json!([encrypted]), "{case}");
    });
}

#[test]
fn what_openai_encrypted_comes_back_from_every_client_that_has_a_place_for_thoughts() {
    let reasoning = json!({
        "type": "reasoning", "id": "rs_1", "encrypted_content": "e+/==",
        "summary": [{"type": "summary_text", "text": "I read it."}],
    });
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "a", "name": "read", "arguments": "{\"path\":\"x\"}"});
    let done = |at: u64, item: &Value| json!({"type": "response.output_item.done", "output_index": at, "item": item});
    let response = json!({"status": "completed", "model": "m", "output": [reasoning, call]});
    let events = [done(0, &reasoning), done(1, &call), json!({"type": "response.completed", "response": response})];
    through(&THOUGHTFUL, &Responses, &events, |body, case| {
        assert_eq!(body["input"][1], reasoning, "{case}");
        let ids: Vec<_> = body["input"].as_array().expect("items").iter().filter_map(|item| item.get("call_id")).collect();
        assert_eq!(ids, [&json!("a"), &json!("a")], "{case}");
    });
}

#[test]
fn a_thought_that_no_text_shows_is_told_to_openrouter_without_one() {
    let encrypted = json!({"type": "reasoning.encrypted", "data": "e", "index": 0});
    let said = json!({"messages": [{"role": "assistant", "content": "x", "reasoning_details": [encrypted]}]});
    let clients = client_formats();
    let chat = clients.iter().find(|served| served.wire() == WireFormat::OpenaiChat).expect("it is served");
    let request = chat.decode(&said).expect("it is read");
    let capabilities = ModelCapabilities::default();
    let turn = Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
    let expected = json!({"role": "assistant", "content": "x", "reasoning_details": [encrypted]});
    assert_eq!(OpenRouter::new(Vec::new()).encode(&turn).body["messages"][0], expected);
    let elsewhere = crate::chat::ChatCompletions::at("").encode(&turn).body;
    assert_eq!(elsewhere["messages"][0], json!({"role": "assistant", "content": "x"}), "others have no such field");
}

proptest! {
    #[test]
    fn what_is_packed_is_what_is_unpacked(id in ".{0,20}", signature in ".{0,60}", format in 0usize..2) {
        let signed = Extra::field(WireFormat::Gemini, THOUGHT_SIGNATURE, json!(signature));
        let sent = signed_id(&id, &signed);
        prop_assert_eq!(opened_id(&sent), (id.as_str(), signed.clone()));
        prop_assert!(sent[id.len()..].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
        let format = [WireFormat::Anthropic, WireFormat::OpenaiChat][format];
        prop_assert_eq!(unpack(&pack(&signed, format).expect("it is foreign")), signed.clone());
        let thought = Block::Thinking { text: id, extra: signed };
        let packed = pack_base64(&thought, format).expect("it is foreign");
        prop_assert_eq!(packed.len() % 4, 0);
        prop_assert_eq!(unpack_base64(&packed.replace('+', "-").replace('/', "_")), Some(thought.clone()));
        prop_assert_eq!(unpack_base64(&packed), Some(thought));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in ".{0,40}") {
        for text in [text.clone(), format!("{OURS}{text}"), format!("a{SIGNED}{text}")] {
            let _ = (unpack(&text), unpack_base64(&text), opened_id(&text));
        }
    }
}

#[test]
fn a_formats_own_words_and_ids_that_nothing_was_signed_in_stay_as_they_are() {
    let own = Extra::field(WireFormat::Anthropic, "signature", json!("s"));
    assert_eq!(pack(&own, WireFormat::Anthropic), None);
    assert_eq!(pack(&None, WireFormat::Anthropic), None);
    for id in ["call_1", "a__helix-1__", "a__helix-1__zz_"] {
        assert_eq!(opened_id(id), (id, None));
    }
    assert_eq!(signed_id("call_1", &own), "call_1");
}
