//! A shell on a host: what the two SSH transports have in common.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use helix_ports::{ConnectError, Duplex};
use helix_protocol::{Code, Failure};
use tokio::sync::oneshot;

/// How something ended that ran on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Its exit code; `None` where a signal ended it or the connection ended first.
    pub status: Option<i32>,
    /// What it wrote to stderr, as far as that was kept.
    pub stderr: String,
}

/// A stream to something that runs on a host.
pub(crate) struct Opened {
    /// Its stdin and stdout.
    pub stream: Box<dyn Duplex>,
    /// Resolves when it has ended; fails where the connection itself did.
    pub end: oneshot::Receiver<Result<End, ConnectError>>,
}

/// A shell on one host.
#[async_trait]
pub(crate) trait RemoteShell: Send + Sync {
    /// What people call the host.
    fn host(&self) -> String;
    /// Runs a POSIX script to its end, with a file of this machine as its stdin where one is given; answers with its
    /// stdout too.
    async fn exec(&self, script: &str, stdin: Option<PathBuf>, limit: Duration) -> Result<(End, String), ConnectError>;
    /// Starts a POSIX script and gives its stdin and stdout.
    async fn open(&self, script: &str) -> Result<Opened, ConnectError>;
}

/// Text as one word of a POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The command that runs a script whatever the account's login shell is.
pub(crate) fn command(script: &str) -> String {
    format!("exec /bin/sh -c {}", quote(script))
}

/// A host that says nothing for too long.
pub(crate) fn hangs(host: &str, limit: Duration) -> ConnectError {
    ConnectError::Unreachable(
        Failure::new(Code::WorkerUnreachable, format!("{host} did not answer within {} ms", limit.as_millis()))
            .hint("check that the machine is up; `ssh` to it by hand shows where it hangs"),
    )
}

/// How much of stderr is kept: its end.
pub(crate) const STDERR_KEPT: usize = 16 * 1024;

/// Appends to kept output, dropping its beginning where it grows too long.
pub(crate) fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    kept.extend_from_slice(more);
    if kept.len() > STDERR_KEPT {
        kept.drain(..kept.len() - STDERR_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn kept_output_keeps_its_end() {
        let mut kept = Vec::new();
        keep(&mut kept, &vec![b'a'; STDERR_KEPT]);
        keep(&mut kept, b"end");
        assert_eq!((kept.len(), &kept[kept.len() - 3..]), (STDERR_KEPT, &b"end"[..]));
    }
}
