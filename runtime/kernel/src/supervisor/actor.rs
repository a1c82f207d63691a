//! The actor that carries out what a [`Branch`] decides.
//!
//! It never waits. Every incarnation of a child has a task of its own, [`live`], which starts it,
//! stops it, and tells when nothing of it runs any more; only then may the next one start, because
//! an actor's reference and name are free before its `post_stop` has ended.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use helix_protocol::{Code, Failure, Timestamp};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::branch::{Branch, Child, Fate, Key, Origin, Phase, Step};
use super::spec::{Incarnate, Incarnation, failure_of};
use super::{ChildSpec, Restart, SupervisorMsg, SupervisorSpec, TreeKind, TreeNode, TreeState};
use crate::{Admitted, Reply};

type Myself = ActorRef<Admitted<SupervisorMsg>>;
type Answer = oneshot::Sender<Result<(), Failure>>;

/// Its parent is the supervisor above, which restarts it as the child's spec says. Nothing of it
/// survives a restart: the declared children start anew, added ones are gone.
pub(crate) struct SupervisorActor;

/// What an incarnation starts with.
pub(crate) struct SupervisorArgs {
    pub spec: Arc<SupervisorSpec>,
    /// Answered when all children run, or why they do not.
    pub ready: Answer,
    /// Answered with how it ended.
    pub verdict: oneshot::Sender<Option<Failure>>,
    /// Held by everything below, so that whoever is above knows when all of it is gone.
    pub alive: mpsc::Sender<()>,
}

/// What is known of one child besides what its branch knows.
struct Entry {
    spec: ChildSpec,
    /// Stops the incarnation there is.
    stop: Option<oneshot::Sender<()>>,
    state: TreeState,
    since: Timestamp,
    /// Who waits for its first start.
    starting: Option<Answer>,
    /// Who waits for its end.
    stopping: Vec<Answer>,
}

pub(crate) struct SupervisorState {
    spec: Arc<SupervisorSpec>,
    branch: Branch,
    entries: HashMap<Key, Entry>,
    /// How incarnations ended whose tasks have not yet told that they are gone.
    ends: HashMap<ActorId, Option<Failure>>,
    ready: Option<Answer>,
    verdict: Option<oneshot::Sender<Option<Failure>>>,
    alive: mpsc::Sender<()>,
    since: Timestamp,
}

