//! Agents that speak the Agent Client Protocol, and some that do not, as scripts that count their starts in `starts`.

use std::path::Path;

use helix_adapter_external::take_turn;
use helix_protocol::{AgentProgram, AgentTurn, Approval, Block, Code, Failure, TurnLimits, TurnReport};

/// Answers every request, and says `done`.
const SPEAKS: &str = r#"
read -r _; echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'
read -r _; echo '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s"}}'
read -r _; echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"done"}}}}'
echo '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'
"#;

/// What comes of a turn of this script, and how often it was started.
async fn turn(script: &str) -> (Result<TurnReport, Failure>, usize) {
    let workspace = tempfile::tempdir().expect("a folder");
    let program = AgentProgram { command: format!("echo start >> starts\n{script}"), ..AgentProgram::default() };
    let turn = AgentTurn {
        agent: "fake".to_owned(),
        program,
        prompt: "go on".to_owned(),
        before: String::new(),
        model: None,
        sandboxed: false,
        lost: Vec::new(),
        approval: Approval::Full,
        allowed: Vec::new(),
        refused: Vec::new(),
        gateway: None,
        limits: TurnLimits { start_ms: 1_000, silent_ms: 1_000 },
    };
    let report = take_turn(&turn, workspace.path(), None).await;
    (report, starts(workspace.path()))
}

fn starts(workspace: &Path) -> usize {
    std::fs::read_to_string(workspace.join("starts")).expect("it was started").lines().count()
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_started_once_more_and_then_asked_whether_it_speaks() {
    let silent_session = SPEAKS.lines().take(2).chain(["cat > read"]).collect::<Vec<_>>().join("\n");
    for (script, when) in [("cat > read", "as it was started"), (&silent_session, "as its session was begun")] {
        let (report, starts) = turn(script).await;
        let failure = report.expect_err("it says nothing");
        assert_eq!((failure.code, starts), (Code::AgentNotStarted, 2), "{failure}");
        let message = format!("said nothing for 1 s {when}: does it speak ACP on its standard input and output?");
        assert!(failure.message.contains(&message) && failure.message.contains("`speaks: command`"), "{failure}");
    }
}

#[tokio::test]
async fn an_agent_that_was_slow_to_start_makes_its_turn_the_second_time() {
    let script = format!("if [ $(wc -l < starts) = 1 ]; then cat > read; exit; fi\n{SPEAKS}");
    let (report, starts) = turn(&script).await;
    let report = report.expect("it speaks");
    let texts = report.messages.iter().flat_map(|message| &message.blocks);
    let texts: Vec<&str> =
        texts.filter_map(|block| if let Block::Text { text, .. } = block { Some(text.as_str()) } else { None }).collect();
    assert_eq!((texts, starts), (vec!["done"], 2));
}

#[tokio::test]
async fn an_agent_that_falls_silent_at_work_is_left_to_the_tasks_retries() {
    let script = SPEAKS.lines().take(3).chain(["cat > read"]).collect::<Vec<_>>().join("\n");
    let (report, starts) = turn(&script).await;
    assert_eq!((report.expect_err("it says nothing").code, starts), (Code::TimedOut, 1));
}
