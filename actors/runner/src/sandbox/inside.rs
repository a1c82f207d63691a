//! The sandbox's process: `helix-worker sandbox`. It shuts itself in, then starts what the worker orders.
//!
//! One process a workspace, and not one a command: what one command leaves running, the next one can reach on its loopback, signal
//! and end, because all of them are inside the same walls. It has one thread when what holds for a thread alone is put on it: the
//! one that raises the loopback has ended by then. Nothing is done between a fork and an exec of the worker, which has many
//! threads, where only the calls that are safe for signals are.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use helix_protocol::{Isolation, Network, Sandboxing};

use super::policy::Policy;
use super::wire::{Order, Said, receive};
use super::{filter, mounts, namespaces, rights};

/// A thread that waits for a command to end needs little.
const STACK: usize = 128 * 1024;

/// Runs the process to its end: the end of the socket that is its standard input.
pub fn run() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    // No terminal that the worker may have been started from: what runs here must not read a person's keys.
    let _ = rustix::process::setsid();
    let socket = Arc::new(UnixStream::from(socket));
    let said = Voice { socket: Arc::clone(&socket), turn: Arc::default() };
    match shut_in(&socket, &said) {
        Ok(()) => said.say(&Said::Ready),
        Err(reason) => {
            said.say(&Said::Failed { reason });
            return ExitCode::FAILURE;
        }
    }
    while let Ok(Some((order, descriptors))) = receive::<Order>(&socket) {
        carry_out(order, descriptors, &said);
    }
    ExitCode::SUCCESS
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

fn carry_out(order: Order, descriptors: Vec<OwnedFd>, said: &Voice) {
    let id = order.id;
    let refused = |error: &io::Error| Said::Refused { id, errno: error.raw_os_error().unwrap_or(libc::EIO) };
    match start(order, descriptors) {
        Ok(child) => {
            said.say(&Said::Started { id, pid: child.id().cast_signed() });
            let voice = said.clone();
            let waiting = std::thread::Builder::new().stack_size(STACK).spawn(move || wait(child, id, &voice));
            if waiting.is_err() {
                // Out of threads: the worker kills what it was told of, and the command counts as killed.
                said.say(&Said::Ended { id, status: libc::SIGKILL });
            }
        }
        Err(error) => said.say(&refused(&error)),
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

fn wait(mut child: Child, id: u64, said: &Voice) {
    let status = child.wait().map_or(libc::SIGKILL, ExitStatusExt::into_raw);
    said.say(&Said::Ended { id, status });
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
    let temporary = folder.join("probe");
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
