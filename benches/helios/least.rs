//! The least that any command takes: its process, and one question to an engine that answers at once.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;

use anyhow::Result;
use helios_client::{PROTOCOL, RELEASE};

use crate::tools::{Stage, Tool};

/// What a figure says that is held against this.
pub const LEAST: &str = "beside the least a process and a question take";

/// `helios`, whose engine is a thread of the bench that does nothing.
pub fn client_of_nobody(stage: &Stage) -> Result<Tool> {
    let runtime = stage.folder("nobody")?;
    let place = runtime.join("helios");
    fs::create_dir(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700))?;
    let listener = UnixListener::bind(place.join("engine.sock"))?;
    let answer = format!("{{\"helios\":{PROTOCOL},\"release\":\"{RELEASE}\",\"pid\":1}}\n{{\"exit\":0}}\n");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A greeting and a command; what is wrong with one shows in the client's exit code.
            let asked = BufReader::new(&stream).lines().take(2).filter(Result::is_ok).count();
            if asked == 2 {
                let _ = (&stream).write_all(answer.as_bytes());
            }
        }
    });
    Ok(stage.helios(&runtime).with("XDG_RUNTIME_DIR", &runtime.display().to_string()))
}
