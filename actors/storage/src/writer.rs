//! The one writer of the records.
//!
//! Parent: storage, rest for one, permanent. Writes of many callers are gathered while a group is under way and applied as the next
//! one, so a sync is shared by everybody who waited for it. Nothing survives a restart and nothing has to: a caller whose answer is
//! lost repeats its write, which is then recognised. A write that is recognised answers with no events, so after a try whose
//! outcome nobody knows they are read from the records: who watches misses none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_database::{Applied, EventFilter, RecordError, RecordStore, Write};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Reply, Work};
use helix_messages::{Events, RecordsMsg, Untold};
use helix_protocol::Failure;

/// Most writes of one group: beyond that a longer transaction delays more than a shared sync saves.
const GROUP: usize = 256;
/// How long a group is repeated while the database is away before its callers are told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two repetitions at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many untold events are read at once.
const PAGE: u32 = 1_000;

type GroupAnswer = Result<Vec<Result<Applied, RecordError>>, RecordError>;

/// Gathers writes and applies them.
pub struct WriterActor;

/// What it stands on.
#[derive(Clone)]
pub struct WriterArgs {
    /// The records, open.
    pub records: Arc<dyn RecordStore>,
    /// Where recorded events are published.
    pub events: Events,
}

/// What waits, and who waits for the group under way.
pub struct WriterState {
    records: Arc<dyn RecordStore>,
    events: Events,
    waiting: VecDeque<(Write, Reply<Applied>)>,
    applying: Option<Vec<Reply<Applied>>>,
    /// Everything recorded is published: no try ended without an answer since.
    told: bool,
    /// What is untold is looked for in a while.
    later: bool,
    work: Work<RecordsMsg>,
}

impl Actor for WriterActor {
    type Msg = Admitted<RecordsMsg>;
    type State = WriterState;
    type Arguments = WriterArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: WriterArgs) -> Result<WriterState, ActorProcessingErr> {
        let WriterArgs { records, events } = args;
        // What an earlier incarnation had under way may have been recorded.
        let told = events.published().is_none();
        Ok(WriterState { records, events, waiting: VecDeque::new(), applying: None, told, later: false, work: Work::of(&myself) })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut WriterState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            RecordsMsg::Write { write, reply } => state.gather(*write, reply),
            RecordsMsg::GroupApplied { answers, untold } => state.answer(answers, untold),
            RecordsMsg::TellUntold => state.tell(),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut WriterState) -> Result<(), ActorProcessingErr> {
        // Draining has emptied the mailbox; what was gathered and not begun is refused by its dropped reply, and repeated.
        if state.applying.is_some() || !state.waiting.is_empty() {
            tracing::warn!(unanswered = state.waiting.len(), "the writer leaves with writes unanswered; their callers repeat them");
        }
        Ok(())
    }
}

impl WriterState {
    fn gather(&mut self, write: Write, reply: Reply<Applied>) {
        self.waiting.push_back((write, reply));
        self.begin();
    }

    /// Starts the next group unless one is under way.
    fn begin(&mut self) {
        if self.applying.is_some() || self.waiting.is_empty() {
            return;
        }
        let size = self.waiting.len().min(GROUP);
        let (group, replies) = self.waiting.drain(..size).unzip();
        self.applying = Some(replies);
        let (records, events, told) = (Arc::clone(&self.records), self.events.clone(), self.told);
        self.work.start(async move {
            match apply(&*records, &events, group, told).await {
                Ok((answers, untold)) => RecordsMsg::GroupApplied { answers: Ok(answers), untold },
                Err(error) => RecordsMsg::GroupApplied { answers: Err(error), untold: None },
            }
        });
    }

    fn answer(&mut self, answers: GroupAnswer, untold: Option<Untold>) {
        let replies = self.applying.take().unwrap_or_default();
        self.told = answers.is_ok() && untold.as_ref().is_none_or(|untold| untold.complete);
        match answers {
            Ok(answers) => {
                if let Some(untold) = &untold {
                    self.events.publish(&untold.events);
                }
                for (answer, reply) in answers.into_iter().zip(replies) {
                    if let (Ok(applied), None) = (&answer, &untold) {
                        self.events.publish(applied.events());
                    }
                    // An error means that the caller has gone away.
                    let _ = reply.send(answer.map_err(Failure::from));
                }
            }
            Err(error) => {
                let failure = Failure::from(error);
                for reply in replies {
                    let _ = reply.send(Err(failure.clone()));
                }
            }
        }
        self.begin();
        self.tell_later();
    }

    /// What could not be read is read again after a while: no group may come that would do it.
    fn tell_later(&mut self) {
        if !self.told && !self.later {
            self.later = true;
            self.work.start(async {
                tokio::time::sleep(LONGEST_PAUSE).await;
                RecordsMsg::TellUntold
            });
        }
    }

    fn tell(&mut self) {
        self.later = false;
        if self.applying.is_some() {
            // The group under way does it.
            return self.tell_later();
        }
        if self.told || self.events.published().is_none() {
            return;
        }
        self.applying = Some(Vec::new());
        let (records, events) = (Arc::clone(&self.records), self.events.clone());
        self.work.start(async move {
            let untold = untold(&*records, events.published().unwrap_or_default()).await;
            RecordsMsg::GroupApplied { answers: Ok(Vec::new()), untold: Some(untold) }
        });
    }
}

/// What every member of a group was answered, and the events that are in no answer.
type Outcome = (Vec<Result<Applied, RecordError>>, Option<Untold>);

/// Applies a group, again and again while the database is away or its disk is full: every write may be repeated.
async fn apply(records: &dyn RecordStore, events: &Events, group: Vec<Write>, mut told: bool) -> Result<Outcome, RecordError> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match apply_once(records, events, &group, told).await {
            Err(error @ (RecordError::Unavailable(_) | RecordError::DiskFull(_))) => error,
            outcome => return outcome,
        };
        told = false;
        if started.elapsed() + pause > PATIENCE {
            return Err(error);
        }
        tracing::warn!(%error, writes = group.len(), "nothing is acknowledged until the records can be written");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn apply_once(records: &dyn RecordStore, events: &Events, group: &[Write], told: bool) -> Result<Outcome, RecordError> {
    if events.published().is_none() {
        events.begin_after(records.newest_event().await?);
    }
    let answers = records.apply(group.to_vec()).await?;
    let untold = if told { None } else { Some(untold(records, events.published().unwrap_or_default()).await) };
    Ok((answers, untold))
}

/// Everything that was recorded after this sequence, as far as it can be read now. The answers are known, so a read that
/// fails keeps nobody from them.
async fn untold(records: &dyn RecordStore, mut after: u64) -> Untold {
    let mut events = Vec::new();
    loop {
        let page = match records.events(EventFilter { after, task: None, limit: PAGE }).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "events that were recorded are told later");
                return Untold { events, complete: false };
            }
        };
        let Some(last) = page.last() else { return Untold { events, complete: true } };
        after = last.sequence;
        events.extend(page);
    }
}
