//! The messages of every actor that is addressed from outside its branch, one file per actor, each
//! with the handle through which it is asked.
//!
//! A handle is cheap to clone and outlives restarts. Reads of shared, lock-free state are methods of
//! the handle and cost no mailbox hop; everything else is a message.

mod asking;
mod events;
mod fleet;
mod key_secret;
mod models;
mod records;
mod spending;
mod takeover;
mod tasks;
mod versions;

pub use asking::Asking;
pub use events::Events;
pub use fleet::{AddWorker, Fleet, FleetMsg, ReceivedSnapshot, WorkerView};
/// What reads and changes of the records are given, and what is made of their answers, so that whoever has a handle needs no second
/// crate.
pub use helix_database::{EventFilter, LedgerFilter, TaskFilter, Write, held};
pub use key_secret::{key_secret_hash, new_key_secret};
pub use models::{Circuit, DeploymentCircuit, Models, ModelsMsg, OnBehalf, Outage, ProviderView, Quote, ReadRequest};
pub use records::{Records, RecordsMsg, Untold};
pub use spending::{DailyLimits, Payers, SetAside, Spending};
pub use takeover::Takeover;
pub use tasks::{
    CreateTask, Difference, Differs, ForkTask, LostWorker, Replayed, ReplayedStep, ResumeTask, RetryTask, Say, TaskWhy, Tasks,
    TasksMsg, WorkerReason,
};
pub use versions::{
    Carried, DiffTrees, ExportGit, Exported, FileDiff, FoundFile, ImportGit, Imported, LineToExport, RebaseGit, Rebased, Versions,
    VersionsMsg,
};
