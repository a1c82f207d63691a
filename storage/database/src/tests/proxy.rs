//! A proxy before a database that can lose the answer to a COMMIT.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The name that PostgreSQL's clients give a socket.
const SOCKET: &str = ".s.PGSQL.5432";
/// A COMMIT as the driver sends it: a simple query.
const COMMIT: &[u8] = b"COMMIT\0";

/// Listens in a folder of its own and passes everything on.
pub(super) struct Proxy {
    folder: tempfile::TempDir,
    lose: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy before the server whose socket is in `server`.
    pub fn before(server: &Path) -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let lose = Arc::new(AtomicBool::new(false));
        let (server, switch) = (server.join(SOCKET), Arc::clone(&lose));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), Arc::clone(&switch)));
            }
        });
        Self { folder, lose }
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Loses the answer to the next COMMIT: the server makes it, and the connection breaks.
    pub fn lose_next_commit_answer(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }

    /// Whether an answer is still to be lost.
    pub fn is_waiting(&self) -> bool {
        self.lose.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: UnixStream, server: PathBuf, lose: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut server = UnixStream::connect(server).await?;
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() {
                    return Ok(());
                }
                server.write_all(sent).await?;
                let is_commit = sent.windows(COMMIT.len()).any(|window| window == COMMIT);
                if is_commit && lose.swap(false, Ordering::SeqCst) {
                    // The answer proves that the server has committed. The client never sees it.
                    let answered = server.read(&mut down).await?;
                    assert!(answered > 0, "the server answers a COMMIT");
                    return Ok(());
                }
            }
            read = server.read(&mut down) => {
                let answered = &down[..read?];
                if answered.is_empty() {
                    return Ok(());
                }
                client.write_all(answered).await?;
            }
        }
    }
}
