//! The rules of the gateway's keys and of the ledger.

use helix_protocol::{GatewayKey, KeyId, ModelCall, Timestamp};

use crate::rows::Rows;
use crate::{Applied, RecordError};

pub(super) async fn create_key(rows: &mut dyn Rows, key: &GatewayKey) -> Result<Applied, RecordError> {
    match rows.key(key.id).await? {
        Some(found) if found == *key => {}
        Some(_) => return Err(RecordError::Conflict(format!("key {} exists with other rights", key.id))),
        None => rows.put_key(key).await?,
    }
    Ok(Applied::Done { events: Vec::new() })
}

/// The first revocation counts: a repeated one changes nothing.
pub(super) async fn revoke_key(rows: &mut dyn Rows, id: KeyId, now: Timestamp) -> Result<Applied, RecordError> {
    let key = rows.key(id).await?.ok_or_else(|| RecordError::NotFound(format!("key {id}")))?;
    if key.revoked_at.is_none() {
        rows.put_key(&GatewayKey { revoked_at: Some(now), ..key }).await?;
    }
    Ok(Applied::Done { events: Vec::new() })
}

/// What was spent with it stays in the ledger, whose entries name their key and whom it was for.
pub(super) async fn remove_key(rows: &mut dyn Rows, id: KeyId) -> Result<Applied, RecordError> {
    rows.delete_key(id).await?;
    Ok(Applied::Done { events: Vec::new() })
}

pub(super) async fn record_calls(rows: &mut dyn Rows, calls: &[ModelCall]) -> Result<Applied, RecordError> {
    for call in calls {
        rows.insert_call(call).await?;
    }
    Ok(Applied::Done { events: Vec::new() })
}
