//! The sandbox's process: `helix-worker sandbox`. It shuts itself in, then starts what the worker orders. Where a task has no
//! sandbox it shuts nothing in.
//!
//! Whatever is orphaned below it becomes its child, so all that commands started is found below it for as long as it lives, and its
//! last act, where the worker is gone, is to end that.
//!
//! One process a workspace, and not one a command: what one command leaves running, the next one can reach on its loopback, signal
//! and end, because all of them are inside the same walls. It has one thread when what holds for a thread alone is put on it: the
//! one that raises the loopback has ended by then, and the one that reaps begins after it. Nothing is done between a fork and an
//! exec of the worker, which has many threads, where only the calls that are safe for signals are.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use helix_protocol::{Isolation, Network, Sandboxing};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, wait, waitid};

use super::policy::Policy;
use super::wire::{Order, Said, receive};
use super::{filter, mounts, namespaces, rights};
use crate::command::DYING;
use crate::processes::ProcessSet;

/// Where in a worker's folder it is tried.
pub const PROBE: &str = "probe";
/// A thread that waits for processes to end needs little.
const STACK: usize = 128 * 1024;

/// Runs the process to its end: the end of the socket that is its standard input.
pub fn run() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    // No terminal that the worker may have been started from: what runs here must not read a person's keys.
    let _ = rustix::process::setsid();
    let socket = Arc::new(UnixStream::from(socket));
    let said = Voice { socket: Arc::clone(&socket), turn: Arc::default() };
    let commands = match shut_in(&socket, &said).and_then(|()| Commands::adopting(said.clone())) {
        Ok(commands) => commands,
        Err(reason) => {
            said.say(&Said::Failed { reason });
            return ExitCode::FAILURE;
        }
    };
    said.say(&Said::Ready);
    while let Ok(Some((order, descriptors))) = receive::<Order>(&socket) {
        commands.carry_out(order, descriptors, &said);
    }
    match ProcessSet::below().kill(DYING) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Speaks a line at a time.
#[derive(Clone)]
struct Voice {
    socket: Arc<UnixStream>,
    turn: Arc<Mutex<()>>,
}

impl Voice {
    fn say(&self, what: &Said) {
        let mut line = serde_json::to_vec(what).expect("our own types can always be encoded");
        line.push(b'\n');
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that does not listen is gone, and the socket's end says so.
        let _ = (&*self.socket).write_all(&line);
    }
}

fn shut_in(socket: &UnixStream, said: &Voice) -> Result<(), String> {
    let broken = |error: io::Error| format!("the worker's policy does not arrive: {error}");
    let (policy, _) = receive::<Policy>(socket).map_err(broken)?.ok_or("the worker said nothing")?;
    // From here on nothing of the worker is held but the socket.
    let null = std::fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| format!("standard input: {error}"))?;
    let on = policy.confinement;
    if !on.isolation.is_sandboxed() {
        return Ok(());
    }
    mounts::make_private(&policy.temporary).map_err(|error| format!("{}: {error}", policy.temporary.display()))?;
    if !on.namespaces {
        return Walls::of(&policy)?.close();
    }
    let sockets = mounts::sockets();
    let loopback = namespaces::leave(on.network, || {
        said.say(&Said::NeedsIds);
        receive::<()>(socket)?.map(drop).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    })?;
    mounts::arrange(&policy, &outside(&policy, sockets))?;
    let walls = Walls::of(&policy)?;
    loopback.wait()?;
    walls.close()
}

/// Sockets that are not the task's own.
fn outside(policy: &Policy, mut sockets: Vec<std::path::PathBuf>) -> Vec<std::path::PathBuf> {
    sockets.retain(|socket| !socket.starts_with(&policy.workspace) && !policy.writable.iter().any(|path| socket.starts_with(path)));
    sockets
}

/// What holds for this process alone, and for all it starts. Made ready while the loopback may still be on its way.
struct Walls {
    namespaces: bool,
    rights: Option<rights::Rules>,
    filters: Option<filter::Filters>,
}

impl Walls {
    fn of(policy: &Policy) -> Result<Self, String> {
        let on = policy.confinement;
        let rights = (on.landlock > 0).then(|| rights::rules(policy)).transpose()?;
        let filters = on.seccomp.then(|| filter::Filters::of(on)).transpose()?;
        Ok(Self { namespaces: on.namespaces, rights, filters })
    }

    /// By the only thread.
    fn close(self) -> Result<(), String> {
        namespaces::give_up_capabilities(self.namespaces)?;
        rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
        self.rights.map_or(Ok(()), rights::Rules::restrict)?;
        self.filters.map_or(Ok(()), |filters| filters.install())
    }
}

