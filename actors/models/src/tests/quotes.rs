//! What a turn can cost at most, before it is asked.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_quote_is_the_prompt_at_the_full_price_and_the_longest_answer() {
    let a = FakeProvider::new("a", []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    let capabilities = a.capabilities(None);
    let most = Most { money: Some(Money(700)), tokens: 600 };
    let quote = Quote { provider: "a".to_owned(), model: "small".to_owned(), most, capabilities };
    assert_eq!(models.quote(request(None)).await, Ok(quote));
    assert_eq!(models.quote(request(Some("x"))).await.expect_err("unknown").code, Code::ModelUnavailable);
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_free_is_quoted_as_nothing_and_is_told_from_what_may_cost_nobody_knows_how_much() {
    let each = ["free", "unpriced", "a"].map(|name| FakeProvider::new(name, []));
    for (deployments, money) in [
        (vec!["free"], Some(Money(0))),
        (vec!["unpriced"], None),
        (vec!["free", "unpriced"], None),
        (vec!["unpriced", "free"], None),
        (vec!["free", "a"], Some(Money(700))),
        (vec!["a", "unpriced"], Some(Money(700))),
    ] {
        let team = group(RoutingStrategy::Cost, &deployments, &[]);
        let (models, _handle) = grouped(&each.each_ref(), team, Limits::default()).await;
        let quote = models.quote(request(Some("team"))).await.expect("a quote");
        assert_eq!(quote.most, Most { money, tokens: 600 }, "{deployments:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_answers_are_quoted_each_and_a_conversation_that_goes_on_elsewhere_as_all_that_the_model_takes() {
    let a = FakeProvider::taking("a", 8_000, []);
    let (models, _handle) = models(&[&a], Limits::default()).await;
    for (extent, tokens, money) in [
        (Extent { answers: 3, ..Extent::default() }, 500 + 3 * 100, 500 + 3 * 200),
        (Extent { goes_on: true, ..Extent::default() }, 8_000 + 100, 8_000 + 200),
        (Extent { hour_in_cache: true, ..Extent::default() }, 500 + 100, 3 * 500 + 200),
    ] {
        let quote = models.quote_passing(request(None), extent).await.expect("a quote");
        assert_eq!(quote.most, Most { money: Some(Money(money)), tokens }, "{extent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_quoted_where_one_deployment_is_set_up_and_refused_where_none_is() {
    let (keyless, a) = (FakeProvider::new("keyless", []), FakeProvider::new("a", []));
    let (models, _handle) = models(&[&keyless, &a], Limits::default()).await;
    assert_eq!(models.quote(request(Some("keyless"))).await.expect_err("no key").message, "there is no key");
    let team = group(RoutingStrategy::Cost, &["keyless", "a"], &[]);
    let (models, _handle) = grouped(&[&keyless, &a], team, Limits::default()).await;
    assert!(models.quote(request(Some("team"))).await.is_ok());
}
