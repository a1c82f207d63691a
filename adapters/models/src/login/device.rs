//! The device flow of RFC 8628: a code for a person, and polling until it was typed.

use std::time::Duration;

use helix_protocol::{Code, Failure};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::lease::wall;
use super::store::StoredToken;
use crate::Settings;
use crate::connection::{client, whole};

/// How long one request to a login server may take, and how much it may answer.
const REQUEST: Duration = Duration::from_secs(30);
const ANSWER_BYTES: usize = 256 * 1024;

/// Where to log in, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEndpoint {
    /// The provider's name in the configuration.
    pub name: String,
    /// Gives codes.
    pub device_url: String,
    /// Gives tokens, and refreshes them.
    pub token_url: String,
    /// The program, as the service knows it.
    pub client_id: String,
    /// What the token shall be good for.
    pub scope: String,
    /// Whether the service takes a proof key.
    pub pkce: bool,
}

impl DeviceEndpoint {
    /// The code host's, for Copilot. `host` is `https://github.com`, or a company's own.
    pub fn github(name: &str, host: &str, client_id: &str) -> Self {
        let host = host.trim_end_matches('/');
        Self {
            name: name.to_owned(),
            device_url: format!("{host}/login/device/code"),
            token_url: format!("{host}/login/oauth/access_token"),
            client_id: client_id.to_owned(),
            scope: "read:user".to_owned(),
            pkce: false,
        }
    }
}

/// A person is asked to type a code.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The code.
    pub user_code: String,
    /// The page to type it on.
    pub verification_uri: String,
    /// The page with the code in its address, where there is one.
    pub verification_uri_complete: Option<String>,
    /// The code is good for so long.
    pub expires_in: Duration,
    /// Between two polls.
    pub interval: Duration,
    device_code: String,
    verifier: Option<String>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("verification_uri", &self.verification_uri).finish_non_exhaustive()
    }
}

/// What a poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nobody has typed the code yet.
    Pending,
    /// The same, and the server wants to be asked less often.
    SlowDown,
    /// The token.
    Granted(StoredToken),
}

/// A login by the device flow.
#[derive(Clone, Debug)]
pub struct DeviceLogin {
    endpoint: DeviceEndpoint,
    client: Client,
}

impl DeviceLogin {
    /// At `endpoint`. Nothing is sent yet. Refused with `invalid_config` where there is no client id, or an address is none.
    pub fn new(endpoint: DeviceEndpoint) -> Result<Self, Failure> {
        if endpoint.client_id.is_empty() {
            return Err(Failure::new(Code::InvalidConfig, format!("there is no client id to log in to {} with", endpoint.name))
                .hint(format!("register a client at the service and name it as llm.providers.{}.client_id", endpoint.name)));
        }
        for url in [&endpoint.device_url, &endpoint.token_url] {
            let valid = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !valid {
                return Err(Failure::new(Code::InvalidConfig, format!("the login address of {} is not a URL", endpoint.name)));
            }
        }
        let client = token_client(&endpoint.token_url)?;
        Ok(Self { endpoint, client })
    }

    /// Asks for a code to show.
    pub async fn begin(&self) -> Result<Invitation, Failure> {
        let verifier = self.endpoint.pkce.then(new_verifier).transpose()?;
        let mut form = vec![("client_id", self.endpoint.client_id.as_str()), ("scope", self.endpoint.scope.as_str())];
        let challenge = verifier.as_deref().map(challenge_of);
        if let Some(challenge) = &challenge {
            form.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")]);
        }
        let answer = post_form(&self.client, &self.endpoint.name, &self.endpoint.device_url, &form).await?;
        self.invited(&answer, verifier)
    }

    pub(crate) fn invited(&self, answer: &Value, verifier: Option<String>) -> Result<Invitation, Failure> {
        let word = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
        // Nobody waits longer than a day, whatever a server says.
        let seconds =
            |field: &str| answer.get(field).and_then(Value::as_u64).map(|seconds| Duration::from_secs(seconds.min(86_400)));
        let missing = || self.refused(answer, "it gave no code");
        Ok(Invitation {
            user_code: word("user_code").ok_or_else(missing)?,
            verification_uri: word("verification_uri").or_else(|| word("verification_url")).ok_or_else(missing)?,
            verification_uri_complete: word("verification_uri_complete"),
            expires_in: seconds("expires_in").unwrap_or(Duration::from_secs(900)),
            // Five seconds where nothing is said, by the RFC.
            interval: seconds("interval").filter(|interval| !interval.is_zero()).unwrap_or(Duration::from_secs(5)),
            device_code: word("device_code").ok_or_else(missing)?,
            verifier,
        })
    }

    /// Asks once whether the code was typed. Refused where it was denied or is too old.
    pub async fn poll(&self, invitation: &Invitation) -> Result<Polled, Failure> {
        let mut form = vec![
            ("client_id", self.endpoint.client_id.as_str()),
            ("device_code", invitation.device_code.as_str()),
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ];
        form.extend(invitation.verifier.as_deref().map(|verifier| ("code_verifier", verifier)));
        let answer = post_form(&self.client, &self.endpoint.name, &self.endpoint.token_url, &form).await?;
        self.polled(&answer)
    }

    pub(crate) fn polled(&self, answer: &Value) -> Result<Polled, Failure> {
        if let Some(token) = token_in(answer, None) {
            return Ok(Polled::Granted(token));
        }
        let name = &self.endpoint.name;
        match answer.get("error").and_then(Value::as_str) {
            Some("authorization_pending") => Ok(Polled::Pending),
            Some("slow_down") => Ok(Polled::SlowDown),
            Some("access_denied") => Err(Failure::new(Code::ModelRefused, format!("the login to {name} was denied"))
                .hint("begin again, and allow it on the page")),
            Some("expired_token") => Err(self.too_late()),
            _ => Err(self.refused(answer, "it gave neither a token nor a reason")),
        }
    }

