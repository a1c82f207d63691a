//! A command's output on disk: stdout and stderr interleaved as they came, masked, paged from any offset.
//!
//! Nothing is held in memory but the last 16 KiB. What comes after the command's own end (from
//! something it left running) is still appended, so a dev server's log can be read.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use helix_protocol::link::MAX_CHUNK;
use helix_protocol::{Code, Failure, RunId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The end of the output that a report carries.
pub const TAIL: usize = 16 * 1024;
/// The longest wait for more output.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What is kept of one command's output.
const MOST_KEPT: u64 = 64 * 1024 * 1024;

/// Spools kept of one task.
const MOST_SPOOLS: usize = 256;

/// One command's output.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    writing: Mutex<Writing>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Writing {
    tail: VecDeque<u8>,
    failure: Option<Failure>,
}

/// How far the output has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that can be read.
    pub kept: u64,
    /// Bytes that came, beyond what is kept as well.
    pub came: u64,
    /// The command has ended.
    pub ended: bool,
}

impl Spool {
    /// An empty spool.
    pub fn create(path: PathBuf) -> Result<Self, Failure> {
        let open = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)
        };
        let file = open().map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Self { path, file, writing: Mutex::default(), progress: watch::Sender::new(Progress::default()) })
    }

    /// The spool of a command that ended in an earlier life of the worker.
    fn reopen(path: PathBuf) -> Result<Self, Failure> {
        let open = || {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|error: std::io::Error| Failure::io(path.display(), &error))?;
        let progress = Progress { kept: length, came: length, ended: true };
        Ok(Self { path, file, writing: Mutex::default(), progress: watch::Sender::new(progress) })
    }

    /// Appends output. A disk that is full loses output and not the command: [`failure`](Self::failure) tells.
    pub fn append(&self, output: &[u8]) {
        if output.is_empty() {
            return;
        }
        let mut writing = self.writing.lock();
        let from = output.len().saturating_sub(TAIL);
        writing.tail.extend(&output[from..]);
        let excess = writing.tail.len().saturating_sub(TAIL);
        writing.tail.drain(..excess);
        let Progress { kept, .. } = *self.progress.borrow();
        let room = usize::try_from(MOST_KEPT - kept).unwrap_or(usize::MAX).min(output.len());
        let written = if writing.failure.is_some() { 0 } else { room };
        if let Err(error) = (&self.file).write_all(&output[..written]) {
            writing.failure = Some(Failure::io(self.path.display(), &error));
        }
        let written = if writing.failure.is_some() { 0 } else { written as u64 };
        drop(writing);
        self.progress.send_modify(|progress| {
            progress.kept += written;
            progress.came += output.len() as u64;
        });
    }

    /// The command has ended.
    pub fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Why output was lost, where some was.
    pub fn failure(&self) -> Option<Failure> {
        self.writing.lock().failure.clone()
    }

    /// The last [`TAIL`] bytes as text.
    pub fn tail(&self) -> String {
        let tail: Vec<u8> = self.writing.lock().tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&tail);
        // A character that the cut went through is left out.
        if tail.len() == TAIL { text.trim_start_matches('\u{fffd}').to_owned() } else { text.into_owned() }
    }

    /// Output from `offset` on, and whether the command has ended and nothing follows.
    pub fn read(&self, offset: u64, limit: usize) -> Result<(Bytes, bool), Failure> {
        let Progress { kept, ended, .. } = self.progress();
        let available = usize::try_from(kept.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; available.min(limit).min(MAX_CHUNK)];
        self.file.read_exact_at(&mut data, offset.min(kept)).map_err(|error| Failure::io(self.path.display(), &error))?;
        let end = ended && data.len() == available;
        Ok((data.into(), end))
    }

    /// As [`read`](Self::read), waiting where there is nothing yet.
    pub async fn wait_read(&self, offset: u64, limit: usize, wait: Duration) -> Result<(Bytes, bool), Failure> {
        let mut progress = self.progress.subscribe();
        let more = progress.wait_for(|progress| progress.kept > offset || progress.ended);
        // Past its time, or with the writer gone, there is what there is.
        let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), more).await;
        self.read(offset, limit)
    }

    /// Waits until the command has ended; false where it has not within this time.
    pub async fn until_ended(&self, within: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        tokio::time::timeout(within, progress.wait_for(|progress| progress.ended)).await.is_ok()
    }

    /// Everything that was kept.
    pub fn whole(&self) -> Result<Bytes, Failure> {
        let mut data = vec![0; usize::try_from(self.progress().kept).expect("at most 64 MiB are kept")];
        self.file.read_exact_at(&mut data, 0).map_err(|error| Failure::io(self.path.display(), &error))?;
        Ok(data.into())
    }
}

