//! A repository's settings: `.helios/helios.yaml`, which can be edited by hand too.
//!
//! The tables below are all there is.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use helix_objects::{Durability, write_no_follow};
use helix_protocol::{Code, Failure};
use helix_versions::Retention;
use serde_norway::{Mapping, Value};

use super::live::Bounds;
use crate::context;

/// What a setting can be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bytes,
    Number,
    Flag,
    Duration,
    Text,
    OneOf(&'static [&'static str]),
}

/// A setting: its key, what it can be, what it is where nobody sets it, and what it does.
#[derive(Debug)]
pub struct Setting {
    /// As in `config set KEY`.
    pub key: &'static str,
    kind: Kind,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
}

const fn setting(key: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Setting {
    Setting { key, kind, default, about }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("user.name", Kind::Text, "", "the author's name; else git's configuration, else the login"),
    setting("user.email", Kind::Text, "", "the author's address"),
    setting("commit.durability", Kind::OneOf(&["nosync", "group", "sync"]), "nosync", "when a commit counts as made"),
    setting("workspace.file_cap", Kind::Bytes, "64MB", "larger files are told of instead of committed"),
    setting("workspace.events", Kind::Flag, "true", "follow the folder by file events where the system has them"),
    setting(
        "performance.l0_cache_size",
        Kind::Bytes,
        "1GB",
        "memory for the trees of folders and heads, between commands; for all repositories of the engine, the most that one says",
    ),
    setting(
        "performance.l1_cache_size",
        Kind::Bytes,
        "512MB",
        "memory for compressed content; for all repositories of the engine, between commands, the most that one says",
    ),
    setting(
        "performance.compression",
        Kind::OneOf(&["lz4", "zstd"]),
        "lz4",
        "how new content is compressed; packed content is zstd always",
    ),
    setting("storage.rocksdb.max_write_buffer_number", Kind::Number, "2", "so many buffers may wait before writers wait"),
    setting("storage.rocksdb.write_buffer_size", Kind::Bytes, "32MB", "content gathered in memory before it becomes a table"),
    setting("storage.rocksdb.block_cache_size", Kind::Bytes, "64MB", "memory for the tables' blocks"),
    setting("cleanup.auto_gc_enabled", Kind::Flag, "false", "let go of what is older than cleanup.snapshot_ttl, once an hour"),
    setting("cleanup.snapshot_ttl", Kind::Duration, "48h", "how long what no branch reaches is kept"),
    setting(
        "cleanup.max_operations",
        Kind::Number,
        "0",
        "so many operations can be undone at most, the rest is let go; 0: any number",
    ),
];

/// Keys of the seed's examples that have no effect, since this store decides by itself: accepted and kept, with what happens instead.
pub const DECIDED: &[Setting] = &[
    setting("performance.batch_size", Kind::Number, "1000", "every commit is one batch, and commits that wait share one"),
    setting("storage.rocksdb.compaction_style", Kind::OneOf(&["level"]), "level", "levels, always"),
    setting(
        "ai_optimizations.snapshot_retention",
        Kind::Number,
        "1000",
        "what is used stays in memory, and cleanup.* bounds history",
    ),
    setting("ai_optimizations.parallel_hashing", Kind::Flag, "true", "large files are hashed on all cores, always"),
];

/// Other names of settings, the seed's, and those that they stand for. Where a file has both, a setting's own name counts.
const ALIASES: &[(&str, &str)] = &[("storage.rocksdb.compression", "performance.compression")];
/// The seed's word in keys of the database, and ours.
const DATABASE: [&str; 2] = ["storage.pebbledb.", "storage.rocksdb."];

/// The settings of one repository, as they were read.
#[derive(Clone, Debug)]
pub struct Settings {
    path: PathBuf,
    values: Mapping,
    /// The file, as it was read.
    seen: Seen,
}

/// What tells a file from what an editor made of it: its identity, its size, and its time of change in seconds and nanoseconds.
/// `None` where there was none.
type Seen = Option<(u64, u64, i64, i64)>;

fn look(path: &Path) -> Seen {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

impl Settings {
    /// Reads the file; a missing one sets nothing.
    pub fn read(own_folder: &Path) -> Result<Self, Failure> {
        let path = own_folder.join("helios.yaml");
        // Before it is read: what is written meanwhile is then read again.
        let seen = look(&path);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| Failure::io(path.display(), &error))?,
        };
        Self::parse(path, seen, &text)
    }

    fn parse(path: PathBuf, seen: Seen, text: &str) -> Result<Self, Failure> {
        let values = match serde_norway::from_str::<Value>(text) {
            Ok(Value::Null) => Mapping::new(),
            Ok(Value::Mapping(values)) => values,
            Ok(_) => return Err(invalid(format!("{} is not a list of keys", path.display()))),
            Err(error) => return Err(invalid(format!("{}: {error}", path.display()))),
        };
        let settings = Self { path, values, seen };
        for (key, value) in settings.given() {
            find(&key)?.check(&value)?;
        }
        Ok(settings)
    }

    /// Reads the file again where somebody changed it since. True where that was so.
    pub fn refresh(&mut self) -> Result<bool, Failure> {
        if look(&self.path) == self.seen {
            return Ok(false);
        }
        let own_folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        *self = Self::read(&own_folder)?;
        Ok(true)
    }

    /// A setting's value: what is given, else its default.
    pub fn get(&self, key: &str) -> Result<String, Failure> {
        let setting = find(key)?;
        Ok(self.lookup(setting.key).unwrap_or_else(|| setting.default.to_owned()))
    }

    /// What is given, by key.
    pub fn given(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        flatten(&self.values, "", &mut found);
        found
    }

    /// Those of the given that the store decides by itself.
    pub fn given_without_effect(&self) -> Vec<&'static Setting> {
        let given: Vec<String> = self.given().iter().map(|(key, _)| canonical(key)).collect();
        DECIDED.iter().filter(|setting| given.iter().any(|key| key == setting.key)).collect()
    }

    /// Gives a setting a value, or takes it away, in the file too.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> Result<&'static Setting, Failure> {
        let (setting, text) = self.give(key, value)?;
        let draft = self.path.with_extension("yaml.new");
        write_no_follow(&draft, text.as_bytes())
            .and_then(|()| fs::rename(&draft, &self.path))
            .map_err(|error| Failure::io(self.path.display(), &error))?;
        self.seen = look(&self.path);
        Ok(setting)
    }

    /// The same, of what is in memory; the file's text is answered.
    fn give(&mut self, key: &str, value: Option<&str>) -> Result<(&'static Setting, String), Failure> {
        let setting = find(key)?;
        if let Some(value) = value {
            setting.check(value)?;
        }
        // However it is written there: under another name, or with dots.
        names(setting.key).iter().for_each(|name| remove(&mut self.values, name));
        if let Some(value) = value {
            insert(&mut self.values, setting.key, value);
        }
        let text = if self.values.is_empty() { Ok(String::new()) } else { serde_norway::to_string(&self.values) };
        Ok((setting, text.map_err(|error| invalid(error.to_string()))?))
    }

    /// A number of bytes.
    pub fn bytes(&self, key: &str) -> u64 {
        self.known(key).and_then(|value| parse_bytes(&value)).unwrap_or_default()
    }

    /// A number.
    pub fn number(&self, key: &str) -> u64 {
        self.known(key).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// A flag.
    pub fn flag(&self, key: &str) -> bool {
        self.known(key).is_some_and(|value| value == "true")
    }

    /// A text that is not empty.
    pub fn text(&self, key: &str) -> Option<String> {
        self.known(key).filter(|value| !value.is_empty())
    }

    /// What may be held in memory.
    pub fn bounds(&self) -> Bounds {
        let size = |key| usize::try_from(self.bytes(key)).unwrap_or(usize::MAX);
        Bounds { trees: size("performance.l0_cache_size"), content: size("performance.l1_cache_size") }
    }

    /// When a commit counts as made.
    pub fn durability(&self) -> Durability {
        self.known("commit.durability").and_then(|value| durability(&value)).unwrap_or(Durability::NoSync)
    }

    /// Which operations stay, where old ones are let go.
    pub fn retention(&self) -> Retention {
        let ttl = self.known("cleanup.snapshot_ttl").and_then(|value| context::duration(&value)).unwrap_or_default();
        let operations = Some(self.number("cleanup.max_operations")).filter(|most| *most > 0);
        Retention { ttl: Some(ttl), operations }
    }

    fn known(&self, key: &str) -> Option<String> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.key == key));
        self.get(key).ok()
    }

    fn lookup(&self, key: &str) -> Option<String> {
        let given = self.given();
        let own = given.iter().find(|(given, _)| given == key);
        own.or_else(|| given.iter().find(|(given, _)| canonical(given) == key)).map(|(_, value)| value.clone())
    }
}

