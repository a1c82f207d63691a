//! The face of a node as a program meets it: over a real socket, with real records.

mod node;

use std::time::Duration;

use futures::StreamExt;
use helix_database::Write;
use helix_database::testing::{Durability, TestPostgres};
use helix_protocol::{Code, Event, EventKind, Failure, NewEvent, TaskId};
use node::Node;
use serde_json::{Value, json};
use sse_stream::{Sse, SseStream};

async fn json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("the server answers");
    let status = response.status().as_u16();
    (status, response.json().await.expect("the answer is JSON"))
}

fn command(title: &str) -> Value {
    json!({ "spec": { "title": title, "work": { "kind": "command", "commands": ["true"] } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_a_problem_document_with_code_and_hint() {
    let node = Node::start().await;
    let response = node.get("/api/v1/tasks/dead").send().await.expect("the server answers");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.status().as_u16(), 404);
    let expected = json!({
        "type": "urn:helix:failure:not_found", "title": "not found", "status": 404, "code": "not_found",
        "detail": "there is no task dead", "hint": "`helix task list` shows what exists",
    });
    assert_eq!(response.json::<Value>().await.expect("JSON"), expected);
    assert_eq!(json(node.get("/api/v1/nothing")).await.1["code"], "not_found");
    assert_eq!(json(node.get("/api/v1/tasks?limt=3")).await.1["code"], "invalid_request");
    assert_eq!(json(node.get("/api/v1/tasks?status=asleep")).await.1["detail"], "\"asleep\" is not a state of a task");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_made_found_by_its_last_digits_and_tagged_with_its_version() {
    let node = Node::start().await;
    let (status, created) = json(node.post("/api/v1/tasks").json(&command("one"))).await;
    assert_eq!(status, 201);
    let task = &created["tasks"][0];
    let id: TaskId = task["id"].as_str().expect("an id").parse().expect("an id");
    let response = node.get(&format!("/api/v1/tasks/{}", id.short())).send().await.expect("an answer");
    assert_eq!(response.headers()["etag"].to_str().expect("text"), format!("\"{}\"", task["version"]));
    assert_eq!(&response.json::<Value>().await.expect("JSON"), task);
    assert_eq!(json(node.get("/api/v1/tasks")).await.1["tasks"], json!([task]));
}

#[tokio::test(flavor = "multi_thread")]
async fn digits_that_fit_two_tasks_are_refused_with_both() {
    let node = Node::start().await;
    node.task(0xa_0000_beef, "first").await;
    node.task(0xb_0000_beef, "second").await;
    let (status, problem) = json(node.get("/api/v1/tasks/beef")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("ambiguous_id")));
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("(first)") && detail.contains("(second)"), "{detail}");
    assert_eq!(json(node.get("/api/v1/tasks/a0000beef")).await.1["spec"]["title"], "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_becomes_base_environment_and_check_of_what_is_attempted_several_times() {
    let node = Node::start().await;
    let body = json!({
        "spec": { "work": { "kind": "agent", "prompt": "mend it\nplease" }, "environment": { "ports": 9 } },
        "import": { "path": "/repo" }, "attempts": 3,
    });
    let (status, created) = json(node.post("/api/v1/tasks").json(&body)).await;
    assert_eq!(status, 201, "{created}");
    let tasks = created["tasks"].as_array().expect("a list");
    assert_eq!(tasks.len(), 1, "one task takes the best");
    let spec = &tasks[0]["spec"];
    assert_eq!(spec["title"], "mend it");
    assert_eq!(spec["base"]["git_commit"], "c".repeat(40));
    assert_eq!(spec["base"]["repository"], "/repo");
    assert_eq!((&spec["environment"]["setup"], &spec["environment"]["ports"]), (&json!("make deps"), &json!(9)));
    let work = &spec["work"];
    assert_eq!((&work["kind"], &work["count"], &work["work"]["verify"]), (&json!("attempts"), &json!(3), &json!("make test")));
    let (status, attempts) = json(node.get(&format!("/api/v1/tasks/{}/attempts", tasks[0]["id"].as_str().expect("an id")))).await;
    assert_eq!((status, &attempts["attempts"], &attempts["bytes"]), (200, &json!([]), &json!(0)), "nobody has made them yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_secrets_are_had_only_where_the_node_or_the_request_allows_them() {
    let node = Node::start().await;
    let body = |fields: Value| {
        let mut body = json!({ "spec": { "work": { "kind": "command", "commands": ["true"] } }, "import": { "path": "/secrets" } });
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        body
    };
    let (status, problem) = json(node.post("/api/v1/tasks").json(&body(json!({})))).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
    assert_eq!(problem["detail"], "helix.project.yaml asks for secrets that nobody allowed: KEY from file:/home/me/.ssh/id_rsa");
    let hint = problem["hint"].as_str().expect("both ways out");
    assert!(hint.contains("--secret KEY") && hint.contains(r#"tasks: { secrets: ["file:/home/me/.ssh/id_rsa"] }"#), "{hint}");
    let (status, problem) = json(node.post("/api/v1/tasks").json(&body(json!({ "secrets": ["KEY", "OTHER"] })))).await;
    let detail = json!("the repository's helix.project.yaml names no secret OTHER");
    assert_eq!((status, &problem["detail"]), (400, &detail));
    assert_eq!(json(node.get("/api/v1/tasks")).await.1["tasks"], json!([]), "a refused secret makes no task");

    let (status, created) = json(node.post("/api/v1/tasks").json(&body(json!({ "secrets": ["KEY"] })))).await;
    assert_eq!(status, 201, "{created}");
    let both = json!([
        { "variable": "ONE", "source": "env:ALLOWED" },
        { "variable": "KEY", "source": "file:/home/me/.ssh/id_rsa" },
    ]);
    assert_eq!(created["tasks"][0]["spec"]["environment"]["secrets"], both);
    // A request's own source stands in for the project's.
    let mut own = body(json!({}));
    own["spec"]["environment"] = json!({ "secrets": [{ "variable": "KEY", "source": "env:MINE" }] });
    let (status, created) = json(node.post("/api/v1/tasks").json(&own)).await;
    assert_eq!((status, &created["tasks"][0]["spec"]["environment"]["secrets"][1]["source"]), (201, &json!("env:MINE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_under_the_same_key_makes_nothing_new() {
    let node = Node::start().await;
    let body = json!({ "spec": { "work": { "kind": "command", "commands": ["true"] } }, "import": { "path": "/repo" } });
    let post = |body: &Value| node.post("/api/v1/tasks").header("idempotency-key", "k1").json(body);
    let first = json(post(&body)).await;
    assert_eq!(first.0, 201);
    assert_eq!(json(post(&body)).await, first);
    let (status, problem) = json(post(&command("other"))).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_conflict")));
    assert_eq!(json(node.get("/api/v1/tasks")).await.1["tasks"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_by_its_field_and_nothing_is_made() {
    let node = Node::start().await;
    let refused = [
        (json!({ "spec": { "work": { "kind": "command", "commands": [] }, "prio": 1 } }), "there is no field spec.prio"),
        (json!({ "spec": { "work": { "kind": "agent", "prompt": " " } } }), "spec.work.prompt is empty"),
        (json!({ "spec": { "work": { "kind": "command", "commands": [] } }, "attempts": 0 }), "attempts is 0"),
        (
            json!({ "spec": { "work": { "kind": "command", "commands": [] }, "base": { "from": "task", "task": TaskId::new() } }, "import": { "path": "/r" } }),
            "import and spec.base both say where the files come from",
        ),
    ];
    for (body, detail) in refused {
        let (status, problem) = json(node.post("/api/v1/tasks").json(&body)).await;
        assert_eq!((status, &problem["detail"]), (400, &json!(detail)));
    }
    assert_eq!(json(node.post("/api/v1/tasks").body("{")).await.1["code"], "invalid_request");
    let body = json!({ "spec": { "work": { "kind": "command", "commands": [] } }, "import": { "path": "/nowhere" } });
    assert_eq!(json(node.post("/api/v1/tasks").json(&body)).await.1["code"], "not_a_repository");
    assert_eq!(json(node.get("/api/v1/tasks")).await.1["tasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_refused() {
    let node = Node::start().await;
    let response = node.post("/api/v1/tasks").body(vec![b' '; 17 * 1024 * 1024]).send().await;
    // The server answers without reading all of it, and may close the line while the rest is being sent.
    if let Ok(response) = response {
        assert_eq!(response.status().as_u16(), 413);
    }
    assert_eq!(json(node.get("/api/v1/health")).await, (200, json!({ "status": "ok" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_another_version_than_the_callers_is_refused() {
    let node = Node::start().await;
    let id = node.task(0x1234_5678, "a").await;
    let cancel = |tag: &str| node.post(&format!("/api/v1/tasks/{id}/cancel")).header("if-match", tag.to_owned());
    let (status, problem) = json(cancel("\"99\"")).await;
    assert_eq!((status, &problem["code"]), (412, &json!("invalid_state")));
    let version = json(node.get(&format!("/api/v1/tasks/{id}"))).await.1["version"].to_string();
    // With the right version the branch is asked, which in these tests refuses in its own words.
    assert_eq!(json(cancel(&format!("\"{version}\""))).await.1["detail"], format!("task {} has ended", id.short()));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_found_by_name_or_digits_and_told_what_to_do() {
    let node = Node::start().await;
    assert_eq!(json(node.get("/api/v1/workers/beta")).await.1["record"]["name"], "beta");
    assert_eq!(json(node.get("/api/v1/workers/aaaa1111")).await.1["record"]["name"], "alpha");
    assert_eq!(json(node.get("/api/v1/workers/1111")).await.1["code"], "ambiguous_id");
    assert_eq!(json(node.post("/api/v1/workers/alpha/drain")).await.1["record"]["lifecycle"], "draining");
    assert_eq!(json(node.post("/api/v1/workers/alpha/dance")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_counts_tasks_and_the_tree_shows_who_runs() {
    let node = Node::start().await;
    node.task(1, "a").await;
    let status = json(node.get("/api/v1/system/status")).await.1;
    assert_eq!((&status["tasks"], status["workers"].as_array().map(Vec::len)), (&json!({ "pending": 1 }), Some(2)));
    let failure = json!({ "code": "model_failed", "message": "b answered 503", "hint": "look at its status page" });
    let circuits = json!([
        { "deployment": "a", "state": "closed" },
        { "deployment": "b", "state": "open", "since": 1_000_000, "next_try_at": 11_000_000, "failure": failure },
    ]);
    assert_eq!(status["circuits"], circuits);
    let tree = json(node.get("/api/v1/system/tree")).await.1;
    let names: Vec<&str> =
        tree["children"].as_array().expect("children").iter().filter_map(|child| child["name"].as_str()).collect();
    assert_eq!(names, ["records", "tasks", "fleet", "models", "versions"]);
}

/// The events of a watcher's line.
struct Watching(futures::stream::BoxStream<'static, Sse>);

impl Watching {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(SseStream::from_bytes_stream(response.bytes_stream()).filter_map(|block| async { block.ok() }).boxed())
    }

    async fn block(&mut self) -> Option<Sse> {
        tokio::time::timeout(Duration::from_secs(20), self.0.next()).await.expect("something comes")
    }

    async fn next(&mut self) -> Option<(Option<String>, Event)> {
        loop {
            let block = self.block().await?;
            if let Some(data) = block.data {
                return Some((block.id, serde_json::from_str(&data).expect("an event")));
            }
        }
    }

    async fn titles(&mut self, count: usize) -> Vec<String> {
        let mut titles = Vec::new();
        for _ in 0..count {
            titles.push(self.next().await.expect("the line stands").1.event.message);
        }
        titles
    }
}

async fn record(node: &Node, message: &str, task: Option<TaskId>) {
    let mut event = NewEvent::info(EventKind::SystemError, "test", message);
    event.task = task;
    node.records.write(Write::Events(vec![event])).await.expect("the records take it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_given_what_was_recorded_and_then_what_happens_each_once() {
    let node = Node::start().await;
    for i in 0..1_200 {
        record(&node, &i.to_string(), None).await;
    }
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    let first = watching.titles(600).await;
    for i in 1_200..1_210 {
        record(&node, &i.to_string(), None).await;
    }
    let rest = watching.titles(610).await;
    let seen: Vec<String> = first.into_iter().chain(rest).collect();
    assert_eq!(seen, (0..1_210).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_names_its_last_event_and_misses_nothing() {
    let node = Node::start().await;
    record(&node, "a", None).await;
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    let (id, event) = watching.next().await.expect("the line stands");
    assert_eq!((event.event.message.as_str(), id.as_deref()), ("a", Some(event.sequence.to_string().as_str())));
    drop(watching);
    record(&node, "b", None).await;
    let mut back = Watching::open(node.get("/api/v1/events").header("last-event-id", id.expect("it has one"))).await;
    record(&node, "c", None).await;
    assert_eq!(back.titles(2).await, ["b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_has_seen_nothing_knows_where_it_began() {
    let node = Node::start().await;
    record(&node, "before", None).await;
    let mut watching = Watching::open(node.get("/api/v1/events")).await;
    let first = watching.block().await.expect("it is told before anything happens");
    assert_eq!((first.data, first.event), (None, None), "and no event of before comes");
    let place = first.id.expect("a place");
    drop(watching);
    record(&node, "meanwhile", None).await;
    let mut again = Watching::open(node.get("/api/v1/events").header("last-event-id", &place)).await;
    assert_eq!(again.titles(1).await, ["meanwhile"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_and_not_kept_has_no_id_and_another_tasks_events_do_not_come() {
    let node = Node::start().await;
    let (mine, other) = (node.task(0x1111_2222, "mine").await, node.task(0x3333_4444, "other").await);
    let mut watching = Watching::open(node.get("/api/v1/events?task=11112222")).await;
    node.events.show(NewEvent::info(EventKind::ToolStarted, "test", "theirs").task(other));
    node.events.show(NewEvent::info(EventKind::ToolStarted, "test", "shown").task(mine));
    record(&node, "kept", Some(mine)).await;
    let (id, event) = watching.next().await.expect("the line stands");
    assert_eq!((id, event.event.message.as_str()), (None, "shown"));
    let (id, event) = watching.next().await.expect("the line stands");
    assert_eq!((id.is_some(), event.event.message.as_str()), (true, "kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_that_fell_behind_reads_the_rest_from_the_records() {
    let node = Node::start().await;
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    record(&node, "0", None).await;
    assert_eq!(watching.titles(1).await, ["0"]);
    fall_behind_and_catch_up(&node, &mut watching).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_misses_nothing_whatever_is_open_on_the_server_of_the_records() {
    let server = TestPostgres::shared();
    let node = Node::start_on(helix_database::open(&server.url(&server.database().await)).await.expect("it answers")).await;
    let _open = server.open_transaction().await;
    record(&node, "before", None).await;
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    assert_eq!(watching.titles(1).await, ["before"]);
    record(&node, "live", None).await;
    assert_eq!(watching.titles(1).await, ["live"]);
    fall_behind_and_catch_up(&node, &mut watching).await;
}

fn words(task: TaskId, text: &str) -> NewEvent {
    let mut words = NewEvent::info(EventKind::ModelSaid, "test", text);
    words.task = Some(task);
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn what_models_say_comes_to_who_asks_for_it_before_what_follows_and_has_no_id() {
    let node = Node::start().await;
    let (mine, other) = (node.task(0x1111_2222, "mine").await, node.task(0x3333_4444, "other").await);
    let mut deaf = Watching::open(node.get("/api/v1/events?task=11112222")).await;
    let mut listening = Watching::open(node.get("/api/v1/events?task=11112222&words=true")).await;
    node.events.say(words(other, "theirs"));
    for said in ["one", "two"] {
        node.events.say(words(mine, said));
    }
    node.events.show(NewEvent::info(EventKind::ModelReplied, "test", "replied").task(mine));
    assert_eq!(listening.next().await.map(|(id, event)| (id, event.event.message)), Some((None, "one".to_owned())));
    assert_eq!(listening.titles(2).await, ["two", "replied"]);
    assert_eq!(deaf.titles(1).await, ["replied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_loses_words_and_no_event_and_holds_nobody_up() {
    const SAID: usize = 20_000;
    let node = Node::start().await;
    let task = node.task(0x1111_2222, "mine").await;
    let mut slow = Watching::open(node.get("/api/v1/events?after=0&words=true")).await;
    let text = "x".repeat(4_096);
    for _ in 0..SAID {
        node.events.say(words(task, &text));
        tokio::task::yield_now().await;
    }
    record(&node, "the end", Some(task)).await;
    let mut heard = 0;
    while slow.next().await.expect("the line stands").1.event.message != "the end" {
        heard += 1;
    }
    assert!(heard > 0 && heard < SAID, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_why_its_events_cannot_be_read() {
    let server = TestPostgres::start(Durability::Unsynced);
    let node = Node::start_on(helix_database::open(&server.url(&server.database().await)).await.expect("it answers")).await;
    tokio::task::block_in_place(|| server.crash());
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    let block = watching.block().await.expect("it is told");
    assert_eq!(block.event.as_deref(), Some("failure"));
    let failure: Failure = serde_json::from_str(&block.data.expect("it says what")).expect("a failure");
    assert_eq!(failure.code, Code::DatabaseUnavailable);
    assert!(failure.message.starts_with("the database does not answer"), "{failure}");
    assert!(failure.hint.starts_with("see that the database runs"), "{failure}");
    assert!(watching.block().await.is_none(), "the line ends");
}

async fn fall_behind_and_catch_up(node: &Node, watching: &mut Watching) {
    // Far more than the mailbox, the socket and the live stream hold together.
    let filler = "x".repeat(4_000);
    for i in 1..=400 {
        record(node, &format!("{i} {filler}"), None).await;
    }
    let seen = watching.titles(400).await;
    let numbers: Vec<&str> = seen.iter().filter_map(|title| title.split(' ').next()).collect();
    assert_eq!(numbers, (1..=400).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_watchers_and_answers_what_was_asked() {
    let node = Node::start().await;
    let mut watching = Watching::open(node.get("/api/v1/events?after=0")).await;
    record(&node, "last", None).await;
    assert_eq!(watching.titles(1).await, ["last"]);
    node.shutdown.request();
    assert!(watching.next().await.is_none(), "the line ends");
    node.served.await.expect("no panic").expect("an orderly end");
    assert!(std::os::unix::net::UnixStream::connect(&node.socket).is_err(), "nobody listens any more");
}
