//! Tests of what is beneath the contract: files, servers, full disks, lost answers.

#![allow(clippy::unwrap_used)]

mod equality;
mod postgres;
mod proxy;
mod sqlite;
mod step_tree;

use std::collections::BTreeSet;

use helix_protocol::{QuestionId, Subject, TaskId, TaskSpec};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, query, raw_sql};

use crate::contract::stage::{Stage, spec};

/// Takes the schema back to what it was before these migrations, as far as they add columns.
async fn take_back(connection: &mut AnyConnection, from: i64) {
    let mut undone = vec!["DROP INDEX distributed_tasks_by_parent", "ALTER TABLE distributed_tasks DROP COLUMN parent_id"];
    if from <= 9 {
        undone.push("ALTER TABLE questions DROP COLUMN subject");
    }
    for sql in undone {
        raw_sql(sql).execute(&mut *connection).await.unwrap();
    }
    query("DELETE FROM schema_migrations WHERE version >= $1").bind(from).execute(connection).await.unwrap();
}

/// Makes tasks as they were made before the column of who made them, and reads them after the records were migrated.
async fn parents_are_told_by_what_was_asked_for(url: &str) {
    let old = Stage::from(crate::open(url).await.unwrap());
    let made = old.new_task().await;
    let named = TaskSpec { group: Some(TaskId::new()), ..spec("\"parent\":\"it is a word like any\"") };
    let other = old.create(named.clone()).await;
    let alone = old.create(TaskSpec { parent: Some(made.id), ..spec("a part") }).await;
    let attempt = old.create(TaskSpec { parent: Some(made.id), ..named }).await;
    let of_attempt = old.create(TaskSpec { parent: Some(attempt.id), ..spec("a part of an attempt") }).await;
    let below = old.store.descendants(made.id).await.unwrap();
    old.store.close().await.unwrap();
    install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    take_back(&mut connection, 11).await;
    connection.close().await.unwrap();
    let new = Stage::from(crate::open(url).await.unwrap());
    let ids = BTreeSet::from([alone.id, attempt.id, of_attempt.id]);
    assert_eq!(below.iter().map(|task| task.id).collect::<BTreeSet<_>>(), ids);
    assert_eq!(new.store.descendants(made.id).await.unwrap(), below);
    assert_eq!(new.store.descendants(other.id).await.unwrap(), []);
}

/// Writes questions as they were before they had subjects, and reads them after the records were migrated.
async fn subjects_are_told_by_words(url: &str) {
    let old = Stage::from(crate::open(url).await.unwrap());
    let made = old.new_task().await;
    old.store.close().await.unwrap();
    let children = [TaskId::new(), TaskId::new()];
    let texts = [
        "approve step 3 #7: shell\n- shell make".to_owned(),
        format!("waits for its own tasks: {}, {}", children[0], children[1]),
        "out of budget: $1 of the task's budget of $1 are spent; raise the budget?".to_owned(),
        "no model takes its calls: the key is refused. Is it mended?".to_owned(),
        "Approve step 3 of the plan?".to_owned(),
    ];
    install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let run = |sql: String| raw_sql(AssertSqlSafe(sql));
    take_back(&mut connection, 9).await;
    for (at, text) in texts.iter().enumerate() {
        let (id, text) = (QuestionId::new(), text.replace('\'', "''"));
        let insert = format!(
            "INSERT INTO questions (id, task_id, owner_id, project_id, text, choices, created_at, version) \
             VALUES ('{id}', '{}', '{}', '{}', '{text}', '[]', {at}, 1)",
            made.id, made.owner, made.project
        );
        run(insert).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let new = Stage::from(crate::open(url).await.unwrap());
    let questions = new.store.questions(made.id).await.unwrap();
    let subjects: Vec<Subject> = questions.into_iter().rev().map(|question| question.subject).collect();
    let calls = Subject::Calls { place: 0, tools: Vec::new(), calls: String::new() };
    let children = Subject::Children { tasks: children.to_vec() };
    assert_eq!(subjects, [calls, children, Subject::Budget, Subject::Model, Subject::Conversation]);
}
