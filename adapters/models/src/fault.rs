//! What a failed call means: may it be repeated, may it have been billed, what should a person do.

mod accounts;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use helix_ports::{FaultScope, ProviderError};
use helix_protocol::{Code, Failure, JsonOutput, OutputFormat};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use self::accounts::says_spent;
use crate::chat::WireError;
use crate::connection::BodyError;
use crate::dates::http_date;
use crate::format::DecodeError;
use crate::{ApiKey, Settings};

/// Says what went wrong at one provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults<'a> {
    pub settings: &'a Settings,
}

/// How far a call had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The server had answered with a status, and the model had said nothing.
    Nothing,
    /// The model had begun to speak.
    Began,
}

impl Faults<'_> {
    /// An answer with a status other than success. `body` may be cut.
    pub fn status(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        let error = parsed
            .as_ref()
            .and_then(WireError::from_body)
            .unwrap_or_else(|| WireError { message: excerpt(body), ..WireError::default() });
        let after = retry_after(headers).or_else(|| parsed.as_ref().and_then(retry_delay));
        let judged = self.refusal(status.as_u16(), &error, after);
        // The provider's own word on whether the same may be sent again stands above what its status would mean.
        match (headers.get("x-should-retry").and_then(|word| word.to_str().ok()), judged) {
            (Some("false"), ProviderError::Retryable { failure, .. }) => {
                ProviderError::Elsewhere(failure.hint("the provider asks not to repeat the call; another may serve it"))
            }
            (Some("true"), ProviderError::Final(failure) | ProviderError::Elsewhere(failure))
                if failure.code != Code::ContextOverflow && !says_spent(&error) =>
            {
                ProviderError::Retryable { failure, retry_after: after, scope: scope(status.as_u16(), &error) }
            }
            (_, judged) => judged,
        }
    }

    /// Decides by status first, and by the provider's own words where the status says too little.
    fn refusal(&self, status: u16, error: &WireError, retry_after: Option<Duration>) -> ProviderError {
        let name = &self.settings.name;
        let said = self.said(error);
        let failed = |hint: &str| Failure::new(Code::ModelFailed, format!("{name} answered {status}{said}")).hint(hint);
        let refused = |hint: String| Failure::new(Code::ModelRefused, format!("{name} answered {status}{said}")).hint(hint);
        match status {
            _ if is_overflow(status, error) => ProviderError::Final(
                Failure::new(
                    Code::ContextOverflow,
                    format!("the conversation is longer than the model takes: {name} answered {status}{said}"),
                )
                .hint("name a model with a larger context, or fork an earlier step and give a narrower prompt"),
            ),
            400..=499 if status == 402 || says_spent(error) => ProviderError::Elsewhere(refused(format!(
                "the account at {} has no credit or quota left: add credit or raise its limit there; waiting does not help",
                self.host()
            ))),
            504 | 524 => ProviderError::Uncertain(failed("a gateway gave up waiting; the call may have been billed")),
            408 | 409 | 425 | 429 | 500 | 502 | 503 | 505..=599 => {
                let (failure, scope) = (failed("the call is repeated by itself"), scope(status, error));
                ProviderError::Retryable { failure, retry_after, scope }
            }
            401 | 403 => ProviderError::Elsewhere(refused(self.key_hint())),
            // Gemini's answer to a wrong key.
            400 if error.kind.contains("API_KEY_INVALID") => ProviderError::Elsewhere(refused(self.key_hint())),
            404 => ProviderError::Elsewhere(refused(format!(
                "check the model's name, and the base URL {}: it usually ends in /v1",
                self.base()
            ))),
            300..=399 => ProviderError::Elsewhere(
                Failure::new(Code::ModelGarbage, format!("{name} redirects ({status}) instead of answering"))
                    .hint(format!("set the base URL {} to where it redirects to", self.base())),
            ),
            _ => ProviderError::Final(refused("the provider cannot take this request; its message says why".to_owned())),
        }
    }

    /// A prompt that is not sent, because its model does not take it.
    pub fn too_long(&self, model: &str, tokens: u64, takes: u64) -> ProviderError {
        let name = &self.settings.name;
        let message = format!("the conversation has {tokens} tokens, and {model} of {name} takes {takes}: nothing was sent");
        ProviderError::Final(Failure::new(Code::ContextOverflow, message).hint(
            "name a model with a larger context, fork an earlier step with a narrower prompt, or say that this one takes more: \
             `context_tokens` of the provider, or under `llm.models`",
        ))
    }

    /// A turn that is not sent, because its model or its format cannot be held to what the answer's text shall be.
    pub fn no_such_output(&self, model: &str, output: &OutputFormat) -> ProviderError {
        let able = self.settings.models.of(model).capabilities.json_output;
        let (what, hint) = match (output, able) {
            (OutputFormat::JsonObject, JsonOutput::Schema) => {
                ("answers in JSON only by a schema", "send a JSON Schema of the answer, or ask for JSON in words")
            }
            (_, JsonOutput::Object) => {
                ("cannot be held to a schema", "ask for a JSON object and say its fields in words, or name another model")
            }
            _ => ("cannot be held to JSON", "ask for it in words, or name another model"),
        };
        let message = format!("{model} of {} {what}: nothing was sent", self.settings.name);
        ProviderError::Final(Failure::new(Code::InvalidRequest, message).hint(hint))
    }

    /// A request that is not sent, because the provider's format has no word for something in it.
    pub fn not_carried(&self, what: &str) -> ProviderError {
        let message = format!("{what} cannot be said in the format of {}: nothing was sent", self.settings.name);
        ProviderError::Final(
            Failure::new(Code::InvalidRequest, message)
                .hint("leave it out, send a file as its bytes (a PDF), or name a model whose provider speaks your format"),
        )
    }

    /// A request that is not sent, because `field` names models beside the one that it asks for.
    pub fn other_models(&self, field: &str) -> ProviderError {
        let message =
            format!("`{field}` names models beside the one that is asked for: nothing was sent to {}", self.settings.name);
        ProviderError::Final(
            Failure::new(Code::InvalidRequest, message).hint(
                "leave it out and name one model; who is asked besides is said in helix.yaml (`fallback_models`, `llm.groups`)",
            ),
        )
    }

    /// A success that holds an error, or nonsense.
    pub fn decode(&self, error: DecodeError, progress: Progress) -> ProviderError {
        let name = &self.settings.name;
        match error {
            DecodeError::Reported(error) => {
                match (progress, error.status.or_else(|| status_of(&error)).or_else(|| says_overflow(&error).then_some(400))) {
                    (Progress::Nothing, Some(status)) => self.refusal(status, &error, None),
                    _ => ProviderError::Uncertain(
                        Failure::new(Code::ModelFailed, format!("{name} broke off{}", self.said(&error)))
                            .hint("the call may have been billed; its reservation is charged"),
                    ),
                }
            }
            DecodeError::Garbage(reason) => ProviderError::Uncertain(self.garbage(&reason)),
        }
    }

    /// A page where an answer should be: certainly no model was asked.
    pub fn page(&self, start: &[u8]) -> ProviderError {
        ProviderError::Elsewhere(self.garbage(&format!("it sent a web page: {:?}", excerpt(start).trim_start_matches(": "))))
    }

    fn garbage(&self, reason: &str) -> Failure {
        let reason = self.masked(reason);
        Failure::new(Code::ModelGarbage, format!("{} sent something that is not an answer: {reason}", self.settings.name))
            .hint(format!("check the base URL {}: it usually ends in /v1", self.base()))
    }

    /// No status arrived.
    pub fn transport(&self, error: reqwest::Error) -> ProviderError {
        let name = &self.settings.name;
        let connecting = error.is_connect();
        let built = error.is_builder();
        let tls = is_tls(&error);
        let reason = self.masked(&chain(&error.without_url()));
        if built {
            return ProviderError::Final(
                Failure::new(Code::InvalidConfig, format!("{name} cannot be asked: {reason}"))
                    .hint(format!("check the base URL {}", self.base())),
            );
        }
        if !connecting {
            return ProviderError::Uncertain(self.cut(&reason));
        }
        let hint = match () {
            () if tls => format!(
                "no secure connection to {} can be made; check the base URL (http or https), and the system's certificates",
                self.host()
            ),
            () if reason.contains("dns error") || reason.contains("lookup") => {
                format!("check the name {} and the network", self.host())
            }
            () => format!("is the server at {} running?", self.host()),
        };
        let failure = Failure::new(Code::ModelFailed, format!("no connection to {name}: {reason}")).hint(hint);
        // A certificate does not mend by waiting.
        if tls {
            return ProviderError::Elsewhere(failure);
        }
        ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider }
    }

    /// The answer, or the connection before it, was cut.
    pub fn cut(&self, reason: &str) -> Failure {
        Failure::new(Code::ModelFailed, format!("{} broke off: {}", self.settings.name, self.masked(reason)))
            .hint("the call may have been billed; its reservation is charged")
    }

    /// A stream ended in mid-answer.
    pub fn unended(&self) -> ProviderError {
        ProviderError::Uncertain(self.cut("the stream ended without its terminal event"))
    }

    /// A body could not be read to its end.
    pub fn body(&self, error: BodyError) -> ProviderError {
        match error {
            BodyError::Idle(limit) => self.silent("sent nothing more", limit),
            BodyError::Late(limit) => self.silent("did not finish its answer", limit),
            BodyError::Cut(error) => ProviderError::Uncertain(self.cut(&error.without_url().to_string())),
            BodyError::TooLarge(_) => ProviderError::Uncertain(self.cut(&format!("its answer is {error}"))),
        }
    }

    /// Nothing came for too long.
    pub fn silent(&self, what: &str, limit: Duration) -> ProviderError {
        ProviderError::Uncertain(
            Failure::new(Code::ModelFailed, format!("{} {what} within {} ms", self.settings.name, limit.as_millis()))
                .hint("the call may have been billed; raise idle_timeout_ms or call_timeout_ms if the model is slow"),
        )
    }

    /// There is no key, so nothing is sent.
    pub fn no_key(&self) -> ProviderError {
        ProviderError::Elsewhere(
            Failure::new(Code::ModelUnavailable, format!("there is no key for the provider {}", self.settings.name))
                .hint(self.key_hint()),
        )
    }

    fn key_hint(&self) -> String {
        match self.settings.key_env.as_str() {
            "" => format!("{} wants a key: name its variable as key_env of the provider {}", self.host(), self.settings.name),
            variable => format!(
                "set {variable} to a key that {} accepts, then `helix down`: the next command starts a node that has it",
                self.host()
            ),
        }
    }

    /// What the provider said, ready to follow a status.
    fn said(&self, error: &WireError) -> String {
        let message = self.masked(error.message.trim().trim_start_matches(": "));
        let message: String = message.chars().take(400).collect();
        if message.is_empty() { String::new() } else { format!(": {message}") }
    }

    fn masked(&self, text: &str) -> String {
        self.settings.key.as_ref().map_or_else(|| text.to_owned(), |key| key.mask(text))
    }

    /// The base URL without credentials and query.
    fn base(&self) -> String {
        match reqwest::Url::parse(&self.settings.base_url) {
            Ok(url) => format!("{}://{}{}", url.scheme(), self.host(), url.path().trim_end_matches('/')),
            Err(_) => "that is configured".to_owned(),
        }
    }

    fn host(&self) -> String {
        let url = reqwest::Url::parse(&self.settings.base_url).ok();
        let host = url.as_ref().and_then(|url| url.host_str().map(|host| (host.to_owned(), url.port())));
        match host {
            Some((host, Some(port))) => format!("{host}:{port}"),
            Some((host, None)) => host,
            None => "the configured address".to_owned(),
        }
    }
}

