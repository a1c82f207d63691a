//! Claims about a connection as a whole, over an in-memory stream.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use helix_protocol::link::{
    Frame, Free, Heartbeat, HeartbeatAck, Hello, INITIAL_CREDIT, LeaseTimes, MAX_CHUNK, MAX_CONTROL_FRAME, Notice, Request,
    Response, Snapshotted, Welcome,
};
use helix_protocol::{Code, Failure, NodeId, ObjectId, Resources, RunId, Sandboxing, TaskId, WorkerFacts, WorkerId};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::codec::{decode, encode};
use crate::*;

const SOON: Duration = Duration::from_secs(5);

fn pair() -> (Link, Link) {
    let (node, worker) = tokio::io::duplex(256 * 1024);
    (open(node, Side::Node, Options::default()), open(worker, Side::Worker, Options::default()))
}

/// A worker's end whose bytes the test writes itself.
fn raw() -> (Link, DuplexStream) {
    let (node, worker) = tokio::io::duplex(16 * 1024 * 1024);
    (open(node, Side::Node, Options::default()), worker)
}

/// Answers pings until the connection ends.
fn answer_pings(mut link: Link) -> tokio::task::JoinHandle<Closed> {
    tokio::spawn(async move {
        loop {
            match link.incoming.next().await {
                Event::Request(asked) => asked.reply.send(Ok(Response::Pong)).await,
                Event::Closed(how) => return how,
                _ => {}
            }
        }
    })
}

async fn asked(link: &mut Link) -> Asked {
    match link.incoming.next().await {
        Event::Request(asked) => asked,
        other => panic!("a request was expected, and {other:?} came"),
    }
}

fn hello() -> Hello {
    let lease = LeaseTimes::default();
    Hello {
        oldest: 1,
        newest: 1,
        node: NodeId(uuid::Uuid::from_u128(1)),
        worker: WorkerId(uuid::Uuid::from_u128(2)),
        connection: 1,
        lease,
        others: Vec::new(),
    }
}

fn welcome() -> Welcome {
    let facts = WorkerFacts {
        os: "linux".into(),
        arch: "x86_64".into(),
        hostname: "host".into(),
        capabilities: Vec::new(),
        toolchains: Vec::new(),
        resources: Resources::default(),
        sandbox: Sandboxing::default(),
    };
    Welcome { version: 1, build: "1".into(), incarnation: 7, pid: 8, facts, holds: Vec::new() }
}

fn beat(sequence: u64) -> Heartbeat {
    Heartbeat { sequence, load: 0.5, memory_percent: 1, disk_percent: 2, free: Some(Free { memory_mib: 3, disk_mib: 4 }) }
}

fn samples() -> Vec<Frame> {
    let id = ObjectId([7; 32]);
    vec![
        Frame::Hello(hello()),
        Frame::Welcome(Ok(welcome())),
        Frame::Welcome(Err(Failure::new(Code::InvalidState, "busy"))),
        Frame::Heartbeat(beat(3)),
        Frame::HeartbeatAck(HeartbeatAck { sequence: 3 }),
        Frame::Request { id: 1, body: Request::Missing { objects: vec![id; 3] } },
        Frame::Request { id: 2, body: Request::Ping },
        Frame::Request {
            id: 3,
            body: Request::ReadOutput { run: RunId(uuid::Uuid::from_u128(5)), offset: 1, limit: 2, wait_ms: 3 },
        },
        Frame::Reply { id: 1, result: Ok(Response::Missing { objects: vec![id] }) },
        Frame::Reply { id: 2, result: Err(Failure::new(Code::StaleOwner, "no").hint("stop")) },
        Frame::Abandon { id: 9 },
        Frame::Bulk { stream: 1, data: Bytes::from_static(b"bytes") },
        Frame::BulkEnd { stream: 1 },
        Frame::BulkFailed { stream: 1, failure: Failure::new(Code::CorruptObject, "bad") },
        Frame::Credit { stream: 1, bytes: 5 },
        Frame::Notice(Notice::Fenced { frozen: true }),
    ]
}

