//! Experiments: variants that begin at one snapshot, each on a branch of its own, with scores.
//!
//! Promoting takes one variant's snapshot into a branch and closes the experiment; discarding closes it without. Both remove the
//! branches of all variants in the same batch, so an experiment is never half closed; and undo brings all of it back.

use std::collections::BTreeMap;

use bytes::Bytes;
use helix_objects::Family;
use helix_protocol::{SnapshotId, Timestamp};

use crate::merge::merge_trees;
use crate::{BranchName, Snapshot, VersionError, show_path};

use super::Repository;
use super::names::{ExperimentName, VariantName, WorkspaceName, nearest};
use super::oplog::MovedHead;
use super::records::{
    ExperimentRecord, ExperimentState, Goal, HeadTarget, Record, Score, VariantRecord, WorkspaceKeys, WorkspaceRecord,
};
use super::transaction::{Caller, Log, Recorded, Transaction};

/// An experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: ExperimentName,
    /// Where its variants began.
    pub base: SnapshotId,
    /// Which score is best.
    pub goal: Goal,
    /// Where it stands.
    pub state: ExperimentState,
    /// When it was started.
    pub made: Timestamp,
    /// Whatever else is known.
    pub metadata: BTreeMap<String, String>,
    /// Its variants, by name.
    pub variants: Vec<Variant>,
}

/// One variant of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name.
    pub name: VariantName,
    /// Its branch: `experiments/NAME/VARIANT`.
    pub branch: BranchName,
    /// Where its branch is; `None` once the experiment is closed.
    pub head: Option<SnapshotId>,
    /// When it was made.
    pub made: Timestamp,
    /// How many scores it was given.
    pub scores: u64,
    /// The best of them; of equal ones the first.
    pub best: Option<Score>,
    /// The last of them.
    pub last: Option<Score>,
}

/// How an experiment is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartExperiment {
    /// Its name.
    pub name: ExperimentName,
    /// Where its variants begin.
    pub base: SnapshotId,
    /// Which score is best.
    pub goal: Goal,
    /// Its first variants; more can be added.
    pub variants: Vec<VariantName>,
    /// Whatever else is known.
    pub metadata: BTreeMap<String, String>,
}

/// A score for a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreVariant {
    /// The experiment.
    pub experiment: ExperimentName,
    /// The variant.
    pub variant: VariantName,
    /// The snapshot that was measured; without, the one its branch is at.
    pub snapshot: Option<SnapshotId>,
    /// What was measured.
    pub value: f64,
    /// Whatever else was measured.
    pub metadata: BTreeMap<String, String>,
}

/// How an experiment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// What was taken, and where the branch it went into is now; `None` where the experiment was discarded.
    pub promoted: Option<(VariantName, SnapshotId)>,
    /// The branches that are gone, with where they were.
    pub removed: Vec<(BranchName, SnapshotId)>,
    /// Workspaces that were on one of them; they are at the same snapshots as before, on no branch.
    pub detached: Vec<WorkspaceName>,
    /// Workspaces whose tree is another one now: their files are the caller's.
    pub moved: Vec<MovedHead>,
    /// What was written.
    pub recorded: Recorded,
}

impl Repository {
    /// Starts an experiment and makes the branches of its first variants.
    pub fn start_experiment(&self, caller: &Caller, start: &StartExperiment) -> Result<Recorded, VersionError> {
        let StartExperiment { name, base, goal, variants, metadata } = start;
        let started = self.change(caller, "experiment start", |change| {
            if change.raw(Family::Experiments, &key(name))?.is_some() {
                return Err(VersionError::Exists { kind: "experiment", name: name.to_string() });
            }
            change.look_at(*base)?;
            let record = ExperimentRecord {
                base: *base,
                goal: *goal,
                state: ExperimentState::Open,
                made: caller.who.time,
                metadata: metadata.clone(),
            };
            change.put(Family::Experiments, &key(name), Some(&record), Log::Told)?;
            for variant in variants {
                change.new_variant(caller, name, variant, *base)?;
            }
            Ok(((), format!("{name} at {} with {} variants", base.short(), variants.len())))
        })?;
        Ok(started.1)
    }

    /// Adds a variant, at a snapshot or where the experiment began, and answers with its branch.
    pub fn add_variant(
        &self,
        caller: &Caller,
        experiment: &ExperimentName,
        variant: &VariantName,
        at: Option<SnapshotId>,
    ) -> Result<(BranchName, Recorded), VersionError> {
        self.change(caller, "experiment variant", |change| {
            let record = change.open_experiment(experiment)?;
            let branch = change.new_variant(caller, experiment, variant, at.unwrap_or(record.base))?;
            Ok((branch, format!("{experiment}/{variant}")))
        })
    }

