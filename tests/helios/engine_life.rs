//! The engine starts by itself, is one, leaves, is killed and replaced.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::harness::{User, ended, finish, is_running, wait_until};

#[test]
fn the_first_command_starts_an_engine_that_only_its_user_can_reach() {
    let user = User::new();
    let root = user.repository("work");
    let pid = user.engine().expect("an engine stays");
    user.ok(&root, &["status"]);
    assert_eq!(user.engine(), Some(pid), "the second command uses the same one");
    let mode = |name: &str| fs::metadata(user.place().join(name)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("engine.sock")), (0o700, 0o600));
}

#[test]
fn of_many_engines_that_start_at_once_one_stays_and_all_clients_are_served() {
    let user = User::new();
    let clients: Vec<_> = (0..12)
        .map(|_| {
            // Only to look at an engine starts none.
            user.program("sh", &user.path("home"))
                .args(["-c", "helios version >/dev/null && helios --json engine status"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("started")
        })
        .collect();
    let mut pids: Vec<Value> = Vec::new();
    for client in clients {
        let output = client.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(status["stays"], true);
        pids.push(status["pid"].clone());
    }
    pids.dedup();
    assert_eq!(pids, vec![json!(user.engine().expect("one stays"))]);
}

#[test]
fn an_engine_leaves_when_it_is_idle_and_when_it_is_told() {
    let user = User::new();
    let root = user.repository("work");
    let first = user.engine().expect("one stays");
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine leaves when told", || !is_running(first));
    assert!(!user.place().join("engine.sock").exists(), "its socket goes with it");
    // Who only looks, or stops what does not run, starts none.
    assert_eq!(user.ok(&root, &["engine", "status"]), "no engine runs: a command that needs one starts it\n");
    let status: Value = serde_json::from_str(&user.ok(&root, &["--json", "-C", ".", "engine", "status"])).expect("JSON");
    assert_eq!((&status["stays"], &status["pid"]), (&json!(false), &Value::Null), "{status}");
    assert_eq!(user.ok(&root, &["engine", "stop", "--json"]), "{\"stopping\":false}\n");
    assert_eq!(user.engine(), None);
    let mut command = user.helios(&root, &["status"]);
    assert_eq!(ended(command.env("HELIOS_ENGINE_IDLE", "1s")).code, 0);
    let second = user.engine().expect("one stays");
    wait_until("the engine leaves when idle", || !is_running(second));
}

#[test]
fn a_program_that_is_connected_and_asks_nothing_keeps_no_engine_and_no_store() {
    let user = User::new();
    let root = user.repository("work");
    let mut program = crate::harness::Program::new(&user);
    program.ok(json!({"op": "open", "path": root}));
    let engine = user.engine().expect("one stays");
    let stopped = std::time::Instant::now();
    user.ok(&root, &["engine", "stop"]);
    user.commit(&root, "f", "1");
    assert!(!is_running(engine));
    // A leaving engine waits half a minute for commands that run.
    assert!(stopped.elapsed() < std::time::Duration::from_secs(15), "it waited for a program that asks nothing");
}

#[test]
fn commands_that_come_while_the_engine_leaves_are_done_by_the_next() {
    let user = User::new();
    let root = user.repository("work");
    let codes = thread::scope(|scope| {
        let agents: Vec<_> = (0..6)
            .map(|agent| {
                let (user, root) = (&user, &root);
                scope.spawn(move || {
                    let command: &[&str] = if agent == 0 { &["engine", "stop"] } else { &["rev-parse", "--abbrev-ref", "HEAD"] };
                    (0..12).map(|_| user.run(root, command)).filter(|ended| ended.code != 0).collect::<Vec<_>>()
                })
            })
            .collect();
        agents.into_iter().flat_map(|agent| agent.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert_eq!(codes, Vec::new());
}

#[test]
fn whoever_starts_the_engine_does_not_wait_for_its_end() {
    let user = User::new();
    // A shell that leaves a pipe open in an odd place sees its end as soon as the client is gone.
    let mut shell = user.program("sh", &user.path("home"));
    let ended = ended(shell.args(["-c", "helios version 5>&1 6>&2 | cat"]));
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(user.engine().is_some());
}

#[test]
fn where_no_engine_can_be_reached_the_command_is_done_all_the_same() {
    let user = User::new();
    let root = user.repository("work");
    fs::write(root.join("a"), "1").expect("written");
    // The engine has the store, and lets it go for whoever waits.
    let mut alone = user.helios(&root, &["commit", "--work", ".", "-m", "alone"]);
    let ended_alone = ended(alone.env("HELIOS_NO_ENGINE", "1"));
    assert_eq!(ended_alone.code, 0, "{}", ended_alone.err);
    assert!(!ended_alone.err.contains("locked"), "{}", ended_alone.err);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 1);
    // A runtime folder that nobody can write to: no engine, and no failure.
    let mut sandboxed = user.helios(&root, &["status", "--porcelain"]);
    let ended = ended(sandboxed.env("XDG_RUNTIME_DIR", "/proc").env("HELIOS_ENGINE_IDLE", "1s"));
    assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{}", ended.err);
}

#[test]
fn a_home_and_a_runtime_folder_that_cannot_be_written_are_in_nobodys_way() {
    let user = User::new();
    let root = user.repository("work");
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
    let sandboxed = |arguments: &[&str]| {
        let mut command = user.helios(&root, arguments);
        // Not even root can write there.
        let ended = ended(command.env("HOME", "/proc").env("XDG_RUNTIME_DIR", "/proc"));
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "helios {arguments:?}: {}", ended.out);
        ended.out
    };
    for number in 0..3 {
        fs::write(root.join("f"), format!("{number}")).expect("written");
        sandboxed(&["commit", "-q", "--work", ".", "-m", &format!("{number}")]);
    }
    sandboxed(&["reset", "-q", "--hard", "HEAD~1"]);
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "1");
    assert_eq!(sandboxed(&["log", "--oneline"]).lines().count(), 2);
    sandboxed(&["gc"]);
    assert!(user.engine().is_none(), "all of it was done without an engine");
    assert!(sandboxed(&["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn two_engines_that_want_one_repository_take_turns() {
    let (one, other) = (User::new(), User::new());
    let root = one.repository("work");
    let made = thread::scope(|scope| {
        let commits: Vec<_> = [&one, &other]
            .into_iter()
            .enumerate()
            .map(|(who, user)| {
                let root = &root;
                scope.spawn(move || {
                    (0..6)
                        .map(|number| {
                            let file = format!("f{who}");
                            fs::write(root.join(&file), format!("{number}")).expect("written");
                            let told = user.ok(root, &["--json", "commit", "--work", &file]);
                            let told: Value = serde_json::from_str(&told).expect("JSON");
                            told["snapshot"].as_str().expect("an id").to_owned()
                        })
                        .collect::<Vec<String>>()
                })
            })
            .collect();
        commits.into_iter().flat_map(|commits| commits.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert!(one.engine().is_some() && other.engine().is_some() && one.engine() != other.engine());
    let log = other.ok(&root, &["--json", "log"]);
    assert_eq!((log.lines().count(), made.iter().filter(|id| log.contains(id.as_str())).count()), (12, 12));
    assert!(one.ok(&root, &["fsck"]).ends_with("everything is sound\n"));
}

#[test]
fn who_watches_does_not_keep_the_store_from_others() {
    let user = User::new();
    let root = user.repository("work");
    let mut watch = user.helios_of_a_terminal(&root, &["watch", "--since", "0"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut events = BufReader::new(watch.stdout.take().expect("piped"));
    let mut event = String::new();
    events.read_line(&mut event).expect("read");
    let mut alone = user.helios(&root, &["commit", "--allow-empty", "-m", "alone"]);
    let ended = ended(alone.env("HELIOS_NO_ENGINE", "1"));
    assert_eq!(ended.code, 0, "{}", ended.err);
    event.clear();
    events.read_line(&mut event).expect("read");
    assert!(event.contains("alone"), "{event}");
    crate::harness::signal(watch.id(), "INT");
    assert!(!watch.wait().expect("it ends").success());
}

#[test]
fn two_who_work_without_an_engine_wait_for_each_other() {
    let user = User::new();
    let root = user.repository("work");
    user.ok(&root, &["engine", "stop"]);
    let children: Vec<_> = (0..4)
        .map(|number| {
            let mut command = user.helios(&root, &["commit", "-q", "--allow-empty", "-m", &format!("{number}")]);
            command.env("HELIOS_NO_ENGINE", "1").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
        })
        .collect();
    children.into_iter().for_each(|child| finish(child, "a commit without an engine"));
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 4);
}

#[test]
fn a_store_that_somebody_else_has_is_waited_for_with_a_word_after_a_second() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "a", "1");
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
    let lock = fs::File::options().write(true).open(root.join(".helios/store/lock")).expect("opened");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let mut waiting =
        user.helios(&root, &["log", "--oneline"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut word = String::new();
    let mut told = BufReader::new(waiting.stderr.take().expect("piped"));
    told.read_line(&mut word).expect("read");
    assert!(word.starts_with("waiting for another process that has ") && !word.contains("locked"), "{word}");
    drop(lock);
    let output = waiting.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

#[test]
fn one_that_was_killed_while_it_waited_takes_the_store_from_nobody() {
    let user = User::new();
    let (root, other) = (user.repository("work"), user.repository("other"));
    user.ok(&root, &["engine", "stop"]);
    wait_until("the engine has left", || user.engine().is_none());
    let lock = fs::File::options().write(true).open(root.join(".helios/store/lock")).expect("opened");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let mut waiting = user.helios(&root, &["status"]);
    let mut waiting = waiting.env("HELIOS_NO_ENGINE", "1").stderr(Stdio::piped()).spawn().expect("started");
    let mut word = String::new();
    BufReader::new(waiting.stderr.take().expect("piped")).read_line(&mut word).expect("read");
    assert!(word.starts_with("waiting for another process"), "{word}");
    waiting.kill().expect("killed");
    waiting.wait().expect("it ends");
    drop(lock);
    user.ok(&root, &["status"]);
    // The engine looks at all that is open at once; when it has let go of the other one twice, it has surely looked at this one.
    for _ in 0..2 {
        user.ok(&other, &["status"]);
        assert_eq!(ended(user.helios(&other, &["status"]).env("HELIOS_NO_ENGINE", "1")).code, 0);
    }
    let status: Value = serde_json::from_str(&user.ok(&root, &["--json", "engine", "status"])).expect("JSON");
    assert_eq!(status["repositories"], json!([root.canonicalize().expect("it is there")]));
}

#[test]
fn an_engine_that_was_killed_is_replaced_and_nothing_acknowledged_is_gone() {
    let user = User::new();
    let root = user.repository("work");
    let snapshot = user.commit(&root, "a", "1");
    user.kill_engine();
    assert_eq!(user.ok(&root, &["rev-parse", "HEAD"]).trim(), snapshot);
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn a_client_of_another_protocol_is_told_so_and_a_newer_one_gets_a_newer_engine() {
    let user = User::new();
    user.repository("work");
    let greet = |hello: Value| -> Value {
        let mut stream = UnixStream::connect(user.place().join("engine.sock")).expect("connected");
        writeln!(stream, "{hello}").expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("answered");
        serde_json::from_str(&line).expect("JSON")
    };
    let refused = greet(json!({"helios": 0, "release": "0.0.1"}));
    assert_eq!(refused["error"]["code"], "version_mismatch");
    assert_eq!(greet(json!({"hello": 1}))["error"]["code"], "invalid_request");
    let pid = user.engine().expect("one stays");
    // While another session is at its end the engine still serves the newer client.
    wait_until("the older engine makes room", || greet(json!({"helios": 1, "release": "99.0.0"}))["leaving"] == true);
    wait_until("the older engine leaves", || !is_running(pid));
}

#[test]
fn a_socket_without_an_engine_behind_it_is_replaced() {
    let user = User::new();
    let place = user.place();
    fs::create_dir(&place).expect("made");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("set");
    drop(UnixListener::bind(place.join("engine.sock")).expect("bound"));
    user.repository("work");
    assert!(user.engine().is_some());
}

#[test]
fn a_folder_that_others_can_enter_is_not_trusted() {
    let user = User::new();
    fs::create_dir(user.place()).expect("made");
    fs::set_permissions(user.place(), fs::Permissions::from_mode(0o777)).expect("set");
    user.repository("work");
    assert!(user.engine().is_none(), "the command was done without an engine");
}

#[test]
fn another_user_is_hung_up_on_also_where_they_reach_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return crate::not_run::not_run("another user's client", "only root can be another user");
    }
    let user = User::new();
    let root = user.repository("work");
    let socket = user.place().join("engine.sock");
    for path in socket.ancestors().take_while(|path| path.starts_with(user.path(""))) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("set");
    }
    // perl is there wherever git is, and everybody can run it.
    let client = "use Socket; my $s; socket($s, PF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un($ARGV[0])) or die $!;
        $SIG{PIPE} = 'IGNORE'; syswrite($s, qq({\"helios\": 1}\\n)); print scalar(<$s>) // 'nothing'";
    let ask = |uid: u32| ended(user.program("perl", Path::new("/")).args(["-e", client]).arg(&socket).uid(uid).gid(uid));
    let (own, other) = (ask(0), ask(65534));
    assert!(own.code == 0 && own.out.contains("\"helios\":1"), "{own:?}");
    assert_eq!((other.code, other.out.as_str()), (0, "nothing"), "{}", other.err);
    fs::set_permissions(user.place(), fs::Permissions::from_mode(0o700)).expect("set");
    user.commit(&root, "f", "1");
}

#[test]
fn ctrl_c_ends_a_command_and_leaves_the_engine_and_the_queue_in_order() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "a", "1");
    let mut watch = user.helios_of_a_terminal(&root, &["watch"]).stdout(Stdio::piped()).spawn().expect("started");
    // The first ones may come before the terminal's way with the signal is taken up.
    wait_until("it ends", || {
        crate::harness::signal(watch.id(), "INT");
        watch.try_wait().expect("it can be asked").is_some_and(|status| !status.success())
    });
    user.commit(&root, "a", "2");
}

#[test]
fn requests_are_answered_one_after_the_other_with_their_ids() {
    let user = User::new();
    let root = user.repository("work");
    let stream = UnixStream::connect(user.place().join("engine.sock")).expect("connected");
    let mut writer = stream.try_clone().expect("cloned");
    let reader = thread::spawn(move || {
        BufReader::new(stream)
            .lines()
            .take(5)
            .map(|line| serde_json::from_str(&line.expect("read")).expect("JSON"))
            .collect::<Vec<Value>>()
    });
    writeln!(writer, "{}", json!({"helios": 1})).expect("sent");
    writeln!(writer, "{}", json!({"id": 1, "op": "run", "argv": ["rev-parse", "--abbrev-ref", "HEAD"], "cwd": root}))
        .expect("sent");
    writeln!(writer, "nonsense").expect("sent");
    writeln!(writer, "{}", json!({"id": "x", "op": "fly"})).expect("sent");
    let lines = reader.join().expect("it ends");
    assert_eq!(lines[0]["helios"], 1);
    assert_eq!((&lines[1], &lines[2]), (&json!({"id": 1, "stdout": "main\n"}), &json!({"id": 1, "exit": 0})));
    assert_eq!(lines[3]["error"]["code"], "invalid_request");
    assert_eq!((&lines[4]["id"], &lines[4]["error"]["code"]), (&json!("x"), &json!("invalid_request")));
}
