//! The same words to git and to Helios, in folders with the same files: the same answers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, User, ended};

/// A person with a repository of each.
pub struct Both {
    pub user: User,
    pub git: PathBuf,
    pub helios: PathBuf,
}

impl Both {
    /// Two empty repositories.
    pub fn new() -> Self {
        let user = User::new();
        let config =
            "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n";
        fs::write(user.path("home/.gitconfig"), config).expect("written");
        let (git, helios) = (user.path("git"), user.repository("helios"));
        fs::create_dir(&git).expect("made");
        let both = Self { user, git, helios };
        assert_eq!(both.git("", &["init", "-q"]).code, 0);
        both
    }

    /// Writes a file in both.
    pub fn write(&self, path: &str, content: &str) {
        for root in [&self.git, &self.helios] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("made");
            fs::write(path, content).expect("written");
        }
    }

    /// Commits everything in both.
    pub fn commit(&self, message: &str) {
        self.done(&["add", "-A"]);
        self.done(&["commit", "-q", "-m", message]);
    }

    /// Runs git in a folder beneath its root.
    pub fn git(&self, folder: &str, arguments: &[&str]) -> Ended {
        ended(self.user.program("git", &at(&self.git, folder)).args(arguments))
    }

    /// Runs helios in a folder beneath its root.
    pub fn helios(&self, folder: &str, arguments: &[&str]) -> Ended {
        self.user.run(&at(&self.helios, folder), arguments)
    }

    /// Gives both a command that succeeds.
    pub fn done(&self, arguments: &[&str]) {
        for ended in [self.git("", arguments), self.helios("", arguments)] {
            assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.err);
        }
    }

    /// Gives both a command; both must end with the same code.
    pub fn same_code(&self, folder: &str, arguments: &[&str]) {
        let (git, helios) = (self.git(folder, arguments), self.helios(folder, arguments));
        assert_eq!(git.code, helios.code, "{arguments:?}: git: {}{}helios: {}{}", git.out, git.err, helios.out, helios.err);
    }

    /// Gives both a command; both must end with the same code and print the same.
    pub fn same(&self, folder: &str, arguments: &[&str]) {
        self.same_code(folder, arguments);
        assert_eq!(self.git(folder, arguments).out, self.helios(folder, arguments).out, "{arguments:?} in {folder:?}");
    }
}

fn at(root: &Path, folder: &str) -> PathBuf {
    if folder.is_empty() { root.to_owned() } else { root.join(folder) }
}

#[test]
fn commands_end_with_gits_codes() {
    let both = Both::new();
    let in_an_empty_repository =
        "show; rev-parse HEAD; branch x; tag v; diff --quiet HEAD; diff --quiet; log; merge --abort; status
        commit -m x; merge x; branch -d x; tag -d x; ls-files; branch; switch nope; reset --hard nope";
    let with_one_commit = "tag v1; branch side; checkout -b side; switch -c side; branch -m main side; branch -m nope other
        merge --abort; show HEAD:nope; cat-file -p HEAD:nope; rev-parse HEAD:nope; show HEAD:f; restore --staged nope; restore nope
        restore --staged f; restore --source nope f; branch -d nope; branch -D nope; branch -d main; branch -d side; tag -d nope
        checkout nope; checkout HEAD~5; checkout nope -- f; checkout -- nope; checkout HEAD -- nope; checkout -b new nope; merge nope
        switch nope; reset nope; cherry-pick nope; revert nope; branch x nope; tag x nope; log nope; diff nope; diff HEAD nope; blame nope
        commit -m x; add nope; rev-parse nope; cat-file -e nope; tag a..b; branch a..b; merge --no-such; tag v1 --no-such";
    let commands = |text: &'static str| text.split([';', '\n']).map(|line| line.split_whitespace().collect::<Vec<_>>());
    for arguments in commands(in_an_empty_repository) {
        both.same_code("", &arguments);
    }
    both.write("f", "1\n");
    both.commit("one");
    both.done(&["branch", "side"]);
    both.done(&["tag", "v1"]);
    for arguments in commands(with_one_commit) {
        both.same_code("", &arguments);
    }
    for message in ["", "  ", "\n \n"] {
        both.same_code("", &["commit", "--allow-empty", "-m", message]);
    }
    both.done(&["rev-parse", "HEAD"]);
    assert_eq!(both.user.ok(&both.helios, &["log", "--oneline"]).lines().count(), 1, "nothing was committed");
}

