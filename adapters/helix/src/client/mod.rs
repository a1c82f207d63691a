//! The REST and SSE client of a node's socket.

mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use helix_adapter_http::api::ProblemDocument;
use helix_protocol::{Code, Failure};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use watch::{Hears, Watch};

use crate::node::DataFolder;

/// Longer than a mailbox hop, shorter than somebody's patience.
const QUICK: Duration = Duration::from_secs(30);

/// One node, over its socket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client of the node behind `socket`. Nothing is connected yet.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        // The client insists on a TLS provider although a socket has no TLS; somebody may have installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .tls_certs_only([])
            .no_proxy()
            .user_agent(concat!("helix/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(Code::Internal, format!("the client cannot be set up: {error}")))?;
        Ok(Self { http })
    }

    /// A client of the node on a data folder. Refused with `forbidden` where somebody else answers there than this user,
    /// root, or whom the folder belongs to: a socket may lie among everybody's temporary files. Nobody answering is
    /// found by the first request.
    pub fn of(folder: &DataFolder) -> Result<Self, Failure> {
        let socket = folder.socket();
        if let Ok(line) = UnixStream::connect(&socket) {
            let peer =
                rustix::net::sockopt::socket_peercred(&line).map_err(|error| Failure::io(socket.display(), &error.into()))?;
            let owner = std::fs::metadata(folder.root()).ok().map(|found| found.uid());
            let trusted = [Some(rustix::process::getuid().as_raw()), Some(0), owner];
            if !trusted.contains(&Some(peer.uid.as_raw())) {
                let message = format!("{} is answered by user {}, whose node this is not", socket.display(), peer.uid.as_raw());
                return Err(
                    Failure::new(Code::Forbidden, message).hint("`helix down` as the node's user, or another --data folder")
                );
            }
        }
        Self::new(&socket)
    }

    /// True where a node answers.
    pub async fn answers(&self) -> bool {
        self.get::<helix_adapter_http::api::Health>("/health").await.is_ok()
    }

    /// Reads a resource below `/api/v1`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(self.send(self.request(Method::GET, path).timeout(QUICK)).await?).await
    }

    /// Reads content as it is.
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let response = self.send(self.request(Method::GET, path)).await?;
        Ok(response.bytes().await.map_err(|error| unreachable_node(&error))?.into())
    }

    /// Reads a resource with a query.
    pub async fn query<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        decode(self.send(self.request(Method::GET, path).query(query).timeout(QUICK)).await?).await
    }

    /// Asks for something that may take as long as it takes (a step boundary, an installation, an import).
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        decode(self.send(self.request(Method::POST, path).json(body)).await?).await
    }

    /// The same, harmless when repeated: an answer that was lost is asked for once more.
    pub async fn post_once<T: DeserializeOwned>(&self, path: &str, key: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = || self.request(Method::POST, path).header("idempotency-key", key).json(body);
        match self.send(request()).await {
            Err(failure) if failure.code == Code::NodeUnreachable => decode(self.send(request()).await?).await,
            answer => decode(answer?).await,
        }
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path).query(query)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://node/api/v1{path}")).header("x-helix-actor", "cli")
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| unreachable_node(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.map_err(|error| unreachable_node(&error))?;
        Err(match serde_json::from_str::<ProblemDocument>(&text) {
            Ok(problem) => problem.into_failure(),
            Err(_) => {
                Failure::new(Code::Internal, format!("the node answered {status}: {}", text.chars().take(200).collect::<String>()))
                    .hint("node and command line may be of different versions: `helix status` and `helix --version` show them")
            }
        })
    }
}

async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let bytes = response.bytes().await.map_err(|error| unreachable_node(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(Code::Internal, format!("the node's answer is not understood: {error}"))
            .hint("node and command line may be of different versions: `helix status` and `helix --version` show them")
    })
}

fn unreachable_node(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::new(Code::TimedOut, "the node did not answer in time").hint("it may be busy; `helix status` says more");
    }
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    Failure::new(Code::NodeUnreachable, format!("no node answers: {reason}"))
        .hint("`helix up` starts one; `helix doctor` says what is in the way")
}

/// What somebody typed, as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
