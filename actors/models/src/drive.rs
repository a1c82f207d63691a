//! One turn from its arrival to its answer: who is asked, and the only retry loop there is.
//!
//! Invariant: nothing is asked again once an answer began. It may have been billed, and what the model said may have made somebody
//! act; the caller decides.

use std::sync::Arc;
use std::time::Duration;

use helix_messages::Asking;
use helix_ports::{DeltaSink, FaultScope, ProviderError};
use helix_protocol::{Block, Code, Failure, Message, ModelDelta, ModelReply, ModelRequest};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::breaker::Met;
use crate::calls::{Call, Tried};
use crate::insist;
use crate::ledger::{Entry, Unused};
use crate::pool::{Candidate, Pool, named};
use crate::provider::ProviderMsg;
use crate::reuse::reuse_key;
use crate::tries::{Next, Slot, Tries};

/// When a turn that nobody could answer is worth another try, where nobody said so.
const LATER: Duration = Duration::from_secs(30);

/// An answer.
pub(crate) struct Answer {
    pub reply: ModelReply,
    /// It was kept from an equal request.
    pub reused: bool,
}

/// Answers a turn, which `entry` follows.
pub(crate) async fn generate(
    pool: &Pool,
    request: ModelRequest,
    deltas: Option<DeltaSink>,
    entry: &mut Entry,
) -> Result<Answer, ProviderError> {
    let plan = pool.directory.plan(request.provider.as_deref(), request.model.as_deref()).map_err(ProviderError::Final)?;
    let kept = reuse_key(&request);
    if let Some(reply) = kept.and_then(|key| pool.reuse.lock().get(&key)) {
        show(&reply, deltas.as_ref()).await;
        return Ok(Answer { reply, reused: true });
    }
    let lineup = pool.lineup(&plan, &request, |_| true);
    let session = request.session.clone();
    let (request, asking, unused) = (Arc::new(request), entry.asking(), entry.unused());
    let answer = run(pool, &lineup, Asked::Answer { session: session.as_deref(), entry }, |candidate, tried| {
        let (request, deltas) = (Arc::clone(&request), deltas.clone());
        let follow = (&asking, &unused);
        async move { ask(pool, candidate, request, deltas, follow, tried).await }
    });
    let Answered { answer: reply, by, asked } = answer.await?;
    pool.ended(&by.deployment, asked.elapsed());
    // What one said that was not shown the pictures is no answer for when another one is back.
    if let Some(key) = kept.filter(|_| !by.blind) {
        pool.reuse.lock().put(key, reply.clone());
    }
    Ok(Answer { reply, reused: false })
}

/// What candidates are asked for.
pub(crate) enum Asked<'a> {
    /// An answer. Whoever gives it is pinned to the session, and what answers told of limits is about it.
    Answer { session: Option<&'a str>, entry: &'a mut Entry },
    /// The tokens of a request: a call with limits of its own, which says nothing of how answers are given.
    Count,
}

/// Who answers, and when it was asked.
pub(crate) struct Answered<'a, T> {
    pub answer: T,
    pub by: &'a Candidate,
    pub asked: Instant,
}

