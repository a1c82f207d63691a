//! Pictures for models that take none: a provider refuses the whole request for one, so the model is told instead.
//!
//! Only what is sent changes. The conversation keeps its pictures, for a fork with another model.

use helix_protocol::{Block, Message};

/// What stands in a picture's place.
const LEFT_OUT: &str = "[a picture is left out here, because this model takes none]";

/// The messages without their pictures.
pub(crate) fn left_out(mut messages: Vec<Message>) -> Vec<Message> {
    for block in messages.iter_mut().flat_map(|message| &mut message.blocks) {
        match block {
            Block::Image { .. } => *block = Block::text(LEFT_OUT),
            Block::ToolResult { content, images, .. } if !images.is_empty() => {
                images.clear();
                content.push_str(&format!("\n{LEFT_OUT}"));
            }
            _ => {}
        }
    }
    messages
}
