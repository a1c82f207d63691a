//! The one shape of an error at every border: HTTP, command line, link.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $exit:literal, $page:literal;)+) => {
        /// What went wrong, as a word a program can match. `helix explain CODE` prints its page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
            /// A code of a newer peer.
            #[serde(other)]
            Unknown,
        }

        impl Code {
            /// Every code this build can give.
            pub const ALL: &[Code] = &[$(Code::$variant),+];

            /// The code as it is written in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$variant => $text,)+
                    Code::Unknown => "unknown",
                }
            }

            /// The exit code of a command that ends with this failure.
            pub fn exit_code(self) -> u8 {
                match self {
                    $(Code::$variant => $exit,)+
                    Code::Unknown => 1,
                }
            }

            /// What it means and what to do: the page behind `helix explain`.
            pub fn page(self) -> &'static str {
                match self {
                    $(Code::$variant => $page,)+
                    Code::Unknown => "The other side is newer than this program and gave a code this build does not know. Its message still says what happened.",
                }
            }
        }
    };
}

// Exit codes: 1 failure, 2 usage, 3 not found, 4 refused by state, 5 node unreachable,
// 6 worker or network, 7 model, 8 budget, 9 storage, 10 the task itself failed.
codes! {
    /// The request itself is wrong.
    InvalidRequest = "invalid_request", 2, "The request has a value that cannot be used. The message names the field and what would be accepted.";
    /// A configuration key or value is wrong.
    InvalidConfig = "invalid_config", 2, "helix.yaml or an environment variable has an unknown key or a value of the wrong type. `helix config check` names the line, the key and the nearest known one.";
    /// Somebody else's.
    Forbidden = "forbidden", 4, "The socket of a node answers only the user it runs as, and root; a command speaks only to that user's node. Run the command as that user.";
    /// No such thing.
    NotFound = "not_found", 3, "Nothing has this id or name. Ids may be shortened to their last digits as the listings show them; `helix task list` and `helix worker list` show what exists.";
    /// A short id fits several things.
    AmbiguousId = "ambiguous_id", 3, "The shortened id fits more than one thing. Type more of its digits.";
    /// The thing is in a state that does not allow this.
    InvalidState = "invalid_state", 4, "The task or worker is in a state in which this cannot be done, for example resuming a task that is not paused. `helix task show` and `helix worker show` say the state and what is possible.";
    /// Dependencies form a circle.
    DependencyCycle = "dependency_cycle", 2, "The tasks would wait for each other for ever. The message lists the circle; remove one of its edges.";
    /// A writer whose epoch has passed.
    StaleOwner = "stale_owner", 4, "Somebody else owns the task by now, so this write was refused and nothing was changed. It is what keeps a worker that was thought dead from doing a step twice. Nothing has to be done.";
    /// A reused idempotency key with another request.
    IdempotencyConflict = "idempotency_conflict", 4, "The idempotency key was used before with another request. Use a new key for a new request.";
    /// The data folder is in use.
    NodeRunning = "node_running", 4, "Another node holds this data folder, or drives this database. Use it (the command line finds its socket), stop it, or give this node a folder (`--data`) and a database of its own.";
    /// No node answers.
    NodeUnreachable = "node_unreachable", 5, "No node answers on the data folder's socket. `helix up` starts one; `helix doctor` says what is in the way.";
    /// The data folder or database is of a newer version.
    NewerFormat = "newer_format", 9, "The data was written by a newer version of Helix. This version refuses to touch it. Install the newer version again, or restore the copy that was made before the upgrade.";
    /// A mailbox or queue is full.
    Overloaded = "overloaded", 4, "The part that would do this has as much queued as it admits. Nothing was started; try again in a moment.";
    /// An answer did not come in time.
    TimedOut = "timed_out", 6, "An answer did not come within its time. The request may or may not have been carried out; repeating it is safe.";
    /// The part is stopping.
    ShuttingDown = "shutting_down", 5, "The node is stopping and takes no new work. Try again when it is up.";
    /// The request was given up.
    Cancelled = "cancelled", 4, "Somebody cancelled it, or its owner went away.";
    /// Not a git repository.
    NotARepository = "not_a_repository", 2, "The folder is not inside a git repository. Name one with `--repo`, or run `git init` and commit once.";
    /// A git repository that cannot be read.
    GitFailed = "git_failed", 9, "The git repository could not be read or written; the message has git's reason. `git fsck` in that repository says more.";
    /// A path that leaves the workspace.
    PathEscapes = "path_escapes", 4, "A tool was given a path that is absolute, goes up with `..`, or leads out of the workspace through a symbolic link. Paths are relative to the workspace's root. An artifact that is fetched into a folder must stay beneath that one, and must be nothing that git or helios would take for a repository's own.";
    /// No such file in the workspace.
    FileNotFound = "file_not_found", 3, "The workspace has no such file. The message lists near names.";
    /// A file that cannot be read.
    FileUnreadable = "file_unreadable", 4, "The file exists and could not be read: permissions, or not a regular file.";
    /// A file over the limit.
    FileTooLarge = "file_too_large", 4, "The file is larger than the limit. Read a range of it, or raise `workspace.file_cap_bytes`.";
    /// An edit that fits nowhere.
    EditNotFound = "edit_not_found", 4, "The text to replace is not in the file. The message shows the nearest text; nothing was changed.";
    /// An edit that fits in several places.
    EditAmbiguous = "edit_ambiguous", 4, "The text to replace occurs more than once; the message lists the lines. Give more surrounding text, or ask for all occurrences.";
    /// Wrong arguments for a tool.
    InvalidToolCall = "invalid_tool_call", 4, "The tool does not exist or its arguments do not fit its schema. The model is told and may try again; nothing was run.";
    /// A program the worker lacks.
    ProgramMissing = "program_missing", 6, "The worker has no program of that name. Install it there, or say what the task needs with `--needs` so that it goes to a worker that has it.";
    /// A command that failed.
    CommandFailed = "command_failed", 10, "The command ended with an exit code other than 0, or by a signal. `helix task log` shows its output.";
    /// An agent of somebody else's making that did not keep to its part.
    AgentFailed = "agent_failed", 10, "The agent's program ended or said something that cannot be understood in the middle of a turn. Nothing of that turn is committed. The message has what it wrote last; `helix task log` has the rest. docs/agents.md says how each agent is set up.";
    /// An agent of somebody else's making that never came to work.
    AgentNotStarted = "agent_not_started", 10, "The agent's program ended or said something that cannot be understood before it had a session, or before it asked its model anything; or it said nothing at all, and again nothing when it was started once more. It would do so again, so no retry was used. The message has what it wrote last. An agent that does not speak ACP on its standard input and output is described with `speaks: command`. Mend how it is set up (docs/agents.md, `agents.programs` in helix.yaml), then `helix task retry`.";
    /// The worker lacks content.
    ObjectsMissing = "objects_missing", 6, "The worker lacks some objects of the snapshot. The node sends them and asks again by itself; seen by a person, it means the content store lost them: run `helix doctor`.";
    /// Bytes that do not have the hash they were sent under.
    CorruptObject = "corrupt_object", 9, "Bytes do not have the hash they are stored or were sent under. They are refused. A disk or memory fault is likely; `helix doctor` checks the store.";
    /// Nobody can run it.
    NoWorker = "no_worker", 6, "No worker fits what the task needs: none connected, none free, or none with the capabilities. `helix task why` says which for each worker.";
    /// The worker is gone.
    WorkerLost = "worker_lost", 6, "The worker died, or was silent for longer than its lease. Its tasks go on elsewhere from their last step.";
    /// No connection to the worker.
    WorkerUnreachable = "worker_unreachable", 6, "No connection to the worker can be made. This is not its death: its tasks are moved only when the lease has ended.";
    /// One machine, a second time.
    AnotherWorker = "another_worker", 4, "The machine is one of this node's workers already, under another address; the message says which. Nothing was changed there. Use that worker, or remove it and add the machine under the address it is to have.";
    /// The lease ended on the worker's side.
    LeaseExpired = "lease_expired", 6, "The worker has not heard from its node for so long that it fenced itself: its processes are frozen until the node grants the lease again, or killed under a new owner.";
    /// An unknown host key.
    HostKeyUnknown = "host_key_unknown", 6, "The SSH host's key is not known. Check its fingerprint with the host's owner, then connect once with ssh, or add the worker with `--host-key FINGERPRINT`.";
    /// A changed host key.
    HostKeyChanged = "host_key_changed", 6, "The SSH host presents another key than the one recorded. Either the machine was installed anew or somebody is in between. Check the fingerprint, then remove the old entry from known_hosts.";
    /// SSH refused the login.
    SshAuthFailed = "ssh_auth_failed", 6, "The SSH host refused every key offered. Check the user, the key file and the agent: `ssh HOST true` must work without a password.";
    /// The worker program cannot be installed or started on the host.
    InstallFailed = "install_failed", 6, "The worker program could not be put on the host or does not start there. The message names what is in the way: architecture, libc, permission, or a full disk.";
    /// A page of the web that cannot be had.
    WebUnreachable = "web_unreachable", 6, "The host of a page, or the endpoint of a search, could not be reached or answered nothing that can be used. The agent is told and goes on; the message has the reason.";
    /// Frames that cannot be understood.
    ProtocolError = "protocol_error", 6, "A frame on the link was cut, too large or not understood, so the connection was closed. It is opened again by itself; unacknowledged requests are repeated.";
    /// No common protocol version.
    VersionMismatch = "version_mismatch", 6, "Node and worker have no protocol version in common. A worker of an older build is replaced by this node's as soon as it holds nothing; where the two cannot speak at all, `helix worker remove NAME --force` and `helix worker add` put this node's program there.";
    /// No model or no key.
    ModelUnavailable = "model_unavailable", 7, "No provider is configured for this model, or its key is missing. Set OPENAI_API_KEY or name a server with `--base-url`; `helix doctor` shows what was found. A task that had begun is parked and asks; `helix task resume` goes on from its last step.";
    /// The provider refused.
    ModelRefused = "model_refused", 7, "The provider refused the request in a way that repeating does not mend: a wrong key, an account without credit, an unknown model, or a request it cannot take. The message has its reason. Where it is the key, the account or the model and no other provider can serve it, a task is parked at its last step and asks for what is to be mended; `helix task resume` lets it go on. A request that cannot be taken ends the task.";
    /// The provider failed for now.
    ModelFailed = "model_failed", 7, "The provider broke off, fell silent or answered too late, so that the call may have been billed, for as long as retries were allowed. The task keeps its last step; `helix task retry` goes on from there. A provider that is only away (429, 5xx, no connection) is waited for: see `no_model_answers`.";
    /// Nobody of those who could answer does at present.
    NoModelAnswers = "no_model_answers", 7, "Every deployment that could have answered was asked or is left alone for a while; the message says what each of them said. A task is parked and goes on by itself at the time that `helix task why` shows; `helix status` shows every circuit that is open.";
    /// A reply that is not what the protocol says.
    ModelGarbage = "model_garbage", 7, "The model server answered with something that is not a chat completion. Check the base URL: it usually ends in /v1.";
    /// A conversation longer than the model takes.
    ContextOverflow = "context_overflow", 7, "The conversation no longer fits the model's context, and what could be made shorter in it was. It would be refused again, so no retry was used, and the task keeps its last step. Name a model with a larger context, raise `context_tokens` if the model takes more, give a shorter prompt, or fork an earlier step with a narrower one.";
    /// Out of budget.
    BudgetExhausted = "budget_exhausted", 8, "The next model call could exceed the budget, so it was not made. The task is parked at its last step. Raise the budget with `helix task resume --budget USD`, or cancel.";
    /// A day's limit of an owner or a project.
    DayLimitReached = "day_limit_reached", 8, "The next model call could pass what an owner or a project may spend in a UTC day, so it was not made; the message says whose limit it is. A task waits at its last step and asks: `helix task answer TASK yes` lets it go on over the limit until the day turns, and unanswered it goes on by itself then. A client of the gateway is refused with HTTP 402 until then. To raise a limit for all, change `budgets` in helix.yaml and start the node again. `helix status` shows what was spent today.";
    /// The database is away.
    DatabaseUnavailable = "database_unavailable", 9, "The database does not answer. Nothing is acknowledged until it does; the node tries again by itself.";
    /// The database is damaged or said no.
    DatabaseFailed = "database_failed", 9, "The database refused a statement or holds something unexpected. The message has its reason.";
    /// The disk is full.
    DiskFull = "disk_full", 9, "A write found no space. Nothing half-written counts. Free space on the disk that the message names; work goes on by itself.";
    /// Some other error of the file system.
    StorageFailed = "storage_failed", 9, "Reading or writing on disk failed; the message has the path and the system's reason.";
    /// A demanded isolation or network grant is not there.
    IsolationUnavailable = "isolation_unavailable", 4, "The task's commands are to run in a sandbox that this worker's kernel cannot give, so it was refused rather than run with less. The message says what is missing; `helix worker show` says it of each worker. Use a worker whose capabilities have `sandbox`, or run the task with `--unsandboxed` on a machine where nothing can be harmed. docs/sandbox.md says what is needed.";
    /// The task ended without success.
    TaskFailed = "task_failed", 10, "The task ended without success. `helix task show` has the reason, `helix task log` the output, and `helix task retry` goes on from its last step.";
    /// Too many steps.
    StepLimit = "step_limit", 10, "The agent made as many steps as it was allowed and had not finished. `helix task fork TASK --max-steps N` goes on from its last step, files and conversation.";
    /// A bug.
    Internal = "internal", 1, "Something happened that should not be possible. Please report it with the message and the output of `helix doctor`.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Code {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Code::ALL.iter().copied().find(|code| code.as_str() == text).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("no failure code is called {text:?}")).hint("`helix explain` lists all of them")
        })
    }
}

/// An error as a person or a program meets it: a code, what happened, and the next step.
///
/// The message is lower case, names the thing, and has no full stop at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable word.
    pub code: Code,
    /// What happened, to what.
    pub message: String,
    /// What to do next; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// The same failure with the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// An input/output error at `path`; a full disk gets its own code.
    pub fn io(path: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::new(Code::DiskFull, format!("{path}: {error}")).hint("free some space on that disk; work goes on by itself")
            }
            _ => Self::new(Code::StorageFailed, format!("{path}: {error}")),
        }
    }
}
