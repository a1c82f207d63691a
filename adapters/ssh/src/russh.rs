//! The SSH client built in: `ssh://user@host:port` with a key file and a pinned host key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use helix_ports::ConnectError;
use helix_protocol::{Code, Failure, WorkerTarget};
use russh::client::{self, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::programs::Programs;
use crate::refusal;
use crate::shell::{End, Opened, RemoteShell, command, hangs, keep};
use crate::transport::{Login, Ssh};

/// A host that says nothing for so long is asked whether it lives ...
const KEEPALIVE: Duration = Duration::from_secs(3);
/// ... so often.
const KEEPALIVES: usize = 3;
/// A dropped stream's channel may take so long to end.
const LEAVING: Duration = Duration::from_secs(3);
/// Bytes between the link and the channel.
const PIPE: usize = 256 * 1024;
/// Pieces of an upload.
const PIECE: usize = 32 * 1024;
/// Most bytes of a script's answer.
const ANSWER: usize = 1024 * 1024;

/// Workers behind the built-in SSH client.
pub type Russh = Ssh<BuiltIn>;

/// The built-in client: a key file and a pinned host key.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn;

impl Russh {
    /// As [`SystemSsh::new`](crate::SystemSsh::new).
    pub fn new(programs: Programs, node: impl Into<String>, limit: Duration) -> Self {
        Self::by(BuiltIn, programs, node, limit)
    }
}

impl Login for BuiltIn {
    type Shell = Host;

    fn serves(target: &WorkerTarget) -> bool {
        matches!(target, WorkerTarget::Russh { .. })
    }

    fn shell(&self, target: &WorkerTarget, limit: Duration) -> Result<Host, ConnectError> {
        let WorkerTarget::Russh { user, host, port, key, host_key } = target else {
            return Err(ConnectError::Refused(Failure::new(
                Code::InvalidRequest,
                format!("{target} is not reached by the built-in client"),
            )));
        };
        Ok(Host {
            name: target.to_string(),
            user: user.clone(),
            address: (host.clone(), *port),
            key: PathBuf::from(key),
            pinned: host_key.clone(),
            limit,
        })
    }
}

/// Why the login failed, as the client's callbacks give it.
#[derive(Debug)]
enum LoginError {
    /// The host presents this key instead of the pinned one.
    HostKey(String),
    Ssh(russh::Error),
}

impl From<russh::Error> for LoginError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// Accepts the pinned host key and no other.
struct Pinned(String);

impl client::Handler for Pinned {
    type Error = LoginError;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, LoginError> {
        let fingerprint = match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256).to_string(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                russh::keys::PublicKey::from(certificate.public_key().clone()).fingerprint(HashAlg::Sha256).to_string()
            }
        };
        if fingerprint == self.0 { Ok(true) } else { Err(LoginError::HostKey(fingerprint)) }
    }
}

/// One host, and how to log in to it.
pub(crate) struct Host {
    name: String,
    user: String,
    address: (String, u16),
    key: PathBuf,
    pinned: String,
    limit: Duration,
}

impl Host {
    async fn login(&self) -> Result<Handle<Pinned>, ConnectError> {
        tokio::time::timeout(self.limit, self.try_login()).await.map_err(|_| hangs(&self.name, self.limit))?
    }

