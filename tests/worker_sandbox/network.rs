//! What is spoken to from within: the machine's network, its sockets, and own ones.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_protocol::{Isolation, Network};

use super::{Home, Space, able};
use crate::worker_bench::Bench;

const OWN_LOOPBACK: &str = r#"
import socket, threading
for kind, family, host in [(socket.SOCK_STREAM, socket.AF_INET, "127.0.0.1"), (socket.SOCK_DGRAM, socket.AF_INET, "127.0.0.1"), (socket.SOCK_STREAM, socket.AF_INET6, "::1")]:
    s = socket.socket(family, kind); s.bind((host, 0))
    if kind == socket.SOCK_STREAM: s.listen()
    c = socket.socket(family, kind); c.connect(s.getsockname()); c.send(b"hello")
    got = (s.accept()[0] if kind == socket.SOCK_STREAM else s).recv(5)
    assert got == b"hello", got
print("works")
"#;

#[tokio::test]
async fn without_a_grant_the_machines_network_is_not_there_and_an_own_loopback_is() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    assert!(able(&node).namespaces, "this machine has no unprivileged namespaces: {}", able(&node));
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").expect("a port"), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let (tcp_port, udp_port) = (tcp.local_addr().expect("bound").port(), udp.local_addr().expect("bound").port());
    udp.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    let connect = format!("import socket; socket.create_connection((\"127.0.0.1\", {tcp_port}), 2)");
    let send =
        format!("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b\"x\", (\"127.0.0.1\", {udp_port}))");
    let (code, said) = space.python(&connect).await;
    assert!(code != 0 && said.contains("refused"), "{said}");
    // A child's child, too.
    space.fails(&format!("setsid -w sh -c \"python3 -c '{}'\"", connect.replace('"', "\\\""))).await;
    space.python(&send).await;
    assert!(udp.recv(&mut [0; 8]).is_err(), "a datagram came through");
    let (code, said) = space.python("import socket; socket.create_connection((\"192.0.2.1\", 80), 2)").await;
    assert!(code != 0 && said.contains("unreachable"), "{said}");
    for family in ["AF_PACKET", "AF_VSOCK", "AF_ALG"] {
        let (code, said) = space.python(&format!("import socket; socket.socket(socket.{family}, socket.SOCK_STREAM)")).await;
        assert!(code != 0, "{family}: {said}");
    }
    std::fs::write(bench.root(space.task).join("own.py"), OWN_LOOPBACK).expect("written");
    assert_eq!(space.succeeds("python3 own.py 2>&1").await, "works\n");
    // With a grant it is the machine's.
    let granted = Space::at(&node, Isolation::Workspace, Network::Host).await;
    assert_eq!(granted.python(&connect).await.0, 0);
    granted.python(&send).await;
    assert_eq!(udp.recv(&mut [0; 8]).expect("a datagram"), 1);
}

#[tokio::test]
async fn sockets_of_the_machine_cannot_be_spoken_to_and_own_ones_can() {
    let home = Home::new();
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    let path = home.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).expect("bound");
    let space = Space::at(&node, Isolation::Workspace, Network::Host).await;
    let (code, said) = space.python(&format!("import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")", path.display())).await;
    assert_ne!(code, 0, "{said}");
    let own = "import socket; s = socket.socket(socket.AF_UNIX); s.bind(\"own.sock\"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect(\"own.sock\"); print(\"works\")";
    let (_, said) = space.python(own).await;
    assert_eq!(said == "works\n", able(&node).namespaces || able(&node).landlock >= 9, "{said}");
}

#[tokio::test]
async fn sockets_that_go_while_a_sandbox_is_made_are_in_nobodys_way() {
    // Not below `/tmp`, of which a sandbox has its own.
    let (home, bench) = (Home::new(), Bench::start());
    let node = bench.connect(1).await;
    let sockets: Vec<PathBuf> = (0..50).map(|number| home.path().join(format!("{number}.sock"))).collect();
    let ends = Arc::new(AtomicBool::new(false));
    let come_and_go = std::thread::spawn({
        let ends = Arc::clone(&ends);
        move || {
            while !ends.load(Ordering::Relaxed) {
                let listen: Vec<_> = sockets.iter().map(|socket| UnixListener::bind(socket).expect("bound")).collect();
                sockets.iter().for_each(|socket| std::fs::remove_file(socket).expect("it is there"));
                drop(listen);
            }
        }
    });
    for _ in 0..30 {
        let space = Space::at(&node, Isolation::Workspace, Network::None).await;
        assert_eq!(space.run("true").await.0, 0);
    }
    ends.store(true, Ordering::Relaxed);
    come_and_go.join().expect("it ends");
}
