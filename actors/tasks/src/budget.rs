//! What may still be spent: a call is reserved at the most it can cost, and settled at what it did cost.

use helix_protocol::{Budget, Code, Failure, Money, Most, Spent};

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

impl From<Amount> for Spent {
    fn from(amount: Amount) -> Self {
        Self { money: amount.money, tokens: amount.tokens }
    }
}

/// Refuses with `budget_exhausted` where `spent` and `call` together pass the task's own budget.
pub fn check(budget: Budget, spent: Amount, call: Most) -> Result<(), Failure> {
    match budget.in_the_way("the task's budget", spent.into(), call) {
        None => Ok(()),
        Some(why) => {
            Err(Failure::new(Code::BudgetExhausted, why).hint("raise it with `helix task resume --budget N`, or cancel the task"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(money: i64, tokens: u64) -> Amount {
        Amount { money: Money(money), tokens }
    }

    fn most(money: i64, tokens: u64) -> Most {
        Spent::from(amount(money, tokens)).into()
    }

    #[test]
    fn a_call_that_exactly_reaches_the_budget_is_made_and_one_beyond_is_not() {
        let budget = Budget { money: Some(Money(100)), tokens: None };
        assert_eq!(check(budget, amount(60, 0), most(40, 9)), Ok(()));
        let refused = check(budget, amount(60, 0), most(41, 9)).expect_err("one micro-dollar too many");
        assert_eq!(refused.code, Code::BudgetExhausted);
        assert_eq!(
            refused.message,
            "$0.000060 of the task's budget of $0.000100 are spent, and the next model call could cost $0.000041"
        );
    }

    proptest! {
        #[test]
        fn calls_that_are_admitted_never_spend_more_than_the_budget(
            money in 0_i64..1_000, tokens in 0_u64..1_000, calls in prop::collection::vec((0_i64..200, 0_u64..200, 0.0_f64..1.0), 0..50),
        ) {
            let budget = Budget { money: Some(Money(money)), tokens: Some(tokens) };
            let mut spent = Amount::default();
            for (cost, size, used) in calls {
                let reserved = most(cost, size);
                if check(budget, spent, reserved).is_ok() {
                    // What a call did cost is at most what was reserved for it.
                    spent += amount((cost as f64 * used) as i64, (size as f64 * used) as u64);
                }
            }
            prop_assert!(spent.money <= Money(money) && spent.tokens <= tokens);
        }
    }
}
