//! What the types of the sections cannot say: orders and ranges.

use helix_protocol::{Code, Failure, Isolation, Network, SecretRef};

use crate::{Config, ProjectFile, ProviderConfig, ProviderKind, SearchKind, WebConfig, check_program, model_table};

/// Refuses a configuration that could not work, naming the key.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    leases(config)?;
    at_least_one("tasks.max_concurrent_tasks", config.tasks.max_concurrent_tasks.into())?;
    at_least_one("tasks.snapshot_interval_ms", config.tasks.snapshot_interval_ms)?;
    at_least_one("tasks.tool_timeout_ms", config.tasks.tool_timeout_ms)?;
    at_least_one("tasks.retry_backoff_ms", config.tasks.retry_backoff_ms)?;
    at_least_one("workers.connect_timeout_ms", config.workers.connect_timeout_ms)?;
    at_least_one("workspace.file_cap_bytes", config.workspace.file_cap_bytes)?;
    if config.tasks.output_bytes < 1_024 {
        return Err(wrong("tasks.output_bytes", config.tasks.output_bytes, "at least 1024, or tools could not answer"));
    }
    if config.tasks.retry_backoff_most_ms < config.tasks.retry_backoff_ms {
        return Err(wrong("tasks.retry_backoff_most_ms", config.tasks.retry_backoff_most_ms, "at least tasks.retry_backoff_ms"));
    }
    if !config.tasks.secrets.iter().all(|source| is_source(source)) {
        // As in a project file: it is not repeated.
        return Err(Failure::new(Code::InvalidConfig, "tasks.secrets has a source that is none")
            .hint("env:NAME or file:/absolute/path; a secret's value itself never belongs into this file"));
    }
    amount("budgets.daily_usd", config.budgets.daily_usd)?;
    amount("budgets.project_daily_usd", config.budgets.project_daily_usd)?;
    at_least_one("gateway.body_mib", config.gateway.body_mib)?;
    let listen = &config.gateway.listen;
    if !listen.is_empty() && listen.parse::<std::net::SocketAddr>().is_err() {
        return Err(wrong("gateway.listen", format!("{listen:?}"), "an address and a port, for example 127.0.0.1:4141"));
    }
    web(&config.web)?;
    let address = &config.gateway.address;
    if !address.is_empty() && !is_plain_url(address.strip_suffix('/').unwrap_or(address)) {
        let wanted = "http://HOST:PORT or https://HOST, without a path";
        return Err(wrong("gateway.address", format!("{address:?}"), wanted));
    }
    at_least_one("agents.start_ms", config.agents.start_ms)?;
    at_least_one("agents.silent_ms", config.agents.silent_ms)?;
    config.agents.programs.iter().try_for_each(|(name, program)| check_program(name, program))?;
    database(&config.database.url)?;
    levels(&config.logging.level)?;
    models(config)
}

/// A URL that nothing follows the host of; plain http needs a port, because the worker connects to it as it stands.
fn is_plain_url(text: &str) -> bool {
    let of = |prefix| text.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty() && !rest.contains(['/', '?', '#', ' ', '@']));
    let has_port = |host: &str| host.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    of("https://").is_some() || of("http://").is_some_and(has_port)
}

/// Refuses a project file that could not work, naming the key.
pub(crate) fn check_project(file: &ProjectFile) -> Result<(), Failure> {
    let refuse = |message: String, hint: &str| {
        Err(Failure::new(Code::InvalidConfig, format!("{}: {message}", ProjectFile::NAME)).hint(hint))
    };
    for (key, paths) in [("caches", &file.caches), ("lockfiles", &file.lockfiles)] {
        if let Some(path) =
            paths.iter().find(|path| path.starts_with('/') || path.split('/').any(|part| part == "..") || path.is_empty())
        {
            return refuse(
                format!("{key} has {path:?}, which is not a path inside the repository"),
                "name it from the repository's root",
            );
        }
    }
    let widened = [
        (file.isolation == Some(Isolation::Full), "isolation: full", "`tasks.isolation` in helix.yaml, or --unsandboxed"),
        (file.network == Some(Network::Host), "network: host", "`tasks.network` in helix.yaml, or --network host"),
    ];
    if let Some((_, asked, instead)) = widened.into_iter().find(|(widens, ..)| *widens) {
        return refuse(
            format!("`{asked}` would let a repository widen its own sandbox"),
            &format!("the node's owner grants it: {instead}"),
        );
    }
    let variables = file.environment.keys().chain(file.secrets.iter().map(|secret| &secret.variable));
    for name in variables {
        if !is_variable(name) {
            return refuse(
                format!("{name:?} is not the name of an environment variable"),
                "letters, digits and _, not a digit first",
            );
        }
    }
    for SecretRef { variable, source } in &file.secrets {
        if !is_source(source) {
            return refuse(
                // The source is not repeated: it may be the secret itself, put here by mistake.
                format!("the secret {variable} has a source that is none"),
                "env:NAME or file:/absolute/path; a secret's value itself never belongs into this file",
            );
        }
    }
    Ok(())
}