#[test]
fn every_frame_is_read_as_it_was_written_wherever_the_bytes_are_cut() {
    for frame in samples() {
        let bytes = encode(&frame).expect("small");
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(decode(&mut buffer), Ok(None), "{frame:?} cut at {cut}");
            buffer.extend_from_slice(&bytes[cut..]);
            buffer.extend_from_slice(b"next");
            assert_eq!(decode(&mut buffer), Ok(Some(frame.clone())));
            assert_eq!(&buffer[..], b"next");
        }
    }
}

#[test]
fn a_chunk_above_the_limit_and_a_frame_with_a_rest_are_refused() {
    let code = |bytes: &[u8]| decode(&mut BytesMut::from(bytes)).expect_err("refused").code;
    let large = encode(&Frame::Bulk { stream: 1, data: vec![0; MAX_CHUNK + 1].into() }).expect("below the frame limit");
    assert_eq!(code(&large), Code::ProtocolError);
    let mut rest = BytesMut::from(&encode(&Frame::BulkEnd { stream: 1 }).expect("small")[..]);
    rest.put_u8(0xc0);
    let length = u32::try_from(rest.len() - 4).expect("small");
    rest[..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(code(&rest), Code::ProtocolError);
}

proptest! {
    #[test]
    fn garbage_is_refused_or_waited_for_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode(&mut buffer) {}
    }

    #[test]
    fn a_garbage_body_of_a_true_length_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let mut buffer = BytesMut::new();
        buffer.put_u32(u32::try_from(bytes.len()).expect("small"));
        buffer.extend_from_slice(&bytes);
        match decode(&mut buffer) {
            Err(failure) => prop_assert_eq!(failure.code, Code::ProtocolError),
            Ok(frame) => prop_assert!(frame.is_some()),
        }
    }

    #[test]
    fn one_flipped_bit_is_refused_or_gives_another_frame(which in 0..16usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let bytes = encode(&samples()[which]).expect("small");
        let mut damaged = BytesMut::from(&bytes[..]);
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        if let Err(failure) = decode(&mut damaged) {
            prop_assert_eq!(failure.code, Code::ProtocolError);
        }
    }

    #[test]
    fn a_garbage_stream_of_objects_ends_in_a_failure_or_in_whole_objects(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (node, worker) = pair();
            let mut writer = worker.handle.open_bulk();
            let reader = node.handle.receive_objects(writer.stream());
            for chunk in chunks {
                writer.write(chunk.into()).await.expect("open");
            }
            writer.finish().await.expect("open");
            match reader.collect_all().await {
                Ok(_) => {}
                Err(failure) => assert_eq!(failure.code, Code::ProtocolError),
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_at_any_byte_ends_cleanly_only_at_a_frames_border() {
    let mut stream = Vec::new();
    let mut borders = vec![0];
    for frame in
        [Frame::Heartbeat(beat(1)), Frame::Notice(Notice::Fenced { frozen: true }), Frame::Bulk { stream: 1, data: "x".into() }]
    {
        stream.extend_from_slice(&encode(&frame).expect("small"));
        borders.push(stream.len());
    }
    for cut in 0..=stream.len() {
        let (mut link, mut far) = raw();
        far.write_all(&stream[..cut]).await.expect("room");
        drop(far);
        let how = loop {
            if let Event::Closed(how) = link.incoming.next().await {
                break how;
            }
        };
        match how {
            Closed::Remote => assert!(borders.contains(&cut), "cut at {cut}"),
            Closed::Failed(failure) => assert_eq!((failure.code, borders.contains(&cut)), (Code::ProtocolError, false)),
            Closed::Local => panic!("nobody closed it here"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn readable_text_instead_of_a_frame_is_quoted() {
    let (node, mut far) = tokio::io::duplex(1024);
    far.write_all(b"Welcome to example.org\n").await.expect("room");
    let failure = connect_as_node(node, hello(), Options::default()).await.err().expect("refused");
    assert_eq!(failure.code, Code::ProtocolError);
    assert!(failure.message.contains("Welcome to example.org"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn node_and_worker_shake_hands_and_a_peer_that_says_nothing_is_left() {
    let (node, worker) = tokio::io::duplex(64 * 1024);
    let accept = tokio::spawn(async move {
        let greeting = accept_as_worker(worker, Options::default()).await.expect("hello");
        assert_eq!((greeting.hello(), greeting.version()), (&hello(), Ok(1)));
        greeting.welcome(welcome()).await.expect("written")
    });
    let (link, answer) = connect_as_node(node, hello(), Options::default()).await.expect("welcome");
    assert_eq!(answer, welcome());
    let worker = answer_pings(accept.await.expect("accepted"));
    assert_eq!(link.handle.request(Request::Ping, SOON).await, Ok(Response::Pong));
    drop(link);
    assert_eq!(worker.await.expect("no panic"), Closed::Remote);

    let (node, _silent) = tokio::io::duplex(1024);
    let failure = connect_as_node(node, hello(), Options::default()).await.err().expect("nobody answers");
    assert_eq!(failure.code, Code::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_worker_turns_a_node_away_with_its_reason_and_without_a_common_version() {
    let (node, worker) = tokio::io::duplex(64 * 1024);
    let newer = Hello { oldest: 40, newest: 41, ..hello() };
    tokio::spawn(async move {
        let greeting = accept_as_worker(worker, Options::default()).await.expect("hello");
        let failure = greeting.version().expect_err("none in common");
        greeting.refuse(failure).await.expect("written");
    });
    let failure = connect_as_node(node, newer, Options::default()).await.err().expect("refused");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::VersionMismatch, "the node speaks link versions 40 to 41, and this worker 1 to 1")
    );
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_requests_in_any_order() {
    let (node, mut worker) = pair();
    let first = node.handle.request(Request::Ping, SOON);
    let second = node.handle.request(Request::Inspect, SOON);
    let answers = async {
        let (one, two) = (asked(&mut worker).await, asked(&mut worker).await);
        two.reply.send(Ok(Response::Closed)).await;
        one.reply.send(Ok(Response::Pong)).await;
    };
    let (first, second, ()) = tokio::join!(first, second, answers);
    assert_eq!((first, second), (Ok(Response::Pong), Ok(Response::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_times_out_or_is_dropped_is_abandoned_over_there() {
    let (node, mut worker) = pair();
    let (failure, late) = tokio::join!(node.handle.request(Request::Ping, SOON), asked(&mut worker));
    assert_eq!(failure.expect_err("nobody answers").code, Code::TimedOut);
    late.reply.abandoned().await;
    assert!(late.reply.is_abandoned());

    let handle = node.handle.clone();
    let asking = tokio::spawn(async move { handle.request(Request::Ping, SOON).await });
    let dropped = asked(&mut worker).await;
    asking.abort();
    dropped.reply.abandoned().await;
    // An answer after all harms nobody.
    dropped.reply.send(Ok(Response::Pong)).await;
    late.reply.send(Ok(Response::Pong)).await;
    let next = node.handle.request(Request::Ping, SOON);
    let (answer, ()) = tokio::join!(next, async { asked(&mut worker).await.reply.send(Ok(Response::Pong)).await });
    assert_eq!(answer, Ok(Response::Pong));
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_unanswered_says_so_and_one_too_large_is_refused_here() {
    let (node, mut worker) = pair();
    let (answer, ()) = tokio::join!(node.handle.request(Request::Ping, SOON), async { drop(asked(&mut worker).await) });
    assert_eq!(answer.expect_err("dropped").code, Code::Internal);

    let objects = vec![ObjectId([1; 32]); MAX_CONTROL_FRAME / 32];
    let refused = node.handle.request(Request::Missing { objects: objects.clone() }, SOON).await;
    assert_eq!(refused.expect_err("too large").code, Code::InvalidRequest);

    let answer = async { asked(&mut worker).await.reply.send(Ok(Response::Missing { objects })).await };
    let (refused, ()) = tokio::join!(node.handle.request(Request::Ping, SOON), answer);
    assert_eq!(refused.expect_err("too large").code, Code::InvalidRequest);
    assert!(!node.handle.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_answers_every_waiting_request() {
    let (node, mut worker) = pair();
    let cut = async {
        let asked = asked(&mut worker).await;
        worker.handle.abort();
        assert_eq!(worker.handle.closed().await, Closed::Local);
        asked.reply.send(Ok(Response::Pong)).await;
    };
    let (answer, ()) = tokio::join!(node.handle.request(Request::Ping, SOON), cut);
    assert_eq!(answer.expect_err("cut").code, Code::WorkerUnreachable);
    assert_eq!(node.handle.closed().await, Closed::Remote);
    assert_eq!(node.handle.request(Request::Ping, SOON).await.expect_err("closed").code, Code::WorkerUnreachable);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_written_before_a_close() {
    let (node, mut worker) = pair();
    let leave = async {
        let asked = asked(&mut worker).await;
        asked.reply.send(Ok(Response::Stopping)).await;
        worker.handle.close();
    };
    let (answer, ()) = tokio::join!(node.handle.request(Request::Stop { wipe: false }, SOON), leave);
    assert_eq!(answer, Ok(Response::Stopping));
    assert_eq!(node.handle.closed().await, Closed::Remote);
}

#[tokio::test(start_paused = true)]
async fn any_frame_proves_life() {
    let (node, worker) = pair();
    tokio::time::advance(SOON).await;
    assert_eq!(node.handle.silent_for(), SOON);
    worker.handle.notify(Notice::Fenced { frozen: true }).await.expect("open");
    let Link { handle, mut incoming } = node;
    assert!(matches!(incoming.next().await, Event::Notice(Notice::Fenced { frozen: true })));
    assert_eq!(handle.silent_for(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn objects_of_every_size_arrive_as_they_were_sent_and_control_frames_pass_them() {
    let (node, mut worker) = pair();
    let sizes = [0, 1, 100, MAX_CHUNK - 36, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 5 * 1024 * 1024];
    let objects: Vec<_> =
        sizes.iter().enumerate().map(|(at, size)| (ObjectId([at as u8; 32]), Bytes::from(vec![at as u8; *size]))).collect();
    let total: u64 = sizes.iter().map(|size| *size as u64).sum();
    let receive = async {
        let asked = asked(&mut worker).await;
        let Request::Store { stream } = asked.body else { panic!("store was expected, not {:?}", asked.body) };
        let mut reader = worker.handle.receive_objects(stream);
        let mut got = vec![reader.next().await.expect("one").expect("whole")];
        // The stream is stuck at its credit by now; a heartbeat is not.
        worker.handle.heartbeat(beat(1)).await.expect("open");
        while let Some(object) = reader.next().await {
            got.push(object.expect("whole"));
        }
        asked.reply.send(Ok(Response::Stored { objects: got.len() as u64, bytes: total })).await;
        got
    };
    let (stored, got) = tokio::join!(node.handle.store(objects.clone(), SOON), receive);
    assert_eq!((stored, got), (Ok((8, total)), objects));
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_credit_and_a_dropped_reader_lets_it_finish() {
    let (node, worker) = pair();
    let mut writer = worker.handle.open_bulk();
    let mut reader = node.handle.receive_bulk(writer.stream());
    let credit = INITIAL_CREDIT as usize;
    writer.write(vec![1; credit].into()).await.expect("within the credit");
    let mut more = Box::pin(writer.write(vec![2; credit].into()));
    assert!(tokio::time::timeout(SOON, &mut more).await.is_err(), "it went beyond its credit");
    assert_eq!(reader.next().await, Some(Ok(Bytes::from(vec![1; MAX_CHUNK]))));
    drop(reader);
    more.await.expect("the rest is drained");
    writer.finish().await.expect("open");
    assert!(!node.handle.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_given_up_by_its_sender_is_known_to_be_incomplete() {
    let (node, worker) = pair();
    let mut writer = worker.handle.send_objects();
    let reader = node.handle.receive_objects(writer.stream());
    writer.write(ObjectId([1; 32]), "whole".into()).await.expect("open");
    drop(writer);
    assert_eq!(reader.collect_all().await.expect_err("incomplete").code, Code::Cancelled);

    let mut writer = worker.handle.open_bulk();
    let reader = node.handle.receive_objects(writer.stream());
    writer.write(vec![1; 20].into()).await.expect("open");
    writer.finish().await.expect("open");
    assert_eq!(reader.collect_all().await.expect_err("cut").code, Code::ProtocolError);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_its_credit_or_its_streams_ends_is_cut_off() {
    let chunk = |data: Vec<u8>| Frame::Bulk { stream: 1, data: data.into() };
    let over: Vec<Frame> = (0..=INITIAL_CREDIT as usize / MAX_CHUNK).map(|_| chunk(vec![0; MAX_CHUNK])).collect();
    let after = vec![Frame::BulkEnd { stream: 1 }, chunk(vec![0])];
    let unknown: Vec<Frame> = (0..100).map(|stream| Frame::Bulk { stream, data: "x".into() }).collect();
    let twice = vec![Frame::Hello(hello())];
    for frames in [over, after, unknown, twice] {
        let (link, mut far) = raw();
        for frame in &frames {
            far.write_all(&encode(frame).expect("small")).await.expect("room");
        }
        match link.handle.closed().await {
            Closed::Failed(failure) => assert_eq!(failure.code, Code::ProtocolError),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_admitted_number_are_answered_overloaded() {
    let (node, worker) = tokio::io::duplex(256 * 1024);
    let node = open(node, Side::Node, Options::default());
    let worker = open(worker, Side::Worker, Options { event_queue: 2, ..Options::default() });
    let asking = (0..5).map(|_| node.handle.request(Request::Ping, SOON));
    let answers = futures::future::join_all(asking).await;
    let codes: Vec<Code> = answers.into_iter().map(|answer| answer.expect_err("nobody answers").code).collect();
    assert_eq!(codes, [Code::TimedOut, Code::TimedOut, Code::Overloaded, Code::Overloaded, Code::Overloaded]);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn the_objects_of_an_answer_nobody_waits_for_are_thrown_away() {
    let (node, mut worker) = pair();
    let since = ObjectId([0; 32]);
    let body =
        Request::Snapshot { task: TaskId(uuid::Uuid::from_u128(1)), epoch: helix_protocol::Epoch(1), since, artifacts: Vec::new() };
    let handle = node.handle.clone();
    let asking = tokio::spawn(async move { handle.request(body, SOON).await });
    let asked = asked(&mut worker).await;
    let mut writer = worker.handle.open_bulk();
    let stream = Some(writer.stream());
    asked
        .reply
        .send(Ok(Response::Snapshotted(Snapshotted {
            tree: since,
            changes: Vec::new(),
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            stream,
            bytes: 0,
            logical_bytes: 0,
            confinement: None,
        })))
        .await;
    asking.abort();
    // More than its credit, so it ends only if the other side takes it.
    writer.write(vec![1; 3 * INITIAL_CREDIT as usize].into()).await.expect("drained");
    writer.finish().await.expect("open");
}

#[tokio::test]
async fn thousands_of_small_requests_pass_each_second() {
    let (node, worker) = pair();
    answer_pings(worker);
    let start = std::time::Instant::now();
    let asking = (0..64).map(|_| async {
        for _ in 0..50 {
            assert_eq!(node.handle.request(Request::Ping, SOON).await, Ok(Response::Pong));
        }
    });
    futures::future::join_all(asking).await;
    let rate = 3200.0 / start.elapsed().as_secs_f64();
    println!("{rate:.0} requests a second");
    assert!(rate > 1000.0, "{rate:.0} requests a second");
}

#[tokio::test(start_paused = true)]
async fn an_endless_length_is_refused_before_anything_is_kept_for_it() {
    let (link, mut far) = raw();
    far.write_all(&u32::MAX.to_be_bytes()).await.expect("room");
    match link.handle.closed().await {
        Closed::Failed(failure) => assert_eq!(failure.code, Code::ProtocolError),
        other => panic!("{other:?}"),
    }
    // Our end is closed as well.
    assert_eq!(far.read(&mut [0; 1]).await.expect("end of stream"), 0);
}
