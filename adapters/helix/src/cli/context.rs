//! What every command stands on: configuration, data folder, client, and how to print.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use helix_config::{Config, Loaded};
use helix_protocol::{Code, Failure};
use serde::Serialize;

use super::Global;
use super::escapes::harmless;
use super::style::{Style, fit, terminal_columns};
use crate::client::Client;
use crate::node::{DataFolder, start_in_background};

/// The surroundings of a command.
#[derive(Clone, Debug)]
pub struct Context {
    global: Global,
    /// Colours of standard output.
    pub style: Style,
}

impl Context {
    pub(super) fn new(mut global: Global) -> Self {
        // The parser would show an option that the environment sets as one that has to be typed.
        global.data = global.data.or_else(|| std::env::var_os("HELIX_DATA").filter(|data| !data.is_empty()).map(PathBuf::from));
        let style = if global.json { Style::Plain } else { Style::of_stdout(global.no_color) };
        Self { global, style }
    }

    /// True where answers are JSON.
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// The configuration that holds, `--data` applied.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let mut loaded = Config::load(self.global.config.as_deref(), &|name| std::env::var(name).ok())?;
        if let Some(data) = &self.global.data {
            loaded.config.server.data.clone_from(data);
        }
        Ok(loaded)
    }

    /// The data folder.
    pub fn folder(&self) -> Result<DataFolder, Failure> {
        match &self.global.data {
            Some(data) => DataFolder::locate(data),
            None => DataFolder::locate(&self.load()?.config.server.data),
        }
    }

    /// A client of the node on the data folder, whether or not it runs.
    pub fn client(&self) -> Result<Client, Failure> {
        let folder = self.folder()?;
        if !folder.socket().exists() {
            let start = match &self.global.data {
                Some(data) => format!("`helix up --data {}` starts one", data.display()),
                None => "`helix up` starts one; another data folder is named by --data".to_owned(),
            };
            return Err(Failure::new(Code::NodeUnreachable, format!("no node runs on {}", folder.root().display())).hint(start));
        }
        Client::of(&folder)
    }

    /// A client of the node, which is started in the background where none runs.
    pub async fn client_or_start(&self) -> Result<Client, Failure> {
        self.client_or_start_with(Vec::new()).await
    }

    /// The same; a node that is started gets these environment variables besides the ones of this process.
    pub async fn client_or_start_with(&self, variables: Vec<(&'static str, String)>) -> Result<Client, Failure> {
        let folder = self.folder()?;
        let client = Client::of(&folder)?;
        if client.answers().await {
            return Ok(client);
        }
        self.say(&format!("starting a node on {} (its log: {})", folder.root().display(), folder.log().display()));
        // The node works in another folder, so it is told which file was found from this one.
        let config = self.load()?.file().map(std::path::absolute).transpose().map_err(|error| Failure::io("--config", &error))?;
        let started = tokio::task::spawn_blocking(move || {
            start_in_background(&folder, config.as_deref(), &variables)?;
            Client::of(&folder)
        });
        started.await.map_err(|error| Failure::new(Code::Internal, format!("starting a node ended by a panic: {error}")))?
    }

    /// Prints an answer: JSON as it is, or what `render` makes of it.
    pub fn print<T: Serialize>(&self, answer: &T, render: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json() {
            return print_json(answer);
        }
        self.show(&whole_line(render(answer)))
    }

    /// The same for what somebody wrote into files: programs get its bytes, a terminal what is harmless of them.
    pub fn print_content<T: Serialize>(&self, answer: &T, render: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json() {
            return print_json(answer);
        }
        self.show_content(&whole_line(render(answer)))
    }

    /// Shows a piece of text to a person on standard output.
    pub fn show(&self, text: &str) -> Result<(), Failure> {
        out(&harmless(text, self.style))
    }

    /// The same for what commands wrote: programs get its bytes, a terminal what is harmless of them.
    pub fn show_content(&self, text: &str) -> Result<(), Failure> {
        if std::io::stdout().is_terminal() { self.show(text) } else { out(text) }
    }

    /// A table or timeline as wide as the terminal: what a pipe gets is whole.
    pub fn fit(&self, text: String) -> String {
        match terminal_columns() {
            Some(columns) => fit(&text, columns),
            None => text,
        }
    }

    /// Tells a person on standard error what goes on.
    pub fn say(&self, text: &str) {
        if !self.json() {
            // Nobody is told where standard error is closed.
            let _ = writeln!(std::io::stderr(), "{}", harmless(text, self.style));
        }
    }

    /// Says `text` while `work` goes on, where somebody watches and it takes a while.
    pub async fn waiting<T>(&self, text: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if self.json() || !std::io::stderr().is_terminal() {
            return work.await;
        }
        let started = tokio::time::Instant::now();
        let mut tick = tokio::time::interval_at(started + std::time::Duration::from_millis(400), std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                answer = &mut work => {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                    return answer;
                }
                _ = tick.tick() => {
                    let _ = write!(std::io::stderr(), "\r\x1b[K{text} … {} s", started.elapsed().as_secs());
                    let _ = std::io::stderr().flush();
                }
            }
        }
    }
}

/// The names of this process' environment.
pub(super) fn names_of_variables() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}

fn print_json(answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer);
    out(&whole_line(text.map_err(|error| Failure::new(Code::Internal, format!("an answer is no JSON: {error}")))?))
}

/// The text with the end of its last line.
fn whole_line(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes to standard output as it is: JSON, or what this program says by itself. A reader that has gone
/// (`helix task list | head`) is no fault.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::io("standard output", &error)),
        _ => Ok(()),
    }
}