/// A durability class by its name.
pub fn durability(text: &str) -> Option<Durability> {
    match text {
        "nosync" => Some(Durability::NoSync),
        "group" => Some(Durability::Group),
        "sync" => Some(Durability::Sync),
        _ => None,
    }
}

impl Setting {
    fn check(&self, value: &str) -> Result<(), Failure> {
        let mut wanted = String::new();
        let fits = match self.kind {
            Kind::Text => {
                wanted.push_str("a text of one line");
                !value.contains(['\n', '\0'])
            }
            Kind::Number => {
                wanted.push_str("a number");
                value.parse::<u64>().is_ok()
            }
            Kind::Bytes => {
                wanted.push_str("a size such as 512MB or 2GB");
                parse_bytes(value).is_some_and(|bytes| bytes > 0)
            }
            Kind::Flag => {
                wanted.push_str("true or false");
                matches!(value, "true" | "false")
            }
            Kind::Duration => {
                wanted.push_str("a duration such as 48h or 2d");
                context::duration(value).is_some()
            }
            Kind::OneOf(words) => {
                let _ = write!(wanted, "one of {}", words.join(", "));
                words.contains(&value)
            }
        };
        if fits {
            Ok(())
        } else {
            Err(Failure::new(Code::InvalidConfig, format!("{} cannot be {value:?}", self.key)).hint(format!("it is {wanted}")))
        }
    }
}

