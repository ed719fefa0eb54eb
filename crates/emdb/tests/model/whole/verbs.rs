//! The verbs, each written once for all that have it.

use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use emdb::{
    Emdb, Error, Namespace, Snapshot, SnapshotNamespace, Transaction, TransactionNamespace, Ttl,
};

use super::oracle::{Records, Stored, View, key, value};
use super::{KEYS, Op};
use crate::{Bytes, Map};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    // Reading.
    Get,
    GetMany,
    Walk,
    Range,
    Ends,
    // Writing.
    Insert,
    Replace,
    InsertIfAbsent,
    Remove,
    Update,
    CompareAndSwap,
    InsertMany,
    InsertManyInVain,
    Clear,
    PopFirst,
    PopLast,
    RemoveRange,
    Retain,
    InsertWithTtl,
    Persist,
    Expiry,
    // Not in transactions.
    ExtractIf,
    Sweep,
    Group,
    DropNamespace,
    Flush,
    Checkpoint,
    Verify,
    Compare,
    Pass,
    OpenSnapshot,
    ReadSnapshot,
    DropSnapshot,
    OpenIterator,
    StepIterator,
    EndIterator,
    Close,
    Drop,
    Kill,
    LosePower,
    OpenReadOnly,
    Hold,
    Trouble,
    Begin,
    // In transactions only.
    Savepoint,
    RollbackTo,
    Outside,
}

/// How often each comes.
pub(crate) const VERBS: &[(u32, Verb)] = &[
    (60, Verb::Get),
    (10, Verb::GetMany),
    (4, Verb::Walk),
    (15, Verb::Range),
    (6, Verb::Ends),
    (80, Verb::Insert),
    (15, Verb::Replace),
    (15, Verb::InsertIfAbsent),
    (50, Verb::Remove),
    (20, Verb::Update),
    (20, Verb::CompareAndSwap),
    (10, Verb::InsertMany),
    (3, Verb::InsertManyInVain),
    (2, Verb::Clear),
    (12, Verb::PopFirst),
    (12, Verb::PopLast),
    (3, Verb::RemoveRange),
    (2, Verb::Retain),
    (25, Verb::InsertWithTtl),
    (10, Verb::Persist),
    (10, Verb::Expiry),
    (3, Verb::ExtractIf),
    (4, Verb::Sweep),
    (6, Verb::Group),
    (2, Verb::DropNamespace),
    (2, Verb::Flush),
    (2, Verb::Checkpoint),
    (1, Verb::Verify),
    (4, Verb::Compare),
    (20, Verb::Pass),
    (6, Verb::OpenSnapshot),
    (10, Verb::ReadSnapshot),
    (4, Verb::DropSnapshot),
    (5, Verb::OpenIterator),
    (8, Verb::StepIterator),
    (4, Verb::EndIterator),
    (1, Verb::Close),
    (1, Verb::Drop),
    (2, Verb::Kill),
    (3, Verb::LosePower),
    (1, Verb::OpenReadOnly),
    (5, Verb::Hold),
    (6, Verb::Trouble),
    (25, Verb::Begin),
    (10, Verb::Savepoint),
    (8, Verb::RollbackTo),
    (3, Verb::Outside),
];

type Record = (Bytes, Bytes);

/// What a database was opened with that changes what it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) ordered: bool,
    pub(crate) default_ttl: Option<u64>,
}

impl Op {
    pub(crate) fn key(&self) -> Bytes {
        key(self.key)
    }

    pub(crate) fn value(&self) -> Bytes {
        value(self.detail)
    }

    /// Some neighbouring keys.
    fn keys(&self) -> Vec<Bytes> {
        let count = self.other % 20;
        (0..count)
            .map(|step| key((self.key + step * 5) % KEYS))
            .collect()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let records = self.keys().into_iter().enumerate();
        records
            .map(|(at, key)| (key, value(self.detail.wrapping_add(at as u16 * 7))))
            .collect()
    }

