//! Helios with real processes: the client, the engine, and what happens to them.

mod agents;
mod bad_input;
mod commands;
mod deaths;
mod engine_life;
mod harness;
mod seed;
mod store;
