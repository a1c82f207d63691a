//! Models that answer with a text made from the conversation's length, and remember every question by its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Admitted;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_messages::{ModelsMsg, Quote};
use helix_ports::ProviderError;
use helix_protocol::{Block, Code, Failure, ModelReply, Money, Most, StopReason, Usage};
use parking_lot::Mutex;

#[derive(Default)]
struct State {
    asked: BTreeMap<String, u32>,
    answered: BTreeMap<String, u32>,
    failures: Vec<ProviderError>,
    /// Said behind every reply.
    padding: usize,
    /// Before every reply.
    thinking: Duration,
    /// Nobody knows before what a call costs.
    unpriced: bool,
}

/// What models were asked. Outlives every node.
#[derive(Clone, Default)]
pub struct ModelLog(Arc<Mutex<State>>);

impl ModelLog {
    pub fn asked(&self) -> BTreeMap<String, u32> {
        self.0.lock().asked.clone()
    }

    pub fn total(&self) -> u32 {
        self.0.lock().asked.values().sum()
    }

    /// The next call ends like this.
    pub fn fail_next(&self, error: ProviderError) {
        self.0.lock().failures.push(error);
    }

    /// Nobody knows from now on what a call will cost.
    pub fn lose_prices(&self) {
        self.0.lock().unpriced = true;
    }

    /// Every reply is longer by so many bytes.
    pub fn speak_at_length(&self, bytes: usize) {
        self.0.lock().padding = bytes;
    }

    /// Every reply takes this long.
    pub fn think_for(&self, time: Duration) {
        self.0.lock().thinking = time;
    }

    pub fn refused(code: Code) -> ProviderError {
        ProviderError::Final(Failure::new(code, "the test refuses"))
    }
}

pub struct FakeModels;

/// What a call costs, and what is reserved for it.
pub const COST: Money = Money(10);
pub const RESERVED: Money = Money(100);

impl Actor for FakeModels {
    type Msg = Admitted<ModelsMsg>;
    type State = ModelLog;
    type Arguments = ModelLog;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, log: ModelLog) -> Result<ModelLog, ActorProcessingErr> {
        Ok(log)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, log: &mut ModelLog) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ModelsMsg::Quote { reply, .. } => {
                let quote = Quote {
                    provider: "fake".to_owned(),
                    model: "m".to_owned(),
                    most: Most { money: (!log.0.lock().unpriced).then_some(RESERVED), tokens: 50 },
                    capabilities: Default::default(),
                };
                let _ = reply.send(Ok(quote));
            }
            ModelsMsg::Generate { request, reply, .. } => {
                let key = request.idempotency_key.clone().unwrap_or_default();
                let mut state = log.0.lock();
                *state.asked.entry(key).or_default() += 1;
                if let Some(error) = state.failures.pop() {
                    let _ = reply.send(Ok(Err(error)));
                    return Ok(());
                }
                let text = format!("reply after {}{}", request.messages.len(), ".".repeat(state.padding));
                let usage = Usage { input_tokens: 3, output_tokens: 2, cost: COST, ..Usage::default() };
                let answer = ModelReply {
                    model: "m".to_owned(),
                    blocks: vec![Block::Text { text, extra: None }],
                    stop: StopReason::EndTurn,
                    usage,
                };
                let thinking = state.thinking;
                if thinking.is_zero() {
                    let _ = reply.send(Ok(Ok(answer)));
                    return Ok(());
                }
                tokio::spawn(async move {
                    tokio::time::sleep(thinking).await;
                    let _ = reply.send(Ok(Ok(answer)));
                });
            }
            ModelsMsg::FlushLedger { reply, .. } => drop(reply.send(Ok(()))),
            ModelsMsg::List { reply } => drop(reply.send(Ok(Vec::new()))),
            ModelsMsg::Forward { .. } | ModelsMsg::Count { .. } | ModelsMsg::Offered { .. } => {}
            #[allow(unreachable_patterns)]
            _ => {}
        }
        Ok(())
    }
}
