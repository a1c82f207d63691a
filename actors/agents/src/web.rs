//! Pages of the web, from the hosts that a task was granted. Got on the node, journalled as effects outside the workspace.

use std::sync::Arc;

use helix_ports::{StepHost, WebAccess};
use helix_protocol::{Code, Failure, ToolCall, ToolOutcome};
use serde_json::Value;

use crate::calls::told;

/// Characters of one answer.
const PAGE: usize = 30_000;

/// Gets a page.
pub(crate) async fn fetch(
    host: &mut dyn StepHost,
    web: Option<Arc<dyn WebAccess>>,
    hosts: &[String],
    call: &ToolCall,
) -> Result<ToolOutcome, Failure> {
    let web = web.ok_or_else(unavailable)?;
    let url = call.input.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    let offset = call.input.get("offset").and_then(Value::as_u64).unwrap_or_default();
    let hosts = hosts.to_vec();
    let work = async move {
        // A page that cannot be had is an answer like any other, and is journalled as one.
        Ok(match web.fetch(&url, &hosts).await {
            Ok(page) => shown(&page.text, usize::try_from(offset).unwrap_or(usize::MAX), page.status),
            Err(failure) => ToolOutcome::error(told(&failure)),
        })
    };
    host.effect(call, Box::pin(work)).await
}

/// Searches.
pub(crate) async fn search(
    host: &mut dyn StepHost,
    web: Option<Arc<dyn WebAccess>>,
    call: &ToolCall,
) -> Result<ToolOutcome, Failure> {
    let web = web.ok_or_else(unavailable)?;
    let query = call.input.get("query").and_then(Value::as_str).unwrap_or_default().to_owned();
    let work = async move {
        let found = match web.search(&query).await {
            Ok(found) => found,
            Err(failure) => return Ok(ToolOutcome::error(told(&failure))),
        };
        let lines = found.iter().map(|hit| format!("{}\n{}\n{}", hit.title, hit.url, hit.excerpt));
        let text = lines.collect::<Vec<_>>().join("\n\n");
        Ok(ToolOutcome::ok(if text.is_empty() { "nothing was found".to_owned() } else { text }))
    };
    host.effect(call, Box::pin(work)).await
}

fn unavailable() -> Failure {
    Failure::new(Code::InvalidRequest, "this node has no way to the web")
}

fn shown(text: &str, offset: usize, status: u16) -> ToolOutcome {
    let start = text.ceil_char_boundary(offset.min(text.len()));
    let end = text.floor_char_boundary((start + PAGE).min(text.len()));
    let more =
        if end < text.len() { format!("\n[{} bytes follow; go on with offset {end}]", text.len() - end) } else { String::new() };
    let content = format!("{}{more}", &text[start..end]);
    match status {
        200..300 => ToolOutcome { truncated: end < text.len(), ..ToolOutcome::ok(content) },
        _ => ToolOutcome::error(format!("the server answered {status}:\n{content}")),
    }
}
