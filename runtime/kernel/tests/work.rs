//! Work that an actor starts: its result is a message, and it ends with the actor.

mod probe;

use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Backoff, ChildSpec, Reply, Strategy, SupervisorSpec, Work, start};
use probe::{LONG, Record};

enum ErrandsMsg {
    Run { seconds: u64, name: &'static str },
    RunAndPanic,
    Running { reply: Reply<usize> },
    Done(&'static str),
    Fail,
}

struct ErrandsActor;

struct ErrandsState {
    work: Work<ErrandsMsg>,
    record: Record,
}

/// Notes that it was dropped before it was done.
struct Errand {
    record: Record,
    name: &'static str,
    done: bool,
}

impl Errand {
    async fn run(mut self, seconds: u64) -> ErrandsMsg {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.done = true;
        ErrandsMsg::Done(self.name)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if !self.done {
            self.record.note(format!("aborted {}", self.name));
        }
    }
}

impl Actor for ErrandsActor {
    type Msg = Admitted<ErrandsMsg>;
    type State = ErrandsState;
    type Arguments = Record;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, record: Record) -> Result<ErrandsState, ActorProcessingErr> {
        record.note("started");
        Ok(ErrandsState { work: Work::of(&myself), record })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut ErrandsState,
    ) -> Result<(), ActorProcessingErr> {
        match message.take() {
            ErrandsMsg::Run { seconds, name } => {
                let errand = Errand { record: state.record.clone(), name, done: false };
                state.work.start(errand.run(seconds));
            }
            ErrandsMsg::RunAndPanic => {
                state.work.start(async { panic!("as told") });
            }
            ErrandsMsg::Running { reply } => reply.send(Ok(state.work.running()))?,
            ErrandsMsg::Done(name) => state.record.note(format!("done {name}")),
            ErrandsMsg::Fail => return Err("as told".into()),
        }
        Ok(())
    }
}

async fn errands(record: &Record) -> Address<ErrandsMsg> {
    let address = Address::unbound("errands", 8);
    let record = record.clone();
    let child = ChildSpec::actor("errands", &address, move || (ErrandsActor, record.clone()))
        .backoff(Backoff { first: Duration::from_millis(1), most: Duration::from_secs(1) });
    start(SupervisorSpec::new("root", Strategy::OneForOne).child(child)).await.expect("it starts");
    address
}

#[tokio::test(start_paused = true)]
async fn results_arrive_as_messages_and_the_actor_answers_meanwhile() {
    let record = Record::new();
    let address = errands(&record).await;
    address.tell(ErrandsMsg::Run { seconds: 20, name: "slow" }).expect("it runs");
    address.tell(ErrandsMsg::Run { seconds: 10, name: "quick" }).expect("it runs");
    let running = || address.ask(LONG, |reply| ErrandsMsg::Running { reply });
    assert_eq!(running().await, Ok(2));
    record.until(&["started", "done quick", "done slow"]).await;
    assert_eq!(running().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn work_is_aborted_when_its_actor_ends_and_its_result_never_reaches_the_next_incarnation() {
    let record = Record::new();
    let address = errands(&record).await;
    address.tell(ErrandsMsg::Run { seconds: 3600, name: "long" }).expect("it runs");
    assert_eq!(address.ask(LONG, |reply| ErrandsMsg::Running { reply }).await, Ok(1));
    address.tell(ErrandsMsg::Fail).expect("it runs");
    record.until(&["started", "aborted long", "started"]).await;
    tokio::time::advance(Duration::from_secs(7200)).await;
    assert_eq!(address.ask(LONG, |reply| ErrandsMsg::Running { reply }).await, Ok(0));
    assert_eq!(record.all(), ["started", "aborted long", "started"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_work_is_the_actors_failure() {
    let record = Record::new();
    let address = errands(&record).await;
    address.tell(ErrandsMsg::RunAndPanic).expect("it runs");
    record.until(&["started", "started"]).await;
}
