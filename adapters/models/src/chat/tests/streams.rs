//! What services of this format stream, each in the shape in which it is documented.

use super::*;
use crate::servers::OpenRouter;
use crate::testing::{never_shorter, read, reported, text, thinking, tool_input, tool_use};

/// OpenAI's: a text, two calls at once, and the usage in a chunk without choices.
const PARALLEL: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"content":"Grü"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"content":"n."},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"pQ"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"read","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"path\":"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"glob","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a.rs\"}"}},{"index":1,"function":{"arguments":"{}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1762800000,"model":"gpt-5.1-2025-11-13","choices":[],"usage":{"prompt_tokens":120,"completion_tokens":44,"total_tokens":164,"prompt_tokens_details":{"cached_tokens":100,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

data: [DONE]

"#;

fn chat() -> ChatCompletions {
    ChatCompletions::at("")
}

fn thought(field: &str, text: &str) -> Block {
    Block::Thinking { text: text.to_owned(), extra: Extra::field(WireFormat::OpenaiChat, "field", json!(field)) }
}

#[test]
fn calls_at_once_and_usage_without_choices_are_read_piece_by_piece() {
    let expected = ModelReply {
        model: "gpt-5.1-2025-11-13".to_owned(),
        blocks: vec![Block::text("Grün."), call("call_a", "read", json!({"path": "a.rs"})), call("call_b", "glob", json!({}))],
        stop: StopReason::ToolUse,
        usage: Usage { input_tokens: 120, cached_tokens: 100, output_tokens: 44, thinking_tokens: 20, ..Usage::default() },
    };
    let shown = vec![
        text("Grü"),
        text("n."),
        tool_use(0, "call_a", "read"),
        tool_input(0, "{\"path\":"),
        tool_use(1, "call_b", "glob"),
        tool_input(0, "\"a.rs\"}"),
        tool_input(1, "{}"),
    ];
    for piece in [1, 13, PARALLEL.len()] {
        assert_eq!(read(&chat(), PARALLEL.as_bytes(), piece), Ok((expected.clone(), shown.clone())), "pieces of {piece}");
    }
    never_shorter(&chat(), PARALLEL.as_bytes());
}

#[test]
fn thoughts_are_read_under_both_their_names_and_between_comments_that_keep_a_connection_open() {
    // DeepSeek and DashScope; the counts are in a chunk with choices.
    let deepseek = r#": keep-alive

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},"logprobs":null,"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"Let me "},"finish_reason":null}]}

: keep-alive

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"see."},"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"4","reasoning_content":null},"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":18,"completion_tokens":9,"total_tokens":27,"prompt_cache_hit_tokens":16,"prompt_cache_miss_tokens":2,"completion_tokens_details":{"reasoning_tokens":7}}}

data: [DONE]

"#;
    let usage = Usage { input_tokens: 18, cached_tokens: 16, output_tokens: 9, thinking_tokens: 7, ..Usage::default() };
    let expected = ModelReply {
        model: "deepseek-reasoner".to_owned(),
        blocks: vec![thought("reasoning_content", "Let me see."), Block::text("4")],
        stop: StopReason::EndTurn,
        usage,
    };
    let shown = vec![thinking("Let me "), thinking("see."), text("4")];
    assert_eq!(read(&chat(), deepseek.as_bytes(), 11), Ok((expected, shown)));

    // OpenRouter; what it billed is in the usage.
    let openrouter = r#": OPENROUTER PROCESSING

: OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-4.5","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm.","reasoning_details":[{"type":"reasoning.text","text":"Hm.","format":"anthropic-claude-v1","index":0}]},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-4.5","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":"4"},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-4.5","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop","native_finish_reason":"end_turn","logprobs":null}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-4.5","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"native_finish_reason":null,"logprobs":null}],"usage":{"prompt_tokens":14,"completion_tokens":6,"total_tokens":20,"cost":0.000132,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0},"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":{"reasoning_tokens":3}}}

data: [DONE]

"#;
    let cost = helix_protocol::Money(132);
    let kept = json!({
        "field": "reasoning",
        "details": [{"type": "reasoning.text", "text": "Hm.", "format": "anthropic-claude-v1", "index": 0}],
    });
    let extra = Extra::of(WireFormat::OpenaiChat, kept.as_object().expect("an object").clone());
    let thought = Block::Thinking { text: "Hm.".to_owned(), extra };
    let expected = ModelReply {
        model: "anthropic/claude-sonnet-4.5".to_owned(),
        blocks: vec![thought.clone(), Block::text("4")],
        stop: StopReason::EndTurn,
        usage: Usage { input_tokens: 14, output_tokens: 6, thinking_tokens: 3, cost, ..Usage::default() },
    };
    let read = read(&OpenRouter::new(Vec::new()), openrouter.as_bytes(), 11);
    assert_eq!(read, Ok((expected, vec![thinking("Hm."), ModelDelta::Block { block: thought }, text("4")])));
}

