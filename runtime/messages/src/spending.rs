//! What everybody who pays together may spend in a UTC day: an owner over all tasks and keys, a project over all of its own.
//!
//! One gate for tasks and for the gateway. What a payer has spent is summed up from the records once, when its first call is let
//! in, and counted here from then on: a call is let in while what is spent, what is set aside for calls under way and the most that
//! it can use stay within every limit; one that costs nobody knows how much, until a limit is reached; and one of a task that a
//! person let go on over the day's limits, whatever is spent. Every call of a node passes here, and one node at a time works with
//! its records. What must outlive the node is not here: a task's reservation is in its journal before its call, one of the gateway
//! in the ledger, and who may pass a limit in the questions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use helix_kernel::Clock;
use helix_protocol::{Budget, Code, Failure, Money, Most, OwnerId, Payer, ProjectId, Spent, Subject, TaskId, Timestamp};
use parking_lot::Mutex;

use crate::Records;

/// What any owner and any project may spend in a day. Nothing named is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyLimits {
    /// Each owner.
    pub owner: Budget,
    /// Each project.
    pub project: Budget,
}

impl DailyLimits {
    /// True where any is of tokens.
    pub fn are_of_tokens(&self) -> bool {
        self.owner.tokens.is_some() || self.project.tokens.is_some()
    }

    /// The limit of a day as a configuration gives it: 0 is no limit.
    pub fn of(usd: f64, tokens: u64) -> Budget {
        // A limit in dollars fits in an i64 of micro-dollars up to nine billion; a float beyond that saturates.
        let money = (usd > 0.0).then_some(Money((usd * 1_000_000.0).round() as i64));
        Budget { money, tokens: (tokens > 0).then_some(tokens) }
    }
}

/// Who pays for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payers {
    /// The owner.
    pub owner: OwnerId,
    /// The project.
    pub project: ProjectId,
}

impl Payers {
    fn all(self) -> [Payer; 2] {
        [Payer::Owner(self.owner), Payer::Project(self.project)]
    }
}

/// The gate. Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub struct Spending(Arc<Gate>);

struct Gate {
    records: Records,
    limits: DailyLimits,
    clock: Clock,
    /// Held while a payer's spend is summed up, so that it is once.
    summing: tokio::sync::Mutex<()>,
    accounts: Mutex<BTreeMap<Payer, Account>>,
    /// Why the last call of an agent's turn was refused, by its task.
    refused: Mutex<HashMap<TaskId, Failure>>,
    /// When a call of a task was refused last.
    refused_at: Mutex<HashMap<TaskId, Timestamp>>,
}

/// What a payer has used.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// The first instant of the day that is counted.
    day: Timestamp,
    spent: Spent,
    /// For calls under way, in whatever day they began.
    set_aside: Spent,
}

impl Account {
    /// A day begins with nothing spent: what is under way is charged to the day in which it ends. A clock that is set back leaves
    /// the day as it is, for a limit must not begin anew with it.
    fn roll(&mut self, now: Timestamp) {
        let day = now.day_start();
        if day > self.day {
            *self = Self { day, spent: Spent::default(), ..*self };
        }
    }
}

