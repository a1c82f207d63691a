//! The disk is full, the database goes away, the folder is somebody else's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use helix::node::DataFolder;
use helix_database::testing::{Durability, TestPostgres};
use helix_messages::{AddWorker, WorkerView};
use helix_protocol::{EventKind, ObjectId, TaskId, WorkerTarget};

use crate::harness::{HELIX, Product, SOON, Setup, Verdict, diligent, end_everything_in, not_run, transcript};

/// How long the disk stays full: several steps long.
const FULL: Duration = Duration::from_millis(1_500);

fn helix(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(HELIX);
    command.arg("--data").arg(folder).arg("--json").args(arguments);
    tokio::task::block_in_place(|| command.output()).expect("the program runs")
}

/// The exit code, and the code of the failure.
fn refusal(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().last().unwrap_or_default();
    let failure: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), failure["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_and_a_folder_of_a_newer_version_are_refused() {
    let mut product = Setup::workers(1).start().await;
    let root = product.node.folder().root().to_owned();
    assert_eq!(refusal(&helix(&root, &["up"])), (Some(4), "node_running".to_owned()));
    let task = product.command(&["echo still here"]).await;
    product.completed(task).await;

    product.kill_node();
    let format = root.join("format");
    let ours = std::fs::read_to_string(&format).expect("it says its format");
    let newer: u32 = ours.trim().parse::<u32>().expect("a number") + 1;
    std::fs::write(&format, format!("{newer}\n")).expect("the folder is writable");
    assert_eq!(refusal(&helix(&root, &["up"])), (Some(9), "newer_format".to_owned()));
    std::fs::write(&format, ours).expect("the folder is writable");
    product.start_node_again();
    assert_eq!(product.judge().await, Verdict::default());
}

