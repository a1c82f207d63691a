//! `helix-worker agent`: has an agent make one turn. Started by a worker, as a command of a workspace and in its sandbox.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use helix_actor_runner::turn::TurnLine;
use helix_adapter_external::{Life, Way, take_turn};
use helix_protocol::{AgentTurn, Code, Failure, TurnReport};
use tokio::net::{TcpListener, UnixStream};

/// Takes the turn from standard input and answers there.
pub fn run() -> Result<ExitCode, Failure> {
    let broken = |error: std::io::Error| Failure::new(Code::Internal, format!("the worker does not say what to do: {error}"));
    let (line, turn) = TurnLine::take().map_err(broken)?;
    let line = Arc::new(line);
    let runtime = crate::serve::runtime()?;
    let report = runtime.block_on(make(&line, &turn));
    line.done(report).map_err(broken)?;
    // What the agent left running is the workspace's; nothing of this process is waited for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn make(line: &Arc<TurnLine>, turn: &AgentTurn) -> Result<TurnReport, Failure> {
    let workspace = std::env::current_dir().map_err(|error| Failure::io("the workspace", &error))?;
    let gateway = match &turn.gateway {
        // Carried out of the sandbox by the worker.
        Some(gateway) if gateway.url.starts_with("http://") => Some(listen(Arc::clone(line)).await?),
        Some(gateway) => Some(Way { address: gateway.url.trim_end_matches('/').to_owned(), seen: None }),
        None => None,
    };
    take_turn(turn, Path::new(&workspace), gateway.as_ref()).await
}

/// Stands in for the gateway on this network's loopback. Whoever finds the port still needs the turn's key.
async fn listen(line: Arc<TurnLine>) -> Result<Way, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Code::IsolationUnavailable, format!("the agent cannot be given a way to the gateway: {error}"))
            .hint("run it with --network host")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let life = Life::default();
    let seen = life.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            seen.connect();
            let (line, seen) = (Arc::clone(&line), seen.clone());
            tokio::spawn(async move {
                let far = tokio::task::spawn_blocking(move || line.connect()).await;
                let Ok(Ok(far)) = far else { return };
                if far.set_nonblocking(true).is_err() {
                    return;
                }
                if let Ok(far) = UnixStream::from_std(far) {
                    let _ = near.set_nodelay(true);
                    // Either end may leave at any time.
                    let _ = seen.carry(near, far).await;
                }
            });
        }
    });
    Ok(Way { address: format!("http://{address}"), seen: Some(life) })
}
