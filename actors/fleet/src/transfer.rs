//! Content on its way: a workspace's to the worker, a snapshot's from it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use helix_messages::ReceivedSnapshot;
use helix_objects::{Durability, Mark, NewObject, ObjectError, ObjectStore, Pin};
use helix_protocol::link::{OpenWorkspace, Request, Response, Snapshotted};
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::VersionError;

use crate::line::{Call, Connected, UNBOUNDED};

/// Ids of one `Missing`.
const ASKED: usize = 65_536;
/// Bytes that are held in memory of one transfer.
const HELD: usize = 8 * 1024 * 1024;
/// A worker whose store loses what it was just sent is not asked for ever.
const ROUNDS: usize = 3;

/// Opens a workspace, sending what the worker lacks.
pub(crate) async fn open(mut call: Call, objects: Arc<dyn ObjectStore>, open: OpenWorkspace) -> Result<Response, Failure> {
    let tree = open.tree;
    for _ in 0..ROUNDS {
        match call.ask(Request::Open(Box::new(open.clone()))).await {
            Err(lacks) if lacks.code == Code::ObjectsMissing => send(&mut call, &objects, tree).await?,
            answer => return answer.map(|(response, _)| response),
        }
    }
    Err(Failure::new(Code::ObjectsMissing, format!("the worker still lacks content of {tree} after it was sent {ROUNDS} times"))
        .hint("its disk may be full or failing; `helix worker show` says how it is"))
}

/// Sends what of `tree` the worker lacks, over as many connections as it takes: what arrived stays.
async fn send(call: &mut Call, objects: &Arc<dyn ObjectStore>, tree: ObjectId) -> Result<(), Failure> {
    let all = on_store(objects, move |store| closure(store, tree)).await?;
    loop {
        let connected = call.connection().await?;
        match send_over(&connected, objects, &all).await {
            Err(failure) if call.was_cut(&connected, &failure) => {}
            sent => return sent,
        }
    }
}

/// Sends what of `all`, which is in order, the worker lacks.
async fn send_over(connected: &Connected, objects: &Arc<dyn ObjectStore>, all: &[ObjectId]) -> Result<(), Failure> {
    for asked in all.chunks(ASKED) {
        let Response::Missing { objects: lacking } =
            connected.link.request(Request::Missing { objects: asked.to_vec() }, UNBOUNDED).await?
        else {
            return Err(Failure::new(
                Code::ProtocolError,
                "the worker answered a question about missing objects with something else",
            ));
        };
        // Only what was asked about: a worker that names another id would be sent the content of other tasks.
        let lacking: BTreeSet<ObjectId> = lacking.into_iter().filter(|id| asked.binary_search(id).is_ok()).collect();
        let mut lacking = lacking.into_iter().peekable();
        while lacking.peek().is_some() {
            let mut rest = lacking;
            let (batch, left) = on_store(objects, move |store| {
                let batch = read_batch(store, &mut rest)?;
                Ok::<_, ObjectError>((batch, rest))
            })
            .await?;
            lacking = left;
            connected.link.store(batch, UNBOUNDED).await?;
        }
    }
    Ok(())
}

