//! Reading the journal of the step being made.
//!
//! A new owner makes the step again from its beginning; what the journal already has is answered from it. A reservation that
//! nothing followed means a call that died without an answer: it may have been billed, so it is charged in full and marked
//! uncertain, and the call is made once more under the same key.

use std::collections::HashMap;
use std::time::Duration;

use helix_protocol::{CallKey, JournalBody, JournalEntry, ModelReply, RemarkId, Spend, Spent, Timestamp, ToolOutcome};

/// How far apart the sequences of two steps begin: an entry that arrives late never meets one of the next step.
const STRIDE: u32 = 20;

/// What the journal says of the step being made.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    replies: HashMap<CallKey, ModelReply>,
    outcomes: HashMap<CallKey, ToolOutcome>,
    open: HashMap<CallKey, Spent>,
    spend: Spend,
    heard: Option<Vec<RemarkId>>,
    timed: Option<(Duration, Timestamp)>,
    rested: bool,
    /// Whether anything is journalled of the step but the time and that the conversation rested.
    began: bool,
    next: u64,
}

impl Replay {
    /// Reads the entries of step `ordinal`, in the order of their sequences. A reservation that nothing followed is charged, unless
    /// its call is still `under_way`, or was certainly not made: then it stays open until the call is answered.
    pub fn read(ordinal: u64, entries: &[JournalEntry], under_way: impl Fn(&CallKey) -> bool) -> Self {
        let mut replay = Self {
            replies: HashMap::new(),
            outcomes: HashMap::new(),
            open: HashMap::new(),
            spend: Spend::default(),
            heard: None,
            timed: None,
            rested: false,
            began: false,
            next: ordinal << STRIDE,
        };
        for entry in entries.iter().filter(|entry| entry.ordinal == ordinal) {
            replay.apply(entry.sequence, &entry.body);
        }
        let (open, lost) = std::mem::take(&mut replay.open).into_iter().partition(|(call, _)| under_way(call));
        replay.open = open;
        let lost: HashMap<CallKey, Spent> = lost;
        for amount in lost.into_values() {
            replay.charge_uncertain(amount);
        }
        replay
    }

    /// Takes note of an entry that was written: the first at [`next`](Self::next), each further one behind it.
    pub fn apply(&mut self, sequence: u64, body: &JournalBody) {
        self.next = self.next.max(sequence + 1);
        self.began |= !matches!(body, JournalBody::Timed { .. } | JournalBody::Rested { .. });
        match body {
            JournalBody::Reserved { call, money, tokens } => {
                if let Some(lost) = self.open.insert(call.clone(), Spent { money: *money, tokens: *tokens }) {
                    self.charge_uncertain(lost);
                }
            }
            JournalBody::Replied { call, reply } => {
                self.open.remove(call);
                self.spend.add_usage(&reply.usage);
                self.replies.insert(call.clone(), reply.clone());
            }
            JournalBody::CallFailed { call, charged, tokens, .. } => {
                self.open.remove(call);
                let charged = Spent { money: *charged, tokens: *tokens };
                if charged != Spent::default() {
                    self.charge_uncertain(charged);
                }
            }
            JournalBody::Charged { spend, .. } => {
                self.spend.model_calls += spend.model_calls;
                self.spend.tokens += spend.tokens;
                self.spend.money += spend.money;
            }
            JournalBody::Intended { .. } => {}
            JournalBody::Heard { remarks } => self.heard = Some(remarks.clone()),
            JournalBody::Timed { used_ms, at } => self.timed = Some((Duration::from_millis(*used_ms), *at)),
            JournalBody::Rested { .. } => self.rested = true,
            JournalBody::Resulted { call, outcome } => {
                self.outcomes.insert(call.clone(), outcome.clone());
            }
        }
    }

    fn charge_uncertain(&mut self, amount: Spent) {
        self.spend.money += amount.money;
        self.spend.tokens += amount.tokens;
        self.spend.uncertain_calls += 1;
    }

    /// The reply that was paid for.
    pub fn reply(&self, call: &CallKey) -> Option<&ModelReply> {
        self.replies.get(call)
    }

