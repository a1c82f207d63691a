//! The protocol between a client and the engine: one JSON object per line, both ways. docs/helios-protocol.md is its manual.
//!
//! A client says [`Hello`], and may send its first [`Request`] with it; the engine says [`Welcome`], then answers. A connection
//! carries one request at a time. Bytes that are not UTF-8 travel as `{"base64": "…"}` where a text could stand.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

use helix_protocol::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base64;

/// The version of the protocol. A peer of another one is refused with a message.
pub const PROTOCOL: u32 = 1;

/// The release this program is of.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The longest line either side reads, in bytes: 64 MiB. More in one commit goes in several.
pub const LONGEST_LINE: u64 = 64 << 20;

/// A client's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The protocol's version.
    pub helios: u32,
    /// The client's release. An engine of an older one that has nothing to do makes room for a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// The engine's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol's version.
    pub helios: u32,
    /// The engine's release.
    pub release: String,
    /// Its process.
    pub pid: u32,
    /// It is older than the client, has nothing to do, and leaves: start another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// What a client asks: the operation's name in `op`, an `id` that every answer repeats, and the operation's own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated in each answer.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub id: Value,
    /// The operation.
    pub op: String,
    /// Its fields.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, Value>,
}

/// The operation `run`: a command line, carried out as if it ran where the client does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The arguments, without the program's name.
    pub argv: Vec<Text>,
    /// The folder it is run in.
    pub cwd: Text,
    /// The variables that matter.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// The terminal's width; 0 where there is no terminal.
    #[serde(default)]
    pub columns: u16,
    /// Whether colours can be shown.
    #[serde(default)]
    pub colour: bool,
    /// Minutes east of UTC at the client; `None` where it keeps the machine's time, which the engine knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_minutes: Option<i16>,
}

/// A text, or bytes that are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// UTF-8.
    Utf8(String),
    /// Anything.
    Bytes {
        /// The bytes.
        base64: Encoded,
    },
}

/// Bytes that are base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Encoded(pub Vec<u8>);

/// What the engine answers. Output comes in any number of lines; `exit`, `ok` or `error` is the last one of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Goes to standard output.
    Stdout(Text),
    /// Goes to standard error.
    Stderr(Text),
    /// Something happened that was asked to be told of.
    Event(Value),
    /// A command has ended with this code.
    Exit(u8),
    /// An operation has succeeded.
    Ok(Value),
    /// An operation was refused or has failed.
    Error(Failure),
}

/// An answer with the id of what it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The request's.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub id: Value,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Text {
    /// Text where it is UTF-8.
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Bytes { base64: Encoded(bytes.to_vec()) },
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Bytes { base64 } => &base64.0,
        }
    }

    /// The bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Utf8(text) => text.into_bytes(),
            Self::Bytes { base64 } => base64.0,
        }
    }

    /// As the system takes it.
    pub fn into_os(self) -> OsString {
        match self {
            Self::Utf8(text) => text.into(),
            Self::Bytes { base64 } => OsString::from_vec(base64.0),
        }
    }
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Self {
        Self::new(text.as_bytes())
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Utf8(String::new())
    }
}

impl TryFrom<String> for Encoded {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        base64::decode(&text).map(Self).ok_or_else(|| "this is not base64".to_owned())
    }
}

impl From<Encoded> for String {
    fn from(encoded: Encoded) -> Self {
        base64::encode(&encoded.0)
    }
}

/// A release as it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Release {
    /// This program's.
    pub fn own() -> Self {
        RELEASE.parse().expect("cargo gives a version of three numbers")
    }
}

impl FromStr for Release {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = plain.split('.').map(|part| part.parse().map_err(|_| ()));
        let mut next = || parts.next().unwrap_or(Err(()));
        let release = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(()) } else { Ok(release) }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether a variable of the client's environment goes with a command.
pub fn is_environment_that_matters(name: &str) -> bool {
    const NAMES: [&str; 6] = ["HOME", "USER", "LOGNAME", "EMAIL", "NO_COLOR", "XDG_CONFIG_HOME"];
    NAMES.contains(&name) || ["HELIOS_", "GIT_AUTHOR_", "GIT_COMMITTER_"].iter().any(|prefix| name.starts_with(prefix))
}

