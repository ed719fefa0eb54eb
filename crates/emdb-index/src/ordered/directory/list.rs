//! The skip list, and how it is kept from freeing what is being read.

use std::{
    ops::Bound,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, Ordering},
};

use crossbeam_epoch::Guard;
use crossbeam_skiplist::base::{Entry, SkipList};

use super::{Fence, Trunk};

pub(in crate::ordered) use std::sync::Arc;

pub(super) struct List(SkipList<Fence, Trunk>);

/// While it lives, nothing is freed that its thread may look at.
pub(in crate::ordered) struct Pin(Guard);

/// Leads to a leaf or a branch that somebody will free; does nothing about that itself.
///
/// *Invariant:* what it leads to is an `Arc` of which the handles, all together, have one count.
pub(super) struct Handle<T>(NonNull<T>);

/// A branch, as long as a pin lives.
pub(super) type Lent<'g, T> = &'g T;

/// Where a trunk leads to a branch, and to others that take its place.
pub(super) struct Cell<T>(AtomicPtr<T>);

/// A trunk in the list, or one that was there a moment ago.
pub(super) struct Held<'g>(Entry<'g, 'g, Fence, Trunk>);

impl Pin {
    #[inline]
    pub(in crate::ordered) fn new() -> Self {
        Self(crossbeam_epoch::pin())
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

// SAFETY: a handle gives references and shares to the threads that have it, and is freed by one.
unsafe impl<T: Send + Sync> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Handle<T> {}

impl<T> Handle<T> {
    pub(super) fn new(part: T) -> Self {
        let part = Arc::into_raw(Arc::new(part));
        // SAFETY: an `Arc` is never null.
        Self(unsafe { NonNull::new_unchecked(part.cast_mut()) })
    }

    /// # Safety
    /// Nobody frees it as long as the reference lives.
    #[inline]
    pub(super) unsafe fn get(&self) -> &T {
        // SAFETY: the caller's; the `Arc` still has the count of the handles.
        unsafe { self.0.as_ref() }
    }

    /// To keep it for longer.
    ///
    /// # Safety
    /// As [`Self::get`], until this returns.
    pub(super) unsafe fn share(&self) -> Arc<T> {
        // SAFETY: it came from an `Arc`, which still has the count of the handles.
        unsafe { Arc::increment_strong_count(self.0.as_ptr()) };
        // SAFETY: as above; this is the count that was added.
        unsafe { Arc::from_raw(self.0.as_ptr()) }
    }

    /// Frees it once nobody looks at it any more who has found it before.
    ///
    /// # Safety
    /// It is freed once. Who pins from now on does not find it.
    pub(super) unsafe fn free_after(self, pin: &Pin) {
        // SAFETY: the caller's; and nobody looks at it once all pins of now are gone.
        let free = move || unsafe { self.free() };
        // SAFETY: what is called later may be sent to another thread, and outlives no borrow.
        unsafe { pin.0.defer_unchecked(free) }
    }

    /// # Safety
    /// It is freed once, and nobody looks at it any more.
    pub(super) unsafe fn free(self) {
        // SAFETY: it came from an `Arc`, of which this is the count of the handles.
        drop(unsafe { Arc::from_raw(self.0.as_ptr()) });
    }
}

impl<T> Cell<T> {
    pub(super) fn new(part: &Handle<T>) -> Self {
        Self(AtomicPtr::new(part.0.as_ptr()))
    }

    /// What it leads to, unless the trunk has been given up.
    pub(super) fn get(&self) -> Option<Handle<T>> {
        // Acquire: pairs with the Release in `set`, receives what the part was made of.
        NonNull::new(self.0.load(Ordering::Acquire)).map(Handle)
    }

    /// As `get`.
    ///
    /// # Safety
    /// Who frees it has the cell lead elsewhere before, and then waits for the pin.
    #[inline]
    pub(super) unsafe fn lend<'g>(&self, _: &'g Pin) -> Option<Lent<'g, T>> {
        // SAFETY: the caller's.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Has it lead to something else, or to nothing.
    pub(super) fn set(&self, part: Option<&Handle<T>>) {
        let part = part.map_or(null_mut(), |part| part.0.as_ptr());
        self.0.store(part, Ordering::Release);
    }
}

impl Held<'_> {
    #[inline]
    pub(super) fn trunk(&self) -> &Trunk {
        self.0.value()
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(SkipList::new(crossbeam_epoch::default_collector().clone()))
    }

    /// The last trunk whose fence is within the bound.
    #[inline]
    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, pin: &'g Pin) -> Option<Held<'g>> {
        self.0.upper_bound(bound, &pin.0).map(Held)
    }

    pub(super) fn add(&self, fence: Fence, trunk: Trunk, pin: &Pin) {
        self.0.insert(fence, trunk, &pin.0).release(&pin.0);
    }

    pub(super) fn remove(&self, trunk: &Held<'_>) {
        trunk.0.remove();
    }

    /// Calls `visit` with all trunks.
    pub(super) fn visit(&mut self, mut visit: impl FnMut(&Trunk)) {
        let pin = crossbeam_epoch::pin();
        self.0.iter(&pin).for_each(|trunk| visit(trunk.value()));
    }
}
