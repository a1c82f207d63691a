//! The agent loops and shell lines that Helios was asked for, run as they were written, with a stand-in for the model.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Ended, User, ended};

/// The folder with the programs as they were written.
fn written() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/helios/seed"))
}

/// Runs one of the programs between some lines before it and some behind it.
fn python(user: &User, cwd: &Path, before: &str, name: &str, behind: &str) -> Ended {
    let text = fs::read_to_string(written().join(name)).expect("it is there");
    let program = user.path(name);
    fs::write(&program, format!("{before}\n{text}\n{behind}\n")).expect("written");
    let mut command = user.program("python3", cwd);
    command
        .arg(&program)
        .env("PYTHONPATH", written().join("stand_ins"))
        .env("PYTHONIOENCODING", "utf-8")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = ended(&mut command);
    assert_eq!(ended.code, 0, "{name}: {}{}", ended.out, ended.err);
    ended
}

/// The last line of the output, as JSON.
fn told(ended: &Ended) -> Value {
    serde_json::from_str(ended.out.lines().last().unwrap_or_default()).expect("a line of JSON")
}

/// A shell line; it must succeed.
fn shell(user: &User, cwd: &Path, line: &str) -> String {
    let ended = ended(user.program("sh", cwd).args(["-c", line]));
    assert_eq!(ended.code, 0, "{line}: {}{}", ended.out, ended.err);
    ended.out
}

#[test]
fn the_loop_over_variants_ends_with_the_best_in_the_folder_and_at_the_head() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "readme", "1");
    let before = r##"
import openai
scores = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
# The same text twice in a row too: a model repeats itself.
openai.answers = [f"def sort(items): return sorted(items)  # {score}\n" for score in scores for _ in range(5)]
def run_performance_tests():
    return scores[(len(openai.asked) - 1) // 5]
"##;
    let behind = "import json\nprint(json.dumps({'code': best_code, 'score': score, 'asked': len(openai.asked)}))";
    let told = told(&python(&user, &root, before, "variants.py", behind));
    let best = "def sort(items): return sorted(items)  # 9\n";
    assert_eq!(told, serde_json::json!({"code": best, "score": 9, "asked": 50}));
    assert_eq!(fs::read_to_string(root.join("solution.py")).expect("read"), best);
    assert_eq!(user.ok(&root, &["show", "HEAD:solution.py"]), best);
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 5, "the base and each variant that was better");
    let commits = user.ok(&root, &["oplog", "-n", "1000"]).lines().filter(|line| line.contains(": commit ")).count();
    assert_eq!(commits, 51, "every variant was committed");
}

const MODEL: &str = r##"
import json, threading
local = threading.local()
target_score = 9
class your_ai_model:
    @staticmethod
    def generate(prompt, agent_id, iteration):
        local.agent, local.score = agent_id, (iteration * 7 + agent_id * 3) % 10
        return f"# agent {agent_id}, iteration {iteration}, score {local.score}\n"
def run_tests():
    return local.score
"##;

/// Notes what the seed's program does and when, as `notes`: (what, agent or nobody, begin, end). It changes nothing of that.
const NOTES: &str = r##"
import builtins, contextlib, subprocess, time
notes = []
def noted(what, who, do):
    begin = time.monotonic()
    try:
        return do()
    finally:
        notes.append((what, who, begin, time.monotonic()))
run_before, open_before = subprocess.run, builtins.open
def run_noted(arguments, *rest, **named):
    return noted(arguments[1], getattr(local, "agent", None), lambda: run_before(arguments, *rest, **named))
@contextlib.contextmanager
def open_noted(name, mode="r"):
    begin = time.monotonic()
    with open_before(name, mode) as file:
        yield file
    notes.append(("write", local.agent, begin, time.monotonic(), local.score))
subprocess.run, open = run_noted, open_noted
"##;

