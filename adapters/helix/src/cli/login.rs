//! `helix login`

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use helix_adapter_models::login::{DeviceLogin, Invitation, StoredToken, TokenStore};
use helix_config::{ModelsConfig, ProviderConfig, ProviderKind};
use helix_protocol::{Code, Failure, Timestamp};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::context::out;
use super::style::{Style, Table, span};
use crate::node::providers::{login_endpoint, logins};

/// Log in to a provider that gives tokens in place of keys: you type a short code on its page
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["provider", "list"])), after_help = "\
Examples:
  helix login copilot                     with llm.providers.copilot.client_id in helix.yaml
  helix login --list                      which providers take a login, and who is logged in
  helix login copilot --json              one object a line: the code, then the end

The token is kept encrypted in ~/.local/share/helix/logins. A node that runs uses it from its next call on.")]
pub(super) struct Login {
    /// The provider, as llm.providers of helix.yaml names it
    provider: Option<String>,
    /// Show which providers take a login, and which tokens there are
    #[arg(long)]
    list: bool,
}

impl Login {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (models, store) = (context.load()?.config.llm, token_store()?);
        let Some(name) = self.provider else {
            context.print(&entries(&models, &store)?, |entries| table(entries, Timestamp::now(), context.style))?;
            return Ok(ExitCode::SUCCESS);
        };
        let provider = provider(&models, &name)?;
        let Some(endpoint) = login_endpoint(&name, &provider) else { return Err(takes_a_key(&name, &provider)) };
        let login = DeviceLogin::new(endpoint)?;
        // Heard from here on: whoever sees the code may give up at once.
        let mut given_up = signal(SignalKind::interrupt()).map_err(|error| Failure::io("the signal of Ctrl-C", &error))?;
        let work = async {
            let invitation = context.waiting(&format!("asking {name} for a code"), login.begin()).await?;
            invite(context, &name, &invitation)?;
            let token = context.waiting("waiting for the code to be typed", login.wait(&invitation)).await?;
            store.save(&name, &token)?;
            Ok::<_, Failure>(token)
        };
        let token = tokio::select! {
            token = work => token?,
            _ = given_up.recv() => {
                return Err(Failure::new(Code::Cancelled, format!("the login to {name} was given up; nothing was stored"))
                    .hint(format!("`helix login {name}` begins anew, with another code")));
            }
        };
        concluded(context, &name, &provider, &token)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where tokens of this user are.
pub(super) fn token_store() -> Result<TokenStore, Failure> {
    logins().ok_or_else(|| {
        Failure::new(Code::InvalidRequest, "there is no folder to keep tokens in: HOME is not set")
            .hint("set HOME or XDG_DATA_HOME")
    })
}

/// The provider of this name, or of this kind where none is described.
fn provider(models: &ModelsConfig, name: &str) -> Result<ProviderConfig, Failure> {
    if let Some(provider) = models.providers.get(name) {
        return Ok(provider.clone());
    }
    let kind = ProviderKind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.map(ProviderConfig::of).ok_or_else(|| {
        Failure::new(Code::NotFound, format!("no provider is called {name:?}"))
            .hint("describe it under llm.providers of helix.yaml; `helix login --list` shows those that take a login")
    })
}

fn takes_a_key(name: &str, provider: &ProviderConfig) -> Failure {
    let key = match provider.key_env.as_str() {
        "" => "it needs neither key nor login".to_owned(),
        key => format!("set {key}"),
    };
    Failure::new(Code::InvalidRequest, format!("nobody logs in to {name}")).hint(format!(
        "{key}; a service with a device flow is described by client_id, login.device_url and login.token_url of llm.providers.{name}"
    ))
}

/// Shows the code: to a person on standard error, beside the progress; to a program as a line of JSON.
fn invite(context: &Context, name: &str, invitation: &Invitation) -> Result<(), Failure> {
    let minutes = invitation.expires_in.as_secs().div_ceil(60);
    context.say(&format!(
        "to log in to {name}, open {}\nand type the code  {}  (good for {minutes} min; Ctrl-C gives up)",
        invitation.verification_uri,
        context.style.bold(&invitation.user_code)
    ));
    if let Some(address) = &invitation.verification_uri_complete {
        context.say(&format!("or open {address}, which has the code in it"));
    }
    if !context.json() {
        return Ok(());
    }
    let line = json!({
        "event": "code", "provider": name, "user_code": invitation.user_code, "verification_uri": invitation.verification_uri,
        "verification_uri_complete": invitation.verification_uri_complete, "expires_in_s": invitation.expires_in.as_secs(),
    });
    out(&format!("{line}\n"))
}

fn concluded(context: &Context, name: &str, provider: &ProviderConfig, token: &StoredToken) -> Result<(), Failure> {
    if context.json() {
        let line = json!({
            "event": "logged_in", "provider": name, "expires_at": token.expires_at, "refreshed": token.refresh.is_some(),
        });
        return out(&format!("{line}\n"));
    }
    context.say(&format!("logged in to {name}; `helix logout {name}` forgets it"));
    if has_key(provider) {
        context.say(&format!("{} is set, and goes before the login", provider.key_env));
    }
    Ok(())
}

fn has_key(provider: &ProviderConfig) -> bool {
    !provider.key_env.is_empty() && std::env::var(&provider.key_env).is_ok_and(|key| !key.trim().is_empty())
}

/// A provider that takes a login, or a token that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    provider: String,
    /// Absent where helix.yaml has no such provider any more.
    kind: Option<&'static str>,
    logged_in: bool,
    /// True where the token renews itself.
    refreshed: bool,
    /// In seconds since 1970.
    expires_at: Option<i64>,
    /// Why nobody can log in, or why the token is of no use.
    reason: String,
}