    async fn try_login(&self) -> Result<Handle<Pinned>, ConnectError> {
        let key = load_secret_key(&self.key, None).map_err(|error| {
            ConnectError::Refused(
                Failure::new(Code::SshAuthFailed, format!("the key {} cannot be used: {error}", self.key.display()))
                    .hint("it must be readable and without a passphrase; keys in an agent work with the system's ssh: name the worker by its alias"),
            )
        })?;
        let config = client::Config {
            nodelay: true,
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: KEEPALIVES,
            ..client::Config::default()
        };
        let (host, port) = &self.address;
        let connected = client::connect(Arc::new(config), (host.as_str(), *port), Pinned(self.pinned.clone())).await;
        let mut session = connected.map_err(|error| match error {
            LoginError::HostKey(presented) => ConnectError::Refused(self.other_key(&presented)),
            LoginError::Ssh(error) => self.unreachable(&error),
        })?;
        let hash = if key.algorithm().is_rsa() {
            session.best_supported_rsa_hash().await.map_err(|error| self.unreachable(&error))?.flatten()
        } else {
            None
        };
        let login = session.authenticate_publickey(self.user.as_str(), PrivateKeyWithHashAlg::new(Arc::new(key), hash)).await;
        match login {
            Ok(answer) if answer.success() => Ok(session),
            Ok(_) => {
                Err(ConnectError::Refused(refusal::auth_failed(&self.name, &format!("not with the key {}", self.key.display()))))
            }
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn other_key(&self, presented: &str) -> Failure {
        if self.pinned.is_empty() {
            return Failure::new(
                Code::HostKeyUnknown,
                format!("{} presents the host key {presented}, and none is pinned", self.name),
            )
            .hint(format!("check it with the host's owner, then add the worker with `--host-key {presented}`"));
        }
        refusal::host_key_changed(&self.name, &format!("{presented}, and {} is pinned", self.pinned))
    }

    fn unreachable(&self, error: &russh::Error) -> ConnectError {
        ConnectError::Unreachable(
            Failure::new(Code::WorkerUnreachable, format!("{} cannot be reached: {error}", self.name))
                .hint("check name, port and network"),
        )
    }

    /// A channel on which a script runs, with the session that carries it.
    async fn run(&self, script: &str) -> Result<(Handle<Pinned>, ChannelReadHalf, ChannelWriteHalf<client::Msg>), ConnectError> {
        let session = self.login().await?;
        let channel = session.channel_open_session().await.map_err(|error| self.unreachable(&error))?;
        channel.exec(true, command(script)).await.map_err(|error| self.unreachable(&error))?;
        let (reader, writer) = channel.split();
        Ok((session, reader, writer))
    }

    async fn upload(&self, path: Option<PathBuf>, writer: &ChannelWriteHalf<client::Msg>) -> Result<(), ConnectError> {
        let cannot = |path: &PathBuf, error: std::io::Error| {
            ConnectError::Refused(Failure::new(Code::InstallFailed, format!("{} cannot be read: {error}", path.display())))
        };
        if let Some(path) = path {
            let mut file = tokio::fs::File::open(&path).await.map_err(|error| cannot(&path, error))?;
            let mut piece = vec![0; PIECE];
            loop {
                let length = file.read(&mut piece).await.map_err(|error| cannot(&path, error))?;
                if length == 0 {
                    break;
                }
                if writer.data(&piece[..length]).await.is_err() {
                    // The script has ended; its exit code says why.
                    return Ok(());
                }
            }
        }
        let _ = writer.eof().await;
        Ok(())
    }
}

#[async_trait]
impl RemoteShell for Host {
    fn host(&self) -> String {
        self.name.clone()
    }

    async fn exec(&self, script: &str, stdin: Option<PathBuf>, limit: Duration) -> Result<(End, String), ConnectError> {
        let work = async {
            let (_session, mut reader, writer) = self.run(script).await?;
            let (mut end, mut stdout, mut stderr) = (End::default(), Vec::new(), Vec::new());
            let answer = async {
                while let Some(message) = reader.wait().await {
                    match message {
                        ChannelMsg::Data { data } if stdout.len() < ANSWER => stdout.extend_from_slice(&data),
                        ChannelMsg::ExtendedData { data, .. } => keep(&mut stderr, &data),
                        ChannelMsg::ExitStatus { exit_status } => end.status = i32::try_from(exit_status).ok(),
                        _ => {}
                    }
                }
            };
            let (uploaded, ()) = tokio::join!(self.upload(stdin, &writer), answer);
            uploaded?;
            end.stderr = String::from_utf8_lossy(&stderr).into_owned();
            Ok((end, String::from_utf8_lossy(&stdout).into_owned()))
        };
        tokio::time::timeout(limit, work).await.map_err(|_| hangs(&self.name, limit))?
    }

    async fn open(&self, script: &str) -> Result<Opened, ConnectError> {
        let opened = tokio::time::timeout(self.limit, self.run(script)).await.map_err(|_| hangs(&self.name, self.limit))?;
        let (session, reader, writer) = opened?;
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (tell, end) = oneshot::channel();
        tokio::spawn(carry(session, reader, writer, theirs, tell));
        Ok(Opened { stream: Box::new(ours), end })
    }
}

/// Carries a channel's bytes to and from a pipe. The channel is read all the time, or the session would stall; it ends
/// with the channel, or when the pipe's other end is dropped.
async fn carry(
    session: Handle<Pinned>,
    mut reader: ChannelReadHalf,
    writer: ChannelWriteHalf<client::Msg>,
    pipe: DuplexStream,
    tell: oneshot::Sender<Result<End, ConnectError>>,
) {
    let (mut from_link, mut to_link) = tokio::io::split(pipe);
    let (dropped, mut is_dropped) = mpsc::channel::<()>(1);
    let sending = tokio::spawn(async move {
        let _dropped = dropped;
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from_link.read(&mut piece).await {
            if writer.data(&piece[..length]).await.is_err() {
                return;
            }
        }
        // Not closed: what closes a channel before its program's exit status has come never hears it.
        let _ = writer.eof().await;
    });
    let (mut end, mut stderr) = (End::default(), Vec::new());
    let mut leaving = None;
    loop {
        let message = tokio::select! {
            message = reader.wait() => message,
            () = tokio::time::sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => None,
            // The exit status may still be on its way.
            _ = is_dropped.recv(), if leaving.is_none() => {
                leaving = Some(Instant::now() + LEAVING);
                continue;
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                // An error means that the pipe's other end has gone, which `is_dropped` tells too.
                let _ = to_link.write_all(&data).await;
            }
            Some(ChannelMsg::Eof) => drop(to_link.shutdown().await),
            Some(ChannelMsg::ExtendedData { data, .. }) => keep(&mut stderr, &data),
            Some(ChannelMsg::ExitStatus { exit_status }) => end.status = i32::try_from(exit_status).ok(),
            Some(_) => {}
            None => break,
        }
    }
    sending.abort();
    end.stderr = String::from_utf8_lossy(&stderr).into_owned();
    // An error means that nobody waits for the end: it came after the bridge was ready.
    let _ = tell.send(Ok(end));
    drop(session);
}
