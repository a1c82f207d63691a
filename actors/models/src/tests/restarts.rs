//! Providers whose actor fails, and the end of the branch.

use helix_kernel::TreeNode;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_provider_actor_that_dies_leaves_its_calls_uncertain_and_comes_back() {
    let a = FakeProvider::build("a", [], true);
    let (models, handle) = models(&[&a], Limits::default()).await;
    let answer = models.generate(request(None), None).await;
    assert!(matches!(answer, Err(ProviderError::Uncertain(_))), "{answer:?}");
    sleep(Duration::from_secs(10)).await;
    let tree = handle.tree().await.expect("a tree");
    assert_eq!(restarts(&tree), [("providers", 0), ("provider:a", 1), ("router", 0)]);
    let answer = models.generate(request(None), None).await;
    assert_eq!(a.calls(), 2, "the new incarnation makes calls: {answer:?}");
}

/// How often each child was restarted, with those of branches behind them.
fn restarts(tree: &TreeNode) -> Vec<(&str, u64)> {
    tree.children.iter().flat_map(|child| [vec![(child.name.as_str(), child.restarts)], restarts(child)].concat()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_again_and_again_takes_nobody_along() {
    let (bad, good) = (FakeProvider::build("bad", [], true), FakeProvider::new("good", []));
    let (models, handle) = models(&[&bad, &good], Limits::default()).await;
    let began = Instant::now();
    for _ in 0..20 {
        let _ = models.generate(request(Some("bad")), None).await;
        assert_eq!(models.generate(request(Some("good")), None).await, Ok(reply("good")));
        sleep(Duration::from_secs(1)).await;
    }
    let tree = handle.tree().await.expect("a tree");
    let [("providers", 0), ("provider:bad", times), ("provider:good", 0), ("router", 0)] = restarts(&tree)[..] else {
        panic!("{tree:?}");
    };
    assert!(times > 5, "{times} in {:?}: it was tried again, more than another branch would bear", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_provider_is_closed_with_the_branch() {
    let (a, b) = (FakeProvider::new("a", []), FakeProvider::new("b", []));
    let (_models, handle) = models(&[&a, &b], Limits::default()).await;
    handle.shutdown().await.expect("it ends");
    assert_eq!([&a, &b].map(|provider| provider.closed.load(Ordering::SeqCst)), [1, 1]);
}
