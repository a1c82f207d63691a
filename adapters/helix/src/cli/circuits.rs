//! Circuits that are not closed, as `helix status` and `helix doctor` say them.

use helix_messages::{Circuit, DeploymentCircuit};
use helix_protocol::Timestamp;

use super::style::{age, cut};

/// Most characters of a failure's message.
const MESSAGE: usize = 200;

/// `openai/gpt-5.1: open for 12 s, tried next in 48 s: model_failed: …`; `None` where calls pass as usual.
pub(super) fn told(circuit: &DeploymentCircuit, now: Timestamp) -> Option<String> {
    let outage = circuit.circuit.outage()?;
    let (since, left) = (age(outage.since, now), age(now, outage.next_try_at));
    let state = match &circuit.circuit {
        Circuit::Closed => "closed".to_owned(),
        Circuit::Open(_) => format!("open for {since}, tried next in {left}"),
        Circuit::HalfOpen(_) if outage.next_try_at > now => format!("half-open after {since}, a call tries, another may in {left}"),
        Circuit::HalfOpen(_) => format!("half-open after {since}, the next call tries"),
        Circuit::AskedLast(_) => format!("asked last for {since}, as usual again in {left}"),
    };
    let failure = &outage.failure;
    Some(format!("{}: {state}: {}: {}", circuit.deployment, failure.code, cut(&failure.message, MESSAGE)))
}

#[cfg(test)]
pub(super) mod tests {
    use helix_messages::Outage;
    use helix_protocol::{Code, Failure};

    use super::*;

    /// A provider in service, one that failed in a row, and one model that refused our key. Seen 12 s after both began.
    pub fn circuits() -> Vec<DeploymentCircuit> {
        let of = |deployment: &str, circuit| DeploymentCircuit { deployment: deployment.to_owned(), circuit };
        let busy = Failure::new(Code::ModelFailed, "ollama cannot be reached: connection refused");
        let refused = Failure::new(Code::ModelRefused, "openai refused the key").hint("look at OPENAI_API_KEY");
        let until = |seconds: i64, failure| Outage { since: Timestamp(0), next_try_at: Timestamp(seconds * 1_000_000), failure };
        vec![
            of("anthropic", Circuit::Closed),
            of("ollama", Circuit::Open(until(20, busy))),
            of("openai", Circuit::Closed),
            of("openai/gpt-5.1", Circuit::AskedLast(until(300, refused))),
        ]
    }

    pub const SEEN: Timestamp = Timestamp(12_000_000);

    #[test]
    fn each_state_says_since_when_why_and_what_comes_next() {
        let all: Vec<_> = circuits().iter().filter_map(|circuit| told(circuit, SEEN)).collect();
        let busy = "model_failed: ollama cannot be reached: connection refused";
        assert_eq!(
            all,
            [
                format!("ollama: open for 12 s, tried next in 8 s: {busy}"),
                "openai/gpt-5.1: asked last for 12 s, as usual again in 4 min: model_refused: openai refused the key".to_owned(),
            ]
        );
        let Circuit::Open(outage) = circuits()[1].circuit.clone() else { panic!("it is open") };
        let half_open = DeploymentCircuit { deployment: "ollama".to_owned(), circuit: Circuit::HalfOpen(outage) };
        assert_eq!(told(&half_open, SEEN), Some(format!("ollama: half-open after 12 s, a call tries, another may in 8 s: {busy}")));
        let later = Timestamp(60_000_000);
        assert_eq!(told(&half_open, later), Some(format!("ollama: half-open after 60 s, the next call tries: {busy}")));
    }
}
