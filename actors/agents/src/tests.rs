//! The agent over a workspace in memory and a model that says what each test wrote.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use helix_config::{ModelsConfig, ProviderConfig};
use helix_ports::{ChildEnd, SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{
    AgentSpec, AgentTurn, AttemptId, Base, Block, CallKey, Code, Epoch, ExitReport, Failure, ImageSource, Message, ModelReply,
    ModelRequest, ModelTraffic, Money, NewStep, ObjectId, OwnerId, ProjectId, Question, Role, RunId, STILL_RUNS, SnapshotId, Spend,
    StepId, StepOutcome, StepRecord, StopReason, Subject, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork, Timestamp, ToolCall,
    ToolOutcome, TurnReport, Usage,
};
use serde_json::{Value, json};

use crate::{AgentKind, AgentLimits, ModelLimits};

mod external;
mod long;
mod others;
mod thought;

/// A host whose journal outlives a step that failed, as the real one's does.
struct FakeHost {
    task: TaskRecord,
    head: Option<StepRecord>,
    said: Vec<Message>,
    ordinal: u64,
    calls: u64,
    files: BTreeMap<String, String>,
    /// What the model says next.
    replies: VecDeque<Result<ModelReply, Failure>>,
    journal: BTreeMap<String, ModelReply>,
    requests: Vec<ModelRequest>,
    tools: Vec<ToolCall>,
    /// The worker is lost at the tool call with this number, from 1.
    lost_at: Option<usize>,
    checks: VecDeque<i32>,
    note: Option<SnapshotNote>,
    questions: Vec<Question>,
    /// By name, with how many shares the rest of the budget was to have when it was made.
    children: BTreeMap<String, (TaskId, TaskSpec, u32)>,
    ends: BTreeMap<TaskId, ChildEnd>,
    cancelled: Vec<TaskId>,
    taken: Vec<SnapshotId>,
    /// What snapshots change.
    patches: BTreeMap<SnapshotId, String>,
    limits: ModelLimits,
    /// For how long nobody asked a model.
    rest: Duration,
    /// What an agent of somebody else's making was told, and what comes of its next turns.
    turns: Vec<AgentTurn>,
    reports: VecDeque<Result<TurnReport, Failure>>,
}

impl FakeHost {
    fn new(spec: AgentSpec, replies: Vec<ModelReply>) -> Self {
        let spec = TaskSpec { base: Base::Empty, ..TaskSpec::new("t", TaskWork::Agent(spec)) };
        let task = TaskRecord {
            id: TaskId::new(),
            owner: OwnerId::LOCAL,
            project: ProjectId::DEFAULT,
            spec,
            status: TaskStatus::Running,
            reason: String::new(),
            hint: String::new(),
            epoch: Epoch(1),
            attempt: AttemptId::new(),
            head: None,
            steps: 0,
            node: None,
            worker: None,
            retries: 0,
            not_before: None,
            spent: Money::ZERO,
            tokens: 0,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            finished_at: None,
            version: 1,
        };
        Self {
            task,
            head: None,
            said: Vec::new(),
            ordinal: 1,
            calls: 0,
            files: BTreeMap::from([("a.txt".to_owned(), "one\n".to_owned())]),
            replies: replies.into_iter().map(Ok).collect(),
            journal: BTreeMap::new(),
            requests: Vec::new(),
            tools: Vec::new(),
            lost_at: None,
            checks: VecDeque::new(),
            note: None,
            questions: Vec::new(),
            children: BTreeMap::new(),
            ends: BTreeMap::new(),
            cancelled: Vec::new(),
            taken: Vec::new(),
            patches: BTreeMap::new(),
            limits: LIMITS,
            rest: Duration::ZERO,
            turns: Vec::new(),
            reports: VecDeque::new(),
        }
    }

    /// Makes a step and commits it.
    async fn step(&mut self) -> Result<StepResult, Failure> {
        let kind = kind(self.limits);
        self.step_of(&kind).await
    }

    async fn step_of(&mut self, kind: &dyn TaskKind) -> Result<StepResult, Failure> {
        self.calls = 0;
        self.note = None;
        let result = kind.step(self).await?;
        self.said.extend(result.messages.clone());
        self.head = Some(record(self.task.id, self.ordinal, &result));
        self.ordinal += 1;
        if let TurnEnd::Ask { subject, question, choices } = &result.end {
            self.questions.push(Question::new(self.task.id, subject.clone(), question, choices.clone(), Timestamp(0)));
        }
        Ok(result)
    }

    fn answer(&mut self, answer: &str) {
        self.questions.last_mut().expect("a question").answer = Some(answer.to_owned());
    }

    async fn steps(&mut self, count: usize) -> StepResult {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.step().await.expect("a step"));
        }
        last.expect("at least one step")
    }
}

