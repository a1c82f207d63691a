//! Log lines on standard error: for a person, or as JSON.
//!
//! What a task prints, reads or asks a model never goes through here. It is spooled, and shown by
//! `helix task log`; a field of an event is cut at [`FIELD_LIMIT`] bytes so that it cannot slip in
//! by mistake.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use helix_protocol::{Code, Failure};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that says what is logged, in the syntax of `EnvFilter`:
/// `debug`, or `info,helix_link=trace`.
pub const VARIABLE: &str = "HELIX_LOG";

/// The most bytes of one field that are logged.
pub const FIELD_LIMIT: usize = 2048;

/// For how long the repeats of a line are counted instead of written.
const COLLAPSE: Duration = Duration::from_secs(10);

/// How many different lines are remembered at most.
const REMEMBERED: usize = 512;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `2026-01-01T00:00:00.000000Z  WARN helix_kernel: restarting child=router`
    #[default]
    Human,
    /// One JSON object a line, with `timestamp`, `level`, `target`, `message`, the fields, and in
    /// `within` the spans around it.
    Json,
}

/// Logs to standard error from now on, `default` where HELIX_LOG says nothing.
///
/// Refused with `invalid_config` where either cannot be read, or somebody else logs already.
pub fn init(format: Format, default: &str) -> Result<(), Failure> {
    let (directives, origin) = match std::env::var(VARIABLE) {
        Ok(directives) if !directives.trim().is_empty() => (directives, VARIABLE),
        _ => (default.to_owned(), "the log level"),
    };
    let filter = filter(&directives).map_err(|error| {
        Failure::new(Code::InvalidConfig, format!("{origin} is {directives:?}, which cannot be read: {error}"))
            .hint("use error, warn, info, debug or trace, or a list such as info,helix_kernel=debug")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .event_format(Lines::new(format))
        .finish()
        .try_init()
        .map_err(|error| Failure::new(Code::InvalidConfig, format!("the log is set up already: {error}")))
}

/// What is logged. ractor opens a span for every actor, and carrying it along costs each message a third more; actix tells of its
/// own threads, which nobody asked about. Whoever names them in the directives has them.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("ractor=warn,actix_server=warn,{directives}"))
}

/// Writes each event as one line, and a line that repeats within [`COLLAPSE`] once: how often it
/// was repeated is written when that time is over and something else is logged.
struct Lines {
    format: Format,
    repeats: Mutex<Repeats>,
}

impl Lines {
    fn new(format: Format) -> Self {
        Self { format, repeats: Mutex::new(Repeats::default()) }
    }

    fn write(&self, writer: &mut Writer<'_>, line: &Line) -> fmt::Result {
        match self.format {
            Format::Human => line.human(writer),
            Format::Json => line.json(writer),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::of(event);
        let mut spans = Limited(String::new());
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.as_str());
            // The only error it gives is its own limit, which is what is wanted.
            let _ = write!(spans, "{}{}{{{fields}}}", if spans.0.is_empty() { "" } else { ":" }, span.name());
        }
        if !spans.0.is_empty() {
            line.fields.push(("within", Value::Text(spans.0)));
        }
        let Verdict { expired, write } = self.repeats.lock().see(&line, Instant::now());
        for repeat in expired {
            self.write(&mut writer, &repeat)?;
        }
        if write { self.write(&mut writer, &line) } else { Ok(()) }
    }
}

/// One event, taken out of its borrow.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    level: &'static str,
    target: String,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

/// A field's value: a number stays one in JSON.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Plain(String),
    Text(String),
}

impl Line {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        };
        let mut line = Line { level, target: metadata.target().to_owned(), ..Line::default() };
        event.record(&mut line);
        line
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.level, &self.target, &self.message).hash(&mut hasher);
        for (name, value) in &self.fields {
            let (Value::Plain(value) | Value::Text(value)) = value;
            (name, value).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn human(&self, writer: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        write!(writer, " {:>5} {}: {}", self.level, self.target, self.message)?;
        for (name, value) in &self.fields {
            match value {
                Value::Plain(value) => write!(writer, " {name}={value}")?,
                Value::Text(value) if value.contains([' ', '"', '\n', '=']) => write!(writer, " {name}={value:?}")?,
                Value::Text(value) => write!(writer, " {name}={value}")?,
            }
        }
        writer.write_char('\n')
    }

    fn json(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(writer)?;
        write!(
            writer,
            "\",\"level\":\"{}\",\"target\":{},\"message\":{}",
            self.level,
            Quoted(&self.target),
            Quoted(&self.message)
        )?;
        for (name, value) in &self.fields {
            match value {
                Value::Plain(value) => write!(writer, ",{}:{value}", Quoted(name))?,
                Value::Text(value) => write!(writer, ",{}:{}", Quoted(name), Quoted(value))?,
            }
        }
        writer.write_str("}\n")
    }

    fn field(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Plain(text) | Value::Text(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Limited(String::new());
        // The only error it gives is its own limit, which is what is wanted.
        let _ = write!(text, "{value:?}");
        self.field(field, Value::Text(text.0));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Limited(String::new());
        let _ = text.write_str(value);
        self.field(field, Value::Text(text.0));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, Value::Plain(value.to_string()));
    }
}

/// Takes text up to [`FIELD_LIMIT`] bytes.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = FIELD_LIMIT - self.0.len().min(FIELD_LIMIT);
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// Text as a JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Lines that were written lately, and how often each was repeated since.
#[derive(Default)]
struct Repeats {
    lately: HashMap<u64, (Line, Instant, u64)>,
}