/// The spools of a worker, by run. Only those that somebody uses are open: a task may run thousands of commands.
#[derive(Debug)]
pub struct Spools {
    tasks: PathBuf,
    live: Mutex<HashMap<RunId, Weak<Spool>>>,
}

impl Spools {
    /// Below the folder that holds every task's folder.
    pub fn new(tasks: PathBuf) -> Self {
        Self { tasks, live: Mutex::default() }
    }

    /// A new spool in a task's output folder, whose oldest spools go where there are too many.
    pub fn create(&self, folder: &Path, run: RunId) -> Result<Arc<Spool>, Failure> {
        let spool = Arc::new(Spool::create(folder.join(format!("{run}.log")))?);
        let mut live = self.live.lock();
        live.retain(|_, spool| spool.strong_count() > 0);
        live.insert(run, Arc::downgrade(&spool));
        drop(live);
        prune(folder);
        Ok(spool)
    }

    /// The spool of a run, of an earlier life of the worker too.
    pub fn find(&self, run: RunId) -> Result<Arc<Spool>, Failure> {
        if let Some(spool) = self.live.lock().get(&run).and_then(Weak::upgrade) {
            return Ok(spool);
        }
        let name = format!("{run}.log");
        let tasks = std::fs::read_dir(&self.tasks).into_iter().flatten().flatten();
        let path = tasks.map(|task| task.path().join(OUTPUT).join(&name)).find(|path| path.is_file());
        let path = path.ok_or_else(|| Failure::new(Code::NotFound, format!("this worker has no output of run {run}")))?;
        Ok(Arc::new(Spool::reopen(path)?))
    }
}

/// Deletes the oldest spools of a task beyond the number that is kept. What is still written to goes on without a name.
fn prune(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut found: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    if found.len() > MOST_SPOOLS {
        found.sort();
        for (_, path) in &found[..found.len() - MOST_SPOOLS] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The folder of spools inside a task's folder.
pub const OUTPUT: &str = "output";

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::create(folder.path().join("a/b.log")).expect("a spool");
        (folder, spool)
    }

    #[tokio::test(start_paused = true)]
    async fn output_is_paged_while_the_command_runs_and_a_reader_can_wait_for_more() {
        let (_folder, spool) = spool();
        spool.append(b"hello ");
        assert_eq!(spool.read(0, 5), Ok(("hello".into(), false)));
        let wait = Duration::from_secs(10);
        let (read, ()) = tokio::join!(spool.wait_read(6, 100, wait), async { spool.append(b"world") });
        assert_eq!(read, Ok(("world".into(), false)));
        assert_eq!(spool.wait_read(11, 100, wait).await, Ok((Bytes::new(), false)));
        let (read, ()) = tokio::join!(spool.wait_read(11, 100, wait), async { spool.end() });
        assert_eq!(read, Ok((Bytes::new(), true)));
        assert_eq!((spool.read(0, 5), spool.read(6, 5)), (Ok(("hello".into(), false)), Ok(("world".into(), true))));
        assert_eq!(spool.read(1000, 5), Ok((Bytes::new(), true)));
    }

    #[test]
    fn the_tail_is_the_end_and_never_begins_inside_a_character() {
        let (_folder, spool) = spool();
        spool.append("ä".repeat(TAIL).as_bytes());
        spool.append(b"x");
        assert_eq!(spool.tail(), "ä".repeat((TAIL - 1) / 2) + "x");
        assert_eq!(spool.whole().expect("kept").len(), 2 * TAIL + 1);
    }

    #[test]
    fn a_full_disk_loses_output_says_so_and_keeps_the_end() {
        let spool = Spool::create(PathBuf::from("/dev/full")).expect("it can be opened");
        spool.append(b"lost ");
        spool.append(b"as well");
        spool.end();
        assert_eq!(spool.failure().map(|failure| failure.code), Some(Code::DiskFull));
        assert_eq!(spool.progress(), Progress { kept: 0, came: 12, ended: true });
        assert_eq!(spool.read(0, 100), Ok((Bytes::new(), true)), "nobody waits for what is not there");
        assert_eq!(spool.tail(), "lost as well");
    }

    #[test]
    fn output_of_an_earlier_life_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (task, run) = (folder.path().join("one"), RunId::new());
        let spools = Spools::new(folder.path().to_owned());
        spools.create(&task.join(OUTPUT), run).expect("a spool").append(b"old");
        let again = Spools::new(folder.path().to_owned());
        assert_eq!(again.find(run).expect("found").read(0, 10), Ok(("old".into(), true)));
        assert_eq!(again.find(RunId::new()).expect_err("unknown").code, Code::NotFound);
    }
}
