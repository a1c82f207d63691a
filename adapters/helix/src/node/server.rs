//! The HTTP face as a child of the tree.
//!
//! Parent: the root. Restart: permanent, with a new socket each time. Nothing survives it: clients
//! reconnect and read what they missed from the records.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use helix_adapter_http::HttpArgs;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Shutdown, Work};
use helix_protocol::{Code, Failure};

/// What the server tells itself.
pub enum ServerMsg {
    /// The server ended by itself, which it should not.
    Ended(std::io::Result<()>),
}

/// Runs the HTTP server.
pub struct ServerActor;

/// What it needs.
pub struct ServerArgs {
    /// Where it listens.
    pub socket: PathBuf,
    /// What it serves.
    pub http: HttpArgs,
}

/// Dropping it ends the server.
pub struct ServerState {
    _work: Work<ServerMsg>,
    shutdown: Shutdown,
    socket: PathBuf,
}

impl Actor for ServerActor {
    type Msg = Admitted<ServerMsg>;
    type State = ServerState;
    type Arguments = ServerArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: ServerArgs) -> Result<ServerState, ActorProcessingErr> {
        let listener = listen(&args.socket)?;
        let shutdown = Shutdown::new();
        let mut work = Work::of(&myself);
        let stop = shutdown.clone();
        work.start(async move { ServerMsg::Ended(helix_adapter_http::serve(listener, args.http, stop).await) });
        Ok(ServerState { _work: work, shutdown, socket: args.socket })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, _: &mut ServerState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ServerMsg::Ended(Ok(())) => Err(Failure::new(Code::Internal, "the HTTP server ended by itself").into()),
            ServerMsg::Ended(Err(error)) => Err(Failure::new(Code::Internal, format!("the HTTP server failed: {error}")).into()),
        }
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut ServerState) -> Result<(), ActorProcessingErr> {
        state.shutdown.request();
        // A later node must not find a socket that nobody answers; that it is gone already is no error.
        let _ = std::fs::remove_file(&state.socket);
        Ok(())
    }
}

/// Binds the socket, readable and writable by this user only. One that a crash left behind is replaced: the data
/// folder's lock says that no other node uses it.
fn listen(socket: &Path) -> Result<UnixListener, Failure> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::io(socket.display(), &error)),
        _ => {}
    }
    let io = |error: std::io::Error| Failure::io(socket.display(), &error);
    let listener = UnixListener::bind(socket).map_err(io)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    Ok(listener)
}