struct Verdict {
    /// What was repeated and is now over.
    expired: Vec<Line>,
    /// Whether the line itself is to be written.
    write: bool,
}

impl Repeats {
    fn see(&mut self, line: &Line, now: Instant) -> Verdict {
        let mut expired = Vec::new();
        let full = self.lately.len() >= REMEMBERED;
        self.lately.retain(|_, (line, since, times)| {
            let over = full || now.duration_since(*since) >= COLLAPSE;
            if over && *times > 0 {
                let mut repeat = line.clone();
                repeat.fields.push(("repeated", Value::Plain(times.to_string())));
                expired.push(repeat);
            }
            !over
        });
        let hash = line.hash();
        match self.lately.get_mut(&hash) {
            Some((_, _, times)) => {
                *times += 1;
                Verdict { expired, write: false }
            }
            None => {
                self.lately.insert(hash, (line.clone(), now, 0));
                Verdict { expired, write: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Written;

        fn make_writer(&'a self) -> Written {
            self.clone()
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().clone()).expect("text").lines().map(str::to_owned).collect()
        }
    }

    fn logging(format: Format) -> (Written, tracing::subscriber::DefaultGuard) {
        let written = Written::default();
        let lines = Lines::new(format);
        let subscriber = tracing_subscriber::fmt().with_writer(written.clone()).with_ansi(false).event_format(lines).finish();
        (written, tracing::subscriber::set_default(subscriber))
    }

    #[test]
    fn what_libraries_say_of_themselves_is_heard_by_who_asks_for_it() {
        for (directives, expected) in [("info", 2), ("debug", 2), ("info,actix_server=info", 3)] {
            let written = Written::default();
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter(directives).expect("directives"));
            let subscriber = subscriber.with_writer(written.clone()).event_format(Lines::new(Format::Human)).finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(target: "actix_server::builder", "starting 2 workers");
                tracing::warn!(target: "actix_server::worker", "a worker ended");
                tracing::info!(target: "helix", "ready");
            });
            assert_eq!(written.lines().len(), expected, "{directives}: {:?}", written.lines());
        }
    }

    #[test]
    fn a_person_reads_one_line_per_event() {
        let (written, _guard) = logging(Format::Human);
        tracing::warn!(target: "helix", child = "the router", tries = 3, late = true, "restarting");
        let lines = written.lines();
        let (time, line) = lines[0].split_once(' ').expect("a time and the rest");
        assert!(time.ends_with('Z') && time.starts_with("20"), "{time}");
        assert_eq!((lines.len(), line), (1, " WARN helix: restarting child=\"the router\" tries=3 late=true"));
    }

    #[test]
    fn a_program_reads_one_object_per_event_whatever_is_in_it() {
        let (written, _guard) = logging(Format::Json);
        let nasty = "quote \" backslash \\ newline \n bell \u{7} ü";
        tracing::info!(target: "helix", nasty, tries = -3, "it {}", "happened");
        let mut line: serde_json::Value = serde_json::from_str(&written.lines()[0]).expect("an object");
        let time = line["timestamp"].take();
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z')));
        let expected = serde_json::json!({
            "timestamp": null, "level": "INFO", "target": "helix", "message": "it happened", "nasty": nasty, "tries": -3
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_says_within_what_it_happened() {
        let (written, _guard) = logging(Format::Human);
        tracing::info_span!("task", id = 7).in_scope(|| {
            tracing::info_span!("step", ordinal = 3).in_scope(|| tracing::info!(target: "helix", "committed"));
        });
        let lines = written.lines();
        let (_, line) = lines[0].split_once(' ').expect("a time and the rest");
        assert_eq!(line, " INFO helix: committed within=\"task{id=7}:step{ordinal=3}\"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_repeats_is_written_once_and_then_counted() {
        let (written, _guard) = logging(Format::Json);
        for _ in 0..1_000 {
            tracing::warn!(worker = "w1", "no connection");
        }
        tracing::warn!(worker = "w2", "no connection");
        assert_eq!(written.lines().len(), 2, "another field is another line");
        tokio::time::advance(COLLAPSE).await;
        tracing::warn!(worker = "w1", "no connection");
        let lines: Vec<serde_json::Value> =
            written.lines().iter().map(|line| serde_json::from_str(line).expect("an object")).collect();
        let repeated: Vec<_> = lines.iter().map(|line| (line["worker"].as_str(), line["repeated"].as_u64())).collect();
        assert_eq!(repeated, [(Some("w1"), None), (Some("w2"), None), (Some("w1"), Some(999)), (Some("w1"), None)]);
    }

    #[test]
    fn many_different_lines_do_not_fill_the_memory() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for count in 0..10 * REMEMBERED {
            let line = Line { message: count.to_string(), ..Line::default() };
            assert!(repeats.see(&line, now).write);
            assert!(repeats.lately.len() <= REMEMBERED);
        }
    }

    #[test]
    fn a_field_is_cut_so_that_no_output_slips_in() {
        let (written, _guard) = logging(Format::Json);
        let output = "ü".repeat(FIELD_LIMIT);
        tracing::info!(output, "done");
        let line: serde_json::Value = serde_json::from_str(&written.lines()[0]).expect("an object");
        assert_eq!(line["output"].as_str().map(str::len), Some(FIELD_LIMIT + '…'.len_utf8()));
    }
}
