//! Operations for programs: content in and out of a repository without touching a working folder. docs/helios-protocol.md is their
//! manual.
//!
//! Each names the repository by a `path` in it, and the workspace whose head is meant by `workspace`, where it is not the one the
//! path lies in. A workspace made here has no folder; where one has a folder, its files follow what is committed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use helios_client::{Answer, Text};
use helix_protocol::{Code, Failure, FileMode, SnapshotId, Timestamp};
use helix_versions::{
    BranchName, Caller, Existing, FileEdit, FilesRequest, HeadTarget, LocalChanges, LogEntry, LogQuery, Resolved, Signature, Start,
    WorkspaceName,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::commands::unfinished::Noted;
use crate::commands::watch;
use crate::console::{Console, Sink};
use crate::engine::Engine;
use crate::engine::location::Location;
use crate::engine::settings;
use crate::here::Here;
use crate::render::{changes, history};
use crate::session::Wire;

/// What each operation is called.
const NAMES: [&str; 9] = ["run", "open", "workspace", "commit_files", "read_file", "list_files", "log", "branch", "watch"];

/// Does an operation.
pub fn run(engine: &Engine, op: &str, fields: Map<String, Value>, wire: &mut Wire<'_>) -> Answer {
    let mut session = Operations { engine, wire };
    let done = match op {
        "open" => session.open(fields),
        "workspace" => session.workspace(fields),
        "commit_files" => session.commit_files(fields),
        "read_file" => session.read_file(fields),
        "list_files" => session.list_files(fields),
        "log" => session.log(fields),
        "branch" => session.branch(fields),
        "watch" => session.watch(fields),
        _ => {
            let failure = Failure::new(Code::InvalidRequest, format!("there is no operation {op:?}"));
            Err(failure.hint(format!("there are {}", NAMES.join(", "))))
        }
    };
    done.map_or_else(|failure| Answer::Error(engine.plain(failure)), Answer::Ok)
}

struct Operations<'a, 'w> {
    engine: &'a Engine,
    wire: &'a mut Wire<'w>,
}

/// Where it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    path: Text,
    workspace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddWorkspace {
    path: Text,
    workspace: Option<String>,
    name: String,
    start: Option<String>,
    branch: Option<String>,
    author: Option<Person>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitFiles {
    path: Text,
    workspace: Option<String>,
    files: Vec<File>,
    message: String,
    author: Option<Person>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    expect: Option<String>,
    durability: Option<String>,
    #[serde(default)]
    allow_empty: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: Text,
    /// Absent: the file is removed.
    content: Option<Text>,
    mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    email: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    path: Text,
    workspace: Option<String>,
    file: Text,
    revision: Option<String>,
    /// From this byte on.
    #[serde(default)]
    offset: u64,
    /// Absent: to its end.
    length: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFiles {
    path: Text,
    workspace: Option<String>,
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    path: Text,
    workspace: Option<String>,
    #[serde(default)]
    revisions: Vec<String>,
    limit: Option<usize>,
    #[serde(default, rename = "where")]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    path: Text,
    workspace: Option<String>,
    /// Absent: the branches are listed.
    name: Option<String>,
    start: Option<String>,
    #[serde(default)]
    force: bool,
    author: Option<Person>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    path: Text,
    since: Option<u64>,
    count: Option<usize>,
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        Failure::new(Code::InvalidRequest, error.to_string()).hint("docs/helios-protocol.md lists each operation's fields")
    })
}

impl Operations<'_, '_> {
    fn here(&mut self, path: &Text, workspace: Option<&str>) -> Result<Here, Failure> {
        let location = location(path)?;
        let mut console = Console::new(self.wire);
        let open = self.engine.repository(&location, &mut console)?;
        let mut here = Here { location, open };
        if let Some(name) = workspace {
            here.location = here.place_of(&here.repository().workspace(&name.parse()?)?);
        }
        Ok(here)
    }

    fn open(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let Open { path, workspace } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let head = here.repository().head(here.name())?;
        let branch = if let HeadTarget::Branch(branch) = &head.target { Some(branch.to_string()) } else { None };
        Ok(
            json!({"repository": Text::from(here.location.repository.as_os_str()), "workspace": here.name().to_string(), "branch": branch, "head": head.snapshot}),
        )
    }

    fn workspace(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let AddWorkspace { path, workspace, name, start, branch, author } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let name: WorkspaceName = name.parse()?;
        let branch: BranchName = branch.unwrap_or_else(|| name.to_string()).parse()?;
        let repository = here.repository();
        let start = match (repository.branch(&branch)?, repository.head(here.name())?.snapshot) {
            (Some(_), _) => Start::Branch(branch.clone()),
            (None, None) if start.is_none() => Start::Unborn(branch.clone()),
            _ => Start::NewBranch(branch.clone(), here.resolve(start.as_deref().unwrap_or("HEAD"))?),
        };
        repository.add_workspace(&caller(&here, author.as_ref(), None), &name, "", &start)?;
        let head = repository.head(&name)?;
        Ok(json!({"workspace": name.to_string(), "branch": branch.as_str(), "head": head.snapshot}))
    }

    fn commit_files(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let started = Instant::now();
        let request: CommitFiles = read(fields)?;
        let here = self.here(&request.path, request.workspace.as_deref())?;
        let durability = match request.durability.as_deref() {
            None => None,
            Some(class) => Some(settings::durability(class).ok_or_else(|| {
                Failure::new(Code::InvalidRequest, format!("{class:?} is no durability")).hint("it is nosync, group or sync")
            })?),
        };
        let edits = request.files.into_iter().map(File::edit).collect::<Result<Vec<_>, _>>()?;
        let request = FilesRequest {
            caller: caller(&here, request.author.as_ref(), durability),
            expect: request.expect.as_deref().map(|revision| here.resolve(revision)).transpose()?,
            edits,
            message: request.message,
            author: None,
            metadata: request.metadata,
            allow_empty: request.allow_empty,
        };
        // With a folder, its turn is taken, so that its files follow before anybody looks at them.
        let folder = if here.location.root.is_dir() { Some(here.folder()?) } else { None };
        let mut folder = folder.as_ref().map(|folder| crate::here::queue(folder, &Console::new(self.wire))).transpose()?;
        let before = here.repository().tree_of(&here.repository().head(here.name())?)?;
        // What an engine that died left of other moves stays noted, and includes this one.
        let noted = folder.is_some().then(|| Noted::of(&here, here.name().clone(), before));
        let committed = here.repository().commit_files(&request);
        let follows = committed.as_ref().ok().zip(folder.as_mut()).map(|(committed, folder)| {
            let is_settled = noted.as_ref().is_some_and(|noted| noted.is_own);
            is_settled && folder.switch(here.store(), Some(before), committed.tree, LocalChanges::Keep).is_ok()
        });
        if let Some(noted) = noted {
            noted.end(&here);
        }
        let committed = committed?;
        drop(folder);
        here.open.meter.committed(started.elapsed());
        Ok(json!({
            "snapshot": committed.snapshot, "tree": committed.tree, "parents": committed.parents, "branch": committed.branch.as_ref().map(BranchName::as_str),
            "on_disk": committed.recorded.on_disk, "mark": committed.recorded.mark.0, "folder_follows": follows,
        }))
    }

    fn read_file(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let ReadFile { path, workspace, file, revision, offset, length } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let shown = || String::from_utf8_lossy(file.as_bytes()).into_owned();
        let missing = || Failure::new(Code::FileNotFound, format!("there is no file {:?}", shown()));
        let (content, mode) = match revision {
            None => {
                let content = here.repository().read_file(here.name(), file.as_bytes())?.ok_or_else(missing)?;
                let mode = here.repository().stat_file(here.name(), file.as_bytes())?.ok_or_else(missing)?.0;
                (content, mode)
            }
            Some(revision) => {
                let tree = here.repository().resolve_tree(here.name(), &revision)?;
                let entry = helix_versions::entry_at(here.store(), tree, file.as_bytes())?;
                let entry = entry.filter(|entry| entry.mode != FileMode::Directory).ok_or_else(missing)?;
                (here.store().read(entry.id)?, entry.mode)
            }
        };
        let within = |at: u64| usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
        let part = &content[within(offset)..within(length.map_or(u64::MAX, |length| offset.saturating_add(length)))];
        Ok(json!({"content": Text::new(part), "mode": changes::mode(mode), "size": content.len()}))
    }

    fn list_files(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let ListFiles { path, workspace, revision } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let tree = match revision.as_deref() {
            None => here.repository().tree_of(&here.repository().head(here.name())?)?,
            Some(revision) => here.repository().resolve_tree(here.name(), revision)?,
        };
        let files = helix_versions::walk(here.store(), tree)?.into_iter().filter(|entry| entry.mode != FileMode::Directory);
        let files: Vec<Value> = files.map(|entry| json!({"path": Text::new(&entry.path), "mode": changes::mode(entry.mode), "size": entry.size, "id": entry.id})).collect();
        Ok(json!({"tree": tree, "files": files}))
    }

    fn log(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let Log { path, workspace, revisions, limit, metadata } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
        let range = here.repository().resolve_range(here.name(), &revisions)?;
        let metadata = metadata.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let query = LogQuery { include: range.include, exclude: range.exclude, limit, metadata, ..LogQuery::default() };
        let entries =
            here.repository().log(&query)?.map(|entry| entry.map(|LogEntry { id, snapshot, .. }| history::to_json(id, &snapshot)));
        Ok(json!({"snapshots": entries.collect::<Result<Vec<Value>, _>>()?}))
    }

    fn branch(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let Branch { path, workspace, name, start, force, author } = read(fields)?;
        let here = self.here(&path, workspace.as_deref())?;
        let Some(name) = name else {
            let branches = here.repository().branches()?;
            let branches: BTreeMap<String, SnapshotId> = branches.into_iter().map(|(name, at)| (name.to_string(), at)).collect();
            return Ok(json!({"branches": branches}));
        };
        let at = match here.repository().resolve_object(here.name(), start.as_deref().unwrap_or("HEAD"))? {
            Resolved::Snapshot(id) => id,
            Resolved::Entry(_) => {
                return Err(
                    Failure::new(Code::InvalidRequest, "a branch begins at a snapshot").hint("name a snapshot, a branch or a tag")
                );
            }
        };
        let existing = if force { Existing::Move } else { Existing::Refuse };
        here.repository().create_branch(&caller(&here, author.as_ref(), None), &name.parse()?, at, existing)?;
        Ok(json!({"branch": name, "snapshot": at}))
    }

    fn watch(&mut self, fields: Map<String, Value>) -> Result<Value, Failure> {
        let Watch { path, since, count } = read(fields)?;
        let location = location(&path)?;
        let engine = self.engine;
        let wire = RefCell::new(&mut *self.wire);
        let gone = || Failure::new(Code::Cancelled, "the client has gone");
        let watched = watch::Watched {
            engine,
            open: &|| engine.repository(&location, &mut Console::new(&mut **wire.borrow_mut())),
            tell: &|event| wire.borrow_mut().answer(Answer::Event(event)).map_err(|_| gone()),
            check: &|| if wire.borrow().is_gone() { Err(gone()) } else { Ok(()) },
        };
        watched.follow(since, count)?;
        Ok(json!({}))
    }
}

/// Where a path lies.
fn location(path: &Text) -> Result<Location, Failure> {
    let path = PathBuf::from(path.clone().into_os());
    if !path.is_absolute() {
        return Err(Failure::new(Code::InvalidRequest, format!("{} is not absolute", path.display()))
            .hint("name the repository by an absolute path"));
    }
    Location::find(&path)
}

impl File {
    fn edit(self) -> Result<FileEdit, Failure> {
        let mode = match self.mode.as_deref() {
            None | Some("100644") => FileMode::Regular,
            Some("100755") => FileMode::Executable,
            Some("120000") => FileMode::Symlink,
            Some(other) => {
                return Err(
                    Failure::new(Code::InvalidRequest, format!("{other:?} is no mode")).hint("it is 100644, 100755 or 120000")
                );
            }
        };
        let content = self.content.map(|content| (mode, Bytes::from(content.into_bytes())));
        Ok(FileEdit { path: self.path.into_bytes(), content })
    }
}

/// Who asks: the program says it, else it is the engine's user.
fn caller(here: &Here, person: Option<&Person>, durability: Option<helix_objects::Durability>) -> Caller {
    let settings = here.open.settings();
    let name = person.map(|person| person.name.clone()).or_else(|| settings.text("user.name"));
    let email = person.map(|person| person.email.clone()).or_else(|| settings.text("user.email"));
    let own = || format!("uid-{}", rustix::process::geteuid().as_raw());
    let who =
        Signature { name: name.unwrap_or_else(own), email: email.unwrap_or_default(), time: Timestamp::now(), offset_minutes: 0 };
    let durability = Some(durability.unwrap_or_else(|| settings.durability()));
    Caller { workspace: here.location.workspace.clone(), who, durability, committer: None }
}
