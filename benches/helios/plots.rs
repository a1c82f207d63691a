//! Plots of the figures, as SVG files beside the document: how many times faster and smaller, and commits as a repository grows.
//!
//! They are drawn on nothing and take their colours from what the reader prefers, so they are readable on light and dark.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::commands::BARE;
use crate::report::{Figure, readable};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 400.0;
const ROW: f64 = 22.0;
const STYLE: &str = "<style>text{font:12px system-ui,sans-serif;fill:#24292f}.line{stroke:#8c959f}.ours{fill:#1a7f37;stroke:#1a7f37}\
.miss{fill:#9a6700}.other{fill:#57606a;stroke:#57606a}.goal{stroke:#cf222e;stroke-width:2}.path{fill:none;stroke-width:2}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#3fb950;stroke:#3fb950}.miss{fill:#d29922}\
.other{fill:#9198a1;stroke:#9198a1}}</style>";

/// Draws what can be drawn of `figures` into the folder `plots` of the documents, and gives the lines that show it.
pub fn write(figures: &[Figure], documents: &Path) -> Result<String> {
    let folder = documents.join("plots");
    std::fs::create_dir_all(&folder)?;
    let with_unit = |units: &[&str]| -> Vec<&Figure> {
        // What the file system itself takes is no tool to be faster than.
        let drawn = |figure: &&Figure| figure.ratio.is_some() && !figure.figure.contains(BARE);
        figures.iter().filter(|figure| drawn(figure) && units.contains(&figure.unit.as_str())).collect()
    };
    let (faster, smaller) = ("times faster, and the goal (red)", "times smaller, and the goal (red)");
    let grows = "milliseconds of one commit, by files in the repository";
    let plots = [
        ("helios-faster.svg", faster, bars(faster, &with_unit(&["ms", "µs", "commits/s"]))),
        ("helios-smaller.svg", smaller, bars(smaller, &with_unit(&["KiB"]))),
        ("helios-commits.svg", grows, growth(grows, &growing(figures))),
    ];
    let mut shown = String::new();
    for (name, title, plot) in plots {
        if let Some(plot) = plot {
            std::fs::write(folder.join(name), plot)?;
            writeln!(shown, "![{title}](plots/{name})")?;
        }
    }
    if !shown.is_empty() {
        shown.push_str("\nBoth scales are of powers: a bar of twice the length is not twice as fast. Bars of another colour miss the goal.\n\n");
    }
    Ok(shown)
}

