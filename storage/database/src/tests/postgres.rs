//! PostgreSQL: the contract, and what only a server can do: go away, come back, lose an answer, have
//! several writers.

use std::sync::Arc;
use std::time::Duration;

use helix_protocol::{
    EventKind, Message, NewEvent, NewStep, NodeId, OwnerId, Payer, Question, Role, Subject, TaskStatus, Timestamp,
};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row, query, raw_sql};

use super::proxy::Proxy;
use crate::contract::{self, stage};
use crate::sql::migrate::{MIGRATIONS, newest};
use crate::testing::{Durability, TestPostgres};
use crate::{Applied, EventFilter, PostgresStore, RecordError, RecordStore, StatusChange, Write};

async fn store(server: &TestPostgres) -> Arc<dyn RecordStore> {
    let database = server.database().await;
    Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap())
}

/// Every event of the store, in order.
async fn events(store: &dyn RecordStore) -> Vec<EventKind> {
    let filter = EventFilter { limit: 100, ..EventFilter::default() };
    store.events(filter).await.unwrap().into_iter().map(|event| event.event.kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_postgresql() {
    let server = TestPostgres::shared();
    // A server is seldom a node's alone: what somebody has open in another database changes nothing.
    let _open = server.open_transaction().await;
    contract::run(|| store(&server)).await;
}

#[tokio::test]
async fn long_texts_are_compressed_with_lz4_unless_the_server_says_otherwise() {
    let server = TestPostgres::shared();
    for (said, expected) in [("", "lz4"), ("ALTER DATABASE {} SET default_toast_compression = 'pglz'", "pglz")] {
        let database = server.database().await;
        let url = server.url(&database);
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        raw_sql(AssertSqlSafe(said.replace("{}", &database))).execute(&mut connection).await.unwrap();
        let stage = stage::Stage::from(Arc::new(PostgresStore::connect(&url).await.unwrap()) as Arc<dyn RecordStore>);
        let owner = stage.claimed_task().await;
        let said = vec![Message::text(Role::User, "long ".repeat(2_000))];
        stage.done(stage::commit(NewStep { messages: said.clone(), ..stage::step_on(&owner) })).await;
        let select = query("SELECT pg_column_compression(messages) AS with FROM steps").fetch_one(&mut connection);
        assert_eq!(select.await.unwrap().get::<String, _>("with"), expected);
    }
}

#[tokio::test]
async fn a_server_that_went_away_is_unavailable_and_works_when_it_is_back() {
    let server = TestPostgres::start(Durability::Synced);
    let stage = stage::Stage::from(store(&server).await);
    let owner = stage.claimed_task().await;
    let step = stage::step_on(&owner);
    server.crash();
    let answer = stage.store.apply(vec![stage::commit(step.clone())]).await;
    assert!(matches!(answer, Err(RecordError::Unavailable(_))), "{answer:?}");
    let answer = stage.store.task(owner.id).await;
    assert!(matches!(answer, Err(RecordError::Unavailable(_))), "{answer:?}");
    server.resume();
    let task = stage.task_after(stage::commit(step.clone())).await;
    assert_eq!((task.head, task.steps), (Some(step.id), 1));
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_made_once() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let proxy = Proxy::before(server.folder());
    let store = PostgresStore::connect(&TestPostgres::url_over(proxy.folder(), &database)).await.unwrap();
    let stage = stage::Stage::from(Arc::new(store) as Arc<dyn RecordStore>);
    let owner = stage.claimed_task().await;
    let step = stage::step_on(&owner);
    let told = vec![stage::told(EventKind::StepCompleted, owner.id)];
    let write = Write::Commit { step: Box::new(step.clone()), then: None, events: told };
    proxy.lose_next_commit_answer();
    let answer = stage.store.apply(vec![write.clone()]).await;
    assert!(matches!(answer, Err(RecordError::Unavailable(_))), "{answer:?}");
    assert!(!proxy.is_waiting(), "an answer was lost");
    let Applied::Step { step: committed, events: again, .. } = stage.done(write).await else { panic!("no step") };
    assert_eq!((committed.step, again), (step.clone(), Vec::new()));
    let task = stage.task(owner.id).await;
    assert_eq!((task.head, task.steps, task.spent), (Some(step.id), 1, step.spend.money));
    assert_eq!(events(&*stage.store).await, [EventKind::TaskCreated, EventKind::StepCompleted]);
    assert_eq!(
        stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), Timestamp(0)).await,
        Ok((step.spend.money, step.spend.tokens))
    );
}

