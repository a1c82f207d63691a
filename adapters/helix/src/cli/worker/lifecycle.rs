//! `helix worker cordon`, `uncordon` and `drain`

use clap::Args;
use helix_messages::WorkerView;
use helix_protocol::Failure;
use serde_json::json;

use super::state;
use crate::cli::Context;
use crate::client::segment;

/// A worker named on the command line.
#[derive(Debug, Args)]
pub(in crate::cli) struct Named {
    /// Its name or id
    worker: String,
}

impl Named {
    pub async fn set(self, context: &Context, verb: &str) -> Result<(), Failure> {
        let view: WorkerView = context.client()?.post(&format!("/workers/{}/{verb}", segment(&self.worker)), &json!({})).await?;
        context.print(&view, |view| format!("{} is {}", context.style.bold(&view.record.name), state(view, context.style)))
    }
}
