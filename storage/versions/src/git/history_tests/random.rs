//! Random histories, written by git itself.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::{Git, repository, round_trip};
use crate::git::import_history;

#[derive(Clone, Debug)]
struct Commit {
    /// How far back among the commits each parent is.
    parents: Vec<prop::sample::Index>,
    branch: usize,
    edits: Vec<(usize, Edit)>,
    message: Vec<u8>,
    name: String,
    time: u32,
    zone: (bool, u8, u8),
    /// What its message is said to be encoded in.
    encoding: Option<&'static str>,
    /// Whether an annotated tag is put on it.
    tagged: bool,
    /// Which signature it has, and its tag.
    signature: Option<&'static Armoured>,
}

/// A signature: the header of a commit that has it, and its text.
type Armoured = (&'static str, &'static str);

#[derive(Clone, Debug)]
enum Edit {
    Write(u8, &'static str),
    Remove,
    Submodule(u8),
}

const PATHS: [&str; 12] =
    ["a", "a.b", "a-b", "b/c", "b/d/e", "b/d/f", "b.c", "c/x", "c0", "d/e/f/g/h", "\u{e9}t\u{e9}", "space in name"];
const SIGNATURES: [Armoured; 3] = [
    ("gpgsig", "-----BEGIN PGP SIGNATURE-----\n\niQEzBAABCAAdFiEE\n=abcd\n-----END PGP SIGNATURE-----\n"),
    ("gpgsig", "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQAA\n-----END SSH SIGNATURE-----\n"),
    ("gpgsig-sha256", "-----BEGIN PGP SIGNATURE-----\nVersion: GnuPG v2\n\niHUEABYIAB0W\n-----END PGP SIGNATURE-----\n"),
];
const BRANCHES: [&str; 4] = ["heads/main", "heads/feature/x", "tags/light", "remotes/origin/main"];

fn edits() -> impl Strategy<Value = Edit> {
    let mode = prop::sample::select(vec!["100644", "100755", "120000"]);
    prop_oneof![
        6 => (any::<u8>(), mode).prop_map(|(content, mode)| Edit::Write(content, mode)),
        2 => Just(Edit::Remove),
        1 => any::<u8>().prop_map(Edit::Submodule),
    ]
}

fn commits() -> impl Strategy<Value = Vec<Commit>> {
    let commit = (
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        0..BRANCHES.len(),
        prop::collection::vec((0..PATHS.len(), edits()), 0..5),
        prop::collection::vec(any::<u8>().prop_filter("git refuses NUL", |byte| *byte != 0), 0..20),
        "[A-Za-z\u{e0}-\u{ff}.' -]{0,12}",
        any::<u32>(),
        (any::<bool>(), 0..14_u8, 0..60_u8),
        prop::option::weighted(0.2, prop::sample::select(vec!["ISO-8859-1", "windows-1252", "x-unknown"])),
        (prop::bool::weighted(0.2), prop::option::weighted(0.3, prop::sample::select(SIGNATURES.iter().collect::<Vec<_>>()))),
    );
    let commit = commit.prop_map(|(parents, branch, edits, message, name, time, zone, encoding, (tagged, signature))| Commit {
        parents,
        branch,
        edits,
        message,
        name,
        time,
        zone,
        encoding,
        tagged,
        signature,
    });
    prop::collection::vec(commit, 1..14)
}

impl Commit {
    /// The places of its parents among the commits, where its own is `place`.
    fn parents(&self, place: usize) -> Vec<usize> {
        let mut parents = Vec::new();
        for parent in self.parents.iter().filter(|_| place > 0).map(|parent| parent.index(place)) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        parents
    }
}

fn stream(commits: &[Commit]) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, commit) in commits.iter().enumerate() {
        let Commit { branch, edits, message, name, time, zone: (west, hours, minutes), encoding, tagged, .. } = commit;
        let sign = if *west { '-' } else { '+' };
        let who = format!("{name} <x@y> {time} {sign}{hours:02}{minutes:02}");
        let encoding = encoding.map(|encoding| format!("encoding {encoding}\n")).unwrap_or_default();
        out.extend_from_slice(format!("commit refs/work\nmark :{}\n", place + 1).as_bytes());
        out.extend_from_slice(format!("committer {who}\n{encoding}data {}\n", message.len()).as_bytes());
        out.extend_from_slice(message);
        out.push(b'\n');
        let parents = commit.parents(place);
        for (nth, parent) in parents.iter().enumerate() {
            out.extend_from_slice(format!("{} :{}\n", if nth == 0 { "from" } else { "merge" }, parent + 1).as_bytes());
        }
        if parents.is_empty() {
            out.extend_from_slice(b"deleteall\n");
        }
        for (path, edit) in edits {
            let path = PATHS[*path];
            out.extend_from_slice(
                match edit {
                    Edit::Write(content, mode) => format!(
                        "M {mode} inline \"{path}\"\ndata {}\n{}\n",
                        5 * usize::from(*content),
                        format!("{content:04}\n").repeat(usize::from(*content))
                    ),
                    Edit::Remove => format!("D \"{path}\"\n"),
                    Edit::Submodule(id) => format!("M 160000 {} \"{path}\"\n", format!("{id:02x}").repeat(20)),
                }
                .as_bytes(),
            );
        }
        out.extend_from_slice(format!("\nreset refs/{}\nfrom :{}\n\n", BRANCHES[*branch], place + 1).as_bytes());
        if *tagged {
            let (name, from) = (format!("v{place}"), place + 1);
            out.extend_from_slice(format!("tag {name}\nfrom :{from}\ntagger {who}\ndata {}\n", message.len()).as_bytes());
            out.extend_from_slice(message);
            out.push(b'\n');
        }
        // The next commit without parents is a root, not one more on top.
        out.extend_from_slice(b"reset refs/work\n\n");
    }
    out
}

