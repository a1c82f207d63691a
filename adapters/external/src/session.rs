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
    workspace: String,
    known: Option<Known>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    agent: String,
    session: String,
    /// Where its workspace was. Agents look for sessions by it, and work there again: one that lies elsewhere
    /// now has to be begun anew.
    #[serde(default)]
    workspace: String,
}

impl Session {
    /// Looks for one that this agent left here, and makes its folder where there is none.
    pub fn open(workspace: &Path, turn: &AgentTurn) -> Result<Self, Failure> {
        let folder = workspace.join(FOLDER);
        let ignore = workspace.join(".helix/.gitignore");
        let made = fs::create_dir_all(&folder).and_then(|()| if ignore.exists() { Ok(()) } else { fs::write(&ignore, "*\n") });
        made.map_err(|error| Failure::io(folder.display(), &error))?;
        let known = fs::read(folder.join("session.json")).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
        let workspace = workspace.display().to_string();
        // A fork may go on with another agent: it is told what was said.
        let known = known.filter(|known| known.agent == turn.agent && known.workspace == workspace);
        Ok(Self { known, workspace, folder })
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
        let known = Known { agent: agent.to_owned(), session: session.to_owned(), workspace: self.workspace.clone() };
        let file = self.folder.join("session.json");
        let text = serde_json::to_vec(&known).expect("our own types can always be encoded");
        fs::write(&file, text).map_err(|error| Failure::io(file.display(), &error))?;
        self.known = Some(known);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AgentProgram, Approval, TurnLimits};

    use super::*;

    fn turn(agent: &str) -> AgentTurn {
        AgentTurn {
            agent: agent.to_owned(),
            program: AgentProgram::default(),
            prompt: String::new(),
            before: String::new(),
            model: None,
            sandboxed: true,
            lost: Vec::new(),
            approval: Approval::Full,
            allowed: Vec::new(),
            refused: Vec::new(),
            gateway: None,
            limits: TurnLimits { start_ms: 1, silent_ms: 1 },
        }
    }

    #[test]
    fn a_session_is_taken_up_by_the_same_agent_in_the_same_place_alone() {
        let (here, there) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let mut session = Session::open(here.path(), &turn("a")).expect("made");
        assert_eq!(session.id(), None);
        session.keep("a", "s1").expect("kept");
        let known = |workspace: &Path, agent: &str| Session::open(workspace, &turn(agent)).expect("opened").id().map(str::to_owned);
        assert_eq!((known(here.path(), "a").as_deref(), known(here.path(), "b")), (Some("s1"), None));
        fs::create_dir_all(there.path().join(FOLDER)).expect("made");
        fs::copy(here.path().join(FOLDER).join("session.json"), there.path().join(FOLDER).join("session.json")).expect("copied");
        assert_eq!(known(there.path(), "a"), None);
    }
}