    /// True of a call that is reserved and has no answer.
    pub fn is_reserved(&self, call: &CallKey) -> bool {
        self.open.contains_key(call)
    }

    /// What an effect outside the workspace answered.
    pub fn outcome(&self, call: &CallKey) -> Option<&ToolOutcome> {
        self.outcomes.get(call)
    }

    /// What the step hears of what people said: as its first owner decided it. `None` where nothing of the step but its time is
    /// journalled, so that it is still to be decided. A reply that was given without a remark is never put behind it.
    pub fn heard(&self) -> Option<&[RemarkId]> {
        self.heard.as_deref().or(self.began.then_some(&[]))
    }

    /// How long the step had been made when that was last noted, and when it was.
    pub fn timed(&self) -> Option<(Duration, Timestamp)> {
        self.timed
    }

    /// Whether the conversation had rested when the step first asked a model. `None` where no model has answered it or is about to,
    /// so that it is still to be decided: nothing answers to it yet.
    pub fn rested(&self) -> Option<bool> {
        (self.rested || !self.replies.is_empty() || !self.open.is_empty()).then_some(self.rested)
    }

    /// What the step has cost so far, calls that are under way left out.
    pub fn spend(&self) -> Spend {
        self.spend
    }

    /// The same with what is reserved for calls under way.
    pub fn committed(&self) -> Spent {
        let settled = Spent { money: self.spend.money, tokens: self.spend.tokens };
        self.open.values().fold(settled, |sum, open| sum.plus(*open))
    }

    /// The sequence of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AttemptId, Block, Epoch, Money, StopReason, TaskId, Usage};
    use proptest::prelude::*;

    use super::*;

    fn key(call: u8) -> CallKey {
        CallKey(format!("{call:064x}"))
    }

    fn reply(text: &str, cost: i64) -> ModelReply {
        ModelReply {
            model: "m".to_owned(),
            blocks: vec![Block::Text { text: text.to_owned(), extra: None }],
            stop: StopReason::EndTurn,
            usage: Usage { input_tokens: 3, output_tokens: 4, cost: Money(cost), ..Usage::default() },
        }
    }

    fn entries(ordinal: u64, bodies: &[JournalBody]) -> Vec<JournalEntry> {
        let (task, attempt) = (TaskId::new(), AttemptId::new());
        let sequences = ordinal << STRIDE..;
        let entry = |(sequence, body): (u64, &JournalBody)| JournalEntry {
            task,
            attempt,
            sequence,
            ordinal,
            epoch: Epoch(1),
            body: body.clone(),
        };
        sequences.zip(bodies).map(entry).collect()
    }

    fn reserved(call: u8, money: i64) -> JournalBody {
        JournalBody::Reserved { call: key(call), money: Money(money), tokens: 10 }
    }

    #[test]
    fn a_reply_is_answered_from_the_journal_and_costs_what_it_cost() {
        let bodies = [reserved(1, 50), JournalBody::Replied { call: key(1), reply: reply("hello", 20) }];
        let replay = Replay::read(3, &entries(3, &bodies), |_| false);
        assert_eq!(replay.reply(&key(1)), Some(&reply("hello", 20)));
        assert_eq!(replay.spend(), Spend { model_calls: 1, tokens: 7, money: Money(20), uncertain_calls: 0 });
        assert_eq!(replay.next(), (3 << STRIDE) + 2);
    }

    #[test]
    fn a_call_that_died_without_an_answer_is_charged_its_reservation() {
        let replay = Replay::read(1, &entries(1, &[reserved(1, 50)]), |_| false);
        assert_eq!(replay.reply(&key(1)), None);
        assert_eq!(replay.spend(), Spend { model_calls: 0, tokens: 10, money: Money(50), uncertain_calls: 1 });
        assert_eq!(replay.committed(), Spent { money: Money(50), tokens: 10 });
    }

    #[test]
    fn a_call_that_was_refused_costs_nothing() {
        let failed = JournalBody::CallFailed { call: key(1), charged: Money::ZERO, tokens: 0, reason: "429".to_owned() };
        let replay = Replay::read(1, &entries(1, &[reserved(1, 50), failed]), |_| false);
        assert_eq!(replay.spend(), Spend::default());
    }

