//! Long conversations: the provider's prompt cache, and making room.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use helix_adapter_models::anthropic::AnthropicMessages;
use helix_adapter_models::{Format, Turn};
use helix_ports::ModelCapabilities;

use super::*;

/// A provider's prompt cache by the rules that Anthropic documents, over the very requests that our provider would send: what
/// is cached are prefixes that end at a marker, of which there are at most four; a marker looks back over at most 20 blocks
/// for a prefix that was written before; prefixes below the least size are not kept. A hit keeps an entry alive, so nothing
/// expires while an agent works.
#[derive(Default)]
struct Cache {
    written: HashSet<u64>,
    input: u64,
    read: u64,
}

const LEAST_TOKENS: u32 = 1_024;
const LOOK_BACK: usize = 20;

/// One block of a prompt: the prefix that ends with it, and whether a marker does.
struct Placed {
    prefix: u64,
    tokens: u64,
    marked: bool,
}

/// The blocks of an encoded request, in the order in which the provider reads them.
fn blocks_of(body: &Value) -> Vec<Placed> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all: Vec<(String, Value)> = Vec::new();
    all.extend(list(&body["tools"]).into_iter().map(|tool| ("tool".to_owned(), tool)));
    all.extend(list(&body["system"]).into_iter().map(|block| ("system".to_owned(), block)));
    for message in list(&body["messages"]) {
        let role = message["role"].as_str().expect("a role").to_owned();
        all.extend(list(&message["content"]).into_iter().map(|block| (role.clone(), block)));
    }
    let (mut hasher, mut bytes) = (DefaultHasher::new(), 0);
    let placed = all.into_iter().map(|(role, mut block)| {
        let marked = block.as_object_mut().expect("an object").remove("cache_control").is_some();
        let text = block.to_string();
        (&role, &text).hash(&mut hasher);
        bytes += text.len() as u64;
        Placed { prefix: hasher.finish(), tokens: bytes / 4, marked }
    });
    placed.collect()
}

impl Cache {
    fn ask(&mut self, request: &ModelRequest) {
        let capabilities = ModelCapabilities { cache_markers: true, cache_least: LEAST_TOKENS, ..ModelCapabilities::default() };
        let (max_tokens, capabilities) = (request.max_tokens, &capabilities);
        let turn = Turn { request, model: "claude", capabilities, max_tokens, temperature: None, stream: true };
        let blocks = blocks_of(&AnthropicMessages.encode(&turn).body);
        let markers: Vec<usize> = blocks.iter().enumerate().filter(|(_, block)| block.marked).map(|(at, _)| at).collect();
        assert!(markers.len() <= 4, "{markers:?}");
        let looked_at = markers.iter().flat_map(|marker| marker.saturating_sub(LOOK_BACK)..=*marker);
        let hit = looked_at.filter(|at| self.written.contains(&blocks[*at].prefix)).max();
        self.input += blocks.last().map_or(0, |last| last.tokens);
        self.read += hit.map_or(0, |at| blocks[at].tokens);
        let kept = markers.into_iter().filter(|at| blocks[*at].tokens >= u64::from(LEAST_TOKENS));
        self.written.extend(kept.map(|at| blocks[at].prefix));
    }

    fn share(&self) -> f64 {
        self.read as f64 / self.input as f64
    }
}

/// A line that `make bench-models` takes into its table.
fn figure(name: &str, cache: &Cache, least: Option<f64>) {
    let goal = least.map(|least| format!("≥ {:.0} %", 100.0 * least));
    let against = format!("of {} tokens, by Anthropic's documented rules", cache.input);
    let (value, met) = (100.0 * cache.share(), least.map(|least| cache.share() >= least));
    println!("figure {}", json!({"figure": name, "value": value, "unit": "%", "against": against, "goal": goal, "met": met}));
}

fn turns(count: usize, size: usize) -> Vec<ModelReply> {
    let turn = |number: usize| {
        let blocks = [
            Block::text(format!("Step {number}: I look at the next part.")),
            call(&format!("r{number}"), "read", json!({"path": format!("f{number}.txt")})),
            call(&format!("w{number}"), "write", json!({"path": format!("g{number}.txt"), "content": "x".repeat(size / 4)})),
        ];
        calls(blocks.to_vec())
    };
    (0..count).map(turn).collect()
}

fn long_host(count: usize, size: usize, limits: ModelLimits, more: Vec<ModelReply>) -> FakeHost {
    let spec = AgentSpec { max_steps: 1_000, ..spec() };
    let mut host = FakeHost::new(spec, [turns(count, size), more].concat());
    for number in 0..count {
        host.files.insert(format!("f{number}.txt"), format!("{number} ").repeat(size / 3));
    }
    host.limits = limits;
    host
}

