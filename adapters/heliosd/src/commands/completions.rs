//! `helios completions`: what a shell needs to complete commands and options.

use clap::Parser;
use clap_complete::Shell;
use helix_protocol::Failure;

use super::Verb;
use crate::console::OK;
use crate::context::Context;

/// Prints completions for a shell
#[derive(Parser)]
#[command(
    name = "completions",
    after_help = "Examples:\n  helios completions bash > ~/.local/share/bash-completion/completions/helios\n  helios completions zsh > ~/.zfunc/_helios"
)]
pub struct Completions {
    /// bash, elvish, fish, powershell or zsh
    shell: Shell,
}

impl Verb for Completions {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::help::whole(), "helios", &mut script);
        context.console.write(&script)?;
        Ok(OK)
    }
}
