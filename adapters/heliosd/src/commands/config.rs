//! `helios config`: the repository's settings.

use clap::{Parser, Subcommand};
use helix_protocol::Failure;
use serde_json::{Map, json};

use super::Verb;
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::settings::{DECIDED, SETTINGS, Setting};
use crate::here::Here;

/// Reads and changes settings
///
/// They are in .helios/helios.yaml, which can be edited by hand too. Other names of settings are taken and kept under their own:
/// `storage.pebbledb.*` is `storage.rocksdb.*`, and `storage.rocksdb.compression` is `performance.compression`. What the database
/// is opened with (`storage.rocksdb.*`, `performance.compression`) is taken when the repository is opened the next time, everything
/// else from the next command on.
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
    #[command(
        after_help = "Examples:\n  helios config get cleanup.snapshot_ttl\n\nExit codes: 0; 1 where nothing is set; 128 for an unknown key"
    )]
    Get {
        /// As `list` shows it
        key: String,
    },
    /// Gives a setting a value
    #[command(after_help = "Examples:\n  helios config set performance.l1_cache_size 2GB\n  helios config set user.name 'Ada L'")]
    Set {
        /// As `list` shows it
        key: String,
        /// The value
        value: String,
    },
    /// Lets a setting be its default again
    #[command(after_help = "Examples:\n  helios config unset user.name")]
    Unset {
        /// As `list` shows it
        key: String,
    },
    /// Prints every setting as KEY=VALUE
    #[command(after_help = "Examples:\n  helios config list\n  helios config list --describe")]
    List {
        /// Says of each what it does, and its default
        #[arg(long)]
        describe: bool,
    },
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
                let setting = change(context, &here, &key, Some(&value))?;
                if is_decided(setting) {
                    tell_decided(context, setting)?;
                }
            }
            ConfigVerb::Unset { key } => drop(change(context, &here, &key, None)?),
            ConfigVerb::List { describe } => list(context, &here, if describe { Listing::Described } else { Listing::Plain })?,
        }
        Ok(OK)
    }
}

/// Gives a setting a value, or its default again, also in the folders that are open.
fn change(context: &mut Context<'_>, here: &Here, key: &str, value: Option<&str>) -> Result<&'static Setting, Failure> {
    let setting = here.open.settings().set(key, value)?;
    here.open.follow_settings();
    if context.is_json() {
        context.console.json(&json!({"key": setting.key, "value": value, "decided_by_store": is_decided(setting)}))?;
    }
    Ok(setting)
}

/// How settings are listed for a person; programs are always told what each does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listing {
    Plain,
    Described,
}

fn list(context: &mut Context<'_>, here: &Here, listing: Listing) -> Result<(), Failure> {
    let mut object = Map::new();
    for setting in SETTINGS.iter().chain(DECIDED) {
        let value = here.open.settings().get(setting.key)?;
        if context.is_json() {
            let decided = is_decided(setting);
            let value = json!({"value": value, "default": setting.default, "about": setting.about, "decided_by_store": decided});
            object.insert(setting.key.to_owned(), value);
        } else {
            context.console.line(format!("{}={value}", setting.key))?;
            if listing == Listing::Described {
                let default = if setting.default.is_empty() { "none" } else { setting.default };
                context.console.line(format!("    {} (default: {default})", setting.about))?;
            }
        }
    }
    if context.is_json() {
        context.console.json(&object.into())?;
    }
    // Who wrote them into the file by hand was not told before.
    let given = here.open.settings().given_without_effect();
    given.into_iter().try_for_each(|setting| tell_decided(context, setting))
}

fn is_decided(setting: &Setting) -> bool {
    DECIDED.iter().any(|decided| decided.key == setting.key)
}

fn tell_decided(context: &mut Context<'_>, setting: &Setting) -> Result<(), Failure> {
    context.console.note(format!("hint: {} is kept, and the store decides it by itself: {}", setting.key, setting.about))
}
