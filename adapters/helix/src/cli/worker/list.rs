//! `helix worker list`

use clap::Args;
use helix_adapter_http::api::SystemStatus;
use helix_protocol::{Failure, Timestamp};

use super::table;
use crate::cli::Context;

/// List workers
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helix worker list\n  helix worker list --json")]
pub(in crate::cli) struct List {}

impl List {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let status: SystemStatus = context.client()?.get("/system/status").await?;
        context.print(&status.workers, |workers| {
            if workers.is_empty() {
                return "no workers: `helix worker add local` or `helix worker add HOST` adds one\n".to_owned();
            }
            table(workers, Some(&status.held), Timestamp::now(), context.style)
        })
    }
}
