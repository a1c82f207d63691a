//! Who calls, and what that caller may still use.
//!
//! Keys are in the records by their hash and are read again after [`FRESH`]; what each has spent is summed up from the ledger once
//! and counted here from then on, because the node that serves a key is the only one that does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use helix_messages::{Asking, LedgerFilter, Records, SetAside, key_secret_hash};
use helix_protocol::{Budget, Code, Failure, GatewayKey, KeyId, Most, Spent, Timestamp, Usage};
use parking_lot::Mutex;

/// How long keys that were read are taken for what they are. What this node makes or revokes holds at once.
const FRESH: Duration = Duration::from_secs(5);
/// The window of a rate limit.
const MINUTE: Duration = Duration::from_secs(60);

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub failure: Failure,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: u16, failure: Failure) -> Self {
        Self { status, failure, retry_after: None }
    }
}

/// Every key, and what each has used.
pub(crate) struct Keys {
    records: Records,
    known: Mutex<Known>,
    accounts: Mutex<HashMap<KeyId, Arc<Mutex<Account>>>>,
}

#[derive(Default)]
struct Known {
    /// When, and which changes of this node's it has seen.
    read: Option<(Instant, u64)>,
    by_hash: HashMap<String, Arc<GatewayKey>>,
}

/// What a key has used.
#[derive(Debug, Default)]
struct Account {
    total: Spent,
    /// Spent on this day, whose first instant it is.
    today: (Timestamp, Spent),
    reserved: Spent,
    requests: VecDeque<Instant>,
}

/// A key with its account.
#[derive(Clone)]
pub(crate) struct Caller {
    pub key: Arc<GatewayKey>,
    account: Arc<Mutex<Account>>,
}

impl Keys {
    pub fn new(records: Records) -> Self {
        Self { records, known: Mutex::default(), accounts: Mutex::default() }
    }

    /// The caller of a key. Must run on the node's threads. Refused with 401, and with 429 beyond its rate.
    pub async fn caller(&self, secret: Option<&str>, now: Timestamp) -> Result<Caller, Refusal> {
        let refused = |message: &str, hint: &str| Refusal::new(401, Failure::new(Code::Forbidden, message).hint(hint));
        let secret = secret.ok_or_else(|| {
            refused("no key was sent", "send one of this node's keys as the API key; `helix key create NAME` makes one")
        })?;
        let key = self.find(&key_secret_hash(secret)).await.map_err(|failure| Refusal::new(503, failure))?;
        let key = key.ok_or_else(|| refused("this key is not known", "`helix key list` shows those that exist"))?;
        if key.revoked_at.is_some() {
            return Err(refused(&format!("the key {:?} was revoked", key.name), "ask for another one"));
        }
        if key.expires_at.is_some_and(|until| until <= now) {
            return Err(refused(&format!("the key {:?} has expired", key.name), "ask for another one"));
        }
        let account = self.account(&key, now).await.map_err(|failure| Refusal::new(503, failure))?;
        let caller = Caller { key, account };
        caller.count(Instant::now())?;
        Ok(caller)
    }

    async fn find(&self, hash: &str) -> Result<Option<Arc<GatewayKey>>, Failure> {
        let changes = self.records.key_changes();
        {
            let known = self.known.lock();
            if known.read.is_some_and(|(read, seen)| read.elapsed() < FRESH && seen == changes) {
                return Ok(known.by_hash.get(hash).cloned());
            }
        }
        let keys = self.records.read().gateway_keys().await?;
        // Nobody can use what a key had that was removed.
        self.accounts.lock().retain(|id, _| keys.iter().any(|key| key.id == *id));
        let mut known = self.known.lock();
        known.by_hash = keys.into_iter().map(|key| (key.hash.clone(), Arc::new(key))).collect();
        known.read = Some((Instant::now(), changes));
        Ok(known.by_hash.get(hash).cloned())
    }

    async fn account(&self, key: &GatewayKey, now: Timestamp) -> Result<Arc<Mutex<Account>>, Failure> {
        if let Some(account) = self.accounts.lock().get(&key.id) {
            return Ok(Arc::clone(account));
        }
        let of = |since| LedgerFilter { key: Some(key.id), since, ..LedgerFilter::default() };
        let total = self.records.read().ledger_spent(of(Timestamp(0))).await?;
        let today = self.records.read().ledger_spent(of(now.day_start())).await?;
        let account = Account { total, today: (now.day_start(), today), ..Account::default() };
        let mut accounts = self.accounts.lock();
        // Somebody may have been faster, and may have counted since.
        Ok(Arc::clone(accounts.entry(key.id).or_insert_with(|| Arc::new(Mutex::new(account)))))
    }
}

