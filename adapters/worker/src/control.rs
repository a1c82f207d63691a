//! The worker's second socket: one line asked, one line of JSON answered, for `status` and `stop`.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use helix_actor_runner::{Wipe, Worker};
use helix_protocol::{Code, Failure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::folder::{Reached, WorkerFolder};
use crate::line;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a worker may take to end what it runs.
const ENDING: Duration = Duration::from_secs(45);

/// Answers one line; the worker's side.
pub async fn answer(worker: Worker, mut stream: UnixStream) {
    let (reader, mut writer) = stream.split();
    let mut asked = String::new();
    let read = tokio::io::BufReader::new(reader.take(64)).read_line(&mut asked).await;
    if read.is_err() {
        return;
    }
    let answer = match asked.trim() {
        "status" => worker.status().await.map(|status| json!(status)),
        "stop" => worker.stop(Wipe::No).map(|()| json!({})),
        "stop wipe" => worker.stop(Wipe::Yes).map(|()| json!({})),
        other => Err(Failure::new(Code::InvalidRequest, format!("{other:?} is nothing that can be asked"))),
    };
    let answer = match answer {
        Ok(answer) => json!({"ok": answer}),
        Err(failure) => json!({"failure": failure}),
    };
    let _ = writer.write_all(format!("{}\n", line(&answer)).as_bytes()).await;
}

/// Asks; `None` where no worker answers.
fn ask(folder: &WorkerFolder, question: &str) -> Result<Option<Value>, Failure> {
    let stream = match folder.reach(&folder.control_socket()?)? {
        Reached::Connected(stream) => stream,
        Reached::Dead | Reached::Busy => return Ok(None),
    };
    let failed = |error: std::io::Error| {
        Failure::new(Code::WorkerUnreachable, format!("the worker in {} does not answer: {error}", folder.path().display()))
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    (&stream).write_all(format!("{question}\n").as_bytes()).map_err(failed)?;
    let mut said = String::new();
    match BufReader::new(&stream).read_line(&mut said) {
        // It died with the question unread.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        read => read.map_err(failed)?,
    };
    if said.is_empty() {
        return Ok(None);
    }
    let mut answer: Value = serde_json::from_str(&said)
        .map_err(|error| Failure::new(Code::ProtocolError, format!("the worker's answer is not understood: {error}")))?;
    match serde_json::from_value(answer["failure"].take()) {
        Ok(failure) => Err(failure),
        Err(_) => Ok(Some(answer["ok"].take())),
    }
}

/// What the worker in a folder says of itself; `None` where none answers.
pub fn status(folder: &WorkerFolder) -> Result<Option<Value>, Failure> {
    ask(folder, "status")
}

/// Prints it.
pub fn print_status(folder: &WorkerFolder, json: bool) -> Result<ExitCode, Failure> {
    let Some(mut status) = status(folder)? else {
        println!(
            "{}",
            if json { line(&json!({"running": false})) } else { format!("no worker answers in {}", folder.path().display()) }
        );
        return Ok(ExitCode::from(Code::NotFound.exit_code()));
    };
    if json {
        status["running"] = json!(true);
        status["socket"] = json!(folder.socket()?);
        println!("{}", line(&status));
        return Ok(ExitCode::SUCCESS);
    }
    println!("worker {} (process {}), lease {}", status["build"], status["pid"], status["lease"]);
    for held in status["holds"].as_array().into_iter().flatten() {
        println!("task {} epoch {}", held["task"], held["epoch"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the worker and waits until it has ended.
pub fn stop(folder: &WorkerFolder, wipe: bool) -> Result<ExitCode, Failure> {
    let wipe = wipe && folder.can_be_wiped()?;
    if ask(folder, if wipe { "stop wipe" } else { "stop" })?.is_some() {
        let start = Instant::now();
        while !folder.is_free()? {
            if start.elapsed() > ENDING {
                return Err(Failure::new(Code::TimedOut, format!("the worker in {} does not end", folder.path().display()))
                    .hint(format!("{} says what it is doing", folder.log().display())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    if wipe {
        // Held while it is deleted, so that nobody starts in the middle.
        let _lock = folder.lock()?;
        folder.wipe()?;
    }
    Ok(ExitCode::SUCCESS)
}
