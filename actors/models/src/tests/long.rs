//! Turns that a model does not take: longer than it reads or writes, with pictures, or for an answer that it cannot be held to.

use super::*;

/// A refusal of a conversation as too long.
fn overflow() -> Answer {
    Err(ProviderError::Final(Failure::new(Code::ContextOverflow, "too long")))
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_overflows_a_model_goes_to_a_larger_one_of_its_group_or_of_the_fallbacks() {
    for (deployments, fallbacks) in [(&["small", "large"][..], &[][..]), (&["small"], &["large"])] {
        let (small, large) = (FakeProvider::taking("small", 1_000, [overflow()]), FakeProvider::taking("large", 9_000, []));
        let team = group(RoutingStrategy::RoundRobin, deployments, fallbacks);
        let (models, _handle) = grouped(&[&small, &large], team, Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("large")));
        assert_eq!((small.calls(), large.calls()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_too_long_for_whom_the_strategy_prefers_is_not_sent_there() {
    // The prompt is 500 tokens long, and 100 are asked for.
    let (small, large) = (FakeProvider::taking("small", 599, []), FakeProvider::taking("large", 600, []));
    let (models, _handle) =
        grouped(&[&small, &large], group(RoutingStrategy::Cost, &["small", "large"], &[]), Limits::default()).await;
    assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("large")));
    assert_eq!(small.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_too_long_for_a_group_goes_to_whom_it_fits_among_the_fallbacks_and_else_to_the_largest_of_all() {
    // The prompt is 500 tokens long, and 100 are asked for.
    for takes in [600, 599] {
        let (small, large) = (FakeProvider::taking("small", 200, []), FakeProvider::taking("large", takes, [busy(Some(3_000))]));
        let team = group(RoutingStrategy::Cost, &["small"], &["large"]);
        let (models, _handle) = grouped(&[&small, &large], team, Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("small")), "it may know better");
        assert_eq!(large.calls.lock()[0] + CALL, small.calls.lock()[0], "after the larger one");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overflow_speaks_for_every_model_that_is_no_larger() {
    let (a, b) = (FakeProvider::new("a", [overflow()]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    assert_eq!(models.generate(request(Some("team")), None).await.map(drop), overflow());
    assert_eq!(b.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_too_long_for_whoever_is_there_waits_for_a_larger_model_that_is_away() {
    let (small, alike) = (FakeProvider::taking("small", 1_000, [overflow()]), FakeProvider::taking("alike", 1_000, []));
    let large = FakeProvider::taking("large", 9_000, vec![busy(Some(600)); 9]);
    let team = group(RoutingStrategy::Cost, &["small", "alike", "large"], &[]);
    let (models, _handle) = grouped(&[&small, &alike, &large], team, Limits::default()).await;
    let Err(ProviderError::Retryable { failure, retry_after: Some(_), .. }) = models.generate(request(Some("team")), None).await
    else {
        panic!("the larger one may answer later")
    };
    assert_eq!((failure.code, small.calls(), alike.calls()), (Code::NoModelAnswers, 1, 0));
    let said = "nobody who could answer does at present: small/small: too long; alike/small takes no more; large/small: busy";
    assert_eq!(failure.message, said);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_a_choice_nobody_is_asked_for_a_longer_answer_than_it_writes() {
    let most = u32::try_from(ModelCapabilities::default().output_tokens).expect("a number");
    let long = |name| ModelRequest { max_tokens: most + 1, ..request(Some(name)) };
    let asked = |provider: &FakeProvider| provider.asked.lock()[0].max_tokens;
    for (deployments, fallbacks) in [(&["verbose", "b"][..], &[][..]), (&["verbose"], &["b"])] {
        let (verbose, b) = (FakeProvider::new("verbose", [refused()]), FakeProvider::new("b", []));
        let team = group(RoutingStrategy::RoundRobin, deployments, fallbacks);
        let (models, _handle) = grouped(&[&verbose, &b], team, Limits::default()).await;
        assert_eq!(models.generate(long("team"), None).await, Ok(reply("b")));
        assert_eq!((asked(&verbose), asked(&b)), (most + 1, most));
    }
    let b = FakeProvider::new("b", []);
    let (models, _handle) = models(&[&b], Limits::default()).await;
    assert_eq!(models.generate(long("b"), None).await, Ok(reply("b")));
    assert_eq!(asked(&b), most + 1, "one that is alone is asked what the client asks");
}

#[tokio::test(start_paused = true)]
async fn a_long_turn_is_quoted_at_the_price_of_long_ones() {
    let (usual, long) = (FakeProvider::new("usual", []), FakeProvider::new("dear-when-long", []));
    let (models, _handle) = models(&[&usual, &long], Limits::default()).await;
    let quoted = |name| models.quote(request(Some(name)));
    assert_eq!(
        (quoted("usual").await.expect("a quote").most.money, quoted("dear-when-long").await.expect("a quote").most.money),
        (Some(Money(700)), Some(Money(1_400)))
    );
}

fn with_a_picture() -> ModelRequest {
    let image = helix_protocol::ImageSource::Url { url: "https://example.org/a.png".to_owned() };
    let mut shown = request(Some("team"));
    shown.messages[0].blocks.push(Block::Image { image, extra: None });
    shown
}

#[tokio::test(start_paused = true)]
async fn pictures_go_to_whoever_takes_them() {
    let (blind, seeing) = (FakeProvider::new("blind", []), FakeProvider::new("seeing", []));
    let team = group(RoutingStrategy::Cost, &["blind", "seeing"], &[]);
    let (models, _handle) = grouped(&[&blind, &seeing], team, Limits::default()).await;
    assert_eq!(models.generate(with_a_picture(), None).await, Ok(reply("seeing")));
    assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("blind")));
}

#[tokio::test(start_paused = true)]
async fn json_is_asked_of_whoever_can_be_held_to_it() {
    let (wordy, b) = (FakeProvider::new("wordy", []), FakeProvider::new("b", []));
    let team = group(RoutingStrategy::Cost, &["wordy", "b"], &[]);
    let (models, _handle) = grouped(&[&wordy, &b], team, Limits::default()).await;
    let asked = ModelRequest { output: OutputFormat::JsonObject, ..request(Some("team")) };
    assert_eq!(models.generate(asked, None).await, Ok(reply("b")));
    assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("wordy")));
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_for_a_model_that_takes_pictures_is_told_of_them_where_it_takes_none() {
    for (deployments, fallbacks) in [(&["blind", "seeing"][..], &[][..]), (&["seeing"], &["blind"])] {
        let (blind, seeing) = (FakeProvider::new("blind", []), FakeProvider::new("seeing", [busy(Some(100))]));
        let team = group(RoutingStrategy::Cost, deployments, fallbacks);
        let (models, _handle) = grouped(&[&blind, &seeing], team, Limits::default()).await;
        assert_eq!(models.generate(with_a_picture(), None).await, Ok(reply("blind")));
        assert!(seeing.asked.lock()[0].messages[0].has_pictures());
        let told = blind.asked.lock()[0].messages[0].clone();
        assert!(!told.has_pictures() && told.as_text().contains("a picture is left out"), "{told:?}");
    }
    // Who is asked alone gets what was sent: nobody knows every model.
    let blind = FakeProvider::new("blind", []);
    let (models, _handle) = grouped(&[&blind], group(RoutingStrategy::Cost, &["blind"], &[]), Limits::default()).await;
    assert_eq!(models.generate(with_a_picture(), None).await, Ok(reply("blind")));
    assert!(blind.asked.lock()[0].messages[0].has_pictures());
}
