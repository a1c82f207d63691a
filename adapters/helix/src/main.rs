//! The binary `helix`: node and command line.
fn main() {}
