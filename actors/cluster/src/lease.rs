//! The node's lease.
//!
//! Parent: cluster. It is taken before anything else of the node starts, renewed three times in its length, and given back at an
//! orderly end. What survives a restart is the row.

use std::sync::Arc;
use std::time::Duration;

use helix_database::{NodeLease, RecordError, RecordStore};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Admitted, Work};
use helix_messages::Takeover;
use helix_protocol::{Code, Failure, NodeId};
use tokio::time::Instant;

/// How long a lease lasts.
const LENGTH_MS: u64 = 15_000;
/// Between two renewals.
const INTERVAL: Duration = Duration::from_millis(LENGTH_MS / 3);
/// Between two looks at a lease that somebody else holds: it may be that of a node that was killed.
const LOOK: Duration = Duration::from_millis(250);

/// What the actor tells itself.
pub enum LeaseMsg {
    /// A renewal was answered.
    Renewed {
        /// When it was asked for: the lease counts from here.
        asked: Instant,
        /// The answer.
        outcome: Result<Option<NodeLease>, RecordError>,
    },
}

/// Holds the lease.
pub struct LeaseActor;

/// What it stands on.
pub struct LeaseArgs {
    /// The records, open.
    pub records: Arc<dyn RecordStore>,
    /// This node.
    pub node: NodeId,
    /// Whether the next holder goes on with this node's tasks.
    pub takeover: Takeover,
}

/// The lease held.
pub struct LeaseState {
    records: Arc<dyn RecordStore>,
    node: NodeId,
    takeover: Takeover,
    /// When the lease that is held was asked for.
    held: Instant,
    work: Work<LeaseMsg>,
}

impl Actor for LeaseActor {
    type Msg = Admitted<LeaseMsg>;
    type State = LeaseState;
    type Arguments = LeaseArgs;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, args: LeaseArgs) -> Result<LeaseState, ActorProcessingErr> {
        let LeaseArgs { records, node, takeover } = args;
        let held = take(&*records, node).await?;
        let mut state = LeaseState { records, node, takeover, held, work: Work::of(&myself) };
        state.renew_later();
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, state: &mut LeaseState) -> Result<(), ActorProcessingErr> {
        match message.take() {
            LeaseMsg::Renewed { asked, outcome: Ok(Some(_)) } => {
                state.held = asked;
                state.renew_later();
            }
            LeaseMsg::Renewed { outcome: Ok(None), .. } => return Err(taken("took these records over").into()),
            LeaseMsg::Renewed { outcome: Err(error), .. } => {
                tracing::warn!(%error, "the node's lease could not be renewed");
                state.check()?;
                state.renew_later();
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut LeaseState) -> Result<(), ActorProcessingErr> {
        // Another node need not wait for the lease to run out. Where this fails it does.
        if let Err(error) = state.records.renew_node(state.node, 0).await {
            tracing::debug!(%error, "the node's lease could not be given back");
        }
        Ok(())
    }
}

impl LeaseState {
    fn renew_later(&mut self) {
        let (records, node) = (Arc::clone(&self.records), self.node);
        self.work.start(async move {
            tokio::time::sleep(INTERVAL).await;
            let asked = Instant::now();
            let outcome = tokio::time::timeout(INTERVAL, records.renew_node(node, LENGTH_MS)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(RecordError::Unavailable("a renewal was not answered".to_owned())));
            LeaseMsg::Renewed { asked, outcome }
        });
    }

    /// Where nobody takes this node's tasks over nothing has to stop: nothing can be acknowledged meanwhile, and whether another
    /// node came is seen when the records answer. Otherwise the node has to be gone by the time its lease is.
    fn check(&self) -> Result<(), Failure> {
        if self.takeover == Takeover::AfterLease && self.held.elapsed() + INTERVAL >= Duration::from_millis(LENGTH_MS) {
            let message = "this node could not renew its lease on the records, and another may take its tasks over";
            return Err(Failure::new(Code::DatabaseUnavailable, message).hint("start it again; it waits for the lease"));
        }
        Ok(())
    }
}

/// Takes the lease, for the time that a lease lasts; the branch renews it once it runs. One that somebody else holds is
/// waited for as long as a lease lasts: if its node was killed, it runs out. Answers with the instant from which it counts.
/// Refused with `node_running`.
pub async fn take(records: &dyn RecordStore, node: NodeId) -> Result<Instant, Failure> {
    let started = Instant::now();
    let limit = Duration::from_millis(LENGTH_MS) + 2 * LOOK;
    loop {
        let asked = Instant::now();
        if records.renew_node(node, LENGTH_MS).await?.is_some() {
            return Ok(asked);
        }
        if started.elapsed() > limit {
            return Err(taken("drives these records"));
        }
        if started.elapsed() < LOOK {
            tracing::info!("another node has a lease on these records; waiting to see whether it is renewed");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn taken(what: &str) -> Failure {
    Failure::new(Code::NodeRunning, format!("another node {what}"))
        .hint("one node drives a database at a time: stop the other one, or give this node a database of its own")
}

#[cfg(test)]
mod tests {
    use helix_database::MemoryStore;

    use super::*;
    use crate::{ClusterArgs, branch};

    fn node(records: &Arc<dyn RecordStore>) -> ClusterArgs {
        ClusterArgs { records: Arc::clone(records), node: NodeId::new(), takeover: Takeover::Never }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_node_on_the_same_records_does_not_start_while_the_first_renews() {
        let records: Arc<dyn RecordStore> = Arc::new(MemoryStore::with_clock(paused_clock()));
        let first = helix_kernel::start(branch(node(&records))).await.expect("nobody holds the lease");
        let Err(refused) = helix_kernel::start(branch(node(&records))).await else { panic!("the first one holds it") };
        assert_eq!(refused.code, Code::NodeRunning);
        first.shutdown().await.expect("an orderly end");
        helix_kernel::start(branch(node(&records))).await.expect("it was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_lease_was_taken_over_ends() {
        let records: Arc<dyn RecordStore> = Arc::new(MemoryStore::with_clock(paused_clock()));
        let holder = node(&records);
        let first = helix_kernel::start(branch(holder.clone())).await.expect("nobody holds the lease");
        // As if it had been suspended: its lease ran out, and another node came.
        records.renew_node(holder.node, 0).await.expect("the store answers");
        records.renew_node(NodeId::new(), 600_000).await.expect("the store answers").expect("it is free");
        let ended = first.ended().await.expect_err("it lost its lease");
        assert_eq!(ended.code, Code::NodeRunning);
        assert_eq!(ended.message, "cluster cannot go on without node lease: another node took these records over");
    }

    /// A clock that follows tokio's.
    fn paused_clock() -> helix_database::Clock {
        let start = Instant::now();
        helix_database::Clock::new(move || {
            helix_protocol::Timestamp(i64::try_from(start.elapsed().as_micros()).expect("a short test"))
        })
    }
}
