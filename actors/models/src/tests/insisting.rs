//! Tools that must be called, at a model that cannot be made to call any while it thinks.

use helix_protocol::{ToolChoice, ToolSchema};

use super::*;

/// A turn that must call a tool.
fn must_call(thinking: Thinking) -> ModelRequest {
    let tool = ToolSchema {
        name: "look".to_owned(),
        description: String::new(),
        parameters: serde_json::json!({"type": "object"}),
        extra: None,
    };
    ModelRequest { tools: vec![tool], tool_choice: ToolChoice::Any, thinking, ..request(Some("thinker")) }
}

fn said(stop: StopReason, output_tokens: u64) -> ModelReply {
    ModelReply { stop, usage: Usage { output_tokens, ..Usage::default() }, ..reply("thinker") }
}

fn called(output_tokens: u64) -> ModelReply {
    let call = Block::ToolUse { id: "1".to_owned(), name: "look".to_owned(), input: serde_json::json!({}), extra: None };
    ModelReply { blocks: vec![call], ..said(StopReason::ToolUse, output_tokens) }
}

/// What comes of the turn where the model says these one after the other, and how often it was asked.
async fn asked(thinking: Thinking, replies: Vec<ModelReply>) -> (Result<ModelReply, ProviderError>, usize) {
    let thinker = FakeProvider::new("thinker", []);
    thinker.replies.lock().extend(replies);
    let (models, _handle) = models(&[&thinker], Limits::default()).await;
    let answer = models.generate(must_call(thinking), None).await;
    (answer, thinker.calls())
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_forced_while_it_thinks_is_checked_and_asked_once_more() {
    let talk = said(StopReason::EndTurn, 3);
    assert_eq!(asked(Thinking::Budget(2_000), vec![called(5)]).await, (Ok(called(5)), 1));
    assert_eq!(asked(Thinking::Budget(2_000), vec![talk.clone(), called(5)]).await, (Ok(called(8)), 2), "both are paid");
    let (answer, times) = asked(Thinking::Budget(2_000), vec![talk.clone(), talk.clone()]).await;
    assert!(matches!(answer, Err(ProviderError::Uncertain(failure)) if failure.code == Code::ModelGarbage));
    assert_eq!(times, 2);
    // Not thinking it is made to call by its provider, whose word is taken.
    assert_eq!(asked(Thinking::Default, vec![talk.clone()]).await, (Ok(talk), 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_an_answer_that_was_cut_are_handed_on_as_they_are_and_not_paid_again() {
    for stop in [StopReason::Refusal, StopReason::MaxTokens] {
        let unended = said(stop.clone(), 4);
        assert_eq!(asked(Thinking::Budget(2_000), vec![unended.clone()]).await, (Ok(unended), 1), "{stop:?}");
        let (answer, times) = asked(Thinking::Budget(2_000), vec![said(StopReason::EndTurn, 3), said(stop.clone(), 4)]).await;
        assert_eq!((answer, times), (Ok(said(stop, 7)), 2));
    }
}
