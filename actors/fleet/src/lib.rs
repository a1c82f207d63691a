//! The fleet branch: one actor per worker connection, leases as the node sees them.