/// The names in a folder and its mode.
fn look_of(folder: &Path) -> (Vec<String>, u32) {
    let entries = std::fs::read_dir(folder).expect("it can be read").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    (names, std::fs::metadata(folder).expect("it exists").permissions().mode() & 0o7777)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_other_things_is_refused_and_stays_as_everybody_uses_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("somebodys"), "").expect("the folder is writable");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).expect("ours");
    let before = look_of(folder.path());
    for arguments in [&["up"] as &[&str], &["up", "--detach"], &["run", "--command", "true"]] {
        let output = helix(folder.path(), arguments);
        assert_eq!(refusal(&output), (Some(2), "invalid_config".to_owned()), "{output:?}");
        assert_eq!(look_of(folder.path()), before);
    }
    std::fs::write(folder.path().join("format"), "99\n").expect("the folder is writable");
    let newer = look_of(folder.path());
    for arguments in [&["up"] as &[&str], &["up", "--detach"]] {
        assert_eq!(refusal(&helix(folder.path(), arguments)), (Some(9), "newer_format".to_owned()));
        assert_eq!(look_of(folder.path()), newer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_records_of_one_that_runs_is_told_of_it_whatever_its_folder_holds() {
    let product = Setup::workers(1).start().await;
    let task = product.command(&["echo something > to-lose"]).await;
    product.completed(task).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(HELIX);
    command.arg("--data").arg(folder.path().join("data")).args(["--json", "up"]);
    command.env("DATABASE_URL", format!("sqlite:{}", product.node.folder().records().display()));
    let output = tokio::task::block_in_place(|| command.output()).expect("the program runs");
    assert_eq!(refusal(&output), (Some(4), "node_running".to_owned()), "{output:?}");
    let again = product.command(&["true"]).await;
    product.completed(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_files_of_tasks_is_refused_to_another_database_and_goes_on_with_its_own() {
    let mut product = Setup::workers(1).start().await;
    let task = product.command(&["echo something > to-lose"]).await;
    product.completed(task).await;
    product.kill_node();
    let root = product.node.folder().root().to_owned();
    let other = tempfile::tempdir().expect("a temporary folder");
    let start = || {
        let mut command = Command::new(HELIX);
        command.arg("--data").arg(&root).args(["--json", "up"]);
        command.env("DATABASE_URL", format!("sqlite:{}/other.db", other.path().display()));
        tokio::task::block_in_place(|| command.output()).expect("the program runs")
    };
    for _ in 0..2 {
        let output = start();
        assert_eq!(refusal(&output), (Some(2), "invalid_config".to_owned()), "{output:?}");
    }
    // As a version before left it.
    std::fs::remove_file(root.join("records.id")).expect("it was noted");
    assert_eq!(refusal(&start()), (Some(2), "invalid_config".to_owned()));
    product.start_node_again();
    let again = product.command(&["true"]).await;
    product.completed(again).await;
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_named_with_its_reason_by_the_node_and_by_doctor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, and long enough to be looked at as one. ".repeat(20)).expect("the folder is writable");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let helix = |url: &str, arguments: &[&str]| {
        let mut command = Command::new(HELIX);
        command.arg("--data").arg(folder.path().join("data")).arg("--json").args(arguments).env("DATABASE_URL", url);
        tokio::task::block_in_place(|| command.output()).expect("the program runs")
    };
    let found = |url: &str| {
        let output = helix(url, &["doctor"]);
        let checks: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == "database").expect("a line").clone();
        (
            output.status.code(),
            check["verdict"].as_str().expect("text").to_owned(),
            check["found"].as_str().expect("text").to_owned(),
        )
    };
    for (url, exit, code, reason) in [
        (format!("sqlite:{}", text.display()), 9, "database_failed", "file is not a database"),
        (format!("sqlite:{}/nowhere/x.db", folder.path().display()), 2, "invalid_config", "there is no folder"),
    ] {
        let output = helix(&url, &["up"]);
        assert_eq!(refusal(&output), (Some(exit), code.to_owned()), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
        let (exit, verdict, found) = found(&url);
        assert_eq!((exit, verdict.as_str()), (Some(1), "bad"), "{found}");
        assert!(found.contains(reason), "{found}");
    }
    let (exit, verdict, refused) = found(&format!("postgres://helix:secret@127.0.0.1:{port}/helix"));
    assert_eq!((exit, verdict.as_str()), (Some(1), "bad"), "{refused}");
    assert!(refused.contains("Connection refused") && !refused.contains("secret"), "{refused}");
    assert_eq!(found("").1, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_no_model_could_answer_is_refused_before_there_is_a_task() {
    let closed = serde_json::json!({"base_url": "http://127.0.0.1:9/v1", "key_env": "A_KEY_THAT_NOBODY_SET"});
    let product = Setup::workers(1).set("llm.providers.closed", closed).start().await;
    let root = product.node.folder().root().to_owned();
    for (arguments, hint) in [(&["--model", "m"] as &[&str], "A_KEY_THAT_NOBODY_SET"), (&[], "--model")] {
        let output = helix(&root, &[&["run", "mend it", "--provider", "closed"], arguments].concat());
        assert_eq!(refusal(&output), (Some(7), "model_unavailable".to_owned()));
        assert!(String::from_utf8_lossy(&output.stderr).contains(hint), "{output:?}");
    }
    let listed = helix(&root, &["task", "list"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed, serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_its_postgresql_was_killed_and_is_back() {
    let server = TestPostgres::start(Durability::Synced);
    let database = server.database().await;
    let setup = Setup::workers(2).patient_leases().model(transcript([diligent("diligent", 8, 20)]));
    let product = setup.set("database.url", server.url(&database)).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let mut trail = product.oracle.trail();
    let tasks = [product.agent("diligent, one of two").await, product.agent("diligent, the other").await];
    for kind in [EventKind::StepCompleted, EventKind::ToolStarted, EventKind::ModelReplied] {
        trail.until_kind(tasks[0], EventKind::StepCompleted).await;
        trail.until_kind(tasks[0], kind).await;
        tokio::task::block_in_place(|| {
            server.crash();
            server.resume();
        });
    }
    for task in tasks {
        assert_eq!(product.completed(task).await, tree);
    }
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_is_away_says_so_and_can_be_stopped() {
    let server = TestPostgres::start(Durability::Unsynced);
    let database = server.database().await;
    let product = Setup::workers(1).set("database.url", server.url(&database)).start().await;
    let task = product.command(&["sleep 300"]).await;
    product.oracle.whole_trail().until_kind(task, EventKind::TaskAssigned).await;
    let root = product.node.folder().root().to_owned();
    tokio::task::block_in_place(|| server.crash());
    let refused = helix(&root, &["task", "list"]);
    assert_eq!(refusal(&refused), (Some(9), "database_unavailable".to_owned()));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is to be repeated"), "{refused:?}");
    let output = helix(&root, &["status"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!((&status["node"]["pid"], &status["workers"][0]["ready"]), (&product.node.pid().into(), &true.into()), "{status}");
    assert_eq!(status["records_failure"]["code"], "database_unavailable");
    let began = Instant::now();
    let down = helix(&root, &["down", "--now", "--workers"]);
    let ended: serde_json::Value = serde_json::from_slice(&down.stdout).unwrap_or_else(|error| panic!("{error}: {down:?}"));
    assert_eq!((&ended["ended"], &ended["pid"]), (&true.into(), &product.node.pid().into()));
    assert_eq!(ended["workers"][0]["ended"], false, "it may hold a task: {ended}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_still_waits_for_its_database_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("data");
    assert_eq!(refusal(&helix(&root, &["down"])), (Some(5), "node_unreachable".to_owned()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut up = Command::new(HELIX);
    up.arg("--data").arg(&root).arg("up").env("DATABASE_URL", format!("postgres://helix@127.0.0.1:{port}/helix"));
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs");
    let data = DataFolder::locate(&root).expect("a named folder");
    let began = Instant::now();
    while data.holder().is_none() {
        assert!(began.elapsed() < SOON, "it does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let down = helix(&root, &["down"]);
    assert_eq!(down.status.code(), Some(0), "{down:?}");
    // Its lock is free a moment before it has ended.
    assert!(!up.wait().expect("it is ours").success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// A file system of its own, of so many bytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("it can be made");
        let block = vec![1_u8; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        for size in [4_096, 512, 1] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A worker with its folder here is no part of the product's.
        end_everything_in(&self.0);
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Set where a test runs as [`in_a_namespace`] has started it.
const NAMESPACE: &str = "TEST_IN_A_NAMESPACE";

/// Runs a test of this file as root of a user namespace of its own, where it may mount; says that it is not run where this kernel
/// lets this user have none.
fn in_a_namespace(test: &str) {
    let unshare = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]).arg(program);
        command
    };
    assert!(std::env::var_os(NAMESPACE).is_none(), "a namespace that may mount was made, and it may not");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mounts = unshare(Path::new("mount")).args(["-t", "tmpfs", "tmpfs"]).arg(folder.path()).output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        return not_run(test, "this user may mount no file system, not in a user namespace either");
    }
    let this = std::env::current_exe().expect("this program");
    let mut again = unshare(&this);
    again.args(["--exact", "--nocapture", &format!("misfortunes::{test}")]).env(NAMESPACE, "1");
    let output = tokio::task::block_in_place(|| again.output()).expect("unshare was there");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

/// A worker in this folder, on another disk than the node.
async fn add_worker(product: &Product, folder: &Path) -> WorkerView {
    let target = WorkerTarget::Local { folder: folder.display().to_string() };
    let worker = AddWorker { name: "elsewhere".to_owned(), target, slots: Some(4) };
    product.client.post("/workers", &worker).await.expect("it is added")
}

/// A disk without space under two tasks that have begun.
struct Filled {
    ballast: PathBuf,
    tasks: [TaskId; 2],
    /// The files of a third one, which was left in peace.
    tree: ObjectId,
}

async fn fill_under_work(product: &Product, disk: &SmallDisk) -> Filled {
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let mut trail = product.oracle.trail();
    let tasks = [product.agent("diligent, one of two").await, product.agent("diligent, the other").await];
    trail.until_kind(tasks[0], EventKind::StepCompleted).await;
    let ballast = tokio::task::block_in_place(|| disk.fill());
    Filled { ballast, tasks, tree }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_that_was_acknowledged_and_work_goes_on_once_there_is_space() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The content store keeps 128 MiB free for what it must still be able to write.
    let Some(disk) = SmallDisk::mount(folder.path(), 320) else {
        return in_a_namespace("a_full_disk_costs_nothing_that_was_acknowledged_and_work_goes_on_once_there_is_space");
    };
    let setup = Setup::workers(0).patient_leases().model(transcript([diligent("diligent", 6, 20)]));
    let mut product = setup.data(&folder.path().join("data")).start().await;
    add_worker(&product, &product.folder().join("elsewhere")).await;
    let Filled { ballast, tasks, tree } = fill_under_work(&product, &disk).await;
    // Whatever was under way may still be told; nothing new can be kept.
    let mut told = 0;
    let mut full = product.oracle.trail();
    let telling = async {
        loop {
            full.until("a step", |event| event.event.kind == EventKind::StepCompleted).await;
            told += 1;
        }
    };
    assert!(tokio::time::timeout(FULL, telling).await.is_err());
    assert!(told <= tasks.len(), "{told} steps were acknowledged on a full disk");
    std::fs::remove_file(ballast).expect("it was written");
    for task in tasks {
        assert_eq!(product.completed(task).await, tree);
    }
    // What was acknowledged before and after is there for the next process as well.
    product.kill_node();
    product.start_node_again();
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_a_worker_costs_nothing_but_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path(), 24) else {
        return in_a_namespace("a_full_disk_of_a_worker_costs_nothing_but_time");
    };
    let setup = Setup::workers(0).patient_leases().model(transcript([diligent("diligent", 6, 20)]));
    let product = setup.start().await;
    add_worker(&product, &folder.path().join("worker")).await;
    let Filled { ballast, tasks, tree } = fill_under_work(&product, &disk).await;
    tokio::time::sleep(FULL).await;
    std::fs::remove_file(ballast).expect("it was written");
    for task in tasks {
        assert_eq!(product.completed(task).await, tree);
    }
    assert_eq!(product.judge().await, Verdict::default());
}
