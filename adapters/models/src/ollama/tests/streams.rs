//! What the server streams, in the shapes in which it is documented.

use super::*;
use crate::chat::WireError;
use crate::testing::{never_shorter, read, reported, text, thinking, tool_input, tool_use};

/// A thought, a text, two calls at once, the second of an older server without an id, and the counts in the last line.
const PARALLEL: &str = r#"{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.097767Z","message":{"role":"assistant","content":"","thinking":"Let me "},"done":false}
{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.109172Z","message":{"role":"assistant","content":"","thinking":"see."},"done":false}

{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.121485Z","message":{"role":"assistant","content":"Grü"},"done":false}
{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.132802Z","message":{"role":"assistant","content":"n."},"done":false}
{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.143931Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_x","function":{"index":0,"name":"read","arguments":{"path":"a.rs"}}}]},"done":false}
{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.155044Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"glob","arguments":{}}}]},"done":false}
{"model":"qwen3:8b","created_at":"2026-11-10T17:15:24.166202Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}
"#;

fn thought(text: &str) -> Block {
    Block::Thinking { text: text.to_owned(), extra: Extra::field(WireFormat::Ollama, "field", json!("thinking")) }
}

fn call(id: &str, name: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: name.to_owned(), input, extra: None }
}

/// A text that ends with this line.
fn ending(last: Value) -> Result<ModelReply, String> {
    let body = format!("{}\n{last}\n", json!({"model": "m", "message": {"role": "assistant", "content": "t"}, "done": false}));
    read(&Ollama, body.as_bytes(), 7).map(|(reply, _)| reply)
}

#[test]
fn thoughts_and_calls_at_once_are_read_line_by_line() {
    let expected = ModelReply {
        model: "qwen3:8b".to_owned(),
        blocks: vec![
            thought("Let me see."),
            Block::text("Grün."),
            call("call_x", "read", json!({"path": "a.rs"})),
            call("call_1", "glob", json!({})),
        ],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 26, output_tokens: 282, ..Usage::default() },
    };
    let shown = vec![
        thinking("Let me "),
        thinking("see."),
        text("Grü"),
        text("n."),
        tool_use(0, "call_x", "read"),
        tool_input(0, "{\"path\":\"a.rs\"}"),
        tool_use(1, "call_1", "glob"),
        tool_input(1, "{}"),
    ];
    for piece in [1, 13, PARALLEL.len()] {
        assert_eq!(read(&Ollama, PARALLEL.as_bytes(), piece), Ok((expected.clone(), shown.clone())), "pieces of {piece}");
    }
    never_shorter(&Ollama, PARALLEL.as_bytes());
}

#[test]
fn every_reason_to_be_done_has_its_meaning() {
    for (reason, stop) in [
        (json!("stop"), StopReason::EndTurn),
        (Value::Null, StopReason::EndTurn),
        (json!("length"), StopReason::MaxTokens),
        (json!("load"), StopReason::Other("load".to_owned())),
        (json!("unload"), StopReason::Other("unload".to_owned())),
    ] {
        let last = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": reason});
        assert_eq!(ending(last).map(|reply| reply.stop), Ok(stop), "{reason}");
    }
}

#[test]
fn a_prompt_that_was_all_in_the_cache_is_left_out_of_the_counts_and_the_usage_is_flagged() {
    let last = json!({"model": "m", "message": {"content": ""}, "done": true, "done_reason": "stop", "eval_count": 5});
    let expected = ModelReply {
        model: "m".to_owned(),
        blocks: vec![Block::text("t")],
        stop: StopReason::EndTurn,
        usage: Usage { output_tokens: 5, estimated: true, ..Usage::default() },
    };
    assert_eq!(ending(last), Ok(expected));
}

#[test]
fn an_error_in_the_midst_is_told() {
    let begun = json!({"model": "m", "message": {"role": "assistant", "content": "I"}, "done": false});
    let message = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error";
    for error in [json!({"error": message}), json!({"error": message, "status": "Internal Server Error"})] {
        let told = WireError { message: message.to_owned(), ..WireError::default() };
        assert_eq!(reported(&Ollama, format!("{begun}\n{error}\n").as_bytes()), (vec![text("I")], told));
    }
}