fn entries(models: &ModelsConfig, store: &TokenStore) -> Result<Vec<Entry>, Failure> {
    let mut providers = models.providers.clone();
    for kind in ProviderKind::ALL {
        providers.entry(kind.name().to_owned()).or_insert_with(|| ProviderConfig::of(kind));
    }
    let stored = store.names()?;
    let known = providers.iter().filter(|(name, provider)| provider.login_place().is_some() || stored.contains(name));
    let mut entries: Vec<Entry> = known.map(|(name, provider)| entry(store, name, Some(provider))).collect();
    entries.extend(stored.iter().filter(|name| !providers.contains_key(*name)).map(|name| entry(store, name, None)));
    Ok(entries)
}

fn entry(store: &TokenStore, name: &str, provider: Option<&ProviderConfig>) -> Entry {
    let (token, unreadable) = match store.load(name) {
        Ok(token) => (token, None),
        Err(failure) => (None, Some(failure.message)),
    };
    let reason = unreadable.unwrap_or_else(|| match provider {
        None => "helix.yaml has no provider of this name".to_owned(),
        Some(provider) if provider.login_place().is_none() => "this provider takes a key".to_owned(),
        Some(provider) if has_key(provider) => format!("{} is set, and goes before the login", provider.key_env),
        Some(provider) if provider.client_id.is_empty() && token.is_none() => {
            format!("needs a client id: llm.providers.{name}.client_id")
        }
        Some(_) => String::new(),
    });
    Entry {
        provider: name.to_owned(),
        kind: provider.map(|provider| provider.kind.name()),
        logged_in: token.is_some(),
        refreshed: token.as_ref().is_some_and(|token| token.refresh.is_some()),
        expires_at: token.and_then(|token| token.expires_at),
        reason,
    }
}

fn table(entries: &[Entry], now: Timestamp, style: Style) -> String {
    let mut table = Table::new(style, &["PROVIDER", "KIND", "LOGIN", "TOKEN", "NOTE"]);
    for entry in entries {
        let left = entry.expires_at.map(|at| at.saturating_mul(1_000_000).saturating_sub(now.0));
        let token = match (entry.logged_in, entry.refreshed, left) {
            (false, ..) => "-".to_owned(),
            (true, true, _) => "renewed by itself".to_owned(),
            (true, false, None) => "until it is refused".to_owned(),
            (true, false, Some(left)) if left <= 0 => style.yellow("expired"),
            (true, false, Some(left)) => format!("{} left", span(left)),
        };
        let login = if entry.logged_in { style.green("logged in") } else { style.dim("none") };
        table.row([style.bold(&entry.provider), entry.kind.unwrap_or("-").to_owned(), login, token, entry.reason.clone()]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use helix_config::Config;

    use super::*;

    #[test]
    fn a_listing_says_who_is_logged_in_and_what_stands_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = TokenStore::new(folder.path());
        let token = |refresh: Option<&str>, expires_at| StoredToken {
            access: "at".to_owned(),
            refresh: refresh.map(str::to_owned),
            expires_at,
        };
        store.save("qwen", &token(Some("rt"), Some(5))).expect("saved");
        store.save("work", &token(None, Some(7_300))).expect("saved");
        store.save("gone", &token(None, None)).expect("saved");
        let text = "llm:\n  providers:\n    work: {kind: copilot, client_id: c, key_env: \"\"}\n    copilot: {kind: copilot, key_env: \"\"}\n    qwen: {kind: qwen, client_id: q, key_env: \"\"}\n";
        let models = Config::parse(text, "helix.yaml").expect("right").llm;
        let entries = entries(&models, &store).expect("readable");
        insta::assert_snapshot!(table(&entries, Timestamp(100_000_000), Style::Plain));
    }

    #[test]
    fn a_provider_that_takes_a_key_names_it() {
        let failure = takes_a_key("xai", &ProviderConfig::of(ProviderKind::Xai));
        assert!(failure.hint.starts_with("set XAI_API_KEY; "), "{}", failure.hint);
        assert_eq!(provider(&ModelsConfig::default(), "nobody").expect_err("no such").code, Code::NotFound);
    }
}
