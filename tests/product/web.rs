//! An agent with a grant for one host: what it gets, finds, and is refused.

use std::sync::Arc;

use helix_protocol::{AgentSpec, TaskSpec, TaskWork};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Setup, scenario, transcript};

/// What was asked of a site, in order.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// A page, a search, and a page that sends on to a host that nobody granted.
pub async fn site() -> (u16, Asked) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            noted.lock().push(path.to_owned());
            let (status, kind, body) = match path.split('?').next().unwrap_or_default() {
                "/page" => ("200 OK", "text/html", "<h1>Pipes</h1><p>Words of a page.</p><script>no()</script>"),
                "/search" => (
                    "200 OK",
                    "application/json",
                    r#"{"results": [{"title": "A hit", "url": "https://a.example", "content": "its words"}]}"#,
                ),
                _ => ("302 Found", "text/plain", ""),
            };
            let to = format!("http://localhost:{port}/page");
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nlocation: {to}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // A client that went away is the test's own affair.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reaches_the_host_it_was_granted_and_no_other() {
    let (port, asked) = site().await;
    let fetch = |path: &str| json!({"tool": "web_fetch", "arguments": {"url": format!("http://127.0.0.1:{port}{path}")}});
    let turns = [
        json!({"text": "I look.", "calls": [fetch("/page"), {"tool": "web_search", "arguments": {"query": "pipes"}}]}),
        json!({"text": "I look elsewhere.", "calls": [fetch("/away")]}),
        json!({"text": "I have seen it."}),
    ];
    let setup = Setup::workers(1).model(transcript([scenario("pipes", turns)]));
    let product = setup.set("web.search", "searxng").set("web.search_url", format!("http://127.0.0.1:{port}")).start().await;
    let spec = AgentSpec { web_hosts: vec!["127.0.0.1".to_owned()], ..AgentSpec::new("read about pipes") };
    let task = product.create(TaskSpec::new("read", TaskWork::Agent(spec))).await;
    product.completed(task).await;
    let ends: Vec<bool> = product.steps(task).await.iter().map(|step| step.summary.contains("error")).collect();
    assert_eq!(ends, [false, true, false], "{:?}", product.steps(task).await);
    // Where the last page sends on to is this very site under a name that was not granted: it was not asked again.
    assert_eq!(*asked.lock(), ["/page", "/search?q=pipes&format=json", "/away"]);
}
