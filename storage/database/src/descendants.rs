//! What the tasks that a task made take of its budget.

use helix_protocol::{Budget, Spent, TaskId, TaskStatus};

/// A task that another one made, as far as a budget is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descendant {
    /// Its id.
    pub id: TaskId,
    /// Who made it.
    pub parent: TaskId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Most that may be spent by it and everything below it.
    pub budget: Budget,
    /// By itself: in its steps, and in the step that is being made, or was when it ended. A call that nobody knows the end of counts
    /// with what was set aside for it.
    pub spent: Spent,
}

/// What the tasks that `task` made hold of its budget: of one that has ended what it and everything below it spent, and of any other
/// its whole budget, or that where it is more. `below` is everything below `task`.
pub fn held(task: TaskId, below: &[Descendant]) -> Spent {
    let own = below.iter().filter(|own| own.parent == task);
    own.map(|own| own.holds(below)).fold(Spent::default(), Spent::plus)
}

impl Descendant {
    fn holds(&self, below: &[Descendant]) -> Spent {
        let spent = self.spent.plus(held(self.id, below));
        if self.status.is_final() {
            return spent;
        }
        let Budget { money, tokens } = self.budget;
        Spent {
            money: money.map_or(spent.money, |money| money.max(spent.money)),
            tokens: tokens.map_or(spent.tokens, |tokens| tokens.max(spent.tokens)),
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::Money;

    use super::*;

    fn made_by(parent: TaskId, status: TaskStatus, budget: i64, spent: i64) -> Descendant {
        let budget = Budget { money: Some(Money(budget)), tokens: None };
        Descendant { id: TaskId::new(), parent, status, budget, spent: Spent { money: Money(spent), tokens: 5 } }
    }

    #[test]
    fn a_task_that_has_ended_holds_what_was_spent_below_it_and_any_other_its_budget() {
        let task = TaskId::new();
        let running = made_by(task, TaskStatus::Running, 100, 20);
        let over = made_by(task, TaskStatus::Paused, 100, 130);
        let ended = made_by(task, TaskStatus::Cancelled, 100, 20);
        let of_ended = [made_by(ended.id, TaskStatus::Completed, 50, 7), made_by(ended.id, TaskStatus::Running, 50, 0)];
        let of_running = made_by(running.id, TaskStatus::Completed, 50, 30);
        let all = [running, of_running, over, ended, of_ended[0], of_ended[1]];
        assert_eq!(held(task, &all), Spent { money: Money(100 + 130 + 20 + 7 + 50), tokens: 6 * 5 });
        assert_eq!(held(TaskId::new(), &all), Spent::default());
    }
}
