//! What is told of circuits: which are not closed, since when, why, and when they are tried next.

use helix_messages::{Circuit, Outage};
use helix_ports::RawOperation;

use super::*;

/// Every circuit, by deployment.
async fn shown(models: &Models) -> Vec<(String, Circuit)> {
    let circuits = models.circuits().await.expect("they are told");
    circuits.into_iter().map(|told| (told.deployment, told.circuit)).collect()
}

/// How long an outage has lasted when it was asked for, and how long after its beginning it is tried.
fn lasted(outage: &Outage, after: Duration) -> Duration {
    assert_eq!(outage.failure, Failure::new(Code::ModelFailed, "busy"));
    let now = helix_protocol::Timestamp::now();
    // The wall clock, which these tests do not stop, goes on a little.
    let error = now.since(outage.since).abs_diff(after);
    assert!(error < Duration::from_secs(5), "it began {error:?} from where it should");
    outage.next_try_at.since(outage.since)
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_failed_in_a_row_is_shown_until_it_has_answered() {
    let limits = Limits { retries: 0, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let (a, b) = (FakeProvider::new("a", [busy(None), busy(None)]), FakeProvider::new("b", []));
    let (models, _handle) = models(&[&a, &b], limits).await;
    let closed = |name: &str| (name.to_owned(), Circuit::Closed);
    assert_away(models.generate(request(None), None).await, None);
    assert_eq!(shown(&models).await, [closed("a"), closed("b")], "one failure is not enough");
    assert_away(models.generate(request(None), None).await, None);
    sleep(limits.cooldown / 2).await;
    let told = shown(&models).await;
    let Circuit::Open(outage) = &told[0].1 else { panic!("{told:?}") };
    assert_eq!(lasted(outage, limits.cooldown / 2), limits.cooldown);
    assert_eq!((told[0].0.as_str(), &told[1..]), ("a", &[closed("b")][..]));

    sleep(limits.cooldown).await;
    let told = shown(&models).await;
    let Circuit::HalfOpen(outage) = &told[0].1 else { panic!("{told:?}") };
    assert_eq!(lasted(outage, limits.cooldown * 3 / 2), limits.cooldown, "the next call tries");
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert_eq!(shown(&models).await, [closed("a"), closed("b")]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_asked_to_be_left_alone_or_refused_us_is_shown_beside_its_provider() {
    let a = FakeProvider::new("a", [busy(Some(60)), refused()]);
    let (models, _handle) = models(&[&a], Limits { retries: 0, ..Limits::default() }).await;
    assert_away(models.generate(request(None), None).await, Some(60));
    let told = shown(&models).await;
    let Circuit::Open(outage) = &told[1].1 else { panic!("{told:?}") };
    assert_eq!(lasted(outage, Duration::ZERO), Duration::from_secs(60));
    assert_eq!((told.len(), told[0].clone(), told[1].0.as_str()), (2, ("a".to_owned(), Circuit::Closed), "a/small"));

    sleep(Duration::from_secs(60)).await;
    assert_eq!(shown(&models).await, [("a".to_owned(), Circuit::Closed)], "its time is over");
    assert!(matches!(models.generate(request(None), None).await, Err(ProviderError::Elsewhere(_))));
    let told = shown(&models).await;
    let Circuit::AskedLast(outage) = &told[1].1 else { panic!("{told:?}") };
    assert_eq!((outage.failure.code, outage.next_try_at.since(outage.since)), (Code::ModelRefused, Duration::from_secs(300)));
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert_eq!(shown(&models).await, [("a".to_owned(), Circuit::Closed)]);
}

/// A turn of one of the models of `a`.
fn of_model(model: &str) -> ModelRequest {
    ModelRequest { model: Some(model.to_owned()), ..request(Some("a")) }
}

#[tokio::test(start_paused = true)]
async fn one_call_is_no_row_of_failures_however_often_it_is_repeated() {
    for failed in [limited, || busy(None)] {
        let a = FakeProvider::new("a", vec![failed(); 5]);
        let (models, _handle) = models(&[&a], Limits::default()).await;
        assert!(models.generate(request(None), None).await.is_err());
        assert_eq!(a.calls(), 5);
        assert!(shown(&models).await.iter().all(|(_, circuit)| *circuit == Circuit::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_without_limits_left_is_left_alone_by_itself() {
    let limits = Limits { retries: 0, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let a = FakeProvider::new("a", [limited(), limited()]);
    let (models, _handle) = models(&[&a], limits).await;
    for _ in 0..3 {
        assert!(models.generate(of_model("small"), None).await.is_err());
    }
    assert_eq!(a.calls(), 2, "nothing is sent to it while its circuit is open");
    let began = Instant::now();
    assert_eq!(models.generate(of_model("large"), None).await, Ok(reply("a")), "another model of the provider answers");
    assert_eq!(began.elapsed(), CALL);
    let told = shown(&models).await;
    assert!(
        matches!(&told[..], [(a, Circuit::Closed), (model, Circuit::Open(outage))]
        if a == "a" && model == "a/small" && outage.failure.message == "too many requests"),
        "{told:?}"
    );
    sleep(limits.cooldown).await;
    assert!(matches!(shown(&models).await[1].1, Circuit::HalfOpen(_)), "the next call tries");
    assert_eq!(models.generate(of_model("small"), None).await, Ok(reply("a")));
    assert_eq!(shown(&models).await, [("a".to_owned(), Circuit::Closed)]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_server_fails_is_left_alone_with_all_its_models() {
    let limits = Limits { retries: 0, failures: 2, cooldown: Duration::from_secs(30), ..Limits::default() };
    let a = FakeProvider::new("a", [busy(None), busy(None)]);
    let (models, _handle) = models(&[&a], limits).await;
    for model in ["small", "large", "other"] {
        assert!(models.generate(of_model(model), None).await.is_err());
    }
    assert_eq!(a.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_count_says_nothing_of_a_model_that_refused_us_whichever_way_it_is_made() {
    let a = FakeProvider::new("a", [refused()]);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert!(matches!(models.generate(request(None), None).await, Err(ProviderError::Elsewhere(_))));
    let told = shown(&models).await;
    assert!(matches!(told[1].1, Circuit::AskedLast(_)), "{told:?}");
    assert_eq!(models.count(request(None)).await, Ok(500));
    let (operation, model) = (RawOperation::CountTokens, "small".to_owned());
    let call = RawCall { operation, model, headers: Vec::new(), body: "bytes".into() };
    let counted = models.forward(None, WireFormat::OpenaiChat, call, Box::new(|| None)).await;
    assert!(counted.is_ok_and(|answer| answer.is_some()));
    let still = shown(&models).await;
    assert!(matches!(still[1].1, Circuit::AskedLast(_)), "{still:?}");
}
