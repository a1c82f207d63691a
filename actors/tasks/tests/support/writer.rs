//! The writer of the records, with faults at chosen writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use helix_database::{RecordStore, Write};
use helix_kernel::Admitted;
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_messages::{Events, RecordsMsg};
use helix_protocol::{Code, Failure};
use parking_lot::Mutex;

/// What happens at one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not happen, and its caller hears that the database is away.
    Refused,
    /// It does not happen, because the disk is full.
    Full,
    /// It happens, and its answer is lost.
    AnswerLost,
    /// The node dies just before it.
    DeathBefore,
    /// The node dies just after it: it happened, nobody heard.
    DeathAfter,
    /// It stays on its way for so many milliseconds, while others overtake it.
    Late(u64),
}

#[derive(Default)]
struct State {
    count: u64,
    planned: BTreeMap<u64, Fault>,
    cut: bool,
    log: Vec<String>,
    died: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Shared by the test and every incarnation of the writer.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// At write number `at`, counted from 0 over the life of the world.
    pub fn plan(&self, at: u64, fault: Fault) {
        self.0.lock().planned.insert(at, fault);
    }

    pub fn writes(&self) -> u64 {
        self.0.lock().count
    }

    pub fn log(&self) -> Vec<String> {
        self.0.lock().log.clone()
    }

    /// Nothing is written until it is mended.
    pub fn cut(&self) {
        self.0.lock().cut = true;
    }

    pub fn mend(&self) {
        self.0.lock().cut = false;
    }

    /// Told when a planned death has happened.
    pub fn on_death(&self) -> tokio::sync::oneshot::Receiver<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.0.lock().died = Some(sender);
        receiver
    }

    fn next(&self, write: &Write) -> Option<Fault> {
        let mut state = self.0.lock();
        if state.cut {
            return Some(Fault::DeathBefore);
        }
        let at = state.count;
        state.count += 1;
        let text = format!("{write:?}");
        state.log.push(text.split([' ', '(', '{']).next().unwrap_or_default().to_owned());
        let fault = state.planned.remove(&at);
        if matches!(fault, Some(Fault::DeathBefore | Fault::DeathAfter)) {
            state.cut = true;
            if let Some(died) = state.died.take() {
                let _ = died.send(());
            }
        }
        fault
    }
}

pub struct FakeWriter;

impl Actor for FakeWriter {
    type Msg = Admitted<RecordsMsg>;
    type State = (Arc<dyn RecordStore>, Events, Faults);
    type Arguments = (Arc<dyn RecordStore>, Events, Faults);

    async fn pre_start(&self, _: ActorRef<Self::Msg>, args: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        (store, events, faults): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let RecordsMsg::Write { write, reply } = message.take() else { return Ok(()) };
        let fault = faults.next(&write);
        let away = || Failure::new(Code::DatabaseUnavailable, "the test took the database away");
        match fault {
            Some(Fault::Refused) => drop(reply.send(Err(away()))),
            Some(Fault::Full) => drop(reply.send(Err(Failure::new(Code::DiskFull, "the test filled the disk")))),
            // Nobody is there to hear anything.
            Some(Fault::DeathBefore) => std::mem::forget(reply),
            Some(Fault::Late(ms)) => {
                let store = Arc::clone(store);
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
                    let applied = store.apply(vec![*write]).await.map(|mut answers| answers.remove(0));
                    let _ = reply.send(applied.and_then(|applied| applied).map_err(Failure::from));
                });
            }
            Some(Fault::AnswerLost | Fault::DeathAfter) | None => {
                let applied = store.apply(vec![*write]).await?.remove(0);
                match fault {
                    Some(Fault::AnswerLost) => drop(reply.send(Err(away()))),
                    Some(_) => std::mem::forget(reply),
                    None => {
                        if let Ok(applied) = &applied {
                            events.publish(applied.events());
                        }
                        let _ = reply.send(applied.map_err(Failure::from));
                    }
                }
            }
        }
        Ok(())
    }
}