    /// Bounds that make sense.
    fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        let (from, to) = (key(self.key), key(self.other));
        let (from, to) = if from <= to { (from, to) } else { (to, from) };
        match (self.detail >> 4) % 4 {
            1 if from < to => (Bound::Excluded(from), Bound::Excluded(to)),
            2 => (Bound::Unbounded, Bound::Excluded(to)),
            3 => (Bound::Excluded(from), Bound::Unbounded),
            _ => (Bound::Included(from), Bound::Included(to)),
        }
    }

    /// Bytes to begin with.
    pub(crate) fn prefix(&self) -> Bytes {
        let key = self.key();
        key[..key.len().min(usize::from(self.detail >> 6) % 6)].to_vec()
    }

    /// Some records, whatever their order.
    fn is_wanted(&self, key: &[u8], value: &[u8]) -> bool {
        let bytes = key.iter().chain(value.iter().take(2));
        let sum = bytes.fold(0, |sum: u16, byte| sum.wrapping_add(u16::from(*byte)));
        (sum ^ self.detail).is_multiple_of(3)
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
}

pub(crate) fn collected(map: &Map, bounds: (Bound<Bytes>, Bound<Bytes>)) -> Vec<Record> {
    map.range(bounds)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn changed(old: Option<&[u8]>, byte: u8) -> Option<Bytes> {
    match old {
        Some(old) if old.len() > 40 => None,
        Some(old) => Some([old, &[byte]].concat()),
        None => Some(vec![byte]),
    }
}

macro_rules! reading {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        /// Reads, and compares with what should be seen.
        pub(crate) fn $name(on: &$type, op: Op, view: View<'_>, ordered: bool) {
            let key = op.key();
            match op.verb {
                Verb::Get => {
                    let expected = view.get(&key);
                    match op.detail % 4 {
                        0 => assert_eq!(on.get(&key).unwrap().as_deref(), expected),
                        1 => assert_eq!(on.get_zerocopy(&key).unwrap().as_deref(), expected),
                        2 => {
                            let found = on.get_with(&key, <[u8]>::to_vec).unwrap();
                            assert_eq!(found.as_deref(), expected);
                        }
                        _ => assert_eq!(on.contains_key(&key).unwrap(), expected.is_some()),
                    }
                }
                Verb::GetMany => {
                    let keys = op.keys();
                    let expected: Vec<_> = keys.iter().map(|key| view.get(key)).collect();
                    if op.detail % 2 == 0 {
                        let found = on.get_many(&keys).unwrap();
                        assert!(found.iter().map(Option::as_deref).eq(expected));
                    } else {
                        let mut visited = 0;
                        on.get_many_with(&keys, |at, found| {
                            visited += 1;
                            assert_eq!(found, expected[at]);
                        })
                        .unwrap();
                        assert_eq!(visited, keys.len());
                    }
                }
                Verb::Walk => {
                    let expected = view.live();
                    let found: Map = match op.detail % 3 {
                        0 => on.iter().unwrap().collect(),
                        1 => on.try_iter().unwrap().map(Result::unwrap).collect(),
                        _ => {
                            let mut found = Map::new();
                            on.for_each(|key, value| {
                                found.insert(key.to_vec(), value.to_vec());
                                ControlFlow::Continue(())
                            })
                            .unwrap();
                            found
                        }
                    };
                    assert_eq!(found, expected);
                    let mut keys: Vec<_> = match op.detail % 2 {
                        0 => on.keys().unwrap().collect(),
                        _ => on.try_keys().unwrap().map(Result::unwrap).collect(),
                    };
                    keys.sort_unstable();
                    assert!(keys.iter().eq(expected.keys()));
                }
                Verb::Range | Verb::Ends if !ordered => {
                    refused(on.range(..));
                    refused(on.first());
                }
                Verb::Range => {
                    let (live, bounds, prefix) = (view.live(), op.bounds(), op.prefix());
                    let expected = collected(&live, bounds.clone());
                    let starting = || {
                        let records = live.iter().filter(|(key, _)| key.starts_with(&prefix));
                        records.map(|(key, value)| (key.clone(), value.clone()))
                    };
                    let rest = |from| collected(&live, (from, Bound::Unbounded));
                    match op.detail % 16 {
                        0 => assert_eq!(on.range(bounds).unwrap(), expected),
                        1 => assert!(on.range_iter(bounds).unwrap().eq(expected)),
                        2 => {
                            let found = on.range_iter(bounds).unwrap().rev();
                            assert!(found.eq(expected.into_iter().rev()));
                        }
                        3 => {
                            // From both ends, until they meet.
                            let mut found = on.range_iter(bounds).unwrap();
                            let mut expected = expected.into_iter();
                            for step in 0.. {
                                let (found, expected) = match (op.detail >> (step % 16)) & 1 {
                                    0 => (found.next(), expected.next()),
                                    _ => (found.next_back(), expected.next_back()),
                                };
                                assert_eq!(found, expected);
                                if found.is_none() {
                                    break;
                                }
                            }
                            assert_eq!((found.next(), found.next_back()), (None, None));
                        }
                        4 => {
                            let found = on.try_range_iter(bounds).unwrap();
                            assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), expected);
                        }
                        5 => assert!(starting().eq(on.range_prefix(&prefix).unwrap())),
                        6 => assert!(starting().eq(on.range_prefix_iter(&prefix).unwrap())),
                        7 => {
                            let found = on.try_range_prefix_iter(&prefix).unwrap();
                            assert!(starting().eq(found.map(Result::unwrap)));
                        }
                        8 | 9 => {
                            let found = on.iter_from(&key).unwrap();
                            assert!(found.eq(rest(Bound::Included(key))));
                        }
                        10 | 11 => {
                            let found = on.iter_after(&key).unwrap();
                            assert!(found.eq(rest(Bound::Excluded(key))));
                        }
                        back => {
                            // Until it is told to stop.
                            let most = usize::from(op.detail >> 8) % 16 + 1;
                            let mut found = Vec::new();
                            let visit = |key: &[u8], value: &[u8]| {
                                found.push((key.to_vec(), value.to_vec()));
                                match found.len() == most {
                                    true => ControlFlow::Break(()),
                                    false => ControlFlow::Continue(()),
                                }
                            };
                            let expected = expected.into_iter();
                            if back % 2 == 0 {
                                on.scan(bounds, visit).unwrap();
                                assert!(found.into_iter().eq(expected.take(most)));
                            } else {
                                on.scan_rev(bounds, visit).unwrap();
                                assert!(found.into_iter().eq(expected.rev().take(most)));
                            }
                        }
                    }
                }
                Verb::Ends => {
                    let live = view.live();
                    let owned = |end: Option<(&Bytes, &Bytes)>| {
                        end.map(|(key, value)| (key.clone(), value.clone()))
                    };
                    assert_eq!(on.first().unwrap(), owned(live.first_key_value()));
                    assert_eq!(on.last().unwrap(), owned(live.last_key_value()));
                }
                _ => {}
            }
        }
    )*};
}

