//! The records in SQL, once for SQLite and PostgreSQL.
//!
//! [`store`] is the store, [`rows`] what the rules ask of a transaction, [`read`] the queries,
//! [`statements`] the longer writes,
//! [`dialect`] everything in which the two databases differ, [`columns`] how a row becomes a value,
//! [`migrate`] the schema, [`error`] what a driver's error means.

pub(crate) mod columns;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod group;
pub(crate) mod migrate;
pub(crate) mod read;
pub(crate) mod rows;
pub(crate) mod specs;
mod statements;
pub(crate) mod store;