#[tokio::test]
async fn events_are_readable_whatever_other_transactions_are_open() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let store = PostgresStore::connect(&server.url(&database)).await.unwrap();
    let _elsewhere = server.open_transaction().await;
    let mut other = AnyConnection::connect(&server.url(&database)).await.unwrap();
    let mut here = other.begin().await.unwrap();
    raw_sql("SELECT pg_current_xact_id()::TEXT").execute(&mut *here).await.unwrap();
    store.apply(vec![Write::Events(vec![NewEvent::info(EventKind::SystemStartup, "node", "up")])]).await.unwrap();
    assert_eq!(events(&store).await, [EventKind::SystemStartup]);
}

#[tokio::test]
async fn new_events_come_last_on_a_restored_server() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let url = server.url(&database);
    let store = PostgresStore::connect(&url).await.unwrap();
    let told = |kind| Write::Events(vec![NewEvent::info(kind, "node", "up")]);
    store.apply(vec![told(EventKind::SystemStartup)]).await.unwrap();
    // As a dump would bring them from a server that had counted much further.
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    query("UPDATE events SET sequence = sequence + 1000000 * CAST(65536 AS BIGINT)").execute(&mut connection).await.unwrap();
    store.close().await.unwrap();
    let store = PostgresStore::connect(&url).await.unwrap();
    store.apply(vec![told(EventKind::SystemShutdown)]).await.unwrap();
    assert_eq!(events(&store).await, [EventKind::SystemStartup, EventKind::SystemShutdown]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_two_nodes_in_opposite_order_both_come_through() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let first = stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    let second =
        stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    let mut tasks = Vec::new();
    for _ in 0..16 {
        tasks.push(first.new_task().await.id);
    }
    let told = |ids: &[helix_protocol::TaskId]| -> Vec<Write> {
        ids.iter().map(|id| Write::Events(vec![stage::told(EventKind::ToolStarted, *id)])).collect()
    };
    let reversed: Vec<_> = tasks.iter().rev().copied().collect();
    for _ in 0..10 {
        let (a, b) = tokio::join!(first.store.apply(told(&tasks)), second.store.apply(told(&reversed)));
        assert!(a.unwrap().iter().chain(&b.unwrap()).all(Result::is_ok));
    }
    for task in tasks {
        let filter = EventFilter { task: Some(task), limit: 100, after: 0 };
        let sequences: Vec<_> = first.store.events(filter).await.unwrap().iter().map(|event| event.task_sequence).collect();
        assert_eq!(sequences, (1..=21).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependency_that_completes_while_a_task_is_made_frees_it() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let maker = stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    let ender = stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    for _ in 0..20 {
        let first = maker.new_task().await;
        let made = maker.create(stage::after(&[first.id]));
        let (second, _) = tokio::join!(made, ender.set(first.id, TaskStatus::Completed));
        assert_eq!(maker.task(second.id).await.status, TaskStatus::Pending);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_waits_for_that_ends_while_it_is_resumed_frees_it() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let one = stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    let other = stage::Stage::from(Arc::new(PostgresStore::connect(&server.url(&database)).await.unwrap()) as Arc<dyn RecordStore>);
    let resume = |task| {
        let change = StatusChange { from: vec![TaskStatus::Paused], ..stage::change(task, TaskStatus::Pending) };
        one.done(stage::status(change))
    };
    for _ in 0..20 {
        let needed = one.new_task().await;
        let waiting = one.create(stage::after(&[needed.id])).await;
        one.set(waiting.id, TaskStatus::Paused).await;
        tokio::join!(resume(waiting.id), other.set(needed.id, TaskStatus::Completed));
        assert_eq!(one.task(waiting.id).await.status, TaskStatus::Pending);

        let asks = one.claimed_task().await;
        let question = Question::new(asks.id, Subject::default(), "go on?", Vec::new(), Timestamp(3));
        let answer = Write::Answer { question: question.id, answer: "yes".to_owned(), events: Vec::new() };
        one.done(Write::Ask { question: Box::new(question), epoch: asks.epoch, events: Vec::new() }).await;
        one.set(asks.id, TaskStatus::Paused).await;
        tokio::join!(resume(asks.id), other.done(answer));
        assert_eq!(one.task(asks.id).await.status, TaskStatus::Pending);
    }
}

#[tokio::test]
async fn one_database_is_leased_by_one_node_by_the_servers_clock() {
    let server = TestPostgres::shared();
    let store = store(&server).await;
    let (first, second) = (NodeId::new(), NodeId::new());
    let now = store.now().await.unwrap();
    let lease = store.renew_node(first, 60_000).await.unwrap().unwrap();
    assert_eq!(lease.node, first);
    assert!(lease.expires_at >= now.after(Duration::from_secs(60)));
    assert_eq!(store.renew_node(second, 60_000).await, Ok(None));
    assert!(store.renew_node(first, 0).await.unwrap().is_some());
    assert!(store.renew_node(second, 60_000).await.unwrap().is_some(), "the first one's has run out");
    assert_eq!(store.renew_node(first, 60_000).await, Ok(None), "and was taken over");
}

#[tokio::test]
async fn records_of_a_newer_version_are_refused() {
    let server = TestPostgres::shared();
    let database = server.database().await;
    let url = server.url(&database);
    PostgresStore::connect(&url).await.unwrap().close().await.unwrap();
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    raw_sql("INSERT INTO schema_migrations VALUES (99, 'later', 0)").execute(&mut connection).await.unwrap();
    let refused = PostgresStore::connect(&url).await.err();
    assert_eq!(refused, Some(RecordError::NewerFormat { found: 99, known: newest(MIGRATIONS) }));
}

#[tokio::test]
async fn questions_of_before_have_the_subject_that_their_words_said() {
    let server = TestPostgres::shared();
    super::subjects_are_told_by_words(&server.url(&server.database().await)).await;
}

#[tokio::test]
async fn tasks_of_before_are_found_by_who_made_them() {
    let server = TestPostgres::shared();
    super::parents_are_told_by_what_was_asked_for(&server.url(&server.database().await)).await;
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_said_to() {
    // Nobody listens on a port that was given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://helix@127.0.0.1:{port}/helix");
    for outcome in [PostgresStore::connect(&url).await.map(drop), crate::probe(&url).await] {
        let Err(RecordError::Unavailable(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("Connection refused"), "{reason}");
    }
}

/// Whether the server says that a connection of this URL is encrypted.
async fn is_encrypted(url: &str) -> bool {
    install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let row = query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
    row.get("ssl")
}

#[tokio::test]
async fn a_connection_is_as_safe_as_its_sslmode_says() {
    let server = TestPostgres::start(Durability::Unsynced);
    let (port, authority) = server.encrypt();
    let at = |host: &str, mode: &str| format!("postgres://helix@{host}:{port}/postgres?{mode}");
    let known = format!("&sslrootcert={}", authority.display());
    assert!(is_encrypted(&at("localhost", "")).await, "it is where the server can");
    assert!(!is_encrypted(&at("localhost", "sslmode=disable")).await);
    assert!(is_encrypted(&at("127.0.0.1", "sslmode=require")).await);
    assert!(is_encrypted(&at("127.0.0.1", &format!("sslmode=verify-ca{known}"))).await);
    let verified = at("localhost", &format!("sslmode=verify-full{known}"));
    assert!(is_encrypted(&verified).await);
    PostgresStore::connect(&verified).await.unwrap().close().await.unwrap();

    let plain = TestPostgres::shared();
    let refusals = [
        (at("localhost", "sslmode=verify-full"), "UnknownIssuer"),
        (at("localhost", "sslmode=verify-ca"), "UnknownIssuer"),
        (at("127.0.0.1", &format!("sslmode=verify-full{known}")), "not valid for name"),
        (plain.url("postgres").replace("sslmode=disable", "sslmode=require"), "server does not support TLS"),
    ];
    for (url, reason) in refusals {
        let refusal = crate::probe(&url).await.expect_err(&url).to_string();
        assert!(refusal.contains(reason), "{url}: {refusal}");
    }
}
