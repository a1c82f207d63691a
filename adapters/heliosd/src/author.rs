//! Who somebody is, as their environment and git's configuration say.

use std::path::Path;

use helix_protocol::{Code, Failure, Timestamp};
use helix_versions::Signature;
use helix_versions::git::parse_date;

use crate::context::Caller;
use crate::engine::settings::Settings;
use crate::git_config::GitConfig;

/// Whose name is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who made the content.
    Author,
    /// Who makes the snapshot.
    Committer,
}

/// Who a caller is, as far as it is not the same for each role.
pub struct Who<'a> {
    caller: &'a Caller,
    settings: &'a Settings,
    git: GitConfig,
}

impl<'a> Who<'a> {
    /// Reads git's configuration, of the person and of the repository in `root`.
    pub fn read(caller: &'a Caller, settings: &'a Settings, root: &Path) -> Self {
        Self { caller, settings, git: GitConfig::read(|name| caller.variable(name).map(Into::into), root) }
    }

    /// The signature now: `HELIOS_AUTHOR_NAME` and the like, then git's variables, the repository's settings, git's configuration,
    /// and at last the login and the machine.
    pub fn signature(&self, role: Role) -> Signature {
        let Self { caller, settings, git } = self;
        let from_environment = |what: &str| {
            let role = if role == Role::Author { "AUTHOR" } else { "COMMITTER" };
            ["HELIOS", "GIT"].iter().find_map(|program| text(caller, &format!("{program}_{role}_{what}")))
        };
        // Who is named as the author and nothing else is the committer too.
        let as_author = |what: &str| text(caller, &format!("HELIOS_AUTHOR_{what}"));
        let name = from_environment("NAME")
            .or_else(|| as_author("NAME"))
            .or_else(|| settings.text("user.name"))
            .or_else(|| git.name.clone())
            .unwrap_or_else(|| login(caller));
        let email = from_environment("EMAIL")
            .or_else(|| as_author("EMAIL"))
            .or_else(|| settings.text("user.email"))
            .or_else(|| git.email.clone())
            .or_else(|| text(caller, "EMAIL"))
            .unwrap_or_else(|| format!("{}@{}", login(caller), host()));
        Signature { name: plain(&name), email: plain(&email), time: Timestamp::now(), offset_minutes: caller.offset_minutes }
    }

    /// The signature with the date that `GIT_AUTHOR_DATE` and the like give it, where one does.
    pub fn dated(&self, role: Role) -> Option<Signature> {
        let (_, date) = variable_date(self.caller, role)?;
        let (time, offset_minutes) = parse_date(&date, self.caller.offset_minutes)?;
        Some(Signature { time, offset_minutes, ..self.signature(role) })
    }
}

/// Refuses dates of the environment that cannot be read.
pub fn check_dates(caller: &Caller) -> Result<(), Failure> {
    for (name, date) in [Role::Author, Role::Committer].into_iter().filter_map(|role| variable_date(caller, role)) {
        if parse_date(&date, caller.offset_minutes).is_none() {
            return Err(Failure::new(Code::InvalidRequest, format!("invalid date format: {date}")).hint(format!(
                "write {name} as 2024-02-29T18:04:56+01:00, or as seconds since 1970 and a zone: 1709226296 +0100"
            )));
        }
    }
    Ok(())
}

/// The variable that dates what somebody does, and its text.
fn variable_date(caller: &Caller, role: Role) -> Option<(String, String)> {
    let role = if role == Role::Author { "AUTHOR" } else { "COMMITTER" };
    ["HELIOS", "GIT"].into_iter().find_map(|program| {
        let name = format!("{program}_{role}_DATE");
        text(caller, &name).map(|date| (name, date))
    })
}

fn text(caller: &Caller, name: &str) -> Option<String> {
    caller.variable(name).map(|value| value.to_string_lossy().into_owned())
}

fn login(caller: &Caller) -> String {
    text(caller, "USER")
        .or_else(|| text(caller, "LOGNAME"))
        .unwrap_or_else(|| format!("uid-{}", rustix::process::geteuid().as_raw()))
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A name without what would break it apart where it is shown, as git leaves it out too.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control() && !matches!(letter, '<' | '>')).collect::<String>().trim().to_owned()
}
