//! Snapshots as git's log shows them.

use std::collections::HashMap;

use helix_protocol::SnapshotId;
use helix_versions::{Head, HeadTarget, Repository, Snapshot, VersionError};
use serde_json::{Value, json};

use super::date;

/// The names of snapshots, as they stand beside them.
#[derive(Default)]
pub struct Names(HashMap<SnapshotId, Vec<String>>);

impl Names {
    /// The names of a repository, seen from a head.
    pub fn read(repository: &Repository, head: &Head) -> Result<Self, VersionError> {
        let mut names: HashMap<SnapshotId, Vec<String>> = HashMap::new();
        let mut current = None;
        match (&head.target, head.snapshot) {
            (HeadTarget::Branch(branch), Some(at)) => {
                current = Some(branch.clone());
                names.entry(at).or_default().push(format!("HEAD -> {branch}"));
            }
            (HeadTarget::Detached(at), _) => names.entry(*at).or_default().push("HEAD".to_owned()),
            _ => {}
        }
        for tag in repository.tags()? {
            names.entry(tag.target).or_default().push(format!("tag: {}", tag.name));
        }
        for (branch, at) in repository.branches()? {
            if Some(&branch) != current.as_ref() {
                names.entry(at).or_default().push(branch.to_string());
            }
        }
        Ok(Self(names))
    }

    fn of(&self, id: SnapshotId, colour: bool) -> String {
        match self.0.get(&id) {
            None => String::new(),
            Some(names) if colour => format!(" \x1b[33m({})\x1b[m", names.join(", ")),
            Some(names) => format!(" ({})", names.join(", ")),
        }
    }
}

/// One line: short id, names, subject.
pub fn line(id: SnapshotId, snapshot: &Snapshot, names: &Names, colour: bool) -> String {
    let short = if colour { format!("\x1b[33m{}\x1b[m", id.short()) } else { id.short() };
    format!("{short}{} {}", names.of(id, colour), subject(snapshot)).trim_end().to_owned()
}

/// A whole entry, without the empty line that separates two.
pub fn entry(id: SnapshotId, snapshot: &Snapshot, names: &Names, colour: bool) -> String {
    let mut text = if colour { format!("\x1b[33mcommit {id}\x1b[m") } else { format!("commit {id}") };
    text.push_str(&format!("{}\n", names.of(id, colour)));
    if snapshot.parents.len() > 1 {
        let parents: Vec<String> = snapshot.parents.iter().map(SnapshotId::short).collect();
        text.push_str(&format!("Merge: {}\n", parents.join(" ")));
    }
    let author = &snapshot.author;
    text.push_str(&format!(
        "Author: {} <{}>\nDate:   {}\n",
        author.name,
        author.email,
        date::long(author.time, author.offset_minutes)
    ));
    for (key, value) in &snapshot.metadata {
        text.push_str(&format!("Meta:   {key}={}\n", value.replace('\n', " ")));
    }
    text.push('\n');
    for line in snapshot.message.trim_end().lines() {
        text.push_str(if line.is_empty() { "" } else { "    " });
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A snapshot for a program.
pub fn to_json(id: SnapshotId, snapshot: &Snapshot) -> Value {
    let who = |signature: &helix_versions::Signature| json!({"name": signature.name, "email": signature.email, "time": date::iso(signature.time, signature.offset_minutes), "microseconds": signature.time.0});
    json!({
        "snapshot": id, "tree": snapshot.tree, "parents": snapshot.parents, "author": who(&snapshot.author),
        "committer": who(&snapshot.committer), "message": snapshot.message, "metadata": snapshot.metadata,
    })
}

/// The first line of the message.
pub fn subject(snapshot: &Snapshot) -> &str {
    snapshot.message.lines().next().unwrap_or_default()
}
