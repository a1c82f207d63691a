//! `helix tree`

use clap::Args;
use helix_kernel::{TreeKind, TreeNode, TreeState};
use helix_protocol::{Failure, Timestamp};

use super::Context;
use super::style::{Style, age, cut};

/// Draw the node's supervision tree as it is now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix tree
  helix tree --json | jq '.children[].name'")]
pub(super) struct Tree {}

impl Tree {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let tree: TreeNode = context.client()?.get("/system/tree").await?;
        context.print(&tree, |tree| render(tree, Timestamp::now(), context.style))
    }
}

fn render(root: &TreeNode, now: Timestamp, style: Style) -> String {
    let mut out = format!("{}\n", describe(root, now, style));
    branches(root, "", now, style, &mut out);
    out
}

fn branches(node: &TreeNode, indent: &str, now: Timestamp, style: Style, out: &mut String) {
    for (i, child) in node.children.iter().enumerate() {
        let last = i + 1 == node.children.len();
        let (joint, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        out.push_str(&format!("{indent}{joint}{}\n", describe(child, now, style)));
        branches(child, &format!("{indent}{below}"), now, style, out);
    }
}

fn describe(node: &TreeNode, now: Timestamp, style: Style) -> String {
    let mut notes = Vec::new();
    if let Some(strategy) = node.strategy {
        let word = serde_json::to_value(strategy).ok().and_then(|value| value.as_str().map(|word| word.replace('_', " ")));
        notes.extend(word);
    }
    match node.state {
        TreeState::Running => {}
        TreeState::Restarting => notes.push(style.yellow("restarting")),
        TreeState::Stopped => notes.push("stopped".to_owned()),
        TreeState::Failed => notes.push(style.red("failed")),
    }
    notes.push(age(node.since, now));
    if node.restarts > 0 {
        notes.push(style.yellow(format!("{} restarts", node.restarts)));
    }
    if node.kind == TreeKind::Actor && node.waiting > 0 {
        notes.push(format!("{}/{} waiting", node.waiting, node.limit));
    }
    if let Some(failure) = &node.last_failure {
        notes.push(style.red(cut(&format!("last: {failure}"), 100)));
    }
    let name = if node.kind == TreeKind::Supervisor { style.bold(&node.name) } else { node.name.clone() };
    format!("{name}  {}", style.dim(notes.join(", ")))
}

#[cfg(test)]
mod tests {
    use helix_kernel::{Restart, Strategy};

    use super::*;

    fn node(name: &str, children: Vec<TreeNode>) -> TreeNode {
        TreeNode {
            name: name.to_owned(),
            kind: if children.is_empty() { TreeKind::Actor } else { TreeKind::Supervisor },
            strategy: (!children.is_empty()).then_some(Strategy::OneForOne),
            restart: Restart::Permanent,
            state: TreeState::Running,
            restarts: 0,
            since: Timestamp(0),
            last_failure: None,
            waiting: 0,
            limit: 1_024,
            children,
        }
    }

    #[test]
    fn a_tree_reads_like_this() {
        let mut writer = node("writer", vec![]);
        writer.restarts = 2;
        writer.last_failure = Some("the database does not answer".to_owned());
        let mut scheduler = node("scheduler", vec![]);
        scheduler.waiting = 3;
        let root = node(
            "helix",
            vec![node("storage", vec![node("content", vec![]), writer]), node("tasks", vec![scheduler]), node("http", vec![])],
        );
        insta::assert_snapshot!(render(&root, Timestamp(300_000_000), Style::Plain));
    }
}
