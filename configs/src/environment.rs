//! Environment variables that override the file.
//!
//! Every scalar key has a variable, `HELIX_<SECTION>_<KEY>` in capitals (`HELIX_WORKERS_LEASE_FENCE_MS`). A few have the names that
//! people know from elsewhere; where both are set, the longer, more exact one wins.

use helix_protocol::{Code, Failure};
use serde_json::Value;

use crate::{Config, ProviderKind, Source};

/// Names known from elsewhere and short ones, before the exact ones, which therefore win.
const ALIASES: &[(&str, &str)] = &[
    ("DATABASE_URL", "/database/url"),
    ("HELIX_DATA", "/server/data"),
    (LOG, "/logging/level"),
    ("WORKER_MAX_TASKS", "/workers/slots"),
];

/// A model server's address, without a section of its own.
const MODEL_SERVER: &str = "OPENAI_BASE_URL";
/// Says what is logged, and nothing about what a node does.
const LOG: &str = "HELIX_LOG";

/// True of a variable that makes a node another one than its file says: whatever overrides a key, and the keys of providers, which
/// exist where their key does. A node that must be as its file says is started without them.
pub fn changes_a_node(name: &str) -> bool {
    let overrides = name.starts_with("HELIX_") || name == MODEL_SERVER || ALIASES.iter().any(|(alias, _)| *alias == name);
    // Servers without keys name no variable.
    let is_key = !name.is_empty() && ProviderKind::ALL.into_iter().any(|kind| kind.key_env() == name);
    (overrides && name != LOG) || is_key
}

/// Variables that are read by something else than the configuration: its own place, what tasks and tests find in their environment.
const READ_ELSEWHERE: &[&str] = &[
    "HELIX_CONFIG",
    "HELIX_CACHE",
    "HELIX_WITHOUT_PEERS",
    "HELIX_BLESS",
    "HELIX_CAMPAIGN",
    "HELIX_SEED",
    "HELIX_SEEDS",
    "HELIX_TASK",
    "HELIX_EPOCH",
    "HELIX_PORT",
    "HELIX_PORTS",
    "HELIX_WORKER",
    "HELIX_FOLDER",
];

/// Of these variables, those that are named as if they were Helix's and that nothing reads: a key that was mistyped, a list, which
/// only a file can hold, or a name from elsewhere. `config` is what was loaded under them.
pub fn unread(config: &Config, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let keys = variables(config);
    let is_part = |name: &str| DATABASE_PARTS.iter().any(|part| name.strip_prefix("HELIX_DATABASE_") == Some(part));
    let is_read = |name: &str| {
        READ_ELSEWHERE.contains(&name)
            || is_part(name)
            || ALIASES.iter().any(|(alias, _)| *alias == name)
            || keys.iter().any(|key| key == name)
    };
    names.into_iter().filter(|name| name.starts_with("HELIX_") && !is_read(name)).collect()
}

/// The variable that was meant by one that [`unread`] found, if any is alike.
pub fn nearest_variable(config: &Config, name: &str) -> Option<String> {
    // Every name begins alike, which would make any two alike.
    let rest = |name: &str| name.strip_prefix("HELIX_").unwrap_or(name).to_owned();
    let known: Vec<String> =
        variables(config).iter().map(|known| rest(known)).chain(["CONFIG", "DATA", "LOG"].map(str::to_owned)).collect();
    let scored = known.iter().map(|known| (strsim::jaro_winkler(&rest(name), known), known));
    scored.filter(|(score, _)| *score > 0.9).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| format!("HELIX_{known}"))
}

/// The exact names of the variables that override scalars.
fn variables(config: &Config) -> Vec<String> {
    let tree = serde_json::to_value(config).expect("a configuration is plain data");
    let mut leaves = Vec::new();
    scalars(&tree, String::new(), &mut leaves);
    leaves.iter().map(|pointer| variable_of(pointer)).collect()
}

fn variable_of(pointer: &str) -> String {
    format!("HELIX{}", pointer.replace(['/', '-'], "_").to_uppercase())
}

