//! What the scripted model says, as a file people can read and write.
//!
//! YAML (or JSON, which is YAML too):
//!
//! ```yaml
//! model: scripted-demo        # the name it answers under
//! chunk_ms: 12                # between two pieces of a streamed answer
//! piece: 14                   # characters of a piece
//! scenarios:
//!   - name: roman
//!     phrase: roman numerals  # chosen where the first user message contains this, whatever its case
//!     offered: shell          # ... and the request offers this tool; of no meaning where absent
//!     turns:                  # the n-th is said where the request has n assistant messages, recoveries not counted
//!       - text: I look.
//!         delay_ms: 500       # before the answer begins
//!         calls:
//!           - tool: read
//!             arguments: { path: README.md }
//!       - text: Fixed.
//!         expect: "0 failed"  # a regular expression that the last tool result must contain ...
//!         otherwise:          # ... else this is said instead, at most twice in a row
//!           text: I run the tests again.
//!           calls: [{ tool: shell, arguments: { command: ./run-tests } }]
//!         usage: { input_tokens: 900, cached_tokens: 600, output_tokens: 40 }   # estimated where absent
//!         faults:             # happen before the turn is said, each `times` times
//!           - { kind: status, status: 429, retry_after_s: 1, times: 2 }
//! ```
//! After the last turn the model says its text again, without calls.

use anyhow::{Context, ensure};
use helix_protocol::{Block, Message, ModelRequest, Role};
use regex::Regex;
use serde::Deserialize;

use super::fault::Fault;

/// How often a recovery is said in a row before the turn is said all the same.
const RECOVERIES: usize = 2;
/// What the ids of a recovery's calls begin with: it is how a later request shows that it was one.
pub(crate) const RECOVERY: &str = "recovery_";

/// A whole transcript.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The name it answers under.
    pub model: String,
    /// Between two pieces of a streamed answer, in milliseconds.
    #[serde(default)]
    pub chunk_ms: u64,
    /// Characters of a piece.
    #[serde(default = "default_piece")]
    pub piece: usize,
    /// One for each conversation it can have.
    pub scenarios: Vec<Scenario>,
}

/// One conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name in the log.
    pub name: String,
    /// What the first user message contains.
    pub phrase: String,
    /// A tool that the request offers: tells agents apart that are given the same prompt, and their main
    /// conversation from side ones.
    #[serde(default)]
    pub offered: Option<String>,
    /// What is said, in order.
    pub turns: Vec<Turn>,
}

/// One answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What is said.
    #[serde(default)]
    pub text: String,
    /// What is called, in order.
    #[serde(default)]
    pub calls: Vec<ScriptedCall>,
    /// Before the answer begins, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// What the last tool result must contain.
    #[serde(default)]
    pub expect: Option<Pattern>,
    /// What is said where it does not.
    #[serde(default)]
    pub otherwise: Option<Recovery>,
    /// Counted tokens; estimated where absent.
    #[serde(default)]
    pub usage: Option<ScriptedUsage>,
    /// What goes wrong first.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// What is said where a turn's expectation is not met.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// What is said.
    pub text: String,
    /// What is called, in order; at least one call.
    pub calls: Vec<ScriptedCall>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    /// The tool.
    pub tool: String,
    /// Its arguments; a text is sent as it is, for arguments that are not JSON.
    pub arguments: serde_json::Value,
}

/// Counted tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedUsage {
    /// Read, cached ones included.
    pub input_tokens: u64,
    /// Of these, from the cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Written.
    pub output_tokens: u64,
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Regex::new(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What is said next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next<'a> {
    /// A turn, by its number from 0.
    Turn(usize, &'a Turn),
    /// The recovery of a turn, which is said for the n-th time in a row, from 0.
    Recovery(usize, &'a Recovery, usize),
    /// The turns are at an end.
    Over(usize),
}

/// The transcript of `helix demo`, as it is in the source.
pub const DEMO: &str = include_str!("../../transcripts/demo.yaml");

/// The transcript of `helix demo`.
pub fn demo() -> anyhow::Result<Transcript> {
    Transcript::parse(DEMO).context("the demo's transcript")
}

impl Transcript {
    /// Reads a transcript. Refused where it could not be followed.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let transcript: Self = serde_norway::from_str(text)?;
        for scenario in &transcript.scenarios {
            ensure!(!scenario.turns.is_empty(), "the scenario {} has no turns", scenario.name);
            for (at, turn) in scenario.turns.iter().enumerate() {
                let recovers = turn.otherwise.as_ref().is_none_or(|recovery| !recovery.calls.is_empty());
                ensure!(recovers, "the recovery of turn {at} of {} calls nothing, so nothing would change", scenario.name);
            }
        }
        Ok(transcript)
    }

    /// The scenario of a conversation.
    pub(crate) fn scenario(&self, request: &ModelRequest) -> Option<&Scenario> {
        let first = request.messages.iter().find(|message| message.role == Role::User)?.as_text().to_lowercase();
        let offers = |wanted: &String| request.tools.iter().any(|tool| tool.name == *wanted);
        self.scenarios
            .iter()
            .find(|scenario| first.contains(&scenario.phrase.to_lowercase()) && scenario.offered.as_ref().is_none_or(offers))
    }
}

impl Scenario {
    /// What is said next, by what was said so far.
    pub(crate) fn next(&self, request: &ModelRequest) -> Next<'_> {
        let said: Vec<&Message> = request.messages.iter().filter(|message| message.role == Role::Assistant).collect();
        let at = said.iter().filter(|message| !is_recovery(message)).count();
        let recovered = said.iter().rev().take_while(|message| is_recovery(message)).count();
        let Some(turn) = self.turns.get(at) else { return Next::Over(at) };
        match (&turn.expect, &turn.otherwise) {
            (Some(expected), Some(recovery))
                if recovered < RECOVERIES && !last_result(request).is_some_and(|text| expected.0.is_match(text)) =>
            {
                Next::Recovery(at, recovery, recovered)
            }
            _ => Next::Turn(at, turn),
        }
    }
}

fn is_recovery(message: &Message) -> bool {
    message.blocks.iter().any(|block| matches!(block, Block::ToolUse { id, .. } if id.starts_with(RECOVERY)))
}

fn last_result(request: &ModelRequest) -> Option<&str> {
    request.messages.iter().rev().flat_map(|message| message.blocks.iter().rev()).find_map(|block| match block {
        Block::ToolResult { content, .. } => Some(content.as_str()),
        _ => None,
    })
}

fn default_piece() -> usize {
    16
}
