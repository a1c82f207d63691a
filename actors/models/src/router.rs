//! The router: takes requests and has them answered.
//!
//! Child of the models branch, permanent. A call runs beside it and ends with it; its answer is then uncertain.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use helix_kernel::{Admitted, Reply, actor};
use helix_messages::{ModelsMsg, ProviderView, Quote, Records};
use helix_ports::{Availability, Extent, ProviderError, ProviderHealth};
use helix_protocol::{Code, Failure, ModelRequest, Money, Most};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::calls::Call;
use crate::drive::{Asked, run, send};
use crate::ledger::Ledger;
use crate::pool::Pool;
use crate::provider::{Checkup, ProviderMsg};

/// How long a provider's actor may take to say how it is doing.
const CHECK: Duration = Duration::from_secs(8);
/// How often it is looked whether somebody still waits for an answer.
const LISTENING: Duration = Duration::from_millis(250);

pub(crate) struct RouterActor;

#[derive(Clone)]
pub(crate) struct RouterArgs {
    pub pool: Arc<Pool>,
    pub records: Option<Records>,
}

pub(crate) struct RouterState {
    pool: Arc<Pool>,
    ledger: Ledger,
    /// Calls, lists and quotes being made; they end with the actor.
    answers: JoinSet<()>,
}

impl actor::Actor for RouterActor {
    type Msg = Admitted<ModelsMsg>;
    type State = RouterState;
    type Arguments = RouterArgs;

    async fn pre_start(
        &self,
        _myself: actor::ActorRef<Self::Msg>,
        args: Self::Arguments,
    ) -> Result<Self::State, actor::ActorProcessingErr> {
        let mut answers = JoinSet::new();
        let (ledger, keep) = Ledger::new(args.records);
        answers.spawn(keep);
        Ok(RouterState { pool: args.pool, ledger, answers })
    }

    async fn handle(
        &self,
        _myself: actor::ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), actor::ActorProcessingErr> {
        while state.answers.try_join_next().is_some() {}
        let pool = Arc::clone(&state.pool);
        match message.take() {
            ModelsMsg::Generate { on_behalf, request, deltas, reply } => {
                let entry = state.ledger.entry(on_behalf);
                state.answer(reply, async move { entry.generate(&pool, *request, deltas).await })
            }
            ModelsMsg::Forward { on_behalf, session, format, call, read, reply } => {
                let entry = state.ledger.entry(on_behalf);
                state.answer(reply, async move { entry.forward(&pool, session, format, *call, read).await })
            }
            ModelsMsg::Count { request, reply } => state.answer(reply, async move { count(&pool, *request).await }),
            ModelsMsg::Offered { reply } => drop(reply.send(Ok(pool.directory.offered()))),
            ModelsMsg::Quote { request, extent, reply } => state.quote(request, extent, reply),
            ModelsMsg::FlushLedger { task, reply } => {
                let ledger = state.ledger.clone();
                state.answers.spawn(async move {
                    ledger.flush(task).await;
                    drop(reply.send(Ok(())));
                });
            }
            ModelsMsg::List { reply } => state.list(reply),
            ModelsMsg::Circuits { reply } => drop(reply.send(Ok(pool.circuits()))),
        }
        Ok(())
    }
}

impl RouterState {
    /// Does the work beside the mailbox. Given up once nobody waits for it.
    fn answer<T: Send + 'static>(
        &mut self,
        reply: Reply<Result<T, ProviderError>>,
        work: impl Future<Output = Result<T, ProviderError>> + Send + 'static,
    ) {
        self.answers.spawn(async move {
            let abandoned = async {
                while !reply.is_closed() {
                    sleep(LISTENING).await;
                }
            };
            let result = tokio::select! {
                result = work => Some(result),
                () = abandoned => None,
            };
            match result {
                // An error means that nobody waits any more.
                Some(result) => drop(reply.send(Ok(result))),
                None => tracing::debug!("nobody waits for a call any more"),
            }
        });
    }

    /// Counting a long conversation takes a moment, so it is not done in the mailbox's time.
    fn quote(&mut self, request: Box<ModelRequest>, extent: Extent, reply: Reply<Quote>) {
        let pool = Arc::clone(&self.pool);
        self.answers.spawn(async move { drop(reply.send(quote(&pool, &request, extent))) });
    }

    fn list(&mut self, reply: Reply<Vec<ProviderView>>) {
        let pool = Arc::clone(&self.pool);
        self.answers.spawn(async move {
            let views = (0..pool.routes.len()).map(|provider| view(&pool, provider));
            drop(reply.send(Ok(join_all(views).await)));
        });
    }
}

async fn count(pool: &Pool, request: ModelRequest) -> Result<u64, ProviderError> {
    let plan = pool.directory.plan(request.provider.as_deref(), request.model.as_deref()).map_err(ProviderError::Final)?;
    let lineup = pool.lineup(&plan, &request, |_| false);
    let counted = run(pool, &lineup, Asked::Count, |candidate, _| {
        let model = Some(candidate.deployment.model.clone()).filter(|model| !model.is_empty());
        let request = Arc::new(ModelRequest { model, ..request.clone() });
        async move {
            let (answer, answered) = oneshot::channel();
            send(pool, candidate, Call::Count { request, answer }, answered).await
        }
    });
    counted.await.map(|counted| counted.answer)
}

/// The most a turn can cost, whoever answers it: each is asked with the whole prompt at its full price, and the longest answer.
pub(crate) fn quote(pool: &Pool, request: &ModelRequest, extent: Extent) -> Result<Quote, Failure> {
    let plan = pool.directory.plan(request.provider.as_deref(), request.model.as_deref())?;
    let first = &plan.tiers[0].deployments[0];
    let provider = pool.route(first).args.provider.name().to_owned();
    if first.model.is_empty() {
        let failure =
            Failure::new(Code::ModelUnavailable, format!("no model is named, and the provider {provider} has no default one"));
        return Err(failure.hint(format!("give `--model NAME`, or set `llm.providers.{provider}.model`")));
    }
    let deployments = || plan.tiers.iter().flat_map(|tier| &tier.deployments);
    let set_up = |deployment| pool.route(deployment).args.provider.is_set_up();
    if deployments().all(|deployment| set_up(deployment).is_err()) {
        set_up(first)?;
    }
    let capabilities = pool.capabilities(first);
    let each: Vec<Most> = deployments().map(|deployment| pool.reservation(deployment, request, extent)).collect();
    // What may cost something is more than what is free, and less than any price.
    let money = each.iter().map(|most| most.money).max_by_key(|money| money.unwrap_or(Money(1))).flatten();
    let tokens = each.iter().map(|most| most.tokens).max().unwrap_or_default();
    Ok(Quote { provider, model: first.model.clone(), most: Most { money, tokens }, capabilities })
}

async fn view(pool: &Pool, provider: usize) -> ProviderView {
    let route = &pool.routes[provider];
    let answer = route.address.ask(CHECK, |reply| ProviderMsg::Check { reply }).await;
    let Checkup { health, models } = answer.unwrap_or_else(|failure| Checkup {
        health: ProviderHealth { availability: Availability::Unknown, latency_ms: None, message: failure.message },
        models: Vec::new(),
    });
    let (name, base_url) = (route.args.provider.name().to_owned(), route.args.base_url.clone());
    ProviderView { name, base_url, health, models, circuits: pool.circuits_of(provider) }
}
