//! What tasks may spend: they park and ask before the call that could pass a limit.

use std::time::Duration;

use helix_database::RecordStore;
use helix_messages::{DailyLimits, ResumeTask};
use helix_ports::ProviderError;
use helix_protocol::{
    Budget, Code, Failure, JournalBody, Money, Question, Subject, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};

use crate::support::{Fault, Node, Outside, me, talk};

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

/// A question of the task, once there is one.
async fn asked(outside: &Outside, task: TaskId, is_it: impl Fn(&Question) -> bool) -> Question {
    let looking = async {
        loop {
            let questions = outside.records.questions(task).await.expect("readable");
            if let Some(question) = questions.into_iter().find(&is_it) {
                return question;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), looking).await.expect("it asks")
}

fn awaits(question: &Question) -> bool {
    matches!(question.subject, Subject::Children { .. })
}

#[tokio::test(start_paused = true)]
async fn what_a_tasks_own_tasks_spend_comes_off_its_budget_and_what_they_leave_is_its_own_again() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let input = serde_json::json!({ "steps": 20, "wait": 1, "part": { "steps": 2 } });
    let mut spec = TaskSpec { work: TaskWork::Custom { name: "talk".to_owned(), input }, ..talk(20) };
    // Reserved: 100 a call. Spent: 10.
    spec.budget = Budget { money: Some(Money(300)), tokens: None };
    let task = node.create(spec).await.expect("made");
    asked(&outside, task.id, awaits).await;
    let part = outside.records.descendants(task.id).await.expect("readable")[0];
    assert_eq!(part.budget.money, Some(Money(140)), "half of what was left by then");
    node.until(part.id, TaskStatus::Completed).await;
    let asks = |question: &Question| question.is_open() && question.subject == Subject::Budget;
    let parked = async || asked(&outside, task.id, asks).await.text;
    let says = "$0.000210 of the task's budget of $0.000300 are spent or held, $0.000040 of it by its own tasks, and the next";
    let said = parked().await;
    assert!(said.contains(says), "{said}");
    assert_eq!(outside.log.total(), 4 + 17, "20 + 150 of its own, 40 of its part's, and 100 would be too much");
    node.kill().await;
    let node = outside.start().await;
    let resume = ResumeTask { budget: Some(Budget { money: Some(Money(320)), tokens: None }), answer: None };
    node.tasks.resume(task.id, resume, me()).await.expect("resumed");
    let said = parked().await;
    assert!(said.contains("$0.000230 of the task's budget of $0.000320 are spent or held, $0.000040 of it"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_goes_back_gives_its_own_tasks_up_and_one_made_like_them_is_nobodys() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    outside.log.think_for(Duration::from_secs(10));
    let node = outside.start().await;
    let input = serde_json::json!({ "steps": 20, "wait": 2, "part": { "steps": 20 } });
    let spec = TaskSpec { work: TaskWork::Custom { name: "talk".to_owned(), input }, ..talk(20) };
    let task = node.create(spec).await.expect("made");
    asked(&outside, task.id, awaits).await;
    let part = outside.records.descendants(task.id).await.expect("readable")[0].id;
    let like_it = node.create(node.task(part).await.spec).await.expect("made");
    assert_eq!((node.task(part).await.spec.parent, like_it.spec.parent), (Some(task.id), None));
    let first = outside.records.steps(task.id).await.expect("readable")[0].id;
    node.tasks.rollback(task.id, first, me()).await.expect("it is parked");
    node.until(part, TaskStatus::Cancelled).await;
    assert!(!node.task(like_it.id).await.status.is_final());
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
        let waiting = node.until(second.id, TaskStatus::WaitingForInput).await;
        assert!(
            waiting.reason.contains(&format!("$0.000040 of today's limit for {name} of $0.000130 are spent")),
            "{}",
            waiting.reason
        );
        assert_eq!((waiting.spent, waiting.retries), (Money(0), 0));
        let why = node.tasks.why(second.id).await.expect("known");
        assert!(why.next[0].contains("answer") && why.next[0].contains("after midnight UTC"), "{:?}", why.next);
        let asked = outside.log.total();
        let midnight = outside.clock.wall().day_start().after(Duration::from_secs(86_400));
        let done = node.until_within(second.id, &[TaskStatus::Completed], Duration::from_secs(90_000)).await;
        assert!(done.finished_at.expect("it ended") >= midnight);
        assert_eq!((done.spent, outside.log.total()), (Money(40), asked + 4));
        let answers = outside.records.questions(second.id).await.expect("readable");
        assert_eq!(answers.iter().map(|asked| asked.answer.as_deref()).collect::<Vec<_>>(), [Some("the day has turned")]);
    }
}

/// A task that waits at its owner's limit of the day, with the question that it asks.
async fn at_a_days_limit(outside: &mut Outside) -> (Node, TaskRecord, Question) {
    outside.limits.owner = Budget { money: Some(Money(130)), tokens: None };
    outside.world.add("one", 4);
    let node = outside.start().await;
    // Reserved: 100 a call. Spent: 10.
    let task = node.create(talk(4)).await.expect("made");
    let waiting = node.until(task.id, TaskStatus::WaitingForInput).await;
    let question = outside.records.questions(task.id).await.expect("readable").remove(0);
    assert!(matches!(question.subject, Subject::Day { .. }), "{question:?}");
    (node, waiting, question)
}

#[tokio::test(start_paused = true)]
async fn a_task_at_a_days_limit_goes_on_over_it_where_a_person_says_so_and_no_other_does() {
    let mut outside = Outside::new();
    let (node, task, question) = at_a_days_limit(&mut outside).await;
    let refused = node.tasks.answer(question.id, "later".to_owned(), me()).await.expect_err("nobody reads that");
    assert_eq!((refused.code, refused.hint.as_str()), (Code::InvalidRequest, "one of: yes"));
    let unanswered = ResumeTask { budget: None, answer: None };
    assert_eq!(node.tasks.resume(task.id, unanswered, me()).await.expect_err("going on spends").code, Code::InvalidState);
    let other = node.create(talk(1)).await.expect("made");
    node.until(other.id, TaskStatus::WaitingForInput).await;
    node.tasks.answer(question.id, "yes".to_owned(), me()).await.expect("answered");
    let done = node.until_within(task.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
    assert_eq!((done.spent, outside.log.total()), (Money(80), 8), "what was paid for is not asked for again");
    assert!(node.counts_as_the_records_do().await);
    assert_eq!(node.until(other.id, TaskStatus::WaitingForInput).await.spent, Money(0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_to_be_paused_and_came_to_a_days_limit_first_stays_paused_when_the_day_turns() {
    let mut outside = Outside::new();
    // Enough for the first call of its first turn.
    outside.limits.owner = Budget { money: Some(Money(105)), tokens: None };
    outside.world.add("one", 4);
    outside.log.think_for(Duration::from_secs(10));
    let node = outside.start().await;
    let task = node.create(talk(4)).await.expect("made");
    node.until(task.id, TaskStatus::Running).await;
    let paused = node.tasks.pause(task.id, me()).await.expect("it parks");
    assert_eq!(paused.status, TaskStatus::Paused);
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(node.task(task.id).await.status, TaskStatus::Paused);
    node.tasks.resume(task.id, ResumeTask { budget: None, answer: None }, me()).await.expect("resumed");
    node.until_within(task.id, &[TaskStatus::WaitingForInput, TaskStatus::Completed], Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_at_a_days_limit_waits_once_however_often_it_is_paused_and_resumed() {
    let mut outside = Outside::new();
    let (node, task, _) = at_a_days_limit(&mut outside).await;
    let waiting = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::runtime::Handle::current().metrics().num_alive_tasks()
    };
    let mut alive = Vec::new();
    for _ in 0..5 {
        node.tasks.pause(task.id, me()).await.expect("paused");
        node.tasks.resume(task.id, ResumeTask { budget: None, answer: None }, me()).await.expect("resumed");
        node.until(task.id, TaskStatus::WaitingForInput).await;
        alive.push(waiting().await);
    }
    // What was there before ends meanwhile, and nothing is added.
    assert!(alive.is_sorted_by(|before, after| before >= after), "{alive:?}");
    node.until_within(task.id, &[TaskStatus::Completed], Duration::from_secs(90_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_may_go_over_a_days_limit_asks_again_on_the_next_day() {
    let mut outside = Outside::new();
    let (node, task, question) = at_a_days_limit(&mut outside).await;
    node.tasks.pause(task.id, me()).await.expect("paused");
    node.tasks.answer(question.id, "yes".to_owned(), me()).await.expect("answered");
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let other = node.create(talk(4)).await.expect("made");
    node.until(other.id, TaskStatus::WaitingForInput).await;
    node.tasks.resume(task.id, ResumeTask { budget: None, answer: None }, me()).await.expect("resumed");
    node.until(task.id, TaskStatus::WaitingForInput).await;
    let asked = outside.records.questions(task.id).await.expect("readable");
    assert_eq!(asked.iter().filter(|question| question.is_open()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_at_a_days_limit_goes_on_at_once_under_a_node_with_higher_limits_and_asks_again_under_one_without() {
    for raised in [true, false] {
        let mut outside = Outside::new();
        let (node, task, question) = at_a_days_limit(&mut outside).await;
        node.kill().await;
        let asked = outside.log.total();
        outside.limits.owner = Budget { money: Some(Money(if raised { 1_000 } else { 130 })), tokens: None };
        let node = outside.start().await;
        if raised {
            let done = node.until_within(task.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
            assert_eq!((done.spent, outside.log.total()), (Money(80), 8), "what was paid for is not asked for again");
            assert!(asked < 8);
        } else {
            let asks_anew = |open: &Question| open.is_open() && open.id != question.id;
            while !outside.records.questions(task.id).await.expect("readable").iter().any(asks_anew) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(outside.log.total(), asked);
        }
    }
}

/// The write that records the answer to a task's first call, where it is the only one: it is made, claimed, and the call reserved.
const ANSWERED: u64 = 3;

/// A task whose owner died after the answer to its first call was journalled and before it heard of that. No other worker is there.
async fn unheard(outside: &mut Outside) -> (Node, TaskRecord) {
    outside.limits.owner = Budget { money: Some(Money(1_000)), tokens: None };
    let worker = outside.world.add("one", 4);
    outside.faults.plan(ANSWERED, Fault::AnswerLost);
    let node = outside.start().await;
    let task = node.create(talk(2)).await.expect("made");
    while outside.faults.writes() <= ANSWERED {
        tokio::task::yield_now().await;
    }
    outside.world.kill(worker);
    let waiting = node.until(task.id, TaskStatus::WaitingForWorker).await;
    let journal = outside.records.journal(waiting.attempt, 0).await.expect("readable");
    let answered = |body: &JournalBody| matches!(body, JournalBody::Replied { .. } | JournalBody::CallFailed { .. });
    assert!(journal.len() == 2 && answered(&journal[1].body), "{journal:?}");
    (node, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_is_journalled_is_settled_once_whether_its_task_goes_on_waits_or_is_given_up() {
    for goes_on in [true, false] {
        let mut outside = Outside::new();
        let (node, task) = unheard(&mut outside).await;
        assert!(node.counts_as_the_records_do().await, "while it waits for another owner");
        if goes_on {
            outside.world.add("two", 4);
            let done = node.until(task.id, TaskStatus::Completed).await;
            assert_eq!((done.spent, outside.log.total()), (Money(40), 4));
        } else {
            node.tasks.cancel(task.id, me()).await.expect("cancelled");
            node.until(task.id, TaskStatus::Cancelled).await;
        }
        assert!(node.counts_as_the_records_do().await, "goes on: {goes_on}");
        node.stop().await;
        let node = outside.start().await;
        assert!(node.counts_as_the_records_do().await, "after a start, goes on: {goes_on}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_between_an_answer_and_its_step_leaves_what_the_answer_cost() {
    let mut outside = Outside::new();
    let (node, task) = unheard(&mut outside).await;
    node.kill().await;
    let node = outside.start().await;
    assert!(node.counts_as_the_records_do().await, "nobody has gone on with it");
    outside.world.add("two", 4);
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!((done.spent, outside.log.total()), (Money(40), 4));
    assert!(node.counts_as_the_records_do().await, "its steps are charged once");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_made_anew_by_the_next_owner_and_charged_once() {
    let mut outside = Outside::new();
    outside.log.fail_next(ProviderError::Uncertain(Failure::new(Code::ModelFailed, "half an answer")));
    let (node, task) = unheard(&mut outside).await;
    outside.world.add("two", 4);
    let done = node.until(task.id, TaskStatus::Completed).await;
    // Reserved: 100 a call. Spent: 10.
    assert_eq!((done.spent, done.retries, outside.log.total()), (Money(140), 0, 5));
    assert!(node.counts_as_the_records_do().await);
}
