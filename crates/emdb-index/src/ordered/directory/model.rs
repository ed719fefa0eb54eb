//! Stands for the skip list in models, which cannot look into it: a map under a
//! lock, each of whose operations is one step.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    ops::{Bound, Deref},
};

use loom::sync::Mutex;

use crate::primitive::lock;

use super::{Fence, Trunk};

pub(in crate::ordered) use loom::sync::Arc;

pub(super) struct List(Mutex<BTreeMap<Fence, Arc<Trunk>>>);

pub(in crate::ordered) struct Pin;

/// Keeps what it leads to.
pub(super) struct Handle<T>(Arc<T>);

pub(super) struct Lent<'g, T>(Arc<T>, PhantomData<&'g T>);

pub(super) struct Cell<T>(Mutex<Option<Handle<T>>>);

pub(super) struct Held<'g> {
    fence: Fence,
    trunk: Arc<Trunk>,
    list: PhantomData<&'g List>,
}

impl Pin {
    pub(in crate::ordered) fn new() -> Self {
        Self
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Handle<T> {
    pub(super) fn new(part: T) -> Self {
        Self(Arc::new(part))
    }

    pub(super) unsafe fn get(&self) -> &T {
        &self.0
    }

    pub(super) unsafe fn share(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }

    pub(super) unsafe fn free_after(self, _: &Pin) {}

    pub(super) unsafe fn free(self) {}
}

impl<T> Cell<T> {
    pub(super) fn new(part: &Handle<T>) -> Self {
        Self(Mutex::new(Some(part.clone())))
    }

    pub(super) fn get(&self) -> Option<Handle<T>> {
        lock(&self.0).clone()
    }

    pub(super) unsafe fn lend<'g>(&self, _: &'g Pin) -> Option<Lent<'g, T>> {
        self.get().map(|part| Lent(part.0, PhantomData))
    }

    pub(super) fn set(&self, part: Option<&Handle<T>>) {
        *lock(&self.0) = part.cloned();
    }
}

impl Held<'_> {
    pub(super) fn trunk(&self) -> &Trunk {
        &self.trunk
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, _: &'g Pin) -> Option<Held<'g>> {
        let list = lock(&self.0);
        let is_in = |fence: &Fence| match bound {
            Bound::Included(key) => fence.low.as_slice() <= key,
            Bound::Excluded(key) => fence.low.as_slice() < key,
            Bound::Unbounded => true,
        };
        let (fence, trunk) = list.iter().rfind(|(fence, _)| is_in(fence))?;
        Some(Held {
            fence: fence.clone(),
            trunk: Arc::clone(trunk),
            list: PhantomData,
        })
    }

    pub(super) fn add(&self, fence: Fence, trunk: Trunk, _: &Pin) {
        lock(&self.0).insert(fence, Arc::new(trunk));
    }

    pub(super) fn remove(&self, trunk: &Held<'_>) {
        lock(&self.0).remove(&trunk.fence);
    }

    pub(super) fn visit(&mut self, mut visit: impl FnMut(&Trunk)) {
        lock(&self.0).values().for_each(|trunk| visit(trunk));
    }
}
