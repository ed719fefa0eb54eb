//! Random operations against ordered maps, with ranges looked at after each.

use std::path::Path;

use emdb::{Snapshot, Transaction};
use proptest::prelude::*;

use crate::{Map, open, records, support};

type Bytes = Vec<u8>;

#[derive(Debug, Clone)]
enum Op {
    Insert(Bytes, u8),
    Remove(Bytes),
    InsertMany(Vec<Bytes>),
    RemoveRange(Bytes, Bytes),
    PopFirst,
    PopLast,
    Clear,
    /// Steps in a transaction, and whether it is committed.
    Transaction(Vec<Step>, bool),
    Snapshot,
    DropSnapshot(usize),
    Reopen(Reopen),
}

#[derive(Debug, Clone, Copy)]
enum Reopen {
    AtOnce,
    Checkpointed,
    CheckpointLost,
    /// At any byte.
    CheckpointDamaged(usize),
    /// The last checkpoint was written where ranges are off.
    ByOneWithoutRanges,
}

/// What is done in a transaction.
#[derive(Debug, Clone)]
enum Step {
    Insert(Bytes, u8),
    Remove(Bytes),
    InsertMany(Vec<Bytes>),
    RemoveRange(Bytes, Bytes),
    PopFirst,
    PopLast,
    Clear,
    Savepoint,
    RollbackTo(usize),
    /// Looks at the order, which has all of it brought there.
    Range,
    Ends,
    Iterator,
}

/// Few different keys, many of them with the same beginning.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0..30_u8).prop_map(|number| format!("same beginning {number:04}").into_bytes()),
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(255)], 0..4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        4 => key().prop_map(Step::Remove),
        2 => proptest::collection::vec(key(), 0..30).prop_map(Step::InsertMany),
        1 => (key(), key()).prop_map(|(a, b)| Step::RemoveRange(a, b)),
        6 => Just(Step::PopFirst),
        6 => Just(Step::PopLast),
        1 => Just(Step::Clear),
        3 => Just(Step::Savepoint),
        3 => any::<usize>().prop_map(Step::RollbackTo),
        2 => Just(Step::Range),
        1 => Just(Step::Ends),
        1 => Just(Step::Iterator),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let steps = || proptest::collection::vec(step(), 0..24);
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Op::Insert(key, value)),
        4 => key().prop_map(Op::Remove),
        2 => proptest::collection::vec(key(), 0..30).prop_map(Op::InsertMany),
        1 => (key(), key()).prop_map(|(a, b)| Op::RemoveRange(a, b)),
        3 => Just(Op::PopFirst),
        3 => Just(Op::PopLast),
        1 => Just(Op::Clear),
        5 => (steps(), any::<bool>()).prop_map(|(steps, commit)| Op::Transaction(steps, commit)),
        2 => Just(Op::Snapshot),
        1 => (0..4_usize).prop_map(Op::DropSnapshot),
        2 => prop_oneof![
            Just(Reopen::AtOnce),
            Just(Reopen::Checkpointed),
            Just(Reopen::CheckpointLost),
            any::<usize>().prop_map(Reopen::CheckpointDamaged),
            Just(Reopen::ByOneWithoutRanges),
        ]
        .prop_map(Op::Reopen),
    ]
}

fn remove_range(map: &mut Map, from: &[u8], to: &[u8]) -> u64 {
    let before = map.len();
    map.retain(|key, _| !(from..to).contains(&key.as_slice()));
    (before - map.len()) as u64
}

