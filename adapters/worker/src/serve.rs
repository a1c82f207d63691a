//! The worker's process: lock, log, sockets, signals.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use helix_actor_runner::{Ended, Settings, Wipe, Worker};
use helix_kernel::telemetry::{self, Format};
use helix_link::boot_clock;
use helix_objects::SpillOptions;
use helix_protocol::{Code, Failure};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::folder::{FolderLock, WorkerFolder};
use crate::{LogTo, ServeOptions, control, log_file};

/// The runtime every verb uses that needs one.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("no runtime: {error}")))
}

/// Serves until the end.
pub fn run(options: &ServeOptions, log: LogTo, detached: bool) -> Result<ExitCode, Failure> {
    if detached {
        // Refused only where this process leads its group already, and then nothing is lost.
        let _ = rustix::process::setsid();
    }
    let folder = WorkerFolder::new(options.folder.clone()).make()?;
    let lock = folder.lock()?;
    match log {
        LogTo::File => log_file::init(folder.log())?,
        LogTo::Stderr => telemetry::init(Format::Human, "info")?,
    }
    runtime()?.block_on(serve(options, &folder, &lock))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(options: &ServeOptions, folder: &WorkerFolder, lock: &FolderLock) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Code::Internal, format!("this program's own path is unknown: {error}")))?;
    let spill = SpillOptions { limit_bytes: options.cache_mib << 20, ..SpillOptions::default() };
    let settings = Settings { folder: folder.path().to_owned(), program, spill, clock: boot_clock(), hidden: options.hide.clone() };
    let worker = Worker::start(settings, Duration::from_secs(options.idle_exit_s)).await?;
    let (socket, control_socket) = (folder.socket()?, folder.control_socket()?);
    // Control first: who finds the worker's socket may ask for its status.
    let controls = listen(&control_socket)?;
    let nodes = listen(&socket)?;
    tracing::info!(folder = %folder.path().display(), socket = %socket.display(), incarnation = worker.incarnation(), build = env!("CARGO_PKG_VERSION"), "serving");
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Failure::new(Code::Internal, format!("no signals: {error}")))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::new(Code::Internal, format!("no signals: {error}")))?;
    let ended = worker.ended();
    tokio::pin!(ended);
    let how = loop {
        tokio::select! {
            how = &mut ended => break how,
            _ = terminate.recv() => worker.stop(Wipe::No)?,
            _ = interrupt.recv() => worker.stop(Wipe::No)?,
            accepted = nodes.accept() => match accepted {
                Ok((stream, _)) => {
                    let worker = worker.clone();
                    tokio::spawn(async move {
                        match worker.serve(stream).await {
                            // A bridge that only looked whether somebody listens.
                            Err(failure) if failure.code == Code::NodeUnreachable => tracing::debug!(%failure, "nobody spoke"),
                            Err(failure) => tracing::warn!(%failure, "a connection was not served"),
                            Ok(()) => {}
                        }
                    });
                }
                Err(error) => pause_after(&error).await,
            },
            accepted = controls.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(control::answer(worker.clone(), stream));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    };
    // Unlinked while the lock is still held: a successor's sockets are never taken away.
    for path in [&socket, &control_socket] {
        let _ = fs::remove_file(path);
    }
    let _ = lock.file();
    tracing::info!(?how, "ended");
    if how == Ended::Stopped(Wipe::Yes) {
        let _ = fs::remove_file(folder.log().with_extension("log.1"));
    }
    Ok(())
}

/// Out of descriptors, mostly: trying again at once would only spin.
async fn pause_after(error: &std::io::Error) {
    tracing::error!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Listens on a socket for this user alone. One that is there belongs to a dead worker: the lock is ours.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let failed = |error: std::io::Error| Failure::io(path.display(), &error);
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