/// The same error without a key that is not among the settings.
pub(crate) fn without_key(key: Option<&ApiKey>, error: ProviderError) -> ProviderError {
    let Some(key) = key else { return error };
    let masked = |failure: Failure| Failure { message: key.mask(&failure.message), hint: key.mask(&failure.hint), ..failure };
    match error {
        ProviderError::Retryable { failure, retry_after, scope } => {
            ProviderError::Retryable { failure: masked(failure), retry_after, scope }
        }
        ProviderError::Uncertain(failure) => ProviderError::Uncertain(masked(failure)),
        ProviderError::Elsewhere(failure) => ProviderError::Elsewhere(masked(failure)),
        ProviderError::Final(failure) => ProviderError::Final(masked(failure)),
    }
}

/// A word of the provider as the status it should have been.
fn status_of(error: &WireError) -> Option<u16> {
    let kind = error.kind.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    if says_spent(error) {
        Some(402)
    } else if has(&["rate_limit", "resource_exhausted"]) {
        Some(429)
    } else if has(&["overloaded", "unavailable"]) {
        Some(503)
    } else if has(&["authentication", "permission", "invalid_api_key"]) {
        Some(401)
    } else if has(&["model_not_found", "not_found"]) {
        Some(404)
    } else if has(&["invalid_request", "context_length_exceeded", "exceed_context_size"]) {
        Some(400)
    } else {
        None
    }
}

