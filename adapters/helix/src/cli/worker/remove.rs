//! `helix worker remove`

use clap::Args;
use helix_protocol::Failure;
use serde_json::json;

use crate::cli::Context;
use crate::client::segment;

/// Stop a worker, delete what was installed and made there, and forget it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix worker drain buildbox && helix worker remove buildbox      once its tasks have gone elsewhere
  helix worker remove buildbox --force                              although it holds tasks: they go on elsewhere")]
pub(in crate::cli) struct Remove {
    /// Its name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    worker: String,
    /// Although it holds tasks, or tasks are to run on it and on no other
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let force = if self.force { "true" } else { "false" };
        let path = format!("/workers/{}", segment(&self.worker));
        context.waiting("removing", client.delete(&path, &[("force", force)])).await?;
        context.print(&json!({ "removed": self.worker }), |_| format!("{} is removed", self.worker))
    }
}
