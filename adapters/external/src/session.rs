//! The agent's session: where its files are, and what it is called.

use std::fs;
use std::path::{Path, PathBuf};

use helix_protocol::{AgentTurn, Failure};
use serde::{Deserialize, Serialize};

/// Where the session is, in the workspace. It is committed with every step, and ignored by git, so that no export carries it.
pub const FOLDER: &str = ".helix/agent";

/// A session, as its folder has it.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    known: Option<Known>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    agent: String,
    session: String,
}

impl Session {
    /// Looks for one that this agent left here, and makes its folder where there is none.
    pub fn open(workspace: &Path, turn: &AgentTurn) -> Result<Self, Failure> {
        let folder = workspace.join(FOLDER);
        let ignore = workspace.join(".helix/.gitignore");
        let made = fs::create_dir_all(&folder).and_then(|()| if ignore.exists() { Ok(()) } else { fs::write(&ignore, "*\n") });
        made.map_err(|error| Failure::io(folder.display(), &error))?;
        let known = fs::read(folder.join("session.json")).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
        // A fork may go on with another agent: it is told what was said.
        Ok(Self { known: known.filter(|known| known.agent == turn.agent), folder })
    }

    /// Where the agent keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the session is called.
    pub fn id(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.session.as_str())
    }

    /// From now on it is this one.
    pub fn keep(&mut self, agent: &str, session: &str) -> Result<(), Failure> {
        if self.id() == Some(session) {
            return Ok(());
        }
        let known = Known { agent: agent.to_owned(), session: session.to_owned() };
        let file = self.folder.join("session.json");
        let text = serde_json::to_vec(&known).expect("our own types can always be encoded");
        fs::write(&file, text).map_err(|error| Failure::io(file.display(), &error))?;
        self.known = Some(known);
        Ok(())
    }
}