/// Limits are a model's own, and so is what a server fails with that speaks of the model: it is overloaded, loading or too large.
fn scope(status: u16, error: &WireError) -> FaultScope {
    let text = format!("{} {}", error.kind, error.message).to_ascii_lowercase();
    match status {
        500.. if !text.contains("model") => FaultScope::Provider,
        _ => FaultScope::Model,
    }
}

fn is_overflow(status: u16, error: &WireError) -> bool {
    status == 413 || (matches!(status, 400 | 422) && says_overflow(error))
}

/// How services say that a prompt is longer than the model takes. What is said of an answer's limit alone is not among them: a
/// shorter conversation would be refused as well.
fn says_overflow(error: &WireError) -> bool {
    let text = format!("{} {}", error.kind, error.message).to_ascii_lowercase();
    let says = [
        "context_length_exceeded",
        "exceed_context_size",
        "context length",
        "context window",
        "context size",
        // Anthropic, of prompt and answer together.
        "exceed context limit",
        "prompt is too long",
        "too many tokens",
        "maximum number of tokens",
        "maximum prompt length",
        // Copilot.
        "model_max_prompt_tokens_exceeded",
        "prompt token count of",
        // DashScope.
        "range of input length should be",
        // Bedrock, and gateways before it.
        "input is too long",
        // Zhipu.
        "prompt exceeds max length",
        // vLLM and SGLang.
        "maximum model length",
        "exceeds the maximum allowed length",
    ];
    says.iter().any(|word| text.contains(word))
}

