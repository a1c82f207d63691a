//! What the journal of an unfinished step says was spent.

use std::collections::BTreeMap;

use helix_protocol::{CallKey, JournalBody, Money};

/// What an entry does to the spend of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChargeKind {
    /// At most this much will be spent.
    Reserved,
    /// This much was spent, and the reservation is free again.
    Settled,
}

impl ChargeKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Settled => "settled",
        }
    }
}

/// An entry's effect on the spend. Kept in columns, so that a sum needs no reply to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// The call.
    pub call: CallKey,
    /// What it does.
    pub kind: ChargeKind,
    /// In money.
    pub money: Money,
    /// In tokens.
    pub tokens: u64,
}

impl Charge {
    /// The charge of a journal entry; `None` for entries that cost nothing.
    pub fn of(body: &JournalBody) -> Option<Self> {
        let (call, kind, money, tokens) = match body {
            JournalBody::Reserved { call, money, tokens } => (call, ChargeKind::Reserved, *money, *tokens),
            JournalBody::Replied { call, reply } => (call, ChargeKind::Settled, reply.usage.cost, reply.usage.total_tokens()),
            JournalBody::CallFailed { call, charged, tokens, .. } => (call, ChargeKind::Settled, *charged, *tokens),
            JournalBody::Charged { call, spend } => (call, ChargeKind::Settled, spend.money, spend.tokens),
            JournalBody::Intended { .. }
            | JournalBody::Resulted { .. }
            | JournalBody::Heard { .. }
            | JournalBody::Timed { .. }
            | JournalBody::Rested { .. } => return None,
        };
        Some(Self { call: call.clone(), kind, money, tokens })
    }
}

/// The sum of charges in the order they were journalled: what was settled, and the reservations of calls that have neither
/// replied nor failed. A call that is tried again has the same key; where nothing is known of the try before, its node died with
/// it, and it stays charged.
pub(crate) fn total(charges: impl IntoIterator<Item = Charge>) -> (Money, u64) {
    let mut open: BTreeMap<CallKey, (Money, u64)> = BTreeMap::new();
    let (mut money, mut tokens) = (Money::ZERO, 0u64);
    for charge in charges {
        match charge.kind {
            ChargeKind::Reserved => {
                if let Some((lost_money, lost_tokens)) = open.insert(charge.call, (charge.money, charge.tokens)) {
                    money += lost_money;
                    tokens = tokens.saturating_add(lost_tokens);
                }
            }
            ChargeKind::Settled => {
                open.remove(&charge.call);
                money += charge.money;
                tokens = tokens.saturating_add(charge.tokens);
            }
        }
    }
    for (reserved_money, reserved_tokens) in open.into_values() {
        money += reserved_money;
        tokens = tokens.saturating_add(reserved_tokens);
    }
    (money, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(call: &str, kind: ChargeKind, money: i64, tokens: u64) -> Charge {
        Charge { call: CallKey(call.to_owned()), kind, money: Money(money), tokens }
    }

    #[test]
    fn a_reply_takes_the_place_of_its_reservation() {
        let charges = [charge("a", ChargeKind::Reserved, 100, 50), charge("a", ChargeKind::Settled, 30, 20)];
        assert_eq!(total(charges), (Money(30), 20));
    }

    #[test]
    fn a_call_tried_again_is_charged_for_both_tries() {
        let charges = [
            charge("a", ChargeKind::Reserved, 100, 50),
            charge("a", ChargeKind::Settled, 100, 50),
            charge("a", ChargeKind::Reserved, 100, 50),
        ];
        assert_eq!(total(charges), (Money(200), 100));
    }

    #[test]
    fn a_try_that_died_with_its_node_stays_charged() {
        let charges = [
            charge("a", ChargeKind::Reserved, 100, 50),
            charge("a", ChargeKind::Reserved, 90, 40),
            charge("a", ChargeKind::Settled, 30, 20),
        ];
        assert_eq!(total(charges), (Money(130), 70));
    }
}
