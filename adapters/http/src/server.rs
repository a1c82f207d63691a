//! The server: actix-web on its own threads, asking the node on the node's.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::rt::System;
use actix_web::{App, HttpServer, web};
use helix_kernel::Shutdown;
use helix_protocol::{Code, Failure};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::gateway::{self, Access, Gateway, GatewayArgs};
use crate::intake::Recent;
use crate::running::Running;
use crate::{HttpArgs, body, peer, routes};

/// Enough for a command line and some watchers; the work is done on the node's threads.
const WORKERS: usize = 2;
/// How long requests may go on once the node stops.
const GRACE_SECONDS: u64 = 5;

/// Longer than clients and proxies usually keep a connection that says nothing, so that it is they who close it.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What every handler has.
pub(crate) struct Node {
    pub args: HttpArgs,
    pub recent: Recent,
    pub running: Running,
    pub shutdown: Shutdown,
    runtime: Handle,
}

impl Node {
    /// Runs `work` on the node's own threads. Connections of a database pool belong to the runtime that opened them, so no
    /// request may touch one on the server's threads, which end with the server.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        match self.runtime.spawn(work).await {
            Ok(answer) => answer,
            Err(ended) if ended.is_cancelled() => Err(Failure::new(Code::ShuttingDown, "the node is stopping")),
            Err(ended) => Err(Failure::new(Code::Internal, format!("the request ended by a panic: {ended}"))),
        }
    }

    /// Starts something nobody waits for on the node's own threads.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

/// Ends the server's threads, and what listens for them, when its future is dropped.
struct EndOnDrop(Shutdown, AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.request();
        self.1.abort();
    }
}

/// Serves until `shutdown` is requested, then lets running requests end. Must be called inside the node's runtime. The
/// listener's file (made with mode 0600) is the caller's.
pub async fn serve(listener: UnixListener, args: HttpArgs, shutdown: Shutdown) -> io::Result<()> {
    let stop = shutdown.child();
    let running = Running::default();
    let listening = tokio::spawn(running.listen(&args.events));
    let gateway = web::Data::new(Gateway::new(GatewayArgs {
        models: args.models.clone(),
        records: args.records.clone(),
        spending: args.spending.clone(),
        formats: args.formats.clone(),
        body_bytes: args.gateway_bytes,
    }));
    let public = args.gateway.map(TcpListener::bind).transpose()?;
    let node =
        web::Data::new(Node { args, recent: Recent::default(), running, shutdown: stop.clone(), runtime: Handle::current() });
    let guard = EndOnDrop(stop.clone(), listening.abort_handle());
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        // Nobody listens only where the future was dropped, and then the answer has no reader.
        let _ = ended.send(System::new().block_on(run(listener, public, node, gateway, stop)));
    })?;
    let answer = end.await.unwrap_or_else(|_| Err(io::Error::other("the server's thread ended by a panic")));
    drop(guard);
    answer
}

/// Serves the gateway alone, over TCP, until `shutdown` is requested. Must be called inside the node's runtime.
pub async fn serve_gateway(listener: TcpListener, args: GatewayArgs, shutdown: Shutdown) -> io::Result<()> {
    let (gateway, stop) = (web::Data::new(Gateway::new(args)), shutdown.child());
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("gateway".to_owned()).spawn(move || {
        // Nobody listens only where the future was dropped, and then the answer has no reader.
        let _ = ended.send(System::new().block_on(run_public(listener, gateway, stop)));
    })?;
    end.await.unwrap_or_else(|_| Err(io::Error::other("the gateway's thread ended by a panic")))
}

async fn run_public(listener: TcpListener, gateway: web::Data<Gateway>, stop: Shutdown) -> io::Result<()> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(gateway.clone())
            .app_data(web::Data::new(Access::Keyed))
            .configure(gateway::configure)
            .default_service(web::to(gateway::nowhere))
    })
    .workers(WORKERS)
    // A piece of an answer must not wait until the client has confirmed the piece before it.
    .tcp_nodelay(true)
    .h1_allow_half_closed(false)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(GRACE_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    until_stopped(server, stop).await
}

async fn run(
    listener: UnixListener,
    public: Option<TcpListener>,
    node: web::Data<Node>,
    gateway: web::Data<Gateway>,
    stop: Shutdown,
) -> io::Result<()> {
    if let Some(public) = public {
        actix_web::rt::spawn(run_public(public, gateway.clone(), stop.clone()));
    }
    let server = HttpServer::new(move || {
        App::new()
            .app_data(node.clone())
            .app_data(gateway.clone())
            .app_data(web::Data::new(Access::Local))
            .app_data(web::PayloadConfig::new(body::LIMIT))
            .wrap(from_fn(peer::admit))
            .configure(routes::configure)
    })
    .workers(WORKERS)
    .on_connect(peer::note)
    // A watcher that goes away must be noticed although nothing is being written to it.
    .h1_allow_half_closed(false)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(GRACE_SECONDS)
    .disable_signals()
    .listen_uds(listener)?
    .run();
    until_stopped(server, stop).await
}

async fn until_stopped(server: Server, stop: Shutdown) -> io::Result<()> {
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        stop.requested().await;
        handle.stop(true).await;
    });
    server.await
}
