//! Generated edits, as models write them: 200 for each dialect. No edit that is applied may be a wrong one.
//!
//! Each case is a file, what is meant to become of it, and how a model says so: with a word for word copy, with spaces at line
//! ends lost, with another indentation, with other line breaks, or with a mistake in what it copied. An edit that cannot be
//! placed is refused, which is right; an edit that is applied must be exactly what was meant.

use super::arguments::{EditArguments, PatchArguments};
use super::{apply_patch, edit};
use crate::confine::Confined;

const CASES: u64 = 200;

/// SplitMix64: the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const NAMES: [&str; 8] = ["load", "store", "merge", "split", "open", "close", "scan", "count"];

/// How the model's copy differs from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Damage {
    None,
    SpacesAtLineEnds,
    Dedented,
    Deeper,
    TabsForSpaces,
    NoIndentation,
    LineBreaks,
    WrongWord,
}

const DAMAGES: [Damage; 12] = [
    Damage::None,
    Damage::None,
    Damage::None,
    Damage::None,
    Damage::SpacesAtLineEnds,
    Damage::SpacesAtLineEnds,
    Damage::Dedented,
    Damage::Deeper,
    Damage::TabsForSpaces,
    Damage::NoIndentation,
    Damage::LineBreaks,
    Damage::WrongWord,
];

struct Case {
    damage: Damage,
    lines: Vec<String>,
    /// The lines that are meant, from `first` on.
    first: usize,
    old: Vec<String>,
    new: Vec<String>,
    /// The line above that opens the function, for a patch that names it.
    header: usize,
}

/// A file of small functions that look much alike, as functions do.
fn file(random: &mut Random) -> Vec<String> {
    let unit = random.pick(&["    ", "  ", "\t"]);
    let mut lines = Vec::new();
    for _ in 0..4 + random.below(5) {
        lines.push(format!("fn {}_{}() {{", random.pick(&NAMES), random.below(30)));
        for _ in 0..1 + random.below(4) {
            let call = format!("{unit}{}({});", random.pick(&NAMES), random.below(20));
            match random.below(4) {
                0 => {
                    lines.push(format!("{unit}if {} > {} {{", random.pick(&NAMES), random.below(4)));
                    lines.push(format!("{unit}{call}"));
                    lines.push(format!("{unit}}}"));
                }
                1 => lines.push(format!("{call}  ")),
                2 => lines.extend([call, String::new()]),
                _ => lines.push(call),
            }
        }
        lines.extend(["}".to_owned(), String::new()]);
    }
    lines
}

