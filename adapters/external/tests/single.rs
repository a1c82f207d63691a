//! Agents that are run once for each turn: when a session that cannot be taken up is begun anew, and when it is not.
//!
//! The agent is a script that counts its runs in `runs`; the gateway is a number of connections.

use std::path::Path;
use std::time::Duration;

use helix_adapter_external::{Life, Way, take_turn};
use helix_protocol::{AgentProgram, AgentTurn, Approval, Began, Block, Code, Failure, Speaks, TurnLimits, TurnReport};

/// An agent that begins sessions, and takes them up by `resume`.
fn turn(resume: &str, answer: &str, lost: &[&str]) -> AgentTurn {
    let counted = |script: &str| format!("echo run >> runs; {script}");
    let program = AgentProgram {
        speaks: Speaks::Command,
        command: counted("echo anew: $(cat \"$HELIX_PROMPT_FILE\")"),
        resume: counted(resume),
        answer: answer.to_owned(),
        environment: [("OPENAI_BASE_URL".to_owned(), "{gateway}".to_owned())].into(),
        ..AgentProgram::default()
    };
    AgentTurn {
        agent: "fake".to_owned(),
        program,
        prompt: "go on".to_owned(),
        before: "said before".to_owned(),
        model: None,
        sandboxed: false,
        lost: lost.iter().map(|words| (*words).to_owned()).collect(),
        approval: Approval::Full,
        allowed: Vec::new(),
        refused: Vec::new(),
        gateway: None,
        limits: TurnLimits { start_ms: 10_000, silent_ms: 10_000 },
    }
}

/// What comes of the second turn of a session, where so many connections were made in it, and how often the agent ran in it.
async fn second(turn: &AgentTurn, connections: Option<usize>) -> (Result<TurnReport, Failure>, usize) {
    let workspace = tempfile::tempdir().expect("a folder");
    let first = take_turn(turn, workspace.path(), None).await.expect("a first turn");
    assert_eq!(first.began, Began::Told);
    std::fs::remove_file(workspace.path().join("runs")).expect("it ran");
    let seen = connections.map(|made| {
        let life = Life::default();
        (0..made).for_each(|_| life.connect());
        life
    });
    let way = Way { address: "http://127.0.0.1:1".to_owned(), seen };
    let report = take_turn(turn, workspace.path(), Some(&way)).await;
    (report, runs(workspace.path()))
}

fn runs(workspace: &Path) -> usize {
    std::fs::read_to_string(workspace.join("runs")).expect("it ran").lines().count()
}

fn said(report: &TurnReport) -> String {
    let blocks = report.messages.iter().flat_map(|message| &message.blocks);
    blocks.filter_map(|block| if let Block::Text { text, .. } = block { Some(text.as_str()) } else { None }).collect()
}

#[tokio::test]
async fn an_agent_that_is_not_told_of_the_gateway_may_have_asked_its_model_unseen() {
    let mut alone = turn("exit 1", "/result", &[]);
    alone.program.environment.clear();
    let (report, runs) = second(&alone, Some(0)).await;
    assert_eq!((report.expect_err("its own failure").code, runs), (Code::AgentFailed, 1));
}

#[tokio::test]
async fn an_agent_that_fails_after_it_asked_its_model_is_not_run_again() {
    for answer in ["", "/result"] {
        let turn = turn("echo half > half.txt; echo 'a budget was refused' >&2; exit 1", answer, &["no session $HELIX_SESSION"]);
        // Where nobody counts it may have asked.
        for connections in [Some(1), None] {
            let (report, runs) = second(&turn, connections).await;
            let failure = report.expect_err("the turn failed");
            assert_eq!((failure.code, runs), (Code::AgentFailed, 1), "{answer:?} {connections:?}");
            assert_eq!(failure.message, "the agent fake ended with exit code 1");
        }
    }
}

#[tokio::test]
async fn an_agent_that_ended_before_it_asked_anything_begins_anew_and_is_told_what_was_said() {
    let (report, runs) = second(&turn("exit 1", "", &[]), Some(0)).await;
    let report = report.expect("a new session");
    assert_eq!((report.began, runs), (Began::Told, 2));
    assert!(said(&report).contains("said before") && said(&report).ends_with("go on"), "{}", said(&report));
}

