//! Text of what came: HTML without its markup, text as it is, and a refusal of everything else.

use std::collections::HashMap;
use std::rc::Rc;

use helix_protocol::{Code, Failure};

/// Characters of a line. Code and tables are cut where it is less, and models read long lines well.
const WIDTH: usize = 120;
/// Nesting beyond this is no page that somebody wrote, and the text is made by functions that call themselves.
const DEEPEST: usize = 400;
/// So many elements that are open at once are not even parsed: the time that takes grows with their square.
const OPEN: usize = 8_192;

/// What a content type says of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Html,
    Text,
    /// Nothing; the bytes have to.
    Unsaid,
    Other,
}

/// Refuses what cannot be shown as text, by its content type.
pub(crate) fn can_show(url: &str, content_type: &str) -> Result<(), Failure> {
    match kind(content_type) {
        Kind::Other => Err(not_text(url, essence(content_type))),
        Kind::Html | Kind::Text | Kind::Unsaid => Ok(()),
    }
}

/// The text of a body.
pub(crate) fn text_of(url: &str, content_type: &str, body: &[u8]) -> Result<String, Failure> {
    let kind = match kind(content_type) {
        Kind::Unsaid if looks_like_html(body) => Kind::Html,
        said => said,
    };
    // Whatever a server calls it: nothing with these bytes is text.
    if body.starts_with(b"%PDF-") {
        return Err(not_text(url, "application/pdf"));
    }
    let text = decoded(content_type, body).filter(|text| !text.contains('\0')).ok_or_else(|| not_text(url, "binary"))?;
    match kind {
        Kind::Html => of_html(url, &text),
        Kind::Text | Kind::Unsaid => Ok(text),
        Kind::Other => Err(not_text(url, essence(content_type))),
    }
}

fn not_text(url: &str, what: &str) -> Failure {
    Failure::new(Code::InvalidRequest, format!("{url} is {what}, which cannot be shown as text"))
        .hint("look for the same as a page; files can be had with a command where the task may use the network")
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn kind(content_type: &str) -> Kind {
    let essence = essence(content_type).to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/octet-stream" => Kind::Unsaid,
        "text/html" | "application/xhtml+xml" => Kind::Html,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/toml"
        | "application/yaml"
        | "application/x-yaml"
        | "application/x-ndjson"
        | "image/svg+xml" => Kind::Text,
        other if other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml") => Kind::Text,
        _ => Kind::Other,
    }
}

fn looks_like_html(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let begins = |word: &[u8]| start.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    begins(b"<!doctype html") || begins(b"<html")
}

/// The characters, by the mark at the beginning, by what the type says, or as UTF-8. `None` where it is no text of that kind.
fn decoded(content_type: &str, body: &[u8]) -> Option<String> {
    let charset = content_type.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').as_bytes())
    });
    let said = charset.and_then(encoding_rs::Encoding::for_label);
    let (text, _, broken) = said.unwrap_or(encoding_rs::UTF_8).decode(body);
    let wrong = text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER).count();
    // A page with a few broken characters is still a page.
    (!broken || wrong * 50 < text.chars().count()).then(|| text.into_owned())
}

fn of_html(url: &str, html: &str) -> Result<String, Failure> {
    let failed = |reason: &str| Failure::new(Code::InvalidRequest, format!("{url} could not be made text: {reason}"));
    let config = html2text::config::plain().allow_width_overflow();
    if open_at_once(html) > OPEN {
        return Err(failed("too many of its elements are open at once"));
    }
    let page = config.parse_html(html.as_bytes()).map_err(|error| failed(&error.to_string()))?;
    let mut left = vec![(Rc::clone(&page.document), 0)];
    while let Some((node, depth)) = left.pop() {
        if depth > DEEPEST {
            return Err(failed("its elements are nested too deeply"));
        }
        left.extend(node.children.borrow().iter().map(|child| (Rc::clone(child), depth + 1)));
    }
    let text = config.dom_to_render_tree(&page).and_then(|tree| config.render_to_string(tree, WIDTH));
    text.map(|text| text.trim().to_owned()).map_err(|error| failed(&error.to_string()))
}

