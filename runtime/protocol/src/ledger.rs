//! Keys of the gateway, and the ledger of model calls.

use serde::{Deserialize, Serialize};

use crate::{Budget, Code, KeyId, ModelCallId, Money, OwnerId, ProjectId, TaskId, Timestamp, Usage};

impl GatewayKey {
    /// What every key begins with, so that scanners for leaked secrets know one.
    pub const PREFIX: &str = "helix-";
}

/// A key with which a client calls models through the gateway. The key itself is known only to whoever was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayKey {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// The BLAKE3 hash of the key, in hexadecimal digits. A key is 256 random bits, so a slow hash would add nothing.
    pub hash: String,
    /// Who pays.
    pub owner: OwnerId,
    /// For which project.
    pub project: ProjectId,
    /// The task it was made for; it ends with it.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// The step of the task whose turn it was made for, by its number.
    #[serde(default)]
    pub step: Option<u64>,
    /// The models it may name, by the name a client gives; empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Most that it may spend in all.
    #[serde(default)]
    pub budget: Budget,
    /// Most that it may spend in a UTC day.
    #[serde(default)]
    pub daily: Budget,
    /// Most requests in a minute; `None` is no limit.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// Whose spend is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payer {
    /// An owner, over all of its tasks and its calls through the gateway.
    Owner(OwnerId),
    /// A project, over all of its own.
    Project(ProjectId),
}

/// How a model call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// With an answer.
    Answered,
    /// With the answer that an equal request had before: nobody was asked.
    Reused,
    /// Without an answer, and nothing was billed.
    Failed,
    /// It may have been billed: nobody knows what it used, and the most that it could have is charged. Also while it is under way,
    /// where that had to be on disk before it was made: so it stays should the node die meanwhile.
    Uncertain,
}

/// One entry of the ledger: a call as it was asked for, whoever answered it after however many tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCall {
    /// Its id.
    pub id: ModelCallId,
    /// When it ended.
    pub at: Timestamp,
    /// Who pays.
    pub owner: OwnerId,
    /// For which project.
    #[serde(default = "default_project")]
    pub project: ProjectId,
    /// Who asked: a program or a user.
    pub actor: String,
    /// The task it was made for.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// The step of the task, by its number.
    #[serde(default)]
    pub step: Option<u64>,
    /// The gateway's key it was made with.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// Who answered; who was asked first where nobody did.
    pub provider: String,
    /// With which model.
    pub model: String,
    /// What was used, and what it cost.
    pub usage: Usage,
    /// From the request to the end of the answer, in milliseconds.
    pub latency_ms: u64,
    /// How it ended.
    pub outcome: CallOutcome,
    /// Why it failed.
    #[serde(default)]
    pub code: Option<Code>,
}

/// That of the calls which were entered before a call had a project.
fn default_project() -> ProjectId {
    ProjectId::DEFAULT
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// In money.
    pub money: Money,
    /// In tokens.
    pub tokens: u64,
}

impl Spent {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { money: self.money + other.money, tokens: self.tokens.saturating_add(other.tokens) }
    }

    /// What is left of this without the other, which is never less than nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let money = Money((self.money.0 - other.money.0).max(0));
        Self { money, tokens: self.tokens.saturating_sub(other.tokens) }
    }
}

/// The most that a call can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// In money: nothing of what is free, and `None` where it may cost something and nobody knows how much.
    pub money: Option<Money>,
    /// In tokens.
    pub tokens: u64,
}

impl Most {
    /// What can be set aside for it: no money where nobody knows how much.
    pub fn known(self) -> Spent {
        Spent { money: self.money.unwrap_or_default(), tokens: self.tokens }
    }
}

impl From<Spent> for Most {
    fn from(spent: Spent) -> Self {
        Self { money: Some(spent.money), tokens: spent.tokens }
    }
}

impl Budget {
    /// True where a call that takes at most `most` could come nearer to this limit.
    pub fn concerns(&self, most: Spent) -> bool {
        (self.money.is_some() && most.money > Money::ZERO) || (self.tokens.is_some() && most.tokens > 0)
    }

    /// What stands in the way of a call, in words, where `spent` and the most that it can take together pass this limit,
    /// which is called `name`. A limit is reached, not passed, when exactly everything is spent, and what takes nothing
    /// of it is never in its way. What costs nobody knows how much is in its way from when it is reached.
    pub fn in_the_way(&self, name: &str, spent: Spent, call: Most) -> Option<String> {
        self.in_the_way_beside(name, spent, Spent::default(), call)
    }

    /// The same of a limit of which a task's own tasks hold something beside what the task `spent`.
    pub fn in_the_way_beside(&self, name: &str, spent: Spent, held: Spent, call: Most) -> Option<String> {
        let taken = spent.plus(held);
        let after = taken.plus(call.known());
        if let Some(most) = self.money {
            let are_spent = match held.money {
                Money::ZERO => "are spent".to_owned(),
                held => format!("are spent or held, {held} of it by its own tasks"),
            };
            let taken = taken.money;
            match call.money {
                Some(money) if money > Money::ZERO && after.money > most => {
                    return Some(format!("{taken} of {name} of {most} {are_spent}, and the next model call could cost {money}"));
                }
                None if taken >= most => {
                    let unknown = "what the next model call costs is known only after it: its model has no price";
                    return Some(format!("{taken} of {name} of {most} {are_spent}, and {unknown}"));
                }
                _ => {}
            }
        }
        let most = self.tokens.filter(|most| call.tokens > 0 && after.tokens > *most)?;
        let are_spent = match held.tokens {
            0 => "are spent".to_owned(),
            held => format!("are spent or held, {held} of them by its own tasks"),
        };
        let (taken, call) = (taken.tokens, call.tokens);
        Some(format!("{taken} of {name} of {most} tokens {are_spent}, and the next model call could take {call}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_price_goes_out_until_a_limit_is_reached_and_one_that_is_free_always() {
        let limit = Budget { money: Some(Money(100)), tokens: None };
        let why =
            |spent, money| limit.in_the_way("its budget", Spent { money: Money(spent), tokens: 0 }, Most { money, tokens: 9 });
        for (spent, money) in [(99, None), (99, Some(Money(1))), (100, Some(Money(0))), (101, Some(Money(0)))] {
            assert_eq!(why(spent, money), None, "{spent} {money:?}");
        }
        for (spent, money) in [(100, None), (101, None), (100, Some(Money(1)))] {
            assert!(why(spent, money).is_some(), "{spent} {money:?}");
        }
        assert_eq!(
            why(100, None).expect("it is reached"),
            "$0.000100 of its budget of $0.000100 are spent, and what the next model call costs is known only after it: its model has no price"
        );
        let nothing = Budget { money: Some(Money(0)), tokens: None };
        assert!(nothing.in_the_way("it", Spent::default(), Most { money: None, tokens: 9 }).is_some());
        let of_tokens = Budget { money: None, tokens: Some(8) };
        assert!(of_tokens.in_the_way("it", Spent::default(), Most { money: None, tokens: 9 }).is_some());
        assert_eq!(Budget::default().in_the_way("it", Spent::default(), Most { money: None, tokens: 9 }), None);
    }
}
