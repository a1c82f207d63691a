//! Passing a client's bytes on to whoever speaks their format.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use helix_messages::ReadRequest;
use helix_ports::{ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Code, ModelRequest, WireFormat};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::calls::Call;
use crate::drive::{Answered, Asked, run, send};
use crate::ledger::Entry;
use crate::pool::{Candidate, Pool};
use crate::tries::LOYALTY;

/// Those who may be asked for bytes in one format.
pub(crate) struct Speakers {
    lineup: Vec<Candidate>,
    /// The most tokens that one of those takes who could answer a translation; `None` where there are none.
    others: Option<u64>,
}

/// Who may be asked for `call` in `format`; `None` where the first to be asked speaks another: the request has to be translated.
/// Where there is a choice the request is read, so that its size, its pictures and its price count as where it is translated.
pub(crate) fn speakers(
    pool: &Pool,
    session: Option<&str>,
    format: WireFormat,
    call: &RawCall,
    read: ReadRequest,
) -> Result<Option<Speakers>, ProviderError> {
    let plan = pool.directory.plan(None, Some(&call.model)).map_err(ProviderError::Final)?;
    let choice = plan.tiers.iter().map(|tier| tier.deployments.len()).sum::<usize>() > 1;
    let asked = choice.then(read).flatten().unwrap_or_default();
    let asked = ModelRequest { session: session.map(str::to_owned), ..asked };
    let speaks = |candidate: &Candidate| {
        let provider = &pool.route(&candidate.deployment).args.provider;
        // Who stands in for a model that takes the pictures is told of them, in a translation, and who
        // writes less is asked for less.
        let as_it_is = !candidate.blind && candidate.most_answer.is_none_or(|most| asked.max_tokens <= most);
        as_it_is && provider.format() == format && provider.passes()
    };
    // A request that has to be translated is given its turn then, and a count has none.
    let lineup =
        pool.lineup(&plan, &asked, |lineup| call.operation != RawOperation::CountTokens && lineup.first().is_some_and(speaks));
    if !lineup.first().is_some_and(speaks) {
        return Ok(None);
    }
    let (mut same, others): (Vec<_>, Vec<_>) = lineup.into_iter().partition(speaks);
    if !others.is_empty() {
        // Those who speak another format can answer meanwhile.
        same.iter_mut().for_each(|candidate| candidate.patience = candidate.patience.min(LOYALTY));
    }
    Ok(Some(Speakers { lineup: same, others: others.iter().map(|other| other.context).max() }))
}

/// Passes `call` on, which `entry` follows. `None` where none of these could answer and only those are left
/// who speak another format.
///
/// An error answer passes as it came once nobody else can answer, except where it is about our own key, account or address.
pub(crate) async fn forward(
    pool: &Arc<Pool>,
    session: Option<String>,
    Speakers { lineup: same, others }: Speakers,
    call: RawCall,
    entry: &mut Entry,
) -> Result<Option<RawAnswer>, ProviderError> {
    let refusal: Mutex<Option<RawAnswer>> = Mutex::new(None);
    let asking = entry.asking();
    let asked_for = match call.operation {
        RawOperation::CountTokens => Asked::Count,
        RawOperation::Generate | RawOperation::Stream => Asked::Answer { session: session.as_deref(), entry },
    };
    let answer = run(pool, &same, asked_for, |candidate, tried| {
        let model = candidate.deployment.model.clone();
        let call = RawCall { body: with_model(&call.body, &model), model, ..call.clone() };
        let (refusal, asking) = (&refusal, asking.clone());
        async move {
            let (answer, answered) = oneshot::channel();
            let answer = send(pool, candidate, Call::Forward { call, asking, tried, answer }, answered).await?;
            match answer.fault.clone() {
                None => Ok(answer),
                Some(fault) => {
                    keep(refusal, answer);
                    Err(fault)
                }
            }
        }
    });
    match answer.await {
        Ok(answered) => Ok(Some(followed(pool, answered))),
        Err(error) if helps(others, &error, &same) => Ok(None),
        Err(error) => match refusal.into_inner().filter(|refusal| tells(refusal, &error)) {
            Some(refusal) => Ok(Some(refusal)),
            None => Err(error),
        },
    }
}