/// How many elements are open at once at most, by the tags alone, those left out that need not be closed.
fn open_at_once(html: &str) -> usize {
    const UNCLOSED: [&str; 34] = [
        "area", "base", "body", "br", "circle", "col", "dd", "dt", "ellipse", "embed", "head", "hr", "html", "image", "img",
        "input", "li", "line", "link", "meta", "option", "p", "path", "polygon", "polyline", "rect", "source", "stop", "td", "th",
        "tr", "track", "use", "wbr",
    ];
    let (mut open, mut count, mut most) = (HashMap::<String, usize>::new(), 0_usize, 0);
    for (at, _) in html.match_indices('<') {
        let rest = &html[at + 1..];
        let (closes, rest) = rest.strip_prefix('/').map_or((false, rest), |rest| (true, rest));
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        if name.is_empty() || UNCLOSED.contains(&name.as_str()) {
            continue;
        }
        let of_name = open.entry(name).or_default();
        // An end without a beginning ends nothing.
        match (closes, of_name.checked_sub(1)) {
            (false, _) => (*of_name, count) = (*of_name + 1, count + 1),
            (true, Some(left)) => (*of_name, count) = (left, count - 1),
            (true, None) => {}
        }
        most = most.max(count);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_text_with_its_links() {
        let html = "<!doctype html><html><head><title>T</title><style>p{}</style><script>var x;</script></head><body><h1>Pipes</h1>\
                    <p>A <a href=\"/b\">second</a> page.</p><pre>let x = 1;\n  let y;</pre><ul><li>one<li>two</ul></body></html>";
        let text = text_of("u", "text/html; charset=utf-8", html.as_bytes()).expect("a page");
        for part in ["# Pipes", "second", "/b", "let x = 1;\n  let y;", "* one\n* two"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("var x") && !text.contains("p{}"), "{text}");
        assert_eq!(text_of("u", "", html.as_bytes()).as_ref(), Ok(&text));
    }

    #[test]
    fn text_is_shown_as_it_is_and_in_its_own_characters() {
        assert_eq!(text_of("u", "application/json", b"{\"a\": 1}"), Ok("{\"a\": 1}".to_owned()));
        assert_eq!(text_of("u", "text/plain; charset=ISO-8859-1", b"gr\xfcn"), Ok("grün".to_owned()));
        assert_eq!(text_of("u", "text/plain", "\u{feff}a".as_bytes()), Ok("a".to_owned()));
        assert_eq!(text_of("u", "text/plain", b""), Ok(String::new()));
    }

    #[test]
    fn what_is_no_text_is_refused_whatever_it_is_called() {
        for (content_type, body) in [
            ("application/pdf", &b"%PDF-1.7"[..]),
            ("text/html", b"%PDF-1.7"),
            ("image/png", b"\x89PNG"),
            ("application/octet-stream", b"\x7fELF\0\0\0"),
            ("text/plain", b"\xfd\xfc\xfb\xfa\xf9\xf8"),
            ("application/zip", b"PK"),
            ("", b"PK\x03\x04\0\0"),
        ] {
            let failure = text_of("https://a.example/x", content_type, body).expect_err(content_type);
            assert_eq!(failure.code, Code::InvalidRequest, "{content_type}");
            assert!(failure.message.contains("cannot be shown as text"), "{}", failure.message);
        }
    }

    #[test]
    fn a_page_that_is_nested_without_end_is_refused_soon() {
        for html in ["<div><b>".repeat(200_000), "<div></x>".repeat(200_000), "<div></p>".repeat(1_000), "<path/>".repeat(100_000)]
        {
            let begin = std::time::Instant::now();
            let refusal = text_of("u", "text/html", html.as_bytes()).expect_err("refused").message;
            assert!(refusal.contains("nested too deeply") || refusal.contains("open at once"), "{refusal}");
            assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
        }
    }

    #[test]
    fn a_page_that_people_write_is_not() {
        let icons = "<svg><path d=\"M0\"/><g><circle r=\"1\"/></g></svg>".repeat(5_000);
        let select = format!("<select>{}</select>", "<option>a".repeat(10_000));
        let flat = "<p>a<br>b<ul><li>c<li>d</ul><table><tr><td>e<tr><td>f</table>".repeat(2_000);
        let deep = format!("{}x{}", "<div>".repeat(390), "</div>".repeat(390));
        for html in [icons, select, flat, deep] {
            assert!(text_of("u", "text/html", html.as_bytes()).is_ok(), "{}", &html[..60]);
        }
    }
}
