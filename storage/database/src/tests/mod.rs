//! Tests of what is beneath the contract: files, servers, full disks, lost answers.

#![allow(clippy::unwrap_used)]

mod equality;
mod postgres;
mod proxy;
mod sqlite;
mod step_tree;
