//! Stands for the skip list in models, which cannot look into it: a map under a
//! lock, each of whose operations is one step.

use std::{collections::BTreeMap, marker::PhantomData, ops::Bound};

use loom::sync::Mutex;

use crate::primitive::lock;

use super::{Fence, Trunk};

pub(in crate::ordered) use loom::sync::Arc;

pub(super) struct List(Mutex<BTreeMap<Fence, Arc<Trunk>>>);

pub(in crate::ordered) struct Pin;

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
}
