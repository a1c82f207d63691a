//! The actor that carries out what a [`Branch`] decides.
//!
//! It never waits: every incarnation of a child has a task of its own ([`live`]) that does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use helix_protocol::{Code, Failure, Timestamp};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::branch::{Branch, Child, Fate, Key, Origin, Phase, Step};
use super::incarnation::{Incarnate, Life, abnormal, failure_of, live};
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
    /// Stops the incarnation there is, when dropped.
    stop: Option<DropGuard>,
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
            SupervisorMsg::StartFailed { key, id, failure } => {
                id.map(|id| state.ends.remove(&id));
                state.branch.start_failed(key, failure, now, &mut steps);
            }
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

impl Entry {
    fn new(spec: ChildSpec) -> Self {
        let (state, since) = (TreeState::Restarting, Timestamp::now());
        Self { spec, stop: None, state, since, starting: None, stopping: Vec::new() }
    }
}

impl SupervisorState {
    fn start_child(&mut self, child: ChildSpec, reply: Answer) {
        if let Some(ended) = self.branch.forget(&child.name) {
            self.entries.remove(&ended);
        }
        match self.branch.add(&child.name, child.restart, child.backoff, Origin::Added) {
            Ok(key) => drop(self.entries.insert(key, Entry { starting: Some(reply), ..Entry::new(child) })),
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
        let stop = CancellationToken::new();
        entry.stop = Some(stop.clone().drop_guard());
        let life = Life {
            key,
            child: Arc::clone(&entry.spec.incarnate),
            limit: entry.spec.shutdown_within,
            stop,
            myself: myself.clone(),
            _alive: self.alive.clone(),
        };
        tokio::spawn(live(life));
    }

    fn stop(&mut self, key: Key) {
        drop(self.entries.get_mut(&key).and_then(|entry| entry.stop.take()));
    }

    fn delay(&self, key: Key, delay: u64, ceiling: Duration, myself: &Myself) {
        let wait = ceiling.mul_f64(rand::random::<f64>());
        if let Some(child) = self.branch.children().iter().find(|child| child.key == key) {
            let failure = child.last_failure.as_ref().map_or("a sibling failed", |failure| failure.message.as_str());
            tracing::warn!(supervisor = %self.spec.name, child = %child.name, ?wait, failure, "restarting");
        }
        let due = move || Admitted::internal(SupervisorMsg::Due { key, delay });
        if wait.is_zero() {
            // A timer would wait for its next tick. An error means that the supervisor is ending.
            let _ = myself.send_message(due());
        } else {
            myself.send_after(wait, due);
        }
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
