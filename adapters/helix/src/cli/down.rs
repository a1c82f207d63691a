//! `helix down`

use std::time::Duration;

use clap::Args;
use helix_adapter_http::api::SystemStatus;
use helix_protocol::{Code, Failure, WorkerTarget};
use serde::Serialize;
use serde_json::json;

use super::Context;

/// What need not be explained.
const MOMENT: Duration = Duration::from_secs(1);

/// How long workers that were told to end are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stop the node in order: tasks park at their next step boundary
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix down              wait until it has ended
  helix down --now        do not wait for step boundaries; nothing committed is lost
  helix down --workers    end this machine's workers too, where they hold no task

Workers go on without a node, so that the next one adopts what they do. Where none comes, they leave by themselves after a day.")]
pub(super) struct Down {
    /// Do not wait for step boundaries
    #[arg(long)]
    now: bool,
    /// End this machine's workers that hold no task, too
    #[arg(long)]
    workers: bool,
}

impl Down {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let (pid, status) = node(context).await?;
        terminate(pid)?;
        let ended = async {
            while runs(pid) {
                // Two signals of which the first was not taken yet are one.
                if self.now {
                    terminate(pid)?;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<(), Failure>(())
        };
        self.wait(context, status.as_ref(), ended).await?;
        let mut workers = status.as_ref().map(local_workers).unwrap_or_default();
        if self.workers {
            end(context, &mut workers).await?;
        }
        let answer = json!({ "ended": true, "pid": pid, "workers": workers });
        context.print(&answer, |_| format!("the node has ended\n{}", told(&workers)))
    }

    /// Says what is waited for where it takes longer than a moment.
    async fn wait<T>(&self, context: &Context, status: Option<&SystemStatus>, ended: impl Future<Output = T>) -> T {
        let mut ended = std::pin::pin!(ended);
        if let Ok(ended) = tokio::time::timeout(MOMENT, &mut ended).await {
            return ended;
        }
        let held: u64 = status.map_or(0, |status| status.held.values().sum());
        let what = match held {
            1 if !self.now => "waiting for the present step of 1 task".to_owned(),
            2.. if !self.now => format!("waiting for the present steps of {held} tasks"),
            _ => "the node is ending".to_owned(),
        };
        let hint = if self.now { "" } else { "; `helix down --now` in another terminal does not wait" };
        context.say(&format!("{what}{hint}"));
        context.waiting(&what, ended).await
    }
}

/// The node's process, and what it says of itself. One that does not answer is told by its hold on the data folder.
async fn node(context: &Context) -> Result<(u32, Option<SystemStatus>), Failure> {
    let asked = async { context.client()?.get::<SystemStatus>("/system/status").await };
    match asked.await {
        Ok(status) => Ok((status.node.pid, Some(status))),
        // Somebody else's.
        Err(failure) if failure.code == Code::Forbidden => Err(failure),
        Err(failure) => context.folder()?.holder().map(|pid| (pid, None)).ok_or(failure),
    }
}

/// A worker of this machine.
#[derive(Debug, Serialize)]
struct LocalWorker {
    name: String,
    pid: u32,
    /// Whether it holds a task, or may.
    busy: bool,
    ended: bool,
}

/// The workers of this machine that run although the node has ended.
fn local_workers(status: &SystemStatus) -> Vec<LocalWorker> {
    let local = status.workers.iter().filter(|view| matches!(view.record.target, WorkerTarget::Local { .. }));
    let running = local.filter_map(|view| Some((view, view.pid.filter(|pid| runs(*pid))?)));
    running
        .map(|(view, pid)| {
            let name = view.record.name.clone();
            // Which task is where stands in the records.
            let busy = status.records_failure.is_some() || status.held.contains_key(&name);
            LocalWorker { pid, busy, name, ended: false }
        })
        .collect()
}

/// Ends those that hold no task, and waits for them.
async fn end(context: &Context, workers: &mut [LocalWorker]) -> Result<(), Failure> {
    for worker in workers.iter().filter(|worker| !worker.busy) {
        terminate(worker.pid)?;
    }
    let gone = async {
        for worker in workers.iter_mut().filter(|worker| !worker.busy) {
            while runs(worker.pid) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            worker.ended = true;
        }
    };
    // One that does not end is told of as one that stays.
    let _ = context.waiting("workers are ending", tokio::time::timeout(PATIENCE, gone)).await;
    Ok(())
}

/// What became of the workers, for a person.
fn told(workers: &[LocalWorker]) -> String {
    let (ended, stay): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker.ended);
    let names = |workers: &[&LocalWorker]| {
        let names: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
        match names.as_slice() {
            [name] => format!("worker {name}"),
            names => format!("workers {}", names.join(", ")),
        }
    };
    let mut text = String::new();
    if !ended.is_empty() {
        text.push_str(&format!("ended too: {}\n", names(&ended)));
    }
    if !stay.is_empty() {
        let pids: String = stay.iter().map(|worker| format!(" {}", worker.pid)).collect();
        let (they, them) = if stay.len() == 1 { ("it ends", "it") } else { ("they end", "them") };
        text.push_str(&format!(
            "left running for the next node: {}; where none comes {they} after a day, and `kill{pids}` ends {them} now\n",
            names(&stay)
        ));
    }
    text
}

fn terminate(pid: u32) -> Result<(), Failure> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let process = process.ok_or_else(|| Failure::new(Code::Internal, format!("{pid} is no process id")))?;
    match rustix::process::kill_process(process, rustix::process::Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::io(format!("signalling process {pid}"), &error.into())),
    }
}

fn runs(pid: u32) -> bool {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| rustix::process::test_kill_process(process).is_ok()) && !is_zombie(pid)
}

/// Whether a process has ended and whoever started it has not looked yet: a `helix run` that goes on may have started the node.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may have spaces and parentheses.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_workers_is_said_with_how_to_end_them() {
        let worker = |name: &str, pid, ended| LocalWorker { name: name.to_owned(), pid, busy: false, ended };
        assert_eq!(told(&[]), "");
        let told = told(&[worker("local-1", 7, false), worker("local-2", 8, true), worker("local-3", 9, false)]);
        let left =
            "left running for the next node: workers local-1, local-3; where none comes they end after a day, and `kill 7 9` ends";
        assert_eq!(told, format!("ended too: worker local-2\n{left} them now\n"));
    }

    #[test]
    fn a_child_that_ended_and_was_not_waited_for_is_a_zombie() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        assert!(!is_zombie(child.id()));
        child.kill().expect("it runs");
        while !is_zombie(child.id()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait().expect("it has ended");
        assert!(!is_zombie(child.id()));
    }
}