#[tokio::test]
async fn over_50_turns_at_least_nine_tenths_of_the_input_are_read_from_the_cache() {
    let limits = ModelLimits { max_tokens: 4_000, context_tokens: 1_000_000 };
    let mut host = long_host(50, 4_000, limits, Vec::new());
    host.steps(50).await;
    let mut cache = Cache::default();
    for request in &host.requests {
        cache.ask(request);
    }
    println!("50 turns without compaction: {:.1} % of {} input tokens read from the cache", 100.0 * cache.share(), cache.input);
    figure("input read from a simulated prompt cache over 50 turns", &cache, Some(0.9));
    assert_eq!(host.requests.len(), 50);
    assert!(cache.share() >= 0.9, "{}", cache.share());
    for pair in host.requests.windows(2) {
        assert_eq!(pair[1].messages[..pair[0].messages.len()], pair[0].messages[..], "append-only");
        assert_eq!(pair[0].tools, pair[1].tools);
    }
}

#[tokio::test]
async fn turns_of_more_calls_than_the_cache_looks_back_over_are_found_again() {
    let limits = ModelLimits { max_tokens: 4_000, context_tokens: 1_000_000 };
    let of = |turn: usize| {
        let one = |number: usize| {
            let path = format!("g{turn}-{number}.txt");
            call(&format!("w{turn}-{number}"), "write", json!({"path": path, "content": "x".repeat(200)}))
        };
        calls((0..2 * LOOK_BACK).map(one).collect())
    };
    let mut host = FakeHost::new(AgentSpec { max_steps: 100, ..spec() }, (0..30).map(of).collect());
    host.limits = limits;
    host.steps(30).await;
    let mut cache = Cache::default();
    host.requests.iter().for_each(|request| cache.ask(request));
    assert!(cache.share() >= 0.9, "{}", cache.share());
}

#[tokio::test]
async fn with_compactions_the_cache_still_serves_most_of_it() {
    let limits = ModelLimits { max_tokens: 4_000, context_tokens: 44_000 };
    let summaries = [says("Goal: mend it. Left: the rest.")];
    let mut host = long_host(50, 4_000, limits, Vec::new());
    let mut compactions = 0;
    for _ in 0..50 {
        // Whatever asks for a summary is given one.
        let asks_for_summary = {
            let view = crate::conversation::Conversation::new(host.said.clone());
            matches!(crate::compaction::look(&view, limits, crate::compaction::Need::Due), crate::compaction::Room::Summarise(_))
        };
        if asks_for_summary {
            host.replies.push_front(Ok(summaries[0].clone()));
        }
        let step = host.step().await.expect("a step");
        compactions += usize::from(step.summary.starts_with("made room"));
    }
    let mut cache = Cache::default();
    for request in &host.requests {
        cache.ask(request);
    }
    println!("50 turns with {compactions} compactions: {:.1} % of {} input tokens read", 100.0 * cache.share(), cache.input);
    figure(&format!("the same with {compactions} compactions"), &cache, None);
    assert!(compactions > 0);
    assert!(cache.share() > 0.5, "{}", cache.share());
    assert!(host.requests.iter().all(|request| crate::conversation::tokens(&request.messages) <= limits.room()));
}

#[tokio::test]
async fn old_answers_go_first_and_the_last_two_turns_stay() {
    let limits = ModelLimits { max_tokens: 1_000, context_tokens: 9_000 };
    let mut host = long_host(14, 4_000, limits, Vec::new());
    // Small writes, large reads: taking the reads out is enough.
    for reply in host.replies.iter_mut().flatten() {
        if let Some(Block::ToolUse { input, .. }) = reply.blocks.last_mut() {
            input["content"] = json!("x");
        }
    }
    let mut made = None;
    for _ in 0..14 {
        let step = host.step().await.expect("a step");
        if step.summary.starts_with("made room") {
            made = Some(step);
            break;
        }
    }
    let made = made.expect("a compaction");
    assert_eq!(made.messages[0].role, Role::System, "what follows is shown instead of what was");
    let contents = |messages: &[Message]| -> Vec<bool> {
        let results = messages.iter().flat_map(|message| &message.blocks);
        let read = results.filter_map(|block| match block {
            Block::ToolResult { id, content, .. } if id.starts_with('r') => Some(content.contains("taken out to make room")),
            _ => None,
        });
        read.collect()
    };
    let taken_out = contents(&made.messages);
    let kept = taken_out.iter().rev().take_while(|out| !**out).count();
    assert!(taken_out[0] && kept >= 3, "{taken_out:?}: this turn's and those of the last two");
    assert_whole(&made.messages);
    let next = host.step().await.expect("a step");
    assert_ne!(next.messages[0].role, Role::System);
    let last = host.requests.last().expect("a request");
    assert_eq!(last.messages[..], made.messages[..], "the next request is the recorded conversation");
}

