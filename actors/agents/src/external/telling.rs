//! What was said, for an agent that does not know it.

use helix_protocol::{Block, Message, Role};

use crate::conversation::Conversation;

/// Most of a result that is told, in characters.
const RESULT: usize = 400;
/// Most that is told in all, in bytes: the beginning and the end of longer stories.
const MOST: usize = 96 << 10;

/// The texts that a person, or a check, said since the agent spoke last.
pub(super) fn since_it_spoke(conversation: &Conversation) -> Vec<String> {
    let last = conversation.messages().iter().rposition(|message| message.role == Role::Assistant);
    let since = &conversation.messages()[last.map_or(0, |last| last + 1)..];
    since.iter().map(Message::as_text).filter(|text| !text.trim().is_empty()).collect()
}

/// The story up to where the agent spoke last; empty where it never did.
pub(super) fn before(conversation: &Conversation) -> String {
    let Some(last) = conversation.messages().iter().rposition(|message| message.role == Role::Assistant) else {
        return String::new();
    };
    let mut story = String::new();
    for message in &conversation.messages()[..=last] {
        for block in &message.blocks {
            match (message.role, block) {
                (Role::Assistant, Block::Text { text, .. }) => story.push_str(&format!("You: {}\n", text.trim())),
                (Role::User, Block::Text { text, .. }) => story.push_str(&format!("The person: {}\n", text.trim())),
                (_, Block::ToolUse { name, input, .. }) => {
                    let title = input.get("title").and_then(serde_json::Value::as_str).unwrap_or_default();
                    story.push_str(&format!("You called {name}: {}\n", title.trim()));
                }
                (_, Block::ToolResult { content, is_error, .. }) => {
                    let text: String = content.trim().chars().take(RESULT).collect();
                    story.push_str(&format!("It {}: {text}\n", if *is_error { "failed" } else { "answered" }));
                }
                _ => {}
            }
        }
    }
    shortened(story)
}

fn shortened(story: String) -> String {
    if story.len() <= MOST {
        return story;
    }
    let head = (0..=MOST / 4).rev().find(|at| story.is_char_boundary(*at)).unwrap_or_default();
    let from = story.len() - MOST / 2;
    let tail = (from..=story.len()).find(|at| story.is_char_boundary(*at)).unwrap_or(story.len());
    format!("{}\n[… {} bytes are left out …]\n{}", &story[..head], tail - head, &story[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_story_keeps_its_beginning_and_its_end() {
        let text = |role, text: String| Message::text(role, text);
        let conversation = Conversation::new(vec![
            text(Role::User, "first".to_owned()),
            text(Role::Assistant, "ü".repeat(200_000)),
            text(Role::User, "then".to_owned()),
            text(Role::Assistant, "last".to_owned()),
            text(Role::User, "now".to_owned()),
        ]);
        let story = before(&conversation);
        assert!(
            story.len() < MOST && story.starts_with("The person: first\nYou: ü") && story.ends_with("You: last\n"),
            "{}",
            story.len()
        );
        assert_eq!(since_it_spoke(&conversation), ["now"]);
        assert_eq!(before(&Conversation::new(vec![text(Role::User, "x".to_owned())])), "");
    }
}
