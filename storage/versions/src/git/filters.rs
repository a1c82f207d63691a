//! Files that git changes on their way into its working folder, so that their bytes there are not those that its commits have.
//!
//! Where git works in a folder of ours, such a file is taken as it lies there. Given to git like that it would be in its history as
//! git never keeps it: in clear text what a filter encrypts, whole what a pointer stands for.
//!
//! Attributes are read where git reads them: from the file that `core.attributesFile` names, from the working folder's tracked
//! `.gitattributes`, and from `info/attributes`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gix::bstr::{BStr, ByteSlice};
use gix::glob::pattern::Case;
use gix::glob::{Pattern, wildmatch};

use super::{failed, open, place};
use crate::{VersionError, show_path};

/// The names of git's files of attributes.
const ATTRIBUTES: &[u8] = b".gitattributes";

/// A file of git's whose bytes in the working folder are not those of its commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// As people see it.
    pub path: String,
    /// Why, as an attribute or a setting is written: `filter=lfs`.
    pub by: String,
}

/// What git does to a file, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// It is another content.
    Content(String),
    /// Line ends, or a keyword in it.
    Details(String),
}

/// The attributes of a working folder, as far as they change bytes.
pub(super) struct Filters {
    /// Those that outdo others come last.
    rules: Vec<Rule>,
    /// The filters that the configuration has programs for.
    drivers: BTreeSet<Vec<u8>>,
    /// The setting that makes CR LF of the ends of every text's lines, or of those whose attributes say that they are texts.
    every_text: Option<&'static str>,
    known_texts: Option<&'static str>,
    case: Case,
}

/// One line of a file of attributes.
struct Rule {
    /// The file's folder, with a `/` at its end unless it is the root.
    folder: Vec<u8>,
    pattern: Pattern,
    assigned: Vec<(Vec<u8>, State)>,
}

/// What an attribute is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Set,
    Unset,
    /// As if nothing had been said.
    Unspecified,
    Value(Vec<u8>),
}

/// Lists what git converts among the files that it tracks.
pub fn converted(path: &Path) -> Result<Vec<Converted>, VersionError> {
    let repository = open(path)?;
    let Some(filters) = Filters::read(&repository)? else { return Ok(Vec::new()) };
    let index = repository.index_or_empty().map_err(|error| failed(&place(&repository), error))?;
    let found = index.entries().iter().filter_map(|entry| {
        let path: &[u8] = entry.path(&index);
        let (Conversion::Content(by) | Conversion::Details(by)) = filters.of(path)?;
        Some(Converted { path: show_path(path), by })
    });
    Ok(found.collect())
}

impl Filters {
    /// Those of a repository with a working folder; `None` where nothing is converted.
    pub(super) fn read(repository: &gix::Repository) -> Result<Option<Self>, VersionError> {
        let Some(folder) = repository.workdir() else { return Ok(None) };
        let config = repository.config_snapshot();
        let sections = config.plumbing().sections_by_name("filter").into_iter().flatten();
        let drivers = sections
            .filter(|section| ["clean", "smudge", "process"].iter().any(|key| section.value(key).is_some()))
            .filter_map(|section| section.header().subsection_name().map(|name| name.to_vec()));
        let makes_crlf = |key: &str, value: &[u8]| config.string(key).is_some_and(|found| found.eq_ignore_ascii_case(value));
        let every_text = config.boolean("core.autocrlf").unwrap_or(false).then_some("core.autocrlf=true");
        let filters = Self {
            rules: Vec::new(),
            drivers: drivers.collect(),
            every_text,
            known_texts: every_text.or(makes_crlf("core.eol", b"crlf").then_some("core.eol=crlf")),
            case: if config.boolean("core.ignoreCase").unwrap_or(false) { Case::Fold } else { Case::Sensitive },
        };
        let index = repository.index_or_empty().map_err(|error| failed(folder, error))?;
        let mut files: Vec<Vec<u8>> = index.entries().iter().map(|entry| entry.path(&index).to_vec()).collect();
        files.push(ATTRIBUTES.to_vec());
        files.retain(|path| path.strip_suffix(ATTRIBUTES).is_some_and(|folder| folder.is_empty() || folder.ends_with(b"/")));
        // Deeper ones outdo those above.
        files.sort_by_key(|path| path.iter().filter(|byte| **byte == b'/').count());
        files.dedup();
        let (mut rules, mut macros) = (Vec::new(), BTreeMap::new());
        if let Ok(Some(path)) = config.trusted_path("core.attributesFile") {
            read_rules(&path, b"", &mut rules, &mut macros)?;
        }
        for path in files {
            let name = path.to_path().map_err(|error| failed(folder, error))?;
            read_rules(&folder.join(name), &path[..path.len() - ATTRIBUTES.len()], &mut rules, &mut macros)?;
        }
        read_rules(&repository.common_dir().join("info/attributes"), b"", &mut rules, &mut macros)?;
        Ok(Some(Self { rules, ..filters }).filter(|filters| filters.every_text.is_some() || !filters.rules.is_empty()))
    }

