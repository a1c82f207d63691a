//! Passing a client's bytes on to whoever speaks their format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use helix_ports::{ProviderError, RawAnswer, RawCall};
use helix_protocol::{Code, Failure, ModelRequest, WireFormat};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::calls::Call;
use crate::drive::{run, send};
use crate::pool::{Candidate, Pool};

/// An answer that passes, and whose it is.
pub(crate) struct Forwarded {
    pub answer: RawAnswer,
    pub provider: String,
    pub model: String,
}

/// Those who may be asked for bytes in one format.
pub(crate) struct Speakers {
    lineup: Vec<Candidate>,
    /// Whether somebody could answer a translation too.
    others: bool,
}

/// Who may be asked for `model` in `format`; `None` where the first to be asked speaks another: the request has to be translated.
pub(crate) fn speakers(
    pool: &Pool,
    session: Option<&str>,
    format: WireFormat,
    model: &str,
) -> Result<Option<Speakers>, ProviderError> {
    let plan = pool.directory.plan(None, Some(model)).map_err(ProviderError::Final)?;
    let asked = ModelRequest { session: session.map(str::to_owned), ..ModelRequest::default() };
    let lineup = pool.lineup(&plan, &asked);
    let speaks = |candidate: &Candidate| pool.route(&candidate.deployment).args.provider.format() == format;
    if !lineup.first().is_some_and(speaks) {
        return Ok(None);
    }
    let others = lineup.iter().any(|candidate| !speaks(candidate));
    Ok(Some(Speakers { lineup: lineup.into_iter().filter(speaks).collect(), others }))
}

/// Passes `call` on. `None` where none of these could answer and only those are left who speak another format.
///
/// An error answer passes as it came once nobody else can answer, except where it is about our own key.
pub(crate) async fn forward(
    pool: &Pool,
    session: Option<String>,
    Speakers { lineup: same, others }: Speakers,
    call: RawCall,
) -> Result<Option<Forwarded>, ProviderError> {
    let last: Mutex<Option<RawAnswer>> = Mutex::new(None);
    let answer = run(pool, &same, session.as_deref(), |candidate| {
        let call = RawCall {
            model: candidate.deployment.model.clone(),
            body: with_model(&call.body, &candidate.deployment.model),
            ..call.clone()
        };
        let last = &last;
        async move {
            let (answer, answered) = oneshot::channel();
            let answer = send(pool, candidate, Call::Forward { call, answer }, answered).await?;
            judged(answer, last)
        }
    });
    let named = |candidate: &Candidate, answer| {
        let provider = pool.route(&candidate.deployment).args.provider.name().to_owned();
        Forwarded { answer, provider, model: candidate.deployment.model.clone() }
    };
    match answer.await {
        Ok((answer, by)) => Ok(Some(named(by, answer))),
        Err(ProviderError::Retryable { .. } | ProviderError::Elsewhere(_)) if others => Ok(None),
        Err(error) => match last.into_inner() {
            Some(answer) => Ok(Some(named(&same[0], answer))),
            None => Err(error),
        },
    }
}

/// An answer whose status says that another try, or another provider, may help is an error; it is kept in `last` for the client where
/// it may see it.
fn judged(answer: RawAnswer, last: &Mutex<Option<RawAnswer>>) -> Result<RawAnswer, ProviderError> {
    let status = answer.status;
    let failure = |code, hint: &str| Failure::new(code, format!("it answered with HTTP {status}")).hint(hint);
    match status {
        // What it says is about a key, an account or an address that are not the client's.
        401..=403 => Err(ProviderError::Elsewhere(failure(Code::ModelRefused, "check the provider's key and its credit"))),
        404 => {
            *last.lock() = Some(answer);
            Err(ProviderError::Elsewhere(failure(Code::ModelRefused, "check the model's name")))
        }
        408 | 429 | 500..=599 => {
            let retry_after = retry_after(&answer.headers);
            *last.lock() = Some(answer);
            Err(ProviderError::Retryable { failure: failure(Code::ModelFailed, ""), retry_after })
        }
        _ => Ok(answer),
    }
}

fn retry_after(headers: &[(String, String)]) -> Option<Duration> {
    let number =
        |name: &str| headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.trim().parse::<f64>().ok());
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The body with the model's name as the provider knows it; every other byte stays.
fn with_model(body: &Bytes, model: &str) -> Bytes {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(body) else { return body.clone() };
    let Some(named) = fields.get("model").map(|value| value.get()) else { return body.clone() };
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

    #[test]
    fn retry_after_is_read_from_either_header() {
        let headers = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(retry_after(&headers("retry-after", "2")), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&headers("retry-after-ms", "250")), Some(Duration::from_millis(250)));
        assert_eq!(retry_after(&headers("retry-after", "-1")), None);
        assert_eq!(retry_after(&headers("retry-after", "soon")), None);
    }
}
