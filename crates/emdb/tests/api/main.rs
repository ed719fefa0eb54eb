//! The public API, by what it promises.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/builder.rs"]
mod support;

mod basics;
mod clears;
mod handles;
mod isolation;
mod linearizability;
mod snapshots;
mod syncs;
mod threads;
mod transactions;
mod values;
