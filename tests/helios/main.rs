//! Helios with real processes: the client, the engine, and what happens to them.

mod agents;
mod bad_input;
mod beside_git;
mod clock;
mod commands;
mod deaths;
mod differential;
mod engine_life;
mod full_disk;
mod harness;
mod json;
mod kept;
mod large_folder;
mod like_git;
mod loss;
#[path = "../harness/not_run.rs"]
mod not_run;
mod paths_like_git;
mod purge;
mod seed;
mod staging;
mod store;
mod trust;
