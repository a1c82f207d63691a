//! Best of several attempts, by the real scheduler: tasks of their own on workers, the losers stopped early, one result to export.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use helix_adapter_http::api::{AttemptList, CreateTaskRequest, CreatedTasks, ExportRequest};
use helix_messages::{Exported, FileDiff, ImportGit};
use helix_protocol::{Environment, TaskSpec, TaskStatus};
use tokio::time::Instant;

use crate::harness::{Setup, Verdict, command_spec};

/// How long the attempt that is first to begin takes.
const SLOW: Duration = Duration::from_secs(120);

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_attempt_that_passes_is_the_tasks_result_and_the_others_are_stopped_and_kept() {
    let product = Setup::workers(2).start().await;
    let (repository, meeting) = (product.folder().join("repository"), product.folder().join("meeting"));
    fs::create_dir(&meeting).expect("made");
    fs::create_dir(&repository).expect("made");
    fs::write(repository.join("README"), "read me\n").expect("written");
    let script = "git init -q -b main && git add . && git -c user.name=G -c user.email=g@example.org commit -q -m one";
    assert!(Command::new("sh").args(["-c", script]).current_dir(&repository).status().expect("git runs").success());
    // Whoever begins first takes long; so it is the other one that passes.
    let (meeting, slow) = (meeting.display().to_string(), SLOW.as_secs());
    let command = format!(
        "echo junk/ > .gitignore; mkdir junk; echo more > junk/more; if mkdir {meeting}/first 2>/dev/null; then sleep {slow}; fi; \
         echo done > made.txt"
    );
    let environment = Environment { writable: vec![meeting], ..Environment::default() };
    let spec = TaskSpec { environment, ..command_spec(&[&command]) };
    let request = CreateTaskRequest {
        spec,
        import: Some(ImportGit { path: repository.clone(), clean: true }),
        attempts: 2,
        secrets: Vec::new(),
    };
    let began = Instant::now();
    let created: CreatedTasks = product.client.post("/tasks", &request).await.expect("made");
    let [task] = created.tasks.as_slice() else { panic!("one task: {:?}", created.tasks) };
    let task = task.id;
    let tree = product.completed(task).await;
    assert!(began.elapsed() < SLOW, "the slow one was not waited for");

    let list: AttemptList = product.client.get(&format!("/tasks/{task}/attempts")).await.expect("listed");
    assert_eq!(list.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    let (taken, lost): (Vec<_>, Vec<_>) = list.attempts.iter().partition(|attempt| attempt.taken);
    let ([taken], [lost]) = (taken.as_slice(), lost.as_slice()) else { panic!("one of two: {list:?}") };
    assert_eq!((taken.status, lost.status), (TaskStatus::Completed, TaskStatus::Cancelled));
    assert_eq!(tree, product.tree(taken.task).await, "the winner's files are the task's");
    assert_eq!((taken.bytes, lost.bytes, list.bytes), (16, 0, 16), "junk/, more and done, each with its line end");
    assert_eq!(product.record(lost.task).await.spec.group, Some(task), "the other one is there to be looked at");

    let diff = async |query: &[(&str, &str)]| -> Vec<FileDiff> {
        product.client.query(&format!("/tasks/{task}/diff"), query).await.expect("compared")
    };
    let seen = |files: &[FileDiff]| -> Vec<(String, bool, bool)> {
        files.iter().map(|file| (file.change.path.clone(), file.left_out, file.patch.is_empty())).collect()
    };
    let row = |path: &str, left_out, empty| (path.to_owned(), left_out, empty);
    let shown = [row(".gitignore", false, false), row("junk/more", true, true), row("made.txt", false, false)];
    assert_eq!(seen(&diff(&[]).await), shown, "what git ignores is marked, and its patch was not asked for");
    assert_eq!(seen(&diff(&[("all", "true")]).await)[1], row("junk/more", true, false));

    let export = ExportRequest { branch: Some("helix/best".to_owned()), repository: None, step: None };
    let exported: Exported = product.client.post(&format!("/tasks/{task}/export"), &export).await.expect("exported");
    assert_eq!(exported.commits, 1, "one result");
    assert_eq!(git(&repository, &["diff", "--name-only", "main", "helix/best"]), ".gitignore\nmade.txt");
    assert_eq!(git(&repository, &["show", "helix/best:made.txt"]), "done");
    assert_eq!(product.judge().await, Verdict::default());
}
