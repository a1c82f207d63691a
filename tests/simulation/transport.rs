//! How nodes reach machines: over the simulated network, to a door that is there while the machine is.

use async_trait::async_trait;
use helix_ports::{ConnectError, DeathProof, Duplex, InstallReport, WorkerTransport};
use helix_protocol::{Code, Failure, WorkerTarget};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

/// Where every machine's door is.
pub const PORT: u16 = 22;

/// What is wanted at the door.
pub const CONNECT: u8 = b'c';
pub const START: u8 = b's';
/// What the door says.
pub const YES: u8 = b'y';
pub const DEAD: u8 = b'd';

/// Machines are named by the folder of their target.
pub struct Network;

fn unreachable(reason: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::Unreachable(Failure::new(Code::WorkerUnreachable, format!("the machine does not answer: {reason}")))
}

async fn knock(target: &WorkerTarget, wanted: u8) -> Result<(TcpStream, u8), ConnectError> {
    let WorkerTarget::Local { folder } = target else { return Err(unreachable(&"it is no simulated one")) };
    let asked = async {
        let mut stream = TcpStream::connect((folder.as_str(), PORT)).await?;
        stream.write_all(&[wanted]).await?;
        let answer = stream.read_u8().await?;
        Ok::<_, std::io::Error>((stream, answer))
    };
    asked.await.map_err(|error| unreachable(&error))
}

#[async_trait]
impl WorkerTransport for Network {
    fn serves(&self, _: &WorkerTarget) -> bool {
        true
    }

    async fn install(&self, _: &WorkerTarget) -> Result<InstallReport, ConnectError> {
        Ok(InstallReport { arch: "x86_64".to_owned(), program: "helix-worker".to_owned(), present: true, uploaded_bytes: 0 })
    }

    async fn start(&self, target: &WorkerTarget) -> Result<(), ConnectError> {
        knock(target, START).await.map(drop)
    }

    async fn connect(&self, target: &WorkerTarget) -> Result<Box<dyn Duplex>, ConnectError> {
        match knock(target, CONNECT).await? {
            (stream, YES) => Ok(Box::new(stream)),
            _ => Err(ConnectError::Dead(DeathProof::ConnectionRefused)),
        }
    }

    async fn remove(&self, _: &WorkerTarget) -> Result<(), ConnectError> {
        Err(ConnectError::Refused(Failure::new(Code::InvalidRequest, "simulated machines stay")))
    }
}
