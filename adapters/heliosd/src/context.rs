//! What a command knows: who asked, where, how the answer is to look, and the engine.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use helios_client::Run;
use helix_protocol::Failure;

use crate::console::Console;
use crate::engine::Engine;

/// Who asked, and where.
pub struct Caller {
    /// The folder it was typed in.
    pub cwd: PathBuf,
    /// The terminal's width; 0 where there is none.
    pub columns: u16,
    /// Whether colours can be shown.
    pub colour: bool,
    /// Minutes east of UTC there.
    pub offset_minutes: i16,
    variables: BTreeMap<String, OsString>,
}

/// How answers look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, and for scripts that read git's output.
    Text,
    /// For programs.
    Json,
}

/// A command's surroundings.
pub struct Context<'a> {
    /// The engine that does it.
    pub engine: &'a Engine,
    /// Where the answer goes.
    pub console: Console<'a>,
    /// Who asked.
    pub caller: Caller,
    /// How the answer is to look.
    pub format: Format,
    /// Whether a `--` stands among the command's arguments.
    pub has_dashes: bool,
}

impl Caller {
    /// The caller and the arguments of a request.
    pub fn new(run: Run) -> (Self, Vec<OsString>) {
        let caller = Self {
            cwd: run.cwd.into_os().into(),
            columns: run.columns,
            colour: run.colour,
            offset_minutes: run.offset_minutes.unwrap_or_else(helios_client::offset_minutes),
            variables: run.env.into_iter().map(|(name, value)| (name, value.into_os())).collect(),
        };
        (caller, run.argv.into_iter().map(helios_client::Text::into_os).collect())
    }

    /// A variable of the caller's environment that is not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable that was sent.
    pub fn variables(&self) -> &BTreeMap<String, OsString> {
        &self.variables
    }
}

impl<'a> Context<'a> {
    /// The surroundings of one command.
    pub fn new(engine: &'a Engine, console: Console<'a>, caller: Caller) -> Self {
        Self { engine, console, caller, format: Format::Text, has_dashes: false }
    }

    /// Tells of a failure, and gives the code to end with.
    pub fn tell(&mut self, failure: Failure) -> u8 {
        let json = self.is_json();
        self.console.fail(&self.engine.plain(failure), json)
    }

    /// Whether the answer is to be JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}

/// A duration as people write it: a number and s, m, h, d or w; seconds without a letter.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::duration;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        assert_eq!(
            (duration("48h"), duration("2d"), duration("1w"), duration("90")),
            (hours(48), hours(48), hours(168), Some(Duration::from_secs(90)))
        );
        for wrong in ["", "h", "1y", "-1h", "1.5h", "9999999999999999999w", "ä"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }
}
