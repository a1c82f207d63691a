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
