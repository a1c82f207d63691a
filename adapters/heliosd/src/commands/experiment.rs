//! `helios experiment`: variants of one beginning, scored, and then one of them taken.

use clap::{Args, Parser, Subcommand};
use helix_protocol::Failure;
use helix_versions::{
    BranchName, Closed, Experiment, ExperimentName, ExperimentState, Goal, HeadTarget, LocalChanges, ScoreVariant, StartExperiment,
    Undo, VariantName, WorkspaceName,
};
use serde_json::{Value, json};

use super::Verb;
use super::follow::{Moved, go_back};
use super::unfinished::{self, Move};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, Turn, queue};

/// Keeps variants of one beginning together with their scores
///
/// Each variant is a branch experiments/NAME/VARIANT. Promoting takes the best one, or another, into a branch; discarding takes
/// none. Both close the experiment and remove its branches in one step, and `helios undo` brings all of it back. The files of the
/// workspace that is on the branch follow; where changes that no commit has are in the way, nothing is promoted and they are named.
#[derive(Parser)]
#[command(
    name = "experiment",
    after_help = "Examples:\n  helios experiment start parser --variant a --variant b\n  helios workspace add ../a experiments/parser/a\n  helios experiment score parser a 0.93 --meta tests=41\n  helios experiment best parser\n  helios experiment promote parser\n\nExit codes: 0 done, 1 changes are in the way or nothing has a score, 128 anything else"
)]
pub struct ExperimentCommand {
    #[command(subcommand)]
    verb: ExperimentVerb,
}

#[derive(Subcommand)]
enum ExperimentVerb {
    /// Starts an experiment
    #[command(
        after_help = "Examples:\n  helios experiment start parser --variant a --variant b\n  helios experiment start latency HEAD~2 --lowest --meta unit=ms"
    )]
    Start(StartArguments),
    /// Adds a variant to an experiment, and prints its branch
    #[command(
        after_help = "Examples:\n  helios experiment variant parser c\n  helios experiment variant parser d experiments/parser/a"
    )]
    Variant {
        /// The experiment
        experiment: String,
        /// The variant
        variant: String,
        /// Where it begins; where the experiment began if nothing is said
        start: Option<String>,
    },
    /// Lists the experiments, or one with its variants
    #[command(after_help = "Examples:\n  helios experiment list\n  helios experiment list parser --json")]
    List {
        /// The experiment
        experiment: Option<String>,
    },
    /// Gives a variant a score
    #[command(
        after_help = "Examples:\n  helios experiment score parser a 0.93\n  helios experiment score parser a 0.93 --at 3f2a9c017d44 --meta tests=41"
    )]
    Score {
        /// The experiment
        experiment: String,
        /// The variant
        variant: String,
        /// The score
        #[arg(allow_negative_numbers = true)]
        value: f64,
        /// The snapshot that was measured; where the variant is at if nothing is said
        #[arg(long, value_name = "SNAPSHOT")]
        at: Option<String>,
        /// Whatever else was measured
        #[arg(long, value_name = "KEY=VALUE", value_parser = super::commit::key_value)]
        meta: Vec<(String, String)>,
    },
    /// Prints the variant with the best score
    #[command(
        after_help = "Examples:\n  helios experiment best parser\n\nExit codes: 0; 1 where nothing has a score; 128 anything else"
    )]
    Best {
        /// The experiment
        experiment: String,
    },
    /// Takes a variant into a branch and closes the experiment
    #[command(
        after_help = "Examples:\n  helios experiment promote parser\n  helios experiment promote parser b --into main\n\nExit codes: 0 done, 1 changes are in the way or nothing has a score, 128 anything else"
    )]
    Promote {
        /// The experiment
        experiment: String,
        /// The variant; the best where nothing is said
        variant: Option<String>,
        /// The branch; the current one where nothing is said
        #[arg(long, value_name = "BRANCH")]
        into: Option<String>,
    },
    /// Closes an experiment and takes none of its variants
    #[command(after_help = "Examples:\n  helios experiment discard parser")]
    Discard {
        /// The experiment
        experiment: String,
    },
    /// Forgets a closed experiment, scores and all
    #[command(after_help = "Examples:\n  helios experiment remove parser")]
    Remove {
        /// The experiment
        experiment: String,
    },
}

#[derive(Args)]
struct StartArguments {
    /// Its name
    name: String,
    /// Where its variants begin; the head where nothing is said
    start: Option<String>,
    /// A variant; more can be added later
    #[arg(short, long, value_name = "NAME")]
    variant: Vec<String>,
    /// The lowest score is best
    #[arg(long)]
    lowest: bool,
    /// Something to remember with it
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::commit::key_value)]
    meta: Vec<(String, String)>,
}