fn case(random: &mut Random) -> Case {
    let damage = DAMAGES[random.below(DAMAGES.len())];
    let lines = file(random);
    let height = 1 + random.below(5);
    let first = random.below(lines.len() - height);
    let old = lines[first..first + height].to_vec();
    let mut new = old.clone();
    let changed = random.below(new.len());
    new[changed] = match new[changed].trim().is_empty() {
        true => {
            let filled = new.iter().find(|line| !line.trim().is_empty());
            format!("{}// {}", filled.map_or("", |line| indent(line)), random.pick(&NAMES))
        }
        false => format!("{}changed_{}();", indent(&new[changed]), random.below(100)),
    };
    if random.below(2) == 0 {
        let beside = random.below(new.len());
        new.insert(beside + 1, format!("{}added_{}();", indent(&new[beside]), random.below(100)));
    }
    let header = lines[..=first].iter().rposition(|line| line.starts_with("fn ")).unwrap_or(0);
    Case { damage, lines, first, old, new, header }
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// A line as the model writes it. `common` is the indentation that all of its lines have.
fn damaged(line: &str, damage: Damage, common: usize) -> String {
    match damage {
        Damage::SpacesAtLineEnds => line.trim_end().to_owned(),
        Damage::Dedented => line[common.min(indent(line).len())..].to_owned(),
        Damage::Deeper if !line.is_empty() => format!("  {line}"),
        Damage::TabsForSpaces => {
            let (space, text) = line.split_at(indent(line).len());
            let space = if space.contains('\t') { space.replace('\t', "    ") } else { space.replace("  ", "\t") };
            format!("{space}{text}")
        }
        Damage::NoIndentation => line.trim_start().to_owned(),
        _ => line.to_owned(),
    }
}

fn written(lines: &[String], damage: Damage, all: &[String]) -> Vec<String> {
    let filled = all.iter().filter(|line| !line.trim().is_empty());
    let common = filled.map(|line| indent(line).len()).min().unwrap_or(0);
    lines.iter().map(|line| damaged(line, damage, common)).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    right: u32,
    refused: u32,
    wrong: u32,
}

/// Runs the cases of a dialect, whose `says` tells the model's arguments from what is meant.
fn score(dialect: &str, seed: u64, says: impl Fn(&Case, &mut Random, &Confined) -> bool) -> Score {
    let mut random = Random(seed);
    let mut score = Score::default();
    let mut by_damage = std::collections::BTreeMap::<Damage, Score>::new();
    for number in 0..CASES {
        let case = case(&mut random);
        let line_break = if case.damage == Damage::LineBreaks { "\r\n" } else { "\n" };
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}{line_break}")).collect::<String>();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, text(&case.lines)).expect("written");
        let confined = Confined::open(folder.path()).expect("a root");
        let applied = says(&case, &mut random, &confined);
        let is = std::fs::read_to_string(&path).expect("read");
        let mut meant = case.lines.clone();
        meant.splice(case.first..case.first + case.old.len(), case.new.clone());
        // Spaces at the ends of lines that were written anew are nobody's wish; all other lines are compared as they are.
        let end = case.first + case.new.len();
        let plain = |lines: Vec<String>| -> Vec<String> {
            let within = |at: usize| at >= case.first && at < end;
            let line = |(at, line): (usize, String)| if within(at) { line.trim_end().to_owned() } else { line };
            lines.into_iter().enumerate().map(line).collect()
        };
        let lines = is.strip_suffix(line_break).unwrap_or(&is).split(line_break).map(str::to_owned).collect();
        let one = by_damage.entry(case.damage).or_default();
        if !applied {
            assert_eq!(is, text(&case.lines), "{dialect} {number}: what is refused changes nothing");
            one.refused += 1;
            score.refused += 1;
        } else if plain(lines) == plain(meant.clone()) {
            one.right += 1;
            score.right += 1;
        } else {
            eprintln!("{dialect} {number} {:?}: meant\n{}\nis\n{is}", case.damage, text(&meant));
            one.wrong += 1;
            score.wrong += 1;
        }
    }
    println!(
        "{dialect}: {} of {CASES} applied and right, {} refused, {} wrong; {by_damage:?}",
        score.right, score.refused, score.wrong
    );
    // Lines that `make bench-models` takes into its table.
    let line = |name: &str, value: u32, goal: Option<&str>, met: Option<bool>| {
        let figure = format!("{name}, dialect {dialect}");
        let against = format!("of {CASES} generated cases");
        let figure =
            serde_json::json!({"figure": figure, "value": value, "unit": "edits", "against": against, "goal": goal, "met": met});
        println!("figure {figure}");
    };
    line("applied as meant", score.right, None, None);
    line("applied wrongly", score.wrong, Some("0"), Some(score.wrong == 0));
    score
}

#[test]
fn of_200_generated_replacements_none_is_wrong() {
    let score = score("edit", 4, |case, _, confined| {
        let copy = |lines: &[String]| written(lines, case.damage, &case.old).join("\n");
        let mut old = copy(&case.old);
        if case.damage == Damage::WrongWord {
            old = old.replacen('(', "_x(", 1);
        }
        let arguments = EditArguments { path: "f".into(), old, new: copy(&case.new), all: false };
        edit(confined, &arguments).is_ok()
    });
    assert_eq!(score, Score { right: 146, refused: 54, wrong: 0 });
}

#[test]
fn of_200_generated_patches_none_is_wrong() {
    let score = score("apply_patch", 5, |case, random, confined| {
        let context = random.below(4);
        let (above, below) = (case.first.saturating_sub(context), (case.first + case.old.len() + context).min(case.lines.len()));
        let whole = case.lines[above..below].to_vec();
        let mut hunk = Vec::new();
        for (sign, lines) in [
            (' ', &case.lines[above..case.first]),
            ('-', &case.old[..]),
            ('+', &case.new[..]),
            (' ', &case.lines[case.first + case.old.len()..below]),
        ] {
            hunk.extend(written(lines, case.damage, &whole).iter().map(|line| format!("{sign}{line}")));
        }
        if case.damage == Damage::WrongWord {
            // In what it copied: nobody can tell that what it adds is not what it means.
            let copied = hunk.iter_mut().find(|line| !line.starts_with('+') && line.contains('('));
            if let Some(line) = copied {
                *line = line.replacen('(', "_x(", 1);
            }
        }
        let hunk = hunk.join("\n");
        let anchor =
            if random.below(2) == 0 && case.header < above { format!(" {}", case.lines[case.header]) } else { String::new() };
        let patch = format!("*** Begin Patch\n*** Update File: f\n@@{anchor}\n{hunk}\n*** End Patch");
        apply_patch(confined, &PatchArguments { patch }).is_ok()
    });
    assert_eq!(score, Score { right: 159, refused: 41, wrong: 0 });
}
