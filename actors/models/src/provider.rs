//! The actor of one provider: how many calls it has, and how it is doing.
//!
//! Child of the models branch, permanent. After a restart it knows of no calls: those that ran are answered as uncertain
//! by their dropped replies.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::{Admitted, Reply, Work, actor};
use helix_ports::{Availability, FaultScope, ModelInfo, Provider, ProviderError, ProviderHealth};
use helix_protocol::{Code, Failure};
use tokio::time::{Instant, timeout};

use crate::ProviderArgs;
use crate::calls::{Call, Gate};

/// How long a check may take.
const CHECK: Duration = Duration::from_secs(6);
/// How old a check may be and still be shown.
const FRESH: Duration = Duration::from_secs(10);

/// What a provider's actor can be asked by the router.
pub(crate) enum ProviderMsg {
    /// Makes a call. Answered with `overloaded` where too many wait.
    Make { call: Call },
    /// Says how the provider is doing, after a look where the last is old.
    Check { reply: Reply<Checkup> },
    /// A call has ended.
    Ended,
    /// A look has ended.
    Checked { checkup: Box<Checkup> },
}

/// What a look at a provider found.
#[derive(Clone, Debug)]
pub(crate) struct Checkup {
    pub health: ProviderHealth,
    pub models: Vec<ModelInfo>,
}

pub(crate) struct ProviderActor;

pub(crate) struct ProviderState {
    args: ProviderArgs,
    gate: Arc<Gate>,
    calls: usize,
    last: Option<(Instant, Checkup)>,
    asking: Vec<Reply<Checkup>>,
    work: Work<ProviderMsg>,
}

impl actor::Actor for ProviderActor {
    type Msg = Admitted<ProviderMsg>;
    type State = ProviderState;
    type Arguments = (ProviderArgs, Arc<Gate>);

    async fn pre_start(
        &self,
        myself: actor::ActorRef<Self::Msg>,
        (args, gate): Self::Arguments,
    ) -> Result<Self::State, actor::ActorProcessingErr> {
        Ok(ProviderState { gate, args, calls: 0, last: None, asking: Vec::new(), work: Work::of(&myself) })
    }

    async fn handle(
        &self,
        _myself: actor::ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), actor::ActorProcessingErr> {
        match message.take() {
            ProviderMsg::Make { call } => state.make(call),
            ProviderMsg::Check { reply } => state.check(reply),
            ProviderMsg::Ended => state.calls -= 1,
            ProviderMsg::Checked { checkup } => state.checked(*checkup),
        }
        Ok(())
    }

    async fn post_stop(&self, _: actor::ActorRef<Self::Msg>, state: &mut ProviderState) -> Result<(), actor::ActorProcessingErr> {
        state.args.provider.close().await;
        Ok(())
    }
}

impl ProviderState {
    fn make(&mut self, call: Call) {
        let limit = self.args.limits.concurrency + self.args.limits.waiting;
        if self.calls >= limit {
            let failure =
                Failure::new(Code::Overloaded, format!("{} has {limit} calls, which is its limit", self.args.provider.name()))
                    .hint("raise its `concurrency`, or try again in a moment");
            return call.refuse(ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider });
        }
        self.calls += 1;
        let gate = Arc::clone(&self.gate);
        self.work.start(async move {
            gate.serve(call).await;
            ProviderMsg::Ended
        });
    }

    fn check(&mut self, reply: Reply<Checkup>) {
        if let Some((_, checkup)) = self.last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return drop(reply.send(Ok(checkup.clone())));
        }
        self.asking.push(reply);
        if self.asking.len() == 1 {
            let provider = Arc::clone(&self.args.provider);
            self.work.start(async move { ProviderMsg::Checked { checkup: Box::new(look(provider).await) } });
        }
    }

    fn checked(&mut self, checkup: Checkup) {
        for reply in self.asking.drain(..) {
            // An error means that nobody waits any more.
            drop(reply.send(Ok(checkup.clone())));
        }
        self.last = Some((Instant::now(), checkup));
    }
}

/// Health and models of a provider, within the time of a check.
async fn look(provider: Arc<dyn Provider>) -> Checkup {
    let work = async {
        let health = provider.health().await;
        let models = match health.availability {
            Availability::Unavailable => Vec::new(),
            _ => provider.models().await.unwrap_or_default(),
        };
        Checkup { health, models }
    };
    timeout(CHECK, work).await.unwrap_or_else(|_| {
        let message = format!("it did not answer within {} s", CHECK.as_secs());
        Checkup {
            health: ProviderHealth { availability: Availability::Unavailable, latency_ms: None, message },
            models: Vec::new(),
        }
    })
}
