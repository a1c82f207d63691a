//! Ways to reach workers, made from the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helix_adapter_ssh::{LocalTransport, Programs, Russh, SystemSsh};
use helix_config::{Config, WorkersConfig};
use helix_ports::WorkerTransport;
use helix_protocol::{Failure, NodeId};

/// The worker program's name beside this one.
const WORKER: &str = "helix-worker";

/// Every way, in the order in which they are asked whether they serve a target.
pub fn transports(config: &Config, node: NodeId, data: &Path) -> Result<Vec<Arc<dyn WorkerTransport>>, Failure> {
    let program = worker_program(&config.workers)?;
    // What `make dist` builds for other architectures lies beside the program of this one.
    let programs = Programs::new(program.parent().unwrap_or(Path::new(".")), &program);
    let limit = Duration::from_millis(config.workers.connect_timeout_ms);
    let folder = node.short();
    Ok(vec![
        Arc::new(LocalTransport::new(program).hiding(data).keeping(config.key_variables())),
        Arc::new(SystemSsh::new(programs.clone(), folder.clone(), limit)),
        Arc::new(Russh::new(programs, folder, limit)),
    ])
}

/// The configured worker program, else the one beside this program.
pub fn worker_program(config: &WorkersConfig) -> Result<PathBuf, Failure> {
    if !config.program.as_os_str().is_empty() {
        return Ok(config.program.clone());
    }
    let this = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    Ok(this.with_file_name(WORKER))
}
