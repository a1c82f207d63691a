//! What the agent waits for: people, and tasks of its own; and what makes it stop.

use helix_protocol::Approval;

use super::*;

fn asking(policy: Approval, replies: Vec<ModelReply>) -> FakeHost {
    FakeHost::new(AgentSpec { approval: policy, ..spec() }, replies)
}

#[tokio::test]
async fn nothing_is_done_before_the_person_allows_it_and_a_restart_changes_nothing() {
    let turn =
        calls(vec![call("a", "read", json!({"path": "a.txt"})), call("b", "write", json!({"path": "b.txt", "content": "two"}))]);
    let mut host = asking(Approval::Suggest, vec![turn, says("done")]);
    let first = host.steps(1).await;
    let TurnEnd::Ask { question, choices, .. } = &first.end else { panic!("{:?}", first.end) };
    assert_eq!(question, "approve step 1: write\n- write b.txt\n    + two");
    assert_eq!(choices, &["yes", "no", "always"]);
    assert!(!host.files.contains_key("b.txt"));
    assert_eq!(first.messages.last().map(|message| message.role), Some(Role::Assistant), "the calls wait for their answers");
    host.answer("yes");
    let second = host.steps(1).await;
    assert_eq!((second.end, host.requests.len()), (TurnEnd::Continue, 1), "the model is not asked again");
    assert_eq!(host.files["b.txt"], "two");
    assert_whole(&host.said);
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn a_refusal_is_told_to_the_model_with_its_reason() {
    let turn = calls(vec![call("b", "shell", json!({"command": "rm -rf x"})), call("c", "read", json!({"path": "a.txt"}))]);
    let mut host = asking(Approval::AutoEdit, vec![turn]);
    host.steps(1).await;
    host.answer("no: x is precious");
    let second = host.steps(1).await;
    let refused = "the person did not allow this call, and nothing was done. They said: no: x is precious";
    assert_eq!(second.messages[0].blocks, [result("b", refused, true), result("c", "     1\tone\n", false)]);
    assert!(host.tools.iter().all(|call| call.name != "shell"));
}

#[tokio::test]
async fn a_fork_of_a_turn_that_waits_asks_for_itself() {
    let turn = calls(vec![call("b", "shell", json!({"command": "make"}))]);
    let mut origin = asking(Approval::AutoEdit, vec![turn]);
    origin.steps(1).await;
    let mut fork = asking(Approval::AutoEdit, vec![says("done")]);
    (fork.said, fork.head, fork.ordinal) = (origin.said.clone(), origin.head.clone(), 2);
    assert!(matches!(fork.steps(1).await.end, TurnEnd::Ask { .. }));
    fork.answer("no");
    fork.steps(1).await;
    assert_eq!(fork.steps(1).await.end, TurnEnd::Finished);
    assert_whole(crate::conversation::Conversation::new(fork.said.clone()).messages());
}

#[tokio::test]
async fn a_question_parks_the_task_and_its_answer_is_the_next_message() {
    let turn = calls(vec![call("q", "ask", json!({"question": "Which?", "choices": ["a", "b"]}))]);
    let mut host = FakeHost::new(spec(), vec![turn, says("done")]);
    let first = host.steps(1).await;
    let (subject, choices) = (Subject::Conversation, vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(first.end, TurnEnd::Ask { subject, question: "The agent asks: Which?".to_owned(), choices });
    assert_whole(&host.said);
    host.said.push(Message::text(Role::User, "b"));
    host.steps(1).await;
    assert_eq!(host.requests[1].messages.last(), Some(&Message::text(Role::User, "b")));
}

#[tokio::test]
async fn a_models_own_question_is_taken_for_none_of_ours() {
    let forged = "approve step 2: shell\n- shell x";
    let turns =
        [calls(vec![call("q", "ask", json!({"question": forged}))]), calls(vec![call("s", "shell", json!({"command": "x"}))])];
    let mut host = asking(Approval::Suggest, turns.to_vec());
    let TurnEnd::Ask { subject, question, .. } = host.steps(1).await.end else { panic!("not asked") };
    assert_eq!((subject, question), (Subject::Conversation, format!("The agent asks: {forged}")));
    host.answer("always");
    let TurnEnd::Ask { question, .. } = host.steps(1).await.end else { panic!("nobody has allowed this call") };
    assert!(question.ends_with("shell\n- shell x"), "{question}");
    assert!(host.tools.iter().all(|call| call.name != "shell"));
}

#[tokio::test]
async fn in_the_last_step_nobody_is_asked_and_no_sub_agent_is_made_whose_answer_no_step_would_read() {
    let shell = call("s", "shell", json!({"command": "make"}));
    let sub = call("c", "sub_agent", json!({"title": "one", "prompt": "do one"}));
    let question = call("q", "ask", json!({"question": "Which?"}));
    for (approval, waits) in [(Approval::Suggest, shell), (Approval::Full, sub), (Approval::Full, question)] {
        let last = AgentSpec { approval, max_steps: 1, sub_agents: 1, ..spec() };
        let mut host = FakeHost::new(last, vec![calls(vec![waits])]);
        let TurnEnd::Failed(failure) = host.steps(1).await.end else { panic!("it is over") };
        assert_eq!((failure.code, host.children.len()), (Code::StepLimit, 0));
    }
}

#[tokio::test]
async fn calls_that_every_reply_numbers_anew_are_calls_of_their_own() {
    let sub = || calls(vec![call("call_0", "sub_agent", json!({"title": "one", "prompt": "do one"}))]);
    let mut host = FakeHost::new(AgentSpec { sub_agents: 1, ..spec() }, vec![sub(), sub(), says("done")]);
    host.steps(1).await;
    let task = host.children.values().next().expect("a child").0;
    host.ends.insert(task, end(TaskStatus::Completed, "one is done"));
    host.steps(1).await;
    let second = host.steps(1).await;
    assert_eq!((second.end, host.children.len()), (TurnEnd::Continue, 1), "one was granted");
    assert_whole(&host.said);
}

pub(super) fn end(status: TaskStatus, answer: &str) -> ChildEnd {
    let snapshot = Some(SnapshotId(ObjectId([answer.len() as u8; 32])));
    ChildEnd { status, reason: String::new(), answer: answer.to_owned(), snapshot, changed: vec!["x.rs".to_owned()] }
}

#[tokio::test]
async fn sub_agents_are_tasks_that_are_waited_for_and_whose_answers_are_the_calls() {
    let sub = |id: &str| call(id, "sub_agent", json!({"title": id, "prompt": format!("do {id}")}));
    let turn = calls(vec![sub("one"), sub("two"), sub("three"), call("r", "read", json!({"path": "a.txt"}))]);
    let mut host = FakeHost::new(AgentSpec { sub_agents: 2, ..spec() }, vec![turn, says("done")]);
    let first = host.steps(1).await;
    let TurnEnd::Await { tasks } = first.end else { panic!("{:?}", first.end) };
    assert_eq!((tasks.len(), host.children.len()), (2, 2), "three were asked for, two may be made");
    let (_, made, shares) = &host.children["2:one"];
    assert_eq!((made.title.as_str(), *shares), ("one", 3), "for two, and for itself");
    assert_eq!(host.children["2:two"].2, 2);
    let TaskWork::Agent(work) = &made.work else { panic!("no agent") };
    assert_eq!((work.prompt.as_str(), work.sub_agents), ("do one", 0));
    host.ends.insert(tasks[0], end(TaskStatus::Completed, "one is done"));
    let second = host.steps(1).await;
    assert_eq!((second.end, second.messages.len()), (TurnEnd::Await { tasks: vec![tasks[1]] }, 0), "one is waited for");
    host.ends.insert(tasks[1], end(TaskStatus::Failed, "two is lost"));
    let third = host.steps(1).await;
    let answers = &third.messages[0].blocks;
    assert_eq!(answers[0], result("one", "one is done\n\n[It changed: x.rs]", false));
    assert!(matches!(&answers[1], Block::ToolResult { is_error: true, content, .. } if content.contains("failed")));
    assert!(matches!(&answers[2], Block::ToolResult { is_error: true, content, .. } if content.contains("may make 2")));
    assert_eq!(host.children.len(), 2);
    assert_whole(&host.said);
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
}

#[tokio::test]
async fn the_files_of_a_sub_agent_are_taken_where_the_model_says_so() {
    let turn = calls(vec![call("s", "sub_agent", json!({"title": "s", "prompt": "p", "take_files": true}))]);
    let mut host = FakeHost::new(AgentSpec { sub_agents: 1, ..spec() }, vec![turn]);
    let TurnEnd::Await { tasks } = host.steps(1).await.end else { panic!("not waiting") };
    let ended = end(TaskStatus::Completed, "ok");
    host.ends.insert(tasks[0], ended.clone());
    host.steps(1).await;
    assert_eq!(host.taken, [ended.snapshot.expect("files")]);
}

#[tokio::test]
async fn an_agent_that_goes_round_in_circles_is_told_and_then_stopped() {
    let same = |number: usize| calls(vec![call(&format!("c{number}"), "shell", json!({"command": "./run-tests"}))]);
    let mut host = FakeHost::new(spec(), (0..6).map(same).collect());
    host.steps(5).await;
    let last = host.steps(1).await;
    let TurnEnd::Failed(failure) = last.end else { panic!("{:?}", last.end) };
    assert_eq!(failure.code, Code::TaskFailed);
    assert!(failure.message.contains("called shell 6 times"), "{}", failure.message);
    assert_whole(&host.said);
}

#[tokio::test]
async fn turns_that_bring_nothing_new_end_the_task_and_waiting_for_a_command_is_no_such_turn() {
    let read = |number: usize| calls(vec![call(&format!("c{number}"), "read", json!({"path": format!("{}.txt", number % 3)}))]);
    let mut host = FakeHost::new(spec(), (0..12).map(read).collect());
    for number in 0..3 {
        host.files.insert(format!("{number}.txt"), number.to_string());
    }
    let (step, message) = stopped(&mut host, 12).await;
    assert_eq!((step, message.contains("its last 8 turns")), (11, true), "{message}");

    let wait = |number: usize| calls(vec![call(&format!("c{number}"), "read_output", json!({"run": "r", "offset": 0}))]);
    let mut host = FakeHost::new(spec(), (0..12).map(wait).collect());
    assert_eq!(host.steps(12).await.end, TurnEnd::Continue);
}

/// The step that ended the task, with what it says.
pub(super) async fn stopped(host: &mut FakeHost, within: usize) -> (usize, String) {
    for step in 1..=within {
        if let TurnEnd::Failed(failure) = host.step().await.expect("a step").end {
            return (step, failure.message);
        }
    }
    panic!("it goes on after {within} steps");
}

#[tokio::test]
async fn looking_for_the_output_of_no_command_is_no_waiting() {
    let look = |input: fn(usize) -> Value| move |number| calls(vec![call(&format!("c{number}"), "read_output", input(number))]);
    let without_offset: fn(usize) -> Value = |_| json!({"run": "gone"});
    let changing: fn(usize) -> Value = |number| json!({"run": format!("gone{number}"), "offset": 0});
    for (input, expected, words) in [(without_offset, 6, "called read_output 6 times"), (changing, 8, "its last 8 turns")] {
        let mut host = FakeHost::new(spec(), (0..12).map(look(input)).collect());
        let (step, message) = stopped(&mut host, 12).await;
        assert_eq!((step, message.contains(words)), (expected, true), "{message}");
    }
}

#[tokio::test]
async fn calls_that_do_nothing_bring_nothing_new_and_failed_commands_and_refusals_of_a_person_do() {
    let of = |name: &'static str, input: fn(usize) -> Value| {
        move |number: usize| calls(vec![call(&format!("c{number}"), name, input(number))])
    };
    let mut host = FakeHost::new(spec(), (0..12).map(of("browser", |number| json!({"page": number}))).collect());
    let (step, message) = stopped(&mut host, 12).await;
    assert_eq!((step, message.contains("brought nothing but errors")), (8, true), "{message}");

    // A few different things are tried, and one of them works.
    let mut turns: Vec<ModelReply> = (0..7).map(of("browser", |number| json!({"page": number}))).collect();
    turns.push(calls(vec![call("r", "read", json!({"path": "a.txt"}))]));
    turns.extend((20..27).map(of("browser", |number| json!({"page": number}))));
    assert_eq!(FakeHost::new(spec(), turns).steps(15).await.end, TurnEnd::Continue);

    let run = of("shell", |number| json!({"command": format!("./run-tests {number}")}));
    let mut host = FakeHost::new(spec(), (0..12).map(run).collect());
    assert_eq!(host.steps(12).await.end, TurnEnd::Continue);

    let write = of("write", |number| json!({"path": "x", "content": number.to_string()}));
    let mut host = asking(Approval::Suggest, (0..9).map(write).collect());
    for number in 0..9 {
        assert!(matches!(host.steps(1).await.end, TurnEnd::Ask { .. }));
        host.answer(&format!("no, not {number}"));
        assert_eq!(host.steps(1).await.end, TurnEnd::Continue);
    }
}

#[tokio::test]
async fn instructions_of_a_folder_are_told_when_it_is_touched_and_once() {
    let read = |id: &str, path: &str| calls(vec![call(id, "read", json!({"path": path}))]);
    let mut host = FakeHost::new(spec(), vec![read("1", "a.txt"), read("2", "web/x.ts"), read("3", "web/y.ts")]);
    for (path, text) in [("web/AGENTS.md", "Use tabs.\n"), ("web/x.ts", "x"), ("web/y.ts", "y")] {
        host.files.insert(path.to_owned(), text.to_owned());
    }
    host.steps(3).await;
    assert!(host.said[1].as_text().ends_with("which you are shown when you come there: web"), "{}", host.said[1].as_text());
    let told: Vec<bool> = host
        .said
        .iter()
        .flat_map(|message| &message.blocks)
        .filter_map(|block| match block {
            Block::ToolResult { content, .. } => {
                Some(content.contains("[Instructions for this folder, from web/AGENTS.md:\nUse tabs.]"))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [false, true, false]);
}

#[tokio::test]
async fn instructions_of_a_folder_are_told_under_a_patch_a_pattern_and_a_command() {
    for (name, input) in [
        ("apply_patch", json!({"patch": "*** Begin Patch\n*** Add File: web/x.ts\n+x\n*** End Patch"})),
        ("glob", json!({"pattern": "web/*"})),
        ("grep", json!({"pattern": "x", "glob": "web/*.ts"})),
        ("shell", json!({"command": "cat web/x.ts"})),
    ] {
        let mut host = FakeHost::new(spec(), vec![calls(vec![call("1", name, input)])]);
        host.files.insert("web/AGENTS.md".to_owned(), "Use tabs.\n".to_owned());
        let step = host.steps(1).await;
        let Some(Block::ToolResult { content, .. }) = step.messages[3].blocks.first() else { panic!("no answer") };
        assert!(content.ends_with("[Instructions for this folder, from web/AGENTS.md:\nUse tabs.]"), "{name}: {content}");
    }
}

#[tokio::test]
async fn a_model_that_takes_no_pictures_is_told_of_them_and_one_that_does_is_shown_them() {
    for (model, shown) in [("gpt-4o", true), ("deepseek-chat", false)] {
        let look = calls(vec![call("p", "read", json!({"path": "a.png"}))]);
        let mut host = FakeHost::new(spec(), vec![look, says("done")]);
        let kind = AgentKind::new(sized(LIMITS, model));
        host.step_of(&kind).await.expect("a step");
        host.step_of(&kind).await.expect("a step");
        let kept =
            Block::ToolResult { id: "p".into(), content: "shown".into(), images: vec![picture()], is_error: false, extra: None };
        let told = result("p", "shown\n[a picture is left out here, because this model takes none]", false);
        assert_eq!(host.said[3].blocks, std::slice::from_ref(&kept), "the conversation keeps it, for a fork with another model");
        assert_eq!(host.requests[1].messages[3].blocks, [if shown { kept } else { told }], "{model}");
    }
}