/// The tree and everything beneath it, each object once, in order.
fn closure(store: &dyn ObjectStore, tree: ObjectId) -> Result<Vec<ObjectId>, VersionError> {
    let mut ids: Vec<ObjectId> = helix_versions::walk(store, tree)?.into_iter().map(|entry| entry.id).collect();
    ids.push(tree);
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn read_batch(store: &dyn ObjectStore, ids: &mut impl Iterator<Item = ObjectId>) -> Result<Vec<(ObjectId, Bytes)>, ObjectError> {
    let (mut batch, mut held) = (Vec::new(), 0);
    while held < HELD {
        let Some(id) = ids.next() else { break };
        let bytes = store.read(id)?;
        held += bytes.len();
        batch.push((id, bytes));
    }
    Ok(batch)
}

/// Snapshots a workspace and takes its objects: verified, pinned, synced. Refused with `objects_missing` where its tree names what
/// neither came along nor stood there in the tree `since`: whoever opens it next would be sent that, and it can be another task's.
pub(crate) async fn snapshot(
    mut call: Call,
    objects: Arc<dyn ObjectStore>,
    pin: Pin,
    since: ObjectId,
    artifacts: Vec<String>,
) -> Result<ReceivedSnapshot, Failure> {
    loop {
        let request = Request::Snapshot { task: pin.task, epoch: pin.epoch, since, artifacts: artifacts.clone() };
        let (response, connected) = call.ask(request).await?;
        let Response::Snapshotted(snapshot) = response else {
            return Err(Failure::new(Code::ProtocolError, "the worker answered a snapshot with something else"));
        };
        match receive(&connected, &objects, pin, since, &snapshot).await {
            Err(failure) if call.was_cut(&connected, &failure) => {}
            Err(failure) => return Err(failure),
            Ok(mark) => return Ok(ReceivedSnapshot { snapshot, mark }),
        }
    }
}

/// Takes the stream's objects. Nothing new is nothing to sync: the tree `since` is durable already.
async fn receive(
    connected: &Connected,
    objects: &Arc<dyn ObjectStore>,
    pin: Pin,
    since: ObjectId,
    snapshot: &Snapshotted,
) -> Result<Mark, Failure> {
    let tree = snapshot.tree;
    let (mut came, mut batch, mut held, mut mark) = (HashSet::new(), Vec::new(), 0, Mark::default());
    let Some(stream) = snapshot.stream else {
        on_store(objects, move |store| hold(store, since, tree, &came)).await?;
        return Ok(mark);
    };
    let mut incoming = connected.link.receive_objects(stream);
    while let Some(object) = incoming.next().await {
        let (id, bytes) = object?;
        came.insert(id);
        held += bytes.len();
        batch.push((id, bytes));
        if held >= HELD {
            mark = mark.max(keep(objects, pin, std::mem::take(&mut batch)).await?);
            held = 0;
        }
    }
    if !batch.is_empty() {
        mark = mark.max(keep(objects, pin, batch).await?);
    }
    on_store(objects, move |store| {
        hold(store, since, tree, &came)?;
        store.sync(mark)?;
        Ok::<_, VersionError>(mark)
    })
    .await
}

/// A worker sends all that `since` does not have at the same path, also what the node has for another reason.
fn hold(store: &dyn ObjectStore, since: ObjectId, tree: ObjectId, came: &HashSet<ObjectId>) -> Result<(), VersionError> {
    if tree == since {
        return Ok(());
    }
    let named = helix_versions::objects_between(store, Some(since), tree)?;
    named.into_iter().find(|id| !came.contains(id)).map_or(Ok(()), |lacking| Err(ObjectError::Missing(lacking).into()))
}

/// Pins before it puts, so that a sweep in between finds the pins.
async fn keep(objects: &Arc<dyn ObjectStore>, pin: Pin, batch: Vec<(ObjectId, Bytes)>) -> Result<Mark, Failure> {
    on_store(objects, move |store| {
        let checked = batch.into_iter().map(|(id, bytes)| NewObject::checked(id, bytes)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<ObjectId> = checked.iter().map(NewObject::id).collect();
        store.pin(pin, &ids)?;
        store.put(&checked, Durability::NoSync)
    })
    .await
}

/// Works on the content store, off the runtime's threads where it may wait for a disk.
async fn on_store<T, E>(
    objects: &Arc<dyn ObjectStore>,
    work: impl FnOnce(&dyn ObjectStore) -> Result<T, E> + Send + 'static,
) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    if objects.never_blocks() {
        return work(&**objects).map_err(Into::into);
    }
    let store = Arc::clone(objects);
    match tokio::task::spawn_blocking(move || work(&*store)).await {
        Ok(done) => done.map_err(Into::into),
        Err(panicked) => Err(Failure::new(Code::Internal, format!("reading or writing content failed: {panicked}"))),
    }
}
