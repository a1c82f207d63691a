//! The node, its command line and its demo.
//!
//! `main.rs` only calls [`cli`]; the rest is a library so that the product's tests and benches start the same code that people run.

pub mod cli;
pub mod client;
pub mod demo;
pub mod node;
pub mod scripted;