/// Where a secret can be found.
fn is_source(text: &str) -> bool {
    text.strip_prefix("env:").is_some_and(is_variable) || text.strip_prefix("file:").is_some_and(|path| path.starts_with('/'))
}

fn leases(config: &Config) -> Result<(), Failure> {
    let lease = &config.workers.lease;
    let times = [
        ("heartbeat_ms", lease.heartbeat_ms),
        ("suspect_ms", lease.suspect_ms),
        ("fence_ms", lease.fence_ms),
        ("reassign_ms", lease.reassign_ms),
    ];
    at_least_one("workers.lease.heartbeat_ms", lease.heartbeat_ms)?;
    for pair in times.windows(2) {
        let ((earlier, before), (later, after)) = (pair[0], pair[1]);
        if before >= after {
            let message = format!("workers.lease.{earlier} ({before}) must be less than workers.lease.{later} ({after})");
            return Err(Failure::new(Code::InvalidConfig, message)
                .hint("a worker must have fenced itself before its tasks are given away: heartbeat < suspect < fence < reassign"));
        }
    }
    Ok(())
}

fn web(config: &WebConfig) -> Result<(), Failure> {
    at_least_one("web.timeout_ms", config.timeout_ms)?;
    at_least_one("web.page_kib", config.page_kib)?;
    let WebConfig { search, search_url, search_key_env, .. } = config;
    let address = search_url.starts_with("http://") || search_url.starts_with("https://");
    let usual = search_url.is_empty() && *search != SearchKind::Searxng;
    if !(address || usual) {
        return Err(wrong("web.search_url", format!("{search_url:?}"), "the http:// or https:// address of the search engine"));
    }
    if !search_key_env.is_empty() && !is_variable(search_key_env) {
        // The value is not repeated: a key that was pasted here would end up in logs.
        return Err(Failure::new(Code::InvalidConfig, "web.search_key_env is not the name of an environment variable")
            .hint("name the variable that holds the key; the key itself never belongs into this file"));
    }
    if *search == SearchKind::Brave && search_key_env.is_empty() {
        return Err(wrong(
            "web.search_key_env",
            "empty",
            "the name of the environment variable with Brave's key, for example BRAVE_API_KEY",
        ));
    }
    Ok(())
}

fn models(config: &Config) -> Result<(), Failure> {
    let llm = &config.llm;
    for (name, provider) in &llm.providers {
        let key = |field: &str| format!("llm.providers.{name}.{field}");
        // A request names a model as provider/model.
        if name.is_empty() || name.contains('/') {
            return Err(wrong(&format!("llm.providers.{name}"), "a name that cannot be asked for", "a name without a slash"));
        }
        let ProviderConfig { base_url, key_env, temperature, concurrency, prices, .. } = provider;
        if !base_url.starts_with("http://") && !base_url.starts_with("https://") {
            return Err(wrong(&key("base_url"), format!("{base_url:?}"), "an http:// or https:// address, usually ending in /v1"));
        }
        for (part, url) in [("login.device_url", &provider.login.device_url), ("login.token_url", &provider.login.token_url)] {
            if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(wrong(&key(part), format!("{url:?}"), "an http:// or https:// address"));
            }
        }
        if !key_env.is_empty() && !is_variable(key_env) {
            // The value is not repeated: a key that was pasted here would end up in logs.
            return Err(Failure::new(
                Code::InvalidConfig,
                format!("{} is not the name of an environment variable", key("key_env")),
            )
            .hint(
                "name the variable that holds the key, for example OPENAI_API_KEY; the key itself never belongs into this file",
            ));
        }
        if let Some(temperature) = temperature.filter(|temperature| !(0.0..=2.0).contains(temperature)) {
            return Err(wrong(&key("temperature"), temperature, "from 0 to 2"));
        }
        if !provider.safety.is_empty() && provider.kind != ProviderKind::Gemini {
            return Err(wrong(&key("safety"), "set", "left out: only a provider of the kind gemini has such filters"));
        }
        at_least_one(&key("concurrency"), (*concurrency).into())?;
        for (model, price) in prices {
            for (part, dollars) in [("input", price.input), ("cached", price.cached), ("output", price.output)] {
                amount(&key(&format!("prices.{model}.{part}")), dollars)?;
            }
        }
    }
    model_table::check(&llm.models, "llm.models")?;
    let default = llm.default_provider.as_str();
    if !default.is_empty() && !is_provider(config, default) && !llm.groups.contains_key(default) {
        let by_key = ProviderKind::ALL.into_iter().map(ProviderKind::name);
        let known = llm.providers.keys().chain(llm.groups.keys()).map(String::as_str);
        let known: Vec<&str> = known.chain(by_key.map(|kind| -> &str { kind })).collect();
        return Err(wrong("llm.default_provider", format!("{default:?}"), &format!("one of {}", known.join(", "))));
    }
    groups(config)
}