impl Verb for ExperimentCommand {
    const IS_DATED: bool = true;

    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        match self.verb {
            ExperimentVerb::Start(arguments) => start(context, &here, arguments),
            ExperimentVerb::Variant { experiment, variant, start } => {
                let at = start.as_deref().map(|revision| here.resolve(revision)).transpose()?;
                let caller = here.caller(context, None);
                let (branch, _) = here.repository().add_variant(&caller, &experiment.parse()?, &variant.parse()?, at)?;
                answer(context, json!({"branch": branch.as_str()}), branch.as_str())
            }
            ExperimentVerb::List { experiment: None } => {
                let experiments = here.repository().experiments()?;
                experiments
                    .iter()
                    .try_for_each(|experiment| answer(context, to_json(experiment), &line(experiment)).map(|_| ()))?;
                Ok(OK)
            }
            ExperimentVerb::List { experiment: Some(name) } => {
                let experiment = here.repository().experiment(&name.parse()?)?;
                answer(context, to_json(&experiment), &table(&experiment))
            }
            ExperimentVerb::Score { experiment, variant, value, at, meta } => {
                let snapshot = at.as_deref().map(|revision| here.resolve(revision)).transpose()?;
                let request = ScoreVariant {
                    experiment: experiment.parse()?,
                    variant: variant.parse()?,
                    snapshot,
                    value,
                    metadata: meta.into_iter().collect(),
                };
                let (score, _) = here.repository().score_variant(&here.caller(context, None), &request)?;
                let text = format!("{experiment}/{variant} at {}: {}", score.snapshot.short(), score.value);
                answer(
                    context,
                    json!({"experiment": experiment, "variant": variant, "snapshot": score.snapshot, "score": score.value}),
                    &text,
                )
            }
            ExperimentVerb::Best { experiment } => best(context, &here, &experiment.parse()?),
            ExperimentVerb::Promote { experiment, variant, into } => {
                let variant: Option<VariantName> = variant.map(|name| name.parse()).transpose()?;
                let onto: Option<BranchName> = into.map(|name| name.parse()).transpose()?;
                promote(context, &here, &experiment.parse()?, variant.as_ref(), onto)
            }
            ExperimentVerb::Discard { experiment } => {
                let name: ExperimentName = experiment.parse()?;
                let closed = here.repository().discard_experiment(&here.caller(context, None), &name)?;
                tell_closed(context, &closed)
            }
            ExperimentVerb::Remove { experiment } => {
                here.repository().remove_experiment(&here.caller(context, None), &experiment.parse()?)?;
                Ok(OK)
            }
        }
    }
}

fn answer(context: &mut Context<'_>, value: Value, text: &str) -> Result<u8, Failure> {
    if context.is_json() {
        context.console.json(&value)?
    } else {
        context.console.line(text)?
    }
    Ok(OK)
}

fn start(context: &mut Context<'_>, here: &Here, arguments: StartArguments) -> Result<u8, Failure> {
    let name: ExperimentName = arguments.name.parse()?;
    let base = here.resolve(arguments.start.as_deref().unwrap_or("HEAD"))?;
    let variants: Vec<VariantName> = arguments.variant.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let goal = if arguments.lowest { Goal::Lowest } else { Goal::Highest };
    let request = StartExperiment { name, base, goal, variants, metadata: arguments.meta.into_iter().collect() };
    here.repository().start_experiment(&here.caller(context, None), &request)?;
    let experiment = here.repository().experiment(&request.name)?;
    answer(context, to_json(&experiment), &table(&experiment))
}

fn best(context: &mut Context<'_>, here: &Here, name: &ExperimentName) -> Result<u8, Failure> {
    match here.repository().best_variant(name)? {
        Some((variant, score)) => {
            let text = format!("{variant} {} at {}", score.value, score.snapshot.short());
            answer(context, json!({"variant": variant.to_string(), "score": score.value, "snapshot": score.snapshot}), &text)
        }
        None => {
            context.console.note(format!("no variant of {name} has a score yet"))?;
            Ok(NO)
        }
    }
}

/// Takes a variant into a branch. The files of whoever is on that branch follow, or nothing is promoted.
fn promote(
    context: &mut Context<'_>,
    here: &Here,
    name: &ExperimentName,
    variant: Option<&VariantName>,
    onto: Option<BranchName>,
) -> Result<u8, Failure> {
    let target =
        onto.clone().map_or_else(|| Ok(here.workspace()?.head.target), |branch| Ok::<_, Failure>(HeadTarget::Branch(branch)))?;
    let mut places = Vec::new();
    // By name, as everybody takes them who needs several turns.
    for workspace in here.repository().workspaces()?.into_iter().filter(|workspace| workspace.head.target == target) {
        let location = here.place_of(&workspace);
        if location.root.is_dir() {
            places.push((workspace.name, here.open.folder(&location)?));
        }
    }
    let mut turns = Vec::new();
    for (name, folder) in &places {
        let mut turn = queue(folder, &context.console)?;
        unfinished::settle(context, here, name, &mut turn, LocalChanges::Keep).map_err(|failure| Failure {
            message: if name == here.name() { failure.message } else { format!("in workspace {name}: {}", failure.message) },
            ..failure
        })?;
        turns.push((name, turn));
    }
    for (name, _) in &turns {
        let from = here.repository().folder_tree(&here.repository().workspace(name)?)?;
        Move { from, to: None }.begin(here, name);
    }
    let closed = here.repository().promote_experiment(&here.caller(context, None), name, variant, onto.as_ref())?;
    let followed = follow(context, here, &closed, &mut turns);
    drop(turns);
    followed?;
    tell_closed(context, &closed)
}

