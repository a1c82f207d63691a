//! What the ledger says of a call that did not end in an answer, and what of it stays set aside.

use bytes::Bytes;
use helix_database::{LedgerFilter, MemoryStore, RecordStore};
use helix_kernel::{Admitted, ChildSpec, Strategy, SupervisorSpec, actor};
use helix_messages::{Asking, OnBehalf, Records, RecordsMsg};
use helix_ports::RawOperation;
use helix_protocol::{CallOutcome, ModelCall, ModelCallId, Spent, TaskId};

use super::*;

/// Applies writes as the writer does.
struct Writer;

impl actor::Actor for Writer {
    type Msg = Admitted<RecordsMsg>;
    type State = Arc<MemoryStore>;
    type Arguments = Arc<MemoryStore>;

    async fn pre_start(
        &self,
        _: actor::ActorRef<Self::Msg>,
        store: Arc<MemoryStore>,
    ) -> Result<Arc<MemoryStore>, actor::ActorProcessingErr> {
        Ok(store)
    }

    async fn handle(
        &self,
        _: actor::ActorRef<Self::Msg>,
        message: Self::Msg,
        store: &mut Arc<MemoryStore>,
    ) -> Result<(), actor::ActorProcessingErr> {
        if let RecordsMsg::Write { write, reply } = message.take() {
            let answer = store.apply(vec![*write]).await.expect("memory answers").remove(0);
            drop(reply.send(answer.map_err(Failure::from)));
        }
        Ok(())
    }
}

/// The group `team` of these over a ledger.
pub(super) struct Entered {
    pub models: Models,
    store: Arc<MemoryStore>,
    _handles: [SupervisorHandle; 2],
}

/// What is set aside for each call.
const MOST: Spent = Spent { money: Money(700), tokens: 600 };

/// In which way a call is made.
#[derive(Clone, Copy, Debug)]
enum Way {
    Translated,
    Passing,
}

impl Entered {
    pub async fn new(providers: &[&Arc<FakeProvider>], limits: Limits) -> Self {
        let (store, writer) = (Arc::new(MemoryStore::new()), Address::unbound("records", 64));
        let records = Records::new(writer.clone(), store.clone(), Duration::from_secs(5));
        let kept = Arc::clone(&store);
        let writing = SupervisorSpec::new("storage", Strategy::OneForOne);
        let writing = writing.child(ChildSpec::actor("records", &writer, move || (Writer, Arc::clone(&kept))));
        let writing = start(writing).await.expect("starts");
        let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
        let team = group(RoutingStrategy::RoundRobin, &names, &[]);
        let (models, handle) = written_down(providers, team, limits, Some(records)).await;
        Self { models, store, _handles: [writing, handle] }
    }

    /// Makes a call for which something is set aside.
    async fn ask(&self, way: Way, asking: &Asking) -> Option<ProviderError> {
        let set_aside = Some((ModelCallId::new(), MOST, asking.clone()));
        let models = self.models.on_behalf(OnBehalf { set_aside, ..OnBehalf::default() });
        match way {
            Way::Translated => models.generate(request(Some("team")), None).await.err(),
            Way::Passing => {
                let (operation, model) = (RawOperation::Generate, "team".to_owned());
                let call = RawCall { operation, model, headers: Vec::new(), body: Bytes::from_static(b"bytes") };
                let answer = models.forward(None, WireFormat::OpenaiChat, call, Box::new(|| None)).await;
                answer.map_or_else(Some, |answer| answer.and_then(|answer| answer.fault))
            }
        }
    }

    pub async fn ledger(&self) -> Vec<ModelCall> {
        self.store.ledger(LedgerFilter { limit: 10, ..LedgerFilter::default() }).await.expect("memory answers")
    }

