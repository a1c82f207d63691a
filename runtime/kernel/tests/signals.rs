//! Real signals to this process. One test, because the whole process hears them.

use helix_kernel::Shutdown;
use rustix::process::{Signal, getpid, kill_process};

#[tokio::test]
async fn the_first_signal_is_a_request_and_the_second_a_force_and_children_hear_both() {
    let shutdown = Shutdown::new();
    let branch = shutdown.child();
    let sibling = shutdown.child();
    shutdown.on_signals().expect("signals can be listened for");

    sibling.force();
    assert!(sibling.is_forced() && !shutdown.is_requested() && !branch.is_requested());

    kill_process(getpid(), Signal::TERM).expect("it is this process");
    branch.requested().await;
    assert!(shutdown.is_requested() && !branch.is_forced() && !shutdown.is_forced());

    kill_process(getpid(), Signal::INT).expect("it is this process");
    branch.forced().await;
    assert!(shutdown.is_forced());
}
