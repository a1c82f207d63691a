//! The binary `heliosd`.
fn main() {}
