//! A model's words while they come: shown to whoever listens, and kept nowhere. The reply is what counts, and is kept whole.
//!
//! Only what it says is shown; what it thinks stays hidden until somebody asks the log for it.

use helix_kernel::{Masked, Secrets};
use helix_messages::{Events, Models};
use helix_ports::ProviderError;
use helix_protocol::{ModelDelta, ModelReply, ModelRequest, SecretRef, TaskId, TaskRecord};
use tokio::sync::mpsc;

use crate::shared::Shared;
use crate::{secrets, telling};

/// Pieces that may wait here. They are taken as fast as they come, so nobody makes the model wait.
const AHEAD: usize = 64;
/// Longest piece that is shown at once, in bytes: what waits for slow watchers is counted in pieces.
const PIECE: usize = 4 * 1024;

/// What a call of a model says.
pub(super) struct Words {
    events: Events,
    task: TaskId,
    step: u64,
    secrets: Vec<SecretRef>,
}

impl Words {
    pub fn new(shared: &Shared, task: &TaskRecord, step: u64) -> Self {
        Self { events: shared.args.events.clone(), task: task.id, step, secrets: task.spec.environment.secrets.clone() }
    }

    /// Makes the call, and shows its words meanwhile.
    pub async fn show(self, models: Models, request: ModelRequest) -> Result<ModelReply, ProviderError> {
        // Where it is not known what has to be masked nothing is shown.
        let Ok(values) = secrets::resolve(&self.secrets).await else { return models.generate(request, None).await };
        let masked = Secrets::new(values.iter().map(|(_, value)| value.as_str())).stream();
        let mut telling = Telling { events: self.events, task: self.task, step: self.step, masked, told: 0 };
        let (deltas, mut pieces) = mpsc::channel(AHEAD);
        let mut call = std::pin::pin!(models.generate(request, Some(deltas)));
        let answer = loop {
            tokio::select! {
                Some(delta) = pieces.recv() => telling.hear(&delta),
                answer = &mut call => break answer,
            }
        };
        while let Ok(delta) = pieces.try_recv() {
            telling.hear(&delta);
        }
        telling.end(answer.is_ok());
        answer
    }
}

/// One answer, as far as it was told.
struct Telling {
    events: Events,
    task: TaskId,
    step: u64,
    masked: Masked,
    /// In bytes.
    told: u64,
}

impl Telling {
    fn hear(&mut self, delta: &ModelDelta) {
        if let ModelDelta::Text { text } = delta {
            let words = self.masked.push(text.as_bytes());
            self.tell(&words);
        }
    }

    fn end(&mut self, whole: bool) {
        let rest = self.masked.finish();
        self.tell(&rest);
        if !whole && self.told > 0 {
            self.events.say(telling::model_broke_off(self.task, self.step, self.told));
        }
    }

    fn tell(&mut self, words: &[u8]) {
        // Secrets and what is said are text, so no character is cut in two.
        let words = String::from_utf8_lossy(words);
        let mut rest = &*words;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
            self.events.say(telling::model_said(self.task, self.step, self.told, piece));
            self.told += piece.len() as u64;
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId(uuid::Uuid::from_u128(7));

    fn telling(events: &Events, secrets: &[&str]) -> Telling {
        let masked = Secrets::new(secrets.iter().copied()).stream();
        Telling { events: events.clone(), task: TASK, step: 3, masked, told: 0 }
    }

    fn text(text: &str) -> ModelDelta {
        ModelDelta::Text { text: text.to_owned() }
    }

    fn heard(listener: &mut tokio::sync::broadcast::Receiver<helix_protocol::Event>) -> Vec<serde_json::Value> {
        std::iter::from_fn(|| listener.try_recv().ok()).map(|event| event.event.detail).collect()
    }

    #[test]
    fn words_are_told_as_they_come_without_what_is_thought_or_secret() {
        let events = Events::new(64);
        let mut listener = events.listen();
        let mut telling = telling(&events, &["hunter2"]);
        for delta in [text("it is hun"), ModelDelta::Thinking { text: "hidden".to_owned() }, text("ter2, I "), text("think")] {
            telling.hear(&delta);
        }
        telling.end(true);
        let told = |offset: u64, text: &str| serde_json::json!({"step": 3, "offset": offset, "text": text});
        assert_eq!(heard(&mut listener), [told(0, "it is "), told(6, "[secret], I "), told(18, "think")]);
    }

    #[test]
    fn an_answer_that_breaks_off_says_so_where_somebody_saw_of_it() {
        let events = Events::new(64);
        let mut listener = events.listen();
        telling(&events, &[]).end(false);
        assert_eq!(heard(&mut listener), [] as [serde_json::Value; 0]);
        let mut begun = telling(&events, &[]);
        begun.hear(&text("I be"));
        begun.end(false);
        assert_eq!(heard(&mut listener)[1], serde_json::json!({"step": 3, "offset": 4, "text": "", "broken_off": true}));
    }

    #[test]
    fn nobody_and_a_slow_listener_hold_nothing_up_and_what_waits_has_a_bound() {
        let events = Events::new(8);
        let long = "ä".repeat(PIECE);
        telling(&events, &[]).hear(&text(&long));
        let mut slow = events.listen();
        for _ in 0..100 {
            telling(&events, &[]).hear(&text(&long));
        }
        assert!(matches!(slow.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_))));
        let rest = heard(&mut slow);
        assert!(rest.len() <= 8 && rest.iter().all(|piece| piece["text"].as_str().is_some_and(|text| text.len() <= PIECE)));
    }
}
