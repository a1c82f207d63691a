//! The layers of DESIGN and ARCHITECTURE, held against `cargo metadata`.
//!
//! Arrows point down only, every outside library has one owner, and what everybody may use is a
//! named list. Dev-dependencies are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may name among our own. The four programs may name anything; `heliosd` shares its
/// protocol with `helios`.
const LAYERS: &[(&str, &[&str])] = &[
    ("helix-protocol", &[]),
    ("helix-kernel", &["helix-protocol"]),
    ("helix-ports", &["helix-protocol"]),
    ("helix-link", &["helix-protocol"]),
    ("helix-config", &["helix-protocol"]),
    ("helix-objects", &["helix-protocol"]),
    ("helix-rocks", &["helix-protocol", "helix-objects"]),
    ("helix-versions", &["helix-protocol", "helix-objects"]),
    ("helix-database", &["helix-protocol"]),
    ("helix-messages", &["helix-protocol", "helix-kernel", "helix-ports", "helix-objects", "helix-database"]),
    ("helix-actor-*", &ACTOR),
    ("helix-adapter-models", &["helix-protocol", "helix-ports"]),
    ("helix-adapter-pages", &["helix-protocol", "helix-ports"]),
    ("helix-adapter-ssh", &["helix-protocol", "helix-ports"]),
    ("helix-adapter-external", &["helix-protocol"]),
    ("helix-adapter-http", &["helix-protocol", "helix-kernel", "helix-messages", "helix-ports"]),
];

/// A branch of the tree may name messages, ports, configuration and storage traits, never another branch.
const ACTOR: [&str; 9] = [
    "helix-protocol",
    "helix-kernel",
    "helix-messages",
    "helix-ports",
    "helix-link",
    "helix-config",
    "helix-objects",
    "helix-versions",
    "helix-database",
];

const BINARIES: &[&str] = &["helix", "helix-worker", "helios", "heliosd"];

/// Outside libraries that every crate may use.
const FREE: &[&str] = &[
    "arc-swap",
    "async-trait",
    "bytes",
    "futures",
    "libc",
    "parking_lot",
    "rand",
    "reqwest",
    "rustix",
    "serde",
    "serde_bytes",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
    "uuid",
];

/// Every other outside library, and who may use it beside the binaries.
const OWNERS: &[(&str, &[&str])] = &[
    ("actix", &["helix-adapter-http"]),
    ("actix-web", &["helix-adapter-http"]),
    ("agent-client-protocol-schema", &["helix-adapter-external"]),
    // The id of a call is a hash too, so is what an equal request is found by, what is kept of a key, and what a permission or an
    // approval is for; all call the same function of the same library.
    (
        "blake3",
        &[
            "helix-objects",
            "helix-actor-agents",
            "helix-actor-tasks",
            "helix-actor-models",
            "helix-adapter-external",
            "helix-adapter-http",
            "helix-messages",
        ],
    ),
    // Checksums of git's packs, and its object ids: the processor's own instructions for them, which gix does not use.
    ("crc32fast", &["helix-versions"]),
    // Pages that are not UTF-8.
    ("encoding_rs", &["helix-adapter-pages"]),
    ("gix", &["helix-versions"]),
    ("globset", &["helix-versions", "helix-actor-runner"]),
    ("html2text", &["helix-adapter-pages"]),
    ("ignore", &["helix-actor-runner"]),
    // The sandbox of commands, the kernel's own means: see actors/runner, `sandbox`.
    ("landlock", &["helix-actor-runner"]),
    ("lz4_flex", &["helix-objects"]),
    ("ractor", &["helix-kernel"]),
    ("regex", &["helix-kernel", "helix-actor-runner"]),
    // What TLS stands on already: a cipher, a hash and random numbers for tokens at rest and proof keys.
    ("ring", &["helix-adapter-models"]),
    // MessagePack is the form of frames (link) and of trees' metadata (versions).
    ("rmp-serde", &["helix-link", "helix-versions"]),
    ("rocksdb", &["helix-rocks"]),
    ("russh", &["helix-adapter-ssh"]),
    ("rustls", &["helix-adapter-models", "helix-adapter-pages"]),
    ("seccompiler", &["helix-actor-runner"]),
    ("serde_norway", &["helix-config"]),
    ("sha1", &["helix-versions"]),
    ("similar", &["helix-versions", "helix-actor-runner"]),
    ("sqlx", &["helix-database"]),
    ("sse-stream", &["helix-adapter-models"]),
    ("strsim", &["helix-config"]),
    ("sysinfo", &["helix-actor-runner"]),
    ("tracing-subscriber", &["helix-kernel"]),
    ("zstd", &["helix-rocks"]),
];