#[async_trait]
impl StepHost for FakeHost {
    fn task(&self) -> &TaskRecord {
        &self.task
    }
    fn head(&self) -> Option<&StepRecord> {
        self.head.as_ref()
    }
    fn ordinal(&self) -> u64 {
        self.ordinal
    }
    async fn conversation(&mut self) -> Result<Vec<Message>, Failure> {
        Ok(self.said.clone())
    }
    async fn model(&mut self, request: ModelRequest) -> Result<ModelReply, Failure> {
        let key = self.next_call().0;
        if let Some(reply) = self.journal.get(&key) {
            return Ok(reply.clone());
        }
        self.requests.push(request);
        let reply = self.replies.pop_front().expect("the test wrote enough replies")?;
        self.journal.insert(key, reply.clone());
        Ok(reply)
    }
    async fn has_rested(&mut self, least: Duration) -> Result<bool, Failure> {
        Ok(self.rest >= least)
    }
    async fn tool(&mut self, call: ToolCall) -> Result<ToolOutcome, Failure> {
        self.tools.push(call.clone());
        if self.lost_at == Some(self.tools.len()) {
            return Err(Failure::new(Code::WorkerLost, "the worker died"));
        }
        let text = |key: &str| call.input[key].as_str().unwrap_or_default().to_owned();
        match call.name.as_str() {
            "glob" => {
                let found: Vec<&str> = self.files.keys().map(String::as_str).filter(|path| path.ends_with("AGENTS.md")).collect();
                Ok(ToolOutcome::ok(if found.is_empty() { "no path fits".to_owned() } else { found.join("\n") }))
            }
            "read" if text("path").ends_with(".png") => Ok(ToolOutcome { images: vec![picture()], ..ToolOutcome::ok("shown") }),
            "read" => match self.files.get(&text("path")) {
                Some(content) => Ok(ToolOutcome::ok(format!("     1\t{content}"))),
                None => Err(Failure::new(Code::FileNotFound, "no such file").hint("look with glob")),
            },
            "write" => {
                self.files.insert(text("path"), text("content"));
                Ok(ToolOutcome::ok("made"))
            }
            "read_output" if text("run") == "r" => Ok(ToolOutcome::ok(format!("\n[nothing more yet at byte 0{STILL_RUNS}"))),
            _ => Ok(ToolOutcome { exit_code: Some(1), is_error: true, ..ToolOutcome::ok("1 failed") }),
        }
    }
    async fn run(&mut self, command: &str, _timeout_ms: Option<u64>) -> Result<ExitReport, Failure> {
        let exit_code = self.checks.pop_front().expect("the test wrote enough checks");
        Ok(exit(command, exit_code))
    }
    fn next_call(&mut self) -> CallKey {
        self.calls += 1;
        CallKey(format!("{}-{}", self.ordinal, self.calls))
    }
    async fn effect(
        &mut self,
        _call: &ToolCall,
        work: BoxFuture<'static, Result<ToolOutcome, Failure>>,
    ) -> Result<ToolOutcome, Failure> {
        work.await
    }
    async fn turn(&mut self, turn: AgentTurn, _traffic: ModelTraffic) -> Result<(TurnReport, ExitReport), Failure> {
        self.turns.push(turn);
        let report = self.reports.pop_front().expect("the test wrote enough reports")?;
        Ok((report, exit("agent", 0)))
    }
    async fn questions(&mut self) -> Result<Vec<Question>, Failure> {
        Ok(self.questions.clone())
    }
    async fn child(&mut self, name: &str, spec: TaskSpec, shares: u32) -> Result<TaskId, Failure> {
        Ok(self.children.entry(name.to_owned()).or_insert((TaskId::new(), spec, shares)).0)
    }
    async fn child_end(&mut self, task: TaskId) -> Result<Option<ChildEnd>, Failure> {
        Ok(self.ends.get(&task).cloned())
    }
    async fn cancel_child(&mut self, task: TaskId) -> Result<(), Failure> {
        self.cancelled.push(task);
        Ok(())
    }
    async fn patches(&mut self, snapshot: SnapshotId) -> Result<String, Failure> {
        Ok(self.patches.get(&snapshot).cloned().unwrap_or_default())
    }
    async fn take_files(&mut self, snapshot: SnapshotId) -> Result<(), Failure> {
        self.taken.push(snapshot);
        Ok(())
    }
    async fn ping(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn note(&mut self, note: SnapshotNote) {
        self.note = Some(note);
    }
}

fn picture() -> ImageSource {
    ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() }
}