impl Caller {
    /// True where nothing that is used has to be known before.
    pub fn is_unlimited(&self) -> bool {
        self.key.budget == Budget::default() && self.key.daily == Budget::default()
    }

    /// True where the key may use only so many tokens.
    pub fn is_limited_in_tokens(&self) -> bool {
        self.key.budget.tokens.is_some() || self.key.daily.tokens.is_some()
    }

    /// True where a limit of the key is about a call that takes at most this.
    pub fn is_concerned(&self, most: Spent) -> bool {
        self.key.budget.concerns(most) || self.key.daily.concerns(most)
    }

    /// Refused where the key may not name this model.
    pub fn may_ask(&self, model: &str) -> Result<(), Refusal> {
        if self.key.models.is_empty() || self.key.models.iter().any(|known| known == model) {
            return Ok(());
        }
        let message = format!("the key {:?} may not ask for the model {model:?}", self.key.name);
        Err(Refusal::new(
            403,
            Failure::new(Code::Forbidden, message).hint(format!("it may ask for {}", self.key.models.join(", "))),
        ))
    }

    /// Counts a request against the rate.
    fn count(&self, now: Instant) -> Result<(), Refusal> {
        let Some(most) = self.key.requests_per_minute else { return Ok(()) };
        let mut account = self.account.lock();
        while account.requests.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            account.requests.pop_front();
        }
        if account.requests.len() >= most as usize {
            let oldest = account.requests.front().copied().unwrap_or(now);
            let wait = MINUTE.saturating_sub(now.duration_since(oldest));
            let message = format!("the key {:?} may ask {most} times a minute", self.key.name);
            let failure = Failure::new(Code::Overloaded, message).hint(format!("ask again in {} s", wait.as_secs() + 1));
            return Err(Refusal { status: 429, failure, retry_after: Some(wait) });
        }
        account.requests.push_back(now);
        Ok(())
    }

    /// Sets aside the most that a call can use. Refused with 402 where that could pass a limit.
    pub fn reserve(&self, most: Most, now: Timestamp) -> Result<OfKey, Refusal> {
        let mut account = self.account.lock();
        account.roll(now);
        let limits = [("its budget", self.key.budget, account.total), ("its limit for a day", self.key.daily, account.today.1)];
        for (name, limit, spent) in limits {
            if let Some(why) = limit.in_the_way(name, spent.plus(account.reserved), most) {
                let message = format!("the key {:?} may not spend so much: {why}", self.key.name);
                let failure = Failure::new(Code::BudgetExhausted, message).hint("ask for fewer tokens, or for a key with more");
                return Err(Refusal::new(402, failure));
            }
        }
        let most = most.known();
        account.reserved = account.reserved.plus(most);
        Ok(OfKey { account: Arc::clone(&self.account), most, settled: false })
    }
}

impl Account {
    fn roll(&mut self, now: Timestamp) {
        let day = now.day_start();
        // A clock that was set back begins no day anew.
        if day > self.today.0 {
            self.today = (day, Spent::default());
        }
    }
}

/// What is set aside for a call: of its key's limits and of the day of its owner and its project. Dropped unsettled while somebody
/// is asked, nobody knows what it used, and all of it counts as spent; before, and after whoever did not bill it, it is free.
#[derive(Debug)]
pub(crate) struct Reservation {
    of_key: Option<OfKey>,
    of_day: Option<SetAside>,
    /// Whether somebody is asked for the call.
    pub asking: Asking,
}

impl Reservation {
    pub fn new(of_key: Option<OfKey>, of_day: SetAside) -> Self {
        Self { of_key, of_day: Some(of_day), asking: Asking::default() }
    }

    /// The call used this.
    pub fn settle(mut self, usage: &Usage) {
        self.used(Spent { money: usage.cost, tokens: usage.total_tokens() });
    }

    /// The call was certainly not billed.
    pub fn free(mut self) {
        self.used(Spent::default());
    }

