//! What a test does as somebody whom the modes of files bind. Root reads everything, whatever they say.

use std::panic::resume_unwind;
use std::thread;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Works on a thread that has given up every capability, as have the threads that it starts: for root, too, modes count there.
pub(crate) fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let none = CapabilitySet::empty();
    let bound = move || {
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(bound).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
