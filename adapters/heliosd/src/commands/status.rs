//! `helios status`: what the next commit would have, and what it would not.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Parser, ValueEnum};
use helix_protocol::{Failure, FileMode, ObjectId};
use helix_versions::{EntryChange, HeadTarget, LocalChanges, PathChange, Tree, Unresolved, Workspace, diff_entries};
use serde_json::json;

use super::{Verb, unfinished};
use crate::console::OK;
use crate::context::Context;
use crate::here::{Here, queue, text_of};
use crate::pathspec::Pathspec;
use crate::render::changes::{Renames, letter};
use crate::render::path::{self, Quote};

/// Shows which files have changed
///
/// Paths are as they are written in the folder one is in; with --porcelain, -z and --json they are from the workspace's root.
///
/// With --porcelain each line is two letters and a path, as `git status --porcelain` has them: the first letter is what is
/// staged against the head, the second what the folder has against that, ?? a file that no commit has.
#[derive(Parser)]
#[command(
    name = "status",
    after_help = "Examples:\n  helios status\n  helios status --porcelain\n  helios status --short --ignored\n  helios status src"
)]
pub struct Status {
    /// Only these files and folders, and what fits these patterns
    paths: Vec<OsString>,
    /// Two letters and a path per line, for programs
    #[arg(long, num_args = 0..=1, default_missing_value = "v1", require_equals = true, value_parser = ["v1"])]
    porcelain: Option<String>,
    /// The same for people
    #[arg(short, long)]
    short: bool,
    /// With the branch
    #[arg(short, long)]
    branch: bool,
    /// NUL behind each path instead of a line's end, and no quotes
    #[arg(short = 'z')]
    nul: bool,
    /// How files that no commit has are shown
    #[arg(short, long, value_enum, default_value_t = Untracked::Normal, num_args = 0..=1, default_missing_value = "all", require_equals = false)]
    untracked_files: Untracked,
    /// Also what is ignored
    #[arg(long)]
    ignored: bool,
    /// A staged file with another path is a removal and an addition
    #[arg(long)]
    no_renames: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Untracked {
    /// Not at all
    No,
    /// A folder of which nothing is committed is one line
    Normal,
    /// Each file
    All,
}

/// A path's two letters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Letters {
    staged: char,
    folder: char,
}

const NOTHING: Letters = Letters { staged: ' ', folder: ' ' };

impl Letters {
    /// Those of a path that a merge could not decide: what became of it on our side, and on the other.
    fn undecided(path: &Unresolved) -> Self {
        let (staged, folder) = match (path.base.is_some(), path.ours.is_some(), path.theirs.is_some()) {
            (false, true, true) => ('A', 'A'),
            (false, true, false) => ('A', 'U'),
            (false, false, true) => ('U', 'A'),
            (true, false, true) => ('D', 'U'),
            (true, true, false) => ('U', 'D'),
            (_, false, false) => ('D', 'D'),
            (true, true, true) => ('U', 'U'),
        };
        Self { staged, folder }
    }

    /// What people call an undecided path; `None` for any other. What is staged as removed cannot be removed in the folder once
    /// more, and where a file is there it is an untracked one beside these letters.
    fn unmerged(self) -> Option<&'static str> {
        Some(match (self.staged, self.folder) {
            ('U', 'U') => "both modified:   ",
            ('A', 'A') => "both added:      ",
            ('D', 'D') => "both deleted:    ",
            ('A', 'U') => "added by us:     ",
            ('U', 'A') => "added by them:   ",
            ('D', 'U') => "deleted by us:   ",
            ('U', 'D') => "deleted by them: ",
            _ => return None,
        })
    }
}

struct Found {
    workspace: Workspace,
    tracked: BTreeMap<Vec<u8>, Letters>,
    /// Where staged files were before they were renamed, by their path now.
    origins: BTreeMap<Vec<u8>, Vec<u8>>,
    untracked: Vec<Vec<u8>>,
    ignored: Vec<Vec<u8>>,
    undecided: Vec<Vec<u8>>,
    skipped: Vec<helix_protocol::SkippedFile>,
    torn: Vec<String>,
    /// The folder that paths are written from.
    folder: Vec<u8>,
}

