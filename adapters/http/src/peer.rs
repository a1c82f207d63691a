//! Who is at the other end of the socket: the kernel says so (SO_PEERCRED), no token is needed.

use std::any::Any;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest};
use helix_protocol::{Code, Failure, Principal};

use crate::problem::Problem;

/// The user at the other end; `None` where the kernel did not say.
#[derive(Clone, Copy, Debug)]
struct Peer(Option<u32>);

/// Notes the user when a connection is accepted.
pub(crate) fn note(io: &dyn Any, connection: &mut Extensions) {
    let credentials = io.downcast_ref::<tokio::net::UnixStream>().and_then(|stream| stream.peer_cred().ok());
    connection.insert(Peer(credentials.map(|credentials| credentials.uid())));
}

/// Lets through the user the node runs as, and root.
pub(crate) async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let own = rustix::process::getuid().as_raw();
    match request.conn_data::<Peer>() {
        Some(Peer(Some(uid))) if *uid == own || *uid == 0 => {
            tracing::debug!(method = %request.method(), path = request.path(), "request");
            next.call(request).await.map(ServiceResponse::map_into_boxed_body)
        }
        _ => {
            let failure = Failure::new(Code::Forbidden, "this socket belongs to another user")
                .hint("run the command as the user the node runs as");
            Err(Problem::from(failure).into())
        }
    }
}

/// On whose behalf a request is made: the person at this machine, by the program that the header names.
pub(crate) fn principal(request: &HttpRequest) -> Principal {
    let named = request.headers().get("x-helix-actor").and_then(|value| value.to_str().ok());
    let fits = |name: &&str| !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_graphic());
    Principal::local(named.filter(fits).unwrap_or("api"))
}