    /// What git does to a file.
    pub(super) fn of(&self, path: &[u8]) -> Option<Conversion> {
        let mut found: BTreeMap<&[u8], &State> = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| rule.matches(path, self.case)) {
            found.extend(rule.assigned.iter().map(|(name, state)| (name.as_slice(), state)));
        }
        let state = |name: &str| found.get(name.as_bytes()).copied().unwrap_or(&State::Unspecified);
        let written = |name: &str, value: &[u8]| format!("{name}={}", value.as_bstr());
        match (state("filter"), state("working-tree-encoding")) {
            (State::Value(name), _) if self.drivers.contains(name) => return Some(Conversion::Content(written("filter", name))),
            (_, State::Value(encoding)) if !encoding.eq_ignore_ascii_case(b"utf-8") => {
                return Some(Conversion::Content(written("working-tree-encoding", encoding)));
            }
            _ => {}
        }
        if *state("ident") == State::Set {
            return Some(Conversion::Details("ident".to_owned()));
        }
        let by = match (state("text"), state("eol")) {
            (State::Unset, _) => None,
            (_, State::Value(end)) => (end == b"crlf").then_some("eol=crlf"),
            (State::Set | State::Value(_), _) => self.known_texts,
            (State::Unspecified, _) => match state("crlf") {
                State::Unset | State::Value(_) => None,
                State::Set => self.known_texts,
                State::Unspecified => self.every_text,
            },
        };
        by.map(|by| Conversion::Details(by.to_owned()))
    }
}

impl Rule {
    fn matches(&self, path: &[u8], case: Case) -> bool {
        let Some(beneath) = path.strip_prefix(&*self.folder) else { return false };
        let name = beneath.iter().rposition(|byte| *byte == b'/').map(|slash| slash + 1);
        let mode = wildmatch::Mode::NO_MATCH_SLASH_LITERAL;
        self.pattern.matches_repo_relative_path(BStr::new(beneath), name, Some(false), case, mode)
    }
}

/// Adds a file's lines, where there is such a file.
fn read_rules(
    path: &Path,
    folder: &[u8],
    rules: &mut Vec<Rule>,
    macros: &mut BTreeMap<Vec<u8>, Vec<(Vec<u8>, State)>>,
) -> Result<(), VersionError> {
    // A link is none: git does not follow it either.
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let text = std::fs::read(path).map_err(|error| VersionError::io(path, error))?;
    for line in text.lines().map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
        let (pattern, rest) = match line.strip_prefix(b"\"").and_then(|quoted| quoted.split_once_str("\"")) {
            Some(quoted) => quoted,
            None => line.split_at(line.find_byteset(b" \t").unwrap_or(line.len())),
        };
        let words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let assigned = words.flat_map(|word| assigned(word, macros)).collect();
        match (pattern.strip_prefix(b"[attr]"), Pattern::from_bytes_without_negation(pattern)) {
            (Some(name), _) => drop(macros.insert(name.to_vec(), assigned)),
            (None, Some(pattern)) => rules.push(Rule { folder: folder.to_vec(), pattern, assigned }),
            (None, None) => {}
        }
    }
    Ok(())
}

/// What a word of a line says, that of a macro with what it stands for.
fn assigned(word: &[u8], macros: &BTreeMap<Vec<u8>, Vec<(Vec<u8>, State)>>) -> Vec<(Vec<u8>, State)> {
    let (name, state) = match (word.split_first(), word.split_once_str("=")) {
        (Some((b'-', name)), _) => (name, State::Unset),
        (Some((b'!', name)), _) => (name, State::Unspecified),
        (_, Some((name, value))) => (name, State::Value(value.to_vec())),
        _ => (word, State::Set),
    };
    let mut assigned = vec![(name.to_vec(), state.clone())];
    if state == State::Set {
        match macros.get(name) {
            Some(stands_for) => assigned.extend(stands_for.iter().cloned()),
            None if name == b"binary" => assigned.push((b"text".to_vec(), State::Unset)),
            None => {}
        }
    }
    assigned
}
