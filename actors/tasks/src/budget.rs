//! What may still be spent: a call is reserved at the most it can cost, and settled at what it did cost.

use helix_protocol::{Budget, Code, Failure, Money, Most, Spent};

/// What is left of a budget of which so much is spent or held.
pub fn left(budget: Budget, taken: Spent) -> Budget {
    Budget {
        money: budget.money.map(|most| Money((most.0 - taken.money.0).max(0))),
        tokens: budget.tokens.map(|most| most.saturating_sub(taken.tokens)),
    }
}

/// One of `shares` equal shares of what is left of a budget. Refused with `budget_exhausted` where that is nothing of what was
/// something: a task with it could only ask for more, and what its parent gets later does not reach it.
pub fn share(budget: Budget, taken: Spent, shares: u32) -> Result<Budget, Failure> {
    let (shares, Budget { money, tokens }) = (shares.max(1), left(budget, taken));
    let share = Budget {
        money: money.map(|money| Money(money.0 / i64::from(shares))),
        tokens: tokens.map(|tokens| tokens / u64::from(shares)),
    };
    let is_used_up = (share.money == Some(Money::ZERO) && budget.money != share.money)
        || (share.tokens == Some(0) && budget.tokens != share.tokens);
    if is_used_up {
        return Err(exhausted("nothing is left of the task's budget for a task of its own".to_owned()));
    }
    Ok(share)
}

fn exhausted(why: String) -> Failure {
    Failure::new(Code::BudgetExhausted, why).hint("raise it with `helix task resume --budget N`, or cancel the task")
}

/// Refuses with `budget_exhausted` where `spent`, what its own tasks hold and `call` together pass the task's budget.
pub fn check(budget: Budget, spent: Spent, held: Spent, call: Most) -> Result<(), Failure> {
    match budget.in_the_way_beside("the task's budget", spent, held, call) {
        None => Ok(()),
        Some(why) => Err(exhausted(why)),
    }
}

#[cfg(test)]
mod tests {
    use helix_database::{Descendant, held};
    use helix_protocol::{TaskId, TaskStatus};
    use proptest::prelude::*;

    use super::*;

    fn amount(money: i64, tokens: u64) -> Spent {
        Spent { money: Money(money), tokens }
    }

    fn most(money: i64, tokens: u64) -> Most {
        amount(money, tokens).into()
    }

    #[test]
    fn a_call_that_exactly_reaches_the_budget_is_made_and_one_beyond_is_not() {
        let budget = Budget { money: Some(Money(100)), tokens: None };
        let nothing = Spent::default();
        assert_eq!(check(budget, amount(60, 0), nothing, most(40, 9)), Ok(()));
        let refused = check(budget, amount(60, 0), nothing, most(41, 9)).expect_err("one micro-dollar too many");
        assert_eq!(refused.code, Code::BudgetExhausted);
        assert_eq!(
            refused.message,
            "$0.000060 of the task's budget of $0.000100 are spent, and the next model call could cost $0.000041"
        );
        let held = amount(50, 0);
        assert_eq!(check(budget, amount(10, 0), held, most(40, 9)), Ok(()));
        let refused = check(budget, amount(10, 0), held, most(41, 9)).expect_err("one micro-dollar too many");
        assert_eq!(
            refused.message,
            "$0.000060 of the task's budget of $0.000100 are spent or held, $0.000050 of it by its own tasks, \
             and the next model call could cost $0.000041"
        );
    }

    #[test]
    fn shares_are_equal_and_of_what_is_left() {
        let budget = Budget { money: Some(Money(100)), tokens: None };
        assert_eq!(left(budget, amount(30, 9)), Budget { money: Some(Money(70)), tokens: None });
        assert_eq!(left(budget, amount(130, 9)).money, Some(Money(0)));
        let of = |taken: i64, shares| share(budget, amount(taken, 9), shares);
        assert_eq!(of(10, 3), Ok(Budget { money: Some(Money(30)), tokens: None }));
        assert_eq!((of(40, 2), of(70, 0)), (of(10, 3), of(10, 3)));
        for used_up in [of(130, 2), of(100, 1), share(Budget { tokens: Some(5), ..budget }, amount(0, 5), 1)] {
            assert_eq!(used_up.expect_err("nothing is left").code, Code::BudgetExhausted);
        }
        let free = Budget { money: Some(Money(0)), tokens: None };
        assert_eq!(share(free, amount(0, 9), 3), Ok(free), "what costs nothing can be done with nothing");
    }

    fn used_of(cost: i64, size: u64, used: f64) -> Spent {
        amount((cost as f64 * used) as i64, (size as f64 * used) as u64)
    }

    #[derive(Clone, Debug)]
    enum Happening {
        /// A task, with one of so many shares.
        Makes(u32),
        /// One of a model: the most that it can cost and take, and the part of it that it does.
        Calls(i64, u64, f64),
        Ends,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (1_u32..4).prop_map(Happening::Makes),
            (0_i64..200, 0_u64..200, 0.0_f64..1.0).prop_map(|(cost, size, used)| Happening::Calls(cost, size, used)),
            Just(Happening::Ends),
        ]
    }

    proptest! {
        #[test]
        fn calls_that_are_admitted_never_spend_more_than_the_budget(
            money in 0_i64..1_000, tokens in 0_u64..1_000, calls in prop::collection::vec((0_i64..200, 0_u64..200, 0.0_f64..1.0), 0..50),
        ) {
            let budget = Budget { money: Some(Money(money)), tokens: Some(tokens) };
            let mut spent = Spent::default();
            for (cost, size, used) in calls {
                let reserved = most(cost, size);
                if check(budget, spent, Spent::default(), reserved).is_ok() {
                    // What a call did cost is at most what was reserved for it.
                    spent = spent.plus(used_of(cost, size, used));
                }
            }
            prop_assert!(spent.money <= Money(money) && spent.tokens <= tokens);
        }

        #[test]
        fn a_task_and_everything_below_it_never_spend_more_than_its_budget(
            money in 0_i64..1_000,
            tokens in 0_u64..1_000,
            happenings in prop::collection::vec((any::<prop::sample::Index>(), happening()), 0..60),
        ) {
            let budget = Budget { money: Some(Money(money)), tokens: Some(tokens) };
            let root = Descendant { id: TaskId::new(), parent: TaskId::new(), status: TaskStatus::Running, budget, spent: Spent::default() };
            let mut tasks = vec![root];
            for (at, happening) in happenings {
                let at = at.index(tasks.len());
                let Descendant { id, budget, spent, status, .. } = tasks[at];
                if status.is_final() {
                    continue;
                }
                match happening {
                    Happening::Makes(shares) => {
                        let Ok(budget) = share(budget, spent.plus(held(id, &tasks)), shares) else { continue };
                        tasks.push(Descendant { id: TaskId::new(), parent: id, budget, spent: Spent::default(), ..root });
                    }
                    Happening::Calls(cost, size, used) => {
                        if check(budget, spent, held(id, &tasks), most(cost, size)).is_ok() {
                            tasks[at].spent = spent.plus(used_of(cost, size, used));
                        }
                    }
                    Happening::Ends => tasks[at].status = TaskStatus::Completed,
                }
            }
            let spent = tasks.iter().map(|task| task.spent).fold(Spent::default(), Spent::plus);
            prop_assert!(spent.money <= Money(money) && spent.tokens <= tokens, "{spent:?} of {budget:?}: {tasks:#?}");
        }
    }
}
