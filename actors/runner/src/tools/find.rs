//! `grep` and `glob`. Both see what git would not ignore, hidden files too, and never `.git`.

use std::fs::FileType;
use std::path::Path;
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use helix_protocol::{Code, Failure, ToolOutcome};
use ignore::WalkBuilder;
use regex::RegexBuilder;

use super::arguments::{GlobArguments, GrepArguments};
use crate::confine::{Confined, beneath};

/// Matches where the call does not say.
const MATCHES: usize = 100;
/// Paths where the call does not say.
const PATHS: usize = 200;
/// A matching line is shown up to this many bytes.
const LINE: usize = 400;

/// Searches contents.
pub fn grep(confined: &Confined, arguments: &GrepArguments) -> Result<ToolOutcome, Failure> {
    let pattern = RegexBuilder::new(&arguments.pattern)
        .size_limit(4 << 20)
        .build()
        .map_err(|error| Failure::new(Code::InvalidToolCall, format!("the pattern is not a regular expression: {error}")))?;
    let fits = arguments.glob.as_deref().map(matcher).transpose()?;
    let limit = arguments.limit.unwrap_or(MATCHES).max(1);
    let below =
        arguments.path.as_deref().filter(|path| *path != ".").map(|path| beneath(path).map(|clean| (path, clean))).transpose()?;
    let mut found = Vec::new();
    let mut more = false;
    let mut seen = false;
    'files: for path in files(confined) {
        if below.as_ref().is_some_and(|(_, below)| !Path::new(&path).starts_with(below)) {
            continue;
        }
        seen = true;
        if fits.as_ref().is_some_and(|fits| !fits.is_match(&path)) {
            continue;
        }
        let Ok(bytes) = confined.read(&path) else { continue };
        if helix_versions::is_binary(&bytes) {
            continue;
        }
        for (at, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            if !pattern.is_match(line) {
                continue;
            }
            if found.len() == limit {
                more = true;
                break 'files;
            }
            let end = line.floor_char_boundary(LINE);
            found.push(format!("{path}:{}:{}{}", at + 1, &line[..end], if end < line.len() { " …" } else { "" }));
        }
    }
    if let Some((path, _)) = below.filter(|_| !seen) {
        // Says which: it leads out, it is missing, or it is a folder that holds nothing.
        match confined.open_file(path) {
            Err(failure) if failure.code != Code::FileUnreadable => return Err(failure),
            _ => {}
        }
    }
    if found.is_empty() {
        return Ok(ToolOutcome::ok("nothing matches"));
    }
    if more {
        found.push(format!("[more than {limit} lines match; narrow the pattern, `path` or `glob`, or raise `limit`]"));
    }
    Ok(ToolOutcome { truncated: more, ..ToolOutcome::ok(found.join("\n")) })
}

/// Finds paths, the most recently changed first.
pub fn glob(confined: &Confined, arguments: &GlobArguments) -> Result<ToolOutcome, Failure> {
    beneath(&arguments.pattern)?;
    let fits = matcher(&arguments.pattern)?;
    let limit = arguments.limit.unwrap_or(PATHS).max(1);
    // A link counts as the file that it leads to, where it may be opened.
    let is_file = |path: &str, kind: FileType| kind.is_file() || (kind.is_symlink() && confined.open_file(path).is_ok());
    let listed = entries(confined).filter(|(path, kind, _)| fits.is_match(path) && is_file(path, *kind));
    let mut found: Vec<(SystemTime, String)> = listed.map(|(path, _, time)| (time, path)).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let total = found.len();
    if total == 0 {
        return Ok(ToolOutcome::ok("no path fits"));
    }
    let mut paths: Vec<String> = found.into_iter().take(limit).map(|(_, path)| path).collect();
    if total > limit {
        paths.push(format!("[{} more; narrow the pattern or raise `limit`]", total - limit));
    }
    Ok(ToolOutcome { truncated: total > limit, ..ToolOutcome::ok(paths.join("\n")) })
}

/// A glob; one without a slash fits the name in any folder.
fn matcher(pattern: &str) -> Result<GlobMatcher, Failure> {
    let trimmed = pattern.trim_start_matches("./");
    let whole = if trimmed.contains('/') { trimmed.to_owned() } else { format!("**/{trimmed}") };
    let glob = GlobBuilder::new(&whole).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| Failure::new(Code::InvalidToolCall, format!("{pattern:?} is not a glob: {}", error.kind())))
}

/// Every regular file, in the order of paths.
fn files(confined: &Confined) -> impl Iterator<Item = String> {
    entries(confined).filter(|(_, kind, _)| kind.is_file()).map(|(path, ..)| path)
}

