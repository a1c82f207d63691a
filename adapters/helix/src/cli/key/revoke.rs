//! `helix key revoke`

use clap::Args;
use helix_adapter_http::api::KeyList;
use helix_protocol::{Failure, Timestamp};
use serde_json::json;

use super::named;
use crate::cli::Context;

/// Refuse a key from now on; what it has spent stays in the ledger
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helix key revoke ci\n  helix key revoke 3f2a91c0")]
pub(in crate::cli) struct Revoke {
    /// Its name, or the end of its id
    key: String,
}

impl Revoke {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let keys = client.get::<KeyList>("/keys").await?.keys;
        let key = named(&keys, &self.key, Timestamp::now())?;
        client.delete(&format!("/keys/{}", key.id), &[]).await?;
        let (id, short) = (key.id, key.id.short());
        context.print(&json!({ "revoked": id, "name": key.name }), |_| {
            format!("the key {:?} ({}) is revoked", key.name, context.style.bold(&short))
        })
    }
}