    /// Every experiment, by name.
    pub fn experiments(&self) -> Result<Vec<Experiment>, VersionError> {
        let mut names: Vec<ExperimentName> = Vec::new();
        self.each_record(Family::Experiments, b"", |key, _| {
            names.extend(std::str::from_utf8(&key).ok().and_then(|text| text.parse().ok()));
            Ok(())
        })?;
        names.iter().map(|name| self.experiment(name)).collect()
    }

    /// An experiment with its variants.
    pub fn experiment(&self, name: &ExperimentName) -> Result<Experiment, VersionError> {
        let record: Option<ExperimentRecord> = self.read_record(Family::Experiments, &key(name))?;
        let Some(ExperimentRecord { base, goal, state, made, metadata }) = record else { return Err(self.no_experiment(name)) };
        let mut variants = Vec::new();
        for (name, record) in self.variant_records(name)? {
            let VariantRecord { branch, made, scores, best, last } = record;
            let head = if state == ExperimentState::Open { self.branch(&branch)? } else { None };
            variants.push(Variant { name, branch, head, made, scores, best, last });
        }
        Ok(Experiment { name: name.clone(), base, goal, state, made, metadata, variants })
    }

    /// Gives a variant a score. Refused where it is not a finite number, or the experiment is closed.
    pub fn score_variant(&self, caller: &Caller, request: &ScoreVariant) -> Result<(Score, Recorded), VersionError> {
        let ScoreVariant { experiment, variant, snapshot, value, metadata } = request;
        if !value.is_finite() {
            return Err(VersionError::Refused {
                message: format!("the score of {experiment}/{variant} is not a finite number"),
                hint: "give a number; leave variants that cannot be measured without a score",
            });
        }
        self.change(caller, "experiment score", |change| {
            let goal = change.open_experiment(experiment)?.goal;
            let key = variant_key(experiment, variant);
            let Some(record) = change.read::<VariantRecord>(Family::Experiments, &key)? else {
                return Err(self.no_variant(experiment, variant));
            };
            let measured = match snapshot {
                Some(id) => Some(*id),
                None => change.branch(&record.branch)?,
            };
            let Some(snapshot) = measured else { return Err(self.no_branch(&record.branch)) };
            change.look_at(snapshot)?;
            let score = Score { snapshot, value: *value, time: caller.who.time, metadata: metadata.clone() };
            let best = match record.best {
                Some(best) if !is_better(goal, score.value, best.value) => Some(best),
                _ => Some(score.clone()),
            };
            let record = VariantRecord { best, last: Some(score.clone()), scores: record.scores + 1, ..record };
            change.put(Family::Experiments, &key, Some(&record), Log::Told)?;
            Ok((score, format!("{experiment}/{variant}: {value}")))
        })
    }

    /// The variant with the best score; of equal ones the one that had it first. `None` where nothing was scored yet.
    pub fn best_variant(&self, name: &ExperimentName) -> Result<Option<(VariantName, Score)>, VersionError> {
        let experiment = self.experiment(name)?;
        Ok(best_of(experiment.goal, experiment.variants.into_iter().map(|variant| (variant.name, variant.best))))
    }

    /// Takes a variant (without one, the best) into a branch (without one, the caller's) and closes the experiment, in one batch.
    /// The variant's best snapshot is taken; where it has no score, the one its branch is at. Where the branch has gone on since,
    /// the two are merged; where that leaves conflicts, nothing is done.
    pub fn promote_experiment(
        &self,
        caller: &Caller,
        name: &ExperimentName,
        variant: Option<&VariantName>,
        onto: Option<&BranchName>,
    ) -> Result<Closed, VersionError> {
        let (closed, recorded) = self.change(caller, "experiment promote", |change| {
            let before = change.folders()?;
            let experiment = change.open_experiment(name)?;
            let (variant, snapshot) = change.chosen(name, experiment.goal, variant)?;
            let onto = match onto {
                Some(branch) => branch.clone(),
                None => change.own_branch(caller)?,
            };
            if self.variant_records(name)?.iter().any(|(_, record)| record.branch == onto) {
                return Err(VersionError::Refused {
                    message: format!("branch {onto} is a variant of {name} itself"),
                    hint: "name the branch to promote into, or switch to it first",
                });
            }
            let Some(into) = change.branch(&onto)? else { return Err(self.no_branch(&onto)) };
            let now = change.take_into(caller, name, into, (&variant, snapshot))?;
            change.set_branch(&onto, Some(now))?;
            let state = ExperimentState::Promoted { variant: variant.clone(), snapshot };
            let (removed, detached) = change.close(name, ExperimentRecord { state, ..experiment })?;
            let moved = change.moved_since(&before)?;
            let closed = Closed { promoted: Some((variant.clone(), now)), removed, detached, moved, recorded: Recorded::NOTHING };
            Ok((closed, format!("{name}/{variant} into {onto}")))
        })?;
        Ok(Closed { recorded, ..closed })
    }

