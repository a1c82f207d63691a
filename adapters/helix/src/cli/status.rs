//! `helix status`

use clap::Args;
use helix_adapter_http::api::{ProjectDay, SystemStatus};
use helix_protocol::{Budget, Failure, Spent, Timestamp};

use super::Context;
use super::circuits::told;
use super::style::{Style, age, dollars, grouped};
use super::worker::table;

/// Show the node, its workers, how many tasks are in which state, and which models nothing is sent to
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix status
  helix status --json")]
pub(super) struct Status {}

impl Status {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let status: SystemStatus = context.client()?.get("/system/status").await?;
        context.print(&status, |status| context.fit(render(status, Timestamp::now(), context.style)))
    }
}

fn render(status: &SystemStatus, now: Timestamp, style: Style) -> String {
    let node = &status.node;
    let mut out = format!(
        "{} {} has been up for {}, process {}\n  data      {}\n  records   {}\n  today     {}\n",
        style.bold("node"),
        node.node.short(),
        age(node.started_at, now),
        node.pid,
        node.data.display(),
        node.database,
        match &status.records_failure {
            None => day(Spent { money: status.spent_today, tokens: status.tokens_today }, status.daily),
            Some(failure) if failure.hint.is_empty() => style.red(format!("not known: {failure}")),
            Some(failure) => format!("{}\n            → {}", style.red(format!("not known: {failure}")), failure.hint),
        },
    );
    if let Some(ProjectDay { spent, daily }) = status.project {
        out.push_str(&format!("  project   {}\n", day(spent, daily)));
    }
    let counts: Vec<String> = status.tasks.iter().map(|(state, count)| format!("{count} {}", state.replace('_', " "))).collect();
    let counts = match &status.records_failure {
        None if counts.is_empty() => "none".to_owned(),
        None => counts.join(", "),
        Some(_) => style.red("not known: they stand in the records"),
    };
    out.push_str(&format!("  tasks     {counts}\n"));
    let troubled: Vec<String> = status.circuits.iter().filter_map(|circuit| told(circuit, now)).collect();
    let circuits = if troubled.is_empty() { "all closed".to_owned() } else { style.yellow(troubled.join("\n            ")) };
    out.push_str(&format!("  circuits  {circuits}\n\n"));
    if status.workers.is_empty() {
        out.push_str("no workers: `helix worker add local` or `helix worker add HOST` adds one\n");
    } else {
        out.push_str(&table(&status.workers, status.known_held(), now, style));
    }
    out
}

/// What was spent in a day, of what may be.
fn day(spent: Spent, daily: Budget) -> String {
    let money = daily.money.map(|most| format!(" of {}", dollars(most))).unwrap_or_default();
    let tokens = daily.tokens.map(|most| format!(" of {}", grouped(most))).unwrap_or_default();
    format!("{}{money}, {}{tokens} tokens", dollars(spent.money), grouped(spent.tokens))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use helix_adapter_http::NodeInfo;
    use helix_protocol::{Money, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::cli::circuits::tests::{SEEN, circuits};
    use crate::cli::worker::tests::view;

    #[test]
    fn a_node_with_two_workers_reads_like_this() {
        let minute = 60_000_000;
        let status = SystemStatus {
            node: NodeInfo {
                node: NodeId(Uuid::from_u128(0xabcd)),
                version: "0.1.0".to_owned(),
                pid: 4711,
                data: "/home/me/.local/share/helix".into(),
                database: "sqlite".to_owned(),
                started_at: Timestamp(0),
            },
            tasks: BTreeMap::from([("running".to_owned(), 2), ("waiting_for_worker".to_owned(), 1)]),
            workers: vec![view("alpha", true), view("buildbox", false)],
            held: BTreeMap::from([("alpha".to_owned(), 2)]),
            spent_today: Money(1_234_567),
            tokens_today: 98_765,
            daily: Budget { money: Some(Money(20_000_000)), tokens: None },
            project: Some(ProjectDay {
                spent: Spent { money: Money(500_000), tokens: 4_321 },
                daily: Budget { money: Some(Money(5_000_000)), tokens: Some(1_000_000) },
            }),
            circuits: vec![circuits()[0].clone()],
            records_failure: None,
        };
        insta::assert_snapshot!(render(&status, Timestamp(90 * minute), Style::Plain));
        let troubled = render(&SystemStatus { circuits: circuits(), ..status.clone() }, SEEN, Style::Plain);
        let lines: Vec<&str> = troubled.lines().skip_while(|line| !line.starts_with("  circuits")).take(3).collect();
        assert_eq!(
            lines,
            [
                "  circuits  ollama: open for 12 s, tried next in 8 s: model_failed: ollama cannot be reached: connection refused",
                "            openai/gpt-5.1: asked last for 12 s, as usual again in 4 min: model_refused: openai refused the key",
                "",
            ]
        );
        let away = Failure::new(helix_protocol::Code::DatabaseUnavailable, "the database does not answer: no answer within 5 s");
        let away = render(&SystemStatus { project: None, records_failure: Some(away), ..status }, SEEN, Style::Plain);
        let lines: Vec<&str> = away.lines().filter(|line| line.contains("not known")).collect();
        assert_eq!(
            lines,
            [
                "  today     not known: the database does not answer: no answer within 5 s",
                "  tasks     not known: they stand in the records",
            ]
        );
        assert_eq!(away.matches(" -/4 ").count(), 2, "{away}");
    }
}
