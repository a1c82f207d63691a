//! Writing down every call, beside the answer.
//!
//! Entries are gathered and written in groups, so that a task's commit waits for none of them, unless it charges what they say:
//! then they are flushed. A call that nobody waits for any more is written down too: it may have been billed. Where a limit is about
//! a call that no journal has, an entry is on disk while somebody is asked, with the most that it can use, so that a node that dies
//! in the middle of it does not forget it; its end takes that entry's place. Before, and while it waits after somebody who did not
//! bill it, nothing is set aside for it there.
//!
//! A turn for which a model was asked twice has two entries: each is a call that is billed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use helix_messages::{Asking, OnBehalf, ReadRequest, Records, Write};
use helix_ports::{DeltaSink, Extent, FaultScope, ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{
    CallOutcome, Code, Failure, ModelCall, ModelCallId, ModelReply, ModelRequest, Spent, TaskId, Timestamp, Usage, WireFormat,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::pool::Pool;
use crate::{drive, forward, insist, router};

/// Entries that may wait to be written. Beyond, calls that end wait for the records.
const WAITING: usize = 4_096;
/// Most entries of one write.
const GROUP: usize = 256;
/// How long the first entry waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// How long a call may go on for which a task's charge waits. What asked for it is gone by then, so it has just ended or is about
/// to.
const ENDING: Duration = Duration::from_secs(5);

/// Where entries go.
#[derive(Clone)]
pub(crate) struct Ledger {
    lines: mpsc::Sender<Line>,
    under_way: Calls,
    records: Option<Records>,
}

enum Line {
    Call(Box<ModelCall>),
    /// Somebody waits until all before it is written.
    Flush(oneshot::Sender<()>),
}

/// How many calls are under way for each task.
type Calls = Arc<watch::Sender<HashMap<TaskId, usize>>>;

/// A call for a task. Ends with the value.
struct UnderWay {
    calls: Calls,
    task: TaskId,
}

impl UnderWay {
    fn new(calls: &Calls, task: TaskId) -> Self {
        calls.send_modify(|calls| *calls.entry(task).or_default() += 1);
        Self { calls: Arc::clone(calls), task }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.send_modify(|calls| {
            let count = calls.get_mut(&self.task).expect("it is counted from its beginning to here");
            *count -= 1;
            if *count == 0 {
                calls.remove(&self.task);
            }
        });
    }
}

impl Ledger {
    /// A ledger, and the work that keeps it.
    pub fn new(records: Option<Records>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (lines, waiting) = mpsc::channel(WAITING);
        (Self { lines, under_way: Calls::default(), records: records.clone() }, keep(records, waiting))
    }

    /// Waits until the calls for a task have ended, for a while, and are on disk.
    pub async fn flush(&self, task: TaskId) {
        let mut under_way = self.under_way.subscribe();
        if timeout(ENDING, under_way.wait_for(|calls| !calls.contains_key(&task))).await.is_err() {
            tracing::warn!(%task, "a model call goes on beyond the turn that made it: the task's next turn is charged for it, if it has one");
        }
        let (tell, flushed) = oneshot::channel();
        // An error means that the branch is stopping.
        if self.lines.send(Line::Flush(tell)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// An entry for a call that begins.
    pub fn entry(&self, on_behalf: OnBehalf) -> Entry {
        let (id, asking) = match &on_behalf.set_aside {
            Some((id, _, asking)) => (*id, asking.clone()),
            None => (ModelCallId::new(), Asking::default()),
        };
        Entry {
            ledger: self.clone(),
            _under_way: on_behalf.task.map(|task| UnderWay::new(&self.under_way, task)),
            id,
            on_behalf,
            began: Instant::now(),
            asking,
            unused: Unused::default(),
            feared: false,
            provider: String::new(),
            model: String::new(),
            most: None,
        }
    }
}

async fn keep(records: Option<Records>, mut waiting: mpsc::Receiver<Line>) {
    let mut lines = Vec::new();
    while waiting.recv_many(&mut lines, GROUP).await > 0 {
        let until = Instant::now() + GATHER;
        while lines.len() < GROUP && lines.iter().all(|line| matches!(line, Line::Call(_))) {
            match timeout_at(until, waiting.recv()).await {
                Ok(Some(line)) => lines.push(line),
                Ok(None) | Err(_) => break,
            }
        }
        let (mut group, mut told) = (Vec::new(), Vec::new());
        for line in lines.drain(..) {
            match line {
                Line::Call(call) => group.push(*call),
                Line::Flush(tell) => told.push(tell),
            }
        }
        let count = group.len();
        if let Some(records) = records.as_ref().filter(|_| count > 0)
            && let Err(failure) = records.write(Write::ModelCalls(group)).await
        {
            tracing::error!(count, %failure, "model calls could not be entered into the ledger");
        }
        for tell in told {
            // Whoever left does not wait.
            let _ = tell.send(());
        }
    }
}

/// An answer that was paid for and cannot be used, where the model is asked once more.
#[derive(Clone, Default)]
pub(crate) struct Unused(Arc<Mutex<Option<UnusedAnswer>>>);

#[derive(Clone)]
struct UnusedAnswer {
    model: String,
    usage: Usage,
    at: Timestamp,
    ended: Instant,
}

impl Unused {
    /// Notes that it has just come.
    pub fn note(&self, reply: &ModelReply) {
        let (model, usage) = (reply.model.clone(), reply.usage);
        *self.0.lock() = Some(UnusedAnswer { model, usage, at: Timestamp::now(), ended: Instant::now() });
    }

    fn get(&self) -> Option<UnusedAnswer> {
        self.0.lock().clone()
    }
}

/// One call. Dropped while somebody is asked it is entered as uncertain.
pub(crate) struct Entry {
    ledger: Ledger,
    /// Until the entry has been handed on, whatever way.
    _under_way: Option<UnderWay>,
    id: ModelCallId,
    on_behalf: OnBehalf,
    began: Instant,
    /// Whether somebody is asked.
    asking: Asking,
    /// The answer before the one that is waited for, where there was one.
    unused: Unused,
    /// What was set aside for it is on disk.
    feared: bool,
    /// Who was asked last; empty before.
    provider: String,
    /// The model that was asked last; before, what the request names.
    model: String,
    /// The most that it can use, while nobody knows how it ends.
    most: Option<Usage>,
}

impl Entry {
    /// Answers a turn and writes it down.
    pub async fn generate(
        mut self,
        pool: &Pool,
        request: ModelRequest,
        deltas: Option<DeltaSink>,
    ) -> Result<ModelReply, ProviderError> {
        let named = request.model.as_ref().or(request.provider.as_ref());
        self.model = named.cloned().unwrap_or_default();
        let quote = router::quote(pool, &request, Extent::default()).ok();
        let most = quote.map(|quote| at_most(quote.most.known())).unwrap_or_default();
        self.most = Some(most);
        let answer = drive::generate(pool, request, deltas, &mut self).await;
        self.most = None;
        match &answer {
            Ok(answer) => {
                let outcome = if answer.reused { CallOutcome::Reused } else { CallOutcome::Answered };
                self.model.clone_from(&answer.reply.model);
                self.write(answer.reply.usage, outcome, None).await;
            }
            Err(error) => self.write_failed(error, most).await,
        }
        answer.map(|answer| match self.unused.get() {
            Some(first) => ModelReply { usage: insist::together(&first.usage, &answer.reply.usage), ..answer.reply },
            None => answer.reply,
        })
    }

    /// Passes bytes on and writes down how that ended once they have passed. A request that has to be translated is no call yet.
    pub async fn forward(
        mut self,
        pool: &Arc<Pool>,
        session: Option<String>,
        format: WireFormat,
        call: RawCall,
        read: ReadRequest,
    ) -> Result<Option<RawAnswer>, ProviderError> {
        // Where nothing was set aside, the most that bytes can use is a guess: a token has three of them at least.
        let guess = Usage { input_tokens: call.body.len() as u64 / 3, estimated: true, ..Usage::default() };
        let most = self.on_behalf.set_aside.as_ref().map_or(guess, |(_, most, _)| at_most(*most));
        let counts = call.operation == RawOperation::CountTokens;
        self.model.clone_from(&call.model);
        let answer = match forward::speakers(pool, session.as_deref(), format, &call, read) {
            Ok(None) => return Ok(None),
            Ok(Some(speakers)) => {
                self.most = (!counts).then_some(most);
                forward::forward(pool, session, speakers, call, &mut self).await
            }
            Err(error) => Err(error),
        };
        self.most = None;
        match &answer {
            _ if counts => {}
            Ok(Some(RawAnswer { fault: Some(error), .. })) | Err(error) => self.write_failed(error, most).await,
            Ok(Some(_)) => return answer.map(|answer| answer.map(|answer| self.metered(most, answer))),
            Ok(None) => self.waits().await,
        }
        answer
    }

    /// The answer, whose end is written down.
    fn metered(mut self, most: Usage, answer: RawAnswer) -> RawAnswer {
        self.most = Some(most);
        let (told, heard) = oneshot::channel();
        let ended = answer.ended;
        tokio::spawn(async move {
            // Where nobody can say, the entry is dropped as uncertain.
            let Some(ended) = ended.await else { return };
            self.most = None;
            match &ended {
                Ok(used) => self.write(*used, CallOutcome::Answered, None).await,
                Err(error) => self.write_failed(error, most).await,
            }
            // Nobody asks how it ended.
            let _ = told.send(ended);
        });
        RawAnswer { ended: async { heard.await.ok() }.boxed(), ..answer }
    }

    /// Enters how it ended, and before it the answer that was not used.
    async fn write(&self, usage: Usage, outcome: CallOutcome, code: Option<Code>) {
        for call in self.first().into_iter().chain([self.call(usage, outcome, code)]) {
            // An error means that the branch is stopping.
            let _ = self.ledger.lines.send(Line::Call(Box::new(call))).await;
        }
    }

    async fn write_failed(&self, error: &ProviderError, most: Usage) {
        let (usage, outcome) = match error {
            ProviderError::Uncertain(_) if !self.asking.give_up() => (self.left(most), CallOutcome::Uncertain),
            _ => (Usage::default(), CallOutcome::Failed),
        };
        self.write(usage, outcome, Some(error.failure().code)).await;
    }

    /// What is left of the most that a turn can use, without what its first answer used.
    fn left(&self, most: Usage) -> Usage {
        let spent = |usage: &Usage| Spent { money: usage.cost, tokens: usage.total_tokens() };
        self.unused.get().map_or(most, |first| at_most(spent(&most).minus(spent(&first.usage))))
    }

    /// Where an answer that cannot be used is noted.
    pub fn unused(&self) -> Unused {
        self.unused.clone()
    }

    /// Whether somebody is asked, for whoever asks.
    pub fn asking(&self) -> Asking {
        self.asking.clone()
    }

    /// This one is asked next: what was set aside for the call is on disk before.
    pub async fn asks(&mut self, provider: &str, model: &str) -> Result<(), ProviderError> {
        (self.provider, self.model) = (provider.to_owned(), model.to_owned());
        let Some((_, most, _)) = &self.on_behalf.set_aside else { return Ok(()) };
        let entry = self.call(at_most(*most), CallOutcome::Uncertain, None);
        let unwritten = |failure| ProviderError::Retryable { failure, retry_after: None, scope: FaultScope::Provider };
        self.at_once(entry).await.map_err(unwritten)?;
        self.feared = true;
        Ok(())
    }

    /// Whoever was asked certainly did not bill the call.
    pub fn not_billed(&self) {
        self.asking.end();
    }

    /// Nobody is asked for a while: what was set aside on disk is taken back.
    pub async fn waits(&mut self) {
        if !std::mem::take(&mut self.feared) {
            return;
        }
        // Uncertain, because only such an entry gives way to that of the next try.
        let entry = self.call(Usage::default(), CallOutcome::Uncertain, None);
        if let Err(failure) = self.at_once(entry).await {
            tracing::error!(%failure, "what was set aside for a call that nobody took stays in the ledger");
        }
    }

    async fn at_once(&self, entry: ModelCall) -> Result<(), Failure> {
        let Some(records) = &self.ledger.records else { return Ok(()) };
        records.write(Write::ModelCalls(vec![entry])).await.map(drop)
    }

    fn call(&self, usage: Usage, outcome: CallOutcome, code: Option<Code>) -> ModelCall {
        let OnBehalf { owner, project, actor, task, step, key, .. } = self.on_behalf.clone();
        let began = self.unused.get().map_or(self.began, |first| first.ended);
        let (id, at, latency_ms) = (self.id, Timestamp::now(), milliseconds(began.elapsed()));
        let (provider, model) = (self.provider.clone(), self.model.clone());
        ModelCall { id, at, owner, project, actor, task, step, key, provider, model, usage, latency_ms, outcome, code }
    }

    /// The entry of the answer that was not used.
    fn first(&self) -> Option<ModelCall> {
        let UnusedAnswer { model, usage, at, ended } = self.unused.get()?;
        let (id, latency_ms) = (ModelCallId::new(), milliseconds(ended - self.began));
        Some(ModelCall { id, at, model, latency_ms, ..self.call(usage, CallOutcome::Answered, None) })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The usage of a call of which only the most that it can use is known.
fn at_most(most: Spent) -> Usage {
    Usage { input_tokens: most.tokens, cost: most.money, estimated: true, ..Usage::default() }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(most) = self.most.take() else { return };
        let (usage, outcome) =
            if self.asking.give_up() { (Usage::default(), CallOutcome::Failed) } else { (self.left(most), CallOutcome::Uncertain) };
        for call in self.first().into_iter().chain([self.call(usage, outcome, Some(Code::Cancelled))]) {
            if self.ledger.lines.try_send(Line::Call(Box::new(call))).is_err() {
                tracing::warn!("a call that was given up is not in the ledger: too many wait to be entered");
            }
        }
    }
}
