//! The official clients against the gateway: each is a script that exits with 0 where everything it asserts holds.
//!
//! `scripts/clients.sh` installs them, in pinned versions, and says where. A client is listed in [`clients!`] once the format that
//! it speaks is served.

use std::path::Path;
use std::process::{Command, Output};

use crate::peers::{self, Peer};
use crate::scripted::Served;

/// What a script is run with.
enum Runner {
    Python,
    Node,
}

fn run(runner: &Runner, folder: &Path, script: &str, served: &Served, key: &str) -> Output {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/clients").join(script);
    let mut command = match runner {
        Runner::Python => {
            let mut command = Command::new(folder.join("python/bin/python"));
            command.arg(&source);
            command
        }
        Runner::Node => {
            // Node looks for packages from the script's own folder upwards.
            let copy = folder.join("node").join(script);
            std::fs::copy(&source, &copy).expect("the cache is writable");
            let mut command = Command::new("node");
            command.arg(copy);
            command
        }
    };
    command.env("GATEWAY", format!("http://{}", served.address)).env("GATEWAY_KEY", key);
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command.output().expect("the client starts")
}

async fn holds(runner: Runner, script: &'static str) {
    let clients = Peer::find("clients");
    if !clients.is_whole {
        return peers::without("clients", script).expect("the official clients are installed");
    }
    let served = Served::start().await;
    let key = served.key(|_| {}).await;
    let output = tokio::task::block_in_place(|| run(&runner, &clients.place, script, &served, &key));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim_end().ends_with("ok"), "{script}: {said}\n{complained}");
}

macro_rules! clients {
    ($($test:ident: $runner:ident $script:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                holds(Runner::$runner, $script).await;
            }
        )+
    };
}

clients! {
    openai_for_python_speaks_chat_completions: Python "openai_chat.py";
    openai_for_python_speaks_responses: Python "openai_responses.py";
    openai_for_node_speaks_chat_completions: Node "openai_chat.mjs";
    openai_for_node_speaks_responses: Node "openai_responses.mjs";
    anthropic_for_python_speaks_messages: Python "anthropic_messages.py";
    anthropic_for_node_speaks_messages: Node "anthropic_messages.mjs";
    genai_for_python_speaks_generate_content: Python "google_genai.py";
    ollama_for_python_speaks_its_own_chat: Python "ollama_chat.py";
}