impl Spending {
    /// Over these records. `clock` says which day it is.
    pub fn new(records: Records, limits: DailyLimits, clock: Clock) -> Self {
        let (summing, accounts) = (tokio::sync::Mutex::default(), Mutex::default());
        let (refused, refused_at) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Gate { records, limits, clock, summing, accounts, refused, refused_at }))
    }

    /// True where a call that takes at most this has to be let in.
    pub fn concerns(&self, most: Spent) -> bool {
        self.0.limits.owner.concerns(most) || self.0.limits.project.concerns(most)
    }

    /// The limits of a day.
    pub fn limits(&self) -> DailyLimits {
        self.0.limits
    }

    /// True where any limit is set.
    pub fn is_limited(&self) -> bool {
        self.0.limits != DailyLimits::default()
    }

    /// Lets a call in that takes at most `most`, which is set aside until the answer is settled. Refused with `day_limit_reached`
    /// where it could pass the limit of one who pays.
    pub async fn admit(&self, payers: Payers, most: Most) -> Result<SetAside, Failure> {
        let known = most.known();
        if most.money.is_some() && !self.concerns(known) {
            return Ok(SetAside { gate: Arc::clone(&self.0), payers, most: Spent::default(), settled: false });
        }
        let (limited, now) = (self.0.limited(payers), self.0.clock.wall());
        for (payer, ..) in &limited {
            self.0.sum_up(*payer, now).await?;
        }
        let mut accounts = self.0.accounts.lock();
        for (payer, limit, name) in &limited {
            let Some(account) = accounts.get_mut(payer) else { continue };
            account.roll(now);
            if let Some(why) = limit.in_the_way(name, account.spent.plus(account.set_aside), most) {
                return Err(Failure::new(Code::DayLimitReached, why)
                    .hint("come back after midnight UTC, or raise `budgets` in helix.yaml and start the node again"));
            }
        }
        Ok(self.set_aside(&mut accounts, payers, known))
    }

    /// As [`Self::admit`], for a call of a task: one that was let go on over the limits of this day is let in whatever is spent.
    pub async fn admit_for(&self, task: TaskId, payers: Payers, most: Most) -> Result<SetAside, Failure> {
        match self.admit(payers, most).await {
            Err(refused) if refused.code == Code::DayLimitReached => {
                if self.may_pass(task).await? {
                    return Ok(self.set_aside(&mut self.0.accounts.lock(), payers, most.known()));
                }
                self.0.refused_at.lock().insert(task, self.0.clock.wall());
                Err(refused)
            }
            answer => answer,
        }
    }

    /// When a call of a task was refused last, if one was; forgotten with this.
    pub fn take_refused_at(&self, task: TaskId) -> Option<Timestamp> {
        self.0.refused_at.lock().remove(&task)
    }

    fn set_aside(&self, accounts: &mut BTreeMap<Payer, Account>, payers: Payers, most: Spent) -> SetAside {
        for payer in payers.all() {
            if let Some(account) = accounts.get_mut(&payer) {
                account.set_aside = account.set_aside.plus(most);
            }
        }
        SetAside { gate: Arc::clone(&self.0), payers, most, settled: false }
    }

    /// Whether somebody answered a task that it may go on over the limits of this day.
    async fn may_pass(&self, task: TaskId) -> Result<bool, Failure> {
        let now = self.0.clock.wall();
        let questions = self.0.records.read().questions(task).await?;
        Ok(questions.iter().any(|question| match question.subject {
            Subject::Day { until } => now < until && question.answer.as_deref() == Some("yes"),
            _ => false,
        }))
    }

    /// Notes how the last call of a task's agent fared at a limit: refused with this, or let in.
    pub fn note(&self, task: TaskId, refused: Option<Failure>) {
        let mut known = self.0.refused.lock();
        match refused {
            Some(failure) => known.insert(task, failure),
            None => {
                self.0.refused_at.lock().remove(&task);
                known.remove(&task)
            }
        };
    }

    /// Why the last call of a task's agent was refused, if it was; forgotten with this.
    pub fn take_refusal(&self, task: TaskId) -> Option<Failure> {
        self.0.refused.lock().remove(&task)
    }
}

impl Gate {
    /// Who of the payers has a limit, with what the limit is called.
    fn limited(&self, payers: Payers) -> Vec<(Payer, Budget, &'static str)> {
        let DailyLimits { owner, project } = self.limits;
        let limits = [
            (Payer::Owner(payers.owner), owner, "today's limit for all tasks and keys"),
            (Payer::Project(payers.project), project, "today's limit for the project"),
        ];
        limits.into_iter().filter(|(_, limit, _)| *limit != Budget::default()).collect()
    }

    /// Opens a payer's account, with what the records say. Nothing of it is under way then: it would have been let in.
    async fn sum_up(&self, payer: Payer, now: Timestamp) -> Result<(), Failure> {
        if self.accounts.lock().contains_key(&payer) {
            return Ok(());
        }
        let _once = self.summing.lock().await;
        if self.accounts.lock().contains_key(&payer) {
            return Ok(());
        }
        let day = now.day_start();
        let (money, tokens) = self.records.read().spent_since(payer, day).await?;
        let account = Account { day, spent: Spent { money, tokens }, set_aside: Spent::default() };
        self.accounts.lock().insert(payer, account);
        Ok(())
    }

