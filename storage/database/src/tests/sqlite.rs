//! SQLite: what is on disk, a full disk, older and newer files.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use helix_protocol::{NodeId, TaskStatus, Timestamp};
use sqlx::raw_sql;

use crate::contract::stage::{self, Stage};
use crate::sql::migrate::{MIGRATIONS, Migration, copy_path, newest};
use crate::{Clock, RecordError, RecordStore, SqliteStore, TaskFilter, open};

fn stage(store: SqliteStore) -> Stage {
    Stage::from(Arc::new(store) as Arc<dyn RecordStore>)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a name with spaces, % and ?.db");
    let first = stage(SqliteStore::open(&path).await.unwrap());
    let owner = first.claimed_task().await;
    let (step, task) = first.next_step(&owner).await;
    first.store.close().await.unwrap();
    let second = stage(SqliteStore::open(&path).await.unwrap());
    assert_eq!(second.task(owner.id).await, task);
    assert_eq!(second.store.step(step.id).await.unwrap().map(|record| record.step), Some(step));
    assert!(path.exists(), "the file has the name that was given");
}

#[tokio::test]
async fn the_file_is_written_ahead_and_synced_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
    let mut writer = store.writer.acquire().await.unwrap();
    let mut settings = Vec::new();
    for pragma in ["PRAGMA journal_mode", "PRAGMA synchronous", "PRAGMA foreign_keys"] {
        let row = raw_sql(pragma).fetch_one(&mut *writer).await.unwrap();
        let text =
            sqlx::Row::try_get::<String, _>(&row, 0).or_else(|_| sqlx::Row::try_get::<i64, _>(&row, 0).map(|n| n.to_string()));
        settings.push(text.unwrap());
    }
    assert_eq!(settings, ["wal", "2", "1"]);
}

/// A file system of two megabytes, where this user may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output().ok()?;
        mount.status.success().then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_they_work_when_there_is_space_again() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("mounting is not allowed here; the limit on pages stands for the disk");
        return;
    };
    let stage = stage(SqliteStore::open(disk.0.path().join("records.db")).await.unwrap());
    let owner = stage.claimed_task().await;
    let ballast = disk.0.path().join("ballast");
    let full = std::fs::write(&ballast, vec![1; 4 << 20]).map_err(|error| error.kind());
    assert_eq!(full, Err(std::io::ErrorKind::StorageFull));
    let step = helix_protocol::NewStep { summary: "x".repeat(100_000), ..stage::step_on(&owner) };
    for _ in 0..2 {
        let answer = stage.store.apply(vec![stage::commit(step.clone())]).await;
        assert!(matches!(answer, Err(RecordError::DiskFull(_))), "{answer:?}");
        assert_eq!(stage.task(owner.id).await, owner);
    }
    std::fs::remove_file(&ballast).unwrap();
    let task = stage.task_after(stage::commit(step.clone())).await;
    assert_eq!(task.head, Some(step.id));
}

#[tokio::test]
async fn a_file_at_its_limit_of_pages_is_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
    let writer = store.writer.clone();
    let stage = stage(store);
    let owner = stage.claimed_task().await;
    raw_sql("PRAGMA max_page_count = 1").execute(&writer).await.unwrap();
    let large = helix_protocol::NewStep { summary: "x".repeat(1 << 20), ..stage::step_on(&owner) };
    let answer = stage.store.apply(vec![stage::commit(large.clone())]).await;
    assert!(matches!(answer, Err(RecordError::DiskFull(_))), "{answer:?}");
    assert_eq!(stage.task(owner.id).await, owner);
    // The limit was the connection's, and a group that failed gets a new one.
    let task = stage.task_after(stage::commit(large.clone())).await;
    assert_eq!(task.head, Some(large.id));
}

#[tokio::test]
async fn records_of_a_newer_version_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let store = SqliteStore::open(&path).await.unwrap();
    raw_sql("INSERT INTO schema_migrations VALUES (99, 'later', 0)").execute(&store.writer).await.unwrap();
    store.close().await.unwrap();
    let refused = SqliteStore::open(&path).await.err();
    assert_eq!(refused, Some(RecordError::NewerFormat { found: 99, known: newest(MIGRATIONS) }));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no copy, no leftovers");
}