/// Applies every variable that is set, and names them.
pub(crate) fn apply(config: &mut Config, env: &impl Fn(&str) -> Option<String>) -> Result<Vec<Source>, Failure> {
    let mut used = Vec::new();
    let mut tree = serde_json::to_value(&*config).expect("a configuration is plain data");
    let mut set = |tree: &mut Value, variable: &str, pointer: &str, text: String| -> Result<(), Failure> {
        override_one(tree, variable, pointer, &text)?;
        used.push(Source::Variable { name: variable.to_owned(), key: pointer[1..].replace('/', ".") });
        Ok(())
    };
    if let Some(url) = database_parts(env)? {
        set(&mut tree, "HELIX_DATABASE_HOST", "/database/url", url)?;
    }
    for (variable, pointer) in ALIASES {
        if let Some(text) = env(variable) {
            set(&mut tree, variable, pointer, text)?;
        }
    }
    let mut leaves = Vec::new();
    scalars(&tree, String::new(), &mut leaves);
    for pointer in leaves {
        let variable = variable_of(&pointer);
        if let Some(text) = env(&variable) {
            set(&mut tree, &variable, &pointer, text)?;
        }
    }
    *config = serde_json::from_value(tree).expect("every override was tried on its own");
    if let Some(url) = env(MODEL_SERVER) {
        config.llm.providers.entry("openai".to_owned()).or_default().base_url = url;
        used.push(Source::Variable { name: MODEL_SERVER.to_owned(), key: "llm.providers.openai.base_url".to_owned() });
    }
    Ok(used)
}

/// Pointers to every scalar, in the order of the sections.
fn scalars(value: &Value, pointer: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| scalars(field, format!("{pointer}/{key}"), found)),
        Value::Array(_) | Value::Null => {}
        _ => found.push(pointer),
    }
}

/// Sets one scalar and sees whether the configuration still is one.
fn override_one(tree: &mut Value, variable: &str, pointer: &str, text: &str) -> Result<(), Failure> {
    let refused = |expected: &str| {
        Failure::new(Code::InvalidConfig, format!("{variable} is {text:?}, and {expected} is expected"))
            .hint(format!("it overrides {} of helix.yaml; correct it or unset it", pointer[1..].replace('/', ".")))
    };
    let slot = tree.pointer_mut(pointer).expect("pointers are made from the tree itself");
    *slot = match slot {
        Value::Bool(_) => Value::Bool(text.parse().map_err(|_| refused("true or false"))?),
        Value::Number(old) if old.is_f64() => {
            let number: f64 = text.parse().map_err(|_| refused("a number"))?;
            serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| refused("a finite number"))?
        }
        Value::Number(_) => Value::Number(text.parse::<u64>().map_err(|_| refused("a whole number"))?.into()),
        _ => Value::String(text.to_owned()),
    };
    let tried = serde_json::from_value::<Config>(tree.clone());
    tried.map(|_| ()).map_err(|error| Failure::new(Code::InvalidConfig, format!("{variable} is {text:?}: {error}")))
}

const DATABASE_PARTS: [&str; 6] = ["HOST", "PORT", "USER", "PASSWORD", "NAME", "SSLMODE"];

