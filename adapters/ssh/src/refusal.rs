//! What is in the way, told from what programs say on stderr.

use helix_ports::{ConnectError, DeathProof};
use helix_protocol::{Code, Failure};

use crate::programs::STATIC;
use crate::shell::End;

/// The exit code with which the bridge proves that nobody listens and nobody holds the lock.
pub(crate) const DEAD: i32 = 20;

/// What `ssh` itself failed with (its exit code 255).
pub(crate) fn of_ssh(host: &str, stderr: &str) -> ConnectError {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let last = last_line(stderr);
    if says(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "differs from the key for the IP address"]) {
        return ConnectError::Refused(host_key_changed(host, "another one than the one recorded in known_hosts"));
    }
    if says(&["Host key verification failed", "host key is known for"]) {
        return ConnectError::Refused(
            Failure::new(Code::HostKeyUnknown, format!("the host key of {host} is not known"))
                .hint(format!("connect once by hand, `ssh {host}`, and check the fingerprint")),
        );
    }
    if says(&["Permission denied (", "Too many authentication failures", "No supported authentication methods"]) {
        return ConnectError::Refused(auth_failed(host, &last));
    }
    if says(&["Bad configuration option", "Bad owner or permissions", "no argument after keyword", "command-line line 0"]) {
        return ConnectError::Refused(
            Failure::new(Code::InvalidRequest, format!("ssh does not take its configuration for {host}: {last}"))
                .hint(format!("`ssh {host} true` shows the same; mend ~/.ssh/config")),
        );
    }
    let last = if last.is_empty() { "the connection ended".to_owned() } else { last };
    ConnectError::Unreachable(
        Failure::new(Code::WorkerUnreachable, format!("{host} cannot be reached: {last}"))
            .hint(format!("`ssh {host} true` shows the same; check name, port, ProxyJump and network")),
    )
}

/// SSH refused the login.
pub(crate) fn auth_failed(host: &str, reason: &str) -> Failure {
    Failure::new(Code::SshAuthFailed, format!("{host} refused the login: {reason}"))
        .hint("check the user, the key file and the agent: `ssh HOST true` must work without a password")
}

/// The host presents another key.
pub(crate) fn host_key_changed(host: &str, what: &str) -> Failure {
    Failure::new(Code::HostKeyChanged, format!("{host} presents a host key that is {what}")).hint(
        "check the fingerprint with the host's owner, then remove the old entry (`ssh-keygen -R HOST`) or add the worker again",
    )
}

/// What installing failed with on the host.
pub(crate) fn of_install(host: &str, machine: &str, end: &End) -> ConnectError {
    let says = |words: &[&str]| words.iter().any(|word| end.stderr.contains(word));
    let last = last_line(&end.stderr);
    let failed = |message: String, hint: &str| ConnectError::Refused(Failure::new(Code::InstallFailed, message).hint(hint));
    if says(&["No space left", "Disk quota exceeded"]) {
        return ConnectError::Refused(
            Failure::new(Code::DiskFull, format!("the disk of {host} is full: {last}"))
                .hint("free some space in the home folder there"),
        );
    }
    match end.status {
        Some(126) if says(&["Permission denied"]) => failed(
            format!("{host} does not let programs run from the home folder: {last}"),
            "its file system is probably mounted noexec; remount it",
        ),
        Some(126 | 2) if says(&["Exec format error", "cannot execute", "yntax error", "unexpected"]) => failed(
            format!("the worker program is not for {host}, which is {machine}: {last}"),
            "put helix-worker-ARCH of that architecture beside the others",
        ),
        Some(127) => failed(
            format!("the worker program does not start on {host}: the loader or a library it needs is missing: {last}"),
            STATIC,
        ),
        // What glibc's loader says where the program was made with a newer one (exit code 1).
        _ if says(&["version `GLIBC", "version `GLIBCXX"]) => {
            failed(format!("the worker program needs a newer libc than {host} has: {last}"), STATIC)
        }
        _ if says(&["Permission denied", "Read-only file system"]) => {
            failed(format!("the worker program cannot be written on {host}: {last}"), "the home folder must be writable")
        }
        None => of_ssh(host, &end.stderr),
        Some(status) => failed(
            format!("the worker program could not be put on {host} (exit code {status}): {last}"),
            "try the same by hand with ssh",
        ),
    }
}

