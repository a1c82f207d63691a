//! Whether a node goes on with what another one left.

/// What becomes of the tasks of a node whose lease on the records has run out.
///
/// Taking them over needs their content, so it is for nodes that share a content store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// They wait for their node, which goes on as long as it likes: while the records are away nothing can be acknowledged.
    #[default]
    Never,
    /// The node that has the lease next goes on with them once their workers' leases have ended. So a node that cannot renew
    /// its own ends, a third of the lease before it runs out.
    AfterLease,
}
