//! Logins against a fake of a login server: the device flow, tokens at rest, and keys that expire under way.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use helix_adapter_models::chat::{ChatCompletions, encode_reply};
use helix_adapter_models::login::{
    CopilotCredentials, DeviceEndpoint, DeviceLogin, OauthCredentials, Polled, StoredToken, TokenStore,
};
use helix_adapter_models::servers::Copilot;
use helix_adapter_models::{ApiKey, Credentials, HttpProvider, Settings};
use helix_ports::{Provider, ProviderError};
use helix_protocol::{Block, Code, Message, ModelReply, ModelRequest, Role, StopReason, Usage};
use serde_json::{Value, json};
use support::{Request, Server, json_response, judged, serve, serve_by};
use tempfile::TempDir;

fn endpoint(server: &Server) -> DeviceEndpoint {
    let host = server.base_url.trim_end_matches("/v1");
    DeviceEndpoint {
        name: "qwen".to_owned(),
        device_url: format!("{host}/device"),
        token_url: format!("{host}/token"),
        client_id: "client-1".to_owned(),
        scope: "openid model".to_owned(),
        pkce: true,
    }
}

fn store() -> (TempDir, TokenStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = TokenStore::new(folder.path().join("logins"));
    (folder, store)
}

fn field(form: &Value, name: &str) -> Option<String> {
    let form = form.as_str()?;
    form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

fn invitation() -> Value {
    json!({"device_code": "dev-1", "user_code": "ABCD-EFGH", "verification_uri": "https://example.org/device", "expires_in": 600, "interval": 1})
}

fn answer_text() -> Value {
    let reply =
        ModelReply { model: "m".to_owned(), blocks: vec![Block::text("ok")], stop: StopReason::EndTurn, usage: Usage::default() };
    encode_reply(&reply, "id", 1)
}

fn request() -> ModelRequest {
    ModelRequest { model: Some("m".to_owned()), messages: vec![Message::text(Role::User, "go")], ..ModelRequest::default() }
}

fn settings(base_url: &str) -> Settings {
    Settings { name: "qwen".to_owned(), base_url: base_url.to_owned(), key_env: "NO_KEY".to_owned(), ..Settings::default() }
}

#[tokio::test]
async fn a_login_shows_a_code_waits_and_proves_its_key() {
    let server = serve_by(|at, _| match at {
        0 => json_response("200 OK", &invitation()),
        1 => json_response("400 Bad Request", &json!({"error": "authorization_pending"})),
        2 => json_response("200 OK", &json!({"error": "slow_down"})),
        _ => json_response("200 OK", &json!({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3_600})),
    })
    .await;
    let login = DeviceLogin::new(endpoint(&server)).expect("right");
    let invitation = login.begin().await.expect("a code");
    assert_eq!((invitation.user_code.as_str(), invitation.interval), ("ABCD-EFGH", Duration::from_secs(1)));
    assert_eq!(login.poll(&invitation).await, Ok(Polled::Pending));
    assert_eq!(login.poll(&invitation).await, Ok(Polled::SlowDown));
    match login.poll(&invitation).await {
        Ok(Polled::Granted(token)) => assert_eq!((token.access.as_str(), token.refresh.as_deref()), ("at-1", Some("rt-1"))),
        other => panic!("{other:?}"),
    }
    let seen = server.requests.lock().await;
    assert_eq!(field(&seen[0].1, "code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(field(&seen[0].1, "code_challenge").map(|challenge| challenge.len()), Some(43));
    assert_eq!(field(&seen[1].1, "code_verifier").map(|verifier| verifier.len()), Some(64));
    assert_eq!(field(&seen[1].1, "device_code").as_deref(), Some("dev-1"));
}

#[tokio::test]
async fn a_login_that_is_denied_or_too_late_says_so() {
    for (error, message) in [
        ("access_denied", "the login to qwen was denied"),
        ("expired_token", "the code for qwen was not typed in time"),
        ("invalid_client", "the login server of qwen refuses: invalid_client"),
    ] {
        let server = serve_by(move |at, _| match at {
            0 => json_response("200 OK", &invitation()),
            _ => json_response("400 Bad Request", &json!({ "error": error })),
        })
        .await;
        let login = DeviceLogin::new(endpoint(&server)).expect("right");
        let invitation = login.begin().await.expect("a code");
        let failure = login.poll(&invitation).await.expect_err("no token");
        assert_eq!((failure.code, failure.message.as_str()), (Code::ModelRefused, message));
    }
}

#[test]
fn a_token_at_rest_cannot_be_read_moved_or_changed() {
    let (_folder, store) = store();
    let token = StoredToken { access: "at-secret".to_owned(), refresh: Some("rt-secret".to_owned()), expires_at: Some(1) };
    assert_eq!(store.load("qwen"), Ok(None));
    store.save("qwen", &token).expect("saved");
    store.save("qwen", &token).expect("saved again");
    assert_eq!(store.names(), Ok(vec!["qwen".to_owned()]));
    assert_eq!(store.load("qwen"), Ok(Some(token.clone())));
    assert!(!format!("{token:?}").contains("secret"));
    let folder = _folder.path().join("logins");
    let file = folder.join("qwen.token");
    let bytes = std::fs::read(&file).expect("the file");
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    for path in [&file, &folder.join("key")] {
        assert_eq!(std::fs::metadata(path).expect("a file").permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    // Another's name, a changed byte, a cut file, a key that others can read.
    std::fs::copy(&file, folder.join("other.token")).expect("copied");
    assert_eq!(store.load("other").expect_err("moved").code, Code::StorageFailed);
    for spoilt in [[&bytes[..20], &[bytes[20] ^ 1], &bytes[21..]].concat(), bytes[..5].to_vec()] {
        std::fs::write(&file, spoilt).expect("written");
        assert_eq!(store.load("qwen").expect_err("changed").code, Code::StorageFailed);
    }
    std::fs::write(&file, &bytes).expect("written");
    std::fs::set_permissions(folder.join("key"), std::fs::Permissions::from_mode(0o644)).expect("set");
    assert!(store.load("qwen").expect_err("open to others").hint.starts_with("chmod 600 "));
    assert_eq!(store.load("../qwen").expect_err("outside").code, Code::InvalidRequest);
}

/// A service that takes only `good`, and whose login server gives `at-2` for the first refresh.
async fn service(good: &'static str) -> Server {
    serve_by(move |_, (head, _): &Request| {
        if head.starts_with("post /token ") {
            return json_response("200 OK", &json!({"access_token": "at-2", "expires_in": 3_600}));
        }
        match head.contains(&format!("authorization: bearer {good}\r\n")) {
            true => json_response("200 OK", &answer_text()),
            false => json_response("401 Unauthorized", &json!({"error": {"message": "token at-1 has expired"}})),
        }
    })
    .await
}

async fn calls_of(server: &Server) -> Vec<String> {
    let seen = server.requests.lock().await;
    seen.iter().map(|(head, _)| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_clock_that_jumped_over_the_expiry_costs_one_refresh_and_no_turn() {
    let server = service("at-2").await;
    let (_folder, store) = store();
    // By the wall clock this token is good for ever; the service has forgotten it.
    let token = StoredToken { access: "at-1".to_owned(), refresh: Some("rt-1".to_owned()), expires_at: Some(i64::MAX) };
    store.save("qwen", &token).expect("saved");
    let credentials = OauthCredentials::new(endpoint(&server), store.clone()).expect("right");
    let provider =
        HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("right").with_credentials(credentials);
    assert!(provider.is_available());
    for _ in 0..2 {
        assert_eq!(provider.generate(&request()).await.expect("an answer").blocks, [Block::text("ok")]);
    }
    let path = "/v1/chat/completions";
    assert_eq!(calls_of(&server).await, [path, "/token", path, path]);
    let kept = store.load("qwen").expect("readable").expect("there");
    assert_eq!((kept.access.as_str(), kept.refresh.as_deref()), ("at-2", Some("rt-1")), "the refresh token stays");
}

#[tokio::test]
async fn a_token_that_is_nearly_used_up_is_refreshed_before_it_is_sent() {
    let server = service("at-2").await;
    let (_folder, store) = store();
    let token = StoredToken { access: "at-1".to_owned(), refresh: Some("rt-1".to_owned()), expires_at: Some(1_000) };
    store.save("qwen", &token).expect("saved");
    let credentials = OauthCredentials::new(endpoint(&server), store).expect("right");
    let provider =
        HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("right").with_credentials(credentials);
    provider.generate(&request()).await.expect("an answer");
    assert_eq!(calls_of(&server).await, ["/token", "/v1/chat/completions"]);
}

/// A provider whose token the server no longer takes, and the folder that it is kept in.
fn about_to_refresh(server: &Server) -> (TempDir, HttpProvider) {
    let (folder, store) = store();
    let token = StoredToken { access: "at-1".to_owned(), refresh: Some("rt-1".to_owned()), expires_at: None };
    store.save("qwen", &token).expect("saved");
    let credentials = OauthCredentials::new(endpoint(server), store).expect("right");
    let provider = HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("right");
    (folder, provider.with_credentials(credentials))
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_not_tried_a_third_time_and_is_not_quoted() {
    let server = service("nothing").await;
    let (_folder, provider) = about_to_refresh(&server);
    assert_eq!(judged(provider.generate(&request()).await), ("elsewhere", Code::ModelRefused));
    assert_eq!(calls_of(&server).await.len(), 3);
}

#[tokio::test]
async fn many_calls_share_one_refresh() {
    let server = service("at-2").await;
    let (_folder, provider) = about_to_refresh(&server);
    let request = request();
    let answers = futures::future::join_all((0..8).map(|_| provider.generate(&request))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(calls_of(&server).await.iter().filter(|path| *path == "/token").count(), 1);
}

fn token(access: &str, refresh: &str) -> StoredToken {
    StoredToken { access: access.to_owned(), refresh: Some(refresh.to_owned()), expires_at: None }
}

#[tokio::test]
async fn a_new_login_is_used_from_the_next_call_on_and_after_a_logout_none() {
    let server = serve_by(|_, _: &Request| json_response("200 OK", &answer_text())).await;
    let (_folder, store) = store();
    store.save("qwen", &token("at-1", "rt-1")).expect("saved");
    let credentials = OauthCredentials::new(endpoint(&server), store.clone()).expect("right");
    let provider = HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("right");
    let provider = provider.with_credentials(credentials);
    provider.generate(&request()).await.expect("an answer");
    store.save("qwen", &token("at-9", "rt-9")).expect("saved");
    provider.generate(&request()).await.expect("an answer");
    assert!(store.remove("qwen").expect("removed"));
    assert_eq!(judged(provider.generate(&request()).await), ("elsewhere", Code::ModelUnavailable));
    let seen = server.requests.lock().await;
    let keys: Vec<_> = seen.iter().map(|(head, _)| head.lines().find_map(|line| line.strip_prefix("authorization: "))).collect();
    assert_eq!(keys, [Some("bearer at-1"), Some("bearer at-9")]);
}

#[tokio::test]
async fn a_new_github_login_is_exchanged_at_the_next_call() {
    let server =
        serve_by(|at, _: &Request| json_response("200 OK", &json!({"token": format!("cp-{at}"), "refresh_in": 1_500}))).await;
    let (_folder, store) = store();
    store.save("copilot", &token("gh-1", "")).expect("saved");
    let host = server.base_url.trim_end_matches("/v1").to_owned();
    let credentials = CopilotCredentials::new("copilot", None, Some(store.clone()), &host).expect("right");
    let key = async || credentials.access().await.expect("a token").key;
    assert_eq!([key().await, key().await], [ApiKey::new("cp-0"), ApiKey::new("cp-0")]);
    store.save("copilot", &token("gh-2", "")).expect("saved");
    assert_eq!(key().await, ApiKey::new("cp-1"));
    let head = server.requests.lock().await[1].0.clone();
    assert!(head.contains("authorization: token gh-2\r\n"), "{head}");
}

#[tokio::test]
async fn a_new_token_that_cannot_be_saved_is_used_refreshed_and_saved_later() {
    let (folder, store) = store();
    let (key, away) = (folder.path().join("logins/key"), folder.path().join("key"));
    let (broken, moved) = (key.clone(), away.clone());
    // Each refresh makes the one before void, and from the first one on nothing can be saved.
    let server = serve_by(move |at, (head, body): &Request| {
        if !head.starts_with("post /token ") {
            let good = ["bearer at-2\r\n", "bearer at-3\r\n"][usize::from(at > 3)];
            return match head.contains(good) {
                true => json_response("200 OK", &answer_text()),
                false => json_response("401 Unauthorized", &json!({"error": {"message": "expired"}})),
            };
        }
        match field(body, "refresh_token").as_deref() {
            Some("rt-1") => {
                std::fs::rename(&broken, &moved).and_then(|()| std::fs::create_dir(&broken)).expect("moved");
                json_response("200 OK", &json!({"access_token": "at-2", "refresh_token": "rt-2"}))
            }
            Some("rt-2") => json_response("200 OK", &json!({"access_token": "at-3", "refresh_token": "rt-3"})),
            other => panic!("{other:?}"),
        }
    })
    .await;
    store.save("qwen", &token("at-1", "rt-1")).expect("saved");
    let credentials = OauthCredentials::new(endpoint(&server), store.clone()).expect("right");
    let provider = HttpProvider::new(settings(&server.base_url), ChatCompletions::at("")).expect("right");
    let provider = provider.with_credentials(credentials);
    for _ in 0..3 {
        provider.generate(&request()).await.expect("an answer");
    }
    let call = "/v1/chat/completions";
    assert_eq!(calls_of(&server).await, [call, "/token", call, call, call, "/token", call]);
    std::fs::remove_dir(&key).and_then(|()| std::fs::rename(&away, &key)).expect("moved back");
    assert_eq!(store.load("qwen"), Ok(Some(token("at-1", "rt-1"))));
    provider.generate(&request()).await.expect("an answer");
    assert_eq!(store.load("qwen"), Ok(Some(token("at-3", "rt-3"))), "it is saved as soon as it can be");
}

#[test]
fn what_a_process_that_died_left_behind_is_in_nobodys_way() {
    let (folder, store) = store();
    store.save("qwen", &token("at-1", "rt-1")).expect("saved");
    std::fs::write(folder.path().join(format!("logins/.qwen.{}", std::process::id())), "cut").expect("written");
    store.save("qwen", &token("at-2", "rt-2")).expect("saved");
    assert_eq!(store.load("qwen"), Ok(Some(token("at-2", "rt-2"))));
}

#[tokio::test]
async fn without_a_login_nothing_is_sent_and_a_lost_one_says_how_to_get_another() {
    let server = serve(vec![json_response("400 Bad Request", &json!({"error": "invalid_grant"}))]).await;
    let (_folder, store) = store();
    let credentials = OauthCredentials::new(endpoint(&server), store.clone()).expect("right");
    assert!(!credentials.is_ready(""));
    assert_eq!(judged(credentials.access().await), ("elsewhere", Code::ModelUnavailable));
    let token = StoredToken { access: "at-1".to_owned(), refresh: Some("rt-1".to_owned()), expires_at: Some(0) };
    store.save("qwen", &token).expect("saved");
    match credentials.access().await {
        Err(ProviderError::Elsewhere(failure)) => assert_eq!(failure.hint, "run `helix login qwen` again"),
        other => panic!("{other:?}"),
    }
}

/// The code host's and Copilot's own server in one.
async fn copilot() -> Server {
    serve_by(|at, (head, _): &Request| {
        if head.starts_with("get /copilot_internal/v2/token ") {
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned();
            let good = head.contains("authorization: token gh-1\r\n");
            return match good {
                true => json_response("200 OK", &json!({
                    "token": format!("cp-{at}"), "expires_at": 1, "refresh_in": 1_500, "endpoints": {"api": format!("http://{host}/business")},
                })),
                false => json_response("401 Unauthorized", &json!({"message": "bad credentials gh-2"})),
            };
        }
        if head.starts_with("get /business/models ") {
            return json_response("200 OK", &json!({"data": []}));
        }
        match head.contains("authorization: bearer cp-0\r\n") {
            // The first token is good for one call.
            true if at == 2 => json_response("200 OK", &answer_text()),
            true => json_response("401 Unauthorized", &json!({"error": {"message": "expired"}})),
            false => json_response("200 OK", &answer_text()),
        }
    })
    .await
}

#[tokio::test]
async fn copilot_is_reached_where_the_token_says_with_its_headers_and_a_new_token_when_refused() {
    let server = copilot().await;
    let host = server.base_url.trim_end_matches("/v1").to_owned();
    let credentials = CopilotCredentials::new("copilot", ApiKey::new("gh-1"), None, &host).expect("right");
    let provider = HttpProvider::new(settings(&server.base_url), Copilot::default()).expect("right").with_credentials(credentials);
    for _ in 0..2 {
        provider.generate(&request()).await.expect("an answer");
    }
    let (token, models, call) = ("/copilot_internal/v2/token", "/business/models", "/business/chat/completions");
    assert_eq!(calls_of(&server).await, [token, models, call, call, token, call]);
    let head = server.requests.lock().await[2].0.clone();
    for header in ["copilot-integration-id: vscode-chat\r\n", "x-initiator: user\r\n", "editor-version: helix/"] {
        assert!(head.contains(header), "{header} in {head}");
    }
}

#[tokio::test]
async fn an_account_without_copilot_is_told_so_without_its_token() {
    let server = copilot().await;
    let host = server.base_url.trim_end_matches("/v1").to_owned();
    let credentials = CopilotCredentials::new("copilot", ApiKey::new("gh-2"), None, &host).expect("right");
    match credentials.access().await {
        Err(ProviderError::Elsewhere(failure)) => {
            assert_eq!(failure.message, "GitHub gives no token for copilot: bad credentials [key]");
        }
        other => panic!("{other:?}"),
    }
}
