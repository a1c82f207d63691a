//! The tables, as ordered maps.

use std::collections::BTreeMap;

use helix_protocol::{
    AttemptId, Checkpoint, Event, GatewayKey, JournalEntry, KeyId, ModelCall, ModelCallId, Money, OwnerId, Question, QuestionId,
    RecordsId, Remark, RemarkId, StepId, StepRecord, TaskId, Timestamp, WorkerId, WorkerRecord,
};

use crate::NodeLease;
use crate::rows::TaskRow;

/// What a dropped journal had spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostSpend {
    pub task: TaskId,
    pub at: Timestamp,
    pub money: Money,
    pub tokens: u64,
}

/// Every table.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub tasks: BTreeMap<TaskId, TaskRow>,
    /// (the task that is waited for, the task that waits).
    pub waits: BTreeMap<(TaskId, TaskId), ()>,
    pub keys: BTreeMap<(OwnerId, String), TaskId>,
    pub steps: BTreeMap<StepId, StepRecord>,
    pub journal: BTreeMap<(AttemptId, u64), (JournalEntry, Timestamp)>,
    pub lost_spend: BTreeMap<u64, LostSpend>,
    pub checkpoints: BTreeMap<(TaskId, String), Checkpoint>,
    pub questions: BTreeMap<QuestionId, Question>,
    pub remarks: BTreeMap<RemarkId, Remark>,
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
    pub events: BTreeMap<u64, Event>,
    pub keys_of_gateway: BTreeMap<KeyId, GatewayKey>,
    pub calls: BTreeMap<ModelCallId, ModelCall>,
    pub lease: Option<NodeLease>,
    pub id: Option<RecordsId>,
}
