//! How hard a turn shall think, put into what its model lets one say.

use helix_ports::ModelCapabilities;
use helix_protocol::{Block, Effort, ModelRequest, Role, Thinking, ThinkingControl};

use crate::format::Turn;

/// Words of a prompt that ask for thinking.
const ASKING: [&str; 6] = ["think", "reason", "analyze", "consider", "explain why", "step by step"];

/// What a request says about thinking, in words that its model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the model does as it does by default, or takes no word about it.
    Unsaid,
    /// Do not think.
    Off,
    /// Think, for as long as it seems good.
    Free,
    /// So many tokens at most.
    Budget(u32),
    /// So hard.
    Effort(Effort),
}

/// The plan for a turn, by the capabilities of its model.
pub fn plan(turn: &Turn<'_>) -> Plan {
    let capabilities = turn.capabilities;
    let wanted = match turn.request.thinking {
        // The share of the answer that a budget takes by default.
        Thinking::Detect if asks_to_think(turn.request) => Thinking::Budget(0),
        // A model that thinks by its own judgement goes on doing so.
        Thinking::Detect if matches!(capabilities.thinking, ThinkingControl::Effort | ThinkingControl::AlwaysEffort) => {
            Thinking::Default
        }
        Thinking::Detect => Thinking::Off,
        said => said,
    };
    match (capabilities.thinking, wanted) {
        (ThinkingControl::None, _) | (_, Thinking::Default | Thinking::Detect) => Plan::Unsaid,
        // It cannot be turned off, only down.
        (ThinkingControl::AlwaysEffort, Thinking::Off) => {
            capabilities.efforts.first().map_or(Plan::Unsaid, |least| Plan::Effort(*least))
        }
        (_, Thinking::Off) => Plan::Off,
        (ThinkingControl::Switch, _) | (ThinkingControl::Effort, Thinking::Adaptive) => Plan::Free,
        (ThinkingControl::AlwaysEffort, Thinking::Adaptive) => Plan::Unsaid,
        (ThinkingControl::Budget, Thinking::Adaptive) => Plan::Free,
        (ThinkingControl::Budget, Thinking::Budget(tokens)) => budget(turn, tokens),
        (ThinkingControl::Budget, Thinking::Effort(effort)) => budget(turn, share(turn.max_tokens, percent(effort))),
        (ThinkingControl::Effort | ThinkingControl::AlwaysEffort, Thinking::Effort(effort)) => {
            Plan::Effort(nearest(capabilities, effort))
        }
        (ThinkingControl::Effort | ThinkingControl::AlwaysEffort, Thinking::Budget(tokens)) => {
            Plan::Effort(nearest(capabilities, effort_of(tokens, turn.max_tokens)))
        }
    }
}

/// True where the last prompt asks for thinking by one of the words. Results of tools do not count: nobody
/// wrote them for the model.
pub fn asks_to_think(request: &ModelRequest) -> bool {
    let prompt = request
        .messages
        .iter()
        .rev()
        .find(|message| message.role == Role::User && message.blocks.iter().any(|block| matches!(block, Block::Text { .. })));
    prompt.is_some_and(|message| {
        let text = message.as_text().to_lowercase();
        ASKING.iter().any(|word| begins_a_word(&text, word))
    })
}

/// True where `word` stands in `text` at the beginning of a word: "thinking" asks too, "rethink" and "treason" do not.
fn begins_a_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].chars().next_back().is_some_and(char::is_alphanumeric))
}

/// The budget of a turn that names none.
pub(crate) fn default_budget(turn: &Turn<'_>) -> Plan {
    budget(turn, 0)
}

/// A budget that the model takes: 80 % of the answer's limit where none is said, never the whole limit, and no thinking where the
/// limit has no room for the least budget.
fn budget(turn: &Turn<'_>, tokens: u32) -> Plan {
    let tokens = if tokens == 0 { share(turn.max_tokens, 80) } else { tokens };
    let least = turn.capabilities.least_budget;
    let most = turn.max_tokens.saturating_sub(1);
    if most < least.max(1) { Plan::Unsaid } else { Plan::Budget(tokens.clamp(least.max(1), most)) }
}

