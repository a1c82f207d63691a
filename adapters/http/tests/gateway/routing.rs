//! Who of a group answers, as clients meet it: whatever they speak, and however a conversation goes on.

use std::sync::Arc;

use helix_config::{DeploymentConfig, GroupConfig, RoutingStrategy};
use helix_messages::DailyLimits;
use helix_ports::Provider;
use helix_protocol::WireFormat;
use serde_json::{Value, json};

use super::scripted::{Scripted, Served};
use super::{CHAT, chat, entered, post};

const MESSAGES: &str = "/v1/messages";

/// A gateway with the groups `one` and `other`, each of two providers of chat completions that take turns.
async fn taking_turns() -> Served {
    let providers = ["one-a", "one-b", "other-a", "other-b"].map(|name| Arc::new(Scripted::new(name, WireFormat::OpenaiChat)));
    let groups = ["one", "other"].map(|group| {
        let deployment = |letter: &str| DeploymentConfig {
            provider: format!("{group}-{letter}"),
            model: "m".to_owned(),
            ..DeploymentConfig::default()
        };
        let deployments = ["a", "b"].map(deployment).to_vec();
        (group.to_owned(), GroupConfig { strategy: RoutingStrategy::RoundRobin, deployments, ..GroupConfig::default() })
    });
    let providers = providers.map(|provider| provider as Arc<dyn Provider>).to_vec();
    Served::grouping(DailyLimits::default(), providers, groups.to_vec()).await
}

/// Asks each of these in turn, and who answered.
async fn answered(served: &Served, asked: &[(&str, Value)]) -> Vec<String> {
    let key = served.key(|_| {}).await;
    for (path, body) in asked {
        let (status, answer) = post(served, &key, path, body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let calls = entered(served, asked.len()).await;
    calls.iter().rev().map(|call| call.provider.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_round_for_clients_of_every_format_and_by_its_own_requests_alone() {
    for path in [CHAT, MESSAGES] {
        let served = taking_turns().await;
        let asked: Vec<_> = (0..4).map(|at| (path, chat("one", &format!("question {at}")))).collect();
        assert_eq!(answered(&served, &asked).await, ["one-a", "one-b", "one-a", "one-b"], "{path}");
    }
    let served = taking_turns().await;
    let of = |at: usize| [(CHAT, chat("one", &format!("question {at}"))), (MESSAGES, chat("other", &format!("question {at}")))];
    let asked: Vec<_> = (0..4).flat_map(of).collect();
    let round = ["one-a", "other-a", "one-b", "other-b"];
    assert_eq!(answered(&served, &asked).await, [round, round].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_with_whoever_answered_its_first_turn() {
    for path in [CHAT, MESSAGES] {
        let served = taking_turns().await;
        let turn = |conversation: usize, turns: usize| {
            let mut body = chat("one", &format!("question {conversation}"));
            if path == MESSAGES {
                body["system"] = json!("be brief");
            }
            let messages = body["messages"].as_array_mut().expect("messages");
            for _ in 0..turns {
                messages.push(json!({"role": "assistant", "content": "an answer"}));
                messages.push(json!({"role": "user", "content": "more"}));
            }
            (path, body)
        };
        let asked: Vec<_> = (0..2).flat_map(|conversation| (0..3).map(move |turns| (conversation, turns))).collect();
        let asked: Vec<_> = asked.into_iter().map(|(conversation, turns)| turn(conversation, turns)).collect();
        assert_eq!(answered(&served, &asked).await, [["one-a"; 3], ["one-b"; 3]].concat(), "{path}");
    }
}