#[tokio::test]
async fn a_summary_keeps_the_prompt_the_list_and_the_last_turns_and_a_fork_begins_with_it() {
    let limits = ModelLimits { max_tokens: 1_000, context_tokens: 9_000 };
    let todo = calls(vec![call(
        "t",
        "todo",
        json!({"items": [{"text": "part one", "state": "done"}, {"text": "part two", "state": "open"}]}),
    )]);
    let large = |id: &str| calls(vec![call(id, "write", json!({"path": id, "content": "y".repeat(9_000)}))]);
    let summary = says("Goal: mend it.\nDone: part one.\nLeft: part two.");
    let replies = vec![todo, large("1"), large("2"), large("3"), summary, large("4"), says("done")];
    let mut host = FakeHost::new(spec(), replies);
    host.limits = limits;
    host.steps(4).await;
    let fifth = host.step().await.expect("a step");
    assert!(fifth.summary.starts_with("made room"), "{}", fifth.summary);
    let asked = &host.requests[4];
    assert_eq!(asked.tool_choice, helix_protocol::ToolChoice::None);
    assert_eq!(asked.tools, host.requests[0].tools, "the same tools, for the cache's sake");
    let texts: Vec<String> = fifth.messages.iter().map(Message::as_text).collect();
    assert_eq!((fifth.messages[0].role, texts[1].as_str()), (Role::System, "mend it"));
    assert!(texts[2].starts_with("[The conversation up to here was compacted") && texts[2].contains("Left: part two."));
    assert!(texts[2].ends_with("Your list of what is to be done:\n[x] part one\n[ ] part two"), "{}", texts[2]);
    assert_whole(&fifth.messages);
    let shown = host.requests[5].messages.clone();
    assert_eq!(shown[..], fifth.messages[..shown.len()]);

    let mut fork = FakeHost::new(AgentSpec { prompt: "otherwise".to_owned(), ..spec() }, vec![says("ok")]);
    (fork.said, fork.head, fork.ordinal, fork.limits) = (host.said.clone(), host.head.clone(), 6, limits);
    fork.steps(1).await;
    let begun = &fork.requests[0].messages;
    assert_eq!(begun[..fifth.messages.len()], fifth.messages[..]);
    assert_eq!(begun.last(), Some(&Message::text(Role::User, "otherwise")));
}

#[tokio::test]
async fn a_model_that_goes_round_in_circles_is_stopped_however_often_room_was_made() {
    let again = |number: usize| calls(vec![call(&format!("c{number}"), "read", json!({"path": format!("{}.txt", number % 2)}))]);
    let mut host = FakeHost::new(AgentSpec { max_steps: 100, ..spec() }, (0..40).map(again).collect());
    host.limits = ModelLimits { max_tokens: 1_000, context_tokens: 9_000 };
    for at in 0..2 {
        host.files.insert(format!("{at}.txt"), format!("line {at}\n").repeat(2_000));
    }
    let (mut compactions, mut ended) = (0, None);
    for step in 1..=40 {
        let view = crate::conversation::Conversation::new(host.said.clone());
        if let crate::compaction::Room::Summarise(_) = crate::compaction::look(&view, host.limits, crate::compaction::Need::Due) {
            host.replies.push_front(Ok(says("Goal: mend it. Left: all of it.")));
        }
        let made = host.step().await.expect("a step");
        compactions += usize::from(made.summary.starts_with("made room"));
        if let TurnEnd::Failed(failure) = made.end {
            ended = Some((step, failure.message));
            break;
        }
    }
    let (step, message) = ended.expect("stopped");
    assert!(compactions > 2 && message.contains("goes round in circles"), "{compactions} compactions: {message}");
    assert!(step <= 12, "{step}");
    let told = |message: &Message| {
        message.blocks.iter().any(|block| matches!(block, Block::ToolResult { content, .. } if content.contains("third time")))
    };
    assert!(host.said.iter().any(told), "it was told before");
}

#[tokio::test]
async fn a_conversation_that_the_model_refuses_as_too_long_is_shortened_and_asked_about_again() {
    let replies = vec![calls(vec![call("1", "read", json!({"path": "a.txt"}))])];
    let mut host = FakeHost::new(spec(), replies);
    host.steps(1).await;
    host.replies.push_back(Err(Failure::new(Code::ContextOverflow, "too long")));
    host.replies.extend([Ok(says("Goal: mend it.")), Ok(says("done"))]);
    let step = host.step().await.expect("a step");
    assert_eq!(step.end, TurnEnd::Finished);
    assert_eq!(host.requests.len(), 4);
    assert!(step.messages.iter().any(|message| message.as_text().contains("Goal: mend it.")));
}

