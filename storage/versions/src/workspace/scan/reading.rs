//! The second pass: files become objects.

use std::num::NonZero;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use helix_objects::NewObject;
use helix_protocol::ObjectId;
use rustix::io::Errno;

use super::super::folder::Cursor;
use super::super::reading::{FileContent, read_steady};
use super::super::stat_cache::FileStat;
use super::{Job, Pending};
use crate::VersionError;

/// Objects are handed to the store in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Beneath this many files and bytes, threads cost more than they bring.
const PARALLEL_FROM: (usize, u64) = (64, 1 << 20);
const MOST_THREADS: usize = 8;

/// What became of a pending file.
pub(super) enum Outcome {
    /// Its content is in the store.
    Read {
        id: ObjectId,
        stat: FileStat,
        torn: bool,
    },
    TooLarge {
        size: u64,
    },
    Unreadable,
    /// It is not there any more, or is no file any more.
    Gone,
}

/// Reads files into the store; the outcomes are in the order of `pending`.
pub(super) fn read_files(job: &Job<'_>, root: BorrowedFd<'_>, pending: &[Pending]) -> Result<Vec<Outcome>, VersionError> {
    let bytes: u64 = pending.iter().map(|file| file.size).sum();
    let much = pending.len() >= PARALLEL_FROM.0 || (pending.len() > 1 && bytes >= PARALLEL_FROM.1);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = if much { cores.min(MOST_THREADS).min(pending.len()) } else { 1 };
    let next = AtomicUsize::new(0);
    let work = || read_some(job, root, pending, &next);
    let parts: Vec<Result<Vec<(usize, Outcome)>, VersionError>> = if threads == 1 {
        vec![work()]
    } else {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    };
    let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(pending.len());
    for part in parts {
        outcomes.extend(part?);
    }
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// One thread's share: takes neighbouring files, so that they lie in one folder.
fn read_some(
    job: &Job<'_>,
    root: BorrowedFd<'_>,
    pending: &[Pending],
    next: &AtomicUsize,
) -> Result<Vec<(usize, Outcome)>, VersionError> {
    const TAKE: usize = 8;
    let mut cursor = Cursor::new(root);
    let (mut outcomes, mut batch, mut batch_bytes) = (Vec::new(), Vec::new(), 0);
    loop {
        let first = next.fetch_add(TAKE, Ordering::Relaxed);
        if first >= pending.len() {
            break;
        }
        for (number, file) in pending.iter().enumerate().skip(first).take(TAKE) {
            let outcome = match read_steady(&mut cursor, &file.path, job.policy.file_cap_bytes) {
                Ok(FileContent::Whole { bytes, stat, torn }) => {
                    let object = NewObject::new(bytes);
                    let outcome = Outcome::Read { id: object.id(), stat, torn };
                    batch_bytes += object.bytes().len();
                    batch.push(object);
                    outcome
                }
                Ok(FileContent::TooLarge { size }) => Outcome::TooLarge { size },
                Ok(FileContent::NoFile) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Outcome::Gone,
                Err(error) => {
                    tracing::debug!(path = %crate::show_path(&file.path), %error, "a file cannot be read");
                    Outcome::Unreadable
                }
            };
            outcomes.push((number, outcome));
            if batch_bytes >= BATCH_BYTES {
                job.put(std::mem::take(&mut batch))?;
                batch_bytes = 0;
            }
        }
    }
    job.put(batch)?;
    Ok(outcomes)
}