/// Two lines of work that conflict in `f`: `main` and `side`. `old` is before `main`, and `apart` changes another file.
fn conflicting() -> Both {
    let both = Both::new();
    for path in ["f", "g"] {
        both.write(path, "1\n");
    }
    both.commit("base");
    both.done(&["branch", "old"]);
    for (branch, path) in [("side", "f"), ("apart", "a")] {
        both.done(&["checkout", "-q", "-b", branch, "old"]);
        both.write(path, &format!("{branch}\n"));
        both.commit(branch);
    }
    both.done(&["checkout", "-q", "main"]);
    both.write("f", "main\n");
    both.commit("main");
    both
}

fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.split([';', '\n']).map(|line| line.split_whitespace().collect())
}

#[test]
fn what_is_refused_while_a_merge_waits_is_refused_with_gits_codes() {
    for begun in [["merge", "side"], ["cherry-pick", "side"]] {
        let both = conflicting();
        both.same_code("", &begun);
        let waiting = "merge side; merge old; commit -m no; switch old; checkout old; cherry-pick side; revert HEAD
            reset --soft HEAD; status --porcelain; diff --quiet; diff --quiet -- g";
        lines(waiting).for_each(|arguments| both.same_code("", &arguments));
        // What one command began is not given up as another one's.
        let others = if begun[0] == "merge" { "cherry-pick --abort; revert --abort; revert --continue" } else { "merge --abort" };
        lines(others).for_each(|arguments| {
            both.same_code("", &arguments);
            let told = both.helios("", &arguments).err;
            assert!(told.contains(&format!("`helios {} --abort` gives it up", begun[0])), "{told}");
        });
        for arguments in ["diff --name-only", "diff --name-status", "diff --name-only -- g"] {
            both.same("", &arguments.split(' ').collect::<Vec<_>>());
        }
        // git's own shows all sides at once; beside our side it says the same as here.
        let (git, ours) = (both.git("", &["diff", "--ours"]).out, both.helios("", &["diff"]).out);
        let plain = |text: &str| text.lines().filter(|line| !line.starts_with("index ") && !line.contains(">>>")).count();
        assert!(ours.starts_with("* Unmerged path f\ndiff --git a/f b/f\n") && ours.contains("\n+<<<<<<< HEAD\n main\n"), "{ours}");
        assert_eq!(plain(&git), plain(&ours), "{git}{ours}");
        both.write("f", "decided\n");
        both.done(&["add", "f"]);
        lines("merge side; switch old; cherry-pick side; revert HEAD").for_each(|arguments| both.same_code("", &arguments));
        both.same("", &["diff"]);
        both.done(&["commit", "-q", "-m", "decided"]);
        both.same("", &["status", "--porcelain"]);
    }
}

#[test]
fn a_pick_that_is_decided_ends_with_a_soft_reset_and_a_merge_does_not() {
    for begun in ["merge side", "cherry-pick side", "revert HEAD~1"] {
        let both = conflicting();
        both.write("f", "later\n");
        both.commit("later");
        lines(begun).for_each(|arguments| both.same_code("", &arguments));
        both.same_code("", &["reset", "--soft", "HEAD~1"]);
        both.write("f", "decided\n");
        both.done(&["add", "f"]);
        both.same_code("", &["reset", "--soft", "HEAD~1"]);
        both.same("", &["status", "--porcelain"]);
        both.same("", &["diff", "HEAD", "--stat"]);
        let is_over = begun != "merge side";
        assert_eq!(both.helios("", &["status"]).out.contains("All conflicts are decided"), !is_over, "{begun}");
        for give_up in ["cherry-pick --abort", "merge --abort"] {
            lines(give_up).for_each(|arguments| both.same_code("", &arguments));
            both.same("", &["status", "--porcelain"]);
        }
    }
}

#[test]
fn a_pick_is_given_up_by_its_own_name_and_by_that_of_a_revert() {
    for (begun, give_up) in [("cherry-pick side", "revert --abort"), ("revert HEAD~1", "cherry-pick --abort")] {
        let both = conflicting();
        both.write("f", "later\n");
        both.commit("later");
        for words in [begun, give_up] {
            lines(words).for_each(|arguments| both.same_code("", &arguments));
            both.same("", &["status", "--porcelain"]);
        }
        assert_eq!(fs::read_to_string(both.helios.join("f")).expect("read"), "later\n");
    }
}

