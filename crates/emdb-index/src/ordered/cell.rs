//! A place for an index that another one may take the place of while it is used.

use std::sync::Arc;

use super::OrderedIndex;

#[cfg(loom)]
use model::Place;
#[cfg(not(loom))]
use place::Place;

/// Holds an [`OrderedIndex`], or none, and lets it be exchanged.
///
/// Readers take no lock and write nothing that others read, not even a reference count. Who
/// exchanges waits for nobody: a reader may go on with the index that was there.
///
/// # Examples
///
/// ```
/// use emdb_index::{OrderedCell, OrderedIndex};
///
/// let cell = OrderedCell::default();
/// assert!(cell.get().is_none());
/// cell.get_or_default();
/// assert_eq!(cell.with(|index| index.map(OrderedIndex::len)), Some(0));
/// assert!(cell.exchange(None).is_some());
/// ```
#[derive(Default)]
pub struct OrderedCell(Place);

impl std::fmt::Debug for OrderedCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OrderedCell").field(&self.get()).finish()
    }
}

impl OrderedCell {
    /// Calls `work` with the index, if there is one.
    #[inline]
    pub fn with<T>(&self, work: impl FnOnce(Option<&OrderedIndex>) -> T) -> T {
        self.0.with(|index| work(index.map(|index| &**index)))
    }

    /// The index, to be held beyond an exchange.
    #[must_use]
    pub fn get(&self) -> Option<Arc<OrderedIndex>> {
        self.0.with(|index| index.cloned())
    }

    /// The index; an empty one, from now on, if there was none.
    pub fn get_or_default(&self) -> Arc<OrderedIndex> {
        self.0.change(|index| match index {
            Some(index) => (Arc::clone(index), None),
            None => {
                let index = Arc::new(OrderedIndex::new());
                (Arc::clone(&index), Some(Some(index)))
            }
        })
    }

    /// Puts an index, or none, in the place of the one there is, which it returns.
    pub fn exchange(&self, new: Option<Arc<OrderedIndex>>) -> Option<Arc<OrderedIndex>> {
        self.0.change(|index| (index.cloned(), Some(new)))
    }
}

#[cfg(not(loom))]
mod place {
    use std::{
        cmp::Reverse,
        sync::{Arc, Mutex},
    };

    use crossbeam_skiplist::base::SkipList;

    use crate::{OrderedIndex, primitive::lock};

    /// A skip list of hardly ever more than one, which knows how to free what is being read.
    pub(super) struct Place {
        /// The newest one counts, and comes first.
        list: SkipList<Reverse<u64>, Arc<OrderedIndex>>,
        /// How many there have been.
        count: Mutex<u64>,
    }

    impl Default for Place {
        fn default() -> Self {
            Self {
                list: SkipList::new(crossbeam_epoch::default_collector().clone()),
                count: Mutex::new(0),
            }
        }
    }

    impl Place {
        #[inline]
        pub(super) fn with<T>(&self, work: impl FnOnce(Option<&Arc<OrderedIndex>>) -> T) -> T {
            let pin = crossbeam_epoch::pin();
            let entry = self.list.front(&pin);
            work(entry.as_ref().map(|entry| entry.value()))
        }

        pub(super) fn change<T>(
            &self,
            change: impl FnOnce(Option<&Arc<OrderedIndex>>) -> (T, Option<Option<Arc<OrderedIndex>>>),
        ) -> T {
            let mut count = lock(&self.count);
            let pin = crossbeam_epoch::pin();
            let old = self.list.front(&pin);
            let (answer, new) = change(old.as_ref().map(|old| old.value()));
            if let Some(new) = new {
                if let Some(new) = new {
                    *count += 1;
                    self.list.insert(Reverse(*count), new, &pin).release(&pin);
                }
                // Only now: there is always one, unless there is to be none.
                if let Some(old) = old {
                    old.remove();
                }
            }
            answer
        }
    }
}

/// Models cannot look into the skip list, and exchange nothing.
#[cfg(loom)]
mod model {
    use std::sync::{Arc, PoisonError, RwLock};

    use crate::OrderedIndex;

    #[derive(Default)]
    pub(super) struct Place(RwLock<Option<Arc<OrderedIndex>>>);

    impl Place {
        pub(super) fn with<T>(&self, work: impl FnOnce(Option<&Arc<OrderedIndex>>) -> T) -> T {
            let index = self
                .0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            work(index.as_ref())
        }

        pub(super) fn change<T>(
            &self,
            change: impl FnOnce(Option<&Arc<OrderedIndex>>) -> (T, Option<Option<Arc<OrderedIndex>>>),
        ) -> T {
            let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let (answer, new) = change(index.as_ref());
            if let Some(new) = new {
                *index = new;
            }
            answer
        }
    }
}
