//! What a terminal would obey in a text, taken out before a person sees it.
//!
//! Titles, outputs of commands, versions of programs and reasons of failures are other people's words: they could move the
//! cursor, rename the window, or write into the clipboard. Everything that is said to a person goes through here, so no
//! command has to think of it.

use super::style::Style;

/// The colours that [`Style`] paints with, and their end.
const OURS: [&str; 7] = ["0", "1", "2", "31", "32", "33", "36"];

/// `text` without sequences and characters that a terminal obeys, except for line ends, tabs, and our
/// colours where `style` has any.
///
/// A carriage return before a line end goes, and any other becomes one, so that nothing is written over what stands there
/// already. A colour that is not ended ends with the text. What turns the direction of writing is shown as its code: a command
/// must read as it would run.
pub(crate) fn harmless(text: &str, style: Style) -> String {
    let (mut out, mut coloured, mut rest) = (String::with_capacity(text.len()), false, text);
    while let Some(at) = rest.find(|c: char| (c.is_control() && c != '\n' && c != '\t') || turns(c)) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('\r') {
            out.push_str(if after.starts_with('\n') || after.is_empty() { "" } else { "\n" });
            rest = after;
        } else if let Some(after) = rest.strip_prefix('\x1b') {
            let (colour, after) = sequence(after);
            if let Some(code) = colour.filter(|code| style == Style::Coloured && OURS.contains(code)) {
                coloured = code != "0";
                out.push_str(&format!("\x1b[{code}m"));
            }
            rest = after;
        } else {
            let mut letters = rest.chars();
            match letters.next().filter(|c| turns(*c)) {
                Some(c) => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
                None => out.push(' '),
            }
            rest = letters.as_str();
        }
    }
    out.push_str(rest);
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// True of what embeds, overrides or isolates a direction of writing (Unicode's UAX #9), so that a text reads otherwise than it is.
fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What an escape character begins (ECMA-48): its code where it is a colour, and what comes behind it.
fn sequence(text: &str) -> (Option<&str>, &str) {
    if let Some(body) = text.strip_prefix('[') {
        let end = body.find(|c: char| !(' '..='?').contains(&c)).unwrap_or(body.len());
        let last = body[end..].chars().next().filter(|c| ('@'..='~').contains(c));
        let after = &body[end + last.map_or(0, char::len_utf8)..];
        return ((last == Some('m')).then(|| if end == 0 { "0" } else { &body[..end] }), after);
    }
    // Strings (OSC, DCS, SOS, PM, APC) go up to their end, and over no line: what is not ended must not hide the rest.
    if let Some(body) = text.strip_prefix([']', 'P', 'X', '^', '_']) {
        let end = body.find(['\x07', '\x1b', '\n', '\u{9c}']).unwrap_or(0);
        let after = &body[end..];
        return (None, after.strip_prefix(['\x07', '\u{9c}']).or_else(|| after.strip_prefix("\x1b\\")).unwrap_or(after));
    }
    let body = text.trim_start_matches(|c: char| (' '..='/').contains(&c));
    let last = body.chars().next().filter(|c| ('0'..='~').contains(c));
    (None, &body[last.map_or(0, char::len_utf8)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_goes_and_what_a_person_reads_stays() {
        for (text, left) in [
            ("one\n\ttwo — drei\n", "one\n\ttwo — drei\n"),
            ("a\x1b[2J\x1b[1;1Hb", "ab"),
            ("a\x1b]52;c;cm0gLXJm\x07b", "ab"),
            ("a\x1b]0;title\x1b\\b", "ab"),
            ("a\x1bP1$r\u{9c}b", "ab"),
            ("a\x1b]52;c;never ended\nb", "a\nb"),
            ("a\x1b]52;c;never ended", "a52;c;never ended"),
            ("a\x1bcb\x1b(0c\x1b7d", "abcd"),
            ("a\u{9b}2Jb\x07\x08\x7fc\0", "a 2Jb   c "),
            ("10%\r20%\rdone\r\nnext\r", "10%\n20%\ndone\nnext"),
            ("rm \u{202e}txt.gnp\u{202c} a\u{2066}b\u{2069}", "rm <U+202E>txt.gnp<U+202C> a<U+2066>b<U+2069>"),
            ("\u{200f}עברית \u{200e}x", "\u{200f}עברית \u{200e}x"),
            ("cut\x1b", "cut"),
            ("cut\x1b[3", "cut"),
            ("\x1b[äb", "äb"),
        ] {
            assert_eq!(harmless(text, Style::Plain), left, "{text:?}");
            assert_eq!(harmless(text, Style::Coloured), left, "{text:?}");
        }
    }

    #[test]
    fn our_colours_stay_where_there_are_any_and_end_with_the_text() {
        let text = format!("{} \x1b[8mhidden\x1b[38;5;1m", Style::Coloured.red("bad"));
        assert_eq!(harmless(&text, Style::Coloured), "\x1b[31mbad\x1b[0m hidden");
        assert_eq!(harmless(&text, Style::Plain), "bad hidden");
        assert_eq!(harmless("\x1b[31mred", Style::Coloured), "\x1b[31mred\x1b[0m");
    }
}
