//! How output looks: colours where a terminal shows them, columns, and times as people say them.

use std::io::IsTerminal;

use helix_protocol::{Money, TaskStatus, Timestamp};
pub use helix_protocol::{bytes_in_words as bytes, mib_in_words as mebibytes};

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As written.
    Plain,
    /// With ANSI colours.
    Coloured,
}

impl Style {
    /// Colours where standard output is a terminal and nobody said otherwise (`--no-color`, NO_COLOR, TERM=dumb).
    pub fn of_stdout(no_color: bool) -> Self {
        let refused = no_color
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !refused && std::io::stdout().is_terminal() { Self::Coloured } else { Self::Plain }
    }

    fn paint(self, code: &str, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured if text.is_empty() => String::new(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// What matters.
    pub fn bold(self, text: impl AsRef<str>) -> String {
        self.paint("1", text)
    }

    /// What is there for completeness.
    pub fn dim(self, text: impl AsRef<str>) -> String {
        self.paint("2", text)
    }

    /// What went well.
    pub fn green(self, text: impl AsRef<str>) -> String {
        self.paint("32", text)
    }

    /// What failed.
    pub fn red(self, text: impl AsRef<str>) -> String {
        self.paint("31", text)
    }

    /// What somebody might look at.
    pub fn yellow(self, text: impl AsRef<str>) -> String {
        self.paint("33", text)
    }

    /// What is in motion.
    pub fn cyan(self, text: impl AsRef<str>) -> String {
        self.paint("36", text)
    }

    /// A task's state in its colour.
    pub fn status(self, status: TaskStatus) -> String {
        let word = status.as_str();
        match status {
            TaskStatus::Completed => self.green(word),
            TaskStatus::Failed => self.red(word),
            TaskStatus::Running | TaskStatus::Assigned => self.cyan(word),
            TaskStatus::WaitingForInput | TaskStatus::WaitingForWorker | TaskStatus::Paused => self.yellow(word),
            _ => self.dim(word),
        }
    }
}

/// Columns, aligned by what is seen; the last one is as wide as it is.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table under these headings.
    pub fn new(style: Style, headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| style.dim(heading)).collect()] }
    }

    /// Columns without headings.
    pub fn bare() -> Self {
        Self::default()
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Every row on a line.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| seen(cell)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if column + 1 < row.len() {
                    line.push_str(&" ".repeat(widths[column] - seen(cell) + 2));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// How many columns a text takes on a terminal, escape sequences aside.
fn seen(text: &str) -> usize {
    let mut count = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(|c| *c == 'm');
        } else {
            count += 1;
        }
    }
    count
}

/// How wide the terminal is that standard output goes to; `None` where it goes elsewhere.
pub fn terminal_columns() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = if stdout.is_terminal() { rustix::termios::tcgetwinsize(&stdout).ok()? } else { return None };
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Cuts each line where a terminal of so many columns would break it, and shows the cut as `…`.
pub fn fit(text: &str, columns: usize) -> String {
    text.split_inclusive('\n').map(|line| fit_line(line, columns)).collect()
}

fn fit_line(line: &str, columns: usize) -> String {
    let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
    if seen(content) <= columns {
        return line.to_owned();
    }
    let (mut out, mut count, mut coloured, mut chars) = (String::with_capacity(line.len()), 0, false, content.chars());
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            coloured = true;
            out.push(c);
            out.extend(chars.by_ref().take_while(|c| *c != 'm'));
            out.push('m');
        } else if count + 1 < columns {
            count += 1;
            out.push(c);
        } else {
            break;
        }
    }
    out.push('…');
    if coloured {
        out.push_str("\x1b[0m");
    }
    out + end
}

/// At most `most` characters; what is cut is shown as `…`. Control characters are shown as spaces.
pub fn cut(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= most { clean } else { clean.chars().take(most.saturating_sub(1)).chain(['…']).collect() }
}

/// `12,345`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Dollars with four decimals: fractions of a cent matter in sums of many steps.
pub fn dollars(money: Money) -> String {
    let sign = if money.0 < 0 { "-" } else { "" };
    let tenths = (money.0.unsigned_abs() + 50) / 100;
    format!("{sign}${}.{:04}", tenths / 10_000, tenths % 10_000)
}

/// `340 ms`, `12 s`, `5 min`, `3 h`, `2 d`: how long something took or how long ago it was.
pub fn span(micros: i64) -> String {
    let ms = micros.max(0) / 1_000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// How long ago.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    span(now.0 - at.0)
}

/// `20:31:04.123`, UTC.
pub fn time_of_day(at: Timestamp) -> String {
    let ms = at.0.div_euclid(1_000).rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_is_seen_not_by_escape_sequences() {
        let mut table = Table::new(Style::Coloured, &["A", "B"]);
        table.row([Style::Coloured.red("failed"), "x".to_owned()]);
        assert_eq!(table.render(), "\x1b[2mA\x1b[0m       \x1b[2mB\x1b[0m\n\x1b[31mfailed\x1b[0m  x\n");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 49, 50, 1_230_000, -1_500].map(|micros| dollars(Money(micros))),
            ["$0.0000", "$0.0000", "$0.0001", "$1.2300", "-$0.0015"]
        );
        assert_eq!(
            [340_000, 12_000_000, 300_000_000, 10_800_000_000, 172_800_000_000].map(span),
            ["340 ms", "12 s", "5 min", "3 h", "2 d"]
        );
        assert_eq!(time_of_day(Timestamp(86_399_999_000)), "23:59:59.999");
    }

    #[test]
    fn lines_are_cut_where_the_terminal_ends_and_colours_with_them() {
        assert_eq!(fit("abcde\nabcdef\n", 5), "abcde\nabcd…\n");
        assert_eq!(fit("\x1b[1mabc\x1b[0mdef", 5), "\x1b[1mabc\x1b[0md…\x1b[0m");
        assert_eq!(fit("\x1b[1mabcdef\x1b[0m", 4), "\x1b[1mabc…\x1b[0m");
    }

    #[test]
    fn what_is_cut_says_so_and_carries_no_control_characters() {
        assert_eq!(cut("a\tb\nc", 10), "a b c");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
