//! Which commands run at present, as the events tell. Lost with the server: a command that began before it is not known.

use std::collections::HashMap;
use std::sync::Arc;

use helix_messages::Events;
use helix_protocol::{Event, EventKind, RunId, TaskId};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use crate::api::RunningCommand;

/// The running command of each task that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    commands: Arc<Mutex<HashMap<TaskId, RunningCommand>>>,
}

impl Running {
    /// The task's.
    pub fn of(&self, task: TaskId) -> Option<RunningCommand> {
        self.commands.lock().get(&task).cloned()
    }

    /// Listens until the node's events end.
    pub fn listen(&self, events: &Events) -> impl Future<Output = ()> + Send + 'static {
        let (running, mut live) = (self.clone(), events.watch());
        async move {
            loop {
                match live.recv().await {
                    Ok(event) => running.note(&event),
                    // What was missed may have ended any of them, and an ended command is told apart by its worker.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    fn note(&self, event: &Event) {
        let Some(task) = event.event.task else { return };
        let detail = &event.event.detail;
        let is_run = detail.get("tool").and_then(|tool| tool.as_str()) == Some("run");
        match event.event.kind {
            EventKind::ToolStarted if is_run => {
                let input = detail.get("input");
                let run = input.and_then(|input| serde_json::from_value::<RunId>(input.get("run")?.clone()).ok());
                let command = input.and_then(|input| input.get("command")?.as_str()).unwrap_or_default().to_owned();
                if let Some(run) = run {
                    self.commands.lock().insert(task, RunningCommand { run, command });
                }
            }
            EventKind::ToolFinished if is_run => drop(self.commands.lock().remove(&task)),
            EventKind::StepCompleted
            | EventKind::StepFailed
            | EventKind::TaskCompleted
            | EventKind::TaskFailed
            | EventKind::TaskCancelled
            | EventKind::TaskPaused
            | EventKind::TaskAssigned
            | EventKind::TaskReassigned => drop(self.commands.lock().remove(&task)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{EventId, NewEvent, Timestamp};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_is_known_from_its_beginning_to_its_end() {
        let (running, task, run) = (Running::default(), TaskId::new(), RunId::new());
        let tell = |kind, detail| {
            let event = NewEvent::info(kind, "node", "").task(task).detail(detail);
            running.note(&Event { id: EventId::new(), sequence: 0, task_sequence: 0, schema: 1, at: Timestamp(0), event });
        };
        tell(EventKind::ToolStarted, json!({"tool": "read", "input": {"path": "a"}}));
        assert_eq!(running.of(task), None);
        tell(EventKind::ToolStarted, json!({"tool": "run", "input": {"command": "make", "run": run}}));
        assert_eq!(running.of(task), Some(RunningCommand { run, command: "make".to_owned() }));
        tell(EventKind::ToolFinished, json!({"tool": "run"}));
        assert_eq!(running.of(task), None);
    }
}
