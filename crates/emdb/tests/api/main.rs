//! The public API, by what it promises.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod basics;
