//! `helix logout`

use clap::Args;
use helix_protocol::{Code, Failure};
use serde_json::json;

use super::Context;
use super::login::token_store;

/// Forget the token of a login
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix logout copilot

The token is deleted here; the provider's page ends it there as well.")]
pub(super) struct Logout {
    /// The provider
    provider: String,
}

impl Logout {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if !token_store()?.remove(&self.provider)? {
            return Err(Failure::new(Code::NotFound, format!("nobody is logged in to {}", self.provider))
                .hint("`helix login --list` shows who is"));
        }
        context.print(&json!({ "logged_out": self.provider }), |_| format!("the token of {} is forgotten", self.provider))
    }
}
