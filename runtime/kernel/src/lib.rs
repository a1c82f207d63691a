//! What every actor of Helix stands on.
//!
//! ractor runs actors; this crate adds what it lacks and re-exports what is used of it as [`actor`], so that no
//! other crate names ractor:
//!
//! - **Supervision**: a tree is data ([`SupervisorSpec`], [`ChildSpec`]) and [`start`] runs it.
//!   Children start in order and stop in reverse, each within its time. What fails is restarted
//!   after a backoff, alone or with its siblings ([`Strategy`]); what fails too often ([`Intensity`])
//!   takes its supervisor down, and the next one up decides. Two incarnations never overlap.
//! - **Addresses**: an [`Address`] resolves to whichever incarnation runs, and admits a limited
//!   number of messages: a full mailbox is an answer, not memory.
//! - **Work**: a handler never waits. It starts [`Work`] and receives the result as a message.
//! - **The process**: [`Clock`], [`Shutdown`] and [`telemetry`].
//! - **Secrets**: [`Secrets`] takes them out of what is kept or shown, on the worker and on the node.
//!
//! What survives a restart is whatever `start` hands to each incarnation. Nothing else does: a
//! panic, an `Err` and a kill drop the state and the mailbox, and skip `post_stop`.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::time::Duration;
//!
//! use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
//! use helix_kernel::{Address, Admitted, ChildSpec, Reply, Strategy, SupervisorSpec, start};
//!
//! /// What the counter can be asked.
//! enum CounterMsg {
//!     /// Adds one. Answered with the new count.
//!     Add { reply: Reply<u64> },
//!     /// Fails, as everything does some day.
//!     Fail,
//! }
//!
//! /// Restarted always; the count survives, because it is not in the actor.
//! struct CounterActor;
//!
//! impl Actor for CounterActor {
//!     type Msg = Admitted<CounterMsg>;
//!     type State = Arc<AtomicU64>;
//!     type Arguments = Arc<AtomicU64>;
//!
//!     async fn pre_start(&self, _: ActorRef<Self::Msg>, count: Arc<AtomicU64>) -> Result<Self::State, ActorProcessingErr> {
//!         Ok(count)
//!     }
//!
//!     async fn handle(
//!         &self,
//!         _: ActorRef<Self::Msg>,
//!         message: Self::Msg,
//!         count: &mut Self::State,
//!     ) -> Result<(), ActorProcessingErr> {
//!         match message.take() {
//!             CounterMsg::Add { reply } => reply.send(Ok(count.fetch_add(1, Ordering::Relaxed) + 1))?,
//!             CounterMsg::Fail => return Err("the counter fell over".into()),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), helix_protocol::Failure> {
//! let address = Address::unbound("counter", 64);
//! let count = Arc::new(AtomicU64::new(0));
//! let counter = ChildSpec::actor("counter", &address, move || (CounterActor, Arc::clone(&count)));
//! let root = start(SupervisorSpec::new("root", Strategy::OneForOne).child(counter)).await?;
//!
//! let add = || address.ask(Duration::from_secs(5), |reply| CounterMsg::Add { reply });
//! assert_eq!(add().await?, 1);
//! address.tell(CounterMsg::Fail)?;
//! // Until the next incarnation runs, a request is refused at once.
//! let second = loop {
//!     match add().await {
//!         Ok(count) => break count,
//!         Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
//!     }
//! };
//! assert_eq!(second, 2);
//! assert_eq!(root.tree().await?.child("counter").expect("it is declared").restarts, 1);
//! root.shutdown().await?;
//! # Ok(())
//! # }
//! ```

mod address;
mod admission;
mod clock;
mod masking;
mod shutdown;
mod supervisor;
pub mod telemetry;
mod work;

pub use address::{Address, Reply};
pub use admission::{Admission, Admitted};
pub use clock::{Boottime, Clock, SimulatedClock};
pub use masking::{Masked, Secrets};
pub use shutdown::Shutdown;
pub use supervisor::{
    Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorHandle, SupervisorSpec, TreeKind, TreeNode, TreeState, start,
};
pub use work::Work;

/// What is used of the actor system underneath, and no more: its ports of output lose what a slow subscriber does not take in time,
/// so whoever must not miss anything reads the records; its bare references die with their incarnation, so others are given an
/// [`Address`](crate::Address).
pub mod actor {
    pub use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, RpcReplyPort, call, call_t};
}

// A supervisor mends the panic of one actor; a process that ends by it takes everybody with it.
#[cfg(panic = "abort")]
compile_error!("the kernel needs panic = \"unwind\"");
