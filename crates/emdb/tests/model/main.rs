//! Random operations against ordered maps, with the database reopened at random.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/builder.rs"]
mod support;
mod transactions;
#[cfg(feature = "ttl")]
mod whole;

use std::collections::BTreeMap;
use std::path::PathBuf;

use emdb::{Emdb, Namespace, NamespaceIter};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Calls the same verb on either.
macro_rules! on {
    ($space:expr, $db:ident => $call:expr) => {
        match &$space {
            Space::Default($db) => $call,
            Space::Named($db) => $call,
        }
    };
}

type Bytes = Vec<u8>;
type Map = BTreeMap<Bytes, Bytes>;

/// The default namespace and three others.
const NAMES: [&str; 4] = ["", "a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    Insert(usize, Bytes, Bytes),
    Replace(usize, Bytes, Bytes),
    InsertIfAbsent(usize, Bytes, Bytes),
    Remove(usize, Bytes),
    Update(usize, Bytes, u8),
    /// Whether the swap expects what is there.
    CompareAndSwap(usize, Bytes, bool, Option<Bytes>),
    InsertMany(usize, Vec<(Bytes, Bytes)>),
    /// A batch that ends in a key that is too long, and so never happens.
    InsertManyInVain(usize, Vec<(Bytes, Bytes)>),
    GetMany(usize, Vec<Bytes>),
    Clear(usize),
    DropNamespace(usize),
    OpenIterator(usize),
    StepIterator(usize, usize),
    EndIterator(usize),
    Flush,
    Checkpoint,
    /// Close and open again; iterators go on.
    Close,
    /// Drop every handle and open again.
    Drop,
    LoseCheckpoint,
    Verify,
}

/// An iterator and what it has yet to give.
struct Held {
    iterator: NamespaceIter,
    left: Map,
}

struct Tested {
    _directory: tempfile::TempDir,
    path: PathBuf,
    db: Emdb,
    model: BTreeMap<&'static str, Map>,
    held: Vec<Held>,
}

impl Tested {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        Self {
            db: support::builder().path(&path).build().unwrap(),
            _directory: directory,
            path,
            model: BTreeMap::from([("", Map::new())]),
            held: Vec::new(),
        }
    }

    fn space(&mut self, space: usize) -> (Space, &mut Map) {
        let name = NAMES[space];
        let model = self.model.entry(name).or_default();
        let space = if name.is_empty() {
            Space::Default(self.db.clone_handle())
        } else {
            Space::Named(self.db.namespace(name).unwrap())
        };
        (space, model)
    }

    fn open(&self) -> Emdb {
        support::builder().path(&self.path).build().unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Insert(space, key, value) => {
                let (space, model) = self.space(space);
                on!(space, db => db.insert(&key, &value).unwrap());
                model.insert(key, value);
            }
            Op::Replace(space, key, value) => {
                let (space, model) = self.space(space);
                let old = on!(space, db => db.replace(&key, &value).unwrap());
                assert_eq!(old, model.insert(key, value));
            }
            Op::InsertIfAbsent(space, key, value) => {
                let (space, model) = self.space(space);
                let stored = on!(space, db => db.insert_if_absent(&key, &value).unwrap());
                assert_eq!(stored, !model.contains_key(&key));
                model.entry(key).or_insert(value);
            }
            Op::Remove(space, key) => {
                let (space, model) = self.space(space);
                let old = on!(space, db => db.remove(&key).unwrap());
                assert_eq!(old, model.remove(&key));
            }
            Op::Update(space, key, byte) => {
                let (space, model) = self.space(space);
                let change = |old: Option<&[u8]>| match old {
                    Some(old) if old.len() > 40 => None,
                    Some(old) => Some([old, &[byte]].concat()),
                    None => Some(vec![byte]),
                };
                let new = on!(space, db => db.update(&key, change).unwrap());
                assert_eq!(new, change(model.get(&key).map(Vec::as_slice)));
                set(model, key, new);
            }
            Op::CompareAndSwap(space, key, expects, new) => {
                let (space, model) = self.space(space);
                let current = model.get(&key).cloned();
                let expected = if expects {
                    current.clone()
                } else {
                    Some(b"never stored".to_vec())
                };
                let swapped = on!(space, db => db
                    .compare_and_swap(&key, expected.as_deref(), new.as_deref())
                    .unwrap());
                if expects {
                    assert_eq!(swapped, Ok(()));
                    set(model, key, new);
                } else {
                    assert_eq!(swapped, Err(current));
                }
            }
            Op::InsertMany(space, records) => {
                let (space, model) = self.space(space);
                on!(space, db => db.insert_many(records.clone()).unwrap());
                model.extend(records);
            }
            Op::InsertManyInVain(space, mut records) => {
                let (space, _) = self.space(space);
                records.push((vec![0; 70_000], Bytes::new()));
                on!(space, db => db.insert_many(records).unwrap_err());
            }
            Op::GetMany(space, keys) => {
                let (space, model) = self.space(space);
                let values = on!(space, db => db.get_many(&keys).unwrap());
                let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
                assert_eq!(values, expected);
            }
            Op::Clear(space) => {
                let (space, model) = self.space(space);
                on!(space, db => db.clear().unwrap());
                model.clear();
            }
            Op::DropNamespace(space) => {
                let name = NAMES[space];
                if !name.is_empty() {
                    let there = self.model.remove(name).is_some();
                    assert_eq!(self.db.drop_namespace(name).unwrap(), there);
                }
            }
            Op::OpenIterator(space) => {
                let (space, model) = self.space(space);
                let left = model.clone();
                let iterator = on!(space, db => db.iter().unwrap());
                self.held.push(Held { iterator, left });
            }
            Op::StepIterator(which, steps) => {
                if !self.held.is_empty() {
                    let at = which % self.held.len();
                    self.held[at].step(steps);
                }
            }
            Op::EndIterator(which) => {
                if !self.held.is_empty() {
                    let at = which % self.held.len();
                    self.held.swap_remove(at).end();
                }
            }
            Op::Flush => self.db.flush().unwrap(),
            Op::Checkpoint => self.db.checkpoint().unwrap(),
            Op::Close => {
                self.db.clone_handle().close().unwrap();
                self.db = self.open();
                self.compare();
            }
            Op::Drop => {
                // An iterator keeps its database open.
                self.held.drain(..).for_each(Held::end);
                self.reopen(|_| ());
                self.compare();
            }
            Op::LoseCheckpoint => {
                self.held.drain(..).for_each(Held::end);
                self.reopen(|path| {
                    let _ = std::fs::remove_file(meta(path));
                });
                self.compare();
            }
            Op::Verify => {
                self.db.verify().unwrap();
            }
        }
    }

    fn reopen(&mut self, between: impl FnOnce(&PathBuf)) {
        self.db = Emdb::open_in_memory();
        between(&self.path);
        self.db = self.open();
    }

    fn compare(&self) {
        let names = self.db.list_namespaces().unwrap();
        assert!(self.model.keys().filter(|name| !name.is_empty()).eq(&names));
        let mut live = 0;
        for (name, model) in &self.model {
            live += model.len();
            if name.is_empty() {
                compare(&self.db, model);
            } else {
                let space = self.db.open_namespace(name).unwrap().unwrap();
                let found: Map = space.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
                assert_eq!(&found, model, "{name}");
                assert_eq!(space.len().unwrap(), model.len(), "{name}");
            }
        }
        assert_eq!(self.db.stats().unwrap().live_records, live);
    }
}

