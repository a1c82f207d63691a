//! A bare reverse proxy: takes a request, sends it on, and passes the answer's pieces back as they come. On the same libraries as
//! the gateway (actix-web, reqwest), and with nothing of what the gateway does in between.

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::{Context, Result};

use crate::target::RESTING;

/// The first argument of a process that is the proxy; the upstream's address follows.
pub const ROLE: &str = "--bare-proxy";

struct Bare {
    upstream: String,
    client: reqwest::Client,
}

/// Serves until it is killed. Its address is the first line it prints.
pub fn serve(upstream: &str) -> Result<()> {
    let upstream = upstream.to_owned();
    actix_web::rt::System::new().block_on(async move {
        // A client for each thread: its connections belong to the thread's own reactor.
        let app = move || {
            let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(RESTING).build();
            let client = client.expect("no setting that can fail");
            let bare = web::Data::new(Bare { upstream: upstream.clone(), client });
            App::new().app_data(bare).app_data(web::PayloadConfig::new(64 << 20)).default_service(web::to(pass))
        };
        let server = HttpServer::new(app).tcp_nodelay(true).disable_signals().bind(("127.0.0.1", 0))?;
        let address = server.addrs().first().copied().context("the proxy has no address")?;
        println!("{address}");
        Ok(server.run().await?)
    })
}

async fn pass(bare: web::Data<Bare>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let url = format!("{}{}", bare.upstream, request.uri());
    let mut sent = bare.client.post(url).body(body);
    for name in ["content-type", "authorization"] {
        if let Some(value) = request.headers().get(name) {
            sent = sent.header(name, value.as_bytes());
        }
    }
    let answer = match sent.send().await {
        Ok(answer) => answer,
        Err(error) => return HttpResponse::BadGateway().body(error.to_string()),
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    if let Some(value) = answer.headers().get("content-type") {
        response.insert_header(("content-type", value.as_bytes()));
    }
    response.streaming(answer.bytes_stream())
}