fn written(commits: &[Commit]) -> Git {
    let git = Git::bare();
    let marks = git.beside("marks");
    git.run_with(&["fast-import", "--quiet", "--force", &format!("--export-marks={}", marks.display())], &stream(commits));
    let marks = fs::read_to_string(marks).unwrap();
    let id = |place: usize| marks.lines().find_map(|line| line.strip_prefix(&format!(":{} ", place + 1))).unwrap();
    sign(&git, commits, id);
    git
}

/// Gives commits and tags their signatures, which git's import stream cannot say: they are written anew, and all that stands on them.
fn sign<'m>(git: &Git, commits: &[Commit], unsigned: impl Fn(usize) -> &'m str) {
    let (mut ids, mut refs) = (Vec::<String>::new(), BTreeMap::new());
    for (place, commit) in commits.iter().enumerate() {
        let parents = commit.parents(place);
        let raw = bytes(git, "commit", unsigned(place));
        let (header, message) = raw.split_at(raw.windows(2).position(|pair| pair == b"\n\n").unwrap() + 1);
        let mut above = parents.iter();
        let mut anew = String::new();
        for line in std::str::from_utf8(header).unwrap().lines() {
            match line.strip_prefix("parent ") {
                Some(_) => anew.push_str(&format!("parent {}\n", ids[*above.next().unwrap()])),
                None => anew.push_str(&format!("{line}\n")),
            }
        }
        if let Some((name, text)) = commit.signature {
            if let [_, merged, ..] = parents.as_slice() {
                let tag = format!("object {}\ntype commit\ntag merged\ntagger A <a@b> 1 +0000\n\nwhy\n{text}", ids[*merged]);
                anew.push_str(&folded("mergetag", &tag));
            }
            anew.push_str(&folded(name, text));
        }
        ids.push(git.object("commit", &[anew.as_bytes(), message].concat()));
        refs.insert(format!("refs/{}", BRANCHES[commit.branch]), ids[place].clone());
        if commit.tagged {
            let name = format!("refs/tags/v{place}");
            let raw = bytes(git, "tag", &name);
            let rest = &raw[raw.iter().position(|byte| *byte == b'\n').unwrap()..];
            let signature = commit.signature.map_or(String::new(), |(_, text)| format!("\n{text}"));
            let anew = [format!("object {}", ids[place]).as_bytes(), rest, signature.as_bytes()].concat();
            refs.insert(name, git.object("tag", &anew));
        }
    }
    let updates: String = refs.iter().map(|(name, id)| format!("update {name} {id}\n")).collect();
    git.run_with(&["update-ref", "--stdin"], updates.as_bytes());
}

/// A header of several lines.
fn folded(name: &str, text: &str) -> String {
    format!("{name} {}\n", text.trim_end().replace('\n', "\n "))
}

fn bytes(git: &Git, kind: &str, name: &str) -> Vec<u8> {
    git.command(&["cat-file", kind, name]).output().unwrap().stdout
}

/// `HISTORY_CASES` sets how many histories are tried.
fn cases() -> u32 {
    std::env::var("HISTORY_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_comes_back_with_the_same_ids(commits in commits()) {
        let git = written(&commits);
        let (_, copy) = round_trip(&git);
        copy.is_sound();
    }

    #[test]
    fn taken_in_parts_it_is_what_it_is_taken_whole(commits in commits(), cut in any::<prop::sample::Index>()) {
        let (part, whole) = (written(&commits[..=cut.index(commits.len())]), written(&commits));
        let (once, twice) = (repository(), repository());
        super::import(&once, &whole);
        import_history(&twice, &super::caller(), part.path(), &mut |_| {}).unwrap();
        super::import(&twice, &whole);
        let git = Git::nothing();
        // A ref that moved sideways stays; what it names now is exported from the one that took it at once.
        super::export(&once, &git);
        prop_assert_eq!(git.everything(), whole.everything());
        let map = crate::git::GitMap::load(&**twice.store()).unwrap();
        for (_, snapshot) in once.refs("refs/").unwrap() {
            let commit = crate::git::GitMap::load(&**once.store()).unwrap().commit_of(snapshot).unwrap();
            prop_assert_eq!(map.snapshot_of(&commit), Some(snapshot));
            prop_assert_eq!(crate::missing_closure(&**twice.store(), twice.snapshot(snapshot).unwrap().tree).unwrap(), Vec::new());
        }
    }
}