/// The loop: asks the candidates until one answers, as [`Tries`] says.
pub(crate) async fn run<'a, T, F>(
    pool: &Pool,
    lineup: &'a [Candidate],
    mut asked_for: Asked<'_>,
    mut ask: impl FnMut(&'a Candidate, Tried) -> F,
) -> Result<Answered<'a, T>, ProviderError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let began = Instant::now();
    let mut tries = Tries(lineup.iter().map(|candidate| slot(pool, candidate)).collect());
    let mut errors: Vec<Option<ProviderError>> = vec![None; lineup.len()];
    loop {
        let index = match tries.next(began.elapsed()) {
            Next::Ask(index) => index,
            Next::Wait(wait) => {
                if let Asked::Answer { entry, .. } = &mut asked_for {
                    entry.waits().await;
                }
                sleep(wait).await;
                continue;
            }
            Next::Stop => return Err(unanswered(pool, lineup, &tries, errors, began.elapsed())),
        };
        let candidate = &lineup[index];
        if let Asked::Answer { .. } = asked_for
            && let Some(wait) = exhausted_for(pool, candidate)
        {
            tries.hold(index, began.elapsed() + wait);
            errors[index].get_or_insert_with(|| exhausted(pool, candidate, wait));
            continue;
        }
        if let Asked::Answer { entry, .. } = &mut asked_for {
            let is_new = |(one, slot): (&Candidate, &Slot)| one.group != candidate.group || slot.tries == 0;
            if candidate.group != lineup[0].group && lineup.iter().zip(&tries.0).all(is_new) {
                pool.falls_back_to(candidate);
            }
            entry.asks(pool.route(&candidate.deployment).args.provider.name(), &candidate.deployment.model).await?;
        }
        let asked = Instant::now();
        let error = match ask(candidate, tried(lineup, &tries, &errors, index)).await {
            Ok(answer) => {
                if let Asked::Answer { session, .. } = asked_for {
                    pool.answers(candidate, session);
                }
                return Ok(Answered { answer, by: candidate, asked });
            }
            Err(error) => error,
        };
        if let Asked::Answer { entry, .. } = &asked_for {
            if !matches!(error, ProviderError::Uncertain(_)) {
                entry.not_billed();
            }
            pool.failed(&candidate.deployment, &error);
        }
        match &error {
            ProviderError::Uncertain(failure) => return Err(ProviderError::Uncertain(not_repeated(failure))),
            ProviderError::Final(failure) if failure.code == Code::ContextOverflow => {
                let too_small = |other: &Candidate| other.context <= candidate.context;
                (0..lineup.len()).filter(|other| *other == index || too_small(&lineup[*other])).for_each(|it| tries.give_up(it));
            }
            // Its format has no word for what is asked; another's may.
            ProviderError::Final(failure) if failure.code == Code::InvalidRequest => tries.give_up(index),
            ProviderError::Final(_) => return Err(error),
            ProviderError::Elsewhere(_) => tries.give_up(index),
            // As many wait there as may: waiting in another way would only make the queue longer.
            ProviderError::Retryable { failure, .. } if failure.code == Code::Overloaded => tries.give_up(index),
            ProviderError::Retryable { failure, retry_after, .. } => {
                let limits = &pool.route(&candidate.deployment).args.limits;
                let wait = limits.wait(tries.0[index].tries, *retry_after);
                tries.failed(index, began.elapsed() + wait);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(deployment = pool.name(&candidate.deployment), wait_ms, %failure, "a model call failed");
            }
        }
        errors[index] = Some(error);
    }
}

/// What this call has met already of the one that it asks next.
fn tried(lineup: &[Candidate], tries: &Tries, errors: &[Option<ProviderError>], index: usize) -> Tried {
    let of_provider = |(one, error): (&Candidate, &Option<ProviderError>)| {
        let fails = matches!(error, Some(ProviderError::Retryable { scope: FaultScope::Provider, .. }));
        fails && one.deployment.provider == lineup[index].deployment.provider
    };
    let provider = Met::after(lineup.iter().zip(errors).any(of_provider));
    Tried { provider, model: Met::after(tries.0[index].tries > 0) }
}

fn slot(pool: &Pool, candidate: &Candidate) -> Slot {
    let limits = &pool.route(&candidate.deployment).args.limits;
    let out = !candidate.wait.is_zero() && limits.retries == 0;
    Slot { tier: candidate.tier, tries: 0, retries: limits.retries, patience: candidate.patience, ready: candidate.wait, out }
}

/// How long a call would run into limits that the deployment's last answer told. Not all who wait for them return at once.
fn exhausted_for(pool: &Pool, candidate: &Candidate) -> Option<Duration> {
    let wait = pool.limits(&candidate.deployment).exhausted_for()?;
    Some(pool.route(&candidate.deployment).args.limits.wait(0, Some(wait)))
}

fn exhausted(pool: &Pool, candidate: &Candidate, wait: Duration) -> ProviderError {
    let message = format!("the limits of {} are used up, as its last answer said", pool.name(&candidate.deployment));
    let (failure, scope) = (Failure::new(Code::NoModelAnswers, message), FaultScope::Model);
    ProviderError::Retryable { failure, retry_after: Some(wait), scope }
}