    async fn charged(&self) -> Spent {
        self.store.ledger_spent(LedgerFilter::default()).await.expect("memory answers")
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_charged_while_somebody_is_asked_and_is_free_before_and_while_it_waits() {
    for way in [Way::Translated, Way::Passing] {
        let a = FakeProvider::new("a", [busy(Some(60))]);
        let (entered, asking) = (Entered::new(&[&a], Limits::default()).await, Asking::default());
        let leaves_at = CALL + CALL / 2;
        let (left, charged) = tokio::join!(tokio::time::timeout(leaves_at, entered.ask(way, &asking)), async {
            sleep(CALL / 2).await;
            let under_way = entered.charged().await;
            sleep(CALL / 2 + CALL / 4).await;
            (under_way, entered.charged().await)
        });
        assert!(left.is_err(), "its client went away while it waited: {left:?}");
        assert_eq!(charged, (MOST, Spent::default()), "{way:?}");
        assert!(asking.give_up(), "nothing stays set aside");
        sleep(CALL).await;
        let ledger = entered.ledger().await;
        let told: Vec<_> = ledger.iter().map(|call| (call.outcome, call.code, call.usage)).collect();
        assert_eq!(told, [(CallOutcome::Failed, Some(Code::Cancelled), Usage::default())], "{way:?}");
        sleep(Duration::from_secs(120)).await;
        assert_eq!(a.calls(), 1, "nobody is asked for it any more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_is_free_and_one_that_was_given_up_does_not_take_it() {
    let a = FakeProvider::new("a", []);
    let entered = Entered::new(&[&a], Limits { concurrency: 1, ..Limits::default() }).await;
    let (first, second) = (Asking::default(), Asking::default());
    let (answered, given_up) = tokio::join!(entered.ask(Way::Translated, &first), async {
        sleep(CALL / 4).await;
        let waiting = entered.ask(Way::Translated, &second);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(CALL / 4, &mut waiting).await.is_err());
        assert!(second.give_up() && !first.give_up(), "only the first is asked");
        waiting.await
    });
    assert_eq!(answered, None);
    assert!(matches!(given_up, Some(ProviderError::Final(failure)) if failure.code == Code::Cancelled));
    assert_eq!(a.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_somebody_is_asked_is_charged_in_full() {
    for way in [Way::Translated, Way::Passing] {
        let a = FakeProvider::new("a", []);
        let (entered, asking) = (Entered::new(&[&a], Limits::default()).await, Asking::default());
        assert!(tokio::time::timeout(CALL / 2, entered.ask(way, &asking)).await.is_err());
        assert!(!asking.give_up());
        sleep(CALL).await;
        let told: Vec<_> = entered.ledger().await.iter().map(|call| (call.outcome, call.code)).collect();
        assert_eq!(told, [(CallOutcome::Uncertain, Some(Code::Cancelled))], "{way:?}");
        assert_eq!(entered.charged().await, MOST);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_names_whoever_was_asked_last_however_the_call_ended() {
    let failure = || Failure::new(Code::ModelFailed, "cut");
    let ends = [
        (ProviderError::Uncertain(failure()), CallOutcome::Uncertain),
        (ProviderError::Final(failure()), CallOutcome::Failed),
        (ProviderError::Elsewhere(failure()), CallOutcome::Failed),
    ];
    // One that answers with a refusal, and one whose connection is cut.
    for (way, last) in [(Way::Translated, "b"), (Way::Passing, "b"), (Way::Passing, "cut")] {
        let names = async |entered: &Entered| {
            let ledger = entered.ledger().await;
            let entry = ledger.first().expect("one entry");
            assert_eq!((ledger.len(), entry.provider.as_str(), entry.model.as_str()), (1, last, "small"), "{way:?}");
            entry.outcome
        };
        for (error, outcome) in ends.clone() {
            let (a, b) = (FakeProvider::new("a", [refused()]), FakeProvider::new(last, [Err(error)]));
            let entered = Entered::new(&[&a, &b], Limits::default()).await;
            assert!(entered.ask(way, &Asking::default()).await.is_some());
            sleep(CALL).await;
            assert_eq!(names(&entered).await, outcome);
        }
        let (a, b) = (FakeProvider::new("a", [refused()]), FakeProvider::new(last, []));
        let entered = Entered::new(&[&a, &b], Limits::default()).await;
        let asking = Asking::default();
        let (left, ()) = tokio::join!(tokio::time::timeout(CALL + CALL / 2, entered.ask(way, &asking)), async {
            sleep(CALL + CALL / 4).await;
            assert_eq!(names(&entered).await, CallOutcome::Uncertain, "on disk before it is asked");
        });
        assert!(left.is_err());
        sleep(CALL).await;
        assert_eq!(names(&entered).await, CallOutcome::Uncertain);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_charges_a_task_waits_for_its_calls_and_for_no_other_and_finds_them_in_the_ledger() {
    let a = FakeProvider::new("a", []);
    let entered = Entered::new(&[&a], Limits::default()).await;
    let (mine, other) = (TaskId::new(), TaskId::new());
    let call = |task| {
        let models = entered.models.on_behalf(OnBehalf { task: Some(task), ..OnBehalf::default() });
        async move { models.generate(request(Some("team")), None).await.expect("it is answered") }
    };
    let began = tokio::time::Instant::now();
    let waits = async {
        sleep(CALL / 2).await;
        entered.models.flush_ledger(other).await.expect("answered");
        assert_eq!(began.elapsed(), CALL / 2, "nothing is under way for it");
        entered.models.flush_ledger(mine).await.expect("answered");
        assert_eq!(began.elapsed(), CALL, "it does not wait for others to gather");
        entered.ledger().await.len()
    };
    assert_eq!(tokio::join!(call(mine), waits).1, 1);

    let (left, ()) = tokio::join!(tokio::time::timeout(CALL / 2, call(mine)), async {
        sleep(CALL / 4).await;
        entered.models.flush_ledger(mine).await.expect("answered");
    });
    assert!(left.is_err(), "its client went away");
    let told: Vec<_> = entered.ledger().await.iter().map(|call| call.outcome).collect();
    assert_eq!(told, [CallOutcome::Uncertain, CallOutcome::Answered]);
}
