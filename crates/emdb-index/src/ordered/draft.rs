//! Slots on their way into new leaves: brought under one prefix, merged, cut.
//!
//! Reads records only where ten bytes after the prefix do not tell keys apart,
//! and never to make a prefix shorter.

use std::cmp::Ordering;

use crate::Location;

use super::{
    fence::Bytes,
    key::{Slot, Stub, common_len},
    leaf::{Leaf, SLOTS_MAX},
};

/// The least room of a leaf.
pub(super) const SLOTS_MIN: usize = if SLOTS_MAX < 16 { SLOTS_MAX } else { 16 };

/// Slots in the order of their keys, all of which begin with `prefix`.
#[derive(Debug, Default)]
pub(super) struct Draft {
    prefix: Vec<u8>,
    pub(super) slots: Vec<Slot>,
}

impl Draft {
    /// The slots of a leaf, whose lock the caller holds.
    pub(super) fn of(leaf: &Leaf) -> Self {
        Self {
            prefix: leaf.prefix().to_vec(),
            slots: leaf.slots().collect(),
        }
    }

    /// Makes the prefix fit `key`. Without slots, it becomes the key.
    pub(super) fn admit(&mut self, key: &[u8]) {
        if self.slots.is_empty() {
            self.prefix = key.to_vec();
            return;
        }
        let common = common_len(&self.prefix, key);
        let Some((_, more)) = self.prefix.split_at_checked(common) else {
            return;
        };
        if !more.is_empty() {
            for slot in &mut self.slots {
                *slot = slot.with_stub(slot.stub().after_shorter_prefix(more));
            }
            self.prefix.truncate(common);
        }
    }

    /// The stub of a key that was admitted.
    pub(super) fn stub(&self, key: &[u8]) -> Stub {
        Stub::new(key.get(self.prefix.len()..).unwrap_or_default())
    }

    /// Adds the slots of another draft, all of whose keys are above.
    pub(super) fn append(&mut self, mut above: Self) {
        if above.slots.is_empty() {
            return;
        }
        if self.slots.is_empty() {
            *self = above;
            return;
        }
        // The shorter of both prefixes need not be one of the other.
        self.admit(&above.prefix);
        above.admit(&self.prefix);
        self.slots.append(&mut above.slots);
    }

    /// Merges records in, whose keys rise; they replace those of equal keys.
    /// Returns how many keys were new.
    pub(super) fn merge<K: AsRef<[u8]>, B: AsRef<[u8]>, E>(
        &mut self,
        records: &[(B, Location)],
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<usize, E> {
        if let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) {
            // In this order, an empty draft takes what both have in common.
            if self.slots.is_empty() {
                let (first, last) = (first.as_ref(), last.as_ref());
                let common = common_len(first, last);
                self.prefix = first.get(..common).unwrap_or_default().to_vec();
            } else {
                self.admit(first.as_ref());
                self.admit(last.as_ref());
            }
        }
        let mut merged = Vec::with_capacity(self.slots.len().saturating_add(records.len()));
        let mut old = self.slots.iter().copied().peekable();
        let mut replaced = 0;
        for (key, location) in records {
            let key = key.as_ref();
            let stub = self.stub(key);
            while let Some(slot) = old.peek() {
                let order = match slot.stub().cmp(&stub) {
                    Ordering::Equal if !stub.is_whole() => match slot.location() {
                        Some(location) => resolve(location)?.as_ref().cmp(key),
                        None => Ordering::Less,
                    },
                    order => order,
                };
                match order {
                    Ordering::Less => merged.push(*slot),
                    Ordering::Equal => replaced += 1,
                    Ordering::Greater => break,
                }
                old.next();
                if order == Ordering::Equal {
                    break;
                }
            }
            merged.push(Slot::new(stub, *location));
        }
        merged.extend(old);
        self.slots = merged;
        Ok(records.len() - replaced)
    }

    /// Whether a leaf can be refilled with this.
    pub(super) fn fits(&self, leaf: &Leaf) -> bool {
        self.prefix == leaf.prefix() && self.slots.len() <= leaf.capacity()
    }

    /// Cuts the slots from `at` on off, or from the nearest place where that can be done;
    /// returns them, and a bound between both parts. `low` and `high` are the
    /// bounds of the whole.
    ///
    /// `None` if records cannot be read, or are not what they were. Such slots
    /// stay together: whatever a record says, leaves have rising bounds.
    pub(super) fn cut<K: AsRef<[u8]>, E>(
        &mut self,
        at: usize,
        (low, high): (&Bytes, Option<&Bytes>),
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Option<(Bytes, Self)> {
        let places = (0..self.slots.len()).flat_map(|distance| {
            let places = [at.checked_sub(distance), at.checked_add(distance)];
            places.into_iter().flatten()
        });
        let (at, bound) = places
            .filter_map(|at| Some((at, self.bound(at, resolve)?)))
            .find(|(_, bound)| {
                let bound = bound.as_slice();
                low.as_slice() < bound && high.is_none_or(|high| bound < high.as_slice())
            })?;
        let above = Self {
            prefix: self.prefix.clone(),
            slots: self.slots.split_off(at),
        };
        Some((bound, above))
    }

    /// The shortest key above that of the slot before `at`, and not above that at `at`.
    fn bound<K: AsRef<[u8]>, E>(
        &self,
        at: usize,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Option<Bytes> {
        let below = self.slots.get(at.checked_sub(1)?)?;
        let above = self.slots.get(at)?;
        let known = below.stub().with_bytes(|below| {
            above.stub().with_bytes(|above| {
                let end = above.get(..=common_len(below, above))?;
                Some(Bytes::new(&[&self.prefix, end].concat()))
            })
        });
        if known.is_some() {
            return known;
        }
        let below = resolve(below.location()?).ok()?;
        let above = resolve(above.location()?).ok()?;
        let (below, above) = (below.as_ref(), above.as_ref());
        let end = above.get(..=common_len(below, above))?;
        Some(Bytes::new(end))
    }

    /// Makes a leaf. If there are keys that ten bytes do not tell apart, first
    /// makes the prefix as long as it can be; this is left if a record cannot be read.
    pub(super) fn leaf<K: AsRef<[u8]>, E>(
        mut self,
        high: Option<Bytes>,
        capacity: usize,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Leaf {
        let mut pairs = self.slots.iter().zip(self.slots.iter().skip(1));
        if pairs.any(|(a, b)| a.stub() == b.stub())
            && let Some(longer) = self.with_longer_prefix(resolve)
        {
            self = longer;
        }
        let capacity = capacity.clamp(SLOTS_MIN, SLOTS_MAX);
        Leaf::new(Bytes::new(&self.prefix), high, &self.slots, capacity)
    }

    fn with_longer_prefix<K: AsRef<[u8]>, E>(
        &self,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Option<Self> {
        let first = resolve(self.slots.first()?.location()?).ok()?;
        let last = resolve(self.slots.last()?.location()?).ok()?;
        let common = common_len(first.as_ref(), last.as_ref());
        let prefix = first.as_ref().get(..common)?.to_vec();
        let more = common.checked_sub(self.prefix.len())?;
        if more == 0 {
            return None;
        }
        let longer = |slot: &Slot| {
            let stub = match slot.stub().after_longer_prefix(more) {
                Some(stub) => stub,
                None => {
                    let key = resolve(slot.location()?).ok()?;
                    Stub::new(key.as_ref().strip_prefix(prefix.as_slice())?)
                }
            };
            Some(slot.with_stub(stub))
        };
        let slots = self.slots.iter().map(longer).collect::<Option<_>>()?;
        Some(Self { prefix, slots })
    }
}
