//! A node for these tests: the real server, tree and records (in memory), and actors that answer at the addresses in place of
//! the branches.

use std::marker::PhantomData;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use helix_adapter_http::{HttpArgs, NodeInfo, serve};
use helix_database::{Applied, MemoryStore, RecordStore, Write};
use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef};
use helix_kernel::{Address, Admitted, ChildSpec, Clock, Shutdown, Strategy, SupervisorSpec};
use helix_messages::{
    Circuit, DailyLimits, DeploymentCircuit, Events, Fleet, FleetMsg, Imported, Models, ModelsMsg, Outage, Quote, Records,
    RecordsMsg, Spending, Tasks, TasksMsg, Versions, VersionsMsg, WorkerView,
};
use helix_protocol::{
    AttemptId, Code, Environment, Failure, Lifecycle, NodeId, ObjectId, SecretRef, SnapshotId, TaskId, Timestamp, WorkerHealth,
    WorkerId, WorkerRecord, WorkerStatus, WorkerTarget,
};
use uuid::Uuid;

/// An actor that answers each message by a function.
struct Answering<M, F>(PhantomData<fn(M)>, PhantomData<fn(F)>);

impl<M: Send + 'static, F: Fn(M) -> BoxFuture<'static, ()> + Send + Sync + 'static> Actor for Answering<M, F> {
    type Msg = Admitted<M>;
    type State = F;
    type Arguments = F;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, answer: F) -> Result<F, ActorProcessingErr> {
        Ok(answer)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, answer: &mut F) -> Result<(), ActorProcessingErr> {
        answer(message.take()).await;
        Ok(())
    }
}

fn child<M, F>(name: &str, address: &Address<M>, answer: F) -> ChildSpec
where
    M: Send + 'static,
    F: Fn(M) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static,
{
    ChildSpec::actor(name, address, move || (Answering(PhantomData, PhantomData), answer.clone()))
}

/// A running node.
pub struct Node {
    pub records: Records,
    pub events: Events,
    pub socket: PathBuf,
    pub shutdown: Shutdown,
    pub served: tokio::task::JoinHandle<std::io::Result<()>>,
    pub http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_on(Arc::new(MemoryStore::new())).await
    }

    /// A node whose records are `store`.
    pub async fn start_on(store: Arc<dyn RecordStore>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("s");
        let events = Events::new(64);
        let writer = Address::unbound("records", 64);
        let records = Records::new(writer.clone(), store.clone(), Duration::from_secs(5));
        let (tasks, fleet) = (Address::unbound("tasks", 64), Address::unbound("fleet", 64));
        let (models, versions) = (Address::unbound("models", 64), Address::unbound("versions", 64));
        let spec = SupervisorSpec::new("helix", Strategy::OneForOne)
            .child(child("records", &writer, write_records(store.clone(), events.clone())))
            .child(child("tasks", &tasks, answer_tasks(records.clone())))
            .child(child("fleet", &fleet, answer_fleet))
            .child(child("models", &models, answer_models))
            .child(child("versions", &versions, answer_versions));
        let tree = helix_kernel::start(spec).await.expect("the tree starts");
        let args = HttpArgs {
            tasks: Tasks::new(tasks),
            fleet: Fleet::new(fleet),
            models: Models::new(models, Duration::from_secs(5)),
            versions: Versions::new(versions),
            records: records.clone(),
            spending: Spending::new(records.clone(), DailyLimits::default(), Clock::system()),
            events: events.clone(),
            tree,
            info: NodeInfo {
                node: NodeId(Uuid::from_u128(1)),
                version: "0".to_owned(),
                pid: std::process::id(),
                data: folder.path().to_owned(),
                database: "memory".to_owned(),
                started_at: Timestamp::now(),
            },
            secrets: vec!["env:ALLOWED".to_owned()],
            formats: helix_adapter_models::client_formats(),
            gateway: None,
            gateway_bytes: 1 << 20,
        };
        let listener = UnixListener::bind(&socket).expect("the path is free");
        let shutdown = Shutdown::new();
        let served = tokio::spawn(serve(listener, args, shutdown.clone()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            reqwest::Client::builder().unix_socket(socket.as_path()).tls_certs_only([]).no_proxy().build().expect("a client");
        Self { records, events, socket, shutdown, served, http, _folder: folder }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("http://node{path}"))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("http://node{path}"))
    }

    /// A task in the records, as the tasks branch would make it.
    pub async fn task(&self, id: u128, title: &str) -> TaskId {
        let spec = helix_protocol::TaskSpec::new(title, helix_protocol::TaskWork::Command(helix_protocol::CommandSpec::default()));
        let id = TaskId(Uuid::from_u128(id));
        create(&self.records, id, spec, None).await.expect("the records take it");
        id
    }
}

async fn create(
    records: &Records,
    id: TaskId,
    spec: helix_protocol::TaskSpec,
    key: Option<String>,
) -> Result<helix_protocol::TaskRecord, Failure> {
    let write = Write::CreateTask {
        id,
        attempt: AttemptId::new(),
        spec: Box::new(spec),
        principal: helix_protocol::Principal::local("test"),
        project: helix_protocol::ProjectId::DEFAULT,
        idempotency_key: key,
        paused: None,
    };
    match records.write(write).await? {
        Applied::Task { task, .. } => Ok(*task),
        other => panic!("a task is answered, not {other:?}"),
    }
}