    /// Polls until the code was typed, was denied, or is too old. Dropping the future ends it.
    pub async fn wait(&self, invitation: &Invitation) -> Result<StoredToken, Failure> {
        let mut interval = invitation.interval;
        let polling = async {
            loop {
                tokio::time::sleep(interval).await;
                match self.poll(invitation).await {
                    Ok(Polled::Granted(token)) => return Ok(token),
                    Ok(Polled::Pending) => {}
                    // By five seconds, for this and all later ones, says the RFC.
                    Ok(Polled::SlowDown) => interval += Duration::from_secs(5),
                    // The network may come back; by the RFC one backs off.
                    Err(failure) if failure.code == Code::ModelFailed => interval *= 2,
                    Err(failure) => return Err(failure),
                }
            }
        };
        match tokio::time::timeout(invitation.expires_in, polling).await {
            Ok(result) => result,
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Failure {
        Failure::new(Code::ModelRefused, format!("the code for {} was not typed in time", self.endpoint.name)).hint("begin again")
    }

    fn refused(&self, answer: &Value, otherwise: &str) -> Failure {
        refusal(&self.endpoint.name, answer, otherwise)
    }
}

/// A client for a login server.
pub(super) fn token_client(url: &str) -> Result<Client, Failure> {
    let settings = Settings { base_url: url.to_owned(), ..Settings::default() };
    client(&settings).map_err(|error| {
        Failure::new(Code::InvalidConfig, format!("no connection can be made: {}", error.without_url()))
            .hint("check the system's certificates")
    })
}

/// A login server's own words for a refusal.
pub(super) fn refusal(name: &str, answer: &Value, otherwise: &str) -> Failure {
    let word = |field: &str| answer.get(field).and_then(Value::as_str);
    let said: String = word("error_description").or_else(|| word("error")).unwrap_or(otherwise).chars().take(300).collect();
    Failure::new(Code::ModelRefused, format!("the login server of {name} refuses: {said}"))
        .hint(format!("check the client id of {name}, and log in again"))
}

/// Posts a form; the answer is JSON whatever its status, because some servers refuse with 200 and others with 400.
pub(super) async fn post_form(client: &Client, name: &str, url: &str, form: &[(&str, &str)]) -> Result<Value, Failure> {
    let call = client.post(url).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    ask(name, call.body(encode_form(form))).await
}

/// Sends a request to a login server and reads its answer.
pub(super) async fn ask(name: &str, call: reqwest::RequestBuilder) -> Result<Value, Failure> {
    let failed =
        |what: String| Failure::new(Code::ModelFailed, format!("the login server of {name} {what}")).hint("check the network");
    let work = async {
        let response = call.send().await.map_err(|error| failed(format!("cannot be reached: {}", error.without_url())))?;
        let status = response.status().as_u16();
        if status >= 500 || status == 429 {
            return Err(failed(format!("answered {status}")));
        }
        let body = whole(response, REQUEST, ANSWER_BYTES).await.map_err(|error| failed(format!("broke off: {error}")))?;
        let value: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        value.ok_or_else(|| {
            Failure::new(Code::ModelGarbage, format!("the login server of {name} answered {status} and no JSON"))
                .hint("check its address; something between may have answered")
        })
    };
    match tokio::time::timeout(REQUEST, work).await {
        Ok(result) => result,
        Err(_) => Err(failed(format!("did not answer within {} s", REQUEST.as_secs()))),
    }
}

/// The token in an answer. A server that gives no new refresh token means the old one to stay.
pub(super) fn token_in(answer: &Value, refresh: Option<&str>) -> Option<StoredToken> {
    let word = |field: &str| answer.get(field).and_then(Value::as_str).filter(|word| !word.is_empty());
    let lifetime = answer.get("expires_in").and_then(Value::as_i64);
    Some(StoredToken {
        access: word("access_token")?.to_owned(),
        refresh: word("refresh_token").or(refresh).map(str::to_owned),
        expires_at: lifetime.map(|seconds| wall().saturating_add(seconds)),
    })
}

fn encode_form(form: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

/// 43 to 128 characters that nobody can guess; see RFC 7636, section 4.1.
fn new_verifier() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(Code::StorageFailed, "the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The hash of a verifier, in base64 without padding and with the signs of URLs; section 4.2.
pub(super) fn challenge_of(verifier: &str) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let hash = digest(&SHA256, verifier.as_bytes());
    let mut out = String::new();
    for chunk in hash.as_ref().chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for sign in 0..=chunk.len() {
            out.push(char::from(SIGNS[(bits >> (18 - 6 * sign) & 63) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_key_hashes_as_in_appendix_b_of_the_rfc() {
        assert_eq!(challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let verifier = new_verifier().expect("random numbers");
        assert!(verifier.len() == 64 && verifier != new_verifier().expect("random numbers"));
    }

    #[test]
    fn a_form_is_escaped() {
        assert_eq!(encode_form(&[("scope", "read:user a&b"), ("x", "ä")]), "scope=read%3Auser+a%26b&x=%C3%A4");
    }

    #[test]
    fn without_a_client_id_nothing_is_begun() {
        let failure = DeviceLogin::new(DeviceEndpoint::github("copilot", "https://github.com", "")).expect_err("no id");
        assert_eq!(failure.hint, "register a client at the service and name it as llm.providers.copilot.client_id");
    }
}