/// True where the connection failed over its encryption: a certificate, or a server that speaks none.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if holds_tls(cause) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// An I/O error hides what it wraps from `source`, and may wrap another one.
fn holds_tls(cause: &(dyn std::error::Error + 'static)) -> bool {
    let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    cause.is::<rustls::Error>() || inner.is_some_and(|inner| holds_tls(inner))
}

/// An error with its causes: the outermost alone says nothing.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    parts.join(": ")
}

/// The beginning of a body, as one line of text.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True where bytes begin like a web page.
pub(crate) fn is_page(start: &[u8]) -> bool {
    start.trim_ascii_start().first() == Some(&b'<')
}

/// When the provider wants us back: `retry-after-ms` before `retry-after`, which is in seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return duration(millis / 1_000.0);
    }
    let after = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = after.parse::<f64>() {
        return duration(seconds);
    }
    // Counted from the server's own clock where it shows it, because ours may be off.
    let now = text(DATE.as_str())
        .and_then(http_date)
        .or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()))?;
    let seconds = http_date(after)?.saturating_sub(now).max(0);
    Some(Duration::from_secs(seconds.unsigned_abs()))
}

/// When Gemini wants us back: it says so in the details of an error, in seconds with an `s` behind.
fn retry_delay(body: &Value) -> Option<Duration> {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    let details = body.pointer("/error/details")?.as_array()?;
    let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
    duration(delay.strip_suffix('s')?.parse().ok()?)
}

