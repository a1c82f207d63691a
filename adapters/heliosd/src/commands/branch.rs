//! `helios branch`: lines of work.

use clap::Parser;
use helix_protocol::Failure;
use helix_versions::{BranchName, Existing, HeadTarget, Unmerged};
use serde_json::json;

use super::Verb;
use crate::console::{FATAL, NO, OK};
use crate::context::Context;
use crate::here::Here;
use crate::render::history;

/// Lists, makes, renames or deletes branches
#[derive(Parser)]
#[command(
    name = "branch",
    after_help = "Examples:\n  helios branch\n  helios branch agent-1 main\n  helios branch -m agent-1 winner\n  helios branch -d agent-2 agent-3"
)]
pub struct Branch {
    /// The branch; with -m the old name and the new one, with -d any number
    name: Option<String>,
    /// Where it starts; the head where nothing is said
    start: Option<String>,
    /// Further ones to delete
    #[arg(hide = true, requires = "deletion")]
    more: Vec<String>,
    /// Deletes it
    #[arg(short, long, group = "deletion", conflicts_with_all = ["rename", "force_rename"], requires = "name")]
    delete: bool,
    /// Deletes it, merged or not
    #[arg(short = 'D', group = "deletion", conflicts_with_all = ["rename", "force_rename"], requires = "name")]
    force_delete: bool,
    /// Renames it, or the current one
    #[arg(short = 'm', long = "move", requires = "name")]
    rename: bool,
    /// Renames it although the new name is taken
    #[arg(short = 'M', requires = "name")]
    force_rename: bool,
    /// Moves it where it exists
    #[arg(short, long)]
    force: bool,
    /// Prints the current branch
    #[arg(long, conflicts_with = "name")]
    show_current: bool,
    /// With the snapshots
    #[arg(short, long)]
    verbose: bool,
    /// Lists them
    #[arg(short, long, conflicts_with = "name")]
    list: bool,
    /// Lists them all; there are none of elsewhere
    #[arg(short, long, conflicts_with = "name")]
    all: bool,
}

impl Verb for Branch {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let Some(name) = &self.name else { return self.list(context, &here) };
        let caller = here.caller(context, None);
        let existing = if self.force || self.force_rename { Existing::Move } else { Existing::Refuse };
        if self.delete || self.force_delete {
            let unmerged = if self.force_delete || self.force { Unmerged::Drop } else { Unmerged::Refuse };
            let mut code = OK;
            // As in git, one that cannot be deleted keeps nobody from deleting the others.
            for name in [name].into_iter().chain(&self.start).chain(&self.more) {
                let deleted = name.parse().and_then(|branch| repository.delete_branch(&caller, &branch, unmerged));
                match context.console.failing_with(NO, deleted) {
                    Ok((at, _)) if context.is_json() => context.console.json(&json!({"deleted": name, "snapshot": at}))?,
                    Ok((at, _)) => context.console.line(format!("Deleted branch {name} (was {}).", at.short()))?,
                    Err(failure) => code = context.tell(failure),
                }
            }
            return Ok(code);
        }
        if self.rename || self.force_rename {
            let (from, to) = match &self.start {
                Some(to) => (name.parse()?, to.parse()?),
                None => match repository.head(here.name())?.target {
                    HeadTarget::Branch(branch) => (branch, name.parse()?),
                    HeadTarget::Detached(_) => return Err(on_no_branch()),
                },
            };
            context.console.failing_with(FATAL, repository.rename_branch(&caller, &from, &to, existing))?;
            if context.is_json() {
                context.console.json(&json!({"branch": to.as_str(), "renamed_from": from.as_str()}))?;
            }
            return Ok(OK);
        }
        let name: BranchName = name.parse()?;
        let at = here.resolve(self.start.as_deref().unwrap_or("HEAD"))?;
        context.console.failing_with(FATAL, repository.create_branch(&caller, &name, at, existing))?;
        if context.is_json() {
            context.console.json(&json!({"branch": name.as_str(), "snapshot": at}))?;
        }
        Ok(OK)
    }
}

impl Branch {
    fn list(&self, context: &mut Context<'_>, here: &Here) -> Result<u8, Failure> {
        let repository = here.repository();
        let head = repository.head(here.name())?;
        let current = match &head.target {
            HeadTarget::Branch(branch) => Some(branch.clone()),
            HeadTarget::Detached(_) => None,
        };
        if self.show_current && context.is_json() {
            context.console.json(&json!({"branch": current.as_ref().map(BranchName::as_str)}))?;
            return Ok(OK);
        }
        if self.show_current {
            return current.map_or(Ok(OK), |branch| context.console.line(branch.as_str()).map(|()| OK));
        }
        let branches = repository.branches()?;
        if context.is_json() {
            let list: Vec<_> = branches
                .iter()
                .map(|(name, at)| json!({"branch": name.as_str(), "snapshot": at, "current": Some(name) == current.as_ref()}))
                .collect();
            context.console.json(&json!(list))?;
            return Ok(OK);
        }
        if let HeadTarget::Detached(id) = &head.target {
            context.console.line(format!("* (HEAD detached at {})", id.short()))?;
        }
        let width = branches.iter().map(|(name, _)| name.as_str().chars().count()).max().unwrap_or(0);
        for (name, at) in &branches {
            let star = if Some(name) == current.as_ref() { "*" } else { " " };
            let shown = if context.caller.colour && star == "*" { format!("\x1b[32m{name}\x1b[m") } else { name.to_string() };
            if self.verbose {
                let snapshot = repository.snapshot(*at)?;
                let gap = " ".repeat(width - name.as_str().chars().count());
                context.console.line(format!("{star} {shown}{gap} {} {}", at.short(), history::subject(&snapshot)))?;
            } else {
                context.console.line(format!("{star} {shown}"))?;
            }
        }
        Ok(OK)
    }
}

fn on_no_branch() -> Failure {
    Failure::new(helix_protocol::Code::InvalidState, "the head is on no branch").hint("name the branch: helios branch -m OLD NEW")
}
