//! Limits of which an answer said that nothing is left until a time.

use helix_ports::RateWindow;

use super::*;

const RESET: Duration = Duration::from_secs(60);

/// Nothing is left, and all is back after [`RESET`].
fn nothing() -> RateWindow {
    RateWindow { limit: 500, remaining: 0, reset_ms: u64::try_from(RESET.as_millis()).expect("a number") }
}

fn no_requests() -> RateLimits {
    RateLimits { requests: Some(nothing()), tokens: None }
}

/// A provider whose first answer says this of its limits, and later ones nothing.
fn telling(name: &str, limits: RateLimits) -> Arc<FakeProvider> {
    let provider = FakeProvider::new(name, []);
    provider.limits.lock().push_back(limits);
    provider
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_deployment_is_not_asked_before_its_time_while_another_can_answer() {
    for limits in [no_requests(), RateLimits { requests: None, tokens: Some(nothing()) }] {
        for fallback in [false, true] {
            let (a, b) = (telling("a", limits), FakeProvider::new("b", []));
            let (deployments, fallbacks) = if fallback { (&["a"][..], &["b"][..]) } else { (&["a", "b"][..], &[][..]) };
            let team = group(RoutingStrategy::Cost, deployments, fallbacks);
            let (models, _handle) = grouped(&[&a, &b], team, Limits::default()).await;
            // A session keeps nobody before its time.
            let request = ModelRequest { session: Some("s".to_owned()), ..request(Some("team")) };
            assert_eq!(models.generate(request.clone(), None).await, Ok(reply("a")));
            let told = Instant::now();
            for _ in 0..3 {
                assert_eq!(models.generate(request.clone(), None).await, Ok(reply("b")));
            }
            assert_eq!((a.calls(), told.elapsed()), (1, CALL * 3), "nothing is waited for");
            sleep(RESET - told.elapsed()).await;
            models.generate(super::request(Some("team")), None).await.expect("answered");
            assert_eq!(a.calls(), 2, "its time has come");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_only_an_exhausted_one_can_answer_waits_for_its_time_even_where_nothing_is_repeated() {
    for retries in [0, 4] {
        let a = telling("a", no_requests());
        let (models, _handle) = models(&[&a], Limits { retries, ..Limits::default() }).await;
        for _ in 0..2 {
            assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
        }
        assert!(a.pauses()[0] >= RESET && a.pauses()[0] < RESET * 2, "{:?}", a.pauses());
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_without_a_time_is_not_repeated_before_the_limits_are_back() {
    let a = FakeProvider::new("a", [busy(None)]);
    a.limits.lock().push_back(no_requests());
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    assert!(a.pauses()[0] >= RESET, "{:?}", a.pauses());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_limits_longer_than_the_call_may_take_or_than_patience() {
    let a = telling("a", no_requests());
    let (handle, _tree) = models(&[&a], Limits::default()).await;
    assert_eq!(handle.generate(request(None), None).await, Ok(reply("a")));
    assert!(tokio::time::timeout(RESET / 2, handle.generate(request(None), None)).await.is_err(), "its caller is gone");
    sleep(RESET * 2).await;
    assert_eq!(a.calls(), 1);

    let a = telling("a", no_requests());
    let (handle, _tree) = models(&[&a], Limits { patience: RESET / 2, ..Limits::default() }).await;
    assert_eq!(handle.generate(request(None), None).await, Ok(reply("a")));
    match handle.generate(request(None), None).await {
        Err(ProviderError::Retryable { failure, retry_after: Some(after), .. }) => {
            let said = "the limits of a/small are used up, as its last answer said";
            assert_eq!((failure.code, failure.message.as_str()), (Code::NoModelAnswers, said));
            assert!(after >= RESET && after < RESET * 2, "{after:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(a.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_while_answers_wait_for_their_limits() {
    let a = telling("a", no_requests());
    let (models, _handle) = models(&[&a], Limits::default()).await;
    assert_eq!(models.generate(request(None), None).await, Ok(reply("a")));
    let told = Instant::now();
    assert_eq!(models.count(request(None)).await, Ok(500));
    assert_eq!(told.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn too_little_left_for_a_turn_moves_it_behind_others_and_stops_nothing() {
    let little = RateLimits { requests: None, tokens: Some(RateWindow { limit: 5_000, remaining: 1, ..nothing() }) };
    let (a, b) = (telling("a", little), telling("b", little));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    let began = Instant::now();
    for by in ["a", "b", "a"] {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply(by)));
    }
    assert_eq!(began.elapsed(), CALL * 3);
}
