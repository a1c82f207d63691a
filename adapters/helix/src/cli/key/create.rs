//! `helix key create`

use clap::Args;
use helix_adapter_http::api::{CreateKeyRequest, CreatedKey};
use helix_protocol::{Budget, Failure, Money, TaskRecord};

use crate::cli::Context;
use crate::cli::amounts::{parse_dollars, parse_duration_ms};
use crate::client::segment;

/// Make a key; it is shown once, and only its hash is kept
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix key create editor
  helix key create ci --model coder --budget 5 --budget-daily 0.50 --rate 60 --expires 30d
  OPENAI_API_KEY=$(helix key create script --expires 1h --json | jq -r .secret) ./script

A client sends it as it would send the provider's key. What it may spend also counts against the owner's day (`budgets`).")]
pub(in crate::cli) struct Create {
    /// What it is for
    name: String,
    /// A model it may ask for, by the name a client gives: a group, a model, or provider/model [default: all]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Most that it may spend in all, in US dollars
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    budget: Option<Money>,
    /// Most tokens in all
    #[arg(long, value_name = "N")]
    budget_tokens: Option<u64>,
    /// Most that it may spend in a UTC day, in US dollars
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    budget_daily: Option<Money>,
    /// Most tokens in a UTC day
    #[arg(long, value_name = "N")]
    budget_daily_tokens: Option<u64>,
    /// Most requests in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long it is valid, for example 12h or 30d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    expires: Option<u64>,
    /// The task that it is for; what is spent with it is shown under the task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
}

impl Create {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let task = match &self.task {
            Some(text) => Some(client.get::<TaskRecord>(&format!("/tasks/{}", segment(text))).await?.id),
            None => None,
        };
        let request = CreateKeyRequest {
            name: self.name,
            task,
            models: self.models,
            budget: Budget { money: self.budget, tokens: self.budget_tokens },
            daily: Budget { money: self.budget_daily, tokens: self.budget_daily_tokens },
            requests_per_minute: self.rate,
            valid_ms: self.expires,
        };
        let made: CreatedKey = client.post("/keys", &request).await?;
        context.print(&made, |made| made.secret.clone())?;
        context.say(&format!(
            "the key {:?} ({}) is shown this once; `helix key revoke {}` ends it",
            made.key.name,
            made.key.id.short(),
            made.key.id.short()
        ));
        Ok(())
    }
}
