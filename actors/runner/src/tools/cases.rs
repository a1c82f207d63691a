//! Generated edits, as models write them: 200 for each dialect. No edit that is applied may be a wrong one.
//!
//! Each case is files, what is meant to become of them, and how a model says so: with a word for word copy, with spaces at line
//! ends lost, with another indentation, with other line breaks, or with a mistake in what it copied. An edit that cannot be
//! placed is refused, which is right; an edit that is applied must be exactly what was meant.

use std::collections::BTreeMap;
use std::path::Path;

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

/// One change of a file.
struct Change {
    /// The lines that are meant, from `first` on.
    first: usize,
    old: Vec<String>,
    new: Vec<String>,
    /// The line above that opens the function, for a patch that names it.
    header: usize,
}

/// A file that is changed, and perhaps moved.
struct Changed {
    path: &'static str,
    moved_to: Option<&'static str>,
    lines: Vec<String>,
    /// From the top down.
    changes: Vec<Change>,
}

struct Case {
    damage: Damage,
    files: Vec<Changed>,
    added: Vec<(&'static str, Vec<String>)>,
    deleted: Option<&'static str>,
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

fn damage(random: &mut Random) -> Damage {
    DAMAGES[random.below(DAMAGES.len())]
}

/// One change of one file.
fn replacement(random: &mut Random) -> Case {
    let damage = damage(random);
    let lines = file(random);
    let changes = vec![change(random, &lines, 0)];
    let file = Changed { path: "f", moved_to: None, lines, changes };
    Case { damage, files: vec![file], added: Vec::new(), deleted: None }
}

/// Changes of one or two files, in one or two hunks each, with files that are moved, made and deleted beside them.
fn patch(random: &mut Random) -> Case {
    let mut case = Case { damage: damage(random), files: Vec::new(), added: Vec::new(), deleted: None };
    for (path, to) in [("f", "moved/f"), ("g", "g.moved")].into_iter().take(1 + random.below(2)) {
        let lines = file(random);
        let mut changes = vec![change(random, &lines, 0)];
        // Below the context of both.
        let below = changes[0].first + changes[0].old.len() + 6;
        if random.below(2) == 0 && below + 6 <= lines.len() {
            changes.push(change(random, &lines, below));
        }
        let moved_to = (random.below(4) == 0).then_some(to);
        if moved_to.is_some() && random.below(2) == 0 {
            case.added.push((path, file(random)));
        }
        case.files.push(Changed { path, moved_to, lines, changes });
    }
    if random.below(4) == 0 {
        case.added.push(("a/new", file(random)));
    }
    case.deleted = (random.below(4) == 0).then_some("gone");
    case
}

/// A change at or below line `from`.
fn change(random: &mut Random, lines: &[String], from: usize) -> Change {
    let height = 1 + random.below(5);
    let first = from + random.below(lines.len() - height - from);
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
    Change { first, old, new, header }
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

impl Case {
    fn line_break(&self) -> &'static str {
        if self.damage == Damage::LineBreaks { "\r\n" } else { "\n" }
    }

    /// What is in the workspace before.
    fn before(&self) -> Files {
        let changed = self.files.iter().map(|file| (file.path.to_owned(), text(&file.lines, self.line_break())));
        changed.chain(self.deleted.map(|path| (path.to_owned(), "gone\n".to_owned()))).collect()
    }

    /// What is meant to be in it. Spaces at the ends of lines that are written anew are nobody's wish, so those have none here.
    fn after(&self) -> Files {
        let changed = self.files.iter().map(|file| {
            let mut lines = file.lines.clone();
            for change in file.changes.iter().rev() {
                let new = change.new.iter().map(|line| line.trim_end().to_owned());
                lines.splice(change.first..change.first + change.old.len(), new);
            }
            (file.moved_to.unwrap_or(file.path).to_owned(), text(&lines, self.line_break()))
        });
        changed.chain(self.added.iter().map(|(path, lines)| ((*path).to_owned(), text(lines, "\n")))).collect()
    }

    /// What is in the workspace, as `after` has it.
    fn compared(&self, mut is: Files) -> Files {
        for file in &self.files {
            let Some(text) = is.get_mut(file.moved_to.unwrap_or(file.path)) else { continue };
            let mut lines: Vec<&str> = text.split(self.line_break()).collect();
            let mut more = 0;
            for change in &file.changes {
                let first = change.first + more;
                more += change.new.len() - change.old.len();
                let anew = lines.iter_mut().skip(first).take(change.new.len());
                anew.for_each(|line| *line = line.trim_end());
            }
            *text = lines.join(self.line_break());
        }
        is
    }
}

/// The files of a workspace, by path.
type Files = BTreeMap<String, String>;

fn text(lines: &[String], line_break: &str) -> String {
    lines.iter().map(|line| format!("{line}{line_break}")).collect()
}

fn read(folder: &Path) -> Files {
    let files = ignore::WalkBuilder::new(folder).hidden(false).build().flatten();
    let files = files.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
    let path = |path: &Path| path.strip_prefix(folder).expect("beneath it").display().to_string();
    files.map(|entry| (path(entry.path()), std::fs::read_to_string(entry.path()).expect("read"))).collect()
}

/// Runs the cases of a dialect that `draws` makes, whose `says` tells the model's arguments from what is meant.
fn score(
    dialect: &str,
    seed: u64,
    draws: impl Fn(&mut Random) -> Case,
    says: impl Fn(&Case, &mut Random, &Confined) -> bool,
) -> Score {
    let mut random = Random(seed);
    let mut score = Score::default();
    let mut by_damage = BTreeMap::<Damage, Score>::new();
    for number in 0..CASES {
        let case = draws(&mut random);
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in case.before() {
            std::fs::write(folder.path().join(path), text).expect("written");
        }
        let confined = Confined::open(folder.path()).expect("a root");
        let applied = says(&case, &mut random, &confined);
        let is = read(folder.path());
        let one = by_damage.entry(case.damage).or_default();
        if !applied {
            assert_eq!(is, case.before(), "{dialect} {number}: what is refused changes nothing");
            one.refused += 1;
            score.refused += 1;
        } else if case.compared(is.clone()) == case.after() {
            one.right += 1;
            score.right += 1;
        } else {
            eprintln!("{dialect} {number} {:?}: meant\n{:#?}\nis\n{is:#?}", case.damage, case.after());
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

/// Mistakes a word of what was copied.
fn mistake(line: &str) -> String {
    line.replacen('(', "_x(", 1)
}

/// A hunk with some lines of context.
fn hunk(file: &Changed, change: &Change, damage: Damage, random: &mut Random) -> Vec<String> {
    let context = random.below(4);
    let end = change.first + change.old.len();
    let (above, below) = (change.first.saturating_sub(context), (end + context).min(file.lines.len()));
    let whole = [&file.lines[above..below], &change.new].concat();
    let anchor =
        if random.below(2) == 0 && change.header < above { format!(" {}", file.lines[change.header]) } else { String::new() };
    let mut lines = vec![format!("@@{anchor}")];
    for (sign, part) in
        [(' ', &file.lines[above..change.first]), ('-', &change.old[..]), ('+', &change.new[..]), (' ', &file.lines[end..below])]
    {
        lines.extend(written(part, damage, &whole).iter().map(|line| format!("{sign}{line}")));
    }
    lines
}

#[test]
fn of_200_generated_replacements_none_is_wrong() {
    let score = score("edit", 4, replacement, |case, _, confined| {
        let change = &case.files[0].changes[0];
        let copy = |lines: &[String]| written(lines, case.damage, &change.old).join("\n");
        let mut old = copy(&change.old);
        if case.damage == Damage::WrongWord {
            old = mistake(&old);
        }
        let arguments = EditArguments { path: "f".into(), old, new: copy(&change.new), all: false };
        edit(confined, &arguments).is_ok()
    });
    assert_eq!(score, Score { right: 146, refused: 54, wrong: 0 });
}

#[test]
fn of_200_generated_patches_none_is_wrong() {
    let score = score("apply_patch", 5, patch, |case, random, confined| {
        let mut lines = Vec::new();
        for file in &case.files {
            lines.push(format!("*** Update File: {}", file.path));
            lines.extend(file.moved_to.map(|to| format!("*** Move to: {to}")));
            for change in &file.changes {
                lines.extend(hunk(file, change, case.damage, random));
            }
        }
        if case.damage == Damage::WrongWord {
            // In what it copied: nobody can tell that what it adds is not what it means.
            let copied = lines.iter_mut().find(|line| line.starts_with([' ', '-']) && line.contains('('));
            if let Some(line) = copied {
                *line = mistake(line);
            }
        }
        for (path, added) in &case.added {
            lines.push(format!("*** Add File: {path}"));
            lines.extend(added.iter().map(|line| format!("+{line}")));
        }
        lines.extend(case.deleted.map(|path| format!("*** Delete File: {path}")));
        let patch = format!("*** Begin Patch\n{}\n*** End Patch", lines.join("\n"));
        apply_patch(confined, &PatchArguments { patch }).is_ok()
    });
    assert_eq!(score, Score { right: 165, refused: 35, wrong: 0 });
}