fn exit(command: &str, exit_code: i32) -> ExitReport {
    let run = RunId(Default::default());
    ExitReport { run, command: command.to_owned(), exit_code, tail: "2 failed\n".to_owned(), output: None, output_bytes: 9 }
}

fn record(task: TaskId, ordinal: u64, result: &StepResult) -> StepRecord {
    let step = NewStep {
        id: StepId::new(),
        task,
        epoch: Epoch(1),
        attempt: AttemptId::new(),
        parent: None,
        ordinal,
        outcome: StepOutcome::Continue,
        summary: result.summary.clone(),
        tree: ObjectId([0; 32]),
        snapshot: SnapshotId(ObjectId([0; 32])),
        store_sequence: 0,
        changes: Vec::new(),
        skipped: Vec::new(),
        torn: Vec::new(),
        messages: result.messages.clone(),
        long_messages: None,
        exits: result.exits.clone(),
        artifacts: Vec::new(),
        heard: Vec::new(),
        asked: Vec::new(),
        spend: Spend::default(),
        worker: None,
        confinement: None,
        started_at: Timestamp(0),
    };
    StepRecord { step, committed_at: Timestamp(0) }
}

const LIMITS: ModelLimits = ModelLimits { max_tokens: 1_000, context_tokens: 10_000 };

fn kind(limits: ModelLimits) -> AgentKind {
    AgentKind::new(sized(limits, ""))
}

/// The limits of a node with one provider, whose models all have this size.
fn sized(limits: ModelLimits, model: &str) -> AgentLimits {
    let ModelLimits { max_tokens, context_tokens } = limits;
    let provider = ProviderConfig { max_tokens, context_tokens, model: model.to_owned(), ..ProviderConfig::default() };
    let mut config = ModelsConfig::default();
    config.providers.insert("test".to_owned(), provider);
    AgentLimits::new(&config, &|_| None)
}

fn spec() -> AgentSpec {
    AgentSpec { max_steps: 20, ..AgentSpec::new("mend it") }
}

fn reply(blocks: Vec<Block>, stop: StopReason) -> ModelReply {
    ModelReply { model: "m".to_owned(), blocks, stop, usage: Usage::default() }
}

fn says(text: &str) -> ModelReply {
    reply(vec![Block::Text { text: text.to_owned(), extra: None }], StopReason::EndTurn)
}

fn call(id: &str, name: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: name.to_owned(), input, extra: None }
}

fn calls(blocks: Vec<Block>) -> ModelReply {
    reply(blocks, StopReason::ToolUse)
}

fn result(id: &str, content: &str, is_error: bool) -> Block {
    Block::ToolResult { id: id.to_owned(), content: content.to_owned(), images: Vec::new(), is_error, extra: None }
}

/// Every call has its answer in the next message, in order, and no assistant message is empty.
fn assert_whole(messages: &[Message]) {
    for (at, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
        assert!(!message.blocks.is_empty(), "message {at} is empty");
        let asked: Vec<&str> = message
            .blocks
            .iter()
            .filter_map(|block| if let Block::ToolUse { id, .. } = block { Some(id.as_str()) } else { None })
            .collect();
        let next = messages.get(at + 1).map_or(&[][..], |next| &next.blocks);
        let answered: Vec<&str> = next
            .iter()
            .filter_map(|block| if let Block::ToolResult { id, .. } = block { Some(id.as_str()) } else { None })
            .collect();
        assert_eq!(asked, answered, "message {at}");
    }
}

