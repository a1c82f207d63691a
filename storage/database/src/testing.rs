//! A real PostgreSQL for tests, from the binaries installed on this machine.
//!
//! It lives in a temporary folder, listens on a Unix socket there and nowhere else, and ends with the
//! value. `initdb` refuses to run as root, so root becomes the user `postgres`, or `nobody`.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, raw_sql};
use uuid::Uuid;

/// How long the server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the server waits for its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Synced,
    /// No `fsync`: quicker, and enough for everything but figures.
    Unsynced,
}

/// A server of its own. Dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct TestPostgres {
    bin: PathBuf,
    folder: PathBuf,
    user: Option<User>,
    durability: Durability,
    running: Mutex<Option<Running>>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    ended: Receiver<()>,
}

/// Open until it is dropped.
#[derive(Debug)]
pub struct OpenTransaction {
    _connection: AnyConnection,
}

impl TestPostgres {
    /// The server that all tests of this process share while any of them uses it. Each takes its own
    /// [`database`](Self::database), and none may stop it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(Durability::Unsynced));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Makes a server and starts it. Panics, saying what is missing, where that cannot be done.
    pub fn start(durability: Durability) -> Self {
        let bin = bin_folder().expect("PostgreSQL's server programs are installed (Debian: apt-get install postgresql)");
        let user = rustix::process::geteuid().is_root().then(|| unprivileged().expect("there is a user `postgres` or `nobody`"));
        // Short, because a socket's path may have about a hundred bytes.
        let folder = PathBuf::from(format!("/tmp/helix-pg-{}", &Uuid::now_v7().simple().to_string()[20..]));
        std::fs::create_dir(&folder).expect("/tmp is writable");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("the folder is ours");
        if let Some(user) = user {
            chown(&folder, Some(user.uid), Some(user.gid)).expect("root may give folders away");
        }
        let server = Self { bin, folder, user, durability, running: Mutex::new(None) };
        server.initialise();
        server.resume();
        server
    }

    fn initialise(&self) {
        let mut initdb = self.program("initdb");
        initdb.args(["--auth=trust", "--username=helix", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "-D"]);
        let output = initdb.arg(self.folder.join("data")).output().expect("initdb can be run");
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        self.set("listen_addresses = ''\n");
    }

    /// Adds to the server's settings, for when it starts the next time.
    fn set(&self, settings: &str) {
        let file = std::fs::OpenOptions::new().append(true).open(self.folder.join("data/postgresql.conf"));
        file.and_then(|mut file| file.write_all(settings.as_bytes())).expect("the server's settings are ours");
    }

    /// Lets the server be reached over TCP too, on 127.0.0.1, and encrypt there for those who ask. Answers the port, and the file of
    /// the authority that says that the server is `localhost`.
    pub fn encrypt(&self) -> (u16, PathBuf) {
        self.crash();
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        std::fs::write(self.folder.join("name"), "subjectAltName=DNS:localhost").expect("the folder is ours");
        self.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.crt");
        self.openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
        self.openssl(
            "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -extfile name -out server.crt",
        );
        let folder = self.folder.display();
        self.set(&format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nssl = on\nssl_cert_file = '{folder}/server.crt'\n\
             ssl_key_file = '{folder}/server.key'\n",
        ));
        self.resume();
        (port, self.folder.join("authority.crt"))
    }

    fn openssl(&self, arguments: &str) {
        let mut command = self.as_user(Command::new("openssl"));
        let output = command.args(arguments.split(' ')).output().expect("openssl can be run (Debian: apt-get install openssl)");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server again after [`crash`](Self::crash).
    pub fn resume(&self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        command.args(["-c", "max_connections=60", "-c", "lc_messages=C"]);
        if self.durability == Durability::Unsynced {
            command.args(["-c", "fsync=off"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (started, start) = channel();
        let (end, ended) = channel();
        // The server dies with the thread that made it, so that thread stays until the server has gone.
        std::thread::spawn(move || {
            let mut child = command.spawn().expect("postgres can be run");
            let mut said = String::new();
            for line in BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines().map_while(Result::ok) {
                if line.contains("ready to accept connections") {
                    let _ = started.send(Ok(pid_of(&child)));
                }
                said.push_str(&line);
                said.push('\n');
            }
            let _ = child.wait();
            let _ = started.send(Err(said));
            let _ = end.send(());
        });
        let pid = match start.recv_timeout(PATIENCE).expect("postgres says within a minute whether it starts") {
            Ok(pid) => pid,
            Err(said) => panic!("postgres does not start: {said}"),
        };
        *self.running.lock() = Some(Running { pid, ended });
    }

    /// Ends the server at once, as a crash does: connections break, nothing is written out.
    pub fn crash(&self) {
        if let Some(running) = self.running.lock().take() {
            let _ = kill_process(running.pid, Signal::QUIT);
            let _ = running.ended.recv_timeout(PATIENCE);
        }
    }

    /// The folder of the server's socket, `.s.PGSQL.5432`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of a database of this server, reached over the socket in `folder`.
    pub fn url_over(folder: &Path, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=helix&sslmode=disable", folder.display())
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        Self::url_over(&self.folder, database)
    }

    /// Makes an empty database and answers its name.
    pub async fn database(&self) -> String {
        install_default_drivers();
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = AnyConnection::connect(&self.url("postgres")).await.expect("the server answers");
        raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.expect("a database can be made");
        connection.close().await.expect("the connection can be closed");
        name
    }

    /// Opens a transaction with a number of its own, in a database of its own.
    pub async fn open_transaction(&self) -> OpenTransaction {
        let mut connection = AnyConnection::connect(&self.url(&self.database().await)).await.expect("the server answers");
        raw_sql("BEGIN; SELECT pg_current_xact_id()::TEXT").execute(&mut connection).await.expect("a transaction can be begun");
        OpenTransaction { _connection: connection }
    }

    /// A program of the server, as the user that may run it, and dying with us where `setpriv` can arrange that.
    fn program(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let command = match in_path("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "QUIT"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        self.as_user(command)
    }

    /// The command as the user that owns the folder, there.
    fn as_user(&self, mut command: Command) -> Command {
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.current_dir(&self.folder).env("LC_ALL", "C").process_group(0);
        command
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        self.crash();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Where `initdb` and `postgres` are: what `pg_config` says, the newest of Debian's folders, or PATH.
fn bin_folder() -> Option<PathBuf> {
    let said = Command::new("pg_config").arg("--bindir").output().ok().map(|output| output.stdout);
    let said = said.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| PathBuf::from(text.trim()));
    let mut installed: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    installed.sort_by_key(|path| {
        let version =
            path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let in_path = in_path("postgres").and_then(|path| path.parent().map(Path::to_path_buf));
    said.into_iter().chain(installed).chain(in_path).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The user that root becomes.
fn unprivileged() -> Option<User> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let find = |wanted: &str| {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            (name == wanted).then_some(User { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody"))
}
