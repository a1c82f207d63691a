//! The node's content beside running tasks: what nothing names goes, what anything names stays.

use std::fs;
use std::path::Path;
use std::process::Command;

use helix_adapter_http::api::{CreateTaskRequest, CreatedTasks};
use helix_messages::ImportGit;
use helix_objects::ObjectStore;
use helix_protocol::{ObjectId, TaskId, TaskSpec};
use helix_rocks::RocksStore;

use crate::harness::{Product, Setup, Verdict, command_spec};

/// What is imported and never named: nothing that can be compressed.
const WASTE_BYTES: usize = 24 << 20;

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes_in(&entry.path()) } else { entry.metadata().map_or(0, |found| found.len()) })
        .sum()
}

/// A repository with one large file.
fn waste(folder: &Path) {
    fs::create_dir(folder).expect("made");
    let noise: Vec<u8> = (0..(WASTE_BYTES / 32) as u64).flat_map(|count| helix_objects::hash(&count.to_le_bytes()).0).collect();
    fs::write(folder.join("noise"), noise).expect("written");
    let script = "git init -q && git add . && git -c user.name=G -c user.email=g@example.org commit -q -m one";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder).status().expect("git runs").success());
}

/// Imports a repository for a task that is then refused, so nothing names its files.
async fn import_for_nothing(product: &Product, repository: &Path) {
    let spec = TaskSpec { depends_on: vec![TaskId::new()], ..command_spec(&["true"]) };
    let request = CreateTaskRequest {
        spec,
        import: Some(ImportGit { path: repository.to_owned(), clean: true }),
        attempts: 1,
        secrets: Vec::new(),
    };
    product.client.post::<CreatedTasks>("/tasks", &request).await.expect_err("it waits for a task that does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_nothing_names_goes_beside_running_tasks_and_nothing_named_is_lost() {
    let setup = Setup::workers(1).set("storage.collect_interval_ms", 500).set("storage.collect_grace_ms", 500);
    let mut product = setup.start().await;
    let content = product.node.folder().content();
    let repository = product.folder().join("waste");
    waste(&repository);
    // Each command is a step with files of its own, and one that it shares with the waste.
    let commands: Vec<String> =
        (0..40).map(|step| format!("cp {}/noise shared; seq {step} 20000 > f{step}; sleep 0.2", repository.display())).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let quiet = bytes_in(&content);
    import_for_nothing(&product, &repository).await;
    product.until("the waste is on disk", async || bytes_in(&content) > quiet + WASTE_BYTES as u64 / 2).await;
    let first = product.command(&["echo kept > f"]).await;
    let tree = product.completed(first).await;
    product.until("the waste is gone", async || bytes_in(&content) < quiet + WASTE_BYTES as u64 / 4).await;

    // Now it is wasted and named at the same time, while collections come and go.
    let running = product.command(&commands).await;
    for _ in 0..3 {
        import_for_nothing(&product, &repository).await;
    }
    let last = product.completed(running).await;
    assert_eq!(product.judge().await, Verdict::default());
    let mut named: Vec<ObjectId> = vec![tree, last];
    for task in [first, running] {
        named.extend(product.all_steps(task).await.iter().flat_map(|step| [step.tree, step.snapshot.0]));
    }
    assert!(named.len() > 40, "every command is a step: {}", named.len());
    let log = fs::read_to_string(product.node.folder().log()).expect("there is a log");
    assert!(log.matches("content was looked after").count() > 3, "{log}");
    product.kill_node();
    let store = RocksStore::open(&content).expect("it opens");
    for id in &named {
        let reached = helix_versions::reach(&store, [*id]).expect("it can be read");
        assert!(reached.live.contains(id) && reached.missing == 0, "{id}: {} missing", reached.missing);
    }
    assert!(store.verify().expect("it can be read").is_sound());
    store.close().expect("it closes");
    product.start_node_again();
    assert_eq!(product.completed(first).await, tree);
}
