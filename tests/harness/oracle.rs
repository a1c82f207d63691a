//! The judge outside the system: what was acknowledged, written down as it was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helix::client::{Client, Watch};
use helix_protocol::{AttemptId, Event, EventKind, StepId, StepOutcome, StepSummary, TaskId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SOON;

/// Hears every event from the first on, and appends each acknowledged step to a file.
pub struct Oracle {
    file: PathBuf,
    heard: Arc<Mutex<Vec<Event>>>,
    count: watch::Receiver<usize>,
    hearing: JoinHandle<()>,
}

impl Oracle {
    /// Begins to listen. It comes back by itself after the node was away.
    pub async fn watch(client: &Client, folder: &Path) -> Self {
        let file = folder.join("acknowledged");
        let mut written = File::options().create(true).append(true).open(&file).expect("the folder is writable");
        let mut events = Watch::open(client, None, Some(0)).await.expect("the node can be watched");
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (told, count) = watch::channel(0);
        let list = Arc::clone(&heard);
        let hearing = tokio::spawn(async move {
            loop {
                let Ok(event) = events.next().await else { continue };
                if let (EventKind::StepCompleted, Some(task)) = (event.event.kind, event.event.task) {
                    let step = event.event.detail["step"].as_str().expect("the event names its step");
                    writeln!(written, "{task} {step}").expect("the file can be appended to");
                }
                let mut list = list.lock();
                list.push(event);
                let _ = told.send(list.len());
            }
        });
        Self { file, heard, count, hearing }
    }

    /// Reads from the first event on.
    pub fn whole_trail(&self) -> Trail {
        Trail { heard: Arc::clone(&self.heard), count: self.count.clone(), at: 0 }
    }

    /// Reads what happens from now on.
    pub fn trail(&self) -> Trail {
        Trail { at: self.heard.lock().len(), ..self.whole_trail() }
    }

    /// What was heard so far of a task.
    pub fn heard_of(&self, task: TaskId) -> Vec<Event> {
        self.heard.lock().iter().filter(|event| event.event.task == Some(task)).cloned().collect()
    }

    /// Steps for which more than one reply reached the journal: it is told of once it has.
    pub fn replied_twice(&self) -> Vec<(TaskId, u64)> {
        let mut made: BTreeMap<TaskId, u64> = BTreeMap::new();
        let mut replies: BTreeMap<(TaskId, u64), usize> = BTreeMap::new();
        for event in self.heard.lock().iter() {
            let Some(task) = event.event.task else { continue };
            match event.event.kind {
                EventKind::StepCompleted => *made.entry(task).or_default() += 1,
                EventKind::ModelReplied => *replies.entry((task, made.get(&task).map_or(1, |made| made + 1))).or_default() += 1,
                _ => {}
            }
        }
        replies.into_iter().filter(|(_, count)| *count > 1).map(|(step, _)| step).collect()
    }

    /// What the file says: each task's acknowledged steps.
    pub fn acknowledged(&self) -> BTreeMap<TaskId, BTreeSet<StepId>> {
        let mut steps: BTreeMap<TaskId, BTreeSet<StepId>> = BTreeMap::new();
        for line in std::fs::read_to_string(&self.file).expect("the file is there").lines() {
            let (task, step) = line.split_once(' ').expect("task and step");
            steps.entry(task.parse().expect("a task")).or_default().insert(step.parse().expect("a step"));
        }
        steps
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

/// One reader's place among the events.
pub struct Trail {
    heard: Arc<Mutex<Vec<Event>>>,
    count: watch::Receiver<usize>,
    at: usize,
}

impl Trail {
    /// Reads on up to the next event that fits.
    pub async fn until(&mut self, what: &str, mut fits: impl FnMut(&Event) -> bool) -> Event {
        let found = tokio::time::timeout(SOON, async {
            loop {
                self.count.borrow_and_update();
                while let Some(event) = self.step() {
                    if fits(&event) {
                        return event;
                    }
                }
                self.count.changed().await.expect("the oracle listens as long as the product runs");
            }
        });
        match found.await {
            Ok(event) => event,
            Err(_) => {
                let heard = self.heard.lock();
                let lines = heard[heard.len().saturating_sub(30)..].iter().map(|event| {
                    let event = &event.event;
                    format!("{} {} {}", event.kind.as_str(), event.task.map(|task| task.short()).unwrap_or_default(), event.message)
                });
                panic!("waited in vain: {what}; the last events:\n{}", lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// Reads on up to the next event of this kind about a task.
    pub async fn until_kind(&mut self, task: TaskId, kind: EventKind) -> Event {
        let what = format!("{} of task {}", kind.as_str(), task.short());
        self.until(&what, |event| event.event.task == Some(task) && event.event.kind == kind).await
    }

    fn step(&mut self) -> Option<Event> {
        let event = self.heard.lock().get(self.at).cloned()?;
        self.at += 1;
        Some(event)
    }
}

/// What holding the records against what was acknowledged gave. The default is what must be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged steps that are not on their task's line.
    pub lost: Vec<StepId>,
    /// Turns on a line that nobody was told of.
    pub untold: Vec<StepId>,
    /// Turns committed twice.
    pub double: Vec<(AttemptId, u64)>,
    /// Steps whose epoch is older than that of the step before.
    pub stale: Vec<StepId>,
    /// Model replies that were given and asked for again, those left out that a step counts as uncertain because the node died
    /// before the reply could reach its journal.
    pub repeated_replies: usize,
    /// Model calls charged as uncertain although no node died with them. Where the model was made to fail in the middle of answers
    /// that are as many, and elsewhere none.
    pub uncertain_calls: usize,
    /// Steps for which more than one reply was journalled.
    pub replied_twice: Vec<(TaskId, u64)>,
}

impl Verdict {
    /// Judges one task.
    pub fn add(&mut self, task: TaskId, acknowledged: &BTreeSet<StepId>, line: &[StepSummary], all: &[StepSummary]) {
        let is_turn = |step: &&StepSummary| matches!(step.outcome, StepOutcome::Continue | StepOutcome::Finished);
        let on_line: BTreeSet<StepId> = line.iter().map(|step| step.id).collect();
        self.lost.extend(acknowledged.difference(&on_line));
        let own = line.iter().filter(is_turn).filter(|step| step.task == task);
        self.untold.extend(own.map(|step| step.id).filter(|step| !acknowledged.contains(step)));
        let mut turns = BTreeSet::new();
        let twice = all.iter().filter(is_turn).map(|step| (step.attempt, step.ordinal)).filter(|turn| !turns.insert(*turn));
        self.double.extend(twice);
        self.stale.extend(line.windows(2).filter(|pair| pair[1].epoch < pair[0].epoch).map(|pair| pair[1].id));
    }
}