/// Lets the files follow: all of them, or none and the experiment is open again.
fn follow(
    context: &mut Context<'_>,
    here: &Here,
    closed: &Closed,
    turns: &mut [(&WorkspaceName, Turn<'_>)],
) -> Result<(), Failure> {
    let (verb, changes, operation) = ("experiment promote", LocalChanges::Keep, closed.recorded.operation);
    let mut refused = None;
    for (name, folder) in turns.iter_mut() {
        let Some(moved) = closed.moved.iter().find(|moved| moved.workspace == **name) else { continue };
        let failure = match folder.foresee(here.store(), Some(moved.from), moved.to, changes) {
            Ok(in_the_way) if in_the_way.is_empty() => continue,
            Ok(in_the_way) => super::in_the_way(&in_the_way, verb),
            Err(error) => error.into(),
        };
        let place = if **name == *here.name() { String::new() } else { format!("in workspace {name}: ") };
        refused = Some(Failure { message: place + &failure.message, ..failure });
        break;
    }
    if let Some(failure) = refused {
        // No file was touched.
        if let Some(number) = operation {
            here.repository().undo(&here.caller(context, None), Undo::Entry(number))?;
        }
        return Err(failure);
    }
    for place in 0..turns.len() {
        let (done, rest) = turns.split_at_mut(place);
        let (name, folder) = &mut rest[0];
        let Some(moved) = closed.moved.iter().find(|moved| moved.workspace == **name) else { continue };
        let (from, to) = (moved.from, moved.to);
        let followed = Moved { here, workspace: name, verb, operation, from, to, back: from, changes }.follow(context, folder);
        if followed.is_err() {
            // Those that had followed go back with it.
            for (name, folder) in done {
                if let Some(moved) = closed.moved.iter().find(|moved| moved.workspace == **name)
                    && let Err(error) = go_back(here, folder, moved.to, moved.from)
                {
                    context.console.note(format!("warning: the files of workspace {name} stay as they are: {error}"))?;
                }
            }
            return followed;
        }
    }
    Ok(())
}

fn tell_closed(context: &mut Context<'_>, closed: &Closed) -> Result<u8, Failure> {
    let removed: Vec<String> = closed.removed.iter().map(|(branch, _)| branch.to_string()).collect();
    let promoted = closed.promoted.as_ref();
    let text = promoted.map_or_else(|| "discarded".to_owned(), |(variant, at)| format!("took {variant}: {}", at.short()));
    let value = json!({"variant": promoted.map(|(variant, _)| variant.to_string()), "snapshot": promoted.map(|(_, at)| at), "removed": removed});
    answer(context, value, &format!("{text}, closed {} branches", removed.len()))
}

fn state(experiment: &Experiment) -> String {
    match &experiment.state {
        ExperimentState::Open => "open".to_owned(),
        ExperimentState::Promoted { variant, .. } => format!("promoted {variant}"),
        ExperimentState::Discarded => "discarded".to_owned(),
    }
}

fn line(experiment: &Experiment) -> String {
    format!("{} {} {} variants from {}", experiment.name, state(experiment), experiment.variants.len(), experiment.base.short())
}

fn table(experiment: &Experiment) -> String {
    let mut text = line(experiment);
    for variant in &experiment.variants {
        let best = variant.best.as_ref().map_or_else(|| "-".to_owned(), |score| score.value.to_string());
        text.push_str(&format!(
            "\n  {:<16} best {best:<10} scores {:<4} {}",
            variant.name.to_string(),
            variant.scores,
            variant.branch
        ));
    }
    text
}

fn to_json(experiment: &Experiment) -> Value {
    let score = |score: &Option<helix_versions::Score>| {
        score.as_ref().map(|score| json!({"value": score.value, "snapshot": score.snapshot, "metadata": score.metadata}))
    };
    let variants: Vec<Value> = experiment
        .variants
        .iter()
        .map(|variant| json!({"variant": variant.name.to_string(), "branch": variant.branch.as_str(), "head": variant.head, "scores": variant.scores, "best": score(&variant.best), "last": score(&variant.last)}))
        .collect();
    let goal = if experiment.goal == Goal::Lowest { "lowest" } else { "highest" };
    json!({"experiment": experiment.name.to_string(), "state": state(experiment), "goal": goal, "base": experiment.base, "metadata": experiment.metadata, "variants": variants})
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::ExperimentCommand;

    #[test]
    fn a_score_may_be_negative() {
        assert!(ExperimentCommand::try_parse_from(["experiment", "score", "e", "v", "-1.5"]).is_ok());
    }
}