#[tokio::test]
async fn an_older_file_is_copied_before_it_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's mine.db");
    let old = stage(SqliteStore::open(&path).await.unwrap());
    let made = old.new_task().await;
    old.store.close().await.unwrap();
    let later =
        Migration { version: newest(MIGRATIONS) + 1, name: "later", sql: "UPDATE distributed_tasks SET reason = 'migrated'" };
    let migrations = [MIGRATIONS, &[later]].concat();
    let new = stage(SqliteStore::open_at(&path, Clock::system(), &migrations).await.unwrap());
    assert_eq!(new.task(made.id).await.reason, "migrated");
    let copy = stage(SqliteStore::open(copy_path(&path, newest(MIGRATIONS))).await.unwrap());
    assert_eq!(copy.task(made.id).await, made);
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let old = stage(SqliteStore::open(&path).await.unwrap());
    let made = old.new_task().await;
    old.store.close().await.unwrap();
    let sql = "UPDATE distributed_tasks SET reason = 'migrated'; SELECT nothing FROM nowhere";
    let migrations = [MIGRATIONS, &[Migration { version: newest(MIGRATIONS) + 1, name: "broken", sql }]].concat();
    let failed = SqliteStore::open_at(&path, Clock::system(), &migrations).await.err();
    assert!(matches!(failed, Some(RecordError::Backend(_))), "{failed:?}");
    assert_eq!(stage(SqliteStore::open(&path).await.unwrap()).task(made.id).await, made);
}

#[tokio::test]
async fn questions_of_before_have_the_subject_that_their_words_said() {
    let folder = tempfile::tempdir().unwrap();
    super::subjects_are_told_by_words(&format!("sqlite:{}", folder.path().join("records.db").display())).await;
}

#[tokio::test]
async fn tasks_of_before_are_found_by_who_made_them() {
    let folder = tempfile::tempdir().unwrap();
    super::parents_are_told_by_what_was_asked_for(&format!("sqlite:{}", folder.path().join("records.db").display())).await;
}

#[tokio::test]
async fn one_file_is_leased_by_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    for url in [url.as_str(), "memory:"] {
        let store = open(url).await.unwrap();
        let (first, second) = (NodeId::new(), NodeId::new());
        assert!(store.renew_node(first, 60_000).await.unwrap().is_some());
        assert_eq!(store.renew_node(second, 60_000).await, Ok(None));
        assert!(store.renew_node(first, 0).await.unwrap().is_some());
        assert!(store.renew_node(second, 60_000).await.unwrap().is_some(), "the first one's has run out");
        assert_eq!(store.renew_node(first, 60_000).await, Ok(None), "and was taken over");
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_not_there_again_when_the_clock_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_000_000_000));
    let clock = Clock::new({
        let now = Arc::clone(&now);
        move || Timestamp(now.load(Ordering::SeqCst))
    });
    let store = SqliteStore::open_with_clock(folder.path().join("records.db"), clock).await.unwrap();
    let (first, second) = (NodeId::new(), NodeId::new());
    assert!(store.renew_node(first, 15_000).await.unwrap().is_some());
    now.fetch_add(16_000_000, Ordering::SeqCst);
    assert!(store.renew_node(second, 15_000).await.unwrap().is_some(), "the first one's has run out");
    now.fetch_sub(10_000_000, Ordering::SeqCst);
    assert!(store.renew_node(second, 15_000).await.unwrap().is_some(), "and stays so");
}

#[tokio::test]
async fn readers_go_on_beside_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
    let writer = store.writer.clone();
    let stage = stage(store);
    let made = stage.new_task().await;
    let mut open = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    raw_sql("UPDATE distributed_tasks SET status = 'paused'").execute(&mut *open).await.unwrap();
    assert_eq!(stage.store.tasks(TaskFilter::default()).await, Ok(vec![made.clone()]));
    open.commit().await.unwrap();
    assert_eq!(stage.task(made.id).await.status, TaskStatus::Paused);
}

#[tokio::test]
async fn a_folder_that_is_not_there_and_a_url_of_another_kind_are_refused() {
    for url in ["sqlite:/nowhere/at/all/records.db", "mysql://host/database"] {
        let refused = open(url).await.err();
        assert!(matches!(refused, Some(RecordError::NotFound(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_at_once_and_by_name_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "not a database, and long enough to be looked at as one. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let expected = RecordError::Backend(format!("{}: file is not a database", path.display()));
    let started = std::time::Instant::now();
    assert_eq!(SqliteStore::open(&path).await.map(drop), Err(expected.clone()));
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "waiting does not help");
    assert_eq!(crate::probe(&format!("sqlite:{}", path.display())).await, Err(expected));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let missing = folder.path().join("records.db");
    assert_eq!(crate::probe(&format!("sqlite:{}", missing.display())).await, Ok(()));
    assert!(!missing.exists(), "looking makes nothing");
}