impl Found {
    /// A path as it is written in the folder that one is in.
    fn shown(&self, path: &[u8], quote: Quote) -> String {
        path::show(&path::from_folder(path, &self.folder), quote)
    }
}

impl Verb for Status {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let mut found = self.look(context, &here)?;
        if self.porcelain.is_none() && !self.nul {
            found.folder = here.folder_of(&cwd)?;
        }
        if context.is_json() {
            return tell_json(context, &found);
        }
        if self.porcelain.is_some() || self.short || self.nul {
            self.tell_short(context, &found)?;
        } else {
            tell_long(context, &found)?;
        }
        Ok(OK)
    }
}

impl Status {
    fn look(&self, context: &mut Context<'_>, here: &Here) -> Result<Found, Failure> {
        let cwd = &context.caller.cwd.clone();
        let pathspecs = Pathspec::all(here, cwd, &self.paths)?;
        let chosen = |path: &[u8]| pathspecs.is_empty() || pathspecs.iter().any(|pathspec| pathspec.matches(path));
        let folder = here.folder()?;
        let mut folder = queue(&folder, &context.console)?;
        if let Err(Failure { message, hint, .. }) = unfinished::settle(context, here, here.name(), &mut folder, LocalChanges::Keep)
        {
            context.console.note(format!("warning: {message}\nhint: {hint}"))?;
        }
        let workspace = here.workspace()?;
        let (head, index) = (here.repository().tree_of(&workspace.head)?, here.index(&workspace)?);
        let status = folder.status(here.store(), Some(index))?;
        let mut ignored = if self.ignored { folder.ignored()? } else { Vec::new() };
        drop(folder);
        let mut tracked: BTreeMap<Vec<u8>, Letters> = BTreeMap::new();
        let mut origins = BTreeMap::new();
        if head != index {
            let renames = if self.no_renames { Renames::Ignored } else { Renames::Found };
            let staged = renames.of(diff_entries(here.store(), Some(head), index)?, &|id| text_of(here.store(), id))?;
            for PathChange { change, from } in staged {
                let letter = if from.is_some() { 'R' } else { letter(&change) };
                origins.extend(from.map(|from| (change.path.clone(), from.path)));
                tracked.entry(change.path).or_insert(NOTHING).staged = letter;
            }
        }
        let (added, changed): (Vec<&EntryChange>, Vec<&EntryChange>) =
            status.changes.iter().partition(|change| change.before.is_none());
        for change in changed {
            tracked.entry(change.path.clone()).or_insert(NOTHING).folder = letter(change);
        }
        let undecided = undecided(here, &workspace, index)?;
        tracked.extend(undecided.iter().map(|path| (path.path.clone(), Letters::undecided(path))));
        let mut undecided: Vec<Vec<u8>> = undecided.into_iter().map(|path| path.path.clone()).collect();
        let added = added.into_iter().map(|change| change.path.as_slice());
        // What is staged as removed and there again has a line for both; what is undecided has one.
        let is_decided = |path: &[u8]| tracked.get(path).is_none_or(|letters| letters.unmerged().is_none());
        let added: Vec<&[u8]> = added.filter(|path| is_decided(path) && chosen(path)).collect();
        let mut untracked: Vec<Vec<u8>> = match self.untracked_files {
            Untracked::No => Vec::new(),
            Untracked::All => added.iter().map(|path| path.to_vec()).collect(),
            Untracked::Normal => fold(here, index, &added)?,
        };
        if untracked.iter().any(|path| !chosen(path)) {
            // Only a part of a folder was asked for.
            let (kept, parts): (Vec<_>, Vec<_>) = untracked.into_iter().partition(|path| chosen(path));
            let inner = added.iter().filter(|path| parts.iter().any(|folder| path.starts_with(folder)));
            untracked = kept.into_iter().chain(inner.map(|path| path.to_vec())).collect();
            untracked.sort();
        }
        tracked.retain(|path, _| chosen(path));
        ignored.retain(|path| chosen(path));
        undecided.retain(|path| chosen(path));
        let (skipped, torn) = (status.skipped, status.torn);
        Ok(Found { workspace, tracked, origins, untracked, ignored, undecided, skipped, torn, folder: Vec::new() })
    }