/// The answer, from whose end is learnt how its deployment does.
fn followed(pool: &Arc<Pool>, Answered { answer, by, asked }: Answered<'_, RawAnswer>) -> RawAnswer {
    let (pool, deployment, ended) = (Arc::clone(pool), by.deployment.clone(), answer.ended);
    let ended = ended.inspect(move |ended| match ended {
        Some(Ok(_)) => pool.ended(&deployment, asked.elapsed()),
        Some(Err(error)) => pool.failed(&deployment, error),
        None => {}
    });
    RawAnswer { ended: ended.boxed(), ..answer }
}

/// Keeps a refusal for the client where it may see it. One of the request itself says more than who else was not there.
fn keep(refusal: &Mutex<Option<RawAnswer>>, next: RawAnswer) {
    let elsewhere = matches!(next.fault, Some(ProviderError::Elsewhere(_)));
    let ours = match next.status {
        // What it says is about a key, an account or an address that are not the client's; Gemini refuses a key with a 400.
        ..400 | 401..=403 => true,
        400 => elsewhere,
        _ => false,
    };
    let mut kept = refusal.lock();
    let says_less = elsewhere || matches!(next.fault, Some(ProviderError::Retryable { .. }));
    let said = kept.as_ref().is_some_and(|kept| matches!(kept.fault, Some(ProviderError::Final(_))));
    if ours || (said && says_less) {
        return;
    }
    *kept = Some(next);
}

/// True where a translation may be answered by one of the `others`.
fn helps(others: Option<u64>, error: &ProviderError, same: &[Candidate]) -> bool {
    let Some(takes) = others else { return false };
    match error {
        ProviderError::Retryable { .. } | ProviderError::Elsewhere(_) => true,
        ProviderError::Final(failure) => {
            failure.code == Code::ContextOverflow && same.iter().all(|candidate| candidate.context < takes)
        }
        ProviderError::Uncertain(_) => false,
    }
}

/// True where a refusal is how it ended: what may have been billed is not told as somebody's refusal of before,
/// nor the other way round.
fn tells(refusal: &RawAnswer, error: &ProviderError) -> bool {
    match error {
        ProviderError::Uncertain(_) => matches!(refusal.fault, Some(ProviderError::Uncertain(_))),
        ProviderError::Final(_) => matches!(refusal.fault, Some(ProviderError::Final(_))),
        ProviderError::Retryable { .. } | ProviderError::Elsewhere(_) => true,
    }
}

/// What is read of a body that passes. Its other fields take no memory.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

/// The body with the model's name as the provider knows it; every other byte stays. The gateway lets no body pass that names two.
fn with_model(body: &Bytes, model: &str) -> Bytes {
    // A list would be read by position.
    if !body.trim_ascii_start().starts_with(b"{") {
        return body.clone();
    }
    let Ok(Named { model: Some(named) }) = serde_json::from_slice(body) else { return body.clone() };
    let named = named.get();
    if model.is_empty() || serde_json::from_str::<String>(named).is_ok_and(|named| named == model) {
        return body.clone();
    }
    let at = named.as_ptr() as usize - body.as_ptr() as usize;
    let mut changed = Vec::with_capacity(body.len() + model.len());
    changed.extend_from_slice(&body[..at]);
    changed.extend_from_slice(serde_json::Value::from(model).to_string().as_bytes());
    changed.extend_from_slice(&body[at + named.len()..]);
    changed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_models_name_changes_and_only_where_it_differs() {
        let body = Bytes::from_static(b"{ \"a\" : 1.50,\n\"model\": \"coder\", \"b\": {\"model\":\"x\"} }");
        assert_eq!(&with_model(&body, "m\"1")[..], b"{ \"a\" : 1.50,\n\"model\": \"m\\\"1\", \"b\": {\"model\":\"x\"} }");
        assert_eq!(with_model(&body, "coder").as_ptr(), body.as_ptr(), "the same bytes");
        for other in ["{}", "[1]", "not json"] {
            assert_eq!(with_model(&Bytes::from(other), "m"), other);
        }
    }
}
