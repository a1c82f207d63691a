//! Tools that must be called, at a model that cannot be made to call any while it thinks.

use helix_messages::OnBehalf;
use helix_protocol::{CallOutcome, ModelCall, TaskId, ToolChoice, ToolSchema};

use super::entries::Entered;
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

/// An answer of so many tokens that cost ten times as much.
fn paid(answer: ModelReply) -> ModelReply {
    let usage = Usage { cost: Money(10 * answer.usage.output_tokens as i64), ..answer.usage };
    ModelReply { usage, ..answer }
}

#[tokio::test(start_paused = true)]
async fn each_of_two_calls_has_an_entry_of_its_own_and_the_turn_cost_both() {
    let talk = paid(said(StopReason::EndTurn, 3));
    // Two calls of 600 tokens for 700 each are the most that the turn can use.
    let left = Usage { input_tokens: 1_200 - 3, cost: Money(1_400 - 30), estimated: true, ..Usage::default() };
    let task = TaskId::new();
    let turn = async |second: ModelReply, patience: Duration| {
        let thinker = FakeProvider::new("thinker", []);
        thinker.replies.lock().extend([talk.clone(), second]);
        let entered = Entered::new(&[&thinker], Limits::default()).await;
        let models = entered.models.on_behalf(OnBehalf { task: Some(task), step: Some(7), ..OnBehalf::default() });
        let answer = tokio::time::timeout(patience, models.generate(must_call(Thinking::Budget(2_000)), None)).await;
        sleep(2 * CALL).await;
        let mut ledger = entered.ledger().await;
        ledger.sort_by_key(|call| call.usage.cost);
        assert!(ledger.iter().all(|call| (call.task, call.step, call.provider.as_str()) == (Some(task), Some(7), "thinker")));
        (answer, ledger)
    };
    let told = |ledger: &[ModelCall]| -> Vec<_> {
        ledger.iter().map(|call| (call.model.clone(), call.usage, call.latency_ms, call.outcome, call.code)).collect()
    };
    let first = ("thinker".to_owned(), talk.usage, 1_000, CallOutcome::Answered, None);

    let call = paid(called(5));
    let (answer, ledger) = turn(call.clone(), 10 * CALL).await;
    assert_eq!(answer, Ok(Ok(paid(called(8)))), "both are paid");
    let second = ("thinker".to_owned(), call.usage, 1_000, CallOutcome::Answered, None);
    assert_eq!(told(&ledger), [first.clone(), second]);
    assert_ne!(ledger[0].id, ledger[1].id);

    let (answer, ledger) = turn(talk.clone(), 10 * CALL).await;
    assert!(matches!(answer, Ok(Err(ProviderError::Uncertain(_)))), "{answer:?}");
    let second = ("small".to_owned(), left, 1_000, CallOutcome::Uncertain, Some(Code::ModelGarbage));
    assert_eq!(told(&ledger), [first.clone(), second], "together it is what the step is charged");

    let (answer, ledger) = turn(call, CALL + CALL / 2).await;
    assert!(answer.is_err(), "its client has left: {answer:?}");
    let outcomes: Vec<_> = ledger.iter().map(|call| (call.usage, call.outcome, call.code)).collect();
    let given_up = (left, CallOutcome::Uncertain, Some(Code::Cancelled));
    assert_eq!(outcomes, [(talk.usage, CallOutcome::Answered, None), given_up]);
}
