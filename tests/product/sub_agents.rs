//! Sub-agents and trees of thoughts by the real scheduler: tasks of their own, on workers, with their files and their share.

use helix_adapter_http::api::{AnswerRequest, TaskList};
use helix_messages::TaskWhy;
use helix_protocol::{AgentSpec, Code, EventKind, Reasoning, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork};
use serde_json::{Value, json};

use crate::harness::{Product, Setup, Verdict, scenario, transcript};

impl Product {
    async fn children(&self, parent: TaskId) -> Vec<TaskRecord> {
        let all = self.client.get::<TaskList>("/tasks").await.expect("tasks are listed").tasks;
        let mut own: Vec<TaskRecord> = all.into_iter().filter(|task| task.spec.parent == Some(parent)).collect();
        own.sort_by(|a, b| a.spec.title.cmp(&b.spec.title));
        own
    }
}

fn sub_agent(title: &str, prompt: &str, take_files: bool) -> Value {
    json!({"tool": "sub_agent", "arguments": {"title": title, "prompt": prompt, "take_files": take_files}})
}

fn writes(path: &str, content: &str) -> Value {
    json!({"text": format!("I write {path}."), "calls": [{"tool": "write", "arguments": {"path": path, "content": content}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_is_a_task_of_its_own_whose_files_are_taken_and_a_restart_loses_neither() {
    let parent = scenario(
        "the whole",
        [
            writes("first.txt", "mine\n"),
            json!({"text": "One part is for another.", "calls": [sub_agent("the part", "make the part", true)]}),
            json!({"text": "All is there.", "expect": "Its files are yours now"}),
        ],
    );
    let part = scenario(
        "make the part",
        [
            json!({"delay_ms": 1_500, "text": "I write.", "calls": [{"tool": "write", "arguments": {"path": "part.txt", "content": "theirs\n"}}]}),
            json!({"text": "The part is made."}),
        ],
    );
    let mut product = Setup::workers(1).patient_leases().model(transcript([parent, part])).start().await;
    let agent = AgentSpec { sub_agents: 1, ..AgentSpec::new("the whole") };
    let mut trail = product.oracle.trail();
    let task = product.create(TaskSpec::new("whole", TaskWork::Agent(agent))).await;
    trail.until_kind(task, EventKind::TaskAsked).await;
    let waiting = product.record(task).await;
    assert_eq!((waiting.status, waiting.worker), (TaskStatus::WaitingForInput, None), "it holds no worker while it waits");
    product.kill_node();
    product.start_node_again();
    product.completed(task).await;
    let children = product.children(task).await;
    let made: Vec<_> = children.iter().map(|child| (child.spec.title.as_str(), child.status)).collect();
    assert_eq!(made, [("the part", TaskStatus::Completed)], "made once");
    let tree = product.tree(task).await;
    assert_eq!(tree, product.tree(children[0].id).await, "the part's files, which hold those of before, are the whole's");
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_sub_agent_names_the_one_that_asks_and_takes_no_answer_in_its_place() {
    let asks = json!({"text": "I ask.", "calls": [{"tool": "ask", "arguments": {"question": "which?"}}]});
    let parent = scenario(
        "the whole",
        [
            json!({"text": "One part is for another.", "calls": [sub_agent("the part", "ask first", false)]}),
            json!({"text": "All is there."}),
        ],
    );
    let part = scenario("ask first", [asks, json!({"text": "I know now."})]);
    let product = Setup::workers(1).model(transcript([parent, part])).start().await;
    let before = product.command(&["true"]).await;
    product.completed(before).await;
    let behind = |prompt: &str| {
        let agent = AgentSpec { sub_agents: 1, ..AgentSpec::new(prompt) };
        TaskSpec { depends_on: vec![before], ..TaskSpec::new(prompt, TaskWork::Agent(agent)) }
    };
    let (alone, whole) = (product.create(behind("ask first")).await, product.create(behind("the whole")).await);
    let why = async |task: TaskId| product.client.get::<TaskWhy>(&format!("/tasks/{task}/why")).await.expect("it is explained");
    let own_question = product.parked_with(alone).await;
    assert!(why(alone).await.next[0].contains(&format!("helix task answer {}", alone.short())), "what it depended on is over");

    let asking = async || product.children(whole).await.into_iter().find(|own| own.status == TaskStatus::WaitingForInput);
    product.until("its part asks", async || asking().await.is_some()).await;
    let part = asking().await.expect("it asks").id;
    let told = why(whole).await;
    assert!(told.waits_for.contains(&(part, TaskStatus::WaitingForInput)), "{:?}", told.waits_for);
    assert!(told.next[0].contains(&format!("helix task answer {}", part.short())), "{:?}", told.next);
    let waits = product.parked_with(whole).await;
    let answer = AnswerRequest { answer: "this".to_owned() };
    let refused = product.client.post::<TaskRecord>(&format!("/questions/{}/answer", waits.id), &answer).await;
    let refused = refused.expect_err("nobody is asked");
    assert!(refused.code == Code::InvalidState && refused.hint.contains("helix task why"), "{refused:?}");
    for question in [own_question, product.parked_with(part).await] {
        product.answer(&question, "this").await;
    }
    product.completed(alone).await;
    product.completed(whole).await;
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_tree_of_thoughts_the_first_that_passes_the_check_wins_and_the_others_are_given_up() {
    let thinker = scenario(
        "think first",
        [
            json!({"text": "APPROACH 1: a file\nwrite it\nAPPROACH 2: the same, otherwise\nwrite it"}),
            writes("made.txt", "made\n"),
            json!({"text": "It is made."}),
        ],
    );
    let product = Setup::workers(2).model(transcript([thinker])).start().await;
    let agent = AgentSpec {
        reasoning: Reasoning::TreeOfThoughts { branches: 2 },
        verify: Some("test -f made.txt".to_owned()),
        ..AgentSpec::new("think first")
    };
    let task = product.create(TaskSpec::new("thought", TaskWork::Agent(agent))).await;
    let tree = product.completed(task).await;
    let attempts = product.children(task).await;
    assert_eq!(
        attempts.iter().map(|attempt| attempt.spec.title.as_str()).collect::<Vec<_>>(),
        ["thought · approach 1", "thought · approach 2"]
    );
    let from = product.steps(task).await[0].id;
    assert!(attempts.iter().all(|attempt| attempt.spec.fork_of == Some(from)), "forked from the step that wrote them down");
    let won: Vec<_> = attempts.iter().filter(|attempt| attempt.status == TaskStatus::Completed).collect();
    assert!(!won.is_empty() && attempts.iter().all(|attempt| attempt.status.is_final()));
    assert_eq!(tree, product.tree(won[0].id).await, "the winner's files are the task's");
    assert_eq!(product.judge().await, Verdict::default());
}