#[test]
fn a_refusal_is_a_text_with_its_own_end() {
    let body = r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":[{"index":0,"delta":{"role":"assistant","content":null,"refusal":""},"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":[{"index":0,"delta":{"refusal":"I can't "},"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":[{"index":0,"delta":{"refusal":"help."},"finish_reason":null}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-5.1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}

data: [DONE]

"#;
    let expected = ModelReply {
        model: "gpt-5.1".to_owned(),
        blocks: vec![Block::text("I can't help.")],
        stop: StopReason::Refusal,
        usage: Usage { input_tokens: 9, output_tokens: 5, ..Usage::default() },
    };
    assert_eq!(read(&chat(), body.as_bytes(), 17), Ok((expected, vec![text("I can't "), text("help.")])));
}

#[test]
fn a_filter_that_speaks_first_and_last_is_no_answer_of_the_model() {
    // Azure: what it thinks of the prompt comes before the model, in a chunk without choices.
    let body = r#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}

data: {"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,"role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],"created":1,"id":"1","model":"gpt-4.1-2025-04-14","object":"chat.completion.chunk","system_fingerprint":"fp"}

data: {"choices":[{"content_filter_results":{"violence":{"filtered":false,"severity":"safe"}},"delta":{"content":"Once"},"finish_reason":null,"index":0,"logprobs":null}],"created":1,"id":"1","model":"gpt-4.1-2025-04-14","object":"chat.completion.chunk"}

data: {"choices":[{"content_filter_results":{"violence":{"filtered":true,"severity":"high"}},"delta":{},"finish_reason":"content_filter","index":0,"logprobs":null}],"created":1,"id":"1","model":"gpt-4.1-2025-04-14","object":"chat.completion.chunk"}

data: [DONE]

"#;
    let expected = ModelReply {
        model: "gpt-4.1-2025-04-14".to_owned(),
        blocks: vec![Block::text("Once")],
        stop: StopReason::Refusal,
        usage: Usage { estimated: true, ..Usage::default() },
    };
    assert_eq!(read(&chat(), body.as_bytes(), 17), Ok((expected, vec![text("Once")])));
}

#[test]
fn every_finish_reason_that_services_send_has_its_meaning() {
    for (word, stop) in [
        ("stop", StopReason::EndTurn),
        ("length", StopReason::MaxTokens),
        ("content_filter", StopReason::Refusal),
        ("function_call", StopReason::EndTurn),
        ("insufficient_system_resource", StopReason::Other("insufficient_system_resource".to_owned())),
        ("abort", StopReason::Other("abort".to_owned())),
    ] {
        let last = json!({"choices": [{"index": 0, "delta": {"content": "t"}, "finish_reason": word}]});
        let body = format!("data: {last}\n\ndata: [DONE]\n\n");
        assert_eq!(read(&chat(), body.as_bytes(), 99).map(|(reply, _)| reply.stop), Ok(stop), "{word}");
    }
}

#[test]
fn an_error_in_the_midst_is_told_in_each_services_shape() {
    let begun = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"I"},"finish_reason":null}]}"#;
    let told = |message: &str, kind: &str, status| WireError { message: message.to_owned(), kind: kind.to_owned(), status };
    for (event, expected) in [
        // OpenAI.
        (
            r#"{"error":{"message":"The server had an error while processing your request.","type":"server_error","param":null,"code":null}}"#,
            told("The server had an error while processing your request.", "server_error", None),
        ),
        // OpenRouter: beside choices, and what another service said in its metadata.
        (
            r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"m","provider":"X","error":{"code":502,"message":"Provider returned error","metadata":{"raw":"overloaded","provider_name":"X"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
            told("Provider returned error: overloaded", "", Some(502)),
        ),
        // vLLM and SGLang.
        (
            r#"{"error":{"object":"error","message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}"#,
            told("EngineCore encountered an issue.", "InternalServerError", Some(500)),
        ),
        // llama.cpp.
        (
            r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":8192}}"#,
            told("the request exceeds the available context size, try increasing it", "exceed_context_size_error", Some(400)),
        ),
        // LiteLLM: the status is a text.
        (
            r#"{"error":{"message":"litellm.RateLimitError: slow down","type":"throttling_error","param":null,"code":"429"}}"#,
            told("litellm.RateLimitError: slow down", "429 throttling_error", Some(429)),
        ),
    ] {
        let body = format!("{begun}\n\ndata: {event}\n\n");
        assert_eq!(reported(&chat(), body.as_bytes()), (vec![text("I")], expected));
    }
}