    fn tell_short(&self, context: &mut Context<'_>, found: &Found) -> Result<(), Failure> {
        let end = if self.nul { "\0" } else { "\n" };
        let mut text = String::new();
        if self.branch {
            text.push_str(&format!("## {}{end}", place(&found.workspace)));
        }
        let colour = context.caller.colour && self.porcelain.is_none() && !self.nul;
        let paint = |letter: char, code: &str| {
            if colour && letter != ' ' { format!("\x1b[{code}m{letter}\x1b[m") } else { letter.to_string() }
        };
        let mut out = text.into_bytes();
        let mut line = |letters: Letters, path: &[u8], codes: [&str; 2]| {
            out.extend_from_slice(format!("{}{} ", paint(letters.staged, codes[0]), paint(letters.folder, codes[1])).as_bytes());
            // As in git: the old path is behind the new one where paths end with NUL, and before it for people.
            match (found.origins.get(path), self.nul) {
                (None, true) => out.extend_from_slice(path),
                (Some(old), true) => out.extend_from_slice(&[path, b"\0", old].concat()),
                (None, false) => out.extend_from_slice(found.shown(path, Quote::Spaces).as_bytes()),
                (Some(old), false) => {
                    let both = format!("{} -> {}", found.shown(old, Quote::Spaces), found.shown(path, Quote::Spaces));
                    out.extend_from_slice(both.as_bytes());
                }
            }
            out.extend_from_slice(end.as_bytes());
        };
        found.tracked.iter().for_each(|(path, letters)| line(*letters, path, ["32", "31"]));
        found.untracked.iter().for_each(|path| line(Letters { staged: '?', folder: '?' }, path, ["31", "31"]));
        found.ignored.iter().for_each(|path| line(Letters { staged: '!', folder: '!' }, path, ["31", "31"]));
        context.console.write(&out)
    }
}

/// The undecided paths of a merge: as in git until they are added, or staged as something else than the merge left.
pub fn undecided<'w>(here: &Here, workspace: &'w Workspace, index: ObjectId) -> Result<Vec<&'w Unresolved>, Failure> {
    let mut undecided = Vec::new();
    for path in workspace.merging.iter().flat_map(|merging| &merging.unresolved) {
        let staged = helix_versions::entry_at(here.store(), index, &path.path)?;
        undecided.extend((staged.map(|entry| entry.id) == path.stands).then_some(path));
    }
    Ok(undecided)
}

/// Folders of which the tree has nothing, instead of what is in them.
fn fold(here: &Here, tree: ObjectId, added: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut shown: Vec<Vec<u8>> = Vec::new();
    let mut known: BTreeMap<Vec<u8>, Option<Tree>> = BTreeMap::from([(Vec::new(), Some(Tree::load(here.store(), tree)?))]);
    for path in added {
        if shown.last().is_some_and(|folder| folder.ends_with(b"/") && path.starts_with(folder)) {
            continue;
        }
        let mut folded = None;
        for (cut, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let folder = &path[..cut];
            if !known.contains_key(folder) {
                let (parent, name) = folder
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .map_or((&b""[..], folder), |place| (&folder[..place], &folder[place + 1..]));
                let entry = known
                    .get(parent)
                    .and_then(Option::as_ref)
                    .and_then(|tree| tree.get(name))
                    .filter(|entry| entry.mode == FileMode::Directory);
                let inner = entry.map(|entry| Tree::load(here.store(), entry.id)).transpose()?;
                known.insert(folder.to_vec(), inner);
            }
            if known.get(folder).is_some_and(Option::is_none) {
                folded = Some([folder, b"/"].concat());
                break;
            }
        }
        shown.push(folded.unwrap_or_else(|| path.to_vec()));
    }
    Ok(shown)
}

fn place(workspace: &Workspace) -> String {
    match (&workspace.head.target, workspace.head.snapshot) {
        (HeadTarget::Branch(branch), Some(_)) => branch.to_string(),
        (HeadTarget::Branch(branch), None) => format!("No commits yet on {branch}"),
        (HeadTarget::Detached(_), _) => "HEAD (no branch)".to_owned(),
    }
}

