//! The lock of one segment: four bytes, and one compare-and-swap when nobody
//! else wants it.
//!
//! All segments of an index share one place to sleep. Waiting is rare: two
//! writers must want keys of the same segment among thousands.

use crate::primitive::{AtomicU32, Condvar, Mutex, Ordering, lock};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WANTED: u32 = 2;

/// How often a waiter looks before it goes to sleep.
#[cfg(not(loom))]
const SPINS: u32 = 100;

/// Who may change the entries of a segment.
#[derive(Debug, Default)]
pub(super) struct SegmentLock(AtomicU32);

/// Where the waiters of all segment locks sleep.
#[derive(Debug, Default)]
pub(super) struct Parking {
    sleepers: Mutex<()>,
    released: Condvar,
}

impl SegmentLock {
    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`, receives the segment.
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[inline]
    pub(super) fn lock(&self, parking: &Parking) {
        if !self.try_lock() {
            self.lock_contended(parking);
        }
    }

    #[inline]
    pub(super) fn unlock(&self, parking: &Parking) {
        // Release: pairs with the Acquire in `try_lock` and `lock_contended`.
        if self.0.swap(FREE, Ordering::Release) == WANTED {
            parking.wake();
        }
    }

    #[cold]
    fn lock_contended(&self, parking: &Parking) {
        // A model would try every number of turns, and learn nothing.
        #[cfg(not(loom))]
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if self.0.load(Ordering::Relaxed) == FREE && self.try_lock() {
                return;
            }
        }
        let mut sleepers = lock(&parking.sleepers);
        // While this thread holds `sleepers`, whoever swaps WANTED out cannot
        // pass `wake` until this thread sleeps, so no wake-up is lost.
        while self.0.swap(WANTED, Ordering::Acquire) != FREE {
            sleepers = match parking.released.wait(sleepers) {
                Ok(sleepers) => sleepers,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
    }
}

impl Parking {
    #[cold]
    fn wake(&self) {
        drop(lock(&self.sleepers));
        self.released.notify_all();
    }
}
