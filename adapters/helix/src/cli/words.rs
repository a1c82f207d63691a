//! A model's words among the lines of a timeline, as they come.
//!
//! Pure: what is printed depends on the pieces, and on the lines between them.

use serde_json::Value;

use super::style::Style;

/// How much of an answer's beginning is remembered, in bytes: the line of its step does not repeat it.
const BEGINNING: usize = 1_024;

/// What one task's model said so far.
#[derive(Debug)]
pub struct Spoken {
    style: Style,
    answer: Option<Answer>,
    line_open: bool,
}

#[derive(Debug)]
struct Answer {
    step: u64,
    /// Where its next piece begins.
    next: u64,
    /// Empty where its beginning was not heard.
    beginning: String,
    over: bool,
}

impl Spoken {
    /// Of a model that has not said anything yet.
    pub fn new(style: Style) -> Self {
        Self { style, answer: None, line_open: false }
    }

    /// What is printed of a piece (the detail of its event); `heading` is the line above an answer.
    pub fn hear(&mut self, piece: &Value, heading: &str) -> String {
        let number = |key: &str| piece[key].as_u64().unwrap_or(0);
        let (step, offset, text) = (number("step"), number("offset"), piece["text"].as_str().unwrap_or_default());
        let mut out = String::new();
        let open = self.answer.as_ref().filter(|answer| !answer.over && answer.step == step);
        let (is_open, next) = open.map_or((false, 0), |answer| (true, answer.next));
        if piece["broken_off"] == true {
            if is_open {
                self.break_off(&mut out);
            }
            return out;
        }
        let goes_on = is_open && offset >= next;
        if !goes_on {
            if is_open {
                self.break_off(&mut out);
            }
            out.push_str(self.end_line());
            out.push_str(&format!("{heading}\n"));
            self.answer = Some(Answer { step, next: 0, beginning: String::new(), over: false });
        }
        let Some(answer) = self.answer.as_mut() else { return out };
        if offset > answer.next {
            out.push_str("… ");
        }
        let is_beginning = offset == answer.beginning.len() as u64;
        answer.next = offset + text.len() as u64;
        if is_beginning {
            answer.beginning.push_str(&text[..text.floor_char_boundary(BEGINNING - answer.beginning.len().min(BEGINNING))]);
        }
        // Some models begin with empty lines.
        let text = if is_beginning && answer.beginning.trim().is_empty() { "" } else { text };
        let text = if offset == 0 { text.trim_start() } else { text };
        out.push_str(text);
        if !text.is_empty() {
            self.line_open = !text.ends_with('\n');
        }
        out
    }

    fn break_off(&mut self, out: &mut String) {
        out.push_str(self.end_line());
        out.push_str(&format!("{}\n", self.style.yellow("… the answer broke off")));
        self.end();
    }

    /// The answer has come to its end.
    pub fn end(&mut self) {
        if let Some(answer) = self.answer.as_mut() {
            answer.over = true;
        }
    }

    /// What ends a line that words left open.
    pub fn end_line(&mut self) -> &'static str {
        if std::mem::replace(&mut self.line_open, false) { "\n" } else { "" }
    }

    /// What was said of a step in one line, without the words that were shown.
    pub fn without_words<'a>(&self, step: u64, said: &'a str) -> &'a str {
        let Some(answer) = self.answer.as_ref().filter(|answer| answer.step == step) else { return said };
        let beginning = answer.beginning.trim_start();
        let repeats = |words: &str| {
            let words = words.trim_end_matches('…').trim_end();
            !words.is_empty() && beginning.starts_with(words)
        };
        if repeats(said) {
            return "";
        }
        said.match_indices(": ").find(|(at, between)| repeats(&said[at + between.len()..])).map_or(said, |(at, _)| &said[..at])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn piece(step: u64, offset: u64, text: &str) -> Value {
        json!({"step": step, "offset": offset, "text": text})
    }

    fn print(spoken: &mut Spoken, pieces: &[Value]) -> String {
        pieces.iter().map(|piece| spoken.hear(piece, "model says")).collect()
    }

    #[test]
    fn words_stand_below_one_heading_and_a_gap_is_seen() {
        let mut spoken = Spoken::new(Style::Plain);
        let shown = print(&mut spoken, &[piece(1, 0, "\n\n"), piece(1, 2, "I lo"), piece(1, 6, "ok.\n"), piece(1, 20, "Done")]);
        assert_eq!(shown, "model says\nI look.\n… Done");
        assert_eq!((spoken.end_line(), spoken.end_line()), ("\n", ""));
        let mut late = Spoken::new(Style::Plain);
        assert_eq!(print(&mut late, &[piece(1, 9, "of it")]), "model says\n… of it");
        assert_eq!(late.without_words(1, "done: of it"), "done: of it", "its beginning was not seen");
    }

    #[test]
    fn an_answer_that_is_made_anew_after_some_of_it_was_shown_is_marked() {
        let mut spoken = Spoken::new(Style::Plain);
        let broken = json!({"step": 1, "offset": 4, "text": "", "broken_off": true});
        let shown = print(&mut spoken, &[piece(1, 0, "I lo"), broken.clone(), broken, piece(1, 0, "I look")]);
        assert_eq!(shown, "model says\nI lo\n… the answer broke off\nmodel says\nI look");
        // A node that died could not say so.
        assert_eq!(print(&mut spoken, &[piece(1, 0, "I")]), "\n… the answer broke off\nmodel says\nI");
        spoken.end();
        assert_eq!(print(&mut spoken, &[piece(1, 0, "Next")]), "\nmodel says\nNext", "a second answer of the step");
        assert_eq!(print(&mut spoken, &[piece(2, 0, "Then")]), "\nmodel says\nThen");
    }

    #[test]
    fn the_line_of_a_step_does_not_repeat_what_was_shown() {
        let mut spoken = Spoken::new(Style::Plain);
        print(&mut spoken, &[piece(4, 0, "\nAll is "), piece(4, 8, "made: see a.txt.\nMore.")]);
        spoken.end();
        for (said, left) in [
            ("done: All is made: see a.txt.…", "done"),
            ("All is…", ""),
            ("edit a.txt", "edit a.txt"),
            ("done: All was made", "done: All was made"),
        ] {
            assert_eq!(spoken.without_words(4, said), left);
        }
        assert_eq!(spoken.without_words(5, "All is…"), "All is…");
    }
}