    #[test]
    fn a_step_that_is_made_again_hears_what_it_heard_first_and_nothing_that_was_said_since() {
        let remark = RemarkId::new();
        let heard = JournalBody::Heard { remarks: vec![remark] };
        let timed = JournalBody::Timed { used_ms: 0, at: Timestamp(1) };
        assert_eq!(Replay::read(3, &[], |_| false).heard(), None, "nothing is decided yet");
        assert_eq!(Replay::read(3, &entries(3, &[timed]), |_| false).heard(), None, "nor by a note of the time");
        assert_eq!(Replay::read(3, &entries(3, &[heard, reserved(1, 5)]), |_| false).heard(), Some(&[remark][..]));
        assert_eq!(Replay::read(3, &entries(3, &[reserved(1, 5)]), |_| false).heard(), Some(&[][..]));
    }

    #[test]
    fn whether_a_conversation_rested_is_decided_until_a_model_has_answered_and_never_after() {
        let replied = JournalBody::Replied { call: key(1), reply: reply("hello", 20) };
        let failed = JournalBody::CallFailed { call: key(1), charged: Money::ZERO, tokens: 0, reason: "429".to_owned() };
        let rested = JournalBody::Rested { ms: 1 };
        let read = |bodies: &[JournalBody], under_way| Replay::read(3, &entries(3, bodies), |_| under_way).rested();
        assert_eq!(read(&[], false), None);
        assert_eq!(read(&[reserved(1, 5)], false), None, "a call that died has no answer");
        assert_eq!(read(&[reserved(1, 5), failed], false), None);
        assert_eq!(read(&[reserved(1, 5)], true), Some(false), "its answer is on its way");
        assert_eq!(read(&[reserved(1, 5), replied.clone()], false), Some(false));
        assert_eq!(read(std::slice::from_ref(&rested), false), Some(true));
        assert_eq!(read(&[rested.clone(), reserved(1, 5), replied], false), Some(true));
        assert_eq!(Replay::read(3, &entries(3, &[rested]), |_| false).heard(), None, "it has heard nobody yet");
    }

    #[test]
    fn the_last_note_of_the_time_counts() {
        let timed = |used_ms, at| JournalBody::Timed { used_ms, at: Timestamp(at) };
        let replay = Replay::read(1, &entries(1, &[timed(0, 5), reserved(1, 50), timed(700, 9)]), |_| false);
        assert_eq!(replay.timed(), Some((Duration::from_millis(700), Timestamp(9))));
    }

    #[test]
    fn entries_of_another_step_are_not_read() {
        let replay = Replay::read(2, &entries(1, &[reserved(1, 50)]), |_| false);
        assert_eq!(replay, Replay::read(2, &[], |_| false));
    }

    fn bodies() -> impl Strategy<Value = Vec<JournalBody>> {
        let body = (0_u8..5, 0_i64..100, 0_u8..4).prop_map(|(call, money, what)| match what {
            0 | 1 => reserved(call, money),
            2 => JournalBody::Replied { call: key(call), reply: reply("r", money) },
            _ => JournalBody::CallFailed { call: key(call), charged: Money(money), tokens: 1, reason: String::new() },
        });
        prop::collection::vec(body, 0..30)
    }

    proptest! {
        #[test]
        fn a_death_after_any_entry_loses_no_reply_and_no_charge(bodies in bodies(), cut in 0_usize..30) {
            let all = entries(1, &bodies);
            let cut = cut.min(all.len());
            let before = Replay::read(1, &all[..cut], |_| false);
            let mut live = Replay::read(1, &[], |_| false);
            for entry in &all[..cut] {
                live.apply(entry.sequence, &entry.body);
            }
            prop_assert_eq!(&before.replies, &live.replies);
            prop_assert_eq!(before.next(), live.next());
            // What was only reserved is charged by the next owner, so a death never makes anything cheaper.
            let charged = Spent { money: before.spend().money, tokens: before.spend().tokens };
            prop_assert_eq!(charged, live.committed());
        }
    }
}
