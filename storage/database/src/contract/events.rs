//! Claims about events.

use helix_protocol::{Event, EventKind, NewEvent, Severity, TaskId, TaskStatus};

use super::stage::{Stage, after, change, commit, spec, status, step_on, told};
use crate::{EventFilter, RecordError, StatusChange, Write};

async fn all(stage: &Stage, filter: EventFilter) -> Vec<Event> {
    stage.store.events(EventFilter { limit: 1000, ..filter }).await.expect("the store answers")
}

pub(super) async fn sequences_of_a_task_have_no_gaps(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    let owner = stage.claim(&first).await;
    let events = vec![
        told(EventKind::ToolStarted, first.id),
        told(EventKind::TaskAsked, second.id),
        told(EventKind::StepCompleted, first.id),
    ];
    stage.done(Write::Commit { step: Box::new(step_on(&owner)), then: None, events }).await;
    let both = vec![
        told(EventKind::TaskStarted, second.id),
        told(EventKind::TaskPaused, second.id),
        told(EventKind::TaskPaused, first.id),
    ];
    stage.done(Write::Events(both)).await;
    let completed = StatusChange { from: TaskStatus::ALL.to_vec(), ..change(first.id, TaskStatus::Completed) };
    stage.done(Write::Status { change: Box::new(completed), events: vec![told(EventKind::TaskCompleted, first.id)] }).await;
    for (task, count) in [(first.id, 5), (second.id, 5)] {
        let events = all(&stage, EventFilter { task: Some(task), ..EventFilter::default() }).await;
        let sequences: Vec<_> = events.iter().map(|event| event.task_sequence).collect();
        assert_eq!(sequences, (1..=count).collect::<Vec<_>>(), "of task {task}");
    }
}

pub(super) async fn a_refused_write_tells_nothing(stage: Stage) {
    let owner = stage.claimed_task().await;
    let newer = stage.set(owner.id, TaskStatus::Cancelled).await;
    let before = all(&stage, EventFilter::default()).await;
    let late =
        Write::Commit { step: Box::new(step_on(&owner)), then: None, events: vec![told(EventKind::StepCompleted, owner.id)] };
    // The second event is of nobody, so the first has to be taken back.
    let nobody = Write::Events(vec![told(EventKind::TaskPaused, newer.id), told(EventKind::TaskPaused, TaskId::new())]);
    for write in [late, nobody] {
        assert!(stage.apply(write).await.is_err());
    }
    stage.done(Write::Events(vec![told(EventKind::TaskResumed, newer.id)])).await;
    let after = all(&stage, EventFilter::default()).await;
    assert_eq!(after[..before.len()], before[..]);
    let told: Vec<_> = after[before.len()..].iter().map(|event| (event.event.kind, event.task_sequence)).collect();
    assert_eq!(told, [(EventKind::TaskResumed, 2)]);
}

pub(super) async fn events_are_read_in_order_from_where_the_reader_stopped(stage: Stage) {
    let task = stage.create(spec("a")).await;
    let startup = NewEvent::info(EventKind::SystemStartup, "node", "up").severity(Severity::Warning);
    stage.done(Write::Events(vec![startup.clone(), told(EventKind::TaskStarted, task.id)])).await;
    stage.done(commit(step_on(&stage.claim(&task).await))).await;
    stage.done(status(change(task.id, TaskStatus::Paused))).await;
    let events = all(&stage, EventFilter::default()).await;
    assert_eq!(
        events.iter().map(|event| event.event.kind).collect::<Vec<_>>(),
        [EventKind::TaskCreated, EventKind::SystemStartup, EventKind::TaskStarted]
    );
    assert_eq!((&events[1].event, events[1].task_sequence, events[1].schema), (&startup, 0, 1));
    assert!(events.is_sorted_by_key(|event| event.sequence));
    assert_eq!(stage.store.newest_event().await, Ok(events[2].sequence));
    let rest = EventFilter { after: events[0].sequence, task: None, limit: 1 };
    assert_eq!(stage.store.events(rest).await, Ok(vec![events[1].clone()]));
}

pub(super) async fn an_event_of_an_unknown_task_is_refused(stage: Stage) {
    let answer = stage.apply(Write::Events(vec![told(EventKind::TaskStarted, TaskId::new())])).await;
    assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
}
