//! Sixteen agents at once, in one folder and in folders of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::harness::{User, rounds};

const AGENTS: usize = 16;

/// Each agent changes its file and commits, again and again; gives what failed.
fn work(user: &User, roots: &[PathBuf], commits: usize) -> Vec<String> {
    thread::scope(|scope| {
        let agents: Vec<_> =
            roots.iter().enumerate().map(|(agent, root)| scope.spawn(move || one(user, root, agent, commits))).collect();
        agents.into_iter().flat_map(|agent| agent.join().expect("it ends")).collect()
    })
}

fn one(user: &User, root: &Path, agent: usize, commits: usize) -> Vec<String> {
    let mut failed = Vec::new();
    for number in 0..commits {
        fs::write(root.join(format!("agent-{agent}.txt")), format!("{number}\n")).expect("written");
        let ended = user.run(root, &["commit", "-q", "--work", ".", "-m", &format!("agent {agent} commit {number}")]);
        if ended.code != 0 {
            failed.push(ended.err);
        }
    }
    failed
}

#[test]
fn sixteen_agents_in_one_folder_all_commit() {
    let user = User::new();
    let root = user.repository("work");
    let commits = rounds(4) as usize;
    assert_eq!(work(&user, &vec![root.clone(); AGENTS], commits), Vec::<String>::new());
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), AGENTS * commits);
    for agent in 0..AGENTS {
        assert_eq!(user.ok(&root, &["show", &format!("HEAD:agent-{agent}.txt")]), format!("{}\n", commits - 1));
    }
}

#[test]
fn sixteen_agents_in_workspaces_of_their_own_all_commit() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "base", "1");
    let commits = rounds(4) as usize;
    let roots: Vec<PathBuf> = (0..AGENTS)
        .map(|agent| {
            user.ok(&root, &["workspace", "add", &format!("../agent-{agent}")]);
            user.path(&format!("agent-{agent}"))
        })
        .collect();
    assert_eq!(work(&user, &roots, commits), Vec::<String>::new());
    for agent in 0..AGENTS {
        assert_eq!(user.ok(&root, &["log", "--oneline", &format!("main..agent-{agent}")]).lines().count(), commits);
        user.ok(
            &root,
            &["merge", "-q", &format!("agent-{agent}")].map(|argument| if argument == "-q" { "--no-ff" } else { argument }),
        );
    }
    assert_eq!(user.ok(&root, &["ls-files"]).lines().count(), AGENTS + 1);
}

#[test]
fn who_moves_a_shared_head_together_with_others_is_told_of_workspaces() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let told = Mutex::new(String::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // They hardly ever meet, so each tries until somebody had to wait.
                for _ in 0..200 {
                    let said = user.run(&root, &["reset", "--hard"]).err;
                    let mut told = told.lock().expect("nobody panics with it");
                    *told += &said;
                    if told.contains("helios workspace add") {
                        return;
                    }
                }
            });
        }
    });
    let told = told.into_inner().expect("nobody panics with it");
    assert!(told.contains("helios workspace add"), "somebody had to wait: {told}");
}

#[test]
fn agents_that_each_begin_with_init_do_not_disturb_each_other() {
    let user = User::new();
    let root = user.path("work");
    fs::create_dir(&root).expect("made");
    let codes = thread::scope(|scope| {
        let agents: Vec<_> = (0..8)
            .map(|agent| {
                let (user, root) = (&user, &root);
                scope.spawn(move || {
                    let name = format!("agent-{agent}");
                    let init = user.run(root, &["init"]);
                    fs::write(root.join(&name), "1").expect("written");
                    (init.code, user.run(root, &["commit", "-q", "--work", &name]).code)
                })
            })
            .collect();
        agents.into_iter().map(|agent| agent.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert_eq!(codes, vec![(0, 0); 8]);
    assert_eq!(user.ok(&root, &["ls-files"]).lines().count(), 8);
}
