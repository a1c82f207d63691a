//! `helix worker add`

use std::path::PathBuf;

use clap::Args;
use helix_messages::{AddWorker, WorkerView};
use helix_protocol::{Code, Failure, WorkerTarget};

use super::state;
use crate::cli::Context;
use crate::cli::style::mebibytes;
use crate::client::Client;

/// Add a machine: the worker program is put there where it is missing, started, and connected
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix worker add local                                   a process on this machine
  helix worker add buildbox                                a host or alias that your ssh knows (config, agent, ProxyJump)
  helix worker add me@10.0.0.7 --name attic --slots 4
  helix worker add ssh://me@10.0.0.7:22 --key ~/.ssh/id_ed25519 --host-key SHA256:Jq…
                                                           the client built in, with the host's key pinned

Nothing has to be installed there beforehand and no root is needed. Adding a worker that exists is refused by its name.")]
pub(in crate::cli) struct Add {
    /// `local`, a host or alias of your ssh, or ssh://user@host:port
    target: String,
    /// Its name [default: made from the target]
    #[arg(long)]
    name: Option<String>,
    /// How many tasks it may hold at once [default: its number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// The private key's file, for ssh://
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The host key's fingerprint, for ssh://
    #[arg(long, value_name = "SHA256:…", conflicts_with = "accept_host_key")]
    host_key: Option<String>,
    /// Pin whatever key the host presents now, for ssh://: safe only where nobody can be in between
    #[arg(long)]
    accept_host_key: bool,
}

impl Add {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client_or_start().await?;
        let mut worker = self.worker(context)?;
        let target = worker.target.to_string();
        let doing = format!("adding {target}");
        let mut added = context.waiting(&doing, add(&client, &worker)).await;
        if self.accept_host_key
            && let Err(failure) = &added
            && failure.code == Code::HostKeyUnknown
            && let Some(fingerprint) = fingerprint(failure)
            && let WorkerTarget::Russh { host_key, .. } = &mut worker.target
        {
            context.say(&format!("pinning the host's key {fingerprint}"));
            *host_key = fingerprint;
            added = context.waiting(&doing, add(&client, &worker)).await;
        }
        context.print(&added?, |view| {
            let facts = view.record.facts.as_ref().map_or_else(String::new, |facts| {
                format!(
                    "  {} {}, {} cores, {} memory",
                    facts.os,
                    facts.arch,
                    facts.resources.cores,
                    mebibytes(facts.resources.memory_mib)
                )
            });
            format!("{} is {}{facts}", context.style.bold(&view.record.name), state(view, context.style))
        })
    }

    fn worker(&self, context: &Context) -> Result<AddWorker, Failure> {
        let (mut name, target) = match self.target.strip_prefix("ssh://") {
            Some(address) => self.built_in(address)?,
            None => {
                let only_there = [
                    ("--key", self.key.is_some()),
                    ("--host-key", self.host_key.is_some()),
                    ("--accept-host-key", self.accept_host_key),
                ];
                if let Some((option, _)) = only_there.iter().find(|(_, given)| *given) {
                    return Err(Failure::new(Code::InvalidRequest, format!("{option} belongs to ssh://user@host:port"))
                        .hint("with a host or alias your own ssh decides about keys: ~/.ssh/config and known_hosts"));
                }
                self.by_name(context)?
            }
        };
        if let Some(given) = &self.name {
            name.clone_from(given);
        }
        Ok(AddWorker { name, target, slots: self.slots })
    }

    fn by_name(&self, context: &Context) -> Result<(String, WorkerTarget), Failure> {
        if self.target == "local" {
            let name = self.name.clone().unwrap_or_else(|| format!("local-{}", &uuid::Uuid::now_v7().simple().to_string()[28..]));
            if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
                return Err(
                    Failure::new(Code::InvalidRequest, format!("{name:?} cannot name a worker")).hint("letters, digits, - and _")
                );
            }
            let folder = context.folder()?.workers().join(&name);
            return Ok((name, WorkerTarget::Local { folder: folder.display().to_string() }));
        }
        if self.target.starts_with('-')
            || self.target.chars().any(|c| c.is_whitespace() || c.is_control())
            || self.target.is_empty()
        {
            return Err(Failure::new(Code::InvalidRequest, format!("{:?} is not a host", self.target))
                .hint("a host or alias as `ssh` takes it"));
        }
        let host = self.target.rsplit_once('@').map_or(self.target.as_str(), |(_, host)| host);
        Ok((host.to_owned(), WorkerTarget::Ssh { destination: self.target.clone() }))
    }

    fn built_in(&self, address: &str) -> Result<(String, WorkerTarget), Failure> {
        let wrong = || {
            Failure::new(Code::InvalidRequest, format!("ssh://{address} is not an address"))
                .hint("ssh://user@host:port; the port may be left out")
        };
        let (user, place) = address.trim_end_matches('/').split_once('@').ok_or_else(wrong)?;
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("22")),
            None => place.split_once(':').unwrap_or((place, "22")),
        };
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if user.is_empty() || host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        let key = self.key.as_ref().ok_or_else(|| {
            Failure::new(Code::InvalidRequest, "ssh:// needs --key FILE")
                .hint("or name a host or alias, and your own ssh decides about keys")
        })?;
        let key = std::fs::canonicalize(key).map_err(|error| {
            Failure::new(Code::InvalidRequest, format!("--key {}: {error}", key.display()))
                .hint("name the file of a private key on this machine, for example ~/.ssh/id_ed25519")
        })?;
        if self.host_key.is_none() && !self.accept_host_key {
            return Err(Failure::new(Code::HostKeyUnknown, format!("the key of {host} must be pinned")).hint(
                "--host-key SHA256:…, as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it there; or --accept-host-key",
            ));
        }
        let target = WorkerTarget::Russh {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
            key: key.display().to_string(),
            host_key: self.host_key.clone().unwrap_or_default(),
        };
        Ok((host.to_owned(), target))
    }
}

async fn add(client: &Client, worker: &AddWorker) -> Result<WorkerView, Failure> {
    client.post("/workers", worker).await
}

/// The fingerprint that a refusal names.
fn fingerprint(failure: &Failure) -> Option<String> {
    let text = format!("{} {}", failure.message, failure.hint);
    let word = text.split_whitespace().find_map(|word| word.find("SHA256:").map(|at| &word[at..]))?;
    let end = word[7..].find(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c)).map_or(word.len(), |at| at + 7);
    Some(word[..end].to_owned()).filter(|word| word.len() > 7 + 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_found_in_a_refusal() {
        let key = format!("SHA256:{}", "aB+/".repeat(11));
        let failure = Failure::new(Code::HostKeyUnknown, format!("the host presents {key}, which is not known"));
        assert_eq!(fingerprint(&failure), Some(key));
        assert_eq!(fingerprint(&Failure::new(Code::HostKeyUnknown, "a key of type SHA256: nothing")), None);
    }
}
