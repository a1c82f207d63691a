//! What is known where a figure misses its goal. It stands beside the figure, in the run that misses and in no other.

use crate::report::Figure;

/// How the figure's name begins, and why it may miss and what was tried.
const KNOWN: [(&str, &str); 3] = [
    (
        "worker killed → first tool call of the resumed step, 1,000 files, content warm: median",
        "the files are written anew; what the file system takes of that is among these rows, and on ext4 is many times as much where \
         many files were deleted a moment ago",
    ),
    ("worker silent (SIGSTOP)", "most of it is the lease, which a silent worker keeps; the rest is what a kill costs too"),
    (
        "durable one-step no-op tasks, 64 in flight, SQLite, beside Restate",
        "tried and kept: writes that wait share one synced transaction; a task costs three statements of its own and not seventeen; a \
         group goes without savepoints until one of it is refused; what drives a task is on the heap once",
    ),
];
/// Where it is not among them.
const UNKNOWN: &str = "nothing was tried for it yet";

/// The figures, each that misses its goal with what is known of that.
pub fn told(figures: Vec<Figure>) -> Vec<Figure> {
    figures.into_iter().map(|figure| if figure.met == Some(false) { beside(figure) } else { figure }).collect()
}

fn beside(figure: Figure) -> Figure {
    let known = KNOWN.iter().find(|(name, _)| figure.figure.starts_with(name)).map_or(UNKNOWN, |(_, known)| known);
    figure.and_beside(&format!("it misses: {known}"))
}
