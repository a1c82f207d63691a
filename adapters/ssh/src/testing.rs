//! A real sshd on loopback, with host keys, accounts' keys and a home of its own in a temporary folder.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use helix_protocol::WorkerTarget;
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// A running sshd. It ends, with its sessions, when it is dropped.
#[derive(Debug)]
pub struct TestSshd {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl TestSshd {
    /// Starts one. Every session finds `home()` as its home folder.
    ///
    /// # Errors
    /// Where OpenSSH's server or `ssh-keygen` is not installed or does not start.
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sshd").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut sshd = Self { folder, port, server: None };
        fs::create_dir(sshd.home())?;
        for name in ["host_key", "client_key", "other_key"] {
            sshd.generate(name)?;
        }
        fs::copy(sshd.path("client_key.pub"), sshd.path("authorized_keys"))?;
        sshd.trust_host_key()?;
        sshd.write_configurations()?;
        sshd.serve()?;
        Ok(sshd)
    }

    /// The home folder that sessions find.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Where `ssh -F` finds the alias `box`.
    pub fn config(&self) -> PathBuf {
        self.path("ssh_config")
    }

    /// Arguments for [`SystemSsh::options`](crate::SystemSsh::options).
    pub fn options(&self) -> [String; 2] {
        ["-F".to_owned(), self.config().display().to_string()]
    }

    /// This host for the system's `ssh`.
    pub fn system_target(&self) -> WorkerTarget {
        WorkerTarget::Ssh { destination: "box".to_owned() }
    }

    /// This host for the built-in client.
    ///
    /// # Errors
    /// Where the host key cannot be read.
    pub fn russh_target(&self) -> io::Result<WorkerTarget> {
        Ok(WorkerTarget::Russh {
            user: user()?,
            host: "127.0.0.1".to_owned(),
            port: self.port,
            key: self.path("client_key").display().to_string(),
            host_key: self.fingerprint()?,
        })
    }

    /// A key that this host does not know.
    pub fn other_key(&self) -> PathBuf {
        self.path("other_key")
    }

    /// From now on the system's `ssh` offers only the key that this host does not know.
    ///
    /// # Errors
    /// Of the file system.
    pub fn offer_the_wrong_key(&self) -> io::Result<()> {
        let config = fs::read_to_string(self.config())?;
        fs::write(self.config(), config.replace("client_key", "other_key"))
    }

    /// From now on the system's `ssh` knows no key of this host.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget_host_key(&self) -> io::Result<()> {
        fs::write(self.path("known_hosts"), "")
    }

    /// The machine is installed anew: the same address presents another host key.
    ///
    /// # Errors
    /// Of the file system, or where sshd does not start again.
    pub fn change_host_key(&mut self) -> io::Result<()> {
        self.stop();
        fs::remove_file(self.path("host_key"))?;
        self.generate("host_key")?;
        self.serve()
    }

    /// Every session's command is `script` instead; what was asked for is in SSH_ORIGINAL_COMMAND.
    ///
    /// # Errors
    /// Of the file system.
    pub fn force(&self, script: &str) -> io::Result<()> {
        let path = self.path("forced");
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let key = fs::read_to_string(self.path("client_key.pub"))?;
        fs::write(self.path("authorized_keys"), format!("command=\"{}\" {key}", path.display()))
    }

    /// Ends the server and every session.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        for session in children(server.id()) {
            kill(session);
        }
        let _ = server.kill();
        let _ = server.wait();
    }

    /// Ends every session and leaves the server: a cut cable.
    pub fn cut(&self) {
        for session in self.server.iter().flat_map(|server| children(server.id())) {
            kill(session);
        }
    }

    /// Starts the server again.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&mut self) -> io::Result<()> {
        // Its separation folder, which a machine without a running sshd may lack.
        fs::create_dir_all("/run/sshd")?;
        let mut server = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = server.stderr.take().ok_or_else(|| io::Error::other("sshd has no stderr"))?;
        self.server = Some(server);
        let mut lines = BufReader::new(said).lines();
        for line in lines.by_ref() {
            if line?.contains("Server listening") {
                // Read on, or a full pipe would stop the server.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(());
            }
        }
        Err(io::Error::other("sshd ended before it listened"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn generate(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path)).map(drop)
    }

    fn fingerprint(&self) -> io::Result<String> {
        let said = run(Command::new("ssh-keygen").arg("-lf").arg(self.path("host_key.pub")))?;
        said.split_whitespace().nth(1).map(str::to_owned).ok_or_else(|| io::Error::other("ssh-keygen says no fingerprint"))
    }

    fn trust_host_key(&self) -> io::Result<()> {
        let key = fs::read_to_string(self.path("host_key.pub"))?;
        fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{} {key}", self.port))
    }

    fn write_configurations(&self) -> io::Result<()> {
        let at = |name: &str| self.path(name).display().to_string();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             SetEnv HOME={home}\nLogLevel INFO\n",
            port = self.port,
            host_key = at("host_key"),
            authorized = at("authorized_keys"),
            home = at("home"),
        );
        fs::write(self.path("sshd_config"), server)?;
        let client = format!(
            "Host box\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  IdentityAgent none\n\
             \x20 UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
            port = self.port,
            user = user()?,
            key = at("client_key"),
            known = at("known_hosts"),
        );
        fs::write(self.config(), client)
    }
}

impl Drop for TestSshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn user() -> io::Result<String> {
    run(Command::new("id").arg("-un")).map(|name| name.trim().to_owned())
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// The children of a process, and sshd's own children of those.
fn children(of: u32) -> Vec<i32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let direct = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let mut all = Vec::new();
    for child in direct.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
        all.extend(i32::try_from(child));
        all.extend(children(child));
    }
    all
}

fn kill(process: i32) {
    if let Some(process) = rustix::process::Pid::from_raw(process) {
        // An error means that it has ended by itself.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
}
