//! An agent's way to models through this node's gateway: a key for one turn, and what was spent with it.
//!
//! The key may spend what the task has left; the day's limits hold for its calls as for any. It is forgotten when its turn
//! ends, and ends by itself should nobody be left to do that. What calls cost is in the ledger; the step is charged the
//! difference between that and what its task was charged already, so a turn that is made again, or whose end was lost with
//! its node, is charged once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use helix_config::GatewayConfig;
use helix_database::Write;
use helix_messages::{LedgerFilter, new_key_secret};
use helix_protocol::{
    Budget, Code, Failure, GatewayAccess, GatewayKey, KeyId, ModelTraffic, Money, Spend, Spent, TaskId, TaskRecord, TaskWork,
    Timestamp, WorkerId, WorkerTarget,
};

use crate::budget;
use crate::shared::Shared;

/// How long a key is good where nobody revokes it.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);
/// Calls of a turn that are counted.
const COUNTED: u32 = 10_000;

/// Makes a key for the turn that is to be step `ordinal` of a task, on a worker. `spent` is what its task was charged already.
pub(crate) async fn access(
    shared: &Shared,
    task: &TaskRecord,
    ordinal: u64,
    worker: WorkerId,
    spent: Spent,
) -> Result<GatewayAccess, Failure> {
    let url = address(shared, worker).await?;
    shared.has_some_left(task).await?;
    let mut budget = task.spec.budget;
    if budget != Budget::default() {
        // The turn of an owner that was lost has been charged to no step yet.
        budget = budget::left(budget, spent.plus(unsettled(shared, task.id, spent).await?));
    }
    if budget.money.is_some_and(|money| money <= Money::ZERO) || budget.tokens == Some(0) {
        return Err(Failure::new(Code::BudgetExhausted, "nothing is left of the task's budget for another turn of the agent")
            .hint("`helix task resume --budget N` raises it"));
    }
    let (secret, hash) = new_key_secret();
    let key = GatewayKey {
        id: KeyId::new(),
        name: name(task.id),
        hash,
        owner: task.owner,
        project: task.project,
        task: Some(task.id),
        step: Some(ordinal),
        models: Vec::new(),
        budget,
        daily: Budget::default(),
        requests_per_minute: None,
        created_at: shared.now(),
        expires_at: Some(shared.now().after(VALID)),
        revoked_at: None,
    };
    shared.write(Write::CreateKey(Box::new(key))).await?;
    Ok(GatewayAccess { url, key: secret })
}

/// Where a worker reaches the gateway.
async fn address(shared: &Shared, worker: WorkerId) -> Result<String, Failure> {
    let config = &shared.args.gateway;
    let workers = shared.read(|records| async move { records.read().workers().await }).await?;
    let found = workers.into_iter().find(|found| found.id == worker);
    let is_here = found.is_some_and(|found| matches!(found.target, WorkerTarget::Local { .. }));
    let missing = |message: &str, hint: &str| Err(Failure::new(Code::InvalidConfig, message).hint(hint));
    match config.listen.parse::<SocketAddr>() {
        Ok(listen) if is_here => {
            let host = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
            Ok(format!("http://{}", SocketAddr::new(host, listen.port())))
        }
        _ if !config.address.is_empty() => Ok(config.address.trim_end_matches('/').to_owned()),
        Ok(_) => missing(
            "an agent on another machine's worker does not reach this node's gateway",
            "set `gateway.address` to where that machine reaches it, or give the agent keys of its own with --own-models",
        ),
        Err(_) => Err(not_listening()),
    }
}

/// Refuses an agent whose models no worker could reach.
pub(crate) fn check(config: &GatewayConfig, work: &TaskWork) -> Result<(), Failure> {
    match work {
        TaskWork::External(agent)
            if agent.models == ModelTraffic::Gateway && config.listen.is_empty() && config.address.is_empty() =>
        {
            Err(not_listening())
        }
        _ => Ok(()),
    }
}

fn not_listening() -> Failure {
    let message = "the agent's models are to be reached through this node's gateway, which does not listen";
    Failure::new(Code::InvalidConfig, message).hint(
        "set `gateway.listen: 127.0.0.1:4141` in helix.yaml and start the node again, or give the agent keys of its own with --own-models",
    )
}

/// Why a turn whose last call was refused is not done. A key's budget is what its task has left.
pub(crate) fn refused(refusal: Failure) -> Failure {
    if refusal.code != Code::BudgetExhausted {
        return refusal;
    }
    let message = format!("what is left of the task's budget is too little for the agent's next model call: {}", refusal.message);
    Failure::new(Code::BudgetExhausted, message).hint("`helix task resume --budget N` raises it")
}

/// Forgets the keys of a task's turns, those of earlier owners included: they are refused from now on. With them go those that
/// ended by themselves, whose turns nobody was left to end.
pub(crate) async fn forget(shared: &Shared, task: TaskId) -> Result<(), Failure> {
    let (keys, now) = (shared.read(|records| async move { records.read().gateway_keys().await }).await?, shared.now());
    let is_over = |key: &GatewayKey| key.revoked_at.is_some() || key.expires_at.is_some_and(|until| until <= now);
    for key in keys.into_iter().filter(is_of_a_turn) {
        if key.task == Some(task) || is_over(&key) {
            shared.write(Write::RemoveKey(key.id)).await?;
        }
    }
    Ok(())
}

fn name(task: TaskId) -> String {
    format!("task {}", task.short())
}

/// True of a key that was made here: nobody can make one for the task of an external agent.
fn is_of_a_turn(key: &GatewayKey) -> bool {
    key.task.is_some_and(|task| key.name == name(task)) && key.expires_at.is_some()
}

/// What the task's calls cost beyond what it was `charged` already.
async fn unsettled(shared: &Shared, task: TaskId, charged: Spent) -> Result<Spent, Failure> {
    if let Err(failure) = shared.args.models.flush_ledger(task).await {
        // The branch begins anew, and what its ledger had is written or lost by now.
        tracing::warn!(%task, %failure, "the latest model calls of a turn may be charged with the next one");
    }
    let filter = LedgerFilter { task: Some(task), ..LedgerFilter::default() };
    let spent = shared.read(|records| async move { records.read().ledger_spent(filter).await }).await?;
    Ok(spent.minus(charged))
}

/// The same as a step is charged it. Calls are counted from `since`.
pub(crate) async fn uncharged(shared: &Shared, task: TaskId, charged: Spent, since: Timestamp) -> Result<Spend, Failure> {
    let Spent { money, tokens } = unsettled(shared, task, charged).await?;
    let counted = LedgerFilter { task: Some(task), since, limit: COUNTED, ..LedgerFilter::default() };
    let calls = shared.read(|records| async move { records.read().ledger(counted).await }).await?;
    Ok(Spend { model_calls: u32::try_from(calls.len()).unwrap_or(u32::MAX), tokens, money, uncertain_calls: 0 })
}
