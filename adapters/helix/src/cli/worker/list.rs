//! `helix worker list`

use clap::Args;
use helix_adapter_http::api::SystemStatus;
use helix_protocol::{Failure, Timestamp};

use super::table;
use crate::cli::Context;

const STATES: &str = "\
Examples:
  helix worker list
  helix worker list --json

States:
  ready          it takes tasks
  busy           it takes tasks; more than 70 % of its processors are in use, which is no fault
  low on memory  it takes tasks; more than 70 % of its memory is in use (in red: more than 90 %)
  low on disk    the same of the disk that workspaces are on
  degraded       it takes tasks; a heartbeat is late
  not ready      connected, and not heard in time: it gets no tasks until it is
  disconnected   not connected at present; what it does goes on until its lease ends
  offline        its process is dead, or its lease has ended: its tasks go on elsewhere
  failed         it could not be installed, or refused this node; `helix worker show` says why
  cordoned       it gets no new tasks (`helix worker cordon`, `uncordon`)
  draining       its tasks move away at their next step boundary (`helix worker drain`)";

/// List workers
#[derive(Debug, Args)]
#[command(after_help = STATES)]
pub(in crate::cli) struct List {}

impl List {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let status: SystemStatus = context.client()?.get("/system/status").await?;
        context.print(&status.workers, |workers| {
            if workers.is_empty() {
                return "no workers: `helix worker add local` or `helix worker add HOST` adds one\n".to_owned();
            }
            table(workers, status.known_held(), Timestamp::now(), context.style)
        })
    }
}