fn tell_long(context: &mut Context<'_>, found: &Found) -> Result<(), Failure> {
    let mut text = match &found.workspace.head.target {
        HeadTarget::Branch(branch) => format!("On branch {branch}\n"),
        HeadTarget::Detached(id) => format!("HEAD detached at {}\n", id.short()),
    };
    if found.workspace.head.snapshot.is_none() {
        text.push_str("\nNo commits yet\n");
    }
    if let Some(merging) = &found.workspace.merging {
        let verb = merging.kind.verb();
        text.push_str(&if found.undecided.is_empty() {
            format!("All conflicts are decided: conclude the {verb} with `helios commit`.\n")
        } else {
            let hint = format!("edit them, `helios add` them and commit, or give up with `helios {verb} --abort`");
            format!("You have paths that nobody decided yet.\n  ({hint})\n")
        });
    }
    let colour = context.caller.colour;
    let paint = |line: String, code: &str| if colour { format!("\t\x1b[{code}m{line}\x1b[m\n") } else { format!("\t{line}\n") };
    let word = |letter: char| match letter {
        'A' => "new file:   ",
        'D' => "deleted:    ",
        'R' => "renamed:    ",
        'T' => "typechange: ",
        _ => "modified:   ",
    };
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n{}", lines.concat()));
        }
    };
    let shown = |path: &[u8]| found.shown(path, Quote::Unusual);
    let unmerged = found.tracked.iter().filter_map(|(path, letters)| Some((path, letters.unmerged()?)));
    let unmerged: Vec<String> = unmerged.map(|(path, word)| paint(format!("{word}{}", shown(path)), "31")).collect();
    let merged = |letters: &Letters| letters.unmerged().is_none();
    let lines = |select: &dyn Fn(&Letters) -> char, code: &str| -> Vec<String> {
        let chosen = found
            .tracked
            .iter()
            .filter(|(_, letters)| merged(letters))
            .map(|(path, letters)| (path, select(letters)))
            .filter(|(_, letter)| *letter != ' ');
        let shown = |path: &Vec<u8>, letter| match found.origins.get(path).filter(|_| letter == 'R') {
            Some(old) => format!("{} -> {}", shown(old), shown(path)),
            None => shown(path),
        };
        chosen.map(|(path, letter)| paint(format!("{}{}", word(letter), shown(path, letter)), code)).collect()
    };
    section("Changes to be committed:", lines(&|letters| letters.staged, "32"));
    section("Unmerged paths:", unmerged);
    section("Changes not staged for commit:", lines(&|letters| letters.folder, "31"));
    section("Untracked files:", found.untracked.iter().map(|path| paint(shown(path), "31")).collect());
    section("Ignored files:", found.ignored.iter().map(|path| paint(shown(path), "31")).collect());
    let staged = found.tracked.values().any(|letters| letters.staged != ' ');
    if found.tracked.is_empty() && found.untracked.is_empty() {
        text.push_str("nothing to commit, working tree clean\n");
    } else if !staged {
        text.push_str("\nnothing is staged: `helios commit` takes all of it, `helios add` chooses\n");
    }
    context.console.write(text.as_bytes())?;
    super::tell_skipped(context, &found.skipped, &found.torn)
}

fn tell_json(context: &mut Context<'_>, found: &Found) -> Result<u8, Failure> {
    let head = &found.workspace.head;
    let branch = match &head.target {
        HeadTarget::Branch(branch) => Some(branch.to_string()),
        HeadTarget::Detached(_) => None,
    };
    let all = |paths: &[Vec<u8>]| paths.iter().map(|path| path::to_json(path)).collect::<Vec<_>>();
    let changes: Vec<_> = found.tracked.iter().map(|(path, letters)| {
        let mut change = json!({"path": path::to_json(path), "staged": letters.staged.to_string().trim(), "folder": letters.folder.to_string().trim()});
        if let Some(old) = found.origins.get(path) {
            change["from"] = path::to_json(old);
        }
        change
    }).collect();
    context.console.json(&json!({
        "workspace": found.workspace.name.to_string(), "branch": branch, "head": head.snapshot, "changes": changes,
        "untracked": all(&found.untracked), "ignored": all(&found.ignored), "merging": found.workspace.merging.as_ref().map(|merging| merging.other),
        "undecided": all(&found.undecided), "skipped": found.skipped, "torn": found.torn,
    }))?;
    Ok(OK)
}
