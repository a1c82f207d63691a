//! A kind for tests that can be played again: turns of two model calls, of which one that finds an hour's rest begins the
//! conversation anew.

use std::time::Duration;

use async_trait::async_trait;
use helix_ports::{StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{Failure, Message, ModelRequest, Role};

pub struct Recalls;

#[async_trait]
impl TaskKind for Recalls {
    fn name(&self) -> &str {
        "recalls"
    }

    fn hears(&self) -> bool {
        true
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let before = host.conversation().await?;
        let mut added = Vec::new();
        if host.has_rested(Duration::from_secs(3_600)).await? {
            added.push(Message::text(Role::System, "anew"));
        }
        added.push(Message::text(Role::User, format!("turn {}", host.ordinal())));
        for _ in 0..2 {
            let reply = host
                .model(ModelRequest { messages: [&before[..], &added[..]].concat(), max_tokens: 10, ..ModelRequest::default() })
                .await?;
            added.push(Message { role: Role::Assistant, blocks: reply.blocks });
        }
        let end = if host.ordinal() == 3 { TurnEnd::Finished } else { TurnEnd::Continue };
        Ok(StepResult { summary: format!("turn {}", host.ordinal()), messages: added, exits: Vec::new(), end })
    }
}