/// The next line without its end; `None` at the end of the stream, also in the middle of a line. A line beyond
/// [`LONGEST_LINE`] is an `InvalidData`.
pub fn read_line<'b>(stream: &mut impl BufRead, line: &'b mut Vec<u8>) -> io::Result<Option<&'b [u8]>> {
    line.clear();
    stream.take(LONGEST_LINE + 1).read_until(b'\n', line)?;
    match line.strip_suffix(b"\n") {
        Some(whole) => Ok(Some(whole)),
        None if line.len() as u64 > LONGEST_LINE => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line is longer than {LONGEST_LINE} bytes")))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_written_as_the_manual_says() {
        let written = |answer: Answer| serde_json::to_value(Line { id: json!(7), answer }).expect("it is JSON");
        assert_eq!(written(Answer::Stdout(Text::new(b"a\n"))), json!({"id": 7, "stdout": "a\n"}));
        assert_eq!(written(Answer::Stderr(Text::new(b"\xff"))), json!({"id": 7, "stderr": {"base64": "/w=="}}));
        assert_eq!(written(Answer::Exit(1)), json!({"id": 7, "exit": 1}));
        assert_eq!(
            serde_json::to_value(Line { id: Value::Null, answer: Answer::Exit(0) }).expect("it is JSON"),
            json!({"exit": 0})
        );
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let refused = serde_json::from_value::<Run>(json!({"argv": [], "cwd": "/", "colums": 80})).expect_err("a wrong field");
        assert!(refused.to_string().contains("unknown field `colums`"), "{refused}");
        assert!(serde_json::from_value::<Hello>(json!({"helios": 1, "hi": true})).is_err());
    }

    #[test]
    fn a_line_that_never_ends_is_refused_and_a_cut_one_is_the_end() {
        let mut line = Vec::new();
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert_eq!(read_line(&mut endless, &mut line).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        let mut cut: &[u8] = b"whole\ncu";
        assert_eq!(read_line(&mut cut, &mut line).expect("read"), Some(&b"whole"[..]));
        assert_eq!(read_line(&mut cut, &mut line).expect("read"), None);
    }

    #[test]
    fn releases_are_compared_by_number() {
        let release = |text: &str| text.parse::<Release>();
        assert!(release("0.9.1") < release("0.10.0"));
        assert_eq!(release("1.2.3-rc1"), release("1.2.3"));
        for wrong in ["", "1", "1.2", "1.2.x", "1.2.3.4"] {
            assert_eq!(release(wrong), Err(()), "{wrong:?}");
        }
    }

    fn texts() -> impl Strategy<Value = Text> {
        prop_oneof![".{0,8}".prop_map(Text::Utf8), prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Text::new(&bytes))]
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = serde_json::from_slice::<Request>(&bytes) {
                let again = serde_json::to_vec(&request).expect("what was read can be written");
                prop_assert_eq!(serde_json::from_slice::<Request>(&again).expect("and read again"), request);
            }
        }

        #[test]
        fn a_damaged_request_is_read_as_one_or_refused(
            argv in prop::collection::vec(texts(), 0..4), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let run = Run { argv, cwd: Text::new(b"/"), ..Run::default() };
            let mut bytes = serde_json::to_vec(&run).expect("it is JSON");
            for (place, value) in flips {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if let Ok(read) = serde_json::from_slice::<Run>(&bytes) {
                let again = serde_json::to_vec(&read).expect("what was read can be written");
                prop_assert_eq!(serde_json::from_slice::<Run>(&again).expect("and read again"), read);
            }
        }

        #[test]
        fn a_run_survives_its_line(argv in prop::collection::vec(texts(), 0..4), cwd in texts(), columns in any::<u16>(), offset_minutes in any::<Option<i16>>()) {
            let run = Run { argv, cwd, columns, offset_minutes, ..Run::default() };
            let line = serde_json::to_string(&run).expect("it is JSON");
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<Run>(&line).expect("its own line"), run);
        }
    }
}
