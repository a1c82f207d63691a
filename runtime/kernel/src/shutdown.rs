//! How a process is told to stop: in order, or at once.

use helix_protocol::{Code, Failure};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A wish to stop that everybody below hears. Cheap to clone.
///
/// It has two degrees. A *request* asks for an orderly end: take no new work, park what runs, leave.
/// A *force* asks for the quickest end that loses nothing committed; it implies the request.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    forced: CancellationToken,
}

impl Shutdown {
    /// Nobody wishes to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops when this one does, and can be stopped without it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { requested: self.requested.child_token(), forced: self.forced.child_token() }
    }

    /// Asks for an orderly end.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Asks for an end at once.
    pub fn force(&self) {
        self.requested.cancel();
        self.forced.cancel();
    }

    /// Whether an end was asked for, of either degree.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Whether an end at once was asked for.
    pub fn is_forced(&self) -> bool {
        self.forced.is_cancelled()
    }

    /// Waits for a request.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Waits for a force.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// From now on SIGTERM and SIGINT do not end the process: the first is a request, the second
    /// a force.
    pub fn on_signals(&self) -> Result<(), Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Code::Internal, format!("signals cannot be listened for: {error}")));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            while !shutdown.is_forced() {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if shutdown.is_requested() {
                    tracing::warn!(signal = name, "stopping at once");
                    shutdown.force();
                } else {
                    tracing::info!(signal = name, "stopping in order; a second signal stops at once");
                    shutdown.request();
                }
            }
        });
        Ok(())
    }
}