/// Seconds as a duration; nothing for what is negative or absurd.
fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().expect("a header"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn retry_after_is_read_in_milliseconds_seconds_and_as_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after-ms", "250"), ("retry-after", "9")])), Some(Duration::from_millis(250)));
        assert_eq!(retry_after(&headers(&[("retry-after", "1.5")])), Some(Duration::from_millis(1_500)));
        let date = [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")];
        assert_eq!(retry_after(&headers(&date)), Some(Duration::from_secs(30)));
        let past = [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")];
        assert_eq!(retry_after(&headers(&past)), Some(Duration::ZERO));
        for nonsense in ["-1", "soon", "Sun, 99", "1e300"] {
            assert_eq!(retry_after(&headers(&[("retry-after", nonsense)])), None, "{nonsense}");
        }
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn a_delay_in_the_details_and_the_word_of_the_provider_are_heard() {
        let settings = Settings::default();
        let judge = |status: u16, pairs: &[(&'static str, &'static str)], body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            Faults { settings: &settings }.status(status, &headers(pairs), body.as_bytes())
        };
        let delayed = r#"{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED","details":[{"@type":"x"},{"retryDelay":"1.5s"}]}}"#;
        for body in [delayed.to_owned(), format!("[{delayed}]")] {
            let error = judge(429, &[], &body);
            assert!(
                matches!(error, ProviderError::Retryable { retry_after: Some(after), .. } if after == Duration::from_millis(1_500))
            );
        }
        assert!(matches!(judge(529, &[("x-should-retry", "false")], ""), ProviderError::Elsewhere(_)));
        assert!(matches!(judge(400, &[("x-should-retry", "true")], "{}"), ProviderError::Retryable { .. }));
        let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        assert!(matches!(judge(429, &[("x-should-retry", "true")], spent), ProviderError::Elsewhere(_)));
        let wrong_key =
            r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#;
        assert!(matches!(judge(400, &[], wrong_key), ProviderError::Elsewhere(failure) if failure.hint.contains("OPENAI_API_KEY")));
    }

    #[test]
    fn each_status_is_judged_by_whether_it_was_billed_and_whether_waiting_helps() {
        let settings = Settings::default();
        let faults = Faults { settings: &settings };
        let judge = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            match faults.status(status, &HeaderMap::new(), body.as_bytes()) {
                ProviderError::Retryable { failure, .. } => ("retryable", failure.code),
                ProviderError::Uncertain(failure) => ("uncertain", failure.code),
                ProviderError::Elsewhere(failure) => ("elsewhere", failure.code),
                ProviderError::Final(failure) => ("final", failure.code),
            }
        };
        for (status, body, expected) in [
            (429, "{}", ("retryable", Code::ModelFailed)),
            (429, r#"{"error":{"message":"no","code":"insufficient_quota"}}"#, ("elsewhere", Code::ModelRefused)),
            (500, "<html>", ("retryable", Code::ModelFailed)),
            (503, "", ("retryable", Code::ModelFailed)),
            (529, "", ("retryable", Code::ModelFailed)),
            (504, "", ("uncertain", Code::ModelFailed)),
            (401, "", ("elsewhere", Code::ModelRefused)),
            (403, "", ("elsewhere", Code::ModelRefused)),
            (404, "", ("elsewhere", Code::ModelRefused)),
            (400, r#"{"error":"bad schema"}"#, ("final", Code::ModelRefused)),
            (400, r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#, ("final", Code::ContextOverflow)),
            (413, "", ("final", Code::ContextOverflow)),
            (400, r#"{"error":{"message":"max_tokens is too large: 128000"}}"#, ("final", Code::ModelRefused)),
            (400, r#"{"error":{"message":"the schema of the tool `billing` is wrong"}}"#, ("final", Code::ModelRefused)),
            (302, "", ("elsewhere", Code::ModelGarbage)),
        ] {
            assert_eq!(judge(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn limits_and_what_speaks_of_the_model_are_the_models_and_a_server_that_fails_is_the_providers() {
        let settings = Settings::default();
        let faults = Faults { settings: &settings };
        let judge = |status: u16, message: &str| {
            let (status, body) =
                (StatusCode::from_u16(status).expect("a status"), serde_json::json!({"error": {"message": message}}));
            match faults.status(status, &HeaderMap::new(), body.to_string().as_bytes()) {
                ProviderError::Retryable { scope, .. } => scope,
                other => panic!("{other:?}"),
            }
        };
        for (status, message, expected) in [
            (429, "too many requests", FaultScope::Model),
            (409, "conflict", FaultScope::Model),
            (503, "The model is overloaded. Please try again later.", FaultScope::Model),
            (502, "Your chosen model is down or we received an invalid response from it", FaultScope::Model),
            (500, "model requires more system memory (9.1 GiB) than is available (7.3 GiB)", FaultScope::Model),
            (503, "upstream connect error", FaultScope::Provider),
            (500, "internal error", FaultScope::Provider),
            (529, "Overloaded", FaultScope::Provider),
        ] {
            assert_eq!(judge(status, message), expected, "{status} {message}");
        }
    }

    /// Each as its service was seen to say it.
    #[test]
    fn every_services_words_for_a_prompt_too_long_are_an_overflow_whole_and_in_a_stream() {
        let settings = Settings::default();
        let faults = Faults { settings: &settings };
        for (kind, message) in [
            ("model_max_prompt_tokens_exceeded", "prompt token count of 138898 exceeds the limit of 64000"),
            ("", "prompt token count of 146270 exceeds the limit of 128000"),
            ("invalid_parameter_error", "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 204800]"),
            ("", "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length"),
            ("ValidationException", "Input is too long for requested model."),
            ("1261", "Prompt exceeds max length"),
            ("BadRequestError", "The decoder prompt (length 163840) is longer than the maximum model length of 131072."),
            ("BadRequestError", "The input (233781 tokens) is longer than the model's context length (202752 tokens)."),
            ("", "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
        ] {
            let body = serde_json::json!({"error": {"message": message, "code": kind}}).to_string();
            let quoted =
                serde_json::json!({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": body}}});
            let [whole, quoted] =
                [body, quoted.to_string()].map(|body| faults.status(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes()));
            let error = WireError { message: message.to_owned(), kind: kind.to_owned(), ..WireError::default() };
            let streamed = faults.decode(DecodeError::Reported(error), Progress::Nothing);
            for judged in [whole, quoted, streamed] {
                assert!(matches!(&judged, ProviderError::Final(failure) if failure.code == Code::ContextOverflow), "{judged:?}");
            }
        }
    }

    /// Each as its service was seen to say it.
    #[test]
    fn every_services_words_for_an_account_without_credit_send_the_request_elsewhere_whole_and_in_a_stream() {
        let settings = Settings { base_url: "https://api.example/v1".to_owned(), ..Settings::default() };
        let faults = Faults { settings: &settings };
        let low = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.";
        let team = "Your team 1 has either used all available credits or reached its monthly spending limit.";
        let out = "You exceeded your current quota, please check your plan and billing details.";
        for (status, kind, message) in [
            (400, "invalid_request_error", low),
            (400, "invalid_request_error", "You have reached your specified API usage limits."),
            (402, "billing_error", "There is an issue with billing."),
            (429, "rate_limit_error enforced_spend_limit_reached", "This request would exceed the spend limit."),
            (400, "billing_hard_limit_reached", "Billing hard limit has been reached."),
            (429, "insufficient_quota", out),
            (429, "billing_not_active", "Your account is not active, please check your billing details on our website."),
            (429, "organization_spend_limit_exceeded", "no"),
            (400, "Arrearage", "Access denied, please make sure your account is in good standing."),
            (403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
            (403, "", team),
            (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
            (429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap."),
            (402, "", "Insufficient Balance"),
            (429, "exceeded_current_quota_error", "Your account is suspended due to insufficient balance."),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let body = serde_json::json!({"error": {"message": message, "type": kind}}).to_string();
            let quoted = serde_json::json!({"error": {"message": "Provider returned error", "metadata": {"raw": body}}});
            let flat = serde_json::json!({"code": kind, "message": message});
            let [whole, quoted, flat] =
                [body, quoted.to_string(), flat.to_string()].map(|body| faults.status(status, &HeaderMap::new(), body.as_bytes()));
            let error = WireError { message: message.to_owned(), kind: kind.to_owned(), status: Some(status.as_u16()) };
            let streamed = faults.decode(DecodeError::Reported(error), Progress::Nothing);
            for judged in [whole, quoted, flat, streamed] {
                let ProviderError::Elsewhere(failure) = judged else { panic!("{status} {kind} {message}: {judged:?}") };
                let hint = "the account at api.example has no credit or quota left: add credit or raise its limit there; waiting does \
                            not help";
                assert_eq!((failure.code, failure.hint.as_str()), (Code::ModelRefused, hint), "{message}");
            }
        }
        // Gemini says it of a minute's limit, which passes.
        let minute = serde_json::json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": out}}).to_string();
        let judged = faults.status(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), minute.as_bytes());
        assert!(matches!(judged, ProviderError::Retryable { .. }), "{judged:?}");
    }

    #[test]
    fn a_key_quoted_by_the_provider_is_masked() {
        let settings = Settings { key: crate::ApiKey::new("sk-quoted"), ..Settings::default() };
        let body = br#"{"error":{"message":"wrong key sk-quoted"}}"#;
        let error = Faults { settings: &settings }.status(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body);
        assert_eq!(error.failure().message, "openai answered 401: wrong key [key]");
        assert_eq!(
            error.failure().hint,
            "set OPENAI_API_KEY to a key that api.openai.com accepts, then `helix down`: the next command starts a node that has it"
        );
    }
}
