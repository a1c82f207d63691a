//! The fleet's face: routes requests to workers, and tells the tasks branch what becomes of them.
//!
//! Parent: `fleet`. Restart: permanent. What survives is in the records and in the directory of lines.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, Boottime, Reply};
use helix_messages::{FleetMsg, Tasks, WorkerView};
use helix_objects::{ObjectStore, Pin};
use helix_protocol::{Code, Failure, Lifecycle, WorkerId};

use crate::courier::{Courier, News};
use crate::directory::Directory;
use crate::line::{Call, Line};
use crate::provision::ProvisionMsg;
use crate::transfer;
use crate::worker::WorkerMsg;

/// What the actor is started with, each time anew.
#[derive(Clone)]
pub(crate) struct FleetActorArgs {
    pub directory: Arc<Directory>,
    pub provisioner: Address<ProvisionMsg>,
    pub objects: Arc<dyn ObjectStore>,
    pub tasks: Tasks,
    /// The node's start: silence before it does not count.
    pub since: Boottime,
}

/// The actor.
pub(crate) struct FleetActor;

pub(crate) struct FleetState {
    args: FleetActorArgs,
    courier: Courier,
    /// As the tasks branch was told last.
    lifecycles: HashMap<WorkerId, Lifecycle>,
}

impl Actor for FleetActor {
    type Msg = Admitted<FleetMsg>;
    type State = FleetState;
    type Arguments = FleetActorArgs;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, args: FleetActorArgs) -> Result<FleetState, ActorProcessingErr> {
        let records = args.directory.records().read().workers().await?;
        let lifecycles = records.iter().map(|record| (record.id, record.lifecycle)).collect();
        for record in records {
            args.directory.employ(Arc::new(Line::new(record)), args.since, None).await?;
        }
        let courier = Courier::start(Arc::clone(&args.directory), args.tasks.clone());
        courier.post(News::Changed);
        Ok(FleetState { args, courier, lifecycles })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut FleetState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            FleetMsg::Add { worker, reply } => state.provision(ProvisionMsg::Add { worker, reply }),
            FleetMsg::Remove { worker, force, reply } => state.provision(ProvisionMsg::Remove { worker, force, reply }),
            FleetMsg::List { reply } => answer(reply, Ok(state.args.directory.views())),
            FleetMsg::SetLifecycle { worker, lifecycle, reply } => state.set_lifecycle(worker, lifecycle, reply),
            FleetMsg::Request { worker, request, timeout, reply } => {
                state.call(
                    worker,
                    timeout,
                    reply,
                    |mut call| async move { call.ask(*request).await.map(|(response, _)| response) },
                );
            }
            FleetMsg::Open { worker, open, reply } => {
                let objects = Arc::clone(&state.args.objects);
                state.call(worker, None, reply, |call| transfer::open(call, objects, *open));
            }
            FleetMsg::Snapshot { worker, task, epoch, since, artifacts, reply } => {
                let (objects, pin) = (Arc::clone(&state.args.objects), Pin { task, epoch });
                state.call(worker, None, reply, |call| transfer::snapshot(call, objects, pin, since, artifacts));
            }
            FleetMsg::ConnectionChanged { view } => state.changed(&view),
            FleetMsg::ConnectionLost { lost } => state.courier.post(News::Lost(lost)),
        }
        Ok(())
    }
}

impl FleetState {
    fn provision(&self, message: ProvisionMsg) {
        // Where the provisioner is being restarted the reply is dropped with the message, which answers "try again".
        if let Err(failure) = self.args.provisioner.tell(message) {
            tracing::warn!(%failure, "the provisioner takes no work at present");
        }
    }

    fn set_lifecycle(&self, worker: WorkerId, lifecycle: Lifecycle, reply: Reply<WorkerView>) {
        match self.args.directory.line(worker) {
            Ok(line) => {
                if let Err(failure) = line.address().tell(WorkerMsg::SetLifecycle { lifecycle, reply }) {
                    tracing::warn!(%failure, worker = line.name(), "the worker's connection takes no message at present");
                }
            }
            Err(failure) => answer(reply, Err(failure)),
        }
    }

    /// Starts a call on a worker's line. It runs by itself, so a busy or silent worker holds nobody up.
    fn call<T, F>(&self, worker: WorkerId, limit: Option<Duration>, reply: Reply<T>, start: impl FnOnce(Call) -> F)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let line = match self.args.directory.line(worker) {
            Ok(line) => line,
            Err(failure) => return answer(reply, Err(failure)),
        };
        match line.call() {
            Err(failure) => answer(reply, Err(failure)),
            Ok(call) => {
                let work = start(call);
                tokio::spawn(async move { answer(reply, within(limit, line.name(), work).await) });
            }
        }
    }

    fn changed(&mut self, view: &WorkerView) {
        let record = &view.record;
        let told = self.lifecycles.insert(record.id, record.lifecycle);
        self.courier.post(News::Changed);
        if told.unwrap_or_default() != record.lifecycle {
            self.courier.post(News::Lifecycle(record.id, record.lifecycle));
        }
    }
}

async fn within<T>(limit: Option<Duration>, worker: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let Some(limit) = limit else { return work.await };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Failure::new(Code::TimedOut, format!("worker {worker} did not answer within {} ms", limit.as_millis()))
            .hint("the request may still be carried out; asking again with the same key is safe"))
    })
}

/// Answers. An error means that the asker has gone, which is its right.
fn answer<T>(reply: Reply<T>, result: Result<T, Failure>) {
    let _ = reply.send(result);
}
