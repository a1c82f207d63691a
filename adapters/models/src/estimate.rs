//! An upper estimate of tokens, without a tokenizer.
//!
//! Reservations are made with it, so it must not be too small for any usual vocabulary: words are cut every
//! three letters, every digit and every sign counts, and text outside ASCII counts nearly by bytes. English and code
//! come out at about 1.5 times what current tokenizers count.

use helix_protocol::{Block, Message, ModelRequest, OutputFormat, ToolSchema};

/// What frames a message in a prompt.
const MESSAGE: u64 = 8;
/// What frames a tool's description.
const TOOL: u64 = 16;
/// A picture, where nobody asks which model it is for.
const IMAGE: u64 = 1_600;
/// A page of a document: its text, and the picture of it that models are shown.
const PAGE: u64 = 4_600;
/// So many bytes of a document are a token at least: text lies in it compressed, among pictures and fonts, which are none.
const DOCUMENT_BYTES: u64 = 2;
/// What frames a request.
const REQUEST: u64 = 16;
/// No usual vocabulary has more bytes of a long text in a token.
const MOST_BYTES: u64 = 6;
/// So many of one character in a row are counted: more of them may still be one token.
const REPEATED: usize = 2;

/// Most tokens that `request`'s prompt is likely to be for a model that counts a picture as at most `image_tokens`.
pub fn request_tokens(request: &ModelRequest, image_tokens: u64) -> u64 {
    let messages: u64 = request.messages.iter().map(|message| message_tokens(message, image_tokens)).sum();
    let tools: u64 = request.tools.iter().map(tool_tokens).sum();
    let output = match &request.output {
        OutputFormat::JsonSchema { schema, description, .. } => TOOL + text_tokens(description) + text_tokens(&schema.to_string()),
        OutputFormat::Text | OutputFormat::JsonObject => 0,
    };
    REQUEST + messages + tools + output
}

/// Bytes of a prompt's words. Pictures and documents are left out, because they count by their size in pixels and pages.
pub(crate) fn prompt_bytes(request: &ModelRequest) -> u64 {
    over_words(request, str::len)
}

/// Fewest tokens that a prompt can be: no usual vocabulary has more than six bytes of a long text in a token, but for one character,
/// such as a space, many times over.
pub(crate) fn fewest_tokens(request: &ModelRequest) -> u64 {
    let changing = |text: &str| text.as_bytes().chunk_by(|one, next| one == next).map(|run| run.len().min(REPEATED)).sum();
    over_words(request, changing) / MOST_BYTES
}

fn over_words(request: &ModelRequest, size: impl Fn(&str) -> usize) -> u64 {
    let blocks = request.messages.iter().flat_map(|message| &message.blocks);
    let of = |block: &Block| match block {
        Block::Text { text, .. } | Block::Thinking { text, .. } => size(text),
        Block::ToolUse { name, input, .. } => size(name) + input.as_str().map_or_else(|| size(&input.to_string()), &size),
        Block::ToolResult { content, .. } => size(content),
        Block::Image { .. } | Block::Document { .. } | Block::Unknown { .. } => 0,
    };
    blocks.map(|block| of(block) as u64).sum()
}

/// Most tokens that one tool's description is likely to be.
pub(crate) fn tool_tokens(tool: &ToolSchema) -> u64 {
    TOOL + text_tokens(&tool.name) + text_tokens(&tool.description) + text_tokens(&tool.parameters.to_string())
}

fn message_tokens(message: &Message, image_tokens: u64) -> u64 {
    MESSAGE + message.blocks.iter().map(|block| tokens_of(block, image_tokens)).sum::<u64>()
}

/// Most tokens that one block is likely to be, whatever model it is for.
pub(crate) fn block_tokens(block: &Block) -> u64 {
    tokens_of(block, IMAGE)
}

fn tokens_of(block: &Block, image_tokens: u64) -> u64 {
    match block {
        Block::Text { text, .. } | Block::Thinking { text, .. } => text_tokens(text),
        Block::ToolUse { id, name, input, .. } => {
            let input = input.as_str().map_or_else(|| text_tokens(&input.to_string()), text_tokens);
            MESSAGE + text_tokens(id) + text_tokens(name) + input
        }
        Block::ToolResult { id, content, images, .. } => {
            MESSAGE + text_tokens(id) + text_tokens(content) + images.len() as u64 * image_tokens
        }
        Block::Image { .. } => image_tokens,
        Block::Document { data, .. } => PAGE.max(data.len() as u64 * 3 / 4 / DOCUMENT_BYTES),
        Block::Unknown { block, .. } => text_tokens(&block.to_string()),
    }
}

/// Most tokens that `text` is likely to be.
pub fn text_tokens(text: &str) -> u64 {
    let (mut tokens, mut letters, mut spaces) = (0u64, 0u64, 0u64);
    for c in text.chars() {
        if c.is_ascii_alphabetic() {
            tokens += u64::from(letters % 3 == 0);
            letters += 1;
        } else {
            letters = 0;
        }
        if c.is_ascii_whitespace() {
            // A single space usually belongs to the word after it.
            spaces += 1;
            tokens += u64::from(c == '\n' || spaces % 4 == 2);
        } else {
            spaces = 0;
            match c {
                _ if c.is_ascii_alphabetic() => {}
                _ if c.is_ascii() => tokens += 1,
                _ => tokens += c.len_utf8() as u64 - 1,
            }
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use helix_protocol::{ImageSource, Role};

    use super::*;

    #[test]
    fn a_picture_counts_as_its_model_has_it_wherever_it_stands() {
        let image = ImageSource::Url { url: "https://example.org/a.png".to_owned() };
        let answer = Block::ToolResult {
            id: String::new(),
            content: String::new(),
            images: vec![image.clone(); 2],
            is_error: false,
            extra: None,
        };
        let blocks = vec![Block::Image { image, extra: None }, answer];
        let request = ModelRequest { messages: vec![Message { role: Role::User, blocks }], ..ModelRequest::default() };
        let of = |image_tokens| request_tokens(&request, image_tokens);
        assert_eq!(of(48_169) - of(0), 3 * 48_169);
    }

    #[test]
    fn the_estimate_lies_above_what_tokenizers_count_and_not_absurdly_so() {
        // Counted with two public byte-pair vocabularies; the larger count stands here.
        for (text, counted) in [("hello world", 2), ("fn main() { println!(\"{}\", 42); }", 14), ("    indented\n    lines\n", 7)] {
            let estimate = text_tokens(text);
            assert!(estimate >= counted, "{text:?}: {estimate} < {counted}");
            assert!(estimate <= counted * 3, "{text:?}: {estimate} is more than thrice {counted}");
        }
        assert_eq!(text_tokens(""), 0);
        assert_eq!(text_tokens("日本"), 4);
    }

    #[test]
    fn appending_never_makes_a_text_cheaper() {
        let text = "let x = 12;\n\n    // 日本 and   more\n";
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let counts: Vec<u64> = ends.iter().map(|end| text_tokens(&text[..*end])).collect();
        assert!(counts.is_sorted(), "{counts:?}");
    }
}
