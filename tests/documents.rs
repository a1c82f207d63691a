//! Documents that are made from the code, held against it. `HELIX_BLESS=1 cargo test -p helix --test documents` rewrites them.

use std::fmt::Write as _;
use std::path::PathBuf;

use helix_protocol::{Code, EventKind};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a document with what it should be, or writes it where the environment asks for that.
fn hold(name: &str, expected: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("HELIX_BLESS").is_some() {
        std::fs::write(&path, expected).expect("docs is writable");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/{name} is behind the code: run HELIX_BLESS=1 cargo test -p helix --test documents");
}

#[test]
fn every_failure_code_has_its_page() {
    let mut text = String::from(
        "# Failure codes\n\nEvery failure says a code, what happened, and the next step. `helix explain CODE` prints the same page.\n\
         The exit code is that of a command that ends with the failure; `helix run` and `helix attach` end with 10 whatever their task failed of,\nand the task's own code stands in brackets behind its reason.\n",
    );
    for code in Code::ALL {
        write!(text, "\n## {code}\n\nExit code {}. {}\n", code.exit_code(), code.page()).expect("writing to a string");
    }
    hold("failures.md", &text);
}

#[test]
fn codes_and_events_have_the_names_that_cross_the_wire() {
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).expect("a code is a string"), code.as_str());
    }
    for kind in EventKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("a kind is a string"), kind.as_str());
    }
}
