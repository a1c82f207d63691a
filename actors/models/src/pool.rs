//! Every provider with what is known of it, shared by all calls.
//!
//! Latencies, failures, cooldowns and pins are memory only: after a restart they are learnt anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Address;
use helix_messages::{Circuit, DeploymentCircuit};
use helix_ports::{Extent, ModelCapabilities, ProviderError, RateLimits};
use helix_protocol::{Code, Message, ModelRequest, Money, Most, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ProviderArgs;
use crate::bounded::Bounded;
use crate::breaker::Pause;
use crate::calls::Gate;
use crate::choose::{Circumstances, Obstacle, Standing, order};
use crate::directory::{Deployment, Directory, Plan, Tier};
use crate::provider::ProviderMsg;
use crate::reuse::Reuse;

/// How long a deployment that refused our key or lacks the model is asked last.
const REFUSED: Duration = Duration::from_secs(300);
/// No provider is left alone longer, whatever it asks for.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(3_600);
/// How much the last call counts among those before it.
const WEIGHT_OF_LAST: f64 = 0.2;
/// How many deployments are remembered: clients may name any model.
const RECORDS: usize = 4_096;
/// How many sessions are remembered.
const PINS: usize = 65_536;

/// A provider as the router knows it.
#[derive(Clone)]
pub(crate) struct Route {
    pub args: ProviderArgs,
    pub address: Address<ProviderMsg>,
    pub gate: Arc<Gate>,
}

/// What is known of one deployment.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Seconds from the question to the end of the answer, the last ones weighing most.
    latency: Option<f64>,
    /// Part of the calls that failed, the last ones weighing most.
    failing: f64,
    /// It refused our key, lacks the model or has no credit left.
    refused: Option<Pause>,
    /// It asked to be left alone.
    left_alone: Option<Pause>,
}

impl Record {
    fn circuit(&self, now: Instant, clock: Timestamp) -> Option<Circuit> {
        let lasting = |pause: &Option<Pause>| Some(pause.as_ref().filter(|pause| pause.left(now).is_some())?.outage(now, clock));
        lasting(&self.left_alone).map(Circuit::Open).or_else(|| lasting(&self.refused).map(Circuit::AskedLast))
    }
}

type DeploymentKey = (usize, String);

/// One deployment among those that may answer a turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub tier: usize,
    /// Its group; empty for a provider on its own.
    pub group: String,
    pub affinity: Duration,
    pub deployment: Deployment,
    /// Tokens that its model takes.
    pub context: u64,
    /// Tokens that its model writes, where another may be asked as well: one that writes less than was asked for is asked for less,
    /// and does not refuse. `None` where it is the only one: it is asked what the client asks.
    pub most_answer: Option<u32>,
    /// Nothing may be sent to it for so long.
    pub wait: Duration,
    /// A wait longer than this is none for this turn.
    pub patience: Duration,
    /// The request's session was served there last.
    pub pinned: bool,
    /// It stands in for others that take the request's pictures, and takes none.
    pub blind: bool,
}

/// Everything the calls share.
pub(crate) struct Pool {
    pub routes: Vec<Route>,
    pub directory: Directory,
    pub reuse: Mutex<Reuse>,
    records: Mutex<Bounded<DeploymentKey, Record>>,
    pins: Mutex<Bounded<(String, String), (DeploymentKey, Instant)>>,
    /// How many turns each group has had.
    turns: Mutex<HashMap<String, u64>>,
}

impl Pool {
    pub fn new(routes: Vec<Route>, directory: Directory) -> Self {
        Self {
            routes,
            directory,
            reuse: Mutex::new(Reuse::new()),
            records: Mutex::new(Bounded::new(RECORDS)),
            pins: Mutex::new(Bounded::new(PINS)),
            turns: Mutex::default(),
        }
    }

    /// The provider of a deployment.
    pub fn route(&self, deployment: &Deployment) -> &Route {
        &self.routes[deployment.provider]
    }

    /// `provider/model`, for people.
    pub fn name(&self, deployment: &Deployment) -> String {
        self.name_of(deployment.provider, &deployment.model)
    }

