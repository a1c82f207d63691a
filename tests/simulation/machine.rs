//! A machine: its disk, its clock, its door, and the worker's process while one runs.
//!
//! The disk outlives crashes. The process is made anew by whoever knocks and asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helix_objects::MemoryStore;
use helix_protocol::{Epoch, ObjectId, TaskId, WorkerId};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

use crate::oracle::Oracle;
use crate::process::Process;
use crate::transport::{DEAD, PORT, START, YES};
use crate::workspaces::Files;

/// A workspace on the disk.
#[derive(Clone, Default)]
pub struct Space {
    pub epoch: Epoch,
    pub tree: Option<ObjectId>,
    pub files: Files,
}

/// What is done to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The worker's process is stopped; what it started goes on.
    pub stopped: bool,
    /// The whole machine is suspended.
    pub suspended: bool,
}

/// A machine.
pub struct Machine {
    pub name: String,
    pub worker: WorkerId,
    pub oracle: Arc<Oracle>,
    pub spaces: Mutex<BTreeMap<TaskId, Space>>,
    pub objects: MemoryStore,
    pub conditions: watch::Sender<Conditions>,
    process: Mutex<Option<Arc<Process>>>,
    incarnations: AtomicU64,
    /// Its clock began so long before the simulation ...
    started: Duration,
    /// ... and runs so many thousandths faster or slower.
    drift: i64,
}

impl Machine {
    pub fn new(name: &str, oracle: Arc<Oracle>, started: Duration, drift: i64) -> Self {
        let worker = WorkerId::new();
        oracle.name_worker(worker, name);
        Self {
            name: name.to_owned(),
            worker,
            oracle,
            spaces: Mutex::default(),
            objects: MemoryStore::new(),
            conditions: watch::Sender::new(Conditions::default()),
            process: Mutex::default(),
            incarnations: AtomicU64::new(0),
            started,
            drift,
        }
    }

    /// CLOCK_BOOTTIME of this machine.
    pub fn now(&self) -> Duration {
        let real = turmoil::sim_elapsed().expect("asked on the machine");
        let micros = i64::try_from(real.as_micros()).expect("a short simulation");
        let drifted = micros + micros * self.drift / 1_000;
        self.started + Duration::from_micros(drifted.unsigned_abs())
    }

    /// The machine's life: its door.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        // After a crash nothing runs.
        self.process.lock().take();
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(Arc::clone(&self).open_door(stream));
        }
    }

    async fn open_door(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        let wanted = stream.read_u8().await.ok()?;
        self.runs(|now| !now.suspended).await;
        if wanted == START {
            self.start();
            return stream.write_u8(YES).await.ok();
        }
        let running = self.process.lock().clone();
        let Some(process) = running else { return stream.write_u8(DEAD).await.ok() };
        stream.write_u8(YES).await.ok()?;
        process.serve(stream).await
    }

    fn start(self: &Arc<Self>) {
        let mut process = self.process.lock();
        if process.is_none() {
            let incarnation = self.incarnations.fetch_add(1, Ordering::Relaxed) + 1;
            self.oracle.tell(&self.name, &format!("the worker starts, incarnation {incarnation}"));
            *process = Some(Process::new(Arc::clone(self), incarnation));
        }
    }

    /// SIGKILL, of what it started too: a guard sees to that.
    pub fn kill(&self) {
        if let Some(process) = self.process.lock().take() {
            process.die();
        }
    }

    /// Waits for the conditions under which something can run.
    pub async fn runs(&self, wanted: impl FnMut(&Conditions) -> bool) {
        let _ = self.conditions.subscribe().wait_for(wanted).await;
    }
}
