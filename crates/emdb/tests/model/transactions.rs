//! Transactions, savepoints and snapshots against versions of ordered maps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use emdb::{Emdb, Error, NamespaceIter, Snapshot, Transaction, TransactionNamespace};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{Bytes, Map, cases, key, meta, set, value};

/// Every namespace with its records; the default one has the empty name.
type State = BTreeMap<String, Map>;

const NAMES: [&str; 4] = ["", "a", "b", "c"];

/// What is done in a transaction.
#[derive(Debug, Clone)]
enum Step {
    Insert(usize, Bytes, Bytes),
    Replace(usize, Bytes, Bytes),
    Remove(usize, Bytes),
    InsertIfAbsent(usize, Bytes, Bytes),
    Update(usize, Bytes, u8),
    CompareAndSwap(usize, Bytes, bool, Option<Bytes>),
    InsertMany(usize, Vec<(Bytes, Bytes)>),
    InsertManyInVain(usize, Vec<(Bytes, Bytes)>),
    GetMany(usize, Vec<Bytes>),
    Clear(usize),
    Savepoint,
    /// Back to one of the savepoints.
    RollbackTo(usize),
    /// An iterator, to be read when the transaction ends.
    Iterator(usize),
    Compare,
    /// Others see nothing of it.
    CompareOutside,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Commit,
    Rollback,
    Drop,
    Err,
}

#[derive(Debug, Clone)]
enum Op {
    Transaction(Vec<Step>, End),
    Insert(usize, Bytes, Bytes),
    Remove(usize, Bytes),
    Clear(usize),
    DropNamespace(usize),
    TakeSnapshot,
    ReadSnapshot(usize, Vec<Bytes>),
    DropSnapshot(usize),
    Checkpoint,
    Verify,
    /// Close and open again; snapshots go on.
    Close,
    LoseCheckpoint,
}

struct Tested {
    _directory: tempfile::TempDir,
    path: PathBuf,
    db: Emdb,
    state: State,
    snapshots: Vec<(Snapshot, State)>,
}

impl Tested {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        Self {
            db: crate::support::builder().path(&path).build().unwrap(),
            _directory: directory,
            path,
            state: State::from([(String::new(), Map::new())]),
            snapshots: Vec::new(),
        }
    }

    fn open(&self) -> Emdb {
        crate::support::builder().path(&self.path).build().unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Transaction(steps, end) => self.transaction(steps, end),
            Op::Insert(space, key, value) => {
                let name = NAMES[space];
                match name {
                    "" => self.db.insert(&key, &value).unwrap(),
                    _ => {
                        let space = self.db.namespace(name).unwrap();
                        space.insert(&key, &value).unwrap();
                    }
                }
                let records = self.state.entry(name.to_owned()).or_default();
                records.insert(key, value);
            }
            Op::Remove(space, key) => {
                let name = NAMES[space];
                let old = match name {
                    "" => self.db.remove(&key).unwrap(),
                    _ => match self.db.open_namespace(name).unwrap() {
                        Some(space) => space.remove(&key).unwrap(),
                        None => None,
                    },
                };
                let records = self.state.get_mut(name);
                assert_eq!(old, records.and_then(|records| records.remove(&key)));
            }
            Op::Clear(space) => {
                let name = NAMES[space];
                match name {
                    "" => self.db.clear().unwrap(),
                    _ => self.db.namespace(name).unwrap().clear().unwrap(),
                }
                self.state.insert(name.to_owned(), Map::new());
            }
            Op::DropNamespace(space) => {
                let name = NAMES[space];
                if !name.is_empty() {
                    let there = self.state.remove(name).is_some();
                    assert_eq!(self.db.drop_namespace(name).unwrap(), there);
                }
            }
            Op::TakeSnapshot => {
                let snapshot = self.db.snapshot().unwrap();
                self.snapshots.push((snapshot, self.state.clone()));
            }
            Op::ReadSnapshot(which, keys) => {
                if !self.snapshots.is_empty() {
                    let at = which % self.snapshots.len();
                    let (snapshot, state) = &self.snapshots[at];
                    let values = snapshot.get_many(&keys).unwrap();
                    let records = &state[""];
                    let expected: Vec<_> =
                        keys.iter().map(|key| records.get(key).cloned()).collect();
                    assert_eq!(values, expected);
                    compare_snapshot(snapshot, state);
                }
            }
            Op::DropSnapshot(which) => {
                if !self.snapshots.is_empty() {
                    let at = which % self.snapshots.len();
                    self.snapshots.swap_remove(at);
                }
            }
            Op::Checkpoint => self.db.checkpoint().unwrap(),
            Op::Verify => drop(self.db.verify().unwrap()),
            Op::Close => {
                self.db.clone_handle().close().unwrap();
                self.db = self.open();
                self.compare();
            }
            Op::LoseCheckpoint => {
                self.snapshots.clear();
                self.db = Emdb::open_in_memory();
                let _ = std::fs::remove_file(meta(&self.path));
                self.db = self.open();
                self.compare();
            }
        }
    }

    fn transaction(&mut self, steps: Vec<Step>, end: End) {
        let (db, before) = (&self.db, &self.state);
        let mut state = before.clone();
        let mut iterators = Vec::new();
        let run = |tx: &Transaction<'_>| {
            let mut savepoints = Vec::new();
            for step in steps {
                apply(
                    tx,
                    &mut state,
                    step,
                    &mut savepoints,
                    &mut iterators,
                    || {
                        compare(db, before);
                    },
                );
            }
            compare_in(tx, &state);
        };
        let committed = match end {
            End::Commit => {
                db.transaction(|tx| {
                    run(tx);
                    Ok(())
                })
                .unwrap();
                true
            }
            End::Err => {
                let failed = db.transaction::<_, ()>(|tx| {
                    run(tx);
                    Err(Error::KeyNotFound)
                });
                assert!(matches!(failed, Err(Error::KeyNotFound)));
                false
            }
            End::Rollback | End::Drop => {
                let tx = db.begin().unwrap();
                run(&tx);
                match end {
                    End::Rollback => tx.rollback().unwrap(),
                    _ => drop(tx),
                }
                false
            }
        };
        for (iterator, records) in iterators {
            end_iterator(iterator, &records, committed);
        }
        if committed {
            self.state = state;
        }
        self.compare();
    }

    fn compare(&self) {
        compare(&self.db, &self.state);
    }
}

