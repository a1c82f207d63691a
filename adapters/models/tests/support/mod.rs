//! An upstream on the loopback that answers with exactly the bytes each test gives it, in the way in which networks fail.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use helix_adapter_models::{ApiKey, Settings};
use helix_ports::ProviderError;
use helix_protocol::Code;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// What the server does with a connection once it has read the request.
#[derive(Clone)]
pub enum Answer {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and then nothing, the connection open.
    Silence(Vec<u8>),
    /// Sends these bytes, one each time so much has passed.
    Drip(Vec<u8>, Duration),
}

/// A request as it came: its head in lower case; its body as JSON, or as a text where it is none.
pub type Request = (String, Value);

/// A provider of a server of one test, which gives up sooner than one in use.
pub fn settings(base_url: &str) -> Settings {
    Settings {
        name: "test".to_owned(),
        base_url: base_url.to_owned(),
        key_env: "TEST_KEY".to_owned(),
        key: ApiKey::new("sk-test"),
        model: "m".to_owned(),
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// A server of one test.
pub struct Server {
    pub base_url: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

/// A server that answers its first connection with the first answer, and so on; the last one again for ever.
pub async fn serve(answers: Vec<Answer>) -> Server {
    serve_by(move |at, _| answers[usize::min(at, answers.len() - 1)].clone()).await
}

/// A server whose answer depends on how many requests came before, and on the request.
pub async fn serve_by(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(connection(stream, Arc::clone(&answer), Arc::clone(&seen)));
        }
    });
    Server { base_url, requests }
}

async fn connection(
    mut stream: TcpStream,
    answer: Arc<impl Fn(usize, &Request) -> Answer + Send + Sync>,
    seen: Arc<Mutex<Vec<Request>>>,
) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().expect("a length"));
    while bytes.len() < head + length {
        assert_ne!(stream.read_buf(&mut bytes).await.expect("the body"), 0, "the request is whole");
    }
    let body = serde_json::from_slice(&bytes[head..])
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes[head..]).into_owned()));
    let request = (text, body);
    let answer = {
        let mut seen = seen.lock().await;
        let answer = answer(seen.len(), &request);
        seen.push(request);
        answer
    };
    match answer {
        Answer::Bytes(bytes) => {
            // A client that has seen enough may be gone already.
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
        }
        Answer::Silence(bytes) => {
            stream.write_all(&bytes).await.expect("sent");
            // Until the client gives up.
            stream.read_to_end(&mut Vec::new()).await.ok();
        }
        Answer::Drip(bytes, pause) => {
            for byte in bytes {
                tokio::time::sleep(pause).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
            stream.shutdown().await.ok();
        }
    }
}

/// A whole response.
pub fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

/// A response of JSON.
pub fn json_response(status: &str, body: &Value) -> Answer {
    Answer::Bytes(response(status, "content-type: application/json\r\n", &body.to_string()))
}

/// What comes before streamed events.
pub const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// Streamed events without names.
pub fn events(datas: &[String]) -> Vec<u8> {
    let body: String = datas.iter().map(|data| format!("data: {data}\n\n")).collect();
    format!("{EVENTS}{body}").into_bytes()
}

/// Streamed lines.
pub fn lines(lines: &[Value]) -> Vec<u8> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

/// The kind and the code of an error.
pub fn judged<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> (&'static str, Code) {
    match result.expect_err("an error") {
        ProviderError::Retryable { failure, .. } => ("retryable", failure.code),
        ProviderError::Uncertain(failure) => ("uncertain", failure.code),
        ProviderError::Elsewhere(failure) => ("elsewhere", failure.code),
        ProviderError::Final(failure) => ("final", failure.code),
    }
}

/// The port of a server that knows no TLS, and says so to whoever says anything.
pub async fn serve_plain() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // One piece of whatever it is.
            if stream.read(&mut [0; 4_096]).await.is_ok_and(|read| read > 0) {
                stream.write_all(&response("400 Bad Request", "", "")).await.ok();
            }
        }
    });
    port
}

/// The port of a TLS server with a certificate that nobody vouches for.
pub fn serve_untrusted() -> u16 {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let certificate = CertificateDer::from(include_bytes!("tls/nobody.crt.der").to_vec());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(include_bytes!("tls/nobody.key.der").to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate with its key");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            // The client refuses; whatever is left to be read says so.
            let _ = connection.complete_io(&mut stream);
        }
    });
    port
}