fn apply(tx: &Transaction<'_>, map: &mut Map, steps: Vec<Step>) {
    let mut savepoints = Vec::new();
    let mut iterators = Vec::new();
    for step in steps {
        match step {
            Step::Insert(key, value) => {
                tx.insert(&key, [value]).unwrap();
                map.insert(key, vec![value]);
            }
            Step::Remove(key) => assert_eq!(tx.remove(&key).unwrap(), map.remove(&key)),
            Step::InsertMany(keys) => {
                tx.insert_many(keys.iter().map(|key| (key, "tx"))).unwrap();
                map.extend(keys.into_iter().map(|key| (key, b"tx".to_vec())));
            }
            Step::RemoveRange(from, to) => {
                let removed = remove_range(map, &from, &to);
                assert_eq!(tx.remove_range(from..to).unwrap(), removed);
            }
            Step::PopFirst => assert_eq!(tx.pop_first().unwrap(), map.pop_first()),
            Step::PopLast => assert_eq!(tx.pop_last().unwrap(), map.pop_last()),
            Step::Clear => {
                tx.clear().unwrap();
                map.clear();
            }
            Step::Savepoint => {
                savepoints.push((tx.savepoint().unwrap(), map.clone(), iterators.len()));
            }
            Step::RollbackTo(which) => {
                if !savepoints.is_empty() {
                    savepoints.truncate(which % savepoints.len() + 1);
                    let (savepoint, then, made) = &savepoints[savepoints.len() - 1];
                    tx.rollback_to(*savepoint).unwrap();
                    map.clone_from(then);
                    // Those made later end with an error, or have seen it all.
                    iterators.truncate(*made);
                }
            }
            Step::Range => assert_eq!(tx.range(..).unwrap(), records(map)),
            Step::Ends => {
                assert_eq!(tx.first().unwrap(), records(map).first().cloned());
                assert_eq!(tx.last().unwrap(), records(map).last().cloned());
            }
            Step::Iterator => iterators.push((tx.range_iter(..).unwrap(), records(map))),
        }
    }
    for (iterator, then) in iterators {
        assert_eq!(iterator.collect::<Vec<_>>(), then);
    }
    assert_eq!(tx.len().unwrap(), map.len());
}

/// Does what there is to do between closing and opening.
fn prepare(path: &Path, how: Reopen, map: &mut Map) {
    let checkpoint = path.with_extension("meta");
    match how {
        Reopen::AtOnce | Reopen::Checkpointed => {}
        Reopen::CheckpointLost => std::fs::remove_file(checkpoint).unwrap(),
        Reopen::CheckpointDamaged(at) => {
            let mut bytes = std::fs::read(&checkpoint).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 0x20;
            std::fs::write(checkpoint, bytes).unwrap();
        }
        Reopen::ByOneWithoutRanges => {
            let db = support::builder().path(path).build().unwrap();
            db.insert("same beginning", "without").unwrap();
            map.insert(b"same beginning".to_vec(), b"without".to_vec());
            db.checkpoint().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_agree_with_a_map(
        ops in proptest::collection::vec(op(), 1..60),
        encrypted in any::<bool>(),
    ) {
        let _guard = support::encrypt(encrypted);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut db = open(&path);
        let mut map = Map::new();
        let mut snapshots: Vec<(Snapshot, Map)> = Vec::new();
        for op in ops {
            match op {
                Op::Insert(key, value) => {
                    db.insert(&key, [value]).unwrap();
                    map.insert(key, vec![value]);
                }
                Op::Remove(key) => {
                    prop_assert_eq!(db.remove(&key).unwrap(), map.remove(&key));
                }
                Op::InsertMany(keys) => {
                    db.insert_many(keys.iter().map(|key| (key, "many"))).unwrap();
                    map.extend(keys.into_iter().map(|key| (key, b"many".to_vec())));
                }
                Op::RemoveRange(from, to) => {
                    let expected = remove_range(&mut map, &from, &to);
                    prop_assert_eq!(db.remove_range(from..to).unwrap(), expected);
                }
                Op::PopFirst => prop_assert_eq!(db.pop_first().unwrap(), map.pop_first()),
                Op::PopLast => prop_assert_eq!(db.pop_last().unwrap(), map.pop_last()),
                Op::Clear => {
                    db.clear().unwrap();
                    map.clear();
                }
                Op::Transaction(steps, commits) => {
                    let tx = db.begin().unwrap();
                    let mut own = map.clone();
                    apply(&tx, &mut own, steps);
                    if commits {
                        tx.commit().unwrap();
                        map = own;
                    } else {
                        drop(tx);
                    }
                }
                Op::Snapshot => snapshots.push((db.snapshot().unwrap(), map.clone())),
                Op::DropSnapshot(at) => {
                    if at < snapshots.len() {
                        snapshots.remove(at);
                    }
                }
                Op::Reopen(how) => {
                    if !matches!(how, Reopen::AtOnce) {
                        db.checkpoint().unwrap();
                    }
                    snapshots.clear();
                    drop(db);
                    prepare(&path, how, &mut map);
                    db = open(&path);
                    db.verify().unwrap();
                }
            }
            prop_assert_eq!(db.range(..).unwrap(), records(&map));
            for (snapshot, then) in &snapshots {
                prop_assert_eq!(snapshot.range(..).unwrap(), records(then));
            }
        }
        let mut backwards: Vec<_> = db.range_iter(..).unwrap().rev().collect();
        backwards.reverse();
        prop_assert_eq!(backwards, records(&map));
    }
}