/// An iterator gives everything, or ends with an error if that was taken back.
fn end_iterator(mut iterator: NamespaceIter, records: &Map, committed: bool) {
    let found: Map = iterator.by_ref().collect();
    match iterator.error() {
        None => assert_eq!(&found, records),
        Some(Error::TransactionAborted(_)) => {
            assert!(
                found
                    .iter()
                    .all(|(key, value)| records.get(key) == Some(value))
            );
        }
        Some(error) => panic!("{error} {committed}"),
    }
}

fn apply(
    tx: &Transaction<'_>,
    state: &mut State,
    step: Step,
    savepoints: &mut Vec<(emdb::Savepoint, State)>,
    iterators: &mut Vec<(NamespaceIter, Map)>,
    compare_outside: impl Fn(),
) {
    match step {
        Step::Savepoint => {
            savepoints.push((tx.savepoint().unwrap(), state.clone()));
            return;
        }
        Step::RollbackTo(which) => {
            if !savepoints.is_empty() {
                let at = which % savepoints.len();
                let void = savepoints.split_off(at + 1);
                let (savepoint, then) = &savepoints[at];
                tx.rollback_to(*savepoint).unwrap();
                state.clone_from(then);
                for (savepoint, _) in void {
                    let refused = tx.rollback_to(savepoint);
                    assert!(matches!(refused, Err(Error::InvalidConfig(_))));
                }
            }
            return;
        }
        Step::Compare => return compare_in(tx, state),
        Step::CompareOutside => return compare_outside(),
        _ => {}
    }
    let space = |at: usize, state: &mut State| {
        state.entry(NAMES[at].to_owned()).or_default();
        match NAMES[at] {
            "" => None,
            name => Some(tx.namespace(name).unwrap()),
        }
    };
    macro_rules! on {
        ($space:expr, |$tx:ident, $model:ident| $body:expr) => {{
            let at = $space;
            let space = space(at, state);
            let $model = state.get_mut(NAMES[at]).unwrap();
            match &space {
                None => {
                    let $tx = tx;
                    $body
                }
                Some(space) => {
                    let $tx: &TransactionNamespace<'_> = space;
                    $body
                }
            }
        }};
    }
    match step {
        Step::Insert(space, key, value) => on!(space, |tx, model| {
            tx.insert(&key, &value).unwrap();
            model.insert(key, value);
        }),
        Step::Replace(space, key, value) => on!(space, |tx, model| {
            let old = tx.replace(&key, &value).unwrap();
            assert_eq!(old, model.insert(key, value));
        }),
        Step::Remove(space, key) => on!(space, |tx, model| {
            assert_eq!(tx.remove(&key).unwrap(), model.remove(&key));
        }),
        Step::InsertIfAbsent(space, key, value) => on!(space, |tx, model| {
            let stored = tx.insert_if_absent(&key, &value).unwrap();
            assert_eq!(stored, !model.contains_key(&key));
            model.entry(key).or_insert(value);
        }),
        Step::Update(space, key, byte) => on!(space, |tx, model| {
            let change = |old: Option<&[u8]>| match old {
                Some(old) if old.len() > 40 => None,
                Some(old) => Some([old, &[byte]].concat()),
                None => Some(vec![byte]),
            };
            let new = tx.update(&key, change).unwrap();
            assert_eq!(new, change(model.get(&key).map(Vec::as_slice)));
            set(model, key, new);
        }),
        Step::CompareAndSwap(space, key, expects, new) => on!(space, |tx, model| {
            let current = model.get(&key).cloned();
            let expected = if expects {
                current.clone()
            } else {
                Some(b"never stored".to_vec())
            };
            let swapped = tx
                .compare_and_swap(&key, expected.as_deref(), new.as_deref())
                .unwrap();
            if expects {
                assert_eq!(swapped, Ok(()));
                set(model, key, new);
            } else {
                assert_eq!(swapped, Err(current));
            }
        }),
        Step::InsertMany(space, records) => on!(space, |tx, model| {
            tx.insert_many(records.clone()).unwrap();
            model.extend(records);
        }),
        Step::InsertManyInVain(space, mut records) => on!(space, |tx, model| {
            records.push((vec![0; 70_000], Bytes::new()));
            tx.insert_many(records).unwrap_err();
            assert_eq!(tx.len().unwrap(), model.len());
        }),
        Step::GetMany(space, keys) => on!(space, |tx, model| {
            let values = tx.get_many(&keys).unwrap();
            let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
            assert_eq!(values, expected);
        }),
        Step::Clear(space) => on!(space, |tx, model| {
            tx.clear().unwrap();
            model.clear();
        }),
        Step::Iterator(space) => on!(space, |tx, model| {
            iterators.push((tx.iter().unwrap(), model.clone()));
        }),
        Step::Savepoint | Step::RollbackTo(_) | Step::Compare | Step::CompareOutside => {}
    }
}

