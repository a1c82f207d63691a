//! An actor that does what a test tells it, and a record of what happened.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Backoff, ChildSpec, Reply, SupervisorHandle, TreeState};
use helix_protocol::{Code, Failure};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything takes; on a paused clock it costs nothing.
pub const LONG: Duration = Duration::from_secs(3600 * 24);

/// What happened, in order: `+a` started, `-a` post_stop ran.
#[derive(Clone)]
pub struct Record(Arc<watch::Sender<Vec<String>>>);

impl Record {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    pub fn note(&self, what: impl Into<String>) {
        self.0.send_modify(|all| all.push(what.into()));
    }

    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// Forgets what happened so far.
    pub fn clear(&self) {
        self.0.send_modify(Vec::clear);
    }

    /// Waits until exactly this has happened.
    pub async fn until(&self, expected: &[&str]) {
        let mut seen = self.0.subscribe();
        let waited = timeout(LONG, seen.wait_for(|all| all.len() >= expected.len())).await.map(|seen| seen.map(|_| ()));
        assert_eq!(self.all(), expected, "{waited:?}");
    }
}

/// What a probe is told.
pub enum ProbeMsg {
    /// Answers with the number of its incarnation, from 1.
    Which { reply: Reply<usize> },
    /// Notes it.
    Note(String),
    /// Panics.
    Panic,
    /// Returns an error.
    Fail,
    /// Ends in order.
    End,
    /// Waits for ever, as no handler should.
    Hang,
    /// Hands out its own reference.
    Myself { reply: Reply<ActorRef<Admitted<ProbeMsg>>> },
}

/// Makes incarnations of one probe; what it holds survives them.
#[derive(Clone)]
pub struct Probe {
    pub name: &'static str,
    pub record: Record,
    pub address: Address<ProbeMsg>,
    pub incarnations: Arc<AtomicUsize>,
    /// How long its `post_stop` takes.
    pub slow_stop: Duration,
    /// How long its `pre_start` takes.
    pub slow_start: Duration,
    /// The incarnations that fail to start.
    pub unstartable: std::ops::Range<usize>,
}

impl Probe {
    pub fn new(name: &'static str, record: &Record) -> Self {
        Self {
            name,
            record: record.clone(),
            address: Address::unbound(name, 4),
            incarnations: Arc::new(AtomicUsize::new(0)),
            slow_stop: Duration::ZERO,
            slow_start: Duration::ZERO,
            unstartable: 0..0,
        }
    }

    pub fn child(&self) -> ChildSpec {
        let probe = self.clone();
        ChildSpec::actor(self.name, &self.address, move || (ProbeActor, probe.clone()))
            .backoff(Backoff { first: Duration::from_millis(10), most: Duration::from_secs(60) })
    }

    pub fn tell(&self, message: ProbeMsg) {
        self.address.tell(message).expect("the probe runs");
    }

    pub async fn which(&self) -> Result<usize, Failure> {
        self.address.ask(LONG, |reply| ProbeMsg::Which { reply }).await
    }

    /// A message that waits behind those before it.
    pub fn note_later(&self) {
        self.tell(ProbeMsg::Note("later".to_owned()));
    }

    pub async fn myself(&self) -> ActorRef<Admitted<ProbeMsg>> {
        self.address.ask(LONG, |reply| ProbeMsg::Myself { reply }).await.expect("the probe runs")
    }
}

pub struct ProbeActor;

impl Actor for ProbeActor {
    type Msg = Admitted<ProbeMsg>;
    type State = (Probe, usize);
    type Arguments = Probe;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, probe: Probe) -> Result<Self::State, ActorProcessingErr> {
        let which = probe.incarnations.fetch_add(1, Ordering::Relaxed) + 1;
        if !probe.slow_start.is_zero() {
            tokio::time::sleep(probe.slow_start).await;
        }
        if probe.unstartable.contains(&which) {
            probe.record.note(format!("!{}", probe.name));
            return Err(Failure::new(Code::NodeRunning, "the folder is taken").hint("stop the other one").into());
        }
        probe.record.note(format!("+{}", probe.name));
        Ok((probe, which))
    }

    async fn post_stop(&self, _myself: ActorRef<Self::Msg>, (probe, _): &mut Self::State) -> Result<(), ActorProcessingErr> {
        if !probe.slow_stop.is_zero() {
            probe.record.note(format!("~{}", probe.name));
            tokio::time::sleep(probe.slow_stop).await;
        }
        probe.record.note(format!("-{}", probe.name));
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        (probe, which): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ProbeMsg::Which { reply } => reply.send(Ok(*which))?,
            ProbeMsg::Note(what) => probe.record.note(what),
            ProbeMsg::Panic => panic!("as told"),
            ProbeMsg::Fail => return Err("as told".into()),
            ProbeMsg::End => myself.stop(None),
            ProbeMsg::Hang => std::future::pending().await,
            ProbeMsg::Myself { reply } => reply.send(Ok(myself))?,
        }
        Ok(())
    }
}

/// Waits until the child of that name is in that state.
pub async fn until_state(supervisor: &SupervisorHandle, name: &str, state: TreeState) {
    let wait = async {
        while supervisor.tree().await.expect("it runs").child(name).map(|child| child.state) != Some(state) {
            // The paused clock goes on only when nothing else can run.
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{name} is never {state:?}"));
}