reading!(
    read: Emdb,
    read_namespace: Namespace,
    read_snapshot: Snapshot,
    read_snapshot_namespace: SnapshotNamespace,
    read_transaction: Transaction<'_>,
    read_transaction_namespace: TransactionNamespace<'_>,
);

macro_rules! writing {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        /// Writes, there and in the model; the answers must agree.
        pub(crate) fn $name(
            on: &$type,
            op: Op,
            records: &mut Records,
            now: u64,
            settings: Settings,
        ) {
            let key = op.key();
            let stored = |value: &[u8]| Stored {
                value: value.into(),
                expires_at: settings.default_ttl.map(|ttl| now + ttl),
            };
            let seen = |records: &Records, key: &[u8]| {
                View { records, now }.get(key).map(<[u8]>::to_vec)
            };
            let ordered = settings.ordered;
            match op.verb {
                Verb::Insert => {
                    let value = op.value();
                    on.insert(&key, &value).unwrap();
                    records.insert(key, stored(&value));
                }
                Verb::Replace => {
                    let value = op.value();
                    assert_eq!(on.replace(&key, &value).unwrap(), seen(records, &key));
                    records.insert(key, stored(&value));
                }
                Verb::InsertIfAbsent => {
                    let value = op.value();
                    let absent = seen(records, &key).is_none();
                    assert_eq!(on.insert_if_absent(&key, &value).unwrap(), absent);
                    if absent {
                        records.insert(key, stored(&value));
                    }
                }
                Verb::Remove => {
                    assert_eq!(on.remove(&key).unwrap(), seen(records, &key));
                    records.remove(&key);
                }
                Verb::Update => {
                    let byte = op.detail as u8;
                    let new = on.update(&key, |old| changed(old, byte)).unwrap();
                    assert_eq!(new, changed(seen(records, &key).as_deref(), byte));
                    match new {
                        Some(new) => drop(records.insert(key, stored(&new))),
                        None => drop(records.remove(&key)),
                    }
                }
                Verb::CompareAndSwap => {
                    let current = seen(records, &key);
                    let new = (op.detail % 3 > 0).then(|| op.value());
                    let expected = match op.other % 3 {
                        0 => Some(b"never stored".to_vec()),
                        _ => current.clone(),
                    };
                    let swapped = on
                        .compare_and_swap(&key, expected.as_deref(), new.as_deref())
                        .unwrap();
                    if expected == current {
                        assert_eq!(swapped, Ok(()));
                        match new {
                            Some(new) => drop(records.insert(key, stored(&new))),
                            None => drop(records.remove(&key)),
                        }
                    } else {
                        assert_eq!(swapped, Err(current));
                    }
                }
                Verb::InsertMany => {
                    let many = op.records();
                    on.insert_many(many.iter().map(|(key, value)| (key, value))).unwrap();
                    records.extend(many.into_iter().map(|(key, value)| (key, stored(&value))));
                }
                Verb::InsertManyInVain => {
                    let mut many = op.records();
                    many.push((vec![0; 70_000], Bytes::new()));
                    let answer = on.insert_many(many);
                    assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
                    assert_eq!(on.len().unwrap(), records.len());
                }
                Verb::Clear => {
                    on.clear().unwrap();
                    records.clear();
                    assert!(on.is_empty().unwrap());
                }
                Verb::PopFirst if ordered => {
                    let end = View { records, now }.live().pop_first();
                    assert_eq!(on.pop_first().unwrap(), end);
                    if let Some((key, _)) = end {
                        records.remove(&key);
                    }
                }
                Verb::PopLast if ordered => {
                    let end = View { records, now }.live().pop_last();
                    assert_eq!(on.pop_last().unwrap(), end);
                    if let Some((key, _)) = end {
                        records.remove(&key);
                    }
                }
                Verb::RemoveRange if ordered => {
                    let gone = collected(&View { records, now }.live(), op.bounds());
                    assert_eq!(on.remove_range(op.bounds()).unwrap(), gone.len() as u64);
                    for (key, _) in gone {
                        records.remove(&key);
                    }
                }
                Verb::Retain if ordered => {
                    let live = View { records, now }.live();
                    let gone: Vec<_> = live.iter().filter(|(k, v)| op.is_wanted(k, v)).collect();
                    let removed = on.retain(|key, value| !op.is_wanted(key, value)).unwrap();
                    assert_eq!(removed, gone.len() as u64);
                    for (key, _) in gone {
                        records.remove(key);
                    }
                }
                Verb::PopFirst => refused(on.pop_first()),
                Verb::PopLast => refused(on.pop_last()),
                Verb::RemoveRange => refused(on.remove_range(..)),
                Verb::Retain => refused(on.retain(|_, _| true)),
                Verb::InsertWithTtl => {
                    let ms = u64::from(op.other);
                    let (ttl, expires_at) = match op.detail % 4 {
                        0 => (Ttl::None, None),
                        1 => (Ttl::Default, settings.default_ttl.map(|ttl| now + ttl)),
                        2 => (Ttl::After(Duration::from_millis(ms)), Some(now + ms)),
                        // Over already, now and then.
                        _ => (Ttl::ExpiresAt(now + ms - 5), Some(now + ms - 5)),
                    };
                    let value = op.value();
                    on.insert_with_ttl(&key, &value, ttl).unwrap();
                    let value = value.into();
                    records.insert(key, Stored { value, expires_at });
                }
                Verb::Persist => {
                    let live = seen(records, &key).is_some();
                    let expiring = records.get_mut(&key).filter(|stored| {
                        live && stored.expires_at.is_some()
                    });
                    assert_eq!(on.persist(&key).unwrap(), expiring.is_some());
                    if let Some(stored) = expiring {
                        stored.expires_at = None;
                    }
                }
                Verb::Expiry => {
                    let expiry = records.get(&key).and_then(|stored| stored.expires_at);
                    assert_eq!(on.expires_at(&key).unwrap(), expiry);
                    let left = expiry.map(|at| Duration::from_millis(at.saturating_sub(now)));
                    assert_eq!(on.ttl(&key).unwrap(), left);
                    assert_eq!(on.len().unwrap(), records.len());
                }
                _ => {}
            }
        }
    )*};
}

