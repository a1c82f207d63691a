//! Answers kept for equal requests: only at temperature 0, and only where the request allows it.

use helix_protocol::{ModelReply, ModelRequest, Money, Usage};

use crate::bounded::Bounded;

/// Bytes of answers that are kept.
const MOST: usize = 64 << 20;

/// What a request is the same by: a hash over everything that shapes its answer.
pub(crate) type ReuseKey = [u8; 32];

/// The kept answers.
pub(crate) struct Reuse(Bounded<ReuseKey, ModelReply>);

impl Reuse {
    pub fn new() -> Self {
        Self(Bounded::new(MOST))
    }

    /// The answer that an equal request had. Nothing is used by it and nothing is paid.
    pub fn get(&mut self, key: &ReuseKey) -> Option<ModelReply> {
        let kept = self.0.get(key)?.clone();
        Some(ModelReply { usage: Usage { cost: Money::ZERO, ..Usage::default() }, ..kept })
    }

    /// Keeps an answer.
    pub fn put(&mut self, key: ReuseKey, reply: ModelReply) {
        let weight = serde_json::to_vec(&reply.blocks).map_or(usize::MAX, |bytes| bytes.len() + 256);
        self.0.put(key, reply, weight);
    }
}

/// The key of a request that may be answered with what an equal one was answered; `None` where it may not.
pub(crate) fn reuse_key(request: &ModelRequest) -> Option<ReuseKey> {
    if !request.reuse || request.sampling.temperature != Some(0.0) {
        return None;
    }
    // Whose turn it is and how it may be repeated does not shape the answer.
    let canonical = ModelRequest { session: None, idempotency_key: None, ..request.clone() };
    let mut canonical = serde_json::to_value(canonical).ok()?;
    canonical.sort_all_objects();
    Some(*blake3::hash(canonical.to_string().as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use helix_protocol::{Message, Role, Sampling, StopReason};

    use super::*;

    fn request() -> ModelRequest {
        let sampling = Sampling { temperature: Some(0.0), ..Sampling::default() };
        ModelRequest { messages: vec![Message::text(Role::User, "hi")], sampling, reuse: true, ..ModelRequest::default() }
    }

    #[test]
    fn only_equal_requests_at_temperature_0_that_allow_it_share_an_answer() {
        let key = reuse_key(&request()).expect("it may be reused");
        let other = ModelRequest { session: Some("s".to_owned()), idempotency_key: Some("k".to_owned()), ..request() };
        assert_eq!(reuse_key(&other), Some(key));
        assert_ne!(reuse_key(&ModelRequest { max_tokens: 1, ..request() }), Some(key));
        assert_eq!(reuse_key(&ModelRequest { reuse: false, ..request() }), None);
        assert_eq!(reuse_key(&ModelRequest { sampling: Sampling::default(), ..request() }), None);
    }

    #[test]
    fn a_kept_answer_costs_nothing() {
        let (mut kept, key) = (Reuse::new(), [1; 32]);
        assert_eq!(kept.get(&key), None);
        let usage = Usage { input_tokens: 5, cost: Money(7), ..Usage::default() };
        let reply = ModelReply { model: "m".to_owned(), blocks: Vec::new(), stop: StopReason::EndTurn, usage };
        kept.put(key, reply.clone());
        assert_eq!(kept.get(&key), Some(ModelReply { usage: Usage::default(), ..reply }));
    }
}
