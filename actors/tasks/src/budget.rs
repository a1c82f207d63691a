//! What may still be spent: a call is reserved at the most it can cost, and settled at what it did cost.

use helix_protocol::{Budget, Code, Failure, Money};

/// An amount in both currencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// In money.
    pub money: Money,
    /// In tokens.
    pub tokens: u64,
}

impl std::ops::Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount { money: self.money + other.money, tokens: self.tokens.saturating_add(other.tokens) }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The task's own.
    Task,
    /// All tasks of its owner, in one UTC day.
    Daily,
}

/// Refuses with `budget_exhausted` where `spent` and `call` together pass `budget`. A limit is reached, not passed, when
/// exactly everything is spent.
pub fn check(limit: Limit, budget: Budget, spent: Amount, call: Amount) -> Result<(), Failure> {
    let after = spent + call;
    let (whose, hint) = match limit {
        Limit::Task => ("the task's budget", "raise it with `helix task resume --budget`, or cancel the task"),
        Limit::Daily => ("today's limit for all tasks", "raise `budgets` in helix.yaml, or resume after midnight UTC"),
    };
    if let Some(most) = budget.money
        && after.money > most
    {
        let (spent, call) = (spent.money, call.money);
        let message = format!("{spent} of {whose} of {most} are spent, and the next model call could cost {call}");
        return Err(Failure::new(Code::BudgetExhausted, message).hint(hint));
    }
    if let Some(most) = budget.tokens
        && after.tokens > most
    {
        let (spent, call) = (spent.tokens, call.tokens);
        let message = format!("{spent} of {whose} of {most} tokens are spent, and the next model call could take {call}");
        return Err(Failure::new(Code::BudgetExhausted, message).hint(hint));
    }
    Ok(())
}

/// The daily limit as the configuration gives it: 0 is no limit.
pub fn daily(usd: f64, tokens: u64) -> Budget {
    // A limit in dollars fits in an i64 of micro-dollars up to nine billion; a float beyond that saturates.
    let money = (usd > 0.0).then_some(Money((usd * 1_000_000.0).round() as i64));
    Budget { money, tokens: (tokens > 0).then_some(tokens) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(money: i64, tokens: u64) -> Amount {
        Amount { money: Money(money), tokens }
    }

    #[test]
    fn a_call_that_exactly_reaches_the_budget_is_made_and_one_beyond_is_not() {
        let budget = Budget { money: Some(Money(100)), tokens: None };
        assert_eq!(check(Limit::Task, budget, amount(60, 0), amount(40, 9)), Ok(()));
        let refused = check(Limit::Task, budget, amount(60, 0), amount(41, 9)).expect_err("one micro-dollar too many");
        assert_eq!(refused.code, Code::BudgetExhausted);
        assert_eq!(
            refused.message,
            "$0.000060 of the task's budget of $0.000100 are spent, and the next model call could cost $0.000041"
        );
    }

    #[test]
    fn zero_in_the_configuration_is_no_limit() {
        assert_eq!(daily(0.0, 0), Budget { money: None, tokens: None });
        assert_eq!(daily(20.0, 5), Budget { money: Some(Money(20_000_000)), tokens: Some(5) });
    }

    proptest! {
        #[test]
        fn calls_that_are_admitted_never_spend_more_than_the_budget(
            money in 0_i64..1_000, tokens in 0_u64..1_000, calls in prop::collection::vec((0_i64..200, 0_u64..200, 0.0_f64..1.0), 0..50),
        ) {
            let budget = Budget { money: Some(Money(money)), tokens: Some(tokens) };
            let mut spent = Amount::default();
            for (cost, size, used) in calls {
                let reserved = amount(cost, size);
                if check(Limit::Task, budget, spent, reserved).is_ok() {
                    // What a call did cost is at most what was reserved for it.
                    spent += amount((cost as f64 * used) as i64, (size as f64 * used) as u64);
                }
            }
            prop_assert!(spent.money <= Money(money) && spent.tokens <= tokens);
        }
    }
}