#[test]
fn what_is_not_committed_stops_a_merge_or_a_pick_where_it_does_in_git() {
    let both = conflicting();
    let refused = "cherry-pick side; revert HEAD; merge old; status --porcelain";
    both.write("f", "edited\n");
    lines(refused).for_each(|arguments| both.same_code("", &arguments));
    both.done(&["add", "f"]);
    lines(refused).for_each(|arguments| both.same_code("", &arguments));
    both.done(&["checkout", "-q", "-f", "main"]);
    both.write("staged", "1\n");
    both.done(&["add", "staged"]);
    // What is staged in another file is in nobody's way, where the head only moves or does not.
    lines(refused).for_each(|arguments| both.same_code("", &arguments));
    both.done(&["checkout", "-q", "old"]);
    both.done(&["merge", "main"]);
    both.same("", &["status", "--porcelain"]);
    both.done(&["commit", "-q", "-m", "staged"]);
    both.same("", &["status", "--porcelain"]);
    // In the same file it is.
    both.done(&["checkout", "-q", "-b", "again", "old"]);
    both.write("f", "staged\n");
    both.done(&["add", "f"]);
    both.same_code("", &["merge", "main"]);
    both.same("", &["status", "--porcelain"]);
    // A snapshot of both sides has no room for it.
    both.done(&["checkout", "-q", "-f", "main"]);
    both.write("staged", "1\n");
    both.done(&["add", "staged"]);
    let made = both.helios("", &["merge", "apart"]);
    assert!(made.code == 1 && made.err.contains("staged") && both.git("", &["merge", "apart"]).code != 0, "{made:?}");
    both.same("", &["status", "--porcelain"]);
}

