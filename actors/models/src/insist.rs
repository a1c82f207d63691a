//! Tools that a model must call although its provider cannot make it: asked for in words, and checked.

use helix_protocol::{Block, Message, ModelReply, ModelRequest, Role, StopReason, ToolChoice, Usage};

/// The request in which the model is free and told what it must call.
pub(crate) fn instructed(request: &ModelRequest) -> ModelRequest {
    let mut request = request.clone();
    let words = words(&request.tool_choice);
    request.tool_choice = ToolChoice::Auto;
    say(&mut request.messages, words);
    request
}

/// The same once more, with what the model said instead.
pub(crate) fn reminded(instructed: &ModelRequest, choice: &ToolChoice, reply: &ModelReply) -> ModelRequest {
    let mut request = instructed.clone();
    let blocks: Vec<Block> = reply.blocks.iter().filter(|block| !matches!(block, Block::ToolUse { .. })).cloned().collect();
    if !blocks.is_empty() {
        request.messages.push(Message { role: Role::Assistant, blocks });
    }
    say(&mut request.messages, format!("That answer cannot be used. {}", words(choice)));
    request
}

/// Whether an answer can be handed on: it has the call that was asked for, or it did not come to its end. A refusal, or an answer
/// that was cut, would only be paid for again, and says itself what it is.
pub(crate) fn obeys(choice: &ToolChoice, reply: &ModelReply) -> bool {
    if !matches!(reply.stop, StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence(_)) {
        return true;
    }
    let called = |wanted: Option<&str>| {
        reply.blocks.iter().any(|block| matches!(block, Block::ToolUse { name, .. } if wanted.is_none_or(|wanted| wanted == name)))
    };
    match choice {
        ToolChoice::Auto | ToolChoice::None => true,
        ToolChoice::Any => called(None),
        ToolChoice::Named(name) => called(Some(name)),
    }
}

/// Two calls' usage together.
pub(crate) fn together(one: &Usage, other: &Usage) -> Usage {
    Usage {
        input_tokens: one.input_tokens + other.input_tokens,
        cached_tokens: one.cached_tokens + other.cached_tokens,
        cache_write_tokens: one.cache_write_tokens + other.cache_write_tokens,
        cache_write_1h_tokens: one.cache_write_1h_tokens + other.cache_write_1h_tokens,
        output_tokens: one.output_tokens + other.output_tokens,
        thinking_tokens: one.thinking_tokens + other.thinking_tokens,
        cost: one.cost + other.cost,
        estimated: one.estimated || other.estimated,
    }
}

/// At the end, so that the prefix which providers cache stays as it is.
fn say(messages: &mut Vec<Message>, words: String) {
    match messages.last_mut().filter(|last| last.role == Role::User) {
        Some(last) => last.blocks.push(Block::text(words)),
        None => messages.push(Message::text(Role::User, words)),
    }
}

fn words(choice: &ToolChoice) -> String {
    match choice {
        ToolChoice::Named(name) => format!("Answer with a call of the tool `{name}` and nothing else."),
        _ => "Answer with a call of one of the tools and nothing else.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(blocks: Vec<Block>) -> ModelReply {
        ModelReply { model: "m".to_owned(), blocks, stop: StopReason::EndTurn, usage: Usage::default() }
    }

    fn call(name: &str) -> Block {
        Block::ToolUse { id: "1".to_owned(), name: name.to_owned(), input: serde_json::json!({}), extra: None }
    }

    #[test]
    fn the_model_is_told_at_the_end_and_once_more_with_what_it_said() {
        let choice = ToolChoice::Named("look".to_owned());
        let request = ModelRequest {
            messages: vec![Message::text(Role::System, "s"), Message::text(Role::User, "u")],
            tool_choice: choice.clone(),
            ..ModelRequest::default()
        };
        let asked = instructed(&request);
        assert_eq!(asked.tool_choice, ToolChoice::Auto);
        assert_eq!(asked.messages[0], request.messages[0]);
        assert_eq!(asked.messages[1].as_text(), "u\nAnswer with a call of the tool `look` and nothing else.");
        let again = reminded(&asked, &choice, &reply(vec![Block::text("no")]));
        assert_eq!(again.messages.len(), 4);
        assert_eq!(again.messages[2], Message::text(Role::Assistant, "no"));
        assert!(again.messages[3].as_text().starts_with("That answer cannot be used."));
    }

    #[test]
    fn only_an_answer_that_came_to_its_end_is_held_against_the_choice() {
        let ended = |stop| ModelReply { stop, ..reply(vec![Block::text("no")]) };
        for stop in [StopReason::EndTurn, StopReason::ToolUse, StopReason::StopSequence("END".to_owned())] {
            assert!(!obeys(&ToolChoice::Any, &ended(stop)));
        }
        let unended = [
            StopReason::Refusal,
            StopReason::MaxTokens,
            StopReason::ContextFull,
            StopReason::Pause,
            StopReason::Other("new".to_owned()),
        ];
        for stop in unended {
            assert!(obeys(&ToolChoice::Any, &ended(stop.clone())), "{stop:?}");
        }
    }

    #[test]
    fn a_named_tool_is_only_obeyed_by_itself() {
        let named = ToolChoice::Named("look".to_owned());
        assert!(obeys(&ToolChoice::Any, &reply(vec![call("see")])));
        assert!(!obeys(&named, &reply(vec![call("see")])));
        assert!(obeys(&named, &reply(vec![call("see"), call("look")])));
        assert!(!obeys(&ToolChoice::Any, &reply(vec![Block::text("look")])));
    }
}