fn names(state: &State) -> impl Iterator<Item = &String> {
    state.keys().filter(|name| !name.is_empty())
}

fn compare_in(tx: &Transaction<'_>, state: &State) {
    assert!(names(state).eq(&tx.list_namespaces().unwrap()));
    for (name, model) in state {
        if name.is_empty() {
            assert_eq!(&tx.iter().unwrap().collect::<Map>(), model);
            assert_eq!(tx.len().unwrap(), model.len());
            let mut keys: Vec<_> = tx.keys().unwrap().collect();
            keys.sort_unstable();
            assert!(keys.iter().eq(model.keys()));
            for (key, value) in model {
                assert_eq!(tx.get(key).unwrap().as_ref(), Some(value));
            }
        } else {
            let space = tx.open_namespace(name).unwrap().unwrap();
            assert_eq!(&space.iter().unwrap().collect::<Map>(), model, "{name}");
            assert_eq!(space.len().unwrap(), model.len(), "{name}");
        }
    }
}

fn compare_snapshot(snapshot: &Snapshot, state: &State) {
    assert!(names(state).eq(&snapshot.list_namespaces().unwrap()));
    for (name, model) in state {
        if name.is_empty() {
            assert_eq!(&snapshot.iter().unwrap().collect::<Map>(), model);
            assert_eq!(snapshot.len().unwrap(), model.len());
            for (key, value) in model {
                assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(value));
            }
        } else {
            let space = snapshot.namespace(name).unwrap().unwrap();
            assert_eq!(&space.iter().unwrap().collect::<Map>(), model, "{name}");
            assert_eq!(space.len().unwrap(), model.len(), "{name}");
            for (key, value) in model {
                assert_eq!(space.get(key).unwrap().as_ref(), Some(value));
            }
        }
    }
    let missing = NAMES.iter().filter(|name| !state.contains_key(**name));
    for name in missing {
        assert!(snapshot.namespace(name).unwrap().is_none());
    }
}