#[test]
fn what_people_type_to_git_is_understood() {
    let both = Both::new();
    both.write("f", "1\n");
    both.commit("one");
    both.done(&["tag", "-m", "first line\n\nmore", "v1"]);
    both.done(&["tag", "plain"]);
    both.write("f", "1\n2\n");
    both.write("why", "why\n\nand how\n");
    both.write(".env", "secret\n");
    both.done(&["commit", "-q", "-a", "-F", "why"]);
    both.same("", &["status", "--porcelain"]);
    both.same_code("", &["commit", "-a", "-m", "nothing is tracked and changed"]);
    both.same_code("", &["commit", "-F", "nope"]);
    let message = |ended: Ended| ended.out.split_once("\n\n").map(|(_, text)| text.to_owned());
    assert_eq!(message(both.git("", &["cat-file", "-p", "HEAD"])), message(both.helios("", &["cat-file", "-p", "HEAD"])));
    for arguments in [&["tag", "-n"][..], &["cat-file", "-t", "v1"], &["cat-file", "-t", "plain"]] {
        both.same("", arguments);
    }
    let told = |arguments: &[&str], part: &str| {
        for ended in [both.git("", arguments), both.helios("", arguments)] {
            assert!(ended.out.contains(part), "{arguments:?}: {ended:?}");
        }
    };
    told(&["show", "v1"], "\n\nfirst line\n\nmore\n\ncommit ");
    told(&["cat-file", "-p", "v1"], "\ntype commit\ntag v1\ntagger Ada <ada@example.org> ");
    for arguments in [
        "blame HEAD~1 f",
        "blame HEAD~1 -- f",
        "blame -- f",
        "blame f",
        "blame HEAD~1 -- nope",
        "blame nope f",
        "blame HEAD HEAD~1 f",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        both.same_code("", &arguments);
        let lines = [both.git("", &arguments), both.helios("", &arguments)].map(|ended| ended.out.lines().count());
        assert_eq!(lines[0], lines[1], "{arguments:?}");
    }
    let branches = "branch a; branch b; branch c; branch -d a nope b; branch; branch -D c nope; branch; branch x HEAD y";
    for arguments in lines(branches) {
        both.same_code("", &arguments);
        both.same("", &["branch"]);
    }
    for arguments in
        ["rev-parse --verify -q nope", "rev-parse -q --verify nope~3", "rev-parse --verify nope", "rev-parse --verify -q HEAD HEAD"]
    {
        both.same("", &arguments.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(both.helios("", &["rev-parse", "--verify", "-q", "nope"]).err, "");
    for (asked, digits) in [("--short=7", 7), ("--short=20", 20), ("--short=1", 4)] {
        both.same_code("", &["rev-parse", asked, "HEAD"]);
        assert_eq!(both.helios("", &["rev-parse", asked, "HEAD"]).out.trim().len(), digits);
    }
}

#[test]
fn the_history_has_gits_order_also_where_its_commits_are_of_one_second() {
    let both = Both::new();
    let commits = "git init -q; at() { GIT_AUTHOR_DATE='@1700000000 +0000' GIT_COMMITTER_DATE='@1700000000 +0000' git \"$@\"; }
        for c in a b c; do at commit -q --allow-empty -m $c; done; git checkout -q -b side; at commit -q --allow-empty -m d
        git checkout -q main; at commit -q --allow-empty -m e; at merge -q --no-ff -m f side; git branch -f side HEAD~2";
    assert_eq!(ended(both.user.program("sh", &both.git).args(["-e", "-c", commits])).code, 0);
    both.user.ok(&both.helios, &["import", "--from-git", "../git"]);
    let subjects =
        |ended: Ended| ended.out.lines().map(|line| line.split(' ').next_back().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    for arguments in [&["log", "--oneline"][..], &["log", "--oneline", "-n", "2", "--reverse"], &["log", "--oneline", "-3"]] {
        assert_eq!(subjects(both.helios("", arguments)), subjects(both.git("", arguments)), "{arguments:?}");
    }
    let order = subjects(both.helios("", &["log", "--oneline", "side", "main~1", "main"]));
    let place = |name: &str| order.iter().position(|found| found == name).expect("it is there");
    for (child, parent) in [("f", "e"), ("f", "d"), ("e", "c"), ("d", "c"), ("c", "b"), ("b", "a")] {
        assert!(place(child) < place(parent), "{order:?}");
    }
}

#[test]
fn paths_are_those_of_the_folder_one_is_in() {
    let both = Both::new();
    for (path, content) in [("a", "1\n"), ("d/a", "2\n"), ("d/e/b", "3\n"), ("de/c", "4\n")] {
        both.write(path, content);
    }
    both.commit("one");
    for (path, content) in
        [("a", "new\n"), ("d/a", "new\n"), ("d/new/x", "1\n"), ("d/new/y", "1\n"), ("z", "1\n"), ("de/c", "new\n")]
    {
        both.write(path, content);
    }
    both.done(&["add", "de/c"]);
    for folder in ["", "d", "d/e", "d/new"] {
        both.same(folder, &["ls-files"]);
        both.same(folder, &["ls-files", "-z"]);
        for arguments in ["status -s", "status --porcelain", "status -s .", "status -s ..", "status --porcelain -uall", "status -z"]
        {
            both.same(folder, &arguments.split(' ').collect::<Vec<_>>());
        }
    }
    both.same("", &["status", "-s", "d/new/x"]);
    both.same("d", &["ls-files", "../de", "a"]);
    for revision in ["HEAD:./a", "HEAD:../a", "HEAD:d/a", ":./a", "HEAD:./e/b"] {
        both.same("d", &["show", revision]);
        both.same("d", &["cat-file", "-p", revision]);
    }
    for arguments in [&["show", "HEAD:../../a"], &["show", "HEAD:./nope"], &["rev-parse", "HEAD:./nope"]] {
        both.same_code("d", arguments);
    }
    assert!(both.helios("d", &["status"]).out.contains("modified:   ../a\n"));
    assert!(both.helios("d", &["ls-files", "--json"]).out.contains("\"path\":\"d/e/b\""));
    both.done(&["checkout", "-q", "HEAD", "--", "d"]);
    both.same("d", &["status", "-s"]);
}

#[test]
fn paths_need_no_dashes_where_it_is_clear_what_they_are() {
    let both = Both::new();
    for (path, content) in [("f", "1\n"), ("d/g", "1\n"), ("both", "1\n"), ("gone", "1\n")] {
        both.write(path, content);
    }
    both.commit("one");
    both.write("f", "2\n");
    both.write("both", "2\n");
    both.commit("two");
    both.done(&["branch", "both"]);
    both.write("f", "3\n");
    both.write("d/g", "3\n");
    for root in [&both.git, &both.helios] {
        fs::remove_file(root.join("gone")).expect("removed");
    }
    let same = "diff --name-only .; diff --name-only HEAD~1 HEAD f; diff --name-only HEAD~1 f; diff --name-only f d
        diff --name-only HEAD~1..HEAD f; diff --name-only HEAD -- gone; diff --name-only both --; diff --name-only -- both
        diff --name-only both; diff --name-only nope; diff --name-only gone; diff --name-only f nope; diff --name-only HEAD f both
        diff --name-only f HEAD; log --oneline nope; log --oneline both; log --oneline f nope; reset both; reset nope; reset --hard f
        reset --soft f; checkout nope f; checkout both f; status --porcelain .; status --porcelain d; status --porcelain nope";
    for line in same.split([';', '\n']) {
        both.same("", &line.split_whitespace().collect::<Vec<_>>());
    }
    for arguments in [
        &["log", "--oneline", "f"][..],
        &["log", "--oneline", "d"],
        &["log", "--oneline", "HEAD", "f"],
        &["log", "--oneline", "-1"],
    ] {
        both.same_code("", arguments);
        assert_eq!(both.git("", arguments).out.lines().count(), both.helios("", arguments).out.lines().count(), "{arguments:?}");
    }
    both.same("d", &["diff", "--name-only", "."]);
    let told = both.helios("", &["log", "bth"]).err;
    assert!(told.contains("ambiguous argument 'bth': unknown revision or path not in the working tree"), "{told}");
    assert!(told.contains("the nearest is \"both\""), "{told}");
    both.done(&["add", "-u"]);
    both.same("", &["status", "--porcelain"]);
    both.done(&["reset", "-q", "f"]);
    both.same("", &["status", "--porcelain"]);
    both.done(&["checkout", "HEAD", "f", "d/g"]);
    both.same("", &["status", "--porcelain"]);
    both.done(&["checkout", "HEAD~1", "f"]);
    both.same("", &["status", "--porcelain"]);
    both.same("", &["branch", "-a"]);
    both.done(&["tag", "-a", "v1", "-m", "why"]);
    both.same("", &["tag"]);
}

#[test]
fn a_dash_is_where_the_head_was_before() {
    let both = Both::new();
    for content in ["1", "2", "3"] {
        both.write("f", content);
        both.commit(content);
    }
    let at = |ended: Ended| ended.out.split_once(' ').map(|(_, subject)| subject.to_owned());
    let commands =
        "checkout -q HEAD~1; checkout -q main; checkout -q -; checkout -q -; checkout -q -; commit -q --allow-empty -m there
        checkout -q -; checkout -q -; switch -q main";
    for line in commands.split([';', '\n']) {
        both.done(&line.split_whitespace().collect::<Vec<_>>());
        let log = ["log", "--oneline", "-n", "1"];
        assert_eq!(at(both.git("", &log)), at(both.helios("", &log)), "{line}");
        both.same("", &["branch", "--show-current"]);
    }
}

#[test]
fn dates_of_the_environment_are_read_as_git_reads_them() {
    let both = Both::new();
    let dated = |program: &str, root: &Path, date: &str, name: &str| {
        let mut command = both.user.program(program, root);
        let arguments = ["commit", "-q", "--allow-empty", "-m", "x"];
        ended(
            command.args(arguments).env("GIT_AUTHOR_DATE", date).env(format!("GIT_COMMITTER_{name}"), "2030-01-02T03:04:05+05:30"),
        )
    };
    let who = |text: String| {
        text.lines().filter(|line| line.starts_with("author") || line.starts_with("committer")).collect::<Vec<_>>().join("\n")
    };
    let dates = "1700000000 +0100;@1700000000 -0230;@0 +0000;1700000000 +0000;2005-04-07T22:13:13+0200;2005-04-07T22:13:13+02:00;2005-04-07T22:13:13Z
        2005-04-07T22:13:13;2005-04-07 22:13:13;2005-04-07 22:13:13 +0200;Thu, 07 Apr 2005 22:13:13 +0200;Thu, 7 Apr 2005 22:13:13 +0200
        Thu Apr 7 22:13:13 2005 -0700;garbage;yesterday;2 minutes ago;now;2005-13-45T22:13:13+02:00;@x +0000;@-5 +0000";
    let helios = crate::harness::programs().join("helios").display().to_string();
    for date in dates.split([';', '\n']).map(str::trim) {
        let (git, ours) = (dated("git", &both.git, date, "DATE"), dated(&helios, &both.helios, date, "DATE"));
        assert_eq!(git.code, ours.code, "{date:?}: git: {}helios: {}", git.err, ours.err);
        if git.code == 0 {
            let object = ["cat-file", "-p", "HEAD"];
            assert_eq!(who(both.git("", &object).out), who(both.helios("", &object).out), "{date:?}");
        } else {
            assert!(ours.err.contains(&format!("invalid date format: {date}")), "{}", ours.err);
        }
    }
    let mut tag = both.user.helios(&both.helios, &["tag", "-m", "why", "v1"]);
    assert_eq!(ended(tag.env("GIT_COMMITTER_DATE", "nonsense")).code, 128);
    let mut status = both.user.helios(&both.helios, &["status"]);
    assert_eq!(ended(status.env("GIT_COMMITTER_DATE", "nonsense")).code, 0, "it dates nothing");
    let entry = both.user.ok(&both.helios, &["oplog", "-n", "1", "--json"]);
    assert!(!entry.contains("2030-01-02"), "the operation log has the time at which it was done: {entry}");
}