#[test]
fn five_agents_in_one_folder_lose_nothing_that_they_were_told_of() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "readme", "1");
    let behind = "print(json.dumps({'results': results, 'winner': winner, 'notes': notes}))";
    let ended = python(&user, &root, &[MODEL, NOTES].concat(), "agents.py", behind);
    let told = told(&ended);
    // Whatever a commit or rev-parse named is still there.
    let named = ended.out.lines().filter_map(|line| line.strip_prefix('[')?.split(']').next()?.rsplit(' ').next());
    let named: Vec<String> = named
        .map(str::to_owned)
        .chain(told["results"].as_array().expect("a list").iter().map(|result| result[2].as_str().expect("an id").to_owned()))
        .collect();
    assert!(named.len() > 5);
    for id in &named {
        user.ok(&root, &["cat-file", "-e", id]);
    }
    // The author meant each agent's last `rev-parse HEAD` to hold its best file. That cannot be had: the agents share one folder
    // and one head, which may be another's by then, and another one's reset may come between an agent's writing and its commit. The
    // file is then in the snapshot that was kept before the reset, unless it was written in the very moment of it.
    let mut log = Vec::new();
    for line in user.ok(&root, &["--json", "oplog", "-n", "100000"]).lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        log.extend(
            entry["changes"].as_array().expect("a list").iter().filter_map(|change| change["after"].as_str().map(str::to_owned)),
        );
    }
    log.retain(|value| value.len() == 64);
    log.sort();
    log.dedup();
    let notes = told["notes"].as_array().expect("a list");
    let time = |note: &Value| (note[2].as_f64().expect("seconds"), note[3].as_f64().expect("seconds"));
    let written_in_a_reset = |agent: u64| {
        let written = notes.iter().rfind(|note| note[0] == "write" && note[1] == agent).expect("it wrote");
        assert_eq!(written[4], 9, "the last one is the best");
        let mut resets = notes.iter().filter(|note| note[0] == "reset" && note[1] != agent).map(time);
        resets.any(|(begin, end)| begin <= time(written).1 && time(written).0 <= end)
    };
    let mut kept = 0;
    for result in told["results"].as_array().expect("a list") {
        let (agent, score) = (result[0].as_u64().expect("a number"), result[1].as_u64().expect("a number"));
        assert_eq!(score, 9);
        let holds = |id: &String| user.run(&root, &["show", &format!("{id}:solution_{agent}.py")]).out.contains("score 9");
        let is_kept = log.iter().any(holds);
        assert!(is_kept || written_in_a_reset(agent), "the best of agent {agent} is in no snapshot: {notes:?}");
        kept += usize::from(is_kept);
    }
    assert!(kept >= 3, "the best of {kept} agents is in a snapshot");
    user.ok(&root, &["fsck"]);
}

#[test]
fn five_agents_in_workspaces_each_keep_their_best_and_the_winner_is_merged() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "readme", "1");
    let behind = "print(json.dumps({'results': results, 'winner': winner}))";
    let told = told(&python(&user, &root, MODEL, "agents_in_workspaces.py", behind));
    for result in told["results"].as_array().expect("a list") {
        let (agent, id) = (result[0].as_u64().expect("a number"), result[2].as_str().expect("an id"));
        assert!(user.ok(&root, &["show", &format!("{id}:solution_{agent}.py")]).contains("score 9"));
        assert_eq!(user.ok(&root, &["rev-parse", &format!("agent-{agent}-experiment")]).trim(), id);
    }
    let winner = told["winner"][0].as_u64().expect("a number");
    assert!(fs::read_to_string(root.join(format!("solution_{winner}.py"))).expect("merged").contains("score 9"));
}

#[test]
fn a_refactoring_is_kept_or_taken_back_whole() {
    let user = User::new();
    let root = user.repository("work");
    fs::create_dir(root.join("src")).expect("made");
    for name in ["a.py", "b.py"] {
        fs::write(root.join("src").join(name), "old\n").expect("written");
    }
    user.ok(&root, &["commit", "--work", "."]);
    let before = |passes: &str| {
        format!(
            "class your_ai_agent:\n    @staticmethod\n    def refactor_codebase(path, instructions):\n        return {{path + name: 'new\\n' for name in ('a.py', 'b.py', 'c.py')}}\ndef run_all_tests():\n    return {passes}\ndef passes_code_quality_checks():\n    return True\n"
        )
    };
    let behind = "import json\nprint(json.dumps(success))";
    let content = |name: &str| fs::read_to_string(root.join("src").join(name)).ok();
    assert_eq!(told(&python(&user, &root, &before("False"), "refactor.py", behind)), false);
    assert_eq!((content("a.py"), content("b.py"), content("c.py")), (Some("old\n".into()), Some("old\n".into()), None));
    user.ok(&root, &["switch", "main"]);
    user.ok(&root, &["reset", "--hard", "HEAD~1"]);
    assert_eq!(told(&python(&user, &root, &before("True"), "refactor.py", behind)), true);
    assert_eq!((content("a.py"), content("c.py")), (Some("new\n".into()), Some("new\n".into())));
    assert_eq!(user.ok(&root, &["status", "--porcelain"]), "");
}

#[test]
fn the_plain_loop_goes_back_after_each_failure() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "readme", "1");
    let before = "import openai\nopenai.answers = [f'{number}\\n' for number in range(10)]\ndef run_tests():\n    return len(openai.asked) % 3 == 0\n";
    python(&user, &root, before, "loop.py", "ai_code_generation_loop('write', 10)");
    assert_eq!(user.ok(&root, &["show", "HEAD:generated.py"]), "8\n");
    assert_eq!(fs::read_to_string(root.join("generated.py")).expect("read"), "8\n");
    assert_eq!(user.ok(&root, &["log", "--oneline"]).lines().count(), 4);
}

