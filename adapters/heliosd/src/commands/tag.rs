//! `helios tag`: names that stay.

use clap::Parser;
use helix_protocol::Failure;
use helix_versions::{Annotation, BranchName, Existing, VersionError};
use serde_json::json;

use super::Verb;
use crate::console::{FATAL, NO, OK};
use crate::context::Context;
use crate::here::Here;

/// Lists, makes or deletes tags
#[derive(Parser)]
#[command(
    name = "tag",
    after_help = "Examples:\n  helios tag\n  helios tag v1.0 main\n  helios tag -m 'first that works' best HEAD~2\n  helios tag -n\n  helios tag -d v1.0"
)]
pub struct Tag {
    /// The tag
    name: Option<String>,
    /// What it names; the head where nothing is said
    target: Option<String>,
    /// Makes an annotated tag, which needs a message
    #[arg(short, long, requires = "message")]
    annotate: bool,
    /// Why: makes an annotated tag
    #[arg(short, long)]
    message: Option<String>,
    /// Deletes it
    #[arg(short, long, requires = "name", conflicts_with_all = ["target", "message"])]
    delete: bool,
    /// Moves it where it exists
    #[arg(short, long)]
    force: bool,
    /// Lists them
    #[arg(short, long, conflicts_with = "name")]
    list: bool,
    /// Lists them with the first line of why, or of what the snapshot says
    #[arg(short = 'n', conflicts_with = "name")]
    lines: bool,
}

impl Verb for Tag {
    const IS_DATED: bool = true;

    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let Some(name) = &self.name else { return self.list(context, &here) };
        let caller = here.caller(context, None);
        if self.delete {
            let name: BranchName = context.console.failing_with(NO, tag_name(name))?;
            let (was, _) = context.console.failing_with(NO, repository.delete_tag(&caller, &name))?;
            if context.is_json() {
                context.console.json(&json!({"deleted": name.as_str(), "snapshot": was}))?;
            } else {
                context.console.line(format!("Deleted tag '{name}' (was {})", was.short()))?;
            }
            return Ok(OK);
        }
        let name = tag_name(name)?;
        let target = here.resolve(self.target.as_deref().unwrap_or("HEAD"))?;
        let annotation = self
            .message
            .as_ref()
            .map(|message| Annotation { tagger: caller.committer().clone(), message: format!("{}\n", message.trim_end()) });
        let existing = if self.force { Existing::Move } else { Existing::Refuse };
        let made = repository.create_tag(&caller, &name, target, annotation.as_ref(), existing);
        context.console.failing_with(FATAL, made)?;
        if context.is_json() {
            context.console.json(&json!({"tag": name.as_str(), "snapshot": target}))?;
        }
        Ok(OK)
    }
}

/// A tag's name is whatever a branch's may be.
fn tag_name(text: &str) -> Result<BranchName, VersionError> {
    text.parse().map_err(|_| VersionError::InvalidName { kind: "tag", name: text.to_owned() })
}

impl Tag {
    fn list(&self, context: &mut Context<'_>, here: &Here) -> Result<u8, Failure> {
        let tags = here.repository().tags()?;
        if context.is_json() {
            let list: Vec<_> = tags.iter().map(|tag| json!({"tag": tag.name, "snapshot": tag.target, "message": tag.annotation.as_ref().map(|annotation| &annotation.message)})).collect();
            context.console.json(&json!(list))?;
            return Ok(OK);
        }
        for tag in tags {
            if !self.lines {
                context.console.line(&tag.name)?;
                continue;
            }
            let message = match tag.annotation {
                Some(annotation) => annotation.message,
                None => here.repository().snapshot(tag.target)?.message.clone(),
            };
            context.console.line(format!("{:<15} {}", tag.name, message.lines().next().unwrap_or_default()))?;
        }
        Ok(OK)
    }
}
