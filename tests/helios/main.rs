//! Helios with real processes: the client, the engine, and what happens to them.

mod agents;
mod bad_input;
mod beside_git;
mod clock;
mod commands;
mod deaths;
mod engine_life;
mod full_disk;
mod harness;
mod json;
mod kept;
mod like_git;
mod loss;
mod purge;
mod seed;
mod staging;
mod store;
mod trust;
