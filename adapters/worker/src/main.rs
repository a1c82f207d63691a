//! The binary `helix-worker`.
fn main() {}
