//! The atomics and locks of this crate: those of std, or loom's under
//! `--cfg loom`.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering, fence},
};

use std::sync::PoisonError;

/// Locks a mutex whose data stays whole even if a holder panicked: every
/// critical section of this crate changes it in a panic-free way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores with Release where others compare and swap.
#[inline]
pub(crate) fn store_over_swaps(to: &AtomicU64, value: u64) {
    #[cfg(not(loom))]
    to.store(value, Ordering::Release);
    // Loom would put a swap of what was there before behind the store; no such order
    // exists. The model `loom_loses_a_store_to_a_compare_and_swap_before_it` of emdb-engine
    // shows it.
    #[cfg(loom)]
    to.swap(value, Ordering::Release);
}

/// Waits a little for another thread that is about to finish.
pub(crate) fn pause(turn: &mut u32) {
    // A model needs to know that this thread cannot go on.
    #[cfg(loom)]
    loom::thread::yield_now();
    // Soon enough the other thread does not run at all, and must be let run.
    #[cfg(not(loom))]
    if *turn < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
    *turn = turn.saturating_add(1);
}
