//! `helix task replay`: a recorded conversation is played again without a model, and says where today's agent would differ.

use std::process::{Command, Output};

use helix::scripted::read_log;
use helix_messages::{Differs, Replayed};
use helix_protocol::TaskId;
use serde_json::json;

use crate::harness::{HELIX, Product, Setup, command_spec, diligent, transcript};

impl Product {
    async fn replay(&self, task: TaskId) -> (Option<i32>, Replayed) {
        let output = self.types(&["--json", "task", "replay", &task.to_string()]).await;
        let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}")))
    }

    async fn types(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(HELIX);
        command.args(arguments).arg("--data").arg(self.node.folder().root());
        tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("no panic")
    }

    fn asked(&self) -> usize {
        read_log(self.model.as_ref().expect("it is scripted").log()).expect("the log can be read").len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_played_again_without_a_model_and_differs_where_the_agent_changed() {
    let mut product = Setup::workers(1).model(transcript([diligent("diligent", 3, 0)])).start().await;
    let task = product.agent("diligent").await;
    product.completed(task).await;
    let (asked, steps) = (product.asked(), product.steps(task).await);

    let (code, replayed) = product.replay(task).await;
    let found: Vec<_> = replayed.steps.iter().map(|step| (step.step, &step.differences, &step.unknown)).collect();
    assert_eq!((code, replayed.differs), (Some(0), false), "{found:?}");
    assert_eq!(
        replayed.steps.iter().map(|step| step.step).collect::<Vec<_>>(),
        steps.iter().map(|step| step.id).collect::<Vec<_>>()
    );
    assert!(replayed.steps.iter().all(|step| step.unknown.is_empty()), "{found:?}");

    // Another family of models: other tools, other guidance, other limits. Nothing of the record changes.
    let path = product.folder().join("helix.yaml");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("JSON");
    config["llm"]["providers"]["scripted"]["model"] = json!("gpt-5.1");
    std::fs::write(&path, config.to_string()).expect("the folder is writable");
    product.kill_node();
    product.start_node_again();
    let (code, replayed) = product.replay(task).await;
    assert_eq!((code, replayed.differs), (Some(1), true));
    let kinds = |at: usize| replayed.steps[at].differences.iter().map(|difference| difference.what).collect::<Vec<_>>();
    assert_eq!(kinds(0), [Differs::Tools, Differs::Settings, Differs::SystemPrompt], "{:?}", replayed.steps[0].differences);
    assert_eq!(
        kinds(1),
        [Differs::Tools, Differs::Settings],
        "what was said before it stands as it was said: {:?}",
        replayed.steps[1].differences
    );
    assert_eq!(product.asked(), asked, "no model was asked");
    assert_eq!(product.steps(task).await, steps, "nothing was written");

    let command = product.create(command_spec(&["true"])).await;
    product.completed(command).await;
    let refused = product.types(&["--json", "task", "replay", &command.to_string()]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}
