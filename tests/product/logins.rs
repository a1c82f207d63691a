//! `helix login` against a login server on the loopback: the code is shown, waited for, stored, used, and forgotten.

#[path = "../../adapters/models/tests/support/mod.rs"]
mod upstream;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use self::upstream::{Server, json_response, serve_by};
use crate::command_line::{Person, json as answer, refusal};
use crate::harness::{Signal, send};

/// A login server that has the code typed after `pending` polls.
async fn login_server(pending: usize) -> Server {
    serve_by(move |at, _| match at {
        0 => json_response(
            "200 OK",
            &json!({"device_code": "dev-1", "user_code": "ABCD-EFGH", "verification_uri": "https://example.org/device", "expires_in": 600, "interval": 1}),
        ),
        at if at <= pending => json_response("400 Bad Request", &json!({"error": "authorization_pending"})),
        _ => json_response("200 OK", &json!({"access_token": "at-secret", "refresh_token": "rt-secret", "expires_in": 3_600})),
    })
    .await
}

fn person(server: &Server) -> Person {
    let person = Person::new();
    let host = server.base_url.trim_end_matches("/v1");
    let place = json!({"device_url": format!("{host}/device"), "token_url": format!("{host}/token")});
    let config = json!({
        "workers": {"local": 0},
        "llm": {"providers": {
            "copilot": {"kind": "copilot", "key_env": "", "client_id": "client-1", "login": place},
            "qwen": {"kind": "qwen", "key_env": "", "client_id": "client-2", "login": place},
            "nameless": {"kind": "qwen", "key_env": ""},
            "keyed": {"kind": "xai"},
        }},
    });
    std::fs::write(person.folder.path().join("helix.yaml"), config.to_string()).expect("the folder is writable");
    person
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Types it beside the server, which needs this thread's runtime.
async fn types(person: &Person, arguments: &[&str]) -> std::process::Output {
    let mut command = person.command(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_by_typing_a_code_and_is_forgotten_again() {
    for provider in ["copilot", "qwen"] {
        let server = login_server(1).await;
        let person = person(&server);
        let login = types(&person, &["login", provider]).await;
        let said = String::from_utf8_lossy(&login.stderr).into_owned();
        assert_eq!(login.status.code(), Some(0), "{said}");
        assert!(said.contains("open https://example.org/device") && said.contains("ABCD-EFGH"), "{said}");
        assert!(said.contains(&format!("logged in to {provider}")) && !said.contains("secret"), "{said}");
        let seen = server.requests.lock().await.len();
        assert_eq!(seen, 3, "one code, two polls");

        let listed = answer(&types(&person, &["login", "--list", "--json"]).await);
        let of = |name: &str| listed.as_array().expect("a list").iter().find(|entry| entry["provider"] == name).cloned();
        let entry = of(provider).expect("it is listed");
        assert_eq!((&entry["logged_in"], &entry["refreshed"], &entry["reason"]), (&json!(true), &json!(true), &json!("")));
        assert_eq!(of("nameless").expect("listed")["reason"], "needs a client id: llm.providers.nameless.client_id");
        assert_eq!(of("keyed"), None, "a key is all there is");

        let out = types(&person, &["logout", provider, "--json"]).await;
        assert_eq!(answer(&out)["logged_out"], provider);
        assert_eq!(refusal(&types(&person, &["logout", provider, "--json"]).await), (Some(3), "not_found".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_the_code_and_the_end_as_lines_and_refusals_have_a_code() {
    let server = login_server(0).await;
    let person = person(&server);
    let login = types(&person, &["login", "qwen", "--json"]).await;
    let said = lines(&login.stdout);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!((&said[0]["event"], &said[0]["user_code"]), (&json!("code"), &json!("ABCD-EFGH")));
    assert_eq!((&said[1]["event"], &said[1]["provider"]), (&json!("logged_in"), &json!("qwen")));
    assert!(!String::from_utf8_lossy(&login.stdout).contains("secret"));

    for (provider, expected) in
        [("keyed", (2, "invalid_request")), ("nameless", (2, "invalid_config")), ("nobody", (3, "not_found"))]
    {
        let refused = refusal(&types(&person, &["login", provider, "--json"]).await);
        assert_eq!(refused, (Some(expected.0), expected.1.to_owned()), "{provider}");
    }
}

/// The code of the first line that a login says.
fn first_line(child: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_given_up_stores_nothing() {
    let server = login_server(usize::MAX).await;
    let person = person(&server);
    let mut command = person.command(&["login", "copilot", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let child = tokio::task::spawn_blocking(move || {
        assert_eq!(first_line(&mut child)["event"], "code");
        send(child.id(), Signal::INT);
        let status = child.wait().expect("it ends");
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (status, said)
    });
    let (status, said) = child.await.expect("no panic");
    let failure: Value = serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((status.code(), &failure["error"]["code"]), (Some(4), &json!("cancelled")));
    let listed = answer(&types(&person, &["login", "--list", "--json"]).await);
    assert!(listed.as_array().expect("a list").iter().all(|entry| entry["logged_in"] == json!(false)), "{listed}");
}
