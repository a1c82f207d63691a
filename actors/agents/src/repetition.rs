//! Notices a model that does the same thing again and again.

use helix_protocol::{Block, Message, WorkspaceTool};
use serde_json::Value;

/// So many times the same call with the same answer, and the model is told.
const TIMES: usize = 3;
/// What it is told, below the answer.
const NOTICE: &str = "\n\n[This is the third time that this very call has had this very answer, with no file edited in between. \
                      Calling it again will not help: do something else, or say what stands in the way.]";

/// The answer `content` of a call, with a notice below it where the same was asked and answered before, since the last
/// edit. `earlier` are the messages before this one, `now` the calls already answered in this step.
pub(crate) fn noticed(earlier: &[Message], now: &[Block], name: &str, input: &Value, content: String) -> String {
    let blocks: Vec<&Block> = earlier.iter().flat_map(|message| &message.blocks).chain(now).collect();
    let mut same = 1;
    for (at, block) in blocks.iter().enumerate().rev() {
        let Block::ToolUse { id, name: called, input: with, .. } = block else { continue };
        let answer = blocks[at..].iter().find_map(|block| match block {
            Block::ToolResult { id: of, content, is_error, .. } if of == id => Some((content.as_str(), *is_error)),
            _ => None,
        });
        let Some((answered, failed)) = answer else { continue };
        if changes_files(called) && !failed {
            break;
        }
        if called == name && with == input && answered.strip_suffix(NOTICE).unwrap_or(answered) == content {
            same += 1;
        }
    }
    if same >= TIMES { content + NOTICE } else { content }
}

fn changes_files(name: &str) -> bool {
    matches!(WorkspaceTool::by_name(name), Some(WorkspaceTool::Write | WorkspaceTool::Edit))
}
