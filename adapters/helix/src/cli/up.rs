//! `helix up`

use clap::Args;
use helix_adapter_http::api::SystemStatus;
use helix_config::LogFormat;
use helix_kernel::{Shutdown, telemetry};
use helix_protocol::Failure;

use super::Context;
use crate::node;

/// Run a node: in this terminal until Ctrl-C, or in the background
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix up                       in this terminal; Ctrl-C parks tasks at their next step boundary and ends
  helix up --detach              in the background, logging into the data folder
  helix up --data /srv/helix     on another data folder; one node per folder

Workers go on while no node runs, until their leases end, and are adopted when it is back.")]
pub(super) struct Up {
    /// Return once the node answers; it goes on in the background
    #[arg(long, short)]
    detach: bool,
}

impl Up {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let loaded = context.load()?;
        if self.detach {
            let status: SystemStatus = context.client_or_start().await?.get("/system/status").await?;
            return context.print(&status.node, |_| "the node is up; `helix status` shows it, `helix down` stops it".to_owned());
        }
        let format = match loaded.config.logging.format {
            LogFormat::Text => telemetry::Format::Human,
            LogFormat::Json => telemetry::Format::Json,
        };
        telemetry::init(format, &loaded.config.logging.level)?;
        for source in &loaded.sources {
            tracing::debug!(%source, "configuration");
        }
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        node::up(loaded.config, shutdown, |folder| tracing::info!(socket = %folder.socket().display(), "ready")).await
    }
}
