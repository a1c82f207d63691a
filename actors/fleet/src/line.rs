//! The line to one worker: what calls wait on, whichever connection carries them.
//!
//! A line outlives connections and restarts of the connection's actor. Its `life` counts losses: a call
//! that was accepted in one life is answered `worker_lost` when that life ends, even if the worker is
//! back before the call's task runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use helix_kernel::{Address, Admission, Admitted};
use helix_link::LinkHandle;
use helix_messages::WorkerView;
use helix_protocol::link::{Request, Response};
use helix_protocol::{Code, Failure, Timestamp, WorkerId, WorkerRecord};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::worker::WorkerMsg;

/// How many calls may be under way to one worker.
const CALLS: usize = 16_384;
/// How many messages may wait for one connection's actor.
const MAILBOX: usize = 256;
/// A call that names no limit: the lease decides, so this is only longer than any call.
pub(crate) const UNBOUNDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A connection as calls see it.
#[derive(Clone)]
pub(crate) struct Connected {
    /// Grows with every connection.
    pub number: u64,
    /// Asks.
    pub link: LinkHandle,
}

#[derive(Clone, Default)]
struct State {
    life: u64,
    connected: Option<Connected>,
    /// Why there is no worker at present; `None` while its lease runs.
    lost: Option<Arc<str>>,
}

/// One worker's line.
pub(crate) struct Line {
    worker: WorkerId,
    name: String,
    address: Address<WorkerMsg>,
    state: watch::Sender<State>,
    calls: Admission,
    seen: AtomicI64,
    number: AtomicU64,
    view: Mutex<WorkerView>,
}

impl Line {
    /// A line nobody has connected yet.
    pub(crate) fn new(record: WorkerRecord) -> Self {
        let (worker, name) = (record.id, record.name.clone());
        let view = WorkerView { record, ready: false, lost: false, incarnation: 0, pid: None, holds: Vec::new() };
        Self {
            worker,
            address: Address::unbound(child_name(&name), MAILBOX),
            name,
            state: watch::Sender::new(State::default()),
            calls: Admission::new(CALLS),
            seen: AtomicI64::new(0),
            number: AtomicU64::new(0),
            view: Mutex::new(view),
        }
    }

    /// The worker as its connection's actor last showed it, and when it was last heard.
    pub(crate) fn view(&self) -> WorkerView {
        let mut view = self.view.lock().clone();
        view.record.last_seen_at = self.seen().or(view.record.last_seen_at);
        view.lost = self.is_lost();
        view
    }

    /// Shows the worker as it is now.
    pub(crate) fn show(&self, view: WorkerView) {
        *self.view.lock() = view;
    }

    /// Counts connections from here on.
    pub(crate) fn count_from(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// The next connection's number: greater than every one before, those of the node's earlier lives included,
    /// because it is at least the wall clock's microseconds.
    pub(crate) fn next_number(&self, now: Timestamp) -> u64 {
        let clock = u64::try_from(now.0).unwrap_or(0);
        let next = |last: u64| clock.max(last + 1);
        self.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(clock, next)
    }

    /// The worker.
    pub(crate) fn worker(&self) -> WorkerId {
        self.worker
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its connection's actor.
    pub(crate) fn address(&self) -> &Address<WorkerMsg> {
        &self.address
    }

    /// A connection stands: waiting calls go out on it.
    pub(crate) fn up(&self, connected: Connected) {
        self.state.send_modify(|state| {
            state.connected = Some(connected);
            state.lost = None;
        });
    }

    /// The connection has ended and the lease runs on: calls that can be repeated wait for the next one.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.connected = None);
    }

    /// The worker is dead or its lease is over: every call is answered `worker_lost`.
    pub(crate) fn lose(&self, why: &str) {
        self.state.send_modify(|state| {
            state.life += 1;
            state.connected = None;
            state.lost = Some(why.into());
        });
    }

    /// True from a loss until the next connection.
    pub(crate) fn is_lost(&self) -> bool {
        self.state.borrow().lost.is_some()
    }

    /// Waits for the worker's loss, or returns at once where it is lost already.
    pub(crate) async fn lost(&self) {
        // The sender is ours, so waiting cannot fail.
        let _ = self.state.subscribe().wait_for(|state| state.lost.is_some()).await;
    }

    /// True while a connection stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.state.borrow().connected.is_some()
    }

