//! Every parser of the version store, of models' formats, of what clients and models send, of what passes between them, of logins,
//! of pages and searches of the web and of what other people's agents print, fed with what nobody would write.
//!
//! Inputs come from `corpus/TARGET`, which has real encodings and what once was a problem, and are what is encoded today besides
//! (`HELIX_WRITE_CORPUS` writes that into the corpus). They are mutated by a seeded generator for a short time
//! (`HELIX_FUZZ_SECONDS` for each target; `HELIX_CAMPAIGN` means a minute). An input that makes a parser panic is written into the
//! target folder's `fuzz`, and from there it belongs into the corpus.

mod corpus;
mod mutation;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutation::Mutator;

/// What panics at an input that breaks a promise.
type Target = fn(&[u8]);

/// What is fed, by the name of its corpus.
const TARGETS: [(&str, Target); 30] = [
    ("tree", helix_versions::fuzzing::tree),
    ("snapshot", helix_versions::fuzzing::snapshot),
    ("records", helix_versions::fuzzing::records),
    ("ignore-rules", helix_versions::fuzzing::ignore_rules),
    ("stat-cache", helix_versions::fuzzing::stat_cache),
    ("git", helix_versions::fuzzing::git),
    ("pack", helix_rocks::fuzzing::pack),
    ("mark", helix_rocks::fuzzing::mark),
    ("protocol", protocol),
    ("configuration", configuration),
    ("settings", helios_engine::fuzzing::settings),
    ("chat", helix_adapter_models::fuzzing::chat),
    ("responses", helix_adapter_models::fuzzing::responses),
    ("anthropic", helix_adapter_models::fuzzing::anthropic),
    ("gemini", helix_adapter_models::fuzzing::gemini),
    ("ollama", helix_adapter_models::fuzzing::ollama),
    ("ollama-prompt", helix_adapter_models::fuzzing::prompt),
    ("sse", helix_adapter_models::fuzzing::sse),
    ("ndjson", helix_adapter_models::fuzzing::ndjson),
    ("refusal", helix_adapter_models::fuzzing::refusal),
    ("passing", helix_adapter_models::fuzzing::passing),
    ("login", helix_adapter_models::fuzzing::login),
    ("model-list", helix_adapter_models::fuzzing::model_list),
    ("acp", helix_adapter_external::fuzzing::acp),
    ("agent-output", helix_adapter_external::fuzzing::program),
    ("patch", helix_actor_runner::fuzzing::patch),
    ("page", helix_adapter_pages::fuzzing::page),
    ("search", helix_adapter_pages::fuzzing::hits),
    ("body", helix_adapter_http::fuzzing::body),
    ("event-array", helix_adapter_http::fuzzing::array),
];

/// A line of the engine's socket, as either side reads it.
fn protocol(bytes: &[u8]) {
    let (mut stream, mut line) = (bytes, Vec::new());
    while let Ok(Some(line)) = helios_client::read_line(&mut stream, &mut line) {
        assert!(!line.contains(&b'\n'), "a line has no end in it");
        if let Ok(request) = serde_json::from_slice::<helios_client::Request>(line) {
            let written = serde_json::to_value(&request).expect("what was read can be written");
            let again: helios_client::Request = serde_json::from_value(written.clone()).expect("and read again");
            assert_eq!(again, request, "{written}");
            let _ = serde_json::from_value::<helios_client::Run>(request.fields.into());
        }
        let _ = serde_json::from_slice::<helios_client::Hello>(line);
        let _ = serde_json::from_slice::<helios_client::Welcome>(line);
    }
}

/// helix.yaml and helix.project.yaml.
fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = helix_config::Config::parse(text, "helix.yaml");
    let _ = helix_config::ProjectFile::parse(text);
}

fn seconds() -> Duration {
    match (std::env::var("HELIX_FUZZ_SECONDS"), std::env::var("HELIX_CAMPAIGN")) {
        (Ok(text), _) => Duration::from_secs(text.parse().expect("HELIX_FUZZ_SECONDS is a number")),
        (_, Ok(_)) => Duration::from_secs(60),
        _ => Duration::from_secs(2),
    }
}

#[test]
fn no_parser_panics_or_reads_what_it_would_not_write() {
    let seed = std::env::var("HELIX_SEED").map_or_else(|_| rand::random(), |text| text.parse().expect("HELIX_SEED is a number"));
    println!("seed {seed}");
    let examples = corpus::Examples::of_today();
    if std::env::var_os("HELIX_WRITE_CORPUS").is_some() {
        examples.keep();
    }
    // What a panic says is told once, with the input.
    std::panic::set_hook(Box::new(|_| {}));
    let found = feed_all(&examples, seed);
    drop(std::panic::take_hook());
    assert_eq!(found, Vec::<String>::new());
}

/// Feeds every target its time, as many at once as there are processors; answers with what they could not stand.
fn feed_all(examples: &corpus::Examples, seed: u64) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let take = || TARGETS.get(next.fetch_add(1, Ordering::Relaxed));
    let feed_on = || std::iter::from_fn(take).filter_map(|(name, target)| feed(name, *target, examples, seed)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let feeding: Vec<_> = (0..processors).map(|_| scope.spawn(feed_on)).collect();
        feeding.into_iter().flat_map(|one| one.join().expect("a target's panic is caught")).collect()
    })
}

/// Feeds one target; answers with what it could not stand.
fn feed(name: &str, target: Target, examples: &corpus::Examples, seed: u64) -> Option<String> {
    let mut corpus = corpus::read(name);
    assert!(!corpus.is_empty(), "corpus/{name} has inputs");
    corpus.extend(examples.of(name));
    let (mut mutator, begin, mut count) = (Mutator::new(seed), Instant::now(), 0_u64);
    let time = seconds();
    let stands = |input: &[u8]| catch_unwind(|| target(input)).is_ok();
    let mut wrong = corpus.iter().find(|input| !stands(input)).cloned();
    while wrong.is_none() && begin.elapsed() < time {
        for _ in 0..64 {
            let input = mutator.mutate(&corpus);
            count += 1;
            if !stands(&input) {
                wrong = Some(input);
                break;
            }
        }
    }
    println!("{name}: {count} inputs from {} of the corpus and of today", corpus.len());
    wrong.map(|input| {
        let path = keep(name, &input);
        format!("{name}: seed {seed}, {} bytes in {}: {:?}", input.len(), path.display(), String::from_utf8_lossy(&input))
    })
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", helix_objects::hash(input)));
    std::fs::write(&path, input).expect("the target folder is writable");
    path
}
