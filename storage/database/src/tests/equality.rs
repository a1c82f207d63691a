//! Any sequence of writes answers the same, and leaves the same, in memory and in SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use helix_protocol::{
    AttemptId, Checkpoint, Epoch, Event, EventId, EventKind, NewStep, NodeId, OwnerId, Payer, Principal, ProjectId, Question,
    QuestionId, Remark, RemarkId, StepId, Subject, TaskId, TaskSpec, TaskStatus, Timestamp, WorkerId,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::contract::stage;
use crate::{
    Applied, Clock, EventFilter, MemoryStore, RecordError, RecordStore, SqliteStore, StatusChange, TaskFilter, Then, Write,
};

/// Ids come from a small world, so that writes meet each other.
const WORLD: u128 = 4;

fn id(kind: u128, number: u128) -> Uuid {
    Uuid::from_u128(kind << 64 | (number + 1))
}

fn task_id() -> impl Strategy<Value = TaskId> {
    (0..WORLD).prop_map(|number| TaskId(id(1, number)))
}

fn step_id() -> impl Strategy<Value = StepId> {
    (0..3 * WORLD).prop_map(|number| StepId(id(2, number)))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (0..4u64).prop_map(Epoch)
}

fn status() -> impl Strategy<Value = TaskStatus> {
    (0..TaskStatus::ALL.len()).prop_map(|index| TaskStatus::ALL[index])
}

/// The parent is looked up when the write is applied: random ones would rarely be the head.
#[derive(Clone, Debug)]
enum Act {
    Write(Write),
    Commit { step: StepId, task: TaskId, stale: bool, then: Option<StatusChange>, told: bool },
    Journal { task: TaskId, sequence: u64, money: i64, stale: bool },
    Claim { task: TaskId, stale: bool },
}

fn creation() -> impl Strategy<Value = Write> {
    let fork = (proptest::option::weighted(0.2, step_id()), proptest::bool::weighted(0.1));
    let request = (task_id(), proptest::collection::vec(task_id(), 0..2), fork, 0..3usize);
    request.prop_map(|(id, depends_on, (fork_of, paused), key)| Write::CreateTask {
        id,
        attempt: AttemptId(id.0),
        spec: Box::new(TaskSpec { depends_on, fork_of, ..stage::spec("a task") }),
        principal: Principal::local("cli"),
        project: ProjectId::DEFAULT,
        idempotency_key: [None, Some("a".to_owned()), Some("b".to_owned())][key].clone(),
        paused: paused.then(|| "kept".to_owned()),
    })
}

fn status_change() -> impl Strategy<Value = StatusChange> {
    let change =
        (task_id(), proptest::option::of(epoch()), proptest::collection::vec(status(), 0..4), status(), any::<bool>(), 0..3u32);
    change.prop_map(|(task, epoch, from, to, fence, retries)| StatusChange {
        epoch,
        from,
        fence,
        retries: (retries > 0).then_some(retries),
        not_before: (retries > 1).then_some(Some(Timestamp(7))),
        reason: if fence { "fenced".to_owned() } else { String::new() },
        hint: if retries > 0 { "mend it".to_owned() } else { String::new() },
        ..stage::change(task, to)
    })
}

fn question() -> impl Strategy<Value = (Question, Epoch)> {
    (0..3u128, task_id(), epoch()).prop_map(|(number, task, epoch)| {
        let question = Question::new(task, Subject::Budget, "go on?", Vec::new(), Timestamp(3));
        (Question { id: QuestionId(id(3, number)), ..question }, epoch)
    })
}

fn act() -> impl Strategy<Value = Act> {
    let told = |task: TaskId| vec![stage::told(EventKind::ToolStarted, task)];
    prop_oneof![
        4 => creation().prop_map(Act::Write),
        4 => (task_id(), proptest::bool::weighted(0.2)).prop_map(|(task, stale)| Act::Claim { task, stale }),
        6 => (step_id(), task_id(), proptest::bool::weighted(0.2), proptest::option::weighted(0.2, status_change()), any::<bool>())
            .prop_map(|(step, task, stale, then, told)| Act::Commit { step, task, stale, then, told }),
        3 => (task_id(), 0..3u64, 0..2i64, proptest::bool::weighted(0.2))
            .prop_map(|(task, sequence, money, stale)| Act::Journal { task, sequence, money, stale }),
        4 => status_change().prop_map(move |change| {
            let events = told(change.task);
            Act::Write(Write::Status { change: Box::new(change), events })
        }),
        2 => (task_id(), step_id()).prop_map(|(task, step)| Act::Write(stage::rollback(task, step))),
        1 => (task_id(), step_id(), 0..2usize).prop_map(|(task, step, name)| {
            Act::Write(Write::Checkpoint(Checkpoint { task, step, name: ["a", "b"][name].to_owned(), created_at: Timestamp(1) }))
        }),
        1 => question().prop_map(|(question, epoch)| Act::Write(Write::Ask { question: Box::new(question), epoch, events: Vec::new() })),
        1 => (0..3u128, any::<bool>()).prop_map(|(number, yes)| {
            let answer = if yes { "yes" } else { "no" }.to_owned();
            Act::Write(Write::Answer { question: QuestionId(id(3, number)), answer, events: Vec::new() })
        }),
        1 => (0..3u128, task_id()).prop_map(move |(number, task)| {
            let remark = Remark {
                id: RemarkId(id(7, number)),
                task,
                text: "hurry".to_owned(),
                actor: "cli".to_owned(),
                created_at: Timestamp(3),
                step: None,
            };
            Act::Write(Write::Say { remark: Box::new(remark), events: told(task) })
        }),
        1 => proptest::collection::vec(task_id(), 1..3).prop_map(move |tasks| {
            Act::Write(Write::Events(tasks.into_iter().flat_map(told).collect()))
        }),
    ]
}