/// What only tests use. A crate whose feature `testing` gives others a contract suite or a fixture may name them as optional.
const TESTING: &[&str] = &["proptest", "tempfile"];

/// What only one package's tests use, dev-dependencies included.
const TEST_OWNERS: &[(&str, &str)] = &[("turmoil", "helix-actor-tasks")];

struct Package {
    name: String,
    dependencies: BTreeSet<String>,
    /// Those of its tests as well.
    every: BTreeSet<String>,
}

fn workspace() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let name = |value: &Value| value["name"].as_str().expect("packages and dependencies have names").to_owned();
    let all = value["dependencies"].as_array().expect("dependencies is a list");
    let shipped = all.iter().filter(|dependency| dependency["kind"] != "dev" && !is_for_testing(dependency));
    Package { name: name(value), dependencies: shipped.map(name).collect(), every: all.iter().map(name).collect() }
}

fn is_for_testing(dependency: &Value) -> bool {
    dependency["optional"] == true && TESTING.iter().any(|name| dependency["name"] == *name)
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    let fits = |pattern: &str| pattern == name || pattern.strip_suffix('*').is_some_and(|prefix| name.starts_with(prefix));
    LAYERS.iter().find(|(pattern, _)| fits(pattern)).map(|(_, allowed)| *allowed)
}

#[test]
fn arrows_between_our_crates_point_down_only() {
    let packages = workspace();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| !BINARIES.contains(&package.name.as_str())) {
        let Some(allowed) = allowed(&package.name) else {
            wrong.push(format!("{} has no line in LAYERS", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|name| ours.contains(name.as_str())) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{} may not name {dependency}", package.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_outside_library_is_free_or_has_an_owner() {
    let packages = workspace();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let owners: BTreeMap<&str, &[&str]> = OWNERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| !BINARIES.contains(&package.name.as_str())) {
        for dependency in package.dependencies.iter().map(String::as_str) {
            let free = ours.contains(dependency) || FREE.contains(&dependency);
            let owned = owners.get(dependency).is_some_and(|owners| owners.contains(&package.name.as_str()));
            if !free && !owned {
                wrong.push(format!("{} may not use {dependency}", package.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_only_tests_use_has_an_owner() {
    for (library, owner) in TEST_OWNERS {
        let users: Vec<String> =
            workspace().into_iter().filter(|package| package.every.contains(*library)).map(|package| package.name).collect();
        assert_eq!(users, [*owner], "{library}");
    }
}

/// Everything a package of ours names, and what those of ours among it name.
fn reached(start: &str) -> BTreeSet<String> {
    let packages = workspace();
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|package| (package.name.as_str(), package)).collect();
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(name) = open.pop() {
        if seen.insert(name.to_owned())
            && let Some(package) = by_name.get(name)
        {
            open.extend(package.dependencies.iter().map(String::as_str));
        }
    }
    seen
}

#[test]
fn the_client_links_no_database_no_runtime_and_no_argument_parser() {
    let seen = reached("helios");
    for heavy in ["helix-rocks", "helix-versions", "helix-objects", "clap", "tokio", "tracing-subscriber"] {
        assert!(!seen.contains(heavy), "helios reaches {heavy}");
    }
}

#[test]
fn the_worker_links_no_database_no_rocksdb_and_no_git() {
    let seen = reached("helix-worker");
    for heavy in ["helix-database", "helix-rocks", "helix-adapter-http", "helix-adapter-ssh"] {
        assert!(!seen.contains(heavy), "helix-worker reaches {heavy}");
    }
}