fn begin(height: f64, title: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">{STYLE}\n\
         <text x=\"8\" y=\"18\" font-weight=\"600\">{title}</text>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// One bar for each figure's ratio, on a scale of powers; green where the goal is met.
fn bars(title: &str, figures: &[&Figure]) -> Option<String> {
    let ratios: Vec<f64> = figures.iter().filter_map(|figure| figure.ratio).collect();
    let least = ratios.iter().copied().fold(1.0, f64::min).log10().floor();
    let most = ratios.iter().copied().fold(10.0, f64::max).log10().ceil();
    if figures.is_empty() || !least.is_finite() || !most.is_finite() {
        return None;
    }
    let height = 50.0 + ROW * figures.len() as f64;
    let place = |ratio: f64| LABELS + (ratio.log10() - least) / (most - least) * (WIDTH - LABELS - 60.0);
    let mut svg = begin(height, title);
    for power in least as i32..=most as i32 {
        let (ratio, x) = (10_f64.powi(power), place(10_f64.powi(power)));
        write!(svg, "<line class=\"line\" x1=\"{x:.0}\" y1=\"42\" x2=\"{x:.0}\" y2=\"{height}\" opacity=\"0.4\"/>")
            .expect("a string");
        writeln!(svg, "<text x=\"{x:.0}\" y=\"38\" text-anchor=\"middle\">{ratio}×</text>").expect("a string");
    }
    for (at, (figure, ratio)) in figures.iter().zip(ratios).enumerate() {
        let y = 46.0 + ROW * at as f64;
        let (start, end) = (place(1.0), place(ratio));
        let (x, width) = (start.min(end), (end - start).abs().max(1.0));
        let class = if figure.met == Some(false) { "miss" } else { "ours" };
        let name = figure.figure.split(": median").next().unwrap_or_default();
        let middle = y + 14.0;
        write!(svg, "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>", LABELS - 8.0, escaped(name))
            .expect("a string");
        write!(svg, "<rect class=\"{class}\" x=\"{x:.0}\" y=\"{:.0}\" width=\"{width:.0}\" height=\"14\"/>", y + 3.0)
            .expect("a string");
        write!(svg, "<text x=\"{:.0}\" y=\"{middle:.0}\">{}×</text>", start.max(end) + 6.0, readable(ratio)).expect("a string");
        if let Some(goal) = goal(figure) {
            let x = place(goal);
            write!(svg, "<line class=\"goal\" x1=\"{x:.0}\" y1=\"{:.0}\" x2=\"{x:.0}\" y2=\"{:.0}\"/>", y + 1.0, y + 19.0)
                .expect("a string");
        }
        svg.push('\n');
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The ratio that a figure is to reach.
fn goal(figure: &Figure) -> Option<f64> {
    figure.goal.as_deref()?.strip_prefix("≥ ")?.strip_suffix('×')?.parse().ok()
}

/// Files, our milliseconds, and the other's: of commits while the engine runs.
fn growing(figures: &[Figure]) -> Vec<(f64, f64, f64)> {
    let point = |figure: &Figure| {
        let rest = figure.figure.strip_prefix("commit, one file of ")?;
        let (files, rest) = rest.split_once(' ')?;
        let files: f64 = files.parse().ok()?;
        rest.starts_with("changed, engine running").then(|| Some((files, figure.value, figure.value * figure.ratio?)))?
    };
    figures.iter().filter_map(point).collect()
}

/// Two lines over the number of files, both scales of powers.
fn growth(title: &str, points: &[(f64, f64, f64)]) -> Option<String> {
    if points.len() < 2 {
        return None;
    }
    let (height, left, right, top, bottom) = (320.0, 70.0, 90.0, 40.0, 40.0);
    let across = |files: f64| {
        let (first, last) = (points[0].0.log10(), points[points.len() - 1].0.log10());
        left + (files.log10() - first) / (last - first) * (WIDTH - left - right)
    };
    let values = || points.iter().flat_map(|(_, ours, other)| [*ours, *other]);
    let (least, most) = (values().fold(f64::MAX, f64::min).log10().floor(), values().fold(1.0, f64::max).log10().ceil());
    let up = |millis: f64| height - bottom - (millis.log10() - least) / (most - least).max(1.0) * (height - top - bottom);
    let mut svg = begin(height, title);
    for power in least as i32..=most as i32 {
        let (millis, y) = (10_f64.powi(power), up(10_f64.powi(power)));
        write!(svg, "<line class=\"line\" x1=\"{left}\" y1=\"{y:.0}\" x2=\"{:.0}\" y2=\"{y:.0}\" opacity=\"0.4\"/>", WIDTH - right)
            .expect("a string");
        writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{millis} ms</text>", left - 8.0, y + 4.0)
            .expect("a string");
    }
    for (files, ..) in points {
        writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{files} files</text>", across(*files), height - 14.0)
            .expect("a string");
    }
    let ours: Vec<(f64, f64)> = points.iter().map(|point| (point.0, point.1)).collect();
    let gits: Vec<(f64, f64)> = points.iter().map(|point| (point.0, point.2)).collect();
    for (class, name, points) in [("ours", "helios", ours), ("other", "git", gits)] {
        let path: Vec<String> = points.iter().map(|point| format!("{:.0},{:.0}", across(point.0), up(point.1))).collect();
        write!(svg, "<polyline class=\"path {class}\" style=\"fill:none\" points=\"{}\"/>", path.join(" ")).expect("a string");
        let last = &points[points.len() - 1];
        writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\">{name}</text>", across(last.0) + 8.0, up(last.1) + 4.0).expect("a string");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}