#[tokio::test]
async fn an_agent_that_says_that_its_session_is_not_there_begins_anew() {
    let lost = ["no session $HELIX_SESSION", "nothing to resume"];
    for resume in [
        "echo \"error: no session $HELIX_SESSION\" >&2; exit 1",
        "echo \"{\\\"errors\\\": [\\\"no session $HELIX_SESSION\\\"]}\"; exit 1",
        "echo 'nothing to resume' >&2; exit 42",
    ] {
        for connections in [Some(3), None] {
            let (report, runs) = second(&turn(resume, "/result", &lost), connections).await;
            assert_eq!((report.expect("a new session").began, runs), (Began::Told, 2), "{resume} {connections:?}");
        }
    }
    // Words of another session are what it works on.
    let (report, runs) = second(&turn("echo 'no session 7' >&2; exit 1", "", &lost), Some(3)).await;
    assert_eq!((report.expect_err("the turn failed").code, runs), (Code::AgentFailed, 1));
}

#[tokio::test]
async fn a_session_that_is_taken_up_goes_on_whatever_it_says_and_a_program_that_is_gone_is_not_looked_for_twice() {
    let (report, runs) = second(&turn("echo \"no session $HELIX_SESSION\"", "", &["no session $HELIX_SESSION"]), Some(0)).await;
    assert_eq!((report.expect("an answer").began, runs), (Began::Resumed, 1));
    let (report, runs) = second(&turn("exec no-such-program-here", "", &[]), Some(0)).await;
    assert_eq!((report.expect_err("it is gone").code, runs), (Code::ProgramMissing, 1));
}

#[tokio::test]
async fn what_is_left_running_with_standard_error_open_does_not_hold_the_turn() {
    let turn = turn("(sleep 20 >/dev/null &) ; echo done", "", &["no session"]);
    let began = std::time::Instant::now();
    let (report, _) = second(&turn, Some(1)).await;
    assert_eq!(report.expect("an answer").began, Began::Resumed);
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
}

/// What comes of a first turn of this script, which may be silent for a second.
async fn first(script: &str, way: Option<&Way>) -> (Result<TurnReport, Failure>, usize) {
    let mut turn = turn("", "/result", &[]);
    turn.program.command = format!("echo run >> runs; {script}");
    turn.limits.silent_ms = 1_000;
    let workspace = tempfile::tempdir().expect("a folder");
    let report = take_turn(&turn, workspace.path(), way).await;
    (report, runs(workspace.path()))
}

#[tokio::test]
async fn an_agent_that_gives_no_sign_of_life_is_ended_and_has_timed_out() {
    for script in ["sleep 30", "exec >&-; sleep 30"] {
        let (report, runs) = first(script, None).await;
        let failure = report.expect_err("it is silent");
        assert_eq!((failure.code, runs), (Code::TimedOut, 1), "{script}: {failure}");
        assert!(failure.message.contains("said nothing for 1 s in the middle of its turn"), "{failure}");
    }
}

#[tokio::test]
async fn an_agent_that_prints_nothing_before_its_answer_is_alive_while_it_complains_or_asks_its_model() {
    let answer = "echo '{\"result\": \"done\"}'";
    let complains = format!("for i in 1 2 3 4 5; do sleep 0.5; echo working >&2; done; {answer}");
    let (report, runs) = first(&complains, None).await;
    assert_eq!((said(&report.expect("it was at work")).as_str(), runs), ("done", 1));

    let life = Life::default();
    let way = Way { address: "http://127.0.0.1:1".to_owned(), seen: Some(life.clone()) };
    let asking = tokio::spawn(async move {
        let (mut near, far) = tokio::io::duplex(64);
        let (there, mut gateway) = tokio::io::duplex(64);
        let carried = tokio::spawn(async move { life.carry(far, there).await });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tokio::io::AsyncWriteExt::write_all(&mut near, b"x").await.expect("it is carried");
            tokio::io::AsyncReadExt::read_exact(&mut gateway, &mut [0]).await.expect("it came");
        }
        drop((near, gateway));
        carried.await.expect("no panic").expect("both left");
    });
    let (report, runs) = first(&format!("sleep 2.5; {answer}"), Some(&way)).await;
    assert_eq!((said(&report.expect("it asked its model")).as_str(), runs), ("done", 1));
    asking.await.expect("no panic");
}