fn share(of: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(of) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

/// The share of the answer's limit that an effort is worth.
fn percent(effort: Effort) -> u32 {
    match effort {
        Effort::Minimal => 5,
        Effort::Low => 20,
        Effort::Medium => 50,
        Effort::High | Effort::Xhigh | Effort::Max => 80,
    }
}

/// The effort that a budget is worth: the reverse, and the middle way up where the budget is the default share.
fn effort_of(tokens: u32, max_tokens: u32) -> Effort {
    if tokens == 0 {
        return Effort::High;
    }
    let share = u64::from(tokens) * 100 / u64::from(max_tokens.max(1));
    [Effort::Minimal, Effort::Low, Effort::Medium]
        .into_iter()
        .find(|effort| share <= u64::from(percent(*effort)))
        .unwrap_or(Effort::High)
}

/// The nearest effort that the model knows, the lesser of two.
fn nearest(capabilities: &ModelCapabilities, effort: Effort) -> Effort {
    let away = |known: &Effort| (*known as i32 - effort as i32).abs();
    capabilities.efforts.iter().copied().min_by_key(away).unwrap_or(effort)
}

/// The effort's word on the wire, which every format shares.
pub(crate) fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal => "minimal",
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Xhigh => "xhigh",
        Effort::Max => "max",
    }
}

/// The effort that a word on the wire means.
pub(crate) fn effort_named(word: &str) -> Option<Effort> {
    let all = [Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::Xhigh, Effort::Max];
    all.into_iter().find(|effort| effort_word(*effort).eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_protocol::Message;

    fn planned(thinking: Thinking, control: ThinkingControl, max_tokens: u32, prompt: &str) -> Plan {
        let messages = vec![Message::text(Role::User, prompt)];
        let request = ModelRequest { messages, thinking, ..ModelRequest::default() };
        let efforts = vec![Effort::Low, Effort::High];
        let capabilities = ModelCapabilities { thinking: control, efforts, ..ModelCapabilities::default() };
        plan(&Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens, temperature: None, stream: false })
    }

    #[test]
    fn words_of_the_prompt_ask_for_thinking_and_parts_of_words_do_not() {
        for (prompt, asks) in [
            ("Think about it", true),
            ("go STEP BY STEP", true),
            ("explain why it fails", true),
            ("analyzed", true),
            ("rethink", false),
            ("high treason", false),
            ("fix it", false),
        ] {
            let request = ModelRequest { messages: vec![Message::text(Role::User, prompt)], ..ModelRequest::default() };
            assert_eq!(asks_to_think(&request), asks, "{prompt}");
        }
    }

    #[test]
    fn a_budget_is_four_fifths_of_the_limit_and_stays_within_what_the_model_takes() {
        let budget = |thinking, max_tokens| planned(thinking, ThinkingControl::Budget, max_tokens, "think");
        assert_eq!(budget(Thinking::Budget(0), 10_000), Plan::Budget(8_000));
        assert_eq!(budget(Thinking::Detect, 10_000), Plan::Budget(8_000));
        assert_eq!(budget(Thinking::Budget(5), 10_000), Plan::Budget(1_024));
        assert_eq!(budget(Thinking::Budget(50_000), 10_000), Plan::Budget(9_999));
        assert_eq!(budget(Thinking::Budget(0), 1_100), Plan::Budget(1_024));
        assert_eq!(budget(Thinking::Budget(0), 1_024), Plan::Unsaid);
        assert_eq!(budget(Thinking::Effort(Effort::Low), 10_000), Plan::Budget(2_000));
    }

    #[test]
    fn a_model_is_told_only_what_it_can_be_told() {
        use ThinkingControl as Control;
        for (thinking, control, expected) in [
            (Thinking::Budget(0), Control::None, Plan::Unsaid),
            (Thinking::Budget(0), Control::Switch, Plan::Free),
            (Thinking::Budget(0), Control::AlwaysEffort, Plan::Effort(Effort::High)),
            (Thinking::Budget(100), Control::Effort, Plan::Effort(Effort::Low)),
            (Thinking::Effort(Effort::Max), Control::Effort, Plan::Effort(Effort::High)),
            (Thinking::Off, Control::AlwaysEffort, Plan::Effort(Effort::Low)),
            (Thinking::Off, Control::Effort, Plan::Off),
            (Thinking::Adaptive, Control::AlwaysEffort, Plan::Unsaid),
            (Thinking::Detect, Control::Budget, Plan::Off),
            (Thinking::Detect, Control::AlwaysEffort, Plan::Unsaid),
        ] {
            assert_eq!(planned(thinking, control, 10_000, "fix it"), expected, "{thinking:?} {control:?}");
        }
    }
}