#[tokio::test]
async fn a_turn_with_its_calls_is_a_step_and_a_turn_without_any_is_the_end() {
    let turn = calls(vec![
        Block::Text { text: "I look.".to_owned(), extra: None },
        call("a", "read", json!({"path": "a.txt"})),
        call("b", "write", json!({"path": "b.txt", "content": "two"})),
        call("c", "shell", json!({"command": "./run-tests"})),
    ]);
    let mut host = FakeHost::new(spec(), vec![turn.clone(), says("All is well.\nReally.")]);
    let first = host.step().await.expect("a step");
    assert_eq!(first.summary, "read a.txt · write b.txt · shell ./run-tests → exit 1");
    assert_eq!(first.end, TurnEnd::Continue);
    assert_eq!(first.messages[0].role, Role::System);
    assert!(first.messages[0].as_text().contains("no `.git`"), "so that it does not look for a history");
    assert_eq!(first.messages[1], Message::text(Role::User, "mend it"));
    assert_eq!(first.messages[2], Message { role: Role::Assistant, blocks: turn.blocks });
    let answers = vec![result("a", "     1\tone\n", false), result("b", "made", false), result("c", "1 failed", true)];
    assert_eq!(first.messages[3], Message { role: Role::User, blocks: answers });
    assert_eq!(host.files["b.txt"], "two");
    assert_eq!(host.note, None, "files were changed");

    let second = host.step().await.expect("a step");
    assert_eq!((second.summary.as_str(), second.end), ("done: All is well.…", TurnEnd::Finished));
    assert_eq!(host.note, Some(SnapshotNote::NoFiles));
    assert_eq!(host.requests[1].messages, host.said[..4], "the second request has the first conversation unchanged as its head");
    assert_eq!(host.requests[0].tools, host.requests[1].tools);
}

#[tokio::test]
async fn instructions_of_the_repository_are_read_into_the_first_message() {
    let mut host = FakeHost::new(spec(), vec![says("ok")]);
    host.files.insert("AGENTS.md".to_owned(), "Run ./run-tests.\n".to_owned());
    let step = host.steps(1).await;
    assert_eq!(
        step.messages[1].as_text(),
        "mend it\n\nThis repository's AGENTS.md, which its owners wrote for you:\n\nRun ./run-tests."
    );
}

#[tokio::test]
async fn a_worker_that_is_lost_between_two_tools_costs_no_second_reply() {
    let turn = calls(vec![call("a", "write", json!({"path": "x", "content": "1"})), call("b", "read", json!({"path": "x"}))]);
    let mut host = FakeHost::new(spec(), vec![turn]);
    // The first tool call reads AGENTS.md, the second writes, the third is the one that is lost.
    host.lost_at = Some(3);
    assert_eq!(host.step().await.expect_err("lost").code, Code::WorkerLost);
    assert_eq!((host.said.len(), host.requests.len()), (0, 1), "nothing is committed");
    let lost = std::mem::take(&mut host.tools);
    host.lost_at = None;
    host.files.remove("x");
    let step = host.step().await.expect("the same step again");
    assert_eq!(host.requests.len(), 1, "the reply came from the journal");
    assert_eq!(host.tools, lost, "the same calls under the same keys");
    assert_eq!(step.messages[3].blocks[1], result("b", "     1\t1", false));
}

#[tokio::test]
async fn a_failing_model_commits_nothing() {
    let mut host = FakeHost::new(spec(), Vec::new());
    host.replies.push_back(Err(Failure::new(Code::ModelFailed, "500")));
    assert_eq!(host.step().await.expect_err("failed").code, Code::ModelFailed);
    assert!(host.said.is_empty());
}