    /// Closes an experiment without taking anything of it, in one batch.
    pub fn discard_experiment(&self, caller: &Caller, name: &ExperimentName) -> Result<Closed, VersionError> {
        let (closed, recorded) = self.change(caller, "experiment discard", |change| {
            let experiment = change.open_experiment(name)?;
            let (removed, detached) = change.close(name, ExperimentRecord { state: ExperimentState::Discarded, ..experiment })?;
            let text = format!("{name} with {} variants", removed.len());
            Ok((Closed { promoted: None, removed, detached, moved: Vec::new(), recorded: Recorded::NOTHING }, text))
        })?;
        Ok(Closed { recorded, ..closed })
    }

    /// Forgets a closed experiment, scores and all.
    pub fn remove_experiment(&self, caller: &Caller, name: &ExperimentName) -> Result<Recorded, VersionError> {
        let removed = self.change(caller, "experiment remove", |change| {
            let Some(record) = change.read::<ExperimentRecord>(Family::Experiments, &key(name))? else {
                return Err(self.no_experiment(name));
            };
            if record.state == ExperimentState::Open {
                return Err(VersionError::Refused {
                    message: format!("experiment {name} is open"),
                    hint: "promote a variant or discard it first",
                });
            }
            for (variant, _) in self.variant_records(name)? {
                change.write(Family::Experiments, &variant_key(name, &variant), None, Log::Told)?;
            }
            change.write(Family::Experiments, &key(name), None, Log::Told)?;
            Ok(((), name.to_string()))
        })?;
        Ok(removed.1)
    }

    pub(crate) fn variant_records(&self, name: &ExperimentName) -> Result<Vec<(VariantName, VariantRecord)>, VersionError> {
        let prefix = format!("{name}/");
        let mut variants = Vec::new();
        self.each_record(Family::Experiments, prefix.as_bytes(), |key, value| {
            let record = VariantRecord::of(Family::Experiments, &key, &value)?;
            let variant = std::str::from_utf8(&key[prefix.len()..]).ok().and_then(|text| text.parse().ok());
            variants.extend(variant.map(|variant| (variant, record)));
            Ok(())
        })?;
        Ok(variants)
    }

    fn no_experiment(&self, name: &ExperimentName) -> VersionError {
        let experiments = self.experiments().unwrap_or_default();
        let nearest = nearest(name.as_str(), experiments.iter().map(|experiment| experiment.name.as_str()));
        VersionError::Unknown { kind: "experiment", name: name.to_string(), nearest }
    }

    fn no_variant(&self, experiment: &ExperimentName, name: &VariantName) -> VersionError {
        let variants = self.variant_records(experiment).unwrap_or_default();
        let nearest = nearest(name.as_str(), variants.iter().map(|(name, _)| name.as_str()));
        VersionError::Unknown { kind: "variant", name: name.to_string(), nearest }
    }
}

