//! `helix down`

use std::time::Duration;

use clap::Args;
use helix_adapter_http::api::SystemStatus;
use helix_protocol::{Code, Failure};
use serde_json::json;

use super::Context;

/// Stop the node in order: tasks park at their next step boundary
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix down              wait until it has ended
  helix down --now        do not wait for step boundaries; nothing committed is lost")]
pub(super) struct Down {
    /// Do not wait for step boundaries
    #[arg(long)]
    now: bool,
}

impl Down {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let status: SystemStatus = client.get("/system/status").await?;
        let pid = i32::try_from(status.node.pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Code::Internal, "the node did not say its process id"))?;
        let signal = || {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|error| Failure::io(format!("signalling process {}", status.node.pid), &error.into()))
        };
        signal()?;
        if self.now {
            signal()?;
        }
        let ended = async {
            while rustix::process::test_kill_process(pid).is_ok() && !is_zombie(status.node.pid) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        context.waiting("tasks are parking at their step boundaries", ended).await;
        context.print(&json!({ "ended": true, "pid": status.node.pid }), |_| "the node has ended".to_owned())
    }
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