#[tokio::test]
async fn a_call_that_was_cut_malformed_or_unknown_is_answered_without_the_worker() {
    let cut = reply(
        vec![call("a", "read", json!({"path": "a.txt"})), call("b", "write", json!("{\"path\": \"big"))],
        StopReason::MaxTokens,
    );
    let wrong = calls(vec![
        call("c", "rm", json!({})),
        call("d", "read", json!({"file": "x"})),
        call("e", "shell", json!("ls")),
        call("f", "", json!({})),
    ]);
    let mut host = FakeHost::new(spec(), vec![cut, wrong]);
    let first = host.step().await.expect("a step");
    let Block::ToolResult { content, is_error: true, .. } = &first.messages[3].blocks[1] else { panic!("{:?}", first.messages[3]) };
    assert!(content.contains("reached its limit of tokens"), "{content}");
    let second = host.step().await.expect("a step");
    assert!(second.messages[1].blocks.iter().all(|block| matches!(block, Block::ToolResult { is_error: true, .. })));
    let asked: Vec<&str> = host.tools.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(asked, ["glob", "read"], "AGENTS.md and a.txt only");
    assert!(
        host.said
            .iter()
            .flat_map(|message| &message.blocks)
            .all(|block| !matches!(block, Block::ToolUse { name, .. } if name.is_empty()))
    );
    assert_whole(&host.said);
}

#[tokio::test]
async fn arguments_that_are_null_or_have_an_empty_fraction_cost_no_turn() {
    let turn = calls(vec![
        call("a", "read", json!({"path": "a.txt", "offset": 1.0, "limit": null})),
        call("b", "shell", json!({"command": "make", "timeout_s": 60.0, "background": null})),
    ]);
    let mut host = FakeHost::new(spec(), vec![turn]);
    let step = host.steps(1).await;
    let asked: Vec<&Value> = host.tools.iter().skip(1).map(|call| &call.input).collect();
    assert_eq!(asked, [&json!({"path": "a.txt", "offset": 1}), &json!({"command": "make", "timeout_s": 60})]);
    let said = |block: &Block| if let Block::ToolUse { input, .. } = block { Some(input.clone()) } else { None };
    let said: Vec<Value> = step.messages[2].blocks.iter().filter_map(said).collect();
    assert_eq!(said.iter().collect::<Vec<_>>(), asked, "the record has what was done, and a replay finds it");
}

#[tokio::test]
async fn done_is_believed_only_when_the_check_passes() {
    let verified = AgentSpec { verify: Some("./run-tests".to_owned()), ..spec() };
    let mut host = FakeHost::new(verified, vec![says("done"), says("done now")]);
    host.checks = [1, 0].into();
    let first = host.step().await.expect("a step");
    assert_eq!((first.summary.as_str(), &first.end), ("done · check ./run-tests → exit 1", &TurnEnd::Continue));
    let told = first.messages.last().expect("a message").as_text();
    assert_eq!(
        told,
        "You said that the task is done, and its check fails. Time 1: `./run-tests` ended with exit code 1.\n\n2 failed"
    );
    let second = host.step().await.expect("a step");
    assert_eq!((second.end, second.exits), (TurnEnd::Finished, vec![exit("./run-tests", 0)]));
}

#[tokio::test]
async fn a_check_that_fails_again_and_again_ends_the_task() {
    let verified = AgentSpec { verify: Some("false".to_owned()), ..spec() };
    let mut host = FakeHost::new(verified, vec![says("done"); 8]);
    host.checks = [1; 8].into();
    let last = host.steps(8).await;
    assert!(matches!(last.end, TurnEnd::Failed(Failure { code: Code::TaskFailed, .. })), "{:?}", last.end);
}

#[tokio::test]
async fn empty_answers_are_nudged_twice_and_then_end_the_task() {
    let mut host = FakeHost::new(spec(), vec![reply(Vec::new(), StopReason::EndTurn); 3]);
    assert_eq!(host.steps(2).await.end, TurnEnd::Continue);
    let last = host.steps(1).await;
    assert!(matches!(last.end, TurnEnd::Failed(Failure { code: Code::ModelFailed, .. })), "{:?}", last.end);
    assert_whole(&host.said);
}