fn not_repeated(failure: &Failure) -> Failure {
    let hint = "it is not repeated by itself: the answer may have begun, be billed, and have been acted on";
    let hint = if failure.hint.is_empty() { hint.to_owned() } else { format!("{}; {hint}", failure.hint) };
    Failure { hint, ..failure.clone() }
}

/// Why nobody answered. Where only one could have been asked it is that one's own words; what passes is nobody's answer at present
/// all the same, however many there are, so that a task waits and uses no retry.
fn unanswered(
    pool: &Pool,
    lineup: &[Candidate],
    tries: &Tries,
    mut errors: Vec<Option<ProviderError>>,
    now: Duration,
) -> ProviderError {
    if let [_] = lineup
        && let Some(error) = errors[0].take()
    {
        return match error {
            // Too many wait there: that is said as it is, so that whoever asks goes slower.
            ProviderError::Retryable { failure, retry_after, scope } if failure.code != Code::Overloaded => {
                let after = retry_after.unwrap_or_else(|| again_after(tries.0[0].ready.saturating_sub(now)));
                let failure = Failure { code: Code::NoModelAnswers, ..failure };
                ProviderError::Retryable { failure: failure.hint(worth_another_try(after)), retry_after: Some(after), scope }
            }
            other => other,
        };
    }
    let overflows =
        |index: &usize| matches!(&errors[*index], Some(ProviderError::Final(failure)) if failure.code == Code::ContextOverflow);
    // One that refused the turn as too long spoke for those that take no more; only a larger one is worth the wait.
    let least = (0..lineup.len()).filter(overflows).map(|index| lineup[index].context).max();
    let is_large = |index: &usize| least.is_none_or(|least| lineup[*index].context > least);
    let passes =
        |index: &usize| is_large(index) && !matches!(errors[*index], Some(ProviderError::Elsewhere(_) | ProviderError::Final(_)));
    // A refusal of the request itself says more than who else was not there; one of a format, or of a length, only where no
    // other is to be waited for.
    let passing = (0..lineup.len()).any(|index| passes(&index));
    let refuses = |error: &&ProviderError| match error {
        ProviderError::Final(failure) => !passing || !matches!(failure.code, Code::InvalidRequest | Code::ContextOverflow),
        _ => false,
    };
    if let Some(refusal) = errors.iter().flatten().find(refuses) {
        return refusal.clone();
    }
    let told = |index: usize| {
        let name = pool.name(&lineup[index].deployment);
        match (&errors[index], tries.0[index].tries) {
            (Some(error), 0 | 1) => format!("{name}: {}", error.failure().message),
            (Some(error), times) => format!("{name}, asked {times} times: {}", error.failure().message),
            (None, _) if !is_large(&index) => format!("{name} takes no more"),
            (None, _) => format!("{name} was not asked: it is left alone for {} s", seconds(tries.0[index].ready)),
        }
    };
    let all: Vec<String> = (0..lineup.len()).map(told).collect();
    let message = format!("nobody who could answer does at present: {}", all.join("; "));
    let again = (0..lineup.len()).filter(passes).map(|index| tries.0[index].ready.saturating_sub(now)).min();
    match again {
        Some(after) => {
            let after = again_after(after);
            let failure = Failure::new(Code::NoModelAnswers, message).hint(worth_another_try(after));
            ProviderError::Retryable { failure, retry_after: Some(after), scope: FaultScope::Model }
        }
        None => {
            let mut hints: Vec<String> = errors.into_iter().flatten().map(|error| error.failure().hint.clone()).collect();
            hints.retain(|hint| !hint.is_empty());
            hints.dedup();
            ProviderError::Elsewhere(Failure::new(Code::ModelRefused, message).hint(hints.join("; or ")))
        }
    }
}

/// When it is worth another try: when somebody is ready again, and later where nobody said when.
fn again_after(ready_in: Duration) -> Duration {
    if ready_in.is_zero() { LATER } else { ready_in }
}

fn worth_another_try(after: Duration) -> String {
    format!("it is worth another try in {} s; `helix status` shows every circuit that is open", seconds(after))
}

fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1_000) as u64
}