#[test]
fn an_agent_that_fails_leaves_the_folder_as_it_was() {
    let user = User::new();
    let root = user.repository("work");
    user.commit(&root, "f", "1");
    let behind = r#"
def works(task):
    open("f", "w").write("2")
    return "done"
def fails(task):
    open("f", "w").write("broken")
    subprocess.run(["helios", "commit", "--work", "."])
    raise ValueError("no")
assert langchain_with_version_control(AgentExecutor(works), "t") == "done"
try:
    langchain_with_version_control(AgentExecutor(fails), "t")
except ValueError as e:
    print(str(e))
"#;
    assert_eq!(python(&user, &root, "", "chain.py", behind).out.lines().last(), Some("no"));
    assert_eq!(fs::read_to_string(root.join("f")).expect("read"), "2");
}

#[test]
fn the_lines_of_the_documents_can_be_pasted() {
    let documents = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    for (document, least) in [("docs/helios.md", 12), ("README.md", 8)] {
        let user = User::new();
        let place = user.path("documents");
        fs::create_dir_all(place.join("project")).expect("made");
        fs::write(place.join("project/f"), "1\n").expect("written");
        let text = fs::read_to_string(documents.join(document)).expect("it is there");
        let lines: Vec<&str> =
            text.split("```sh\n").skip(1).flat_map(|part| part.split("```").next()).flat_map(str::lines).collect();
        let commands = lines.iter().filter(|line| line.starts_with("helios ")).count();
        assert!(commands >= least, "{document}: {commands} commands");
        let cwd = if lines.iter().any(|line| line.starts_with("cd ")) { place } else { place.join("project") };
        shell(&user, &cwd, &format!("set -e\n{}\n", lines.join("\n")));
    }
}

#[test]
fn the_shell_lines_do_what_they_say() {
    let user = User::new();
    let root = user.path("ai-project");
    fs::create_dir(&root).expect("made");
    let git = "git -c user.name=G -c user.email=g@example.org -c init.defaultBranch=main";
    shell(
        &user,
        &root,
        &format!("{git} init -q . && echo 1 > f && git add f && {git} commit -q -m one && echo 2 > f && {git} commit -q -a -m two"),
    );
    // Migration, step by step.
    shell(&user, &root, "helios import --from-git .");
    let ours = shell(&user, &root, "helios log --oneline | head -10");
    let theirs = shell(&user, &root, "git log --oneline | head -10");
    let subjects =
        |text: &str| text.lines().map(|line| line.split_once(' ').expect("an id and a subject").1.to_owned()).collect::<Vec<_>>();
    assert_eq!(subjects(&ours), subjects(&theirs));
    shell(&user, &root, "helios log | head -10");
    shell(&user, &root, "helios checkout main");
    let both = shell(&user, &root, "ls -a");
    assert!(both.contains(".git\n") && both.contains(".helios\n"));
    assert_eq!(
        shell(&user, &root, "helios status --porcelain && git status --porcelain"),
        "",
        "each leaves the other's folder alone"
    );
    // The basic commands.
    shell(&user, &root, "echo 3 > f && helios add f && helios commit --work .");
    let base = shell(&user, &root, "helios rev-parse HEAD");
    shell(&user, &root, &format!("helios branch try {} && helios checkout try && helios checkout {}", base.trim(), &base[..12]));
    shell(&user, &root, "helios experiment start parser && helios experiment list | grep parser");
    // Figures.
    for key in
        ["commit_latency", "cache_hit_ratio", "storage_utilization", "compaction_pending", "memory_usage", "compression_ratio"]
    {
        shell(&user, &root, &format!("helios stats | grep {key}"));
    }
    for key in ["commit_latency_p95", "commits_per_hour", "active_snapshots"] {
        shell(&user, &root, &format!("helios stats | grep '^{key}: '"));
    }
    // Troubleshooting.
    shell(&user, &root, "helios config set performance.l1_cache_size \"2GB\"");
    shell(&user, &root, "helios config set storage.pebbledb.write_buffer_size \"512MB\"");
    shell(&user, &root, "helios config set cleanup.auto_gc_enabled true");
    shell(&user, &root, "helios config set cleanup.snapshot_ttl \"24h\"");
    shell(&user, &root, "helios config set performance.compression \"zstd\"");
    shell(&user, &root, "helios gc --remove-old-snapshots --before=\"48h\" && helios gc --aggressive && helios gc && helios fsck");
    // And all of it is git's again.
    shell(&user, &root, "helios switch main && helios export --to-git ../back.git");
    let ids = |place: &str| shell(&user, &root, &format!("git -C {place} rev-parse main~1 main~2"));
    let original = shell(&user, &root, "git rev-parse main main~1");
    assert_eq!(ids("../back.git"), original);
}