/// One of each kind exists without being named where its key is in the environment.
fn is_provider(config: &Config, name: &str) -> bool {
    config.llm.providers.contains_key(name) || ProviderKind::ALL.into_iter().any(|kind| kind.name() == name)
}

fn groups(config: &Config) -> Result<(), Failure> {
    for (name, group) in &config.llm.groups {
        let key = |field: &str| format!("llm.groups.{name}.{field}");
        if is_provider(config, name) || name.is_empty() || name.contains('/') {
            return Err(wrong(
                &format!("llm.groups.{name}"),
                "a name that means something else",
                "no provider's name, and without a slash",
            ));
        }
        if group.deployments.is_empty() {
            return Err(wrong(&key("deployments"), "empty", "at least one, each with a `provider`"));
        }
        for (at, deployment) in group.deployments.iter().enumerate() {
            if !is_provider(config, &deployment.provider) {
                let providers: Vec<&str> = config.llm.providers.keys().map(String::as_str).collect();
                let accepted = format!("a provider's name: {}", providers.join(", "));
                return Err(wrong(&key(&format!("deployments.{at}.provider")), format!("{:?}", deployment.provider), &accepted));
            }
        }
        for fallback in &group.fallbacks {
            let provider = fallback.split_once('/').map_or(fallback.as_str(), |(provider, _)| provider);
            if fallback == name || !(config.llm.groups.contains_key(fallback) || is_provider(config, provider)) {
                return Err(wrong(&key("fallbacks"), format!("{fallback:?}"), "another group, a provider, or provider/model"));
            }
        }
    }
    Ok(())
}

fn database(url: &str) -> Result<(), Failure> {
    if url.is_empty() || ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(());
    }
    // Only the scheme is repeated: the rest may hold a password.
    let scheme = url.split(':').next().unwrap_or_default();
    Err(Failure::new(Code::InvalidConfig, format!("database.url begins with {scheme:?}"))
        .hint("postgres://user:password@host/database, sqlite:/path, or nothing for a file in the data folder"))
}

/// A word alone is a level: a target of that name would be a level's name mistyped. Everything else is the filter's to read.
fn levels(filter: &str) -> Result<(), Failure> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level =
        |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || word.parse::<u8>().is_ok_and(|n| n <= 5);
    let is_right = |part: &str| match part.rsplit_once('=') {
        Some((_, level)) => is_level(level.trim()),
        None => part.is_empty() || part.contains(['[', ':', '_']) || is_level(part),
    };
    if filter.contains('{') || filter.split(',').all(|part| is_right(part.trim())) {
        return Ok(());
    }
    let accepted = format!("{}, or a list such as info,helix_kernel=debug; HELIX_LOG overrides it", LEVELS.join(", "));
    Err(wrong("logging.level", format!("{filter:?}"), &accepted))
}

fn at_least_one(key: &str, value: u64) -> Result<(), Failure> {
    if value == 0 { Err(wrong(key, value, "at least 1")) } else { Ok(()) }
}

fn amount(key: &str, dollars: f64) -> Result<(), Failure> {
    if dollars.is_finite() && dollars >= 0.0 { Ok(()) } else { Err(wrong(key, dollars, "an amount of US dollars, not negative")) }
}

fn wrong(key: &str, value: impl std::fmt::Display, accepted: &str) -> Failure {
    Failure::new(Code::InvalidConfig, format!("{key} is {value}")).hint(format!("it must be {accepted}"))
}

fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::parse(text, "helix.yaml").expect_err("it cannot work").message
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_those_that_there_are() {
        for right in
            ["", "info", "WARN", "off", "info,helix_kernel=debug", "helix_kernel", "3", "info,[span]=debug", "[a{b=c}]=info"]
        {
            assert_eq!(levels(right), Ok(()), "{right}");
        }
        for wrong in ["verbos", "info,debg", "helix_kernel=dbug"] {
            let failure = levels(wrong).expect_err(wrong);
            assert_eq!(failure.message, format!("logging.level is {wrong:?}"));
            assert!(failure.hint.contains("error, warn, info, debug, trace, off"), "{}", failure.hint);
        }
    }

    #[test]
    fn lease_times_out_of_order_are_refused() {
        assert_eq!(
            refusal("workers:\n  lease: {fence_ms: 20000}\n"),
            "workers.lease.fence_ms (20000) must be less than workers.lease.reassign_ms (10000)"
        );
        assert_eq!(refusal("workers:\n  lease: {heartbeat_ms: 0}\n"), "workers.lease.heartbeat_ms is 0");
    }

    #[test]
    fn values_out_of_range_are_refused_by_their_key() {
        assert_eq!(refusal("budgets: {daily_usd: -1}\n"), "budgets.daily_usd is -1");
        assert_eq!(refusal("budgets: {daily_usd: .nan}\n"), "budgets.daily_usd is NaN");
        assert_eq!(refusal("llm: {providers: {a: {temperature: 3}}}\n"), "llm.providers.a.temperature is 3");
        assert_eq!(refusal("llm: {default_provider: b}\n"), "llm.default_provider is \"b\"");
        assert_eq!(refusal("llm: {providers: {a: {base_url: example.org}}}\n"), "llm.providers.a.base_url is \"example.org\"");
        assert_eq!(refusal("gateway: {listen: localhost}\n"), "gateway.listen is \"localhost\"");
        assert_eq!(refusal("web: {search: searxng}\n"), "web.search_url is \"\"");
        assert_eq!(refusal("web: {search_url: localhost}\n"), "web.search_url is \"localhost\"");
        assert_eq!(refusal("web: {search: brave}\n"), "web.search_key_env is empty");
        assert!(!refusal("web: {search: brave, search_key_env: 'BSA-x1'}\n").contains("x1"));
        assert_eq!(refusal("web: {page_kib: 0}\n"), "web.page_kib is 0");
        assert_eq!(refusal("tasks: {max_concurrent_tasks: 0}\n"), "tasks.max_concurrent_tasks is 0");
    }

    #[test]
    fn a_group_names_what_exists() {
        let group = |text: &str| refusal(&format!("llm: {{providers: {{a: {{}}}}, groups: {{{text}}}}}\n"));
        assert_eq!(group("g: {}"), "llm.groups.g.deployments is empty");
        for name in ["a/b", ""] {
            let text = format!("llm: {{providers: {{{name:?}: {{}}}}}}\n");
            assert_eq!(refusal(&text), format!("llm.providers.{name} is a name that cannot be asked for"));
        }
        assert_eq!(group("a: {deployments: [{provider: a}]}"), "llm.groups.a is a name that means something else");
        assert_eq!(group("g: {deployments: [{provider: b}]}"), "llm.groups.g.deployments.0.provider is \"b\"");
        assert_eq!(group("g: {deployments: [{provider: a}], fallbacks: [g]}"), "llm.groups.g.fallbacks is \"g\"");
        assert_eq!(group("g: {deployments: [{provider: a}], fallbacks: [x/y]}"), "llm.groups.g.fallbacks is \"x/y\"");
        let right =
            "llm: {default_provider: g, providers: {a: {}}, groups: {g: {deployments: [{provider: a}], fallbacks: [a/b]}}}\n";
        Config::parse(right, "helix.yaml").expect("everything is there");
    }

    #[test]
    fn a_key_or_password_in_the_wrong_place_is_not_repeated() {
        let key = refusal("llm: {providers: {a: {key_env: sk-very-secret}}}\n");
        assert_eq!(key, "llm.providers.a.key_env is not the name of an environment variable");
        assert_eq!(refusal("database: {url: \"mysql://me:secret@host/x\"}\n"), "database.url begins with \"mysql\"");
        assert_eq!(refusal("tasks: {secrets: [env:TOKEN, sk-very-secret]}\n"), "tasks.secrets has a source that is none");
    }

    #[test]
    fn a_project_file_may_not_name_paths_outside_or_secrets_themselves() {
        for text in
            ["caches: [../x]", "lockfiles: [/etc/passwd]", "secrets: [{variable: TOKEN, source: abc}]", "environment: {1A: x}"]
        {
            assert_eq!(ProjectFile::parse(text).expect_err(text).code, Code::InvalidConfig, "{text}");
        }
        ProjectFile::parse("secrets: [{variable: TOKEN, source: \"env:MY_TOKEN\"}]\ncaches: [target]\n").expect("both are right");
    }
}