impl Transaction<'_> {
    fn open_experiment(&mut self, name: &ExperimentName) -> Result<ExperimentRecord, VersionError> {
        match self.read::<ExperimentRecord>(Family::Experiments, &key(name))? {
            Some(record) if record.state == ExperimentState::Open => Ok(record),
            Some(_) => Err(VersionError::Refused {
                message: format!("experiment {name} is closed"),
                hint: "start another one; `helios undo` opens it again where closing it was the last thing done",
            }),
            None => Err(self.repository.no_experiment(name)),
        }
    }

    fn new_variant(
        &mut self,
        caller: &Caller,
        experiment: &ExperimentName,
        variant: &VariantName,
        at: SnapshotId,
    ) -> Result<BranchName, VersionError> {
        let key = variant_key(experiment, variant);
        if self.raw(Family::Experiments, &key)?.is_some() {
            return Err(VersionError::Exists { kind: "variant", name: format!("{experiment}/{variant}") });
        }
        let branch: BranchName = format!("experiments/{experiment}/{variant}").parse()?;
        self.new_branch(&branch, at)?;
        let record = VariantRecord { branch: branch.clone(), made: caller.who.time, scores: 0, best: None, last: None };
        self.put(Family::Experiments, &key, Some(&record), Log::Told)?;
        Ok(branch)
    }

    /// The variant that is wanted, with the snapshot that counts.
    fn chosen(
        &mut self,
        experiment: &ExperimentName,
        goal: Goal,
        wanted: Option<&VariantName>,
    ) -> Result<(VariantName, SnapshotId), VersionError> {
        let variants = self.repository.variant_records(experiment)?;
        let Some(wanted) = wanted else {
            let best = best_of(goal, variants.into_iter().map(|(name, record)| (name, record.best)));
            return best.map(|(name, score)| (name, score.snapshot)).ok_or_else(|| VersionError::Refused {
                message: format!("no variant of {experiment} has a score yet"),
                hint: "score one, or name the variant to promote",
            });
        };
        let Some((name, record)) = variants.into_iter().find(|(name, _)| name == wanted) else {
            return Err(self.repository.no_variant(experiment, wanted));
        };
        let snapshot = match record.best {
            Some(score) => Some(score.snapshot),
            None => self.branch(&record.branch)?,
        };
        snapshot.map(|snapshot| (name, snapshot)).ok_or_else(|| self.repository.no_branch(&record.branch))
    }

    fn own_branch(&mut self, caller: &Caller) -> Result<BranchName, VersionError> {
        match self.workspace(&caller.workspace)?.head {
            HeadTarget::Branch(branch) => Ok(branch),
            HeadTarget::Detached(_) => Err(VersionError::Refused {
                message: format!("workspace {} is on no branch", caller.workspace),
                hint: "name the branch to promote into",
            }),
        }
    }

    /// The snapshot that has both what a branch has and what a variant has.
    fn take_into(
        &mut self,
        caller: &Caller,
        name: &ExperimentName,
        into: SnapshotId,
        (variant, snapshot): (&VariantName, SnapshotId),
    ) -> Result<SnapshotId, VersionError> {
        let repository = self.repository;
        let bases = repository.merge_bases(into, snapshot)?;
        if bases.as_slice() == [into] {
            return Ok(snapshot);
        }
        if bases.as_slice() == [snapshot] {
            return Ok(into);
        }
        let label = format!("{name}/{variant}");
        let base = repository.common_tree(&bases)?;
        let (ours, theirs) = (repository.tree(into)?, repository.tree(snapshot)?);
        let merged = merge_trees(&**repository.store(), base, (ours, "HEAD"), (theirs, &label))?;
        if !merged.unresolved.is_empty() {
            return Err(VersionError::Unresolved(merged.unresolved.iter().map(|path| show_path(&path.path)).collect()));
        }
        self.objects(&merged.objects);
        self.snapshot(Snapshot {
            tree: merged.tree,
            parents: vec![into, snapshot],
            author: caller.who.clone(),
            committer: caller.committer().clone(),
            message: format!("Promote {label}"),
            metadata: BTreeMap::from([("experiment".to_owned(), name.to_string()), ("variant".to_owned(), variant.to_string())]),
        })
    }

    /// Removes the branches of all variants and writes how the experiment ended.
    #[allow(clippy::type_complexity)]
    fn close(
        &mut self,
        name: &ExperimentName,
        record: ExperimentRecord,
    ) -> Result<(Vec<(BranchName, SnapshotId)>, Vec<WorkspaceName>), VersionError> {
        self.put(Family::Experiments, &key(name), Some(&record), Log::Told)?;
        let (mut removed, mut detached) = (Vec::new(), Vec::new());
        for (_, variant) in self.repository.variant_records(name)? {
            let Some(at) = self.branch(&variant.branch)? else { continue };
            for workspace in self.repository.workspaces_on(&variant.branch)? {
                let record = WorkspaceRecord { head: HeadTarget::Detached(at), ..self.workspace(&workspace)? };
                self.put(Family::Workspaces, &WorkspaceKeys(&workspace).head(), Some(&record), Log::Told)?;
                detached.push(workspace);
            }
            self.set_branch(&variant.branch, None)?;
            removed.push((variant.branch, at));
        }
        Ok((removed, detached))
    }
}

fn key(name: &ExperimentName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}

fn variant_key(experiment: &ExperimentName, variant: &VariantName) -> Bytes {
    Bytes::from(format!("{experiment}/{variant}"))
}

fn is_better(goal: Goal, one: f64, other: f64) -> bool {
    match goal {
        Goal::Highest => one > other,
        Goal::Lowest => one < other,
    }
}

fn best_of(goal: Goal, variants: impl Iterator<Item = (VariantName, Option<Score>)>) -> Option<(VariantName, Score)> {
    let scored = variants.filter_map(|(name, score)| Some((name, score?)));
    scored.reduce(|best, next| {
        let better = is_better(goal, next.1.value, best.1.value);
        if better || (next.1.value == best.1.value && next.1.time < best.1.time) { next } else { best }
    })
}