/// A conversation on a small model whose last turn read so much that it is too long.
fn too_long(replies: Vec<Result<ModelReply, Failure>>) -> FakeHost {
    let reads =
        |turn: usize| calls((0..4).map(|at| call(&format!("r{turn}{at}"), "read", json!({"path": format!("{at}.txt")}))).collect());
    let mut host = FakeHost::new(spec(), vec![reads(0)]);
    host.replies.extend(replies);
    host.limits = ModelLimits { max_tokens: 1_000, context_tokens: 9_000 };
    for at in 0..4 {
        host.files.insert(format!("{at}.txt"), format!("line {at}\n").repeat(1_200));
    }
    host
}

#[tokio::test]
async fn a_turn_that_read_more_than_fits_is_cut_for_its_summary() {
    let mut host = too_long(vec![Ok(says("Goal: mend it. Left: all of it.")), Ok(says("done"))]);
    host.steps(1).await;
    let room = host.limits.room();
    assert!(crate::conversation::tokens(&host.said) > room);
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
    for request in &host.requests[1..] {
        assert!(crate::conversation::tokens(&request.messages) <= room, "{}", crate::conversation::tokens(&request.messages));
    }
    let cut = host.requests[1].messages.iter().flat_map(|message| &message.blocks).filter_map(|block| match block {
        Block::ToolResult { content, .. } => Some(content.contains("line 1") || content.contains("more bytes of this answer")),
        _ => None,
    });
    assert_eq!(cut.collect::<Vec<_>>(), [true; 4], "the beginning of each is there");
    assert_whole(&host.said);
}

#[tokio::test]
async fn a_server_that_takes_less_than_it_said_is_asked_for_a_summary_of_less() {
    let refuses = || Err(Failure::new(Code::ContextOverflow, "too long"));
    let mut host = too_long(vec![refuses(), Ok(says("Goal: mend it.")), Ok(says("done"))]);
    host.steps(1).await;
    assert_eq!(host.steps(1).await.end, TurnEnd::Finished);
    let lengths: Vec<u64> = host.requests.iter().map(|request| crate::conversation::tokens(&request.messages)).collect();
    assert!(lengths[2] < lengths[1] * 2 / 3, "{lengths:?}");
}

#[tokio::test]
async fn what_is_no_summary_takes_the_place_of_nothing() {
    let none = [says(""), reply(vec![Block::text("I will not".to_owned())], StopReason::Refusal), says("  ")];
    let mut host = too_long(none.into_iter().map(Ok).chain([Ok(says("done"))]).collect());
    host.steps(1).await;
    let step = host.steps(1).await;
    assert_eq!(step.end, TurnEnd::Finished);
    let shown = &host.requests.last().expect("a request").messages;
    assert!(
        shown.iter().all(|message| !message.as_text().contains(crate::compaction::COMPACTED)),
        "nothing is said to be a summary"
    );
    assert!(shown.iter().flat_map(|message| &message.blocks).any(|block| matches!(block, Block::ToolResult { .. })));
    assert!(crate::conversation::tokens(shown) <= host.limits.room());
    assert_eq!(host.requests[2].thinking, helix_protocol::Thinking::Off, "thinking is what may have left no room for it");
}

/// Eight turns of large answers, then a turn after such a rest.
async fn after_a_rest(rest: Duration) -> (FakeHost, StepResult) {
    let limits = ModelLimits { max_tokens: 1_000, context_tokens: 61_000 };
    let mut host = long_host(8, 24_000, limits, vec![says("done")]);
    for reply in host.replies.iter_mut().flatten().take(8) {
        reply.blocks.pop();
    }
    host.steps(8).await;
    host.rest = rest;
    let step = host.step().await.expect("a step");
    (host, step)
}

#[tokio::test]
async fn a_conversation_that_rested_until_no_cache_has_it_goes_on_without_its_old_answers() {
    let taken_out = |messages: &[Message]| {
        let blocks = messages.iter().flat_map(|message| &message.blocks);
        blocks.filter(|block| matches!(block, Block::ToolResult { content, .. } if content.contains("taken out"))).count()
    };
    let hour = Duration::from_secs(3_600);
    let (host, step) = after_a_rest(hour).await;
    assert!(step.summary.starts_with("made room"), "{}", step.summary);
    let asked = &host.requests.last().expect("a request").messages;
    assert_whole(asked);
    assert_eq!(asked[..2], host.requests[0].messages[..2], "the prompt stays");
    assert!(taken_out(asked) >= 3, "{}", taken_out(asked));
    let (host, step) = after_a_rest(hour - Duration::from_micros(1)).await;
    assert_eq!(step.summary, "done: done");
    assert_eq!(taken_out(&host.requests.last().expect("a request").messages), 0, "a cache has it still");
}