impl Actor for SupervisorActor {
    type Msg = Admitted<SupervisorMsg>;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(&self, _myself: Myself, args: SupervisorArgs) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArgs { spec, ready, verdict, alive } = args;
        let mut branch = Branch::new(&spec.name, spec.strategy, spec.intensity);
        let mut entries = HashMap::new();
        for child in &spec.children {
            let key = branch.add(&child.name, child.restart, child.backoff, Origin::Declared)?;
            entries.insert(key, Entry::new(child.clone()));
        }
        Ok(SupervisorState {
            spec,
            branch,
            entries,
            ends: HashMap::new(),
            ready: Some(ready),
            verdict: Some(verdict),
            alive,
            since: Timestamp::now(),
        })
    }

    async fn post_start(&self, myself: Myself, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        state.settle(&myself, Vec::new())
    }

    async fn handle(
        &self,
        myself: Myself,
        message: Admitted<SupervisorMsg>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        let mut steps = Vec::new();
        match message.take() {
            SupervisorMsg::StartChild { child, reply } => state.start_child(child, reply),
            SupervisorMsg::StopChild { name, reply } => state.stop_child(&name, reply),
            SupervisorMsg::Tree { within, reply } => {
                state.tree(within, reply);
                return Ok(());
            }
            SupervisorMsg::Shutdown => state.branch.end(None),
            SupervisorMsg::Started { key } => state.started(key, now),
            SupervisorMsg::StartFailed { key, failure } => state.branch.start_failed(key, failure, now, &mut steps),
            SupervisorMsg::Ended { key, id } => {
                let failure = state.ends.remove(&id).flatten();
                state.branch.ended(key, failure, now, &mut steps);
            }
            SupervisorMsg::Due { key, delay } => state.branch.due(key, delay),
        }
        state.settle(&myself, steps)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: Myself,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        // The event comes before the incarnation's task is gone. What it says is kept until then.
        match event {
            SupervisionEvent::ActorTerminated(cell, last_state, reason) => {
                drop(last_state);
                state.ends.insert(cell.get_id(), abnormal(reason));
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                state.ends.insert(cell.get_id(), Some(failure_of(error)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A kill and a cancelled task arrive as terminations with a reason; every other reason is the
/// actor's own and means that it ended in order.
fn abnormal(reason: Option<String>) -> Option<Failure> {
    match reason.as_deref() {
        Some("killed") => Some(Failure::new(Code::Internal, "it was killed")),
        Some("actor_task_cancelled") => Some(Failure::new(Code::Internal, "its task was cancelled")),
        _ => None,
    }
}

impl Entry {
    fn new(spec: ChildSpec) -> Self {
        let (state, since) = (TreeState::Restarting, Timestamp::now());
        Self { spec, stop: None, state, since, starting: None, stopping: Vec::new() }
    }
}

impl SupervisorState {
    fn start_child(&mut self, child: ChildSpec, reply: Answer) {
        match self.branch.add(&child.name, child.restart, child.backoff, Origin::Added) {
            Ok(key) => {
                // An ended child of that name, if there was one, made room.
                let branch = &self.branch;
                self.entries.retain(|key, _| branch.children().iter().any(|child| child.key == *key));
                self.entries.insert(key, Entry { starting: Some(reply), ..Entry::new(child) });
            }
            Err(failure) => answer(Some(reply), Err(failure)),
        }
    }

    fn stop_child(&mut self, name: &str, reply: Answer) {
        match self.branch.remove(name) {
            Ok(key) => match self.entries.get_mut(&key) {
                Some(entry) => entry.stopping.push(reply),
                None => answer(Some(reply), Ok(())),
            },
            Err(failure) => answer(Some(reply), Err(failure)),
        }
    }

    fn started(&mut self, key: Key, now: Instant) {
        self.branch.started(key, now);
        if let Some(entry) = self.entries.get_mut(&key) {
            answer(entry.starting.take(), Ok(()));
        }
    }

    /// Lets the branch decide, and carries it out.
    fn settle(&mut self, myself: &Myself, mut steps: Vec<Step>) -> Result<(), ActorProcessingErr> {
        self.branch.settle(&mut steps);
        let mut finished = None;
        for step in steps {
            match step {
                Step::Start(key) => self.start(key, myself),
                Step::Stop(key) => self.stop(key),
                Step::Delay { key, delay, ceiling } => self.delay(key, delay, ceiling, myself),
                Step::Ready => answer(self.ready.take(), Ok(())),
                Step::Refused(key, failure) => self.refused(key, failure),
                Step::Gone(key, failure) => self.gone(key, failure),
                Step::Finished(failure) => finished = Some(failure),
            }
        }
        self.note_states();
        match finished {
            None => Ok(()),
            Some(failure) => self.finish(failure, myself),
        }
    }

    fn start(&mut self, key: Key, myself: &Myself) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (stop, stopped) = oneshot::channel();
        entry.stop = Some(stop);
        let life = Life {
            key,
            child: Arc::clone(&entry.spec.incarnate),
            limit: entry.spec.shutdown_within,
            myself: myself.clone(),
            _alive: self.alive.clone(),
        };
        tokio::spawn(live(life, stopped));
    }

    fn stop(&mut self, key: Key) {
        if let Some(stop) = self.entries.get_mut(&key).and_then(|entry| entry.stop.take()) {
            // An error means that the incarnation is gone, of which a message is under way.
            let _ = stop.send(());
        }
    }

    fn delay(&self, key: Key, delay: u64, ceiling: Duration, myself: &Myself) {
        let wait = ceiling.mul_f64(rand::random::<f64>());
        if let Some(child) = self.branch.children().iter().find(|child| child.key == key) {
            let failure = child.last_failure.as_ref().map_or("a sibling failed", |failure| failure.message.as_str());
            tracing::warn!(supervisor = %self.spec.name, child = %child.name, ?wait, failure, "restarting");
        }
        myself.send_after(wait, move || Admitted::internal(SupervisorMsg::Due { key, delay }));
    }

    fn refused(&mut self, key: Key, failure: Failure) {
        if let Some(entry) = self.entries.remove(&key) {
            answer(entry.starting, Err(failure.clone()));
            for reply in entry.stopping {
                answer(Some(reply), Ok(()));
            }
        }
    }

    fn gone(&mut self, key: Key, failure: Option<Failure>) {
        let kept = self.branch.children().iter().any(|child| child.key == key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(failure) = &failure {
            let failure = failure.message.as_str();
            tracing::warn!(supervisor = %self.spec.name, child = %entry.spec.name, failure, "ended for good");
        }
        entry.spec.gone(failure.as_ref());
        answer(entry.starting.take(), Err(stopping(&self.spec.name)));
        for reply in entry.stopping.drain(..) {
            answer(Some(reply), Ok(()));
        }
        if !kept {
            self.entries.remove(&key);
        }
    }

    fn finish(&mut self, failure: Option<Failure>, myself: &Myself) -> Result<(), ActorProcessingErr> {
        if let Some(verdict) = self.verdict.take() {
            // Nobody hears it where a supervisor is above: it hears the event.
            let _ = verdict.send(failure.clone());
        }
        if let Some(ready) = self.ready.take() {
            let failure = failure.unwrap_or_else(|| stopping(&self.spec.name));
            answer(Some(ready), Err(failure));
            myself.stop(None);
            return Ok(());
        }
        match failure {
            Some(failure) => {
                tracing::error!(supervisor = %self.spec.name, failure = %failure.message, "giving up");
                Err(failure.into())
            }
            None => {
                myself.stop(None);
                Ok(())
            }
        }
    }

    /// Keeps since when each child is in its state.
    fn note_states(&mut self) {
        for child in self.branch.children() {
            let state = state_of(child);
            if let Some(entry) = self.entries.get_mut(&child.key).filter(|entry| entry.state != state) {
                entry.state = state;
                entry.since = Timestamp::now();
            }
        }
    }

    /// Answers with the tree from here down. Branches are asked by a task, so that one that does
    /// not answer holds nobody up.
    fn tree(&self, within: Duration, reply: Reply<TreeNode>) {
        let admission = self.spec.admission();
        let here = TreeNode {
            name: self.spec.name.clone(),
            kind: TreeKind::Supervisor,
            strategy: Some(self.spec.strategy),
            restart: Restart::Permanent,
            state: if self.branch.ending() { TreeState::Stopped } else { TreeState::Running },
            restarts: 0,
            since: self.since,
            last_failure: None,
            waiting: admission.waiting(),
            limit: admission.limit(),
            children: Vec::new(),
        };
        let children: Vec<_> = self.branch.children().iter().filter_map(|child| self.node(child)).collect();
        let within = within * 3 / 4;
        tokio::spawn(async move {
            let children = children.into_iter().map(|(node, incarnate)| async move {
                let children = match incarnate.branch() {
                    Some(branch) => branch.tree(within).await.map_or_else(|_| Vec::new(), |below| below.children),
                    None => Vec::new(),
                };
                TreeNode { children, ..node }
            });
            let children = join_all(children).await;
            // Whoever asked may have given up.
            let _ = reply.send(Ok(TreeNode { children, ..here }));
        });
    }

    fn node(&self, child: &Child) -> Option<(TreeNode, Arc<dyn Incarnate>)> {
        let entry = self.entries.get(&child.key)?;
        let incarnate = &entry.spec.incarnate;
        let node = TreeNode {
            name: child.name.clone(),
            kind: if incarnate.branch().is_some() { TreeKind::Supervisor } else { TreeKind::Actor },
            strategy: incarnate.branch().map(|branch| branch.strategy),
            restart: entry.spec.restart,
            state: entry.state,
            restarts: child.restarts,
            since: entry.since,
            last_failure: child.last_failure.as_ref().map(|failure| failure.message.clone()),
            waiting: incarnate.admission().waiting(),
            limit: incarnate.admission().limit(),
            children: Vec::new(),
        };
        Some((node, Arc::clone(incarnate)))
    }
}

fn state_of(child: &Child) -> TreeState {
    match (&child.fate, child.phase) {
        (Fate::Kept, Phase::Up) => TreeState::Running,
        (Fate::Kept | Fate::Recycled, _) => TreeState::Restarting,
        (Fate::Leaving(Some(_)), _) | (Fate::Gone { failed: true }, _) => TreeState::Failed,
        (Fate::Leaving(None), _) | (Fate::Gone { failed: false }, _) => TreeState::Stopped,
    }
}

fn stopping(name: &str) -> Failure {
    Failure::new(Code::ShuttingDown, format!("{name} is stopping"))
}

fn answer(reply: Option<Answer>, with: Result<(), Failure>) {
    if let Some(reply) = reply {
        // Whoever asked may have given up.
        let _ = reply.send(with);
    }
}

impl Drop for SupervisorState {
    /// Where the supervisor was killed, its children were killed with it: their owners are told.
    fn drop(&mut self) {
        let killed = Failure::new(Code::Internal, format!("{} was killed", self.spec.name));
        for child in self.branch.children().iter().filter(|child| !matches!(child.fate, Fate::Gone { .. })) {
            if let Some(entry) = self.entries.get(&child.key) {
                entry.spec.gone(Some(&killed));
            }
        }
    }
}

/// One incarnation's task.
struct Life {
    key: Key,
    child: Arc<dyn Incarnate>,
    limit: Option<Duration>,
    myself: Myself,
    _alive: mpsc::Sender<()>,
}

impl Life {
    fn tell(&self, message: SupervisorMsg) {
        // An error means that the supervisor is gone, and this child's incarnation with it.
        let _ = self.myself.send_message(Admitted::internal(message));
    }
}

/// Starts an incarnation, stops it when asked (or when the supervisor is gone), and tells when
/// nothing of it runs any more.
async fn live(life: Life, mut stop: oneshot::Receiver<()>) {
    let message = match begin(&life, &mut stop).await {
        Ok(mut incarnation) => {
            life.tell(SupervisorMsg::Started { key: life.key });
            run(&life, &mut incarnation, &mut stop).await;
            SupervisorMsg::Ended { key: life.key, id: incarnation.cell.get_id() }
        }
        Err(failure) => SupervisorMsg::StartFailed { key: life.key, failure },
    };
    life.child.unbind();
    life.tell(message);
}

/// Starts an incarnation and waits until it is ready.
async fn begin(life: &Life, stop: &mut oneshot::Receiver<()>) -> Result<Incarnation, Failure> {
    let start = AssertUnwindSafe(Arc::clone(&life.child).start(life.myself.get_cell())).catch_unwind();
    tokio::pin!(start);
    let started = tokio::select! {
        biased;
        started = &mut start => started,
        // It may finish its start within the time it has to stop; then it is stopped in order.
        _ = &mut *stop => within(life.limit, &mut start).await.ok_or_else(|| {
            Failure::new(Code::TimedOut, "its start was given up because it was to stop")
        })?,
    };
    let mut incarnation =
        started.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the closure that makes it panicked")))?;
    let ready = tokio::select! {
        biased;
        ready = incarnation.ready() => ready,
        _ = &mut *stop => Err(Failure::new(Code::Cancelled, "it was to stop before it was ready")),
    };
    match ready {
        Ok(()) => Ok(incarnation),
        Err(failure) => {
            end(life, &mut incarnation).await;
            Err(failure)
        }
    }
}

/// Waits for the end of an incarnation, its own or the one it is asked for.
async fn run(life: &Life, incarnation: &mut Incarnation, stop: &mut oneshot::Receiver<()>) {
    // A stop that was heard before this incarnation was ready has been taken out of the channel.
    let asked = stop.is_terminated();
    if !asked {
        tokio::select! {
            biased;
            () = incarnation.ended() => return,
            _ = stop => {}
        }
    }
    end(life, incarnation).await;
}

/// Ends an incarnation: in order within its limit, else by a kill.
async fn end(life: &Life, incarnation: &mut Incarnation) {
    life.child.stop(&incarnation.cell);
    if within(life.limit, incarnation.ended()).await.is_none() {
        incarnation.cell.kill();
        // A kill takes effect where the actor next awaits. Until it does, no other incarnation
        // may start, however long that is.
        incarnation.ended().await;
    }
}

async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}