    fn name_of(&self, provider: usize, model: &str) -> String {
        let provider = self.routes[provider].args.provider.name();
        if model.is_empty() { provider.to_owned() } else { format!("{provider}/{model}") }
    }

    /// The circuit of every provider, and after it those of its models that are not closed.
    pub fn circuits(&self) -> Vec<DeploymentCircuit> {
        (0..self.routes.len()).flat_map(|provider| self.circuits_of(provider)).collect()
    }

    /// The circuit of one provider, and after it those of its models that are not closed, by name.
    pub fn circuits_of(&self, provider: usize) -> Vec<DeploymentCircuit> {
        let (now, clock) = (Instant::now(), Timestamp::now());
        let route = &self.routes[provider];
        let own = DeploymentCircuit { deployment: route.args.provider.name().to_owned(), circuit: route.gate.circuit(clock) };
        let records = self.records.lock();
        let told = records.iter().filter(|((of, _), _)| *of == provider);
        let told = told.filter_map(|((_, model), record)| Some((model.clone(), record.circuit(now, clock)?)));
        let mut of_models: BTreeMap<String, Circuit> = told.collect();
        for (model, circuit) in route.gate.circuits_of_models(clock) {
            match circuit {
                Circuit::Open(_) => drop(of_models.insert(model, circuit)),
                // What a model said itself is why it is not tried.
                _ => drop(of_models.entry(model).or_insert(circuit)),
            }
        }
        let named = |(model, circuit): (String, Circuit)| DeploymentCircuit { deployment: self.name_of(provider, &model), circuit };
        iter::once(own).chain(of_models.into_iter().map(named)).collect()
    }

    /// Who may answer, tier by tier, the one to ask first in front. Where there is a choice the request's tokens are counted. Those
    /// that it does not fit are the last tier, whatever their group, the largest first.
    ///
    /// Where `is_asked` holds of them the first is asked now, and its group has had a turn: no other request is given the same. A
    /// session that stays where it is takes none.
    pub fn lineup(&self, plan: &Plan, request: &ModelRequest, is_asked: impl FnOnce(&[Candidate]) -> bool) -> Vec<Candidate> {
        let choice = plan.tiers.iter().map(|tier| tier.deployments.len()).sum::<usize>() > 1;
        let session = request.session.as_deref();
        let standing = |deployment| self.standing(deployment, choice.then_some(request));
        let known: Vec<(Vec<Standing>, Option<usize>)> = plan
            .tiers
            .iter()
            .map(|tier| (tier.deployments.iter().map(standing).collect(), session.and_then(|session| self.pinned(tier, session))))
            .collect();
        let mut turns = self.turns.lock();
        let (mut lineup, mut unfit) = (Vec::new(), Vec::new());
        for ((at, tier), (standings, pinned)) in plan.tiers.iter().enumerate().zip(&known) {
            let turn = turns.get(&tier.group).copied().unwrap_or_default();
            let mut chance = || rand::random_range(0.0..1.0);
            let mut now = Circumstances { strategy: tier.strategy, pinned: *pinned, turn, chance: &mut chance };
            let candidate = |index: usize| Candidate {
                tier: if standings[index].fits { at } else { plan.tiers.len() },
                group: tier.group.clone(),
                affinity: tier.affinity,
                deployment: tier.deployments[index].clone(),
                context: standings[index].context,
                most_answer: choice
                    .then(|| u32::try_from(self.capabilities(&tier.deployments[index]).output_tokens).unwrap_or(u32::MAX)),
                wait: match standings[index].obstacle {
                    Obstacle::Until(wait) => wait,
                    _ => Duration::ZERO,
                },
                patience: self.route(&tier.deployments[index]).args.limits.patience,
                pinned: *pinned == Some(index),
                blind: false,
            };
            let (fit, others): (Vec<usize>, Vec<usize>) =
                order(standings, &mut now).into_iter().partition(|index| standings[*index].fits);
            lineup.extend(fit.into_iter().map(candidate));
            unfit.extend(others.into_iter().map(candidate));
        }
        unfit.sort_by_key(|one: &Candidate| Reverse(one.context));
        lineup.append(&mut unfit);
        if has_pictures(request) {
            let sees = |one: &Candidate| self.capabilities(&one.deployment).images;
            let seen = lineup.iter().any(sees);
            lineup.iter_mut().for_each(|one| one.blind = seen && !sees(one));
        }
        if is_asked(&lineup)
            && let Some(first) = lineup.first()
        {
            take_turn(&mut turns, first);
        }
        lineup
    }

