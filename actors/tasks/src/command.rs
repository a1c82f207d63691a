//! The built-in kind `command`: shell commands in order, one step each.

use async_trait::async_trait;
use helix_ports::{OUTPUT, SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{Code, CommandSpec, ExitReport, Failure, TaskWork};

/// How much of a failed command's output its failure repeats, in characters.
const QUOTED: usize = 2_000;

/// How a shell ends that did not find a program.
const NOT_FOUND: i32 = 127;

/// Runs commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandKind;

#[async_trait]
impl TaskKind for CommandKind {
    fn name(&self) -> &str {
        "command"
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let TaskWork::Command(spec) = host.task().spec.work.clone() else {
            return Err(Failure::new(Code::InvalidRequest, "this is no command task"));
        };
        if spec.commands.is_empty() {
            return nothing(host).await;
        }
        let index = usize::try_from(host.ordinal() - 1).unwrap_or(usize::MAX);
        // A fork of a command task's last step has nothing left to run.
        let Some(command) = spec.commands.get(index) else { return nothing(host).await };
        let last = index + 1 == spec.commands.len();
        if last && !spec.artifacts.is_empty() {
            host.note(SnapshotNote::Artifacts(spec.artifacts.clone()));
        }
        let report = host.run(command, None).await?;
        if report.exit_code != 0 {
            return Err(failed(&report));
        }
        let summary = summary(&spec, index);
        let end = if last { TurnEnd::Finished } else { TurnEnd::Continue };
        Ok(StepResult { summary, messages: Vec::new(), exits: vec![report], end })
    }
}

async fn nothing(host: &mut dyn StepHost) -> Result<StepResult, Failure> {
    host.note(SnapshotNote::NoFiles);
    host.ping().await?;
    Ok(StepResult { summary: "nothing to do".to_owned(), messages: Vec::new(), exits: Vec::new(), end: TurnEnd::Finished })
}

fn summary(spec: &CommandSpec, index: usize) -> String {
    let command = spec.commands[index].lines().next().unwrap_or_default();
    let shown: String = command.chars().take(80).collect();
    if spec.commands.len() == 1 { shown } else { format!("{}/{}: {shown}", index + 1, spec.commands.len()) }
}

fn failed(report: &ExitReport) -> Failure {
    let how = match report.exit_code {
        code @ 129..=192 => format!("was ended by signal {}", code - 128),
        code => format!("ended with exit code {code}"),
    };
    let tail = report.tail.trim_end();
    let skipped = tail.chars().count().saturating_sub(QUOTED);
    let quoted: String = tail.chars().skip(skipped).collect();
    let command = report.command.lines().next().unwrap_or_default();
    let output = if quoted.is_empty() { String::new() } else { format!("{OUTPUT}{quoted}") };
    if let Some(program) = missing_program(report) {
        let message = format!("the worker has no program {program}: `{command}` {how}");
        return Failure::new(Code::ProgramMissing, message)
            .hint(format!("install it on the worker, or run the task with `--needs {program}` on one that has it"));
    }
    Failure::new(Code::CommandFailed, format!("`{command}` {how}{output}")).hint("`helix task log` shows its whole output")
}

/// The program that the shell did not find, where that is what it ended with. A path names a file of the workspace, not
/// a program of the worker.
fn missing_program(report: &ExitReport) -> Option<&str> {
    let last = report.tail.trim_end().lines().next_back().filter(|_| report.exit_code == NOT_FOUND)?;
    let said = last.strip_suffix(": command not found").or_else(|| last.strip_suffix(": not found"))?;
    let program = said.rsplit(": ").next().unwrap_or(said);
    (!program.is_empty() && !program.contains(|c: char| c.is_whitespace() || c == '/')).then_some(program)
}

#[cfg(test)]
mod tests {
    use helix_protocol::RunId;

    use super::*;

    #[test]
    fn a_failed_command_says_how_it_ended_and_quotes_its_output() {
        let report = |exit_code, tail: &str| ExitReport {
            run: RunId::new(),
            command: "make test\nmore".to_owned(),
            exit_code,
            tail: tail.to_owned(),
            output: None,
            output_bytes: 0,
        };
        assert_eq!(failed(&report(2, "")).message, "`make test` ended with exit code 2");
        assert_eq!(failed(&report(137, "killed\n")).message, "`make test` was ended by signal 9; its output ended with:\nkilled");
    }

    #[test]
    fn a_program_that_the_worker_lacks_is_told_from_a_command_that_failed() {
        let of = |exit_code, tail: &str| ExitReport {
            run: RunId::new(),
            command: "tool --all".to_owned(),
            exit_code,
            tail: tail.to_owned(),
            output: None,
            output_bytes: 0,
        };
        for said in ["/bin/sh: 1: tool: not found\n", "begins\nbash: line 1: tool: command not found\n", "sh: tool: not found"] {
            let failure = failed(&of(127, said));
            assert_eq!(failure.code, Code::ProgramMissing, "{said}");
            assert_eq!(failure.message, "the worker has no program tool: `tool --all` ended with exit code 127");
            assert!(failure.hint.contains("--needs tool"), "{}", failure.hint);
        }
        let others =
            [(1, "sh: tool: not found"), (127, ""), (127, "no such key: not found"), (127, "sh: 1: ./train.sh: not found")];
        for (exit_code, said) in others {
            assert_eq!(failed(&of(exit_code, said)).code, Code::CommandFailed, "{said}");
        }
    }

    #[test]
    fn a_summary_counts_where_there_are_several() {
        let spec = |commands: &[&str]| CommandSpec {
            commands: commands.iter().map(|text| (*text).to_owned()).collect(),
            artifacts: Vec::new(),
        };
        assert_eq!(summary(&spec(&["make"]), 0), "make");
        assert_eq!(summary(&spec(&["make", "make test"]), 1), "2/2: make test");
    }
}
