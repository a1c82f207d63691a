//! What the tasks are, and what they must leave whatever happens.

use helix_protocol::{CommandSpec, TaskSpec, TaskWork};

use crate::chance::Chance;
use crate::workspaces::Files;

/// A task and its end.
pub struct Wanted {
    pub spec: TaskSpec,
    pub turns: u64,
    pub files: Files,
    /// Model calls.
    pub calls: i64,
}

/// The task of this number.
pub fn wanted(chance: &mut Chance, number: usize) -> Wanted {
    let title = format!("t{number}");
    if chance.one_in(3) { talk(chance, title) } else { commands(chance, title) }
}

/// Each command writes before and after it sleeps: one that is made twice in a workspace shows in the files.
fn commands(chance: &mut Chance, title: String) -> Wanted {
    let turns = chance.between(1, 5);
    let (mut commands, mut text) = (Vec::new(), String::new());
    for turn in 1..=turns {
        let parts = chance.between(1, 16);
        let mut command = Vec::new();
        for part in 1..=parts {
            command.push(format!("append a {turn}.{part}"));
            command.push(format!("sleep {}", chance.between(10, 2_500)));
            text += &format!("{turn}.{part}\n");
        }
        commands.push(command.join("; "));
    }
    let work = TaskWork::Command(CommandSpec { commands, artifacts: Vec::new() });
    Wanted { spec: TaskSpec::new(title, work), turns, files: Files::from([("a".to_owned(), text.into_bytes())]), calls: 0 }
}

/// Turns of a model call, a tool, and a second of both. What a call says depends on how many messages there were before it.
fn talk(chance: &mut Chance, title: String) -> Wanted {
    let turns = chance.between(1, 4);
    let (mut text, mut said) = (String::new(), 0);
    for turn in 1..=turns {
        for _ in 0..2 {
            said += 1;
            text += &format!("{turn}: reply after {}\n\n", said + turn - 1);
        }
    }
    let work = TaskWork::Custom { name: "talk".to_owned(), input: serde_json::json!({ "steps": turns }) };
    let calls = i64::try_from(2 * turns).expect("few turns");
    Wanted { spec: TaskSpec::new(title, work), turns, files: Files::from([("log".to_owned(), text.into_bytes())]), calls }
}