fn find(key: &str) -> Result<&'static Setting, Failure> {
    let wanted = canonical(key);
    let all = || SETTINGS.iter().chain(DECIDED);
    all().find(|setting| setting.key == wanted).ok_or_else(|| {
        let nearest = all().max_by(|a, b| strsim::jaro_winkler(a.key, &wanted).total_cmp(&strsim::jaro_winkler(b.key, &wanted)));
        let hint = nearest
            .map_or_else(String::new, |nearest| format!("the most similar one is {}; `helios config list` shows all", nearest.key));
        Failure::new(Code::InvalidConfig, format!("there is no setting {key:?}")).hint(hint)
    })
}

/// The setting's own name.
fn canonical(key: &str) -> String {
    let key = key.replacen(DATABASE[0], DATABASE[1], 1);
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, own)| (*own).to_owned())
}

/// Every name of a setting.
fn names(own: &str) -> Vec<String> {
    let aliases = ALIASES.iter().filter(|(_, of)| *of == own).map(|(alias, _)| *alias);
    aliases.chain([own]).flat_map(|name| [name.to_owned(), name.replacen(DATABASE[1], DATABASE[0], 1)]).collect()
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidConfig, message).hint("correct the file, or take it away")
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

fn flatten(values: &Mapping, prefix: &str, found: &mut Vec<(String, String)>) {
    for (key, value) in values {
        // A key with a tag (`! name`) reads like the plain one, and is another.
        let key = format!("{prefix}{}", if let Value::String(key) = key { key } else { "?" });
        match value {
            Value::Mapping(inner) => flatten(inner, &format!("{key}."), found),
            Value::String(text) => found.push((key, text.clone())),
            Value::Bool(flag) => found.push((key, flag.to_string())),
            Value::Number(number) => found.push((key, number.to_string())),
            Value::Null => found.push((key, String::new())),
            // Of several lines, which no setting is.
            other => found.push((key, serde_norway::to_string(other).unwrap_or_default() + "\n")),
        }
    }
}