/// What the worker program itself failed with.
pub(crate) fn of_worker(host: &str, verb: &str, end: &End) -> ConnectError {
    match end.status {
        Some(DEAD) => ConnectError::Dead(DeathProof::ConnectionRefused),
        None => of_ssh(host, &end.stderr),
        Some(126 | 127) => of_install(host, "of another kind", end),
        Some(status) => match told(&end.stderr) {
            Some(failure) => ConnectError::Refused(failure),
            None => {
                let last = last_line(&end.stderr);
                let message = format!("the worker on {host} could not be {verb} (exit code {status}): {last}");
                ConnectError::Unreachable(
                    Failure::new(Code::WorkerUnreachable, message).hint("its log in the worker's folder says more"),
                )
            }
        },
    }
}

/// The failure in a JSON line, where the program said one.
fn told(stderr: &str) -> Option<Failure> {
    stderr.lines().rev().find_map(|line| serde_json::from_str(line.trim()).ok())
}

/// The last line that says something.
pub(crate) fn last_line(text: &str) -> String {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: &ConnectError) -> String {
        match error {
            ConnectError::Dead(proof) => format!("dead {proof}"),
            ConnectError::Unreachable(failure) => format!("unreachable {}", failure.code),
            ConnectError::Refused(failure) => format!("refused {}", failure.code),
        }
    }

    #[test]
    fn what_ssh_says_is_told_apart() {
        let told = [
            "No ED25519 host key is known for box and you have requested strict checking.\nHost key verification failed.",
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "me@box: Permission denied (publickey).",
            "ssh: connect to host box port 22: Connection refused",
            "ssh: Could not resolve hostname box: Name or service not known",
            "kex_exchange_identification: Connection closed by remote host",
            "/home/me/.ssh/config: line 3: Bad configuration option: nonsense",
            "",
        ]
        .map(|stderr| code(&of_ssh("box", stderr)));
        assert_eq!(
            told,
            [
                "refused host_key_unknown",
                "refused host_key_changed",
                "refused ssh_auth_failed",
                "unreachable worker_unreachable",
                "unreachable worker_unreachable",
                "unreachable worker_unreachable",
                "refused invalid_request",
                "unreachable worker_unreachable",
            ]
        );
    }

    #[test]
    fn what_installing_meets_is_told_apart() {
        let met = |status, stderr: &str| {
            let end = End { status, stderr: stderr.to_owned() };
            match of_install("box", "riscv64", &end) {
                ConnectError::Refused(failure) => (failure.code, failure.message),
                other => panic!("{other:?}"),
            }
        };
        let full = met(Some(74), "cat: write error: No space left on device");
        assert_eq!(full.0, Code::DiskFull);
        let architecture = met(Some(126), "/bin/sh: 9: /p: Exec format error");
        assert!(architecture.1.contains("riscv64"), "{}", architecture.1);
        assert!(met(Some(127), "/bin/sh: 9: /p: not found").1.contains("loader"));
        let libc = "/p: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /p)";
        assert!(met(Some(1), libc).1.contains("a newer libc than box has"));
        assert!(met(Some(126), "/bin/sh: 9: /p: Permission denied").1.contains("does not let programs run"));
        assert!(met(Some(74), "mkdir: cannot create directory: Permission denied").1.contains("cannot be written"));
    }

    #[test]
    fn a_bridge_proves_death_by_its_exit_code_alone() {
        let end = |status| End { status, stderr: String::new() };
        assert_eq!(
            code(&of_worker("box", "reached", &end(Some(DEAD)))),
            "dead its socket refuses connections and its lock is free"
        );
        assert_eq!(code(&of_worker("box", "reached", &end(Some(1)))), "unreachable worker_unreachable");
        assert_eq!(code(&of_worker("box", "reached", &end(None))), "unreachable worker_unreachable");
        let told = End { status: Some(1), stderr: "{\"code\":\"disk_full\",\"message\":\"full\"}\n".to_owned() };
        assert_eq!(code(&of_worker("box", "started", &told)), "refused disk_full");
    }
}