fn compare(db: &Emdb, state: &State) {
    assert!(names(state).eq(&db.list_namespaces().unwrap()));
    let (mut live, mut bytes) = (0, 0);
    for (name, model) in state {
        live += model.len();
        let lens = model.iter().map(|(key, value)| key.len() + value.len());
        bytes += lens.sum::<usize>() as u64;
        if name.is_empty() {
            assert_eq!(&db.iter().unwrap().collect::<Map>(), model);
            assert_eq!(db.len().unwrap(), model.len());
        } else {
            let space = db.open_namespace(name).unwrap().unwrap();
            assert_eq!(&space.iter().unwrap().collect::<Map>(), model, "{name}");
            assert_eq!(space.len().unwrap(), model.len(), "{name}");
        }
    }
    let stats = db.stats().unwrap();
    assert_eq!(stats.live_records, live);
    assert_eq!(stats.logical_size_bytes, bytes);
    compare_snapshot(&db.snapshot().unwrap(), state);
}

fn space() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => 1..NAMES.len()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (space(), key(), value()).prop_map(|(s, k, v)| Step::Insert(s, k, v)),
        3 => (space(), key(), value()).prop_map(|(s, k, v)| Step::Replace(s, k, v)),
        8 => (space(), key()).prop_map(|(s, k)| Step::Remove(s, k)),
        3 => (space(), key(), value()).prop_map(|(s, k, v)| Step::InsertIfAbsent(s, k, v)),
        3 => (space(), key(), any::<u8>()).prop_map(|(s, k, b)| Step::Update(s, k, b)),
        3 => (space(), key(), any::<bool>(), proptest::option::of(value()))
            .prop_map(|(s, k, e, v)| Step::CompareAndSwap(s, k, e, v)),
        3 => (space(), vec((key(), value()), 0..40)).prop_map(|(s, r)| Step::InsertMany(s, r)),
        1 => (space(), vec((key(), value()), 0..40))
            .prop_map(|(s, r)| Step::InsertManyInVain(s, r)),
        1 => (space(), vec(key(), 0..70)).prop_map(|(s, k)| Step::GetMany(s, k)),
        2 => space().prop_map(Step::Clear),
        4 => Just(Step::Savepoint),
        4 => any::<usize>().prop_map(Step::RollbackTo),
        2 => space().prop_map(Step::Iterator),
        1 => Just(Step::Compare),
        1 => Just(Step::CompareOutside),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let end = select(vec![
        End::Commit,
        End::Commit,
        End::Rollback,
        End::Drop,
        End::Err,
    ]);
    prop_oneof![
        12 => (vec(step(), 0..24), end).prop_map(|(steps, end)| Op::Transaction(steps, end)),
        6 => (space(), key(), value()).prop_map(|(s, k, v)| Op::Insert(s, k, v)),
        6 => (space(), key()).prop_map(|(s, k)| Op::Remove(s, k)),
        1 => space().prop_map(Op::Clear),
        1 => space().prop_map(Op::DropNamespace),
        4 => Just(Op::TakeSnapshot),
        4 => (any::<usize>(), vec(key(), 0..10)).prop_map(|(w, k)| Op::ReadSnapshot(w, k)),
        3 => any::<usize>().prop_map(Op::DropSnapshot),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Verify),
        1 => Just(Op::Close),
        1 => Just(Op::LoseCheckpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases(64))
    })]

    #[test]
    fn transactions_and_snapshots_do_what_copies_of_maps_do(ops in vec(op(), 1..40), encrypted in any::<bool>()) {
        let _guard = crate::support::encrypt(encrypted);
        let mut tested = Tested::new();
        for op in ops {
            tested.apply(op);
        }
        for (snapshot, state) in tested.snapshots.drain(..) {
            compare_snapshot(&snapshot, &state);
        }
        tested.compare();
        tested.db.verify().unwrap();
        tested.apply(Op::LoseCheckpoint);
        tested.db.verify().unwrap();
    }
}
