//! `helix key list`

use clap::Args;
use helix_adapter_http::api::{KeyList, KeyView};
use helix_protocol::{Failure, Timestamp};

use super::table;
use crate::cli::Context;

/// List keys with what each has spent
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  helix key list\n  helix key list --all          those that are revoked or expired too\n  helix key list --json"
)]
pub(in crate::cli) struct List {
    /// Those that are revoked or expired too
    #[arg(long)]
    all: bool,
}

impl List {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut keys = context.client()?.get::<KeyList>("/keys").await?.keys;
        let now = Timestamp::now();
        let whole = keys.len();
        if !self.all {
            keys.retain(|key: &KeyView| key.revoked_at.is_none() && key.expires_at.is_none_or(|until| until > now));
        }
        let hidden = whole - keys.len();
        context.print(&keys, |keys| match (keys.is_empty(), hidden) {
            (true, 0) => "no keys: `helix key create NAME` makes one\n".to_owned(),
            (true, hidden) => format!("no valid keys; --all shows {hidden} that are revoked or expired\n"),
            (false, _) => context.fit(table(keys, now, context.style)),
        })
    }
}
