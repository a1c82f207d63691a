//! Pages from a server of our own that misbehaves in every way a test needs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use helix_adapter_pages::{Endpoint, EndpointKind, Limits, Lookup, Pages};
use helix_ports::{WebAccess, WebHit};
use helix_protocol::{Code, Failure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where clouds keep their machines' secrets.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// A server that answers by the path; its head is handed to `answer` with the connection.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((HERE, 0)).await.expect("a free port");
        let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(stream));
            }
        });
        Self { address, asked }
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }
}

async fn answer(mut stream: TcpStream) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let port = stream.local_addr().expect("connected").port();
    let whole = |status: &str, kind: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let to = |target: &str| format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let said = match path.split('?').next().unwrap_or_default() {
        "/page" => whole("200 OK", "text/html", "<h1>Title</h1><p>Words</p>"),
        "/head" => whole("200 OK", "text/plain", &head),
        "/missing" => whole("404 Not Found", "text/plain", "no such page"),
        "/near" => to("/page"),
        "/forbidden" => to(&format!("http://other.test:{port}/page")),
        "/inside" => to(&format!("http://127.0.0.1:{port}/page")),
        "/metadata" => to("http://169.254.169.254/latest/meta-data"),
        "/file" => to("file:///etc/passwd"),
        "/circle" => to("/circle"),
        "/pdf" => whole("200 OK", "application/pdf", "%PDF-1.7"),
        "/packed" => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx".to_owned()
        }
        "/announced" => "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99999999999\r\n\r\n".to_owned(),
        "/search" => whole(
            "200 OK",
            "application/json",
            &format!(r#"{{"results": [{{"title": "T", "url": "https://a.example", "content": "{path}"}}]}}"#),
        ),
        "/huge" | "/drip" => {
            let (piece, pause) = if path == "/huge" { ("x".repeat(64 << 10), 0) } else { ("x".to_owned(), 100) };
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n").await;
            // Ends when the client goes away.
            while stream.write_all(piece.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            return;
        }
        _ => whole("500 Internal Server Error", "text/plain", "the test asks for no such page"),
    };
    let _ = stream.write_all(said.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Names of which none exists elsewhere; each look-up is counted, and `rebind.test` answers differently the second time.
fn names(count: Arc<AtomicUsize>) -> Lookup {
    Arc::new(move |name| {
        let before = count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match (name.as_str(), before) {
                ("rebind.test", 0) => Ok(vec![HERE]),
                ("rebind.test", _) | ("metadata.test", _) => Ok(vec![METADATA]),
                ("mixed.test", _) => Ok(vec![IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), METADATA]),
                ("here.test" | "other.test", _) => Ok(vec![HERE]),
                _ => Err(io::Error::other("no such name")),
            }
        })
    })
}

const LIMITS: Limits = Limits { time: Duration::from_secs(20), bytes: 256 << 10 };

fn pages() -> Pages {
    Pages::new(LIMITS, None).with_lookup(names(Arc::default()))
}

fn hosts(granted: &[&str]) -> Vec<String> {
    granted.iter().map(|host| (*host).to_owned()).collect()
}

async fn refused(url: &str, granted: &[&str]) -> Failure {
    pages().fetch(url, &hosts(granted)).await.expect_err("refused")
}

