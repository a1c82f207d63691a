//! Figures: the JSON lines that stay, the table for people, and the document made of it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// What the document shows.
    Full,
    /// A few of everything, to see that it works.
    Quick,
}

impl Scale {
    /// A count, or the smaller one.
    pub fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// What was asked for on the command line.
pub struct Asked {
    /// How much is measured.
    pub scale: Scale,
    /// Whether the document gets the table.
    pub write: bool,
    only: Vec<String>,
}

impl Asked {
    /// Reads the arguments of a bench of these parts.
    pub fn read(parts: &[&str]) -> Result<Self> {
        let mut asked = Self { scale: Scale::Full, write: false, only: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // `cargo bench` adds it.
                "--bench" => {}
                "--quick" => asked.scale = Scale::Quick,
                "--write" => asked.write = true,
                "--only" => {
                    let part = arguments.next().filter(|part| parts.contains(&part.as_str()));
                    asked.only.push(part.with_context(|| format!("--only takes {}", parts.join("|")))?);
                }
                other => bail!("{other} is not known: --quick, --write, --only {}", parts.join("|")),
            }
        }
        Ok(asked)
    }

    /// Whether a part is to be measured.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub figure: String,
    pub value: f64,
    pub unit: String,
    against: String,
    /// So many times better than what it is set beside.
    pub ratio: Option<f64>,
    pub goal: Option<String>,
    pub met: Option<bool>,
    /// The machine was too restless for it: the value says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
}

impl Figure {
    /// A figure without a goal.
    pub fn new(figure: impl Into<String>, value: f64, unit: &str) -> Self {
        let unit = unit.to_owned();
        Self { figure: figure.into(), value, unit, against: String::new(), ratio: None, goal: None, met: None, unmeasured: false }
    }

    /// Says what it is to be read beside.
    pub fn against(mut self, against: impl Into<String>) -> Self {
        self.against = against.into();
        self
    }

    /// Says more of that.
    pub fn and_beside(mut self, more: &str) -> Self {
        if !self.against.is_empty() {
            self.against.push_str("; ");
        }
        self.against.push_str(more);
        self
    }

    /// Takes the value back, and says why.
    pub fn not_measured(mut self, why: &str) -> Self {
        (self.value, self.ratio, self.met, self.unmeasured) = (0.0, None, None, true);
        self.against = why.to_owned();
        self
    }

    /// The value as the table shows it.
    fn shown(&self) -> String {
        if self.unmeasured { "not measured".to_owned() } else { format!("{} {}", readable(self.value), self.unit) }
    }

    /// Sets it beside a value of the same unit.
    pub fn beside(mut self, value: f64) -> Self {
        self.ratio = Some(self.value / value);
        self
    }

    /// So many times faster, or smaller, than what it is set beside; it must be `least` times or more.
    pub fn times(mut self, times: f64, least: Option<f64>) -> Self {
        self.ratio = Some(times);
        self.goal = least.map(|least| format!("≥ {}×", readable(least)));
        self.met = least.map(|least| times >= least);
        self
    }

    /// Must be this at least.
    pub fn at_least(mut self, least: f64) -> Self {
        self.goal = Some(format!("≥ {} {}", readable(least), self.unit));
        self.met = Some(self.value >= least);
        self
    }

    /// Must be this at most.
    pub fn at_most(mut self, most: f64) -> Self {
        self.goal = Some(format!("≤ {} {}", readable(most), self.unit));
        self.met = Some(self.value <= most);
        self
    }
}

/// Which bench it is.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Its name: the figures are in `target/figures/NAME.jsonl`, the table between the markers `NAME` of docs/benchmarks.md.
    pub name: &'static str,
    /// The command that people type for it.
    pub command: &'static str,
    /// Programs it is measured beside, with the argument that makes them say their version.
    pub beside: &'static [(&'static str, &'static str)],
}

impl Bench {
    fn begin(self) -> String {
        format!("<!-- begin: made by {} -->", self.command)
    }

    fn end(self) -> String {
        format!("<!-- end: made by {} -->", self.command)
    }

    /// `target/figures/NAME.jsonl` under the workspace's target folder.
    fn file(self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        target.join("figures").join(self.name).with_extension("jsonl")
    }
}

/// All figures of a run, those that other benches left in the file before it included.
pub struct Report {
    bench: Bench,
    before: Vec<Figure>,
    figures: Vec<Figure>,
    load: String,
}