    fn end(&self, payers: Payers, most: Spent, used: Spent) {
        let now = self.clock.wall();
        let mut accounts = self.accounts.lock();
        for payer in payers.all() {
            if let Some(account) = accounts.get_mut(&payer) {
                account.roll(now);
                account.set_aside = account.set_aside.minus(most);
                account.spent = account.spent.plus(used);
            }
        }
    }
}

/// What is set aside for a call. Dropped unsettled, nobody knows what the call used, and all of it counts as spent.
pub struct SetAside {
    gate: Arc<Gate>,
    payers: Payers,
    most: Spent,
    settled: bool,
}

impl SetAside {
    /// The call used this.
    pub fn settle(mut self, used: Spent) {
        self.end(used);
    }

    /// The call was certainly not billed.
    pub fn free(mut self) {
        self.end(Spent::default());
    }

    fn end(&mut self, used: Spent) {
        self.settled = true;
        self.gate.end(self.payers, self.most, used);
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if !self.settled {
            self.end(self.most);
        }
    }
}

impl std::fmt::Debug for SetAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetAside").field("payers", &self.payers).field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use helix_database::{MemoryStore, RecordStore, Write};
    use helix_kernel::{Address, SimulatedClock};
    use helix_protocol::{CallOutcome, ModelCall, ModelCallId, Usage};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const OURS: Payers = Payers { owner: OwnerId::LOCAL, project: ProjectId::DEFAULT };

    fn theirs() -> Payers {
        Payers { project: ProjectId::new(), ..OURS }
    }

    /// At midnight.
    fn over(store: MemoryStore, limits: DailyLimits) -> (Spending, SimulatedClock) {
        let records = Records::new(Address::unbound("records", 1), Arc::new(store), Duration::from_secs(1));
        let (clock, machine) = Clock::simulated();
        (Spending::new(records, limits, clock), machine)
    }

    fn of_owner(tokens: u64) -> (Spending, SimulatedClock) {
        over(MemoryStore::new(), DailyLimits { owner: DailyLimits::of(0.0, tokens), project: Budget::default() })
    }

    fn clock_now() -> Timestamp {
        Clock::simulated().0.wall()
    }

    fn tokens(tokens: u64) -> Spent {
        Spent { money: Money(0), tokens }
    }

    async fn admit(spending: &Spending, payers: Payers, most: u64) -> Result<SetAside, Failure> {
        spending.admit(payers, tokens(most).into()).await
    }

    #[test]
    fn zero_in_the_configuration_is_no_limit() {
        assert_eq!(DailyLimits::of(0.0, 0), Budget { money: None, tokens: None });
        assert_eq!(DailyLimits::of(20.0, 5), Budget { money: Some(Money(20_000_000)), tokens: Some(5) });
    }

    #[tokio::test]
    async fn what_is_set_aside_cannot_be_set_aside_again_and_what_was_not_used_can() {
        let (spending, _) = of_owner(100);
        let first = admit(&spending, OURS, 60).await.expect("there is enough");
        let refused = admit(&spending, theirs(), 50).await.expect_err("110 of 100, in whatever project");
        assert_eq!(refused.code, Code::DayLimitReached);
        assert_eq!(
            refused.message,
            "60 of today's limit for all tasks and keys of 100 tokens are spent, and the next model call could take 50"
        );
        first.settle(tokens(10));
        let second = admit(&spending, OURS, 90).await.expect("90 are left");
        second.free();
        drop(admit(&spending, OURS, 90).await.expect("it was free"));
        assert!(admit(&spending, OURS, 1).await.is_err(), "a call nobody heard of counts as spent");
    }

    #[tokio::test]
    async fn a_projects_limit_is_its_own() {
        let (spending, _) = over(MemoryStore::new(), DailyLimits { owner: Budget::default(), project: DailyLimits::of(0.0, 100) });
        let _set_aside = admit(&spending, OURS, 100).await.expect("all of it");
        let refused = admit(&spending, OURS, 1).await.expect_err("nothing is left");
        assert!(refused.message.contains("today's limit for the project of 100 tokens"), "{refused}");
        assert!(admit(&spending, theirs(), 100).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_begins_with_nothing_spent_and_charges_what_ends_in_it() {
        let (spending, machine) = of_owner(100);
        let across = admit(&spending, OURS, 70).await.expect("there is enough");
        drop(admit(&spending, OURS, 30).await.expect("all of it"));
        let more = async || admit(&spending, OURS, 31).await;
        tokio::time::advance(DAY - Duration::from_secs(1)).await;
        assert!(more().await.is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(more().await.is_err(), "70 are still under way");
        across.settle(tokens(69));
        more().await.expect("69 of today are spent").free();
        machine.jump(-1_000_000);
        more().await.expect("a clock that is set back changes nothing").free();
        let across = more().await.expect("there is enough");
        tokio::time::advance(DAY + Duration::from_secs(1)).await;
        across.settle(tokens(31));
        assert!(
            admit(&spending, OURS, 70).await.is_err(),
            "what ended after midnight is charged to the new day, whoever asks first"
        );
        assert!(admit(&spending, OURS, 69).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_node_spent_or_left_under_way_counts_for_the_next_one() {
        let store = MemoryStore::new();
        let most = Usage { input_tokens: 80, estimated: true, ..Usage::default() };
        let left = ModelCall {
            id: ModelCallId::new(),
            at: clock_now(),
            owner: OwnerId::LOCAL,
            project: ProjectId::DEFAULT,
            actor: "somebody".to_owned(),
            task: None,
            step: None,
            key: None,
            provider: String::new(),
            model: "m".to_owned(),
            usage: most,
            latency_ms: 0,
            outcome: CallOutcome::Uncertain,
            code: None,
        };
        store.apply(vec![Write::ModelCalls(vec![left])]).await.expect("the store answers");
        let (spending, _) = over(store, DailyLimits { owner: DailyLimits::of(0.0, 100), project: Budget::default() });
        assert!(admit(&spending, OURS, 21).await.is_err());
        assert!(admit(&spending, OURS, 20).await.is_ok());
    }

    #[tokio::test]
    async fn what_costs_nothing_is_let_in_whatever_was_spent() {
        let (spending, _) =
            over(MemoryStore::new(), DailyLimits { owner: DailyLimits::of(0.000_1, 0), project: Budget::default() });
        spending
            .admit(OURS, Most { money: Some(Money(100)), tokens: 5 })
            .await
            .expect("all of it")
            .settle(Spent { money: Money(150), tokens: 5 });
        assert!(spending.admit(OURS, Most { money: Some(Money(1)), tokens: 5 }).await.is_err());
        assert!(!spending.concerns(tokens(5)) && admit(&spending, OURS, 5).await.is_ok());
    }

    #[tokio::test]
    async fn what_costs_nobody_knows_how_much_is_let_in_until_an_owners_or_a_projects_day_is_spent() {
        let (little, unpriced) = (DailyLimits::of(0.000_1, 0), Most { money: None, tokens: 5 });
        let of = |money| Spent { money: Money(money), tokens: 5 };
        for (owner, project) in [(little, Budget::default()), (Budget::default(), little)] {
            let (spending, _) = over(MemoryStore::new(), DailyLimits { owner, project });
            spending.admit(OURS, unpriced).await.expect("nothing is spent").settle(of(99));
            spending.admit(OURS, unpriced).await.expect("99 of 100 are spent").settle(of(1));
            let refused = spending.admit(OURS, unpriced).await.expect_err("100 of 100 are spent");
            assert!(refused.code == Code::DayLimitReached && refused.message.contains("its model has no price"), "{refused}");
        }
        let (spending, _) = over(MemoryStore::new(), DailyLimits { owner: little, project: Budget::default() });
        let under_way = spending.admit(OURS, of(100).into()).await.expect("all of it");
        assert!(spending.admit(OURS, unpriced).await.is_err(), "all of it is set aside");
        under_way.settle(of(99));
        assert!(spending.admit(OURS, unpriced).await.is_ok(), "there is some left after all");
    }
}
