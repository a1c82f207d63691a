//! The first two frames: the node's Hello, the worker's Welcome or refusal.

use bytes::BytesMut;
use helix_protocol::link::{Frame, Hello, OLDEST_VERSION, VERSION, Welcome};
use helix_protocol::{Code, Failure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::codec::{decode, encode};
use crate::connection::{Link, Options, Side, lost_code, serve};
use crate::reader::{cut, lost};

/// Opens a connection as the node.
///
/// Fails with what the worker refused with, `version_mismatch`, `protocol_error` where the other end is
/// no worker, `worker_unreachable` where it ends at once, and `timed_out` where it says nothing.
pub async fn connect_as_node<IO>(io: IO, hello: Hello, options: Options) -> Result<(Link, Welcome), Failure>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut received = BytesMut::new();
    let (oldest, newest) = (hello.oldest, hello.newest);
    let exchange = async {
        write(&mut writer, &Frame::Hello(hello), Side::Node).await?;
        read(&mut reader, &mut received, Side::Node).await
    };
    let welcome = match within(&options, Side::Node, exchange).await? {
        Frame::Welcome(answer) => answer?,
        _ => return Err(Failure::new(Code::ProtocolError, "the worker's first frame was no welcome")),
    };
    if welcome.version < oldest || welcome.version > newest {
        return Err(mismatch(format!(
            "the worker chose link version {}, and this node speaks {oldest} to {newest}",
            welcome.version
        )));
    }
    Ok((serve(reader, writer, received, Side::Node, options), welcome))
}

/// Reads a node's Hello. What the worker does with it is the [`Greeting`]'s.
pub async fn accept_as_worker<IO>(io: IO, options: Options) -> Result<Greeting<IO>, Failure>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = tokio::io::split(io);
    let mut received = BytesMut::new();
    let frame = within(&options, Side::Worker, read(&mut reader, &mut received, Side::Worker)).await?;
    let Frame::Hello(hello) = frame else {
        return Err(Failure::new(Code::ProtocolError, "the node's first frame was no hello"));
    };
    Ok(Greeting { reader, writer, received, hello, options })
}

/// A node that has said Hello and waits.
pub struct Greeting<IO> {
    reader: ReadHalf<IO>,
    writer: WriteHalf<IO>,
    received: BytesMut,
    hello: Hello,
    options: Options,
}

impl<IO: AsyncRead + AsyncWrite + Send + 'static> Greeting<IO> {
    /// What the node said.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The newest version both speak, for [`Welcome::version`]; `version_mismatch` where there is none.
    pub fn version(&self) -> Result<u16, Failure> {
        let Hello { oldest, newest, .. } = self.hello;
        let version = newest.min(VERSION);
        if version >= oldest.max(OLDEST_VERSION) {
            return Ok(version);
        }
        Err(mismatch(format!("the node speaks link versions {oldest} to {newest}, and this worker {OLDEST_VERSION} to {VERSION}")))
    }

    /// Takes the node.
    pub async fn welcome(mut self, welcome: Welcome) -> Result<Link, Failure> {
        let frame = Frame::Welcome(Ok(welcome));
        let answer = write(&mut self.writer, &frame, Side::Worker);
        within(&self.options, Side::Worker, answer).await?;
        Ok(serve(self.reader, self.writer, self.received, Side::Worker, self.options))
    }

    /// Turns the node away.
    pub async fn refuse(mut self, failure: Failure) -> Result<(), Failure> {
        let answer = async {
            write(&mut self.writer, &Frame::Welcome(Err(failure)), Side::Worker).await?;
            self.writer.shutdown().await.map_err(|error| lost(Side::Worker, &error))
        };
        within(&self.options, Side::Worker, answer).await
    }
}

fn mismatch(message: String) -> Failure {
    Failure::new(Code::VersionMismatch, message).hint("install the worker of this node's version: `helix worker add` again")
}

async fn within<T>(options: &Options, side: Side, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let peer = match side {
        Side::Node => "worker",
        Side::Worker => "node",
    };
    tokio::time::timeout(options.handshake_timeout, exchange).await.unwrap_or_else(|_| {
        let waited = options.handshake_timeout.as_millis();
        Err(Failure::new(Code::TimedOut, format!("the {peer} said nothing for {waited} ms after the connection was opened")))
    })
}

async fn write<W: AsyncWrite + Unpin>(io: &mut W, frame: &Frame, side: Side) -> Result<(), Failure> {
    let bytes = encode(frame)?;
    io.write_all(&bytes).await.map_err(|error| lost(side, &error))?;
    io.flush().await.map_err(|error| lost(side, &error))
}

async fn read<R: AsyncRead + Unpin>(io: &mut R, buffer: &mut BytesMut, side: Side) -> Result<Frame, Failure> {
    loop {
        if let Some(frame) = decode(buffer)? {
            return Ok(frame);
        }
        match io.read_buf(buffer).await {
            Ok(0) if buffer.is_empty() => {
                let code = lost_code(side, Code::WorkerUnreachable);
                return Err(Failure::new(code, "the other end of the connection closed it before it said anything"));
            }
            Ok(0) => return Err(cut(buffer.len())),
            Ok(_) => {}
            Err(error) => return Err(lost(side, &error)),
        }
    }
}