    fn used(&mut self, used: Spent) {
        if let Some(mut of_key) = self.of_key.take() {
            of_key.end(used, Timestamp::now());
        }
        if let Some(of_day) = self.of_day.take() {
            of_day.settle(used);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.asking.give_up() {
            self.used(Spent::default());
        }
    }
}

/// What is set aside of a key's limits.
#[derive(Debug)]
pub(crate) struct OfKey {
    account: Arc<Mutex<Account>>,
    most: Spent,
    settled: bool,
}

impl OfKey {
    fn end(&mut self, used: Spent, now: Timestamp) {
        self.settled = true;
        let mut account = self.account.lock();
        // What ends after midnight is the new day's.
        account.roll(now);
        account.reserved = account.reserved.minus(self.most);
        account.total = account.total.plus(used);
        account.today.1 = account.today.1.plus(used);
    }
}

impl Drop for OfKey {
    fn drop(&mut self) {
        if !self.settled {
            self.end(self.most, Timestamp::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{Money, OwnerId, ProjectId};

    use super::*;

    fn caller(budget: Option<i64>, rate: Option<u32>) -> Caller {
        let key = GatewayKey {
            id: KeyId::new(),
            name: "k".to_owned(),
            hash: String::new(),
            owner: OwnerId::LOCAL,
            project: ProjectId::DEFAULT,
            task: None,
            step: None,
            models: vec!["coder".to_owned()],
            budget: Budget { money: budget.map(Money), tokens: None },
            daily: Budget { money: None, tokens: Some(100) },
            requests_per_minute: rate,
            created_at: Timestamp(0),
            expires_at: None,
            revoked_at: None,
        };
        Caller { key: Arc::new(key), account: Arc::default() }
    }

    fn most(money: i64, tokens: u64) -> Most {
        spent(money, tokens).into()
    }

    fn spent(money: i64, tokens: u64) -> Spent {
        Spent { money: Money(money), tokens }
    }

    fn end(mut reserved: OfKey, used: Spent) {
        reserved.end(used, Timestamp(6));
    }

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn what_is_reserved_cannot_be_reserved_again_and_what_was_not_used_can() {
        let caller = caller(Some(10), None);
        let first = caller.reserve(most(6, 1), Timestamp(0)).expect("there is enough");
        let refused = caller.reserve(most(5, 1), Timestamp(0)).expect_err("11 of 10");
        assert_eq!((refused.status, refused.failure.code), (402, Code::BudgetExhausted));
        end(first, spent(2, 0));
        let second = caller.reserve(most(8, 1), Timestamp(0)).expect("8 are left");
        end(second, Spent::default());
        drop(caller.reserve(most(8, 1), Timestamp(0)).expect("it was free"));
        assert!(caller.reserve(most(1, 1), Timestamp(0)).is_err(), "a call nobody heard of counts as spent");
    }

    #[test]
    fn what_costs_nobody_knows_how_much_is_let_in_until_the_budget_is_spent_or_reserved() {
        let (caller, unpriced) = (caller(Some(10), None), Most { money: None, tokens: 1 });
        let under_way = caller.reserve(most(10, 1), Timestamp(0)).expect("all of it");
        assert!(caller.reserve(unpriced, Timestamp(0)).is_err(), "all of it is reserved");
        end(under_way, spent(9, 1));
        end(caller.reserve(unpriced, Timestamp(0)).expect("9 of 10 are spent"), spent(1, 1));
        let refused = caller.reserve(unpriced, Timestamp(0)).expect_err("10 of 10 are spent");
        assert_eq!(refused.status, 402);
        drop(caller.reserve(most(0, 1), Timestamp(0)).expect("it is free"));
    }

    #[test]
    fn a_day_begins_with_nothing_spent() {
        let caller = caller(None, None);
        caller.reserve(most(1, 100), Timestamp(5)).expect("all of it").end(spent(1, 100), Timestamp(6));
        assert!(caller.reserve(most(1, 1), Timestamp(DAY - 1)).is_err());
        let over_midnight = caller.reserve(most(1, 1), Timestamp(DAY));
        over_midnight.expect("a new day").end(spent(1, 100), Timestamp(DAY));
        assert!(caller.reserve(most(1, 1), Timestamp(DAY + 1)).is_err(), "what ends in the day is the day's");
        assert!(caller.reserve(most(1, 1), Timestamp(DAY - 1)).is_err(), "a clock that is set back begins no day");
    }

    #[test]
    fn a_rate_is_counted_over_a_minute() {
        let caller = caller(None, Some(2));
        let start = Instant::now();
        assert!(caller.count(start).is_ok() && caller.count(start + MINUTE / 2).is_ok());
        let refused = caller.count(start + MINUTE / 2).expect_err("the third");
        assert_eq!((refused.status, refused.retry_after), (429, Some(MINUTE / 2)));
        assert!(caller.count(start + MINUTE).is_ok());
        assert!(caller.count(start + MINUTE).is_err());
    }

    #[test]
    fn a_key_asks_only_for_its_models() {
        let caller = caller(None, None);
        assert!(caller.may_ask("coder").is_ok());
        assert_eq!(caller.may_ask("other").expect_err("not its own").status, 403);
    }
}
