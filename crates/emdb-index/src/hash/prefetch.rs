//! Asks the processor to load a cache line early, where it can be asked.

use std::{
    ops::Range,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

const LINE_BYTES: usize = 64;

/// Begins to load the first cache line of `what`.
#[inline]
pub(super) fn prefetch<T>(what: &T) {
    prefetch_line(std::ptr::from_ref(what).cast());
}

/// Where something lies: enough to load it early, and for nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    start: *const u8,
    bytes: usize,
}

// SAFETY: nothing is ever read through the pointer.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    pub(crate) fn of<T>(what: &[T]) -> Self {
        Self {
            start: what.as_ptr().cast(),
            bytes: size_of_val(what),
        }
    }

    #[inline]
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// Begins to load all of its cache lines. It need not be there any more.
    #[inline]
    pub(crate) fn prefetch(self) {
        for at in (0..self.bytes).step_by(LINE_BYTES) {
            prefetch_line(self.start.wrapping_add(at));
        }
    }

    /// Begins to load the cache lines of some of its bytes.
    #[inline]
    pub(crate) fn prefetch_part(self, part: Range<usize>) {
        let end = part.end.min(self.bytes);
        for at in (part.start..end).step_by(LINE_BYTES) {
            prefetch_line(self.start.wrapping_add(at));
        }
        // It need not begin where a line does.
        if part.start < end {
            prefetch_line(self.start.wrapping_add(end - 1));
        }
    }
}

/// The place of something that others take the place of. Half of it may be of one and half of
/// the other, which loads the wrong lines early, and does nothing else.
#[derive(Debug)]
pub(crate) struct MovingPlace {
    start: AtomicPtr<u8>,
    bytes: AtomicUsize,
}

impl MovingPlace {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            start: AtomicPtr::new(place.start.cast_mut()),
            bytes: AtomicUsize::new(place.bytes),
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> Place {
        Place {
            start: self.start.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set(&self, place: Place) {
        self.start.store(place.start.cast_mut(), Ordering::Relaxed);
        self.bytes.store(place.bytes, Ordering::Relaxed);
    }
}

#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86_64 processor has SSE, and a prefetch has no effect
        // but on the cache, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
