//! Agents as they are published, each for two turns in a workspace without a network, their models over the gateway.
//!
//! They are large, so `make campaign` installs them (`scripts/agents.sh`), and where they are missing that is said loudly. The model is
//! the scripted one: what is shown is that each is started, reaches its model, is charged for it, and takes its session up.

use std::path::{Path, PathBuf};
use std::process::Command;

use helix_config::AgentsConfig;
use helix_protocol::{ExternalSpec, StepSummary};
use serde_json::json;

use crate::external::with_gateway_before;
use crate::harness::{Setup, Verdict, scenario};

/// Those of the table that `scripts/agents.sh` installs.
const AGENTS: [&str; 4] = ["opencode-acp", "claude-acp", "claude", "codex"];

/// Where their programs are; `None` where they are not installed.
fn programs() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/agents.sh");
    let output = Command::new(script).arg("--where").output().ok()?;
    let programs = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (output.status.success() && programs.exists()).then_some(programs)
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_from_outside_take_turns_over_the_gateway_and_take_their_sessions_up() {
    let Some(programs) = programs() else {
        eprintln!("*** no agent from outside is installed: scripts/agents.sh installs them ***");
        return;
    };
    let turns = ["I have looked at it.", "I have looked at it again."].map(|text| json!({"text": text}));
    // Codex describes its surroundings in a message of its own before the prompt.
    let answers = ["consider the lilies", "environment_context"].map(|phrase| scenario(phrase, turns.clone()));
    let product = with_gateway_before(Setup::workers(1), answers.into()).await;
    let table = AgentsConfig::default().table();
    for name in AGENTS {
        let mut program = table[name].clone();
        program.environment.insert("PATH".to_owned(), format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path")));
        let spec = ExternalSpec {
            program: Some(program),
            verify: Some("echo x >> tries && test $(wc -l < tries) = 2".to_owned()),
            ..ExternalSpec::new(name, "consider the lilies")
        };
        let task = product.external(spec).await;
        product.completed(task).await;
        let steps: Vec<StepSummary> = product.steps(task).await;
        assert_eq!(steps.len(), 2, "{name}: {steps:?}");
        assert!(steps.iter().all(|step| step.spend.model_calls > 0 && step.spend.tokens > 0), "{name}: {steps:?}");
        let said = product.said(task).await;
        assert!(said[0].contains("looked at it.") && said[1].contains("looked at it again."), "{name} knew its session: {said:?}");
    }
    assert_eq!((product.keys().await, product.judge().await), (0, Verdict::default()));
}