/// A handle to either kind of namespace; they have the same verbs.
enum Space {
    Default(Emdb),
    Named(Namespace),
}

fn compare(db: &Emdb, model: &Map) {
    let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(&found, model);
    assert_eq!(db.len().unwrap(), model.len());
    let mut keys: Vec<_> = db.keys().unwrap().collect();
    keys.sort_unstable();
    assert!(keys.iter().eq(model.keys()));
    for (key, value) in model {
        assert_eq!(db.get(key).unwrap().as_ref(), Some(value));
    }
}

fn meta(path: &std::path::Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".meta");
    name.into()
}

fn set(model: &mut Map, key: Bytes, value: Option<Bytes>) {
    match value {
        Some(value) => drop(model.insert(key, value)),
        None => drop(model.remove(&key)),
    }
}

impl Held {
    fn step(&mut self, steps: usize) {
        for (key, value) in self.iterator.by_ref().take(steps) {
            assert_eq!(self.left.remove(&key), Some(value), "{key:?}");
        }
        assert!(self.iterator.error().is_none());
    }

    fn end(mut self) {
        self.step(usize::MAX);
        assert_eq!(self.left, Map::new());
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        20 => (0..60_u8).prop_map(|n| format!("key{n}").into_bytes()),
        1 => Just(Bytes::new()),
        1 => Just(vec![b'k'; 3000]),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    let len = prop_oneof![
        20 => 0..60_usize,
        3 => select(vec![300, 5000, 16 << 10]),
        1 => select(vec![(16 << 10) + 1, 70_000]),
    ];
    (len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
}

fn space() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => 1..NAMES.len()]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (space(), key(), value()).prop_map(|(s, k, v)| Op::Insert(s, k, v)),
        4 => (space(), key(), value()).prop_map(|(s, k, v)| Op::Replace(s, k, v)),
        4 => (space(), key(), value()).prop_map(|(s, k, v)| Op::InsertIfAbsent(s, k, v)),
        8 => (space(), key()).prop_map(|(s, k)| Op::Remove(s, k)),
        4 => (space(), key(), any::<u8>()).prop_map(|(s, k, b)| Op::Update(s, k, b)),
        4 => (space(), key(), any::<bool>(), proptest::option::of(value()))
            .prop_map(|(s, k, e, v)| Op::CompareAndSwap(s, k, e, v)),
        4 => (space(), vec((key(), value()), 0..40)).prop_map(|(s, r)| Op::InsertMany(s, r)),
        2 => (space(), vec((key(), value()), 0..40)).prop_map(|(s, r)| Op::InsertManyInVain(s, r)),
        2 => (space(), vec(key(), 0..70)).prop_map(|(s, k)| Op::GetMany(s, k)),
        1 => space().prop_map(Op::Clear),
        1 => space().prop_map(Op::DropNamespace),
        3 => space().prop_map(Op::OpenIterator),
        4 => (any::<usize>(), 0..20_usize).prop_map(|(w, s)| Op::StepIterator(w, s)),
        2 => any::<usize>().prop_map(Op::EndIterator),
        1 => Just(Op::Flush),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Close),
        1 => Just(Op::Drop),
        1 => Just(Op::LoseCheckpoint),
        1 => Just(Op::Verify),
    ]
}

fn cases(default: u32) -> u32 {
    std::env::var("EMDB_TEST_CASES").map_or(default, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases(96))
    })]

    #[test]
    fn the_database_does_what_ordered_maps_do(ops in vec(op(), 1..120), encrypted in any::<bool>()) {
        let _guard = support::encrypt(encrypted);
        let mut tested = Tested::new();
        for op in ops {
            tested.apply(op);
        }
        tested.held.drain(..).for_each(Held::end);
        tested.compare();
        tested.db.verify().unwrap();
        tested.reopen(|_| ());
        tested.compare();
        tested.db.verify().unwrap();
    }
}