/// A PostgreSQL URL out of HELIX_DATABASE_{HOST,PORT,USER,PASSWORD,NAME,SSLMODE}; `None` where no host is named.
fn database_parts(env: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, Failure> {
    let part = |name: &str| env(&format!("HELIX_DATABASE_{name}"));
    let Some(host) = part("HOST") else {
        return match DATABASE_PARTS.iter().find(|name| part(name).is_some()) {
            Some(name) => {
                Err(Failure::new(Code::InvalidConfig, format!("HELIX_DATABASE_{name} is set and HELIX_DATABASE_HOST is not"))
                    .hint("set HELIX_DATABASE_HOST too, or the whole address in HELIX_DATABASE_URL"))
            }
            None => Ok(None),
        };
    };
    let port = part("PORT").unwrap_or_else(|| "5432".to_owned());
    if port.parse::<u16>().is_err() {
        return Err(Failure::new(Code::InvalidConfig, format!("HELIX_DATABASE_PORT is {port:?}, and a port number is expected")));
    }
    let user = escaped(&part("USER").unwrap_or_else(|| "helix".to_owned()));
    let password = part("PASSWORD").map(|password| format!(":{}", escaped(&password))).unwrap_or_default();
    let name = escaped(&part("NAME").unwrap_or_else(|| "helix".to_owned()));
    let mode = part("SSLMODE").map(|mode| format!("?sslmode={}", escaped(&mode))).unwrap_or_default();
    Ok(Some(format!("postgres://{user}{password}@{host}:{port}/{name}{mode}")))
}

/// Percent-encoded as RFC 3986 wants it in the parts of a URL.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Config, Failure> {
        let mut config = Config::default();
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
        apply(&mut config, &env).map(|_| config)
    }

    #[test]
    fn every_scalar_has_a_variable_named_after_its_path() {
        let config =
            with(&[("HELIX_WORKERS_LEASE_FENCE_MS", "9000"), ("HELIX_BUDGETS_DAILY_USD", "3.5"), ("HELIX_LOGGING_FORMAT", "json")])
                .expect("all are right");
        assert_eq!(config.workers.lease.fence_ms, 9_000);
        assert_eq!(config.budgets.daily_usd, 3.5);
        assert_eq!(config.logging.format, crate::LogFormat::Json);
    }

    #[test]
    fn the_exact_name_wins_over_the_general_one() {
        let config = with(&[("DATABASE_URL", "postgres://a/b"), ("HELIX_DATABASE_URL", "postgres://c/d")]).expect("both are right");
        assert_eq!(config.database.url, "postgres://c/d");
        assert_eq!(with(&[("DATABASE_URL", "postgres://a/b")]).expect("right").database.url, "postgres://a/b");
    }

    #[test]
    fn the_parts_of_a_database_address_are_put_together_and_escaped() {
        let config = with(&[("HELIX_DATABASE_HOST", "db"), ("HELIX_DATABASE_USER", "me"), ("HELIX_DATABASE_PASSWORD", "p@ss/1")]);
        assert_eq!(config.expect("right").database.url, "postgres://me:p%40ss%2F1@db:5432/helix");
        let config = with(&[("HELIX_DATABASE_HOST", "db"), ("HELIX_DATABASE_SSLMODE", "verify-full")]);
        assert_eq!(config.expect("right").database.url, "postgres://helix@db:5432/helix?sslmode=verify-full");
        let lonely = with(&[("HELIX_DATABASE_USER", "me")]).expect_err("no host");
        assert_eq!(lonely.message, "HELIX_DATABASE_USER is set and HELIX_DATABASE_HOST is not");
    }

    #[test]
    fn a_base_url_makes_the_provider_it_belongs_to() {
        let config = with(&[("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")]).expect("right");
        assert_eq!(config.llm.providers["openai"].base_url, "http://127.0.0.1:8000/v1");
        assert_eq!(config.llm.providers["openai"].key_env, "OPENAI_API_KEY");
    }

    #[test]
    fn a_variable_of_the_wrong_type_is_refused_by_its_name() {
        let failure = with(&[("HELIX_WORKERS_LOCAL", "many")]).expect_err("not a number");
        assert_eq!(failure.message, "HELIX_WORKERS_LOCAL is \"many\", and a whole number is expected");
        assert_eq!(failure.hint, "it overrides workers.local of helix.yaml; correct it or unset it");
        assert!(with(&[("HELIX_WORKERS_LOCAL", "99999999999")]).is_err());
        assert!(with(&[("HELIX_LOGGING_FORMAT", "xml")]).is_err());
    }

    #[test]
    fn what_overrides_the_file_or_makes_a_provider_changes_a_node_and_nothing_else_does() {
        let changing = [
            "DATABASE_URL",
            "HELIX_DATABASE_HOST",
            "HELIX_DATA",
            "HELIX_CONFIG",
            "WORKER_MAX_TASKS",
            "OPENAI_BASE_URL",
            "ANTHROPIC_API_KEY",
            "GITHUB_TOKEN",
        ];
        assert!(changing.iter().all(|name| changes_a_node(name)));
        assert!(["HELIX_LOG", "PATH", "HOME", "TMPDIR", ""].iter().all(|name| !changes_a_node(name)));
    }

    #[test]
    fn a_variable_that_nothing_reads_is_found() {
        let names = [
            "HELIX_WORKERS_SLOTS",
            "HELIX_WORKER_SLOTS",
            "HELIX_DATABASE_HOST",
            "HELIX_SERVER_URL",
            "HELIX_TASKS_WRITABLE",
            "HELIX_LOG",
            "HELIX_CONFIG",
            "PATH",
            "REDIS_URL",
        ];
        let found = unread(&Config::default(), names.map(str::to_owned));
        assert_eq!(found, ["HELIX_WORKER_SLOTS", "HELIX_SERVER_URL", "HELIX_TASKS_WRITABLE"]);
        let nearest = |name: &str| nearest_variable(&Config::default(), name);
        assert_eq!(nearest("HELIX_WORKER_SLOTS").as_deref(), Some("HELIX_WORKERS_SLOTS"));
        assert_eq!(nearest("HELIX_CONFG").as_deref(), Some("HELIX_CONFIG"));
        assert_eq!(nearest("HELIX_SOMETHING_ELSE"), None);
    }
}
