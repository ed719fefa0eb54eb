//! The atomics by which writers, batches and readers meet: those of std, or loom's under
//! `--cfg loom`.
//!
//! Under loom, threads that wait for the write side cannot be modelled: they are one
//! thread of the system there, which already has it.

use std::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU64;

/// The newest value. Loom takes a SeqCst load for an Acquire one, which may give an older
/// one; an exchange gives none but the newest there.
#[inline]
pub(crate) fn load_seq_cst(word: &AtomicU64) -> u64 {
    #[cfg(loom)]
    return word.fetch_add(0, Ordering::SeqCst);
    #[cfg(not(loom))]
    word.load(Ordering::SeqCst)
}

/// Waits a little for another thread that is about to finish.
#[inline]
pub(crate) fn pause(turn: &mut u32) {
    *turn = turn.saturating_add(1);
    // A model needs to know that this thread cannot go on.
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    if *turn < 200 {
        std::hint::spin_loop();
    } else {
        // Whoever is before us was descheduled in the middle of a copy.
        std::thread::yield_now();
    }
}