writing!(
    write: Emdb,
    write_namespace: Namespace,
    write_transaction: Transaction<'_>,
    write_transaction_namespace: TransactionNamespace<'_>,
);

macro_rules! outside_of_transactions {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        /// Verbs that are many operations. Gives what was stored after each.
        pub(crate) fn $name(
            on: &$type,
            op: Op,
            records: &mut Records,
            now: u64,
            settings: Settings,
        ) -> Vec<Records> {
            let view = View { records, now };
            match op.verb {
                Verb::ExtractIf if settings.ordered => {
                    let mut versions = Vec::new();
                    let live = view.live();
                    let gone = live.into_iter().filter(|(k, v)| op.is_wanted(k, v));
                    // Dropped before it is through, now and then.
                    let most = usize::from(op.other);
                    let found = on.extract_if(|key, value| op.is_wanted(key, value)).unwrap();
                    let mut found = found.take(most).map(Result::unwrap);
                    for record in gone.take(most) {
                        records.remove(&record.0);
                        assert_eq!(found.next(), Some(record));
                        versions.push(records.clone());
                    }
                    assert!(found.next().is_none());
                    versions
                }
                Verb::ExtractIf => {
                    refused(on.extract_if(|_, _| true).map(drop));
                    Vec::new()
                }
                Verb::Sweep => {
                    let before = records.len();
                    records.retain(|_, stored| stored.expires_at.is_none_or(|at| at > now));
                    let swept = match op.detail % 2 {
                        0 => on.sweep_expired(),
                        _ => on.try_sweep_expired().unwrap(),
                    };
                    assert_eq!(swept, before - records.len());
                    Vec::new()
                }
                #[cfg(feature = "nested")]
                Verb::Group => {
                    group(on, op, records, now, settings);
                    Vec::new()
                }
                _ => Vec::new(),
            }
        }
    )*};
}

