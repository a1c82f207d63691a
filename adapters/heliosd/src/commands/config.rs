//! `helios config`: the repository's settings.

use clap::{Parser, Subcommand};
use helix_protocol::Failure;
use serde_json::{Map, json};

use super::Verb;
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::settings::{DECIDED, SETTINGS};
use crate::here::Here;

/// Reads and changes settings
///
/// They are in .helios/helios.yaml, which can be edited by hand too. `storage.pebbledb.*` is another way to write
/// `storage.rocksdb.*`. Sizes of caches and buffers are taken when the repository is opened the next time.
#[derive(Parser)]
#[command(
    name = "config",
    after_help = "Examples:\n  helios config list\n  helios config set performance.l1_cache_size 2GB\n  helios config get cleanup.snapshot_ttl\n  helios config unset user.name\n\nExit codes: 0; 1 where `get` finds nothing; 128 for an unknown key or a wrong value"
)]
pub struct Config {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Prints a setting's value
    Get {
        /// As `list` shows it
        key: String,
    },
    /// Gives a setting a value
    Set {
        /// As `list` shows it
        key: String,
        /// The value
        value: String,
    },
    /// Lets a setting be its default again
    Unset {
        /// As `list` shows it
        key: String,
    },
    /// Prints every setting with what it does
    List,
}

impl Verb for Config {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        match self.verb {
            ConfigVerb::Get { key } => {
                let value = here.open.settings().get(&key)?;
                if context.is_json() {
                    context.console.json(&json!({"key": key, "value": value}))?;
                } else if value.is_empty() {
                    return Ok(NO);
                } else {
                    context.console.line(value)?;
                }
            }
            ConfigVerb::Set { key, value } => {
                let setting = here.open.settings().set(&key, Some(&value))?;
                here.open.reopen_folders();
                if DECIDED.iter().any(|decided| decided.key == setting.key) {
                    context
                        .console
                        .note(format!("hint: {} is kept, and the store decides it by itself: {}", setting.key, setting.about))?;
                }
            }
            ConfigVerb::Unset { key } => {
                here.open.settings().set(&key, None)?;
                here.open.reopen_folders();
            }
            ConfigVerb::List => list(context, &here)?,
        }
        Ok(OK)
    }
}

fn list(context: &mut Context<'_>, here: &Here) -> Result<(), Failure> {
    let mut object = Map::new();
    for setting in SETTINGS.iter().chain(DECIDED) {
        let value = here.open.settings().get(setting.key)?;
        if context.is_json() {
            object.insert(setting.key.to_owned(), json!({"value": value, "default": setting.default, "about": setting.about}));
        } else {
            context.console.line(format!("{}={value}", setting.key))?;
        }
    }
    if context.is_json() { context.console.json(&object.into()) } else { Ok(()) }
}
