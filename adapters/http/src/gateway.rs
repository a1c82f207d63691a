//! The gateway: models under the addresses and in the formats that clients already speak.
//!
//! A request whose format is that of whoever answers it passes byte by byte, and so does the answer; any other is read into the
//! internal form and written back. Errors are in the client's own format. On the node's socket the person at the machine is known
//! by the kernel; over TCP every request needs a key (`keys`).

mod admin;
mod answer;
mod array;
mod bodies;
mod conversation;
mod document;
mod keys;
mod offered;
mod passing;
mod requests;
mod streaming;

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::web;
use helix_messages::{Models, Records, Spending};
use helix_ports::ClientFormat;
use helix_protocol::{Money, Most, WireFormat};
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub(crate) use admin::configure as configure_admin;
#[cfg(any(test, feature = "testing"))]
pub(crate) use array::array_of;
use bodies::Bodies;
#[cfg(any(test, feature = "testing"))]
pub(crate) use document::body_of;
use keys::Keys;
pub(crate) use offered::{is_of_a_format, nowhere};

/// How many names of models are remembered; clients may give any.
const UNRESERVED: usize = 1_024;

/// What the gateway is made of.
#[derive(Clone)]
pub struct GatewayArgs {
    /// Who answers.
    pub models: Models,
    /// Where keys and the ledger are.
    pub records: Records,
    /// What owners and projects may spend in a day.
    pub spending: Spending,
    /// The formats that clients may speak.
    pub formats: Vec<Arc<dyn ClientFormat>>,
    /// Largest request, in bytes.
    pub body_bytes: usize,
}

/// What every handler of the gateway has.
pub(crate) struct Gateway {
    pub models: Models,
    pub records: Records,
    pub keys: Keys,
    pub spending: Spending,
    /// Names of models for which no money is set aside, with what is known of it: nothing of those that are free.
    unreserved: Mutex<HashMap<String, Option<Money>>>,
    formats: Vec<Arc<dyn ClientFormat>>,
    bodies: Bodies,
    /// The node's own threads: connections to models belong to them.
    runtime: Handle,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever reached the socket was admitted already.
    Local,
    /// Whoever has a key.
    Keyed,
}

impl Gateway {
    /// Must be called inside the node's runtime.
    pub fn new(args: GatewayArgs) -> Self {
        let GatewayArgs { models, records, spending, formats, body_bytes } = args;
        Self {
            models,
            keys: Keys::new(records.clone()),
            records,
            spending,
            unreserved: Mutex::default(),
            formats,
            bodies: Bodies::new(body_bytes),
            runtime: Handle::current(),
        }
    }

    /// What a call of a model can take where only money is limited and none is set aside for it, as was noted. Prices are of the
    /// configuration, so this holds for as long as the node runs.
    fn unreserved(&self, model: &str) -> Option<Most> {
        self.unreserved.lock().get(model).map(|money| Most { money: *money, tokens: 0 })
    }

    /// Notes a model for which no money is set aside, so that the next request for it need not be read and counted before it passes.
    fn note_unreserved(&self, model: &str, money: Option<Money>) {
        let mut unreserved = self.unreserved.lock();
        if unreserved.len() >= UNRESERVED {
            unreserved.clear();
        }
        unreserved.insert(model.to_owned(), money);
    }

    /// The format that clients of an address speak.
    fn format(&self, wire: WireFormat) -> Option<&Arc<dyn ClientFormat>> {
        self.formats.iter().find(|format| format.wire() == wire)
    }
}

/// The gateway's addresses.
pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.route("/v1/chat/completions", web::post().to(requests::chat))
        .route("/v1/responses", web::post().to(requests::responses))
        .route("/v1/responses/input_tokens", web::post().to(requests::input_tokens))
        .route("/v1/messages", web::post().to(requests::messages))
        .route("/v1/messages/count_tokens", web::post().to(requests::count_tokens))
        .route("/api/chat", web::post().to(requests::ollama))
        .route("/api/generate", web::post().to(requests::ollama_prompt))
        .route("/api/show", web::post().to(requests::ollama_show))
        .route("/api/tags", web::get().to(offered::models))
        .route("/api/version", web::get().to(requests::ollama_version))
        .route("/v1/models", web::get().to(offered::models))
        .route("/v1beta/models", web::get().to(offered::models))
        .route("/v1/models/{called:.*}", web::get().to(offered::model))
        .route("/v1beta/models/{called:.*}", web::get().to(offered::model))
        .route("/v1/models/{called:.*}", web::post().to(requests::gemini))
        .route("/v1beta/models/{called:.*}", web::post().to(requests::gemini));
}