outside_of_transactions!(pass_over: Emdb, pass_over_namespace: Namespace);

#[cfg(feature = "nested")]
trait Groups {
    fn focus(&self, prefix: &[u8]) -> emdb::Focus<'_>;
    fn group(&self, prefix: &[u8]) -> emdb::GroupIter;
    fn delete_group(&self, prefix: &[u8]) -> usize;
}

#[cfg(feature = "nested")]
macro_rules! groups {
    ($($type:ty),*) => {$(
        impl Groups for $type {
            fn focus(&self, prefix: &[u8]) -> emdb::Focus<'_> {
                self.focus(prefix)
            }
            fn group(&self, prefix: &[u8]) -> emdb::GroupIter {
                self.group(prefix).unwrap()
            }
            fn delete_group(&self, prefix: &[u8]) -> usize {
                self.delete_group(prefix).unwrap()
            }
        }
    )*};
}

#[cfg(feature = "nested")]
groups!(Emdb, Namespace);

#[cfg(feature = "nested")]
fn group(on: &dyn Groups, op: Op, records: &mut Records, now: u64, settings: Settings) {
    let prefix = format!("g{}", op.key % 4).into_bytes();
    let name = format!("key{}", op.other).into_bytes();
    let key = [&prefix[..], b".", &name].concat();
    let focus = on.focus(&prefix);
    let view = View { records, now };
    let below = || {
        let live = view.live().into_iter();
        let below = [&prefix[..], b"."].concat();
        live.filter(move |(key, _)| key.starts_with(&below))
    };
    let found = |iter: emdb::GroupIter| iter.collect::<Map>();
    match op.detail % 8 {
        0 | 1 => {
            let value = op.value();
            focus.set(&name, &value).unwrap();
            let expires_at = settings.default_ttl.map(|ttl| now + ttl);
            records.insert(
                key,
                Stored {
                    value: value.into(),
                    expires_at,
                },
            );
        }
        2 => {
            let value = op.value();
            focus
                .set_with_ttl(&name, &value, Ttl::ExpiresAt(now + 9))
                .unwrap();
            let expires_at = Some(now + 9);
            records.insert(
                key,
                Stored {
                    value: value.into(),
                    expires_at,
                },
            );
        }
        3 => {
            assert_eq!(focus.get(&name).unwrap().as_deref(), view.get(&key));
            assert_eq!(focus.contains_key(&name).unwrap(), view.get(&key).is_some());
        }
        4 => {
            assert_eq!(focus.remove(&name).unwrap().as_deref(), view.get(&key));
            records.remove(&key);
        }
        5 => assert_eq!(found(focus.iter().unwrap()), below().collect()),
        6 => assert_eq!(found(on.group(&prefix)), below().collect()),
        _ => {
            let gone: Vec<_> = below().collect();
            let deleted = match op.other % 2 {
                0 => on.delete_group(&prefix),
                _ => focus.delete_all().unwrap(),
            };
            assert_eq!(deleted, gone.len());
            for (key, _) in gone {
                records.remove(&key);
            }
        }
    }
}
