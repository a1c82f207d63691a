//! A node that comes back within the lease: what its workers were at goes on, and nothing is done twice.

use std::path::Path;
use std::time::Duration;

use helix_adapter_http::api::RunOutput;
use helix_protocol::{EventKind, TaskId};

use crate::harness::{Product, SOON, Setup, Verdict, scenario, state_of, transcript};

/// What a file says, line by line.
fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for so many lines.
async fn lines_of(file: &Path, count: usize) {
    let looking = async {
        while lines(file).len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("{}: {:?}", file.display(), lines(file)));
}

/// A command that says a number every tenth of a second, and who it is. Outside of the workspace: what is done twice is not undone.
fn counting(folder: &Path, most: usize) -> String {
    let folder = folder.display();
    format!(
        "echo $$ >> {folder}/pids; n=0; while [ $n -lt {most} ]; do \
         echo $n >> {folder}/counted; echo $n >> counted; echo said $n; n=$((n + 1)); sleep 0.1; done"
    )
}

/// The run of a task that is shown as begun.
async fn run_of(product: &Product, task: TaskId) -> String {
    let begun = product.oracle.whole_trail().until_kind(task, EventKind::ToolStarted).await;
    begun.event.detail["input"]["run"].as_str().expect("a command's event names its run").to_owned()
}

/// Kills the node in the middle of a command, starts it again once `away` is over, and holds what came of it against one that was
/// never disturbed.
async fn a_command_goes_on(setup: Setup, most: usize, away: impl AsyncFnOnce(u32)) {
    let mut product = setup.start().await;
    let folder = product.folder().to_owned();
    let counted = folder.join("counted");
    let task = product.command(&[&counting(&folder, most)]).await;
    lines_of(&counted, 10).await;
    let run = run_of(&product, task).await;
    product.kill_node();
    let pid: u32 = lines(&folder.join("pids"))[0].parse().expect("a process id");
    away(pid).await;
    product.start_node_again();
    lines_of(&counted, lines(&counted).len() + 2).await;
    // What it says can be read on while it runs, under the name it always had.
    let log = format!("/tasks/{task}/log");
    product
        .until("the output is there", async || {
            let asked = [("run", run.as_str()), ("offset", "0")];
            let page = product.client.query::<RunOutput>(&log, &asked).await;
            page.is_ok_and(|page| page.text.starts_with("said 0\nsaid 1\n"))
        })
        .await;
    product.completed(task).await;
    let numbers: Vec<String> = (0..most).map(|number| number.to_string()).collect();
    assert_eq!(lines(&counted), numbers, "no number is missing and none comes twice");
    assert_eq!(lines(&folder.join("pids")), [pid.to_string()], "one process counted");
    let steps = product.all_steps(task).await;
    assert_eq!(steps.iter().map(|step| (step.ordinal, step.epoch.0)).collect::<Vec<_>>(), [(1, 2)]);
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_while_its_node_is_killed_and_started_again() {
    a_command_goes_on(Setup::workers(1).real_leases(), 50, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_frozen_while_its_node_was_away_goes_on() {
    a_command_goes_on(Setup::workers(1), 50, async |pid| {
        while state_of(pid) != Some('T') {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_node_is_killed_between_and_in_its_tool_calls_makes_none_of_them_twice() {
    const CALLS: usize = 6;
    let folder = tempfile::tempdir().expect("a folder");
    let outside = &folder.path().join("made");
    let calls = |turn: usize| {
        (1..=CALLS).map(move |call| {
            // In the workspace and outside of it: the one shows what is lost, the other what is done twice.
            let command = format!("echo {turn}.{call} | tee -a made >> {}; sleep 0.2", outside.display());
            serde_json::json!({"tool": "shell", "arguments": {"command": command}})
        })
    };
    let turns = (1..=2).map(|turn| serde_json::json!({"text": "I work.", "calls": calls(turn).collect::<Vec<_>>()}));
    let conversation = scenario("tools", turns.chain([serde_json::json!({"text": "All is done."})]));
    let setup =
        Setup::workers(1).real_leases().model(transcript([conversation])).set("tasks.writable", serde_json::json!([folder.path()]));
    let mut product = setup.start().await;
    let task = product.agent("tools, under a killed node").await;
    let mut trail = product.oracle.whole_trail();
    // In the middle of a call, between two, and in one of the next step.
    let moments: [&[EventKind]; 3] = [
        &[EventKind::ToolStarted, EventKind::ToolStarted, EventKind::ToolStarted],
        &[EventKind::ToolFinished],
        &[EventKind::StepCompleted, EventKind::ToolStarted, EventKind::ToolFinished, EventKind::ToolStarted],
    ];
    for moment in moments {
        for kind in moment {
            trail.until_kind(task, *kind).await;
        }
        product.kill_node();
        product.start_node_again();
        trail.until_kind(task, EventKind::TaskAssigned).await;
    }
    product.completed(task).await;
    let made: Vec<String> = (1..=2).flat_map(|turn| (1..=CALLS).map(move |call| format!("{turn}.{call}"))).collect();
    assert_eq!(lines(outside), made);
    assert_eq!(product.record(task).await.epoch.0, 4);
    assert_eq!(product.judge().await, Verdict::default());
}
