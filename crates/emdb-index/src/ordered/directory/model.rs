//! Stands for the skip list in models, which cannot look into it: a map under a
//! lock, each of whose operations is one step.

use std::{collections::BTreeMap, marker::PhantomData, ops::Bound};

use loom::sync::Mutex;

use crate::primitive::lock;

use super::{Branch, Fence};

pub(in crate::ordered) use loom::sync::Arc;

pub(super) struct List(Mutex<BTreeMap<Fence, Arc<Branch>>>);

pub(in crate::ordered) struct Pin;

pub(super) struct Held<'g> {
    fence: Fence,
    branch: Arc<Branch>,
    list: PhantomData<&'g List>,
}

impl Pin {
    pub(in crate::ordered) fn new() -> Self {
        Self
    }
}

impl Held<'_> {
    pub(super) fn branch(&self) -> &Branch {
        &self.branch
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
        let (fence, branch) = list.iter().rfind(|(fence, _)| is_in(fence))?;
        Some(Held {
            fence: fence.clone(),
            branch: Arc::clone(branch),
            list: PhantomData,
        })
    }

    pub(super) fn add(&self, fence: Fence, branch: Branch, _: &Pin) {
        lock(&self.0).insert(fence, Arc::new(branch));
    }

    pub(super) fn remove(&self, branch: &Held<'_>) {
        lock(&self.0).remove(&branch.fence);
    }
}