    /// The first of another group than the first of a lineup is asked.
    pub fn falls_back_to(&self, candidate: &Candidate) {
        take_turn(&mut self.turns.lock(), candidate);
    }

    /// What a deployment's model can do.
    pub fn capabilities(&self, deployment: &Deployment) -> ModelCapabilities {
        self.route(deployment).args.provider.capabilities(named(&deployment.model))
    }

    /// What is left of a deployment's limits, as its last answer said.
    pub fn limits(&self, deployment: &Deployment) -> RateLimits {
        self.route(deployment).args.provider.rate_limits(named(&deployment.model))
    }

    fn standing(&self, deployment: &Deployment, request: Option<&ModelRequest>) -> Standing {
        let route = self.route(deployment);
        let record = self.records.lock().peek(&key(deployment)).cloned().unwrap_or_default();
        let now = Instant::now();
        let left = |pause: &Option<Pause>| pause.as_ref().and_then(|pause| pause.left(now));
        let cooling = [left(&record.left_alone), route.gate.open_for(&deployment.model)];
        let wait = cooling.into_iter().flatten().max().unwrap_or_default();
        let capabilities = self.capabilities(deployment);
        let tokens = request.map_or(0, |request| route.args.provider.estimate_tokens(named(&deployment.model), request));
        let limits = self.limits(deployment);
        let obstacle = if !wait.is_zero() {
            Obstacle::Until(wait)
        } else if limits.exhausted_for().is_some() {
            Obstacle::Exhausted
        } else if left(&record.refused).is_some() || !route.args.provider.is_available() {
            Obstacle::Refused
        } else if route.gate.is_full() || limits.is_short_of(tokens) {
            Obstacle::Crowded
        } else {
            Obstacle::None
        };
        let most = capabilities.output_tokens;
        let answer = request.map_or(0, |request| answer_tokens(request, most).min(most));
        Standing {
            weight: deployment.weight,
            cost: request.and_then(|_| self.most(deployment, tokens, answer, Extent::default())),
            latency: record.latency.map(Duration::from_secs_f64),
            failing: (record.failing * 20.0).round() / 20.0,
            obstacle,
            context: capabilities.context_tokens,
            fits: tokens + answer <= capabilities.context_tokens
                && request.is_none_or(|request| {
                    (capabilities.images || !has_pictures(request))
                        && route.args.provider.keeps_output(named(&deployment.model), request)
                        && route.args.provider.carries(request)
                }),
        }
    }

    /// The most that a turn of so many tokens can cost; `None` without a price.
    fn most(&self, deployment: &Deployment, prompt: u64, answer: u64, extent: Extent) -> Option<Money> {
        let price = self.route(deployment).args.provider.price_at(named(&deployment.model), prompt)?;
        let write = if extent.hour_in_cache { price.cache_write.max(price.cache_write_1h) } else { price.cache_write };
        let input = price.input.max(price.cached).max(write);
        let millionths = i128::from(prompt) * i128::from(input.0) + i128::from(answer) * i128::from(price.output.0);
        Some(Money(i64::try_from((millionths + 999_999) / 1_000_000).unwrap_or(i64::MAX)))
    }

    /// True where a tool must be called that the deployment's model cannot be made to call, so that it may be asked twice.
    pub fn may_insist(&self, deployment: &Deployment, request: &ModelRequest) -> bool {
        let provider = &self.route(deployment).args.provider;
        !request.tools.is_empty() && !provider.keeps_tool_choice(named(&deployment.model), request)
    }

