//! A handler on Restate's Rust SDK that journals one step, as a task of one step does, and does nothing else.

use std::error::Error;

use restate_sdk::prelude::*;
use tokio::net::TcpListener;

/// The service.
struct Nothing;

#[restate_sdk::service]
impl Nothing {
    #[handler]
    async fn once(&self, context: Context<'_>) -> Result<(), HandlerError> {
        context.run(|| async { Ok(()) }).await?;
        Ok(())
    }
}

/// Serves on a loopback port until it is killed. Its address is the first line it prints.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    HttpServer::new(Endpoint::builder().bind(Nothing).build()).serve(listener).await;
    Ok(())
}
