//! Figures: the JSON lines that stay, the table for people, and the document made of it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const BEGIN: &str = "<!-- begin: made by make bench -->";
const END: &str = "<!-- end: made by make bench -->";

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    figure: String,
    value: f64,
    unit: String,
    against: String,
    ratio: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
}

impl Figure {
    /// A figure without a goal.
    pub fn new(figure: impl Into<String>, value: f64, unit: &str) -> Self {
        let unit = unit.to_owned();
        Self { figure: figure.into(), value, unit, against: String::new(), ratio: None, goal: None, met: None }
    }

    /// Says what it is to be read beside.
    pub fn against(mut self, against: impl Into<String>) -> Self {
        self.against = against.into();
        self
    }

    /// Sets it beside a value of the same unit.
    pub fn beside(mut self, value: f64) -> Self {
        self.ratio = Some(self.value / value);
        self
    }

    /// Must be this at most.
    pub fn at_most(mut self, most: f64) -> Self {
        self.goal = Some(format!("≤ {} {}", readable(most), self.unit));
        self.met = Some(self.value <= most);
        self
    }
}

/// All figures of a run, those that other benches left in the file before it included.
pub struct Report {
    before: Vec<Figure>,
    figures: Vec<Figure>,
    load: String,
}

impl Report {
    /// Notes the machine's load before anything is measured.
    pub fn begin() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self { before: read(&figures_file()), figures: Vec::new(), load }
    }

    /// Takes figures, and shows them at once: a run is long.
    pub fn take(&mut self, figures: Vec<Figure>) {
        for figure in &figures {
            eprintln!("{}: {} {} {}", figure.figure, readable(figure.value), figure.unit, figure.against);
        }
        self.figures.extend(figures);
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{}", self.document());
    }

    /// Appends the JSON lines.
    pub fn keep(&self) -> Result<()> {
        let path = figures_file();
        create_dir_all(path.parent().context("a file in a folder")?)?;
        let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
        for figure in &self.figures {
            writeln!(file, "{}", serde_json::to_string(figure)?)?;
        }
        Ok(())
    }

    /// Replaces what is between the markers of docs/benchmarks.md.
    pub fn write(&self) -> Result<()> {
        let path = root().join("docs/benchmarks.md");
        let old = std::fs::read_to_string(&path)
            .unwrap_or_else(|_| format!("# Benchmarks\n\nWhat `make bench` printed, and nothing else.\n\n{BEGIN}\n{END}\n"));
        let (head, rest) = old.split_once(BEGIN).with_context(|| format!("{} has no line {BEGIN}", path.display()))?;
        let (_, tail) = rest.split_once(END).with_context(|| format!("{} has no line {END}", path.display()))?;
        std::fs::write(&path, format!("{head}{BEGIN}\n{}\n{END}{tail}", self.document()))?;
        Ok(())
    }

    fn document(&self) -> String {
        let mut text = format!("{}\n", machine(&self.load));
        text.push_str("| figure | value | beside | ratio | goal | met |\n|---|---:|---|---:|---|---|\n");
        for figure in self.before.iter().chain(&self.figures) {
            let Figure { figure, value, unit, against, ratio, goal, met } = figure;
            let ratio = ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
            let met = met.map_or("", |met| if met { "yes" } else { "no" });
            let goal = goal.as_deref().unwrap_or_default();
            writeln!(text, "| {figure} | {} {unit} | {against} | {ratio} | {goal} | {met} |", readable(*value))
                .expect("writing to a string");
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

fn machine(load: &str) -> String {
    let arguments: String = std::env::args().skip(1).map(|argument| format!(" {argument}")).collect();
    let (command, profile) = match cfg!(debug_assertions) {
        true => ("PROFILE=dev make bench", "dev"),
        false => ("make bench", "release"),
    };
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
    let postgres = postgres_version().unwrap_or_else(|| "PostgreSQL not found".to_owned());
    format!(
        "Made by `{command}` (`spine{arguments}`), {profile} profile, helix {}. {cpu}, {cores} cores, {memory}{kernel}; load before the \
         run {load}; data folders on {disk}; {rust}; {postgres}.\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn postgres_version() -> Option<String> {
    let mut programs: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin/postgres")).collect();
    programs.sort();
    let output = Command::new(programs.pop()?).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &Path) -> Vec<Figure> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `target/figures/spine.jsonl` under the workspace's target folder.
fn figures_file() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("figures/spine.jsonl")
}
