//! Snapshots: the processes of the task are frozen while its files are looked at, and the new objects
//! follow the answer on a bulk stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use helix_link::{LinkHandle, ObjectWriter};
use helix_objects::{ObjectStore, Pin, SpillStore};
use helix_protocol::link::{Response, Snapshotted};
use helix_protocol::{Code, Epoch, Failure, FileMode, ObjectId, TaskId};
use helix_versions::{Scan, scan, walk};

use super::{Answer, Engine, blocking};
use crate::processes::Frozen;
use crate::workspace::Workspace;

/// How long freezing may take; what goes on meanwhile is found torn.
const FREEZING: Duration = Duration::from_millis(500);
/// Objects up to this many bytes together are held in memory between being counted and being sent.
const HELD: usize = 16 << 20;

impl Engine {
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        link: &LinkHandle,
        task: TaskId,
        epoch: Epoch,
        since: ObjectId,
        artifacts: &[String],
    ) -> Answer {
        let (workspace, _) = self.workspace(task, epoch)?;
        let globs = artifact_globs(artifacts)?;
        let files = Arc::clone(&workspace.files).write_owned().await;
        self.lease.check()?;
        let mut policy = workspace.policy()?;
        policy.pin = Some(Pin { task, epoch });
        let (engine, seen) = (Arc::clone(self), Arc::clone(&workspace));
        let (scan, artifacts) = blocking(move || {
            let _files = files;
            let frozen = engine.freeze(&seen);
            let scanned = scan(&seen.root(), Some(since), &*engine.store, &mut seen.stats.lock(), &policy);
            engine.thaw(&seen, frozen);
            let scan = scanned?;
            let artifacts = artifacts_of(&*engine.store, &globs, scan.tree)?;
            Ok((scan, artifacts))
        })
        .await?;
        {
            let mut state = workspace.state.lock();
            state.kept.tree = scan.tree;
            state.clean = !workspace.is_busy() && scan.torn.is_empty();
            if state.kept.epoch == epoch {
                self.calls.lock().snapshotted(task, since, scan.tree);
            }
        }
        workspace.remember()?;
        // The answer is an effect as well: a fenced worker's snapshot must not be taken for a live one's.
        workspace.check(epoch)?;
        self.lease.check()?;
        self.offer(link, &workspace, scan, artifacts, since).await
    }

    /// `None` where nothing runs.
    fn freeze(&self, workspace: &Workspace) -> Option<Frozen> {
        if !workspace.is_busy() {
            return None;
        }
        if workspace.processes().find().is_empty() {
            workspace.found_idle();
            return None;
        }
        Some(workspace.processes().freeze(FREEZING))
    }

    /// A lease that ended meanwhile keeps them frozen: the guard thaws them when it is granted again.
    fn thaw(&self, workspace: &Workspace, frozen: Option<Frozen>) {
        if frozen.is_some() && self.lease.check().is_ok() {
            workspace.processes().thaw();
        }
    }

    async fn offer(&self, link: &LinkHandle, workspace: &Workspace, scan: Scan, artifacts: Vec<String>, since: ObjectId) -> Answer {
        let Scan { tree, new_objects, changes, skipped, torn, logical_bytes } = scan;
        let mut ids = new_objects;
        ids.extend(workspace.outputs(since));
        let (mut stream, mut bytes) = (None, 0);
        if !ids.is_empty() {
            let store = Arc::clone(&self.store);
            let load = Load::of(store, ids).await?;
            bytes = load.bytes;
            let writer = link.send_objects();
            stream = Some(writer.stream());
            tokio::spawn(load.send(writer));
        }
        let confinement = self.sandboxes.confinement(&workspace.state.lock().environment).ok();
        Ok(Response::Snapshotted(Snapshotted {
            tree,
            changes,
            skipped,
            torn,
            artifacts,
            stream,
            bytes,
            logical_bytes,
            confinement,
        }))
    }
}

/// Objects on their way to the node.
struct Load {
    store: Arc<SpillStore>,
    held: Vec<(ObjectId, Bytes)>,
    rest: Vec<ObjectId>,
    bytes: u64,
}

impl Load {
    /// Counts the bytes, holding the first objects so that they are not read twice.
    async fn of(store: Arc<SpillStore>, ids: Vec<ObjectId>) -> Result<Self, Failure> {
        blocking(move || {
            let mut load = Self { store, held: Vec::new(), rest: Vec::new(), bytes: 0 };
            for id in ids {
                let content = load.store.read(id)?;
                load.bytes += content.len() as u64;
                if load.bytes <= HELD as u64 {
                    load.held.push((id, content));
                } else {
                    load.rest.push(id);
                }
            }
            Ok(load)
        })
        .await
    }

    async fn send(self, mut writer: ObjectWriter) {
        let Self { store, held, rest, .. } = self;
        let sent = async {
            for (id, content) in held {
                writer.write(id, content).await?;
            }
            for id in rest {
                let store = Arc::clone(&store);
                let content = blocking(move || Ok(store.read(id)?)).await?;
                writer.write(id, content).await?;
            }
            Ok(())
        };
        let done: Result<(), Failure> = match sent.await {
            Ok(()) => writer.finish().await,
            Err(failure) => writer.fail(failure).await,
        };
        if let Err(failure) = done {
            tracing::debug!(%failure, "a snapshot's objects did not arrive; the node asks again");
        }
    }
}

fn artifact_globs(patterns: &[String]) -> Result<GlobSet, Failure> {
    let refuse = |pattern: &str, error: &globset::Error| {
        Failure::new(Code::InvalidRequest, format!("the artifact pattern {pattern:?} is not a glob: {}", error.kind()))
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern.trim_start_matches("./")).literal_separator(true).build();
        set.add(glob.map_err(|error| refuse(pattern, &error))?);
    }
    set.build().map_err(|error| refuse(&patterns.join(" "), &error))
}

fn artifacts_of(store: &dyn ObjectStore, globs: &GlobSet, tree: ObjectId) -> Result<Vec<String>, Failure> {
    if globs.is_empty() {
        return Ok(Vec::new());
    }
    let files = walk(store, tree)?.into_iter().filter(|entry| entry.mode != FileMode::Directory);
    let paths = files.map(|entry| String::from_utf8_lossy(&entry.path).into_owned());
    Ok(paths.filter(|path| globs.is_match(path)).collect())
}
