//! What steps said: in the records where it is short, in the content store where it is long.

use helix_objects::{Durability, Mark, NewObject, Pin};
use helix_protocol::{Code, Failure, INLINE_MESSAGES, Message, ObjectId, StepRecord};

use crate::host::Host;
use crate::shared::Shared;

/// What a step says, as its row holds it.
pub(crate) struct Said {
    pub messages: Vec<Message>,
    pub long: Option<ObjectId>,
    /// The store's sequence that covers the object; nothing without one.
    pub sequence: u64,
}

/// Puts what is too long for a row into the content store: pinned, and on disk before the row names it.
pub(crate) async fn keep(host: &Host, messages: Vec<Message>) -> Result<Said, Failure> {
    if messages.is_empty() {
        return Ok(Said { messages, long: None, sequence: 0 });
    }
    let text = serde_json::to_vec(&messages).map_err(|error| Failure::new(Code::Internal, format!("messages as JSON: {error}")))?;
    if text.len() <= INLINE_MESSAGES {
        return Ok(Said { messages, long: None, sequence: 0 });
    }
    let (object, pin) = (NewObject::new(text.into()), Pin { task: host.lease.task, epoch: host.lease.epoch });
    let id = object.id();
    let put = move |store: &dyn helix_objects::ObjectStore| {
        store.pin(pin, &[id])?;
        Ok(store.put(std::slice::from_ref(&object), Durability::Group)?)
    };
    let Mark(sequence) = host.shared.put(put).await?;
    Ok(Said { messages: Vec::new(), long: Some(id), sequence })
}

/// What a step said, wherever it is kept.
pub(crate) async fn by(shared: &Shared, step: StepRecord) -> Result<Vec<Message>, Failure> {
    let Some(object) = step.step.long_messages else { return Ok(step.step.messages) };
    let text = shared.on_store(move |store| Ok(store.read(object)?)).await?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Code::CorruptObject, format!("object {object} is not what a step said: {error}")))
}