fn insert(values: &mut Mapping, key: &str, value: &str) {
    match key.split_once('.') {
        None => drop(values.insert(key.into(), value.into())),
        Some((first, rest)) => {
            let inner = values.entry(first.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
            if !inner.is_mapping() {
                *inner = Value::Mapping(Mapping::new());
            }
            if let Value::Mapping(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Any of the dots may be within a key of the file, as in `user.name: Ada`.
fn remove(values: &mut Mapping, key: &str) {
    values.remove(key);
    for (dot, _) in key.match_indices('.') {
        let (first, rest) = (&key[..dot], &key[dot + 1..]);
        if let Some(Value::Mapping(inner)) = values.get_mut(first) {
            remove(inner, rest);
            if inner.is_empty() {
                values.remove(first);
            }
        }
    }
}

/// What `fuzzing` feeds.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |text: &str| Settings::parse("helios.yaml".into(), None, text);
    let change = |settings: &Settings, key: &str, value: Option<&str>| {
        let mut changed = settings.clone();
        let Ok((setting, text)) = changed.give(key, value) else { return };
        let again = read(&text).expect("what is written can be read");
        for other in SETTINGS.iter().chain(DECIDED) {
            let expected = if other.key == setting.key { value.map(str::to_owned) } else { settings.lookup(other.key) };
            assert_eq!(again.lookup(other.key), expected, "{} after {key} = {value:?}: {text}", other.key);
        }
    };
    if let Ok(settings) = read(text) {
        for (key, value) in settings.given() {
            change(&settings, &key, Some(&value));
            change(&settings, &key, None);
        }
    }
    let nothing = read("").expect("an empty file sets nothing");
    text.lines().filter_map(|line| line.split_once('=')).for_each(|(key, value)| change(&nothing, key, Some(value)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(text: &str) -> (tempfile::TempDir, Result<Settings, Failure>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("helios.yaml"), text).unwrap();
        let read = Settings::read(folder.path());
        (folder, read)
    }

    #[test]
    fn the_three_example_files_are_read() {
        let busy = "performance:\n  l1_cache_size: \"2GB\"\n  batch_size: 1000\n  compression: \"lz4\"\nstorage:\n  pebbledb:\n    write_buffer_size: \"256MB\"\n    max_write_buffer_number: 6\nai_optimizations:\n  snapshot_retention: 1000\n  parallel_hashing: true\n";
        let small = "performance:\n  l1_cache_size: \"256MB\"\n  compression: \"zstd\"\nstorage:\n  pebbledb:\n    compression: \"zstd\"\n    compaction_style: \"level\"\ncleanup:\n  auto_gc_enabled: true\n  snapshot_ttl: \"48h\"\n";
        let plain =
            "performance:\n  l1_cache_size: \"512MB\"\n  compression: \"lz4\"\nai_optimizations:\n  snapshot_retention: 500\n";
        let read = |text| settings(text).1.unwrap();
        assert_eq!(
            (read(busy).bytes("performance.l1_cache_size"), read(busy).bytes("storage.rocksdb.write_buffer_size")),
            (2 << 30, 256 << 20)
        );
        assert!(read(small).flag("cleanup.auto_gc_enabled") && !read(plain).flag("cleanup.auto_gc_enabled"));
        // It speaks of memory: nothing of a history goes because of it.
        assert_eq!([busy, small, plain].map(|text| read(text).retention().operations), [None; 3]);
        let idle = |text| read(text).given_without_effect().iter().map(|setting| setting.key).collect::<Vec<_>>();
        let retention = "ai_optimizations.snapshot_retention";
        assert_eq!(idle(busy), ["performance.batch_size", retention, "ai_optimizations.parallel_hashing"]);
        assert_eq!((idle(small), idle(plain)), (vec!["storage.rocksdb.compaction_style"], vec![retention]));
    }

    #[test]
    fn a_setting_has_one_value_under_all_its_names() {
        let (folder, read) = settings("storage: { pebbledb: { compression: zstd } }\n");
        let mut read = read.unwrap();
        let names = ["performance.compression", "storage.rocksdb.compression", "storage.pebbledb.compression"];
        assert_eq!(names.map(|name| read.get(name).unwrap()), ["zstd"; 3]);
        read.set("storage.rocksdb.compression", Some("lz4")).unwrap();
        let again = Settings::read(folder.path()).unwrap();
        assert_eq!(again.given(), [("performance.compression".to_owned(), "lz4".to_owned())]);
        let both = "storage: { rocksdb: { compression: lz4 } }\nperformance: { compression: zstd }\n";
        assert_eq!(settings(both).1.unwrap().get("storage.pebbledb.compression").unwrap(), "zstd", "its own name counts");
    }

    #[test]
    fn a_value_that_is_set_is_in_the_file_until_it_is_unset() {
        let (folder, read) = settings("storage:\n  pebbledb:\n    write_buffer_size: 1MB\n");
        let mut read = read.unwrap();
        read.set("storage.pebbledb.write_buffer_size", Some("512MB")).unwrap();
        read.set("user.name", Some("A")).unwrap();
        let again = Settings::read(folder.path()).unwrap();
        let expected = [("storage.rocksdb.write_buffer_size", "512MB"), ("user.name", "A")];
        assert_eq!(again.given(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        read.set("user.name", None).unwrap();
        read.set("storage.rocksdb.write_buffer_size", None).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("helios.yaml")).unwrap(), "");
    }

    #[test]
    fn a_key_with_a_tag_is_no_setting() {
        for text in ["storage:\n  rocksdb: { ! block_cache_size: 64MB }\n", "! performance: { l1_cache_size: 1MB }\n"] {
            assert_eq!(settings(text).1.map(|_| ()).unwrap_err().code, Code::InvalidConfig, "{text}");
        }
    }

    #[test]
    fn a_key_with_dots_in_it_is_the_setting_that_is_set() {
        let (folder, read) = settings("user.name: Ada\nstorage.pebbledb: { write_buffer_size: 1MB }\n");
        let mut read = read.unwrap();
        read.set("user.name", Some("Grace")).unwrap();
        read.set("storage.rocksdb.write_buffer_size", None).unwrap();
        let again = Settings::read(folder.path()).unwrap();
        assert_eq!(again.given(), [("user.name".to_owned(), "Grace".to_owned())]);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_with_what_would_do() {
        let refused = settings("performance:\n  l1_cash_size: 1GB\n").1.unwrap_err();
        assert!(refused.hint.contains("performance.l1_cache_size"), "{}", refused.hint);
        let (_folder, read) = settings("");
        let refused = read.unwrap().set("cleanup.snapshot_ttl", Some("soon")).unwrap_err();
        assert_eq!(refused.hint, "it is a duration such as 48h or 2d");
        for text in ["- a\n", "a: [", "performance: 3\n", "cleanup:\n  auto_gc_enabled: maybe\n", "user:\n  name: [A]\n"] {
            assert_eq!(settings(text).1.unwrap_err().code, Code::InvalidConfig, "{text:?}");
        }
    }

    /// Lines as somebody writes them: known keys and unknown ones, at any depth, with values of any kind.
    fn lines() -> impl Strategy<Value = String> {
        let known = SETTINGS.iter().chain(DECIDED).flat_map(|setting| setting.key.split('.')).collect::<Vec<_>>();
        let other = prop::sample::select(vec!["pebbledb", "snapshot_retention", "? ["]);
        let key = prop_oneof![4 => prop::sample::select(known), 2 => other].prop_map(str::to_owned);
        let value = prop_oneof!["[0-9]{0,20}[kKmMgG]?[bB]?", "true|false|lz4|zstd|48h|~|\\*a|&a 1|\\{\\}|\\[1\\]", ".{0,8}"];
        let line = (0..4_usize, key, value).prop_map(|(depth, key, value)| format!("{}{key}: {value}\n", "  ".repeat(depth)));
        prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_file_says_it_is_refused_or_stays_what_it_was_when_another_setting_is_set(text in lines()) {
            let (folder, read) = settings(&text);
            let Ok(mut read) = read else { return Ok(()) };
            let others = |settings: &Settings| {
                let keys = SETTINGS.iter().chain(DECIDED).map(|setting| setting.key).filter(|key| *key != "user.name");
                keys.map(|key| settings.get(key).unwrap()).collect::<Vec<_>>()
            };
            let before = others(&read);
            read.set("user.name", Some("A")).unwrap();
            let again = Settings::read(folder.path()).unwrap();
            prop_assert_eq!(others(&again), before);
            prop_assert_eq!(again.text("user.name").unwrap(), "A");
        }
    }

    #[test]
    fn every_default_fits_its_setting() {
        for setting in SETTINGS.iter().chain(DECIDED) {
            setting.check(setting.default).unwrap();
        }
    }
}