impl Report {
    /// Notes the machine's load before anything is measured.
    pub fn begin(bench: Bench) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self { bench, before: read(&bench.file()), figures: Vec::new(), load }
    }

    /// Takes figures, and shows them at once: a run is long.
    pub fn take(&mut self, figures: Vec<Figure>) {
        for figure in &figures {
            eprintln!("{}: {} {}", figure.figure, figure.shown(), figure.against);
        }
        self.figures.extend(figures);
    }

    /// Prints the table; keeps the figures of a full run; writes them into the document where that was asked for, with what `above`
    /// makes of them over the table.
    pub fn end(&self, asked: &Asked, above: impl FnOnce(&[Figure]) -> Result<String>) -> Result<()> {
        self.print();
        if asked.scale == Scale::Full {
            self.keep()?;
        }
        if asked.write {
            self.write(&above(&self.figures())?)?;
        }
        Ok(())
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{}", self.document());
    }

    /// Appends the JSON lines.
    fn keep(&self) -> Result<()> {
        let path = self.bench.file();
        create_dir_all(path.parent().context("a file in a folder")?)?;
        let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
        for figure in &self.figures {
            writeln!(file, "{}", serde_json::to_string(figure)?)?;
        }
        Ok(())
    }

    /// Replaces what is between the bench's markers of docs/benchmarks.md, with `above` over the table.
    fn write(&self, above: &str) -> Result<()> {
        let path = root().join("docs/benchmarks.md");
        let (begin, end) = (self.bench.begin(), self.bench.end());
        let old = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (head, rest) = old.split_once(&begin).with_context(|| format!("{} has no line {begin}", path.display()))?;
        let (_, tail) = rest.split_once(&end).with_context(|| format!("{} has no line {end}", path.display()))?;
        std::fs::write(&path, format!("{head}{begin}\n{above}{}\n{end}{tail}", self.document()))?;
        Ok(())
    }

    /// Every figure, in the order of the table.
    fn figures(&self) -> Vec<Figure> {
        self.before.iter().chain(&self.figures).cloned().collect()
    }

    fn document(&self) -> String {
        let mut text = format!("{}\n", machine(self.bench, &self.load));
        text.push_str("| figure | value | beside | ratio | goal | met |\n|---|---:|---|---:|---|---|\n");
        for figure in self.before.iter().chain(&self.figures) {
            let Figure { figure: name, against, ratio, goal, met, .. } = figure;
            let ratio = ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
            let met = met.map_or("", |met| if met { "yes" } else { "no" });
            let goal = goal.as_deref().unwrap_or_default();
            let value = figure.shown();
            writeln!(text, "| {name} | {value} | {against} | {ratio} | {goal} | {met} |").expect("writing to a string");
        }
        text
    }
}

/// A number with as many digits as say something.
pub fn readable(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        small if small < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

fn machine(bench: Bench, load: &str) -> String {
    let arguments: String = std::env::args().skip(1).map(|argument| format!(" {argument}")).collect();
    let (prefix, profile) = if cfg!(debug_assertions) { ("PROFILE=dev ", "dev") } else { ("", "release") };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let memory = kib.map_or_else(String::new, |kib| format!("{} MiB of memory, ", kib / 1024));
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let kernel = said("uname", &["-sr"]).unwrap_or_default();
    let rust = said("rustc", &["--version"]).unwrap_or_default();
    let folder = std::env::temp_dir();
    let disk = said("df", &["--output=fstype", &folder.display().to_string()]).unwrap_or_default();
    let disk = disk.lines().last().unwrap_or("an unknown file system");
    let beside =
        bench.beside.iter().map(|(program, argument)| said(program, &[argument]).unwrap_or_else(|| format!("no {program}")));
    let beside = beside.collect::<Vec<_>>().join("; ");
    format!(
        "Made by `{prefix}{}` (`{}{arguments}`), {profile} profile, version {}. {cpu}, {cores} cores, {memory}{kernel}; load before \
         the run {load}; data folders on {disk}; {rust}; {beside}.\n",
        bench.command,
        bench.name,
        env!("CARGO_PKG_VERSION")
    )
}

fn read(path: &Path) -> Vec<Figure> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The top of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The value below which `share` of the sorted values are.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Least, median and p95 of some durations in milliseconds, as one figure's value and its companions.
pub fn durations(name: &str, mut millis: Vec<f64>, goal_ms: Option<f64>, against: String) -> Vec<Figure> {
    millis.sort_by(f64::total_cmp);
    let median = quantile(&millis, 0.5);
    let figure = Figure::new(format!("{name}: median of {}", millis.len()), median, "ms").against(against);
    vec![
        match goal_ms {
            Some(goal_ms) => figure.at_most(goal_ms),
            None => figure,
        },
        Figure::new(format!("{name}: least"), millis.first().copied().unwrap_or(f64::NAN), "ms"),
        Figure::new(format!("{name}: p95"), quantile(&millis, 0.95), "ms"),
    ]
}
