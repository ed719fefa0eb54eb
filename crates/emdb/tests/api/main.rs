//! The public API, by what it promises.

mod basics;
