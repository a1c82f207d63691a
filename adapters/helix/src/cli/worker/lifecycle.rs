//! `helix worker cordon` and `uncordon`

use clap::Args;
use helix_messages::WorkerView;
use helix_protocol::{Failure, Lifecycle};
use serde_json::json;

use crate::cli::Context;
use crate::client::segment;

/// A worker named on the command line.
#[derive(Debug, Args)]
pub(in crate::cli) struct Named {
    /// Its name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    worker: String,
}

impl Named {
    pub async fn set(self, context: &Context, verb: &str) -> Result<(), Failure> {
        let view: WorkerView = context.client()?.post(&format!("/workers/{}/{verb}", segment(&self.worker)), &json!({})).await?;
        let takes = match view.record.lifecycle {
            Lifecycle::Open => "takes tasks again",
            Lifecycle::Cordoned => "takes no new tasks; `helix worker uncordon` ends that",
            Lifecycle::Draining => "takes no new tasks, and its own go elsewhere at their next step",
        };
        context.print(&view, |view| format!("{} {takes}", context.style.bold(&view.record.name)))
    }
}
