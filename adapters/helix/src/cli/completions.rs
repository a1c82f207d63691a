//! `helix completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use helix_protocol::Failure;

use super::Cli;
use super::context::out;

/// Print a completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mkdir -p ~/.local/share/bash-completion/completions && helix completions bash > ~/.local/share/bash-completion/completions/helix
  mkdir -p ~/.zfunc && helix completions zsh > ~/.zfunc/_helix
  mkdir -p ~/.config/fish/completions && helix completions fish > ~/.config/fish/completions/helix.fish")]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "helix", &mut script);
        out(&String::from_utf8_lossy(&script))
    }
}
