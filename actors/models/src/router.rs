//! The router: finds who answers a request.
//!
//! Child of the models branch, permanent. It holds no call: it hands each to its provider's actor.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use helix_kernel::{Address, Admitted, Reply, actor};
use helix_messages::{ModelsMsg, ProviderView, Quote};
use helix_ports::{Availability, ProviderError, ProviderHealth};
use helix_protocol::{Code, Failure, ModelRequest, Money};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::ProviderArgs;
use crate::calls::Call;
use crate::provider::ProviderMsg;

/// How long a provider's actor may take to say how it is doing.
const CHECK: Duration = Duration::from_secs(8);

/// A provider as the router knows it.
#[derive(Clone)]
pub(crate) struct Route {
    pub args: ProviderArgs,
    pub address: Address<ProviderMsg>,
}

pub(crate) struct RouterActor;

#[derive(Clone)]
pub(crate) struct RouterArgs {
    pub routes: Vec<Route>,
    pub default: String,
}

pub(crate) struct RouterState {
    args: RouterArgs,
    /// Lists and quotes being made; they end with the actor.
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
        Ok(RouterState { args, answers: JoinSet::new() })
    }

    async fn handle(
        &self,
        _myself: actor::ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), actor::ActorProcessingErr> {
        while state.answers.try_join_next().is_some() {}
        match message.take() {
            ModelsMsg::Generate { request, deltas, reply } => {
                let reply = Arc::new(Mutex::new(Some(reply)));
                state.generate(Call { request: Arc::from(request), deltas, reply });
            }
            ModelsMsg::Quote { request, reply } => state.quote(request, reply),
            ModelsMsg::List { reply } => state.list(reply),
        }
        Ok(())
    }
}

impl RouterState {
    fn generate(&self, call: Call) {
        match self.route(&call.request) {
            Err(failure) => call.answer(Err(ProviderError::Final(failure))),
            Ok(route) => {
                if let Err(failure) = route.address.tell(ProviderMsg::Generate { call: call.clone() }) {
                    call.answer(Err(ProviderError::Retryable { failure, retry_after: None }));
                }
            }
        }
    }

    /// Counting a long conversation takes a moment, so it is not done in the mailbox's time.
    fn quote(&mut self, request: Box<ModelRequest>, reply: Reply<Quote>) {
        let route = self.route(&request).cloned();
        self.answers.spawn(async move {
            drop(reply.send(route.and_then(|route| quote(&route.args, &request))));
        });
    }

    fn list(&mut self, reply: Reply<Vec<ProviderView>>) {
        let routes = self.args.routes.clone();
        self.answers.spawn(async move {
            drop(reply.send(Ok(join_all(routes.iter().map(view)).await)));
        });
    }

    /// By the request's provider, else the default one.
    fn route(&self, request: &ModelRequest) -> Result<&Route, Failure> {
        let name = request.provider.as_deref().unwrap_or(&self.args.default);
        self.args.routes.iter().find(|route| route.args.provider.name() == name).ok_or_else(|| {
            let known: Vec<&str> = self.args.routes.iter().map(|route| route.args.provider.name()).collect();
            let hint = match known.is_empty() {
                true => "set OPENAI_API_KEY, or describe a provider under `llm.providers` of helix.yaml".to_owned(),
                false => format!("name one of {}, or describe it under `llm.providers` of helix.yaml", known.join(", ")),
            };
            Failure::new(Code::ModelUnavailable, format!("there is no model provider {name:?}")).hint(hint)
        })
    }
}

/// The most a turn can cost: the prompt at the full price, and the longest answer.
fn quote(args: &ProviderArgs, request: &ModelRequest) -> Result<Quote, Failure> {
    let provider = args.provider.name();
    let model = request.model.as_deref().unwrap_or(&args.model);
    if model.is_empty() {
        let failure =
            Failure::new(Code::ModelUnavailable, format!("no model is named, and the provider {provider} has no default one"));
        return Err(failure.hint(format!("give `--model NAME`, or set `llm.providers.{provider}.model`")));
    }
    let prompt = args.provider.estimate_tokens(request);
    let answer = u64::from(request.max_tokens);
    let price = args.provider.price(Some(model)).unwrap_or_default();
    let input = price.input.max(price.cached);
    let millionths = i128::from(prompt) * i128::from(input.0) + i128::from(answer) * i128::from(price.output.0);
    let money = Money(i64::try_from((millionths + 999_999) / 1_000_000).unwrap_or(i64::MAX));
    Ok(Quote { provider: provider.to_owned(), model: model.to_owned(), tokens: prompt + answer, money })
}

async fn view(route: &Route) -> ProviderView {
    let answer = route.address.ask(CHECK, |reply| ProviderMsg::Check { reply }).await;
    answer.unwrap_or_else(|failure| ProviderView {
        name: route.args.provider.name().to_owned(),
        base_url: route.args.base_url.clone(),
        health: ProviderHealth { availability: Availability::Unknown, latency_ms: None, message: failure.message },
        models: Vec::new(),
    })
}