/// Everything that is there, with its time of change, in the order of paths. No link is followed.
fn entries(confined: &Confined) -> impl Iterator<Item = (String, FileType, SystemTime)> {
    let root = confined.path();
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false).require_git(false).git_global(false).git_exclude(false).parents(false).follow_links(false);
    walk.filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git");
    walk.sort_by_file_path(Ord::cmp);
    walk.build().flatten().filter_map(move |entry| {
        let kind = entry.file_type().filter(|kind| !kind.is_dir())?;
        let path = entry.path().strip_prefix(root).ok()?.to_str()?.to_owned();
        let changed = entry.metadata().ok()?.modified().ok()?;
        Some((path, kind, changed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, Confined) {
        let folder = tempfile::tempdir().expect("a folder");
        for (at, (path, content)) in files.iter().enumerate() {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, content).expect("written");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at as u64);
            std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("set");
        }
        let confined = Confined::open(folder.path()).expect("a root");
        (folder, confined)
    }

    fn search(pattern: &str) -> GrepArguments {
        GrepArguments { pattern: pattern.into(), path: None, glob: None, limit: None }
    }

    #[test]
    fn grep_answers_path_line_and_text_and_leaves_out_what_git_ignores() {
        let (_folder, confined) = workspace(&[
            (".gitignore", "target\n"),
            ("a.rs", "x\nneedle 1\n"),
            ("b/c.txt", "needle 2"),
            ("target/d.rs", "needle"),
            (".git/e", "needle"),
            (".hidden", "needle 3"),
        ]);
        let all = |arguments: &GrepArguments| grep(&confined, arguments).expect("searched").content;
        assert_eq!(all(&search("needle \\d")), ".hidden:1:needle 3\na.rs:2:needle 1\nb/c.txt:1:needle 2");
        assert_eq!(all(&GrepArguments { glob: Some("*.rs".into()), ..search("needle") }), "a.rs:2:needle 1");
        assert_eq!(all(&GrepArguments { path: Some("b".into()), ..search("needle") }), "b/c.txt:1:needle 2");
        assert_eq!(all(&search("nothing at all")), "nothing matches");
        let few = grep(&confined, &GrepArguments { limit: Some(1), ..search("needle") }).expect("searched");
        assert!(few.truncated && few.content.lines().count() == 2);
        let code = |arguments| grep(&confined, &arguments).expect_err("refused").code;
        assert_eq!(code(search("(")), Code::InvalidToolCall);
        assert_eq!(code(GrepArguments { path: Some("../x".into()), ..search("x") }), Code::PathEscapes);
        assert_eq!(code(GrepArguments { path: Some("gone".into()), ..search("x") }), Code::FileNotFound);
    }

    #[test]
    fn glob_lists_the_newest_first() {
        let (_folder, confined) = workspace(&[("old.rs", ""), ("src/new.rs", ""), ("src/newest.rs", ""), ("x.txt", "")]);
        let find = |pattern: &str, limit| glob(&confined, &GlobArguments { pattern: pattern.into(), limit });
        assert_eq!(find("**/*.rs", None).expect("found").content, "src/newest.rs\nsrc/new.rs\nold.rs");
        assert_eq!(find("*.rs", Some(1)).expect("found").content, "src/newest.rs\n[2 more; narrow the pattern or raise `limit`]");
        assert_eq!(find("../*", None).expect_err("refused").code, Code::PathEscapes);
    }

    #[test]
    fn glob_lists_links_to_files_of_the_workspace_and_no_others() {
        use std::os::unix::fs::symlink;
        let (folder, _) = workspace(&[("root/CLAUDE.md", "Use tabs."), ("root/sub/AGENTS.md", "x"), ("outside", "secret")]);
        let root = Confined::open(&folder.path().join("root")).expect("a root");
        for (target, link) in [
            ("CLAUDE.md", "AGENTS.md"),
            ("../../outside", "out/AGENTS.md"),
            ("gone", "gone/AGENTS.md"),
            ("../sub", "folder/AGENTS.md"),
        ] {
            let link = root.path().join(link);
            std::fs::create_dir_all(link.parent().expect("a folder")).expect("made");
            symlink(target, link).expect("linked");
        }
        symlink(folder.path().join("outside"), root.path().join("sub/deeper.md")).expect("linked");
        let found = glob(&root, &GlobArguments { pattern: "**/*.md".into(), limit: None }).expect("found").content;
        let mut paths: Vec<&str> = found.lines().collect();
        paths.sort_unstable();
        assert_eq!(paths, ["AGENTS.md", "CLAUDE.md", "sub/AGENTS.md"]);
        assert_eq!(root.read("AGENTS.md"), Ok(b"Use tabs.".to_vec()));
        assert_eq!(root.read("out/AGENTS.md").expect_err("refused").code, Code::PathEscapes);
        let once = grep(&root, &search("tabs")).expect("searched").content;
        assert_eq!(once, "CLAUDE.md:1:Use tabs.", "what a link leads to is searched where it is");
    }
}