/// The commands that run, by their process ids.
#[derive(Default)]
struct Commands {
    running: Mutex<HashMap<Pid, u64>>,
    begun: Condvar,
}

impl Commands {
    /// None yet. From here on what is orphaned below this process is its child, and is reaped as the commands are.
    fn adopting(said: Voice) -> Result<Arc<Self>, String> {
        set_child_subreaper(Some(getpid())).map_err(|error| format!("orphans cannot be adopted: {error}"))?;
        let commands = Arc::new(Self::default());
        let reaped = Arc::clone(&commands);
        let reaper = std::thread::Builder::new().stack_size(STACK).spawn(move || reaped.reap(&said));
        reaper.map(|_| commands).map_err(|error| format!("no thread that reaps: {error}"))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Pid, u64>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, order: Order, descriptors: Vec<OwnedFd>, said: &Voice) {
        let id = order.id;
        // Held until it is told: its end is told after it, and one that does not start is reaped by who starts it.
        let mut running = self.running();
        match start(order, descriptors) {
            Ok(child) => {
                running.insert(Pid::from_child(&child), id);
                said.say(&Said::Started { id, pid: child.id().cast_signed() });
                self.begun.notify_one();
            }
            Err(error) => said.say(&Said::Refused { id, errno: error.raw_os_error().unwrap_or(libc::EIO) }),
        }
    }

    fn reap(&self, said: &Voice) -> ! {
        loop {
            // Only looked for, since whose child it is cannot be told while one is being started.
            let dead = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let mut running = self.running();
            if dead.is_err_and(|error| error == Errno::CHILD) {
                while running.is_empty() {
                    running = self.begun.wait(running).unwrap_or_else(PoisonError::into_inner);
                }
            } else if let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG)
                && let Some(id) = running.remove(&pid)
            {
                said.say(&Said::Ended { id, status: status.as_raw() });
            }
        }
    }
}

/// The worker's own program, wherever it lies and whatever covers it: this process runs it.
const OWN: &str = "/proc/self/exe";

fn start(order: Order, descriptors: Vec<OwnedFd>) -> io::Result<Child> {
    let mut descriptors = descriptors.into_iter();
    let output = descriptors.next().ok_or(io::ErrorKind::InvalidInput)?;
    let input = descriptors.next().map_or_else(Stdio::null, Stdio::from);
    let both = output.try_clone()?;
    order
        .program
        .command(Path::new(OWN))
        .current_dir(order.folder)
        .env_clear()
        .envs(order.variables)
        .stdin(input)
        .stdout(output)
        .stderr(both)
        .process_group(0)
        .spawn()
}

/// What this machine can give, found by doing it to this process: `helix-worker sandbox --probe`. The worker's folder is where it
/// is tried. Prints one line of JSON.
pub fn probe(folder: &std::path::Path) -> ExitCode {
    let mut lacks = Vec::new();
    let namespaces = match try_namespaces(folder) {
        Ok(()) => true,
        Err(why) => {
            lacks.push(format!("no namespaces ({why})"));
            false
        }
    };
    let landlock = rights::version().unwrap_or_else(|why| {
        lacks.push(format!("no Landlock ({why})"));
        0
    });
    let able = Sandboxing { landlock, seccomp: true, namespaces, lacks: Vec::new() };
    let seccomp =
        match filter::Filters::of(able.confinement(Isolation::Workspace, Network::None)).and_then(|filters| filters.install()) {
            Ok(()) => true,
            Err(why) => {
                lacks.push(format!("no seccomp ({why})"));
                false
            }
        };
    let found = Sandboxing { seccomp, lacks, ..able };
    println!("{}", serde_json::to_string(&found).expect("our own types can always be encoded"));
    ExitCode::SUCCESS
}

fn try_namespaces(folder: &std::path::Path) -> Result<(), String> {
    let temporary = folder.join(PROBE);
    mounts::make_private(&temporary).map_err(|error| format!("{}: {error}", temporary.display()))?;
    let on = Sandboxing { landlock: 0, seccomp: false, namespaces: true, lacks: Vec::new() };
    let policy = Policy {
        confinement: on.confinement(Isolation::Workspace, Network::None),
        workspace: temporary.clone(),
        temporary,
        writable: Vec::new(),
        hidden: vec![folder.to_owned()],
        listed: Vec::new(),
        changed: Vec::new(),
    };
    // Who is root has only one id here; what matters is whether mounts and networks can be made.
    let loopback = namespaces::leave_alone(Network::None)?;
    mounts::arrange(&policy, &[])?;
    loopback.wait()
}