#[tokio::test]
async fn a_page_of_a_granted_host_is_text_and_its_status_is_told() {
    let server = Server::start().await;
    let granted = hosts(&["here.test", "127.0.0.1"]);
    let page = pages().fetch(&server.url("here.test", "/page"), &granted).await.expect("a page");
    assert_eq!((page.status, page.text.as_str()), (200, "# Title\n\nWords"));
    // The same name, written as names may be.
    assert_eq!(pages().fetch(&server.url("HERE.test.", "/page"), &granted).await, Ok(page));
    let page = pages().fetch(&server.url("here.test", "/near"), &granted).await.expect("a page");
    assert_eq!(page.text, "# Title\n\nWords");
    let page = pages().fetch(&server.url("here.test", "/missing"), &granted).await.expect("an answer");
    assert_eq!((page.status, page.text.as_str()), (404, "no such page"));
    let head = pages().fetch(&server.url("here.test", "/head"), &granted).await.expect("a page").text.to_lowercase();
    assert!(head.contains(&format!("host: here.test:{}", server.address.port())) && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn what_is_not_granted_is_not_even_looked_up() {
    let server = Server::start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let pages = Pages::new(LIMITS, None).with_lookup(names(Arc::clone(&count)));
    for url in
        [server.url("other.test", "/page"), server.url("127.0.0.1", "/page"), "file:///etc/passwd".to_owned(), "page".to_owned()]
    {
        let failure = pages.fetch(&url, &hosts(&["here.test"])).await.expect_err("refused");
        assert_eq!(failure.code, Code::InvalidRequest, "{url}: {failure}");
    }
    assert_eq!((count.load(Ordering::SeqCst), server.asked.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn every_redirection_is_held_against_the_grant() {
    let server = Server::start().await;
    for (path, word) in [
        ("/forbidden", "not a host that this task may reach"),
        ("/metadata", "not a host that this task may reach"),
        ("/file", "neither http nor https"),
        ("/circle", "redirections in a row"),
    ] {
        let failure = refused(&server.url("here.test", path), &["here.test", "127.0.0.1"]).await;
        assert!(failure.code == Code::InvalidRequest && failure.message.contains(word), "{path}: {failure}");
    }
    let asked = server.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 3 + 6, "one for each refused target, six for the circle");
}

#[tokio::test]
async fn an_address_of_a_private_network_is_reached_only_where_it_is_named_itself() {
    let server = Server::start().await;
    for (url, granted) in [
        (server.url("here.test", "/page"), &["here.test"][..]),
        ("http://metadata.test/latest".to_owned(), &["metadata.test", "127.0.0.1"]),
        // One good address among them does not excuse the other.
        ("http://mixed.test/".to_owned(), &["mixed.test"]),
    ] {
        let failure = refused(&url, granted).await;
        assert!(failure.message.contains("not an address of the public internet"), "{url}: {failure}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_answers_differently_the_second_time_changes_nothing() {
    let server = Server::start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let pages = Pages::new(LIMITS, None).with_lookup(names(Arc::clone(&count)));
    let granted = hosts(&["rebind.test", "127.0.0.1"]);
    // Looked up once, and that answer is where the connection goes.
    assert!(pages.fetch(&server.url("rebind.test", "/page"), &granted).await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // A redirection is another look-up, judged again.
    count.store(0, Ordering::SeqCst);
    let failure = pages.fetch(&server.url("rebind.test", "/near"), &granted).await.expect_err("refused");
    assert!(failure.message.contains("169.254.169.254"), "{failure}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_drip_and_a_body_without_end_are_bounded() {
    let server = Server::start().await;
    let granted = hosts(&["here.test", "127.0.0.1"]);
    let hasty = Pages::new(Limits { time: Duration::from_millis(700), ..LIMITS }, None).with_lookup(names(Arc::default()));
    let begin = Instant::now();
    let failure = hasty.fetch(&server.url("here.test", "/drip"), &granted).await.expect_err("refused");
    assert_eq!(failure.code, Code::TimedOut, "{failure}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    for path in ["/huge", "/announced"] {
        let failure = refused(&server.url("here.test", path), &["here.test", "127.0.0.1"]).await;
        assert_eq!(failure.code, Code::FileTooLarge, "{path}: {failure}");
    }
}

#[tokio::test]
async fn what_is_no_text_and_what_does_not_answer_is_told_with_the_next_step() {
    let server = Server::start().await;
    let granted = ["here.test", "gone.test", "127.0.0.1"];
    for (url, code) in [
        (server.url("here.test", "/pdf"), Code::InvalidRequest),
        (server.url("here.test", "/packed"), Code::InvalidRequest),
        ("http://gone.test/".to_owned(), Code::WebUnreachable),
        // A port of ours that nobody has is one from below those that are handed out.
        ("http://here.test:1/".to_owned(), Code::WebUnreachable),
    ] {
        let failure = refused(&url, &granted).await;
        assert_eq!(failure.code, code, "{url}: {failure}");
        assert!(!failure.hint.is_empty(), "{url}: {failure}");
    }
}

#[tokio::test]
async fn a_search_asks_the_endpoint_and_nothing_else() {
    let server = Server::start().await;
    let endpoint = Endpoint { kind: EndpointKind::Searxng, url: format!("http://{}/", server.address), key: None };
    let pages = Pages::new(LIMITS, Some(endpoint)).with_lookup(names(Arc::default()));
    assert!(pages.can_search());
    let expected = WebHit {
        title: "T".to_owned(),
        url: "https://a.example".to_owned(),
        excerpt: "/search?q=rust+%26+c&format=json".to_owned(),
    };
    assert_eq!(pages.search("rust & c").await, Ok(vec![expected]));
    assert_eq!(pages.search("  ").await.expect_err("refused").code, Code::InvalidRequest);
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    let none = self::pages();
    assert!(!none.can_search() && none.search("x").await.is_err());
}