fn write_records(
    store: Arc<dyn RecordStore>,
    events: Events,
) -> impl Fn(RecordsMsg) -> BoxFuture<'static, ()> + Clone + Send + Sync {
    move |message| {
        let (store, events) = (store.clone(), events.clone());
        Box::pin(async move {
            let RecordsMsg::Write { write, reply } = message else { panic!("only this actor would tell itself") };
            let answer = store.apply(vec![*write]).await.map_err(Failure::from).and_then(|mut answers| Ok(answers.remove(0)?));
            if let Ok(applied) = &answer {
                events.publish(applied.events());
            }
            let _ = reply.send(answer);
        })
    }
}

fn answer_tasks(records: Records) -> impl Fn(TasksMsg) -> BoxFuture<'static, ()> + Clone + Send + Sync {
    move |message| {
        let records = records.clone();
        Box::pin(async move {
            match message {
                TasksMsg::Create { create: asked, reply } => {
                    let made = create(&records, TaskId::new(), asked.spec, asked.idempotency_key).await;
                    let _ = reply.send(made);
                }
                TasksMsg::Cancel { task, reply, .. } => {
                    let failure = Failure::new(Code::InvalidState, format!("task {} has ended", task.short())).hint("look at it");
                    let _ = reply.send(Err(failure));
                }
                _ => panic!("no test asks this"),
            }
        })
    }
}

pub fn worker(id: u128, name: &str) -> WorkerView {
    WorkerView {
        record: WorkerRecord {
            id: WorkerId(Uuid::from_u128(id)),
            name: name.to_owned(),
            target: WorkerTarget::Local { folder: format!("/w/{name}") },
            slots: 2,
            lifecycle: Lifecycle::Open,
            status: WorkerStatus::Active,
            health: WorkerHealth::Healthy,
            facts: None,
            reason: String::new(),
            created_at: Timestamp(0),
            last_seen_at: None,
            version: 1,
        },
        ready: true,
        lost: false,
        incarnation: 1,
        pid: None,
        holds: Vec::new(),
    }
}

fn answer_fleet(message: FleetMsg) -> BoxFuture<'static, ()> {
    let workers = vec![worker(0xaaaa_1111, "alpha"), worker(0xbbbb_1111, "beta")];
    Box::pin(async move {
        match message {
            FleetMsg::List { reply } => drop(reply.send(Ok(workers))),
            FleetMsg::SetLifecycle { worker, lifecycle, reply } => {
                let mut view = workers.into_iter().find(|view| view.record.id == worker).expect("one of the two");
                view.record.lifecycle = lifecycle;
                let _ = reply.send(Ok(view));
            }
            _ => panic!("no test asks this"),
        }
    })
}

fn answer_models(message: ModelsMsg) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match message {
            ModelsMsg::List { reply } => drop(reply.send(Ok(Vec::new()))),
            ModelsMsg::Circuits { reply } => drop(reply.send(Ok(circuits()))),
            ModelsMsg::Quote { reply, .. } => {
                let quote = Quote {
                    provider: "a".to_owned(),
                    model: "m".to_owned(),
                    most: helix_protocol::Most { money: Some(helix_protocol::Money(1)), tokens: 1 },
                    capabilities: Default::default(),
                };
                let _ = reply.send(Ok(quote));
            }
            _ => panic!("no test asks this"),
        }
    })
}

/// One provider in service, and one that is not.
fn circuits() -> Vec<DeploymentCircuit> {
    let outage = Outage {
        since: Timestamp(1_000_000),
        next_try_at: Timestamp(11_000_000),
        failure: Failure::new(Code::ModelFailed, "b answered 503").hint("look at its status page"),
    };
    let of = |name: &str, circuit| DeploymentCircuit { deployment: name.to_owned(), circuit };
    vec![of("a", Circuit::Closed), of("b", Circuit::Open(outage))]
}

/// Each import makes another snapshot, as the real one does.
fn answer_versions(message: VersionsMsg) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match message {
            VersionsMsg::ImportGit { import, reply } if import.path.ends_with("nowhere") => {
                let _ = reply.send(Err(Failure::new(Code::NotARepository, "nowhere is not in a git repository")));
            }
            VersionsMsg::ImportGit { import, reply } => {
                let mut id = [7; 32];
                id[..16].copy_from_slice(Uuid::now_v7().as_bytes());
                let named =
                    |(variable, source): (&str, &str)| SecretRef { variable: variable.to_owned(), source: source.to_owned() };
                let secrets = match import.path.ends_with("secrets") {
                    true => [("ONE", "env:ALLOWED"), ("KEY", "file:/home/me/.ssh/id_rsa")].map(named).to_vec(),
                    false => Vec::new(),
                };
                let environment = Environment { setup: Some("make deps".to_owned()), ports: 3, secrets, ..Environment::default() };
                let _ = reply.send(Ok(Imported {
                    repository: import.path,
                    git_commit: Some("c".repeat(40)),
                    branch: None,
                    snapshot: SnapshotId(ObjectId(id)),
                    tree: ObjectId([8; 32]),
                    files: 2,
                    bytes: 10,
                    uncommitted: 0,
                    skipped: Vec::new(),
                    submodules: Vec::new(),
                    environment,
                    verify: Some("make test".to_owned()),
                }));
            }
            _ => panic!("no test asks this"),
        }
    })
}
