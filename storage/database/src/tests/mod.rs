//! Tests of what is beneath the contract: files, servers, full disks, lost answers.

#![allow(clippy::unwrap_used)]

mod equality;
mod postgres;
mod proxy;
mod sqlite;
mod step_tree;

use helix_protocol::{QuestionId, Subject, TaskId};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, raw_sql};

use crate::contract::stage::Stage;

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
    run("ALTER TABLE questions DROP COLUMN subject".to_owned()).execute(&mut connection).await.unwrap();
    run("DELETE FROM schema_migrations WHERE version >= 9".to_owned()).execute(&mut connection).await.unwrap();
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
