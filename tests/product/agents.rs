//! What an agent asks before it acts, and how it comes to its answer, by the real scheduler: parked, restarted, step by step.

use helix_adapter_http::api::{AnswerRequest, QuestionList};
use helix_protocol::{AgentSpec, Approval, EventKind, Question, Reasoning, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork};
use serde_json::{Value, json};

use crate::harness::{Product, Setup, Verdict, scenario, transcript};
use crate::worker_deaths::moment;

impl Product {
    /// The task's questions without an answer.
    async fn open_questions(&self, task: TaskId) -> Vec<Question> {
        let all = self.client.get::<QuestionList>(&format!("/tasks/{task}/questions")).await.expect("they are listed").questions;
        all.into_iter().filter(Question::is_open).collect()
    }

    /// The one question that the task is parked with.
    pub async fn parked_with(&self, task: TaskId) -> Question {
        self.until("it asks", async || !self.open_questions(task).await.is_empty()).await;
        self.until("it is parked", async || self.record(task).await.worker.is_none()).await;
        self.open_questions(task).await.remove(0)
    }

    pub async fn answer(&self, question: &Question, answer: &str) {
        let answer = AnswerRequest { answer: answer.to_owned() };
        let _: TaskRecord = self.client.post(&format!("/questions/{}/answer", question.id), &answer).await.expect("answered");
    }
}

fn calls(tool: &str, arguments: Value) -> Value {
    json!({"text": "I act.", "calls": [{"tool": tool, "arguments": arguments}]})
}

fn says(text: &str) -> Value {
    json!({"text": text})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_shown_whole_outlives_the_node_and_is_done_and_what_is_refused_is_not() {
    let script = scenario(
        "change it",
        [
            calls("write", json!({"path": "a.txt", "content": "one\ntwo\n"})),
            calls("edit", json!({"path": "a.txt", "old": "two", "new": "three"})),
            json!({"text": "It stays as it is.", "expect": "leave it"}),
        ],
    );
    let mut product = Setup::workers(1).patient_leases().model(transcript([script])).start().await;
    let agent = AgentSpec { approval: Approval::Suggest, ..AgentSpec::new("change it") };
    let task = product.create(TaskSpec::new("asks", TaskWork::Agent(agent))).await;
    let first = product.parked_with(task).await;
    assert!(first.text.ends_with("write\n- write a.txt\n    + one\n    + two"), "{}", first.text);
    let before = product.tree(task).await;
    product.kill_node();
    product.start_node_again();
    assert_eq!(product.open_questions(task).await, std::slice::from_ref(&first));
    product.answer(&first, "yes").await;
    let second = product.parked_with(task).await;
    assert!(second.text.ends_with("edit\n- edit a.txt\n    - two\n    + three"), "{}", second.text);
    let written = product.tree(task).await;
    assert_ne!(written, before, "what was allowed was done");
    product.answer(&second, "no, leave it").await;
    assert_eq!(product.completed(task).await, written, "and what was not was not");
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_in_the_background_writes_is_in_the_files_of_a_task_that_only_looks_and_ends() {
    let folder = tempfile::Builder::new().prefix("helix-test").tempdir().expect("a temporary folder");
    let [go, built] = ["go", "built"].map(|name| folder.path().join(name));
    let build = format!("until test -e {}; do sleep 0.02; done; echo built > result.txt; touch {}", go.display(), built.display());
    for (prompt, start) in [
        ("build it in the background", json!({"command": build, "background": true})),
        ("build it behind a command", json!({"command": format!("({build}) > /dev/null 2>&1 &")})),
    ] {
        let script = scenario(
            prompt,
            [calls("shell", start), calls("glob", json!({"pattern": "*"})), json!({"text": "It is built.", "delay_ms": 3_000})],
        );
        let setup = Setup::workers(1).set("tasks.writable", json!([folder.path()]));
        let product = setup.model(transcript([script])).start().await;
        let mut trail = product.oracle.trail();
        let task = product.agent(prompt).await;
        moment(&mut trail, task, 2, EventKind::StepCompleted).await;
        std::fs::write(&go, "").expect("the folder is writable");
        product.until("it is built", async || built.exists()).await;
        assert_eq!(product.steps(task).await.len(), 2, "{prompt}: the model has not answered yet");
        let tree = product.completed(task).await;
        let changed: Vec<u64> = product.steps(task).await.iter().map(|step| step.files_changed).collect();
        assert_eq!(changed, [0, 0, 1], "{prompt}");
        let by_hand = product.command(&["echo built > result.txt"]).await;
        assert_eq!(tree, product.completed(by_hand).await, "{prompt}");
        assert_eq!(product.judge().await, Verdict::default());
        for mark in [&go, &built] {
            std::fs::remove_file(mark).expect("it is there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_reasoning_is_seen_step_by_step_with_what_it_cost() {
    let write = |path: &str| calls("write", json!({"path": path, "content": "x\n"}));
    let ways = [
        (
            Reasoning::ChainOfThought,
            "by a chain",
            vec![says("1. It is empty.\nResult: a file is missing"), write("a"), says("Done.")],
            vec!["reasoned: 1. It is empty.…", "write a", "done: Done."],
        ),
        (
            Reasoning::Reflection { rounds: 2 },
            "by critique",
            vec![write("b"), says("Done."), says("A test is missing."), write("c"), says("Added."), says("NO FAULTS")],
            vec![
                "write b",
                "done, as it says: Done.",
                "critique 1: A test is missing.",
                "write c",
                "done, as it says: Added.",
                "critique 2: no faults",
            ],
        ),
        (
            Reasoning::Progressive { every: 1 },
            "by a plan",
            vec![says("1. Write it."), write("d"), says("Nothing is left."), says("Done.")],
            vec!["planned: 1. Write it.", "write d", "revised its plan: Nothing is left.", "done: Done."],
        ),
    ];
    let scripts = ways.iter().map(|(_, prompt, turns, _)| scenario(prompt, turns.clone()));
    let product = Setup::workers(1).model(transcript(scripts)).start().await;
    for (reasoning, prompt, _, expected) in ways {
        let agent = AgentSpec { reasoning, ..AgentSpec::new(prompt) };
        let task = product.create(TaskSpec::new(prompt, TaskWork::Agent(agent))).await;
        assert_eq!(product.ended(task).await.status, TaskStatus::Completed, "{prompt}");
        let steps = product.steps(task).await;
        assert_eq!(steps.iter().map(|step| step.summary.as_str()).collect::<Vec<_>>(), expected);
        assert!(steps.iter().all(|step| step.spend.model_calls == 1 && step.spend.tokens > 0), "{prompt}: {steps:?}");
    }
    assert_eq!(product.judge().await, Verdict::default());
}