/// Asks one deployment. Where a tool must be called and the model cannot be made to, it is asked in words, and once more where its
/// answer came to its end without. That answer is noted as unused; the usage of the other is its own.
async fn ask(
    pool: &Pool,
    candidate: &Candidate,
    request: Arc<ModelRequest>,
    deltas: Option<DeltaSink>,
    (asking, unused): (&Asking, &Unused),
    tried: Tried,
) -> Result<ModelReply, ProviderError> {
    let model = &candidate.deployment.model;
    let max_tokens = candidate.most_answer.map_or(request.max_tokens, |most| request.max_tokens.min(most));
    let request = match request.model.as_deref() == named(model) && request.max_tokens == max_tokens {
        true => request,
        false => Arc::new(ModelRequest { model: named(model).map(str::to_owned), max_tokens, ..(*request).clone() }),
    };
    let request = if candidate.blind { Arc::new(without_pictures(&request)) } else { request };
    let choice = request.tool_choice.clone();
    if !pool.may_insist(&candidate.deployment, &request) {
        return call(pool, candidate, request, deltas, asking, tried).await;
    }
    let instructed = insist::instructed(&request);
    let first = call(pool, candidate, Arc::new(instructed.clone()), None, asking, tried).await?;
    if insist::obeys(&choice, &first) {
        show(&first, deltas.as_ref()).await;
        return Ok(first);
    }
    unused.note(&first);
    let reminded = insist::reminded(&instructed, &choice, &first);
    // The first answer was paid for, so what fails now is not for nothing.
    let second = call(pool, candidate, Arc::new(reminded), None, asking, tried).await;
    let second = second.map_err(|error| ProviderError::Uncertain(error.into()))?;
    if !insist::obeys(&choice, &second) {
        let message = format!("{} was asked twice to call a tool and did not", pool.name(&candidate.deployment));
        let failure = Failure::new(Code::ModelGarbage, message);
        return Err(ProviderError::Uncertain(failure.hint("name a model that can be made to, or leave the choice to it")));
    }
    show(&second, deltas.as_ref()).await;
    Ok(second)
}

fn without_pictures(request: &ModelRequest) -> ModelRequest {
    let messages = request.messages.iter().cloned().map(Message::without_pictures).collect();
    ModelRequest { messages, ..request.clone() }
}

async fn call(
    pool: &Pool,
    candidate: &Candidate,
    request: Arc<ModelRequest>,
    deltas: Option<DeltaSink>,
    asking: &Asking,
    tried: Tried,
) -> Result<ModelReply, ProviderError> {
    let (answer, answered) = oneshot::channel();
    send(pool, candidate, Call::Generate { request, deltas, asking: asking.clone(), tried, answer }, answered).await
}

/// Hands a call to its provider's actor and waits for the answer.
pub(crate) async fn send<T>(
    pool: &Pool,
    candidate: &Candidate,
    call: Call,
    answered: oneshot::Receiver<Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let route = pool.route(&candidate.deployment);
    if let Err(failure) = route.address.tell(ProviderMsg::Make { call }) {
        return Err(ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider });
    }
    answered.await.unwrap_or_else(|_| {
        let message = format!("the part that called {} ended in mid-call", route.args.provider.name());
        Err(ProviderError::Uncertain(Failure::new(Code::ModelFailed, message)))
    })
}

/// Shows an answer that came whole in pieces.
async fn show(reply: &ModelReply, deltas: Option<&DeltaSink>) {
    let Some(deltas) = deltas else { return };
    let mut index = 0;
    for block in &reply.blocks {
        let mut pieces = Vec::new();
        let extra = match block {
            Block::Text { text, extra } => {
                pieces.push(ModelDelta::Text { text: text.clone() });
                extra.is_some()
            }
            Block::Thinking { text, extra } => {
                pieces.push(ModelDelta::Thinking { text: text.clone() });
                extra.is_some()
            }
            Block::ToolUse { id, name, input, extra } => {
                let text = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
                pieces.push(ModelDelta::ToolUse { index, id: id.clone(), name: name.clone(), extra: None });
                pieces.push(ModelDelta::ToolInput { index, text });
                index += 1;
                extra.is_some()
            }
            Block::Image { .. } | Block::Document { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => true,
        };
        if extra {
            pieces.push(ModelDelta::Block { block: block.clone() });
        }
        for piece in pieces {
            // Nobody looks any more: the reply is what counts.
            drop(deltas.send(piece).await);
        }
    }
}
