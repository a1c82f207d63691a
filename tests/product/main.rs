//! The product with real processes: what it promises, held against what happens when they die.
//!
//! `HELIX_CAMPAIGN=30` raises how often chance decides; `HELIX_SEED` repeats what it decided.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod adoption;
mod agent_faults;
mod agents;
mod agents_of_others;
mod attempts;
mod between_writes;
mod carried;
mod command_line;
mod commands;
mod content;
mod demo;
mod external;
mod lines;
mod litellm;
mod logins;
mod misfortunes;
mod models;
mod node_deaths;
mod replay;
mod steering;
mod sub_agents;
mod verbs;
mod web;
mod worker_deaths;
mod workloads;