    /// Waits for a connection.
    pub(crate) async fn connected(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.connected.is_some()).await;
    }

    /// Notes that a frame came.
    pub(crate) fn saw(&self, at: Timestamp) {
        self.seen.store(at.0, Ordering::Relaxed);
    }

    /// When a heartbeat last came; `None` before the first since the node's start.
    pub(crate) fn seen(&self) -> Option<Timestamp> {
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Timestamp(micros)),
        }
    }

    /// Takes a call on. Refused with `overloaded` where too many are under way, `worker_lost` where there is no worker.
    pub(crate) fn call(self: &Arc<Self>) -> Result<Call, Failure> {
        let permit = self.calls.admit(()).map_err(|()| {
            Failure::new(Code::Overloaded, format!("worker {} has {CALLS} calls under way, which is its limit", self.name))
                .hint("try again in a moment")
        })?;
        let states = self.state.subscribe();
        let State { life, ref lost, .. } = *states.borrow();
        if let Some(why) = lost {
            return Err(self.gone(why));
        }
        Ok(Call { line: Arc::clone(self), states: states.clone(), life, tried: 0, _permit: permit })
    }

    fn gone(&self, why: &str) -> Failure {
        Failure::new(Code::WorkerLost, format!("worker {} is gone: {why}", self.name))
            .hint("its tasks go on elsewhere from their last step; `helix worker show` says how it is")
    }
}

/// The name of a worker's child in the live tree.
pub(crate) fn child_name(worker: &str) -> String {
    format!("worker {worker}")
}

/// A call on its way, over as many connections as it takes.
pub(crate) struct Call {
    line: Arc<Line>,
    states: watch::Receiver<State>,
    life: u64,
    /// The connection that was cut under it.
    tried: u64,
    _permit: Admitted<()>,
}

impl Call {
    /// Asks, and asks again on the next connection where the request bears repetition. Answers with the connection that
    /// answered, for streams that the answer names.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<(Response, Connected), Failure> {
        loop {
            let connected = self.connection().await?;
            let (life, mut states) = (self.life, self.states.clone());
            let answer = tokio::select! {
                biased;
                answer = connected.link.request(request.clone(), UNBOUNDED) => answer,
                lost = states.wait_for(|state| state.life != life) => match lost {
                    Ok(state) => return Err(self.lost(&state)),
                    Err(_) => return Err(self.line.gone("it was removed")),
                },
            };
            match answer {
                Err(failure) if self.was_cut(&connected, &failure) => {
                    if !bears_repetition(&request) {
                        return Err(unanswered(self.line.name(), &failure));
                    }
                    self.tried = connected.number;
                }
                answer => return answer.map(|response| (response, connected)),
            }
        }
    }

    /// Waits for a connection that was not cut under this call.
    pub(crate) async fn connection(&mut self) -> Result<Connected, Failure> {
        let (life, tried) = (self.life, self.tried);
        let fresh =
            |state: &State| state.life != life || state.connected.as_ref().is_some_and(|connected| connected.number > tried);
        let state = match self.states.wait_for(fresh).await {
            Ok(state) => state.clone(),
            Err(_) => return Err(self.line.gone("it was removed")),
        };
        match state.connected {
            Some(connected) if state.life == life => Ok(connected),
            _ => Err(self.lost(&state)),
        }
    }

    /// True where the connection ended under the call; notes it, so that the next one is waited for.
    pub(crate) fn was_cut(&mut self, connected: &Connected, failure: &Failure) -> bool {
        let cut = connected.link.is_closed() && matches!(failure.code, Code::WorkerUnreachable | Code::ProtocolError);
        if cut {
            self.tried = connected.number;
        }
        cut
    }

    fn lost(&self, state: &State) -> Failure {
        self.line.gone(state.lost.as_deref().unwrap_or("another process answers in its place"))
    }
}

/// True of what carries a key or, like a read or an open under an epoch, is the same when it is done twice.
fn bears_repetition(request: &Request) -> bool {
    match request {
        Request::Open(_)
        | Request::Tool { .. }
        | Request::Run { .. }
        | Request::Turn { .. }
        | Request::Cancel { .. }
        | Request::Snapshot { .. }
        | Request::ReadOutput { .. }
        | Request::Close { .. } => true,
        // A worker that does not know `Adopt` closes the connection; the workspace is opened on the next one.
        Request::Adopt { .. } => false,
        Request::Missing { .. } | Request::Store { .. } | Request::Inspect | Request::Ping | Request::Stop { .. } => false,
    }
}

fn unanswered(worker: &str, failure: &Failure) -> Failure {
    Failure::new(Code::WorkerUnreachable, format!("the connection to worker {worker} ended before it answered: {failure}"))
        .hint("it is opened again by itself; ask again in a moment")
}