    /// The most that a turn can use of a deployment. A model that cannot be made to call a tool may be asked
    /// twice, and a conversation that goes on may fill all that the model takes.
    pub fn reservation(&self, deployment: &Deployment, request: &ModelRequest, extent: Extent) -> Most {
        let provider = &self.route(deployment).args.provider;
        let capabilities = self.capabilities(deployment);
        let prompt =
            if extent.goes_on { capabilities.context_tokens } else { provider.estimate_tokens(named(&deployment.model), request) };
        let answer = answer_tokens(request, capabilities.output_tokens).saturating_mul(extent.answers);
        let money = self.most(deployment, prompt, answer, extent);
        let times = if self.may_insist(deployment, request) { 2 } else { 1 };
        Most { money: money.map(|money| Money(money.0.saturating_mul(times as i64))), tokens: (prompt + answer) * times }
    }

    fn pinned(&self, tier: &Tier, session: &str) -> Option<usize> {
        let mut pins = self.pins.lock();
        let pin = pins.get(&(tier.group.clone(), session.to_owned()))?;
        if pin.1 <= Instant::now() {
            return None;
        }
        let pin = pin.0.clone();
        tier.deployments.iter().position(|deployment| key(deployment) == pin)
    }

    /// A deployment answers, to the end or not: it is left alone no more, and the session stays with it.
    pub fn answers(&self, candidate: &Candidate, session: Option<&str>) {
        self.change(&candidate.deployment, |record| (record.refused, record.left_alone) = (None, None));
        if let Some(session) = session.filter(|_| !candidate.group.is_empty() && !candidate.affinity.is_zero()) {
            let pin = (key(&candidate.deployment), Instant::now() + candidate.affinity);
            self.pins.lock().put((candidate.group.clone(), session.to_owned()), pin, 1);
        }
    }

    /// A deployment's answer has come to its end, so long after it was asked.
    pub fn ended(&self, deployment: &Deployment, took: Duration) {
        self.change(deployment, |record| {
            let took = took.as_secs_f64();
            record.latency = Some(record.latency.map_or(took, |before| smoothed(before, took)));
            record.failing = smoothed(record.failing, 0.0);
        });
    }

    /// A deployment has not answered, or broke off.
    pub fn failed(&self, deployment: &Deployment, error: &ProviderError) {
        let now = Instant::now();
        let pause = |before: &Option<Pause>, length: Duration| {
            let since = before.as_ref().map_or(now, |before| before.since);
            Some(Pause { since, until: now + length, failure: error.failure().clone() })
        };
        self.change(deployment, |record| match error {
            ProviderError::Retryable { failure, retry_after, .. } if failure.code != Code::Overloaded => {
                record.failing = smoothed(record.failing, 1.0);
                if let Some(after) = *retry_after {
                    record.left_alone = pause(&record.left_alone, after.min(LONGEST_COOLDOWN));
                }
            }
            ProviderError::Uncertain(_) => record.failing = smoothed(record.failing, 1.0),
            ProviderError::Elsewhere(_) => record.refused = pause(&record.refused, REFUSED),
            ProviderError::Retryable { .. } | ProviderError::Final(_) => {}
        });
    }

    fn change(&self, deployment: &Deployment, change: impl FnOnce(&mut Record)) {
        let (mut records, key) = (self.records.lock(), key(deployment));
        if let Some(record) = records.get(&key) {
            return change(record);
        }
        let mut record = Record::default();
        change(&mut record);
        records.put(key, record, 1);
    }
}

/// A provider on its own has no turns.
fn take_turn(turns: &mut HashMap<String, u64>, candidate: &Candidate) {
    if !candidate.pinned && !candidate.group.is_empty() {
        *turns.entry(candidate.group.clone()).or_default() += 1;
    }
}

fn key(deployment: &Deployment) -> DeploymentKey {
    (deployment.provider, deployment.model.clone())
}

/// The model's name as a provider is asked: none where it is the provider's own.
pub(crate) fn named(model: &str) -> Option<&str> {
    (!model.is_empty()).then_some(model)
}

fn has_pictures(request: &ModelRequest) -> bool {
    request.messages.iter().any(Message::has_pictures)
}

fn answer_tokens(request: &ModelRequest, most: u64) -> u64 {
    if request.max_tokens == 0 { most } else { u64::from(request.max_tokens) }
}

fn smoothed(before: f64, last: f64) -> f64 {
    before + WEIGHT_OF_LAST * (last - before)
}
