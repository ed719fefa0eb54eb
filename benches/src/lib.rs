//! Data and floors that the benches share.
//!
//! A floor is the least work a store of this kind could do, written by hand without
//! any of the engine's code: it is what the bars of docs/bench.md are relative to.

mod data;
mod floor;

pub use data::{KEY_BYTES, Records, VALUE_BYTES, shuffled};
pub use floor::{BareFile, HandTable, append_floor};

/// The median of some figures; 0 if there are none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}