/// The write of an act, given what the task looks like.
async fn write(act: &Act, store: &dyn RecordStore) -> Write {
    let unknown = || stage::creation(TaskId(id(1, 99)), stage::spec("nobody"));
    let (task, stale) = match act {
        Act::Write(write) => return write.clone(),
        Act::Commit { task, stale, .. } | Act::Journal { task, stale, .. } | Act::Claim { task, stale } => (*task, *stale),
    };
    let Some(mut task) = store.task(task).await.unwrap() else { return unknown() };
    task.epoch = if stale { Epoch(task.epoch.0.saturating_sub(1)) } else { task.epoch };
    match act {
        Act::Write(write) => write.clone(),
        Act::Claim { .. } => {
            let (node, worker) = (NodeId(id(5, 0)), WorkerId(id(6, 0)));
            Write::Claim { task: task.id, expected: task.epoch, node, worker, events: Vec::new() }
        }
        Act::Journal { sequence, money, .. } => stage::journal(stage::entry(&task, *sequence, stage::reserved("call", *money, 1))),
        Act::Commit { step, then, told, .. } => {
            let drafted = stage::step_on(&task);
            let heard = if *told { vec![RemarkId(id(7, 0)), RemarkId(id(7, 1))] } else { Vec::new() };
            let made = NewStep { id: *step, heard, exits: Vec::new(), tree: helix_protocol::ObjectId([1; 32]), ..drafted };
            let events = if *told { vec![stage::told(EventKind::StepCompleted, task.id)] } else { Vec::new() };
            Write::Commit { step: Box::new(made), then: then.clone().map(|change| Box::new(Then::Status(change))), events }
        }
    }
}

/// Without what chance gave: the ids of events, and the words of refusals that no rule speaks.
fn comparable(answer: Result<Applied, RecordError>) -> Result<Applied, RecordError> {
    let unnamed = |events: Vec<Event>| events.into_iter().map(unnamed_event).collect();
    answer.map(|applied| match applied {
        Applied::Done { events } => Applied::Done { events: unnamed(events) },
        Applied::Task { task, events } => Applied::Task { task, events: unnamed(events) },
        Applied::Step { step, task, events } => Applied::Step { step, task, events: unnamed(events) },
    })
}

fn unnamed_event(event: Event) -> Event {
    Event { id: EventId(Uuid::nil()), ..event }
}

async fn assert_equal_reads(memory: &dyn RecordStore, sqlite: &dyn RecordStore) {
    let tasks = memory.tasks(TaskFilter::default()).await.unwrap();
    assert_eq!(sqlite.tasks(TaskFilter::default()).await.unwrap(), tasks);
    let every = EventFilter { limit: 10_000, ..EventFilter::default() };
    let (a, b) = (memory.events(every).await.unwrap(), sqlite.events(every).await.unwrap());
    assert_eq!(a.into_iter().map(unnamed_event).collect::<Vec<_>>(), b.into_iter().map(unnamed_event).collect::<Vec<_>>());
    for since in [0, 20] {
        let spent = memory.spent_since(Payer::Owner(OwnerId::LOCAL), Timestamp(since)).await;
        assert_eq!(sqlite.spent_since(Payer::Owner(OwnerId::LOCAL), Timestamp(since)).await, spent);
    }
    for task in tasks {
        assert_eq!(sqlite.steps(task.id).await, memory.steps(task.id).await);
        assert_eq!(sqlite.journal(task.attempt, 0).await, memory.journal(task.attempt, 0).await);
        assert_eq!(sqlite.checkpoints(task.id).await, memory.checkpoints(task.id).await);
        assert_eq!(sqlite.questions(task.id).await, memory.questions(task.id).await);
        assert_eq!(sqlite.remarks(task.id).await, memory.remarks(task.id).await);
        assert_eq!(sqlite.dependents(task.id).await, memory.dependents(task.id).await);
        if let Some(head) = task.head {
            assert_eq!(sqlite.lineage(head).await, memory.lineage(head).await);
            assert_eq!(sqlite.conversation(head).await, memory.conversation(head).await);
        }
    }
}

async fn play(groups: Vec<Vec<Act>>) {
    let time = Arc::new(AtomicI64::new(1));
    let (first, second) = (Arc::clone(&time), Arc::clone(&time));
    let memory = MemoryStore::with_clock(Clock::new(move || Timestamp(first.load(Ordering::SeqCst))));
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new(move || Timestamp(second.load(Ordering::SeqCst)));
    let sqlite = SqliteStore::open_with_clock(folder.path().join("records.db"), clock).await.unwrap();
    for group in groups {
        let mut writes = Vec::new();
        for act in &group {
            writes.push(write(act, &memory).await);
        }
        let a: Vec<_> = memory.apply(writes.clone()).await.unwrap().into_iter().map(comparable).collect();
        let b: Vec<_> = sqlite.apply(writes).await.unwrap().into_iter().map(comparable).collect();
        assert_eq!(a, b);
        time.fetch_add(1, Ordering::SeqCst);
    }
    assert_equal_reads(&memory, &sqlite).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_answer_alike(groups in proptest::collection::vec(proptest::collection::vec(act(), 1..4), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(groups));
    }
}
