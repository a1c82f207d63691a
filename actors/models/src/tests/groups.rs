//! Groups: who is asked, who falls back, and who stays with a session.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_dead_provider_does_not_stop_what_its_neighbour_can_serve() {
    let (a, b) = (FakeProvider::new("a", vec![busy(None); 100]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
    }
    assert!(began.elapsed() < Duration::from_secs(40), "no backoff is waited for: {:?}", began.elapsed());
    assert!(a.calls() < 10, "its circuit opened: {}", a.calls());
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_key_or_that_a_check_found_gone_is_asked_last() {
    for name in ["keyless", "gone"] {
        let (away, b) = (FakeProvider::new(name, []), FakeProvider::new("b", [refused()]));
        let team = group(RoutingStrategy::RoundRobin, &[name, "b"], &[]);
        let (models, _handle) = grouped(&[&away, &b], team, Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply(name)), "it may be back");
        assert_eq!((away.calls(), b.calls()), (1, 1));
        let (away, b) = (FakeProvider::new(name, []), FakeProvider::new("b", []));
        let team = group(RoutingStrategy::RoundRobin, &[name, "b"], &[]);
        let (models, _handle) = grouped(&[&away, &b], team, Limits::default()).await;
        for _ in 0..4 {
            assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
        }
        assert_eq!(away.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_where_the_group_is_refused_or_away_for_long() {
    for answer in [refused(), busy(Some(100))] {
        let (a, b) = (FakeProvider::new("a", [answer]), FakeProvider::new("b", []));
        let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a"], &["b"]), Limits::default()).await;
        let began = Instant::now();
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
        assert_eq!((a.calls(), began.elapsed()), (1, CALL * 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_format_of_one_cannot_say_is_asked_of_its_neighbour_and_refused_where_nobody_can() {
    let unsaid = || Err(ProviderError::Final(Failure::new(Code::InvalidRequest, "it has no word for this")));
    for (answer, expected) in [(Ok(()), Ok(reply("b"))), (unsaid(), unsaid().map(|()| reply("b")))] {
        let (a, b) = (FakeProvider::new("a", [unsaid()]), FakeProvider::new("b", [answer]));
        let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
        assert_eq!(models.generate(request(Some("team")), None).await, expected);
        assert_eq!((a.calls(), b.calls()), (1, 1));
    }
    let (a, b) = (FakeProvider::new("a", [unsaid()]), FakeProvider::new("b", [busy(Some(3_000))]));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    let later = models.generate(request(Some("team")), None).await.expect_err("the other is busy");
    assert!(matches!(later, ProviderError::Retryable { retry_after: Some(_), .. }), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_wants_to_be_left_alone_is_not_asked_before_its_time() {
    let (a, b) = (FakeProvider::new("a", [busy(Some(60))]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    for _ in 0..3 {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("b")));
    }
    assert_eq!(a.calls(), 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply("a")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_began_is_not_asked_for_again_by_anybody() {
    let cut = Err(ProviderError::Uncertain(Failure::new(Code::ModelFailed, "cut")));
    let (a, b) = (FakeProvider::new("a", [cut]), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a", "b"], &[]), Limits::default()).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Uncertain(failure)) => assert!(failure.hint.contains("not repeated"), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((a.calls(), b.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_it_is_said_who_was_asked_and_when_it_is_worth_another_try() {
    let limits = Limits { retries: 0, ..Limits::default() };
    let (a, b) = (FakeProvider::new("a", [refused()]), FakeProvider::new("b", [busy(Some(90))]));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::Cost, &["a"], &["b"]), limits).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Retryable { failure, retry_after: Some(after), .. }) => {
            assert_eq!(failure.code, Code::NoModelAnswers);
            let said = "nobody who could answer does at present: a/small: the key is refused; b/small: busy";
            assert_eq!(failure.message, said);
            assert!(after >= Duration::from_secs(90) && after < Duration::from_secs(100), "{after:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn where_everybody_refuses_before_something_is_mended_each_way_to_mend_it_is_told_once() {
    let refusing = |name: &str, hint: &str| {
        let failure = Failure::new(Code::ModelRefused, format!("{name} refuses")).hint(hint);
        FakeProvider::new(name, [Err(ProviderError::Elsewhere(failure))])
    };
    let (a, b, c) = (refusing("a", "set A_KEY"), refusing("b", "set A_KEY"), refusing("c", "add credit at c"));
    let groups = group(RoutingStrategy::Cost, &["a", "b"], &["c"]);
    let (models, _handle) = grouped(&[&a, &b, &c], groups, Limits::default()).await;
    match models.generate(request(Some("team")), None).await {
        Err(ProviderError::Elsewhere(failure)) => {
            assert!(
                ["a/small: a refuses", "b/small: b refuses", "c/small: c refuses"].iter().all(|it| failure.message.contains(it))
            );
            assert_eq!((failure.code, failure.hint.as_str()), (Code::ModelRefused, "set A_KEY; or add credit at c"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_alone_and_away_is_nobodys_answer_in_its_own_words() {
    let limits = Limits { retries: 0, ..Limits::default() };
    let a = FakeProvider::new("a", [busy(Some(90)), refused()]);
    let (models, _handle) = models(&[&a], limits).await;
    assert_away(models.generate(request(None), None).await, Some(90));
    sleep(Duration::from_secs(100)).await;
    // What does not pass is still its own: nothing is gained by waiting.
    assert!(matches!(models.generate(request(None), None).await, Err(ProviderError::Elsewhere(_))));
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_whoever_answered_it_last() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    let of = |session: &str| ModelRequest { session: Some(session.to_owned()), ..request(Some("team")) };
    let first = models.generate(of("one"), None).await.expect("answered");
    for _ in 0..5 {
        assert_eq!(models.generate(of("one"), None).await.as_ref(), Ok(&first));
    }
    let mut both = std::collections::BTreeSet::new();
    for number in 0..4 {
        both.insert(models.generate(of(&number.to_string()), None).await.expect("answered").model);
    }
    assert_eq!(both.len(), 2, "other sessions go round");
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_round_by_its_own_new_conversations_and_by_nothing_else() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let named = |name: &str| {
        let team = group(RoutingStrategy::RoundRobin, &["a", "b"], &[]);
        team.into_iter().map(move |(_, group)| (name.to_owned(), group)).collect::<Vec<_>>()
    };
    let (models, _handle) = grouped(&[&a, &b], [named("team"), named("other")].concat(), Limits::default()).await;
    let of = |name: &str, session: &str| ModelRequest { session: Some(session.to_owned()), ..request(Some(name)) };
    for (at, by) in ["a", "b", "a", "b"].into_iter().enumerate() {
        for name in ["team", "other"] {
            models.count(request(Some(name))).await.expect("counted");
            for _ in 0..2 {
                let answer = models.generate(of(name, &at.to_string()), None).await;
                assert_eq!(answer, Ok(reply(by)), "conversation {at} of {name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_others_fall_back_to_goes_round_as_well() {
    let (a, b, c) = (FakeProvider::new("a", [busy(Some(3_000))]), FakeProvider::new("b", []), FakeProvider::new("c", []));
    let team = group(RoutingStrategy::Cost, &["a"], &["spare"]);
    let spare = group(RoutingStrategy::RoundRobin, &["b", "c"], &[]);
    let spare = spare.into_iter().map(|(_, group)| ("spare".to_owned(), group)).collect();
    let (models, _handle) = grouped(&[&a, &b, &c], [team, spare].concat(), Limits::default()).await;
    for by in ["b", "c", "b", "c"] {
        assert_eq!(models.generate(request(Some("team")), None).await, Ok(reply(by)));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_are_each_given_a_turn_of_their_own() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (models, _handle) = grouped(&[&a, &b], group(RoutingStrategy::RoundRobin, &["a", "b"], &[]), Limits::default()).await;
    futures::future::join_all((0..8).map(|_| models.generate(request(Some("team")), None))).await;
    assert_eq!((a.calls(), b.calls()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn an_equal_request_at_temperature_0_is_answered_once_where_that_is_allowed() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let sampling = Sampling { temperature: Some(0.0), ..Sampling::default() };
    let same = ModelRequest { reuse: true, sampling, ..request(None) };
    for _ in 0..3 {
        assert_eq!(models.generate(same.clone(), None).await, Ok(reply("a")));
    }
    assert_eq!(a.calls(), 1);
    models.generate(ModelRequest { reuse: false, ..same }, None).await.expect("answered");
    assert_eq!(a.calls(), 2);
}
