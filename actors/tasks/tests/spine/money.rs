//! What tasks may spend: they park, or wait for the next day, before the call that could pass a limit.

use std::time::Duration;

use helix_database::RecordStore;
use helix_messages::{DailyLimits, ResumeTask};
use helix_protocol::{Budget, Money, TaskRecord, TaskStatus};

use crate::support::{Outside, me, talk};

#[tokio::test(start_paused = true)]
async fn a_budget_parks_the_task_before_the_call_that_could_pass_it() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = talk(3);
    // Reserved: 100 a call. Spent: 10. The tenth micro-dollar beyond 120 is never reserved.
    spec.budget = Budget { money: Some(Money(120)), tokens: None };
    let task = node.create(spec).await.expect("made");
    let parked = node.until(task.id, TaskStatus::WaitingForInput).await;
    assert_eq!((parked.spent, parked.steps), (Money(20), 1));
    let calls = outside.log.total();
    assert_eq!(calls, 3, "two of the first turn, one of the second: 20 + 10 + 100 is too much");
    // Parked in between, it still asks, and a new budget still answers it.
    node.tasks.pause(task.id, me()).await.expect("paused");
    let resume = ResumeTask { budget: Some(Budget { money: Some(Money(1_000)), tokens: None }), answer: None };
    node.tasks.resume(task.id, resume, me()).await.expect("resumed");
    let asked = outside.records.questions(task.id).await.expect("readable");
    assert_eq!(asked.iter().map(|question| question.answer.as_deref()).collect::<Vec<_>>(), [Some("yes")]);
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(done.spent, Money(60));
    assert_eq!(outside.log.total(), 6, "the reply of the second turn that was paid for is not asked for again");
    assert!(outside.log.asked().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_model_has_no_price_parks_once_what_it_spent_has_reached_the_budget() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    outside.log.lose_prices();
    let node = outside.start().await;
    let mut spec = talk(3);
    // Spent: 10 a call, which is known only after it.
    spec.budget = Budget { money: Some(Money(30)), tokens: None };
    let task = node.create(spec).await.expect("made");
    node.until(task.id, TaskStatus::WaitingForInput).await;
    assert_eq!(outside.log.total(), 3, "30 of 30 are spent");
    let resume = ResumeTask { budget: Some(Budget { money: Some(Money(1_000)), tokens: None }), answer: None };
    node.tasks.resume(task.id, resume, me()).await.expect("resumed");
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!((done.spent, outside.log.total()), (Money(60), 6));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_reaches_a_days_limit_waits_for_the_next_day_and_says_whose_limit_it_is() {
    for project in [false, true] {
        let mut outside = Outside::new();
        let limit = Budget { money: Some(Money(130)), tokens: None };
        let (name, limits) = if project {
            ("the project", DailyLimits { project: limit, ..DailyLimits::default() })
        } else {
            ("all tasks and keys", DailyLimits { owner: limit, ..DailyLimits::default() })
        };
        outside.limits = limits;
        outside.world.add("one", 4);
        let node = outside.start().await;
        // Reserved: 100 a call. Spent: 10.
        let first = node.create(talk(2)).await.expect("made");
        node.until_within(first.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
        let second = node.create(talk(2)).await.expect("made");
        let waits = |task: &TaskRecord| task.reason.starts_with("waiting for the next day: ");
        let waiting = node.until_it(second.id, waits).await;
        assert!(
            waiting.reason.contains(&format!("$0.000040 of today's limit for {name} of $0.000130 are spent")),
            "{}",
            waiting.reason
        );
        assert_eq!((waiting.status, waiting.spent, waiting.retries), (TaskStatus::Pending, Money(0), 0));
        let asked = outside.log.total();
        let midnight = outside.clock.wall().day_start().after(Duration::from_secs(86_400));
        let done = node.until_within(second.id, &[TaskStatus::Completed], Duration::from_secs(90_000)).await;
        assert!(done.finished_at.expect("it ended") >= midnight);
        assert_eq!((done.spent, outside.log.total()), (Money(40), asked + 4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_the_next_day_goes_on_at_once_under_a_node_with_higher_limits() {
    let mut outside = Outside::new();
    outside.limits.owner = Budget { money: Some(Money(130)), tokens: None };
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk(4)).await.expect("made");
    node.until_it(task.id, |task| task.reason.starts_with("waiting for the next day: ")).await;
    node.kill().await;
    let asked = outside.log.total();
    outside.limits.owner = Budget { money: Some(Money(1_000)), tokens: None };
    let node = outside.start().await;
    let done = node.until_within(task.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
    assert_eq!((done.spent, outside.log.total()), (Money(80), 8), "what was paid for is not asked for again");
    assert!(asked < 8);
}
