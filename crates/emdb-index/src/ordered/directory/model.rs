//! Stands for the skip list in models, which cannot look into it: a map under a
//! lock, each of whose operations is one step.

use std::{collections::BTreeMap, marker::PhantomData, ops::Bound};

use loom::sync::{Arc, Mutex};

use crate::{
    ordered::{
        fence::{Bytes, Fence},
        leaf::Leaf,
    },
    primitive::lock,
};

pub(in crate::ordered) struct List(Mutex<BTreeMap<Fence, Arc<Leaf>>>);

pub(in crate::ordered) struct Pin;

pub(in crate::ordered) struct Node<'g> {
    fence: Fence,
    leaf: Arc<Leaf>,
    list: PhantomData<&'g List>,
}

pub(super) struct Added<'g> {
    leaf: Arc<Leaf>,
    list: PhantomData<&'g List>,
}

impl Pin {
    pub(in crate::ordered) fn new() -> Self {
        Self
    }
}

impl Node<'_> {
    pub(in crate::ordered) fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    pub(in crate::ordered) fn low(&self) -> &Bytes {
        &self.fence.low
    }
}

impl Added<'_> {
    pub(super) fn with_leaf(self, use_it: impl FnOnce(&Leaf), _: &Pin) {
        use_it(&self.leaf);
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, _: &'g Pin) -> Option<Node<'g>> {
        let list = lock(&self.0);
        let (fence, leaf) = list.iter().rfind(|(fence, _)| match bound {
            Bound::Included(key) => fence.low.as_slice() <= key,
            Bound::Excluded(key) => fence.low.as_slice() < key,
            Bound::Unbounded => true,
        })?;
        Some(Node {
            fence: fence.clone(),
            leaf: Arc::clone(leaf),
            list: PhantomData,
        })
    }

    pub(super) fn add(&self, fence: Fence, leaf: Leaf, _: &Pin) -> Added<'_> {
        let leaf = Arc::new(leaf);
        lock(&self.0).insert(fence, Arc::clone(&leaf));
        Added {
            leaf,
            list: PhantomData,
        }
    }

    pub(super) fn remove(&self, node: &Node<'_>) {
        lock(&self.0).remove(&node.fence);
    }
}