#[tokio::test]
async fn an_answer_cut_at_its_limit_is_asked_to_go_on() {
    let cut = reply(vec![Block::Text { text: "I will".to_owned(), extra: None }], StopReason::MaxTokens);
    let mut host = FakeHost::new(spec(), vec![cut, says("done")]);
    assert_eq!(host.steps(1).await.end, TurnEnd::Continue);
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn a_refusal_ends_the_task_with_what_was_said() {
    let mut host =
        FakeHost::new(spec(), vec![reply(vec![Block::Text { text: "I cannot.".to_owned(), extra: None }], StopReason::Refusal)]);
    let TurnEnd::Failed(failure) = host.steps(1).await.end else { panic!("not failed") };
    assert_eq!((failure.code, failure.message.as_str()), (Code::ModelRefused, "the model refused: I cannot."));
}

#[tokio::test]
async fn the_same_call_with_the_same_answer_is_pointed_out_at_the_third_time_and_an_edit_starts_anew() {
    let same = |id: &str| calls(vec![call(id, "shell", json!({"command": "./run-tests"}))]);
    let edit = calls(vec![call("w", "write", json!({"path": "x", "content": "1"}))]);
    let mut host = FakeHost::new(spec(), vec![same("1"), same("2"), same("3"), same("4"), edit, same("5")]);
    let mut answers = Vec::new();
    for _ in 0..6 {
        let step = host.step().await.expect("a step");
        if let Some(Block::ToolResult { content, .. }) = step.messages.last().and_then(|message| message.blocks.first()) {
            answers.push(content.contains("third time"));
        }
    }
    assert_eq!(answers, [false, false, true, true, false, false]);
}

#[tokio::test]
async fn the_step_limit_ends_the_task_and_more_steps_go_on() {
    let turn = calls(vec![call("a", "read", json!({"path": "a.txt"}))]);
    let mut host = FakeHost::new(AgentSpec { max_steps: 2, ..spec() }, vec![turn.clone(), turn, says("done")]);
    let last = host.steps(2).await;
    assert!(matches!(last.end, TurnEnd::Failed(Failure { code: Code::StepLimit, .. })), "{:?}", last.end);
    assert_eq!(host.step().await.expect_err("no further step").code, Code::StepLimit);
    host.task.spec.work = TaskWork::Agent(AgentSpec { max_steps: 5, ..spec() });
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn a_fork_says_its_prompt_after_the_conversation_of_its_ancestors() {
    let turn = calls(vec![call("a", "read", json!({"path": "a.txt"}))]);
    let mut origin = FakeHost::new(spec(), vec![turn]);
    origin.steps(1).await;
    for (prompt, expected) in [("the other way", vec!["the other way"]), ("mend it", vec![])] {
        let mut fork = FakeHost::new(AgentSpec { prompt: prompt.to_owned(), ..spec() }, vec![says("done")]);
        (fork.said, fork.head, fork.ordinal) = (origin.said.clone(), origin.head.clone(), 2);
        let step = fork.steps(1).await;
        let said: Vec<String> = step.messages.iter().filter(|message| message.role == Role::User).map(Message::as_text).collect();
        assert_eq!(said, expected, "a fork without a prompt of its own repeats nothing");
        assert_eq!(fork.requests[0].messages[..4], origin.said[..]);
    }
}

#[tokio::test]
async fn a_conversation_that_no_model_takes_is_refused_before_it_is_sent() {
    let mut host = FakeHost::new(AgentSpec { prompt: "long ".repeat(20_000), ..spec() }, Vec::new());
    assert_eq!(host.step().await.expect_err("too long").code, Code::ContextOverflow);
    assert!(host.requests.is_empty());
}

#[tokio::test]
async fn a_first_request_that_the_model_refuses_as_too_long_is_sent_once_and_says_what_to_do() {
    let mut host = FakeHost::new(spec(), Vec::new());
    host.replies.push_back(Err(Failure::new(Code::ContextOverflow, "it takes 10 tokens").hint("fork an earlier step")));
    let failure = host.step().await.expect_err("too long");
    assert_eq!((failure.code, host.requests.len()), (Code::ContextOverflow, 1));
    assert_eq!(failure.message, "it takes 10 tokens; nothing of a first request can be made shorter");
    assert!(failure.hint.starts_with("give a shorter prompt, or name a model with a larger context"), "{}", failure.hint);
}
