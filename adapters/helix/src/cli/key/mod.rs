//! `helix key`

mod create;
mod list;
mod revoke;

use clap::Subcommand;
use helix_adapter_http::api::KeyView;
use helix_protocol::{Budget, Code, Failure, Spent, Timestamp};

use super::Context;
use super::style::{Style, Table, age, cut, dollars, grouped, span};

/// Make, list and revoke the keys with which clients call models through this node
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    Create(create::Create),
    List(list::List),
    Revoke(revoke::Revoke),
}

impl Key {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Revoke(command) => command.run(context).await,
        }
    }
}

/// Keys as a table.
fn table(keys: &[KeyView], now: Timestamp, style: Style) -> String {
    let mut table = Table::new(style, &["KEY", "NAME", "STATE", "MODELS", "SPENT", "IN ALL", "A DAY", "A MINUTE", "MADE"]);
    for key in keys {
        let models = if key.models.is_empty() { "all".to_owned() } else { key.models.join(", ") };
        table.row([
            style.bold(key.id.short()),
            cut(&key.name, 40),
            state(key, now, style),
            cut(&models, 40),
            amount(key.spent),
            limit(key.budget),
            limit(key.daily),
            key.requests_per_minute.map_or_else(|| "-".to_owned(), |most| grouped(most.into())),
            format!("{} ago", age(key.created_at, now)),
        ]);
    }
    table.render()
}

fn state(key: &KeyView, now: Timestamp, style: Style) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => style.red("revoked"),
        (None, Some(until)) if until <= now => style.yellow("expired"),
        (None, Some(until)) => style.green(format!("{} left", span(until.0 - now.0))),
        (None, None) => style.green("valid"),
    }
}

fn amount(spent: Spent) -> String {
    if spent.tokens == 0 { "nothing".to_owned() } else { format!("{}, {} tokens", dollars(spent.money), grouped(spent.tokens)) }
}

fn limit(budget: Budget) -> String {
    match (budget.money, budget.tokens) {
        (Some(money), Some(tokens)) => format!("{}, {} tokens", dollars(money), grouped(tokens)),
        (Some(money), None) => dollars(money),
        (None, Some(tokens)) => format!("{} tokens", grouped(tokens)),
        (None, None) => "-".to_owned(),
    }
}

/// The key that somebody means: by its whole id, by the end of it, or by its name. Of two with one name the
/// one that is valid is meant.
fn named<'a>(keys: &'a [KeyView], text: &str, now: Timestamp) -> Result<&'a KeyView, Failure> {
    let digits = text.to_ascii_lowercase();
    let by_id = |key: &&KeyView| {
        let id = key.id.0.simple().to_string();
        let long_enough = digits.len() >= 4;
        key.id.to_string() == digits || (long_enough && id.ends_with(&digits))
    };
    let valid = |key: &&KeyView| key.revoked_at.is_none() && key.expires_at.is_none_or(|until| until > now);
    let by_name: Vec<&KeyView> = keys.iter().filter(|key| key.name == text).collect();
    let mut found: Vec<&KeyView> = by_name.iter().copied().filter(valid).collect();
    if found.is_empty() {
        found = by_name;
    }
    if found.is_empty() {
        found = keys.iter().filter(by_id).collect();
    }
    match found.as_slice() {
        [key] => Ok(key),
        [] => Err(Failure::new(Code::NotFound, format!("no key has the name or id {text:?}")).hint("`helix key list` shows them")),
        several => Err(Failure::new(Code::AmbiguousId, format!("{} keys fit {text:?}", several.len()))
            .hint("name one by its id, which `helix key list` shows")),
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{KeyId, Money};
    use uuid::Uuid;

    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn key(id: u128, name: &str) -> KeyView {
        KeyView {
            id: KeyId(Uuid::from_u128(id)),
            name: name.to_owned(),
            task: None,
            models: Vec::new(),
            budget: Budget::default(),
            daily: Budget::default(),
            requests_per_minute: None,
            created_at: Timestamp(0),
            expires_at: None,
            revoked_at: None,
            spent: Spent::default(),
        }
    }

    #[test]
    fn a_listing_reads_like_this() {
        let narrow = KeyView {
            models: vec!["coder".to_owned(), "openai/gpt-5.1".to_owned()],
            budget: Budget { money: Some(Money(5_000_000)), tokens: None },
            daily: Budget { money: Some(Money(500_000)), tokens: Some(2_000_000) },
            requests_per_minute: Some(1_200),
            expires_at: Some(Timestamp(10 * DAY)),
            spent: Spent { money: Money(1_230_000), tokens: 456_789 },
            ..key(0x1234_5678, "ci")
        };
        let gone = KeyView { revoked_at: Some(Timestamp(1)), ..key(0xabcd_ef01, "laptop") };
        let old = KeyView { expires_at: Some(Timestamp(1)), ..key(0xabcd_ef02, "old") };
        insta::assert_snapshot!(table(&[narrow, gone, old, key(0xabcd_ef03, "editor")], Timestamp(3 * DAY), Style::Plain));
    }

    #[test]
    fn a_key_is_meant_by_its_name_or_the_end_of_its_id_and_a_revoked_namesake_is_not() {
        let gone = KeyView { revoked_at: Some(Timestamp(1)), ..key(0x1111_0001, "ci") };
        let keys = [gone.clone(), key(0x1111_0002, "ci"), key(0x2222_0002, "editor"), key(0x3333_0003, "editor")];
        let meant = |text: &str| named(&keys, text, Timestamp(5)).map(|key| key.id.0.as_u128()).map_err(|failure| failure.code);
        assert_eq!(meant("ci"), Ok(0x1111_0002));
        assert_eq!(meant("33330003"), Ok(0x3333_0003));
        assert_eq!(meant("11110001"), Ok(0x1111_0001), "by its id a revoked one is meant too");
        assert_eq!(meant(&keys[2].id.to_string()), Ok(0x2222_0002));
        assert_eq!(meant("editor"), Err(Code::AmbiguousId));
        assert_eq!(meant("0002"), Err(Code::AmbiguousId));
        assert_eq!([meant("2"), meant("nobody")], [Err(Code::NotFound); 2]);
        assert_eq!(named(&[gone], "ci", Timestamp(5)).map(|key| key.id.0.as_u128()), Ok(0x1111_0001), "it is the only one");
    }
}
