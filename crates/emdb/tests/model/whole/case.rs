//! One case: a database on a simulated disk, beside the versions it went through.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use emdb::{
    Emdb, Error, FlushPolicy, Namespace, NamespaceIter, NamespaceRangeIter, Snapshot, Transaction,
    ValueRef, VerifyReads,
};
use emdb_journal::SimulatedMedium;

use super::Op;
use super::oracle::{Dump, NAMES, State, View};
use super::verbs::{self, Settings, Verb};
use crate::{Bytes, Map};

pub(crate) struct Case {
    pub(super) disk: Arc<SimulatedMedium>,
    pub(super) db: Emdb,
    options: u16,
    pub(super) settings: Settings,
    pub(super) writes_through: bool,
    time: Arc<AtomicU64>,
    /// What was there after each operation since the last flush; the last is now.
    pub(super) versions: Vec<State>,
    snapshots: Vec<(Snapshot, State, u64, bool)>,
    iterators: Vec<Held>,
    /// Values and copies of them.
    values: Vec<(Bytes, ValueRef)>,
    /// Checkpoints there were.
    sidecars: Vec<Bytes>,
}

/// An iterator and what it has yet to give.
struct Held {
    iterator: Iter,
    left: Map,
}

enum Iter {
    Any(NamespaceIter),
    Ordered(NamespaceRangeIter),
}

impl Held {
    fn step(&mut self, steps: usize) {
        for step in 0..steps {
            let record = match &mut self.iterator {
                Iter::Any(iterator) => match iterator.next() {
                    Some((key, value)) => {
                        assert_eq!(self.left.remove(&key), Some(value));
                        continue;
                    }
                    None => {
                        assert!(iterator.error().is_none());
                        return assert_eq!(self.left, Map::new());
                    }
                },
                Iter::Ordered(iterator) if step % 2 == 0 => {
                    (iterator.next(), self.left.pop_first())
                }
                Iter::Ordered(iterator) => (iterator.next_back(), self.left.pop_last()),
            };
            assert_eq!(record.0, record.1);
            if record.0.is_none() {
                return;
            }
        }
    }

    fn end(mut self) {
        self.step(usize::MAX);
    }
}

pub(super) enum Space {
    Default(Emdb),
    Named(Namespace),
}

/// A small generator, for what happens to a disk.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

impl Case {
    pub(crate) fn new(options: u16) -> Self {
        let time = Arc::new(AtomicU64::new(1_000_000));
        let disk = Arc::new(SimulatedMedium::new());
        let mut case = Self {
            disk,
            db: Emdb::open_in_memory(),
            options,
            settings: Settings {
                ordered: false,
                default_ttl: None,
            },
            writes_through: false,
            time,
            versions: vec![State::from([("", Arc::default())])],
            snapshots: Vec::new(),
            iterators: Vec::new(),
            values: Vec::new(),
            sidecars: Vec::new(),
        };
        case.open(options);
        case
    }

    /// Opens what is on the disk, with other options than before.
    pub(super) fn open(&mut self, how: u16) {
        self.settings = Settings {
            ordered: !how.is_multiple_of(4),
            default_ttl: (how >> 2).is_multiple_of(4).then_some(40),
        };
        let (policy, verify) = match (how >> 4) % 8 {
            0 => (FlushPolicy::WriteThrough, VerifyReads::Once),
            1 => (FlushPolicy::Group, VerifyReads::Once),
            2 => (FlushPolicy::OnEachFlush, VerifyReads::Always),
            3 => (FlushPolicy::OnEachFlush, VerifyReads::Never),
            _ => (FlushPolicy::OnEachFlush, VerifyReads::Once),
        };
        self.writes_through = policy == FlushPolicy::WriteThrough;
        let mut builder = self.builder().flush_policy(policy).verify_reads(verify);
        if let Some(ttl) = self.settings.default_ttl {
            builder = builder.default_ttl(Duration::from_millis(ttl));
        }
        if (how >> 7).is_multiple_of(4) {
            builder = builder.checkpoint_every(u64::from(how >> 9) * 500);
        }
        self.db = builder.build_on(Box::new(Arc::clone(&self.disk))).unwrap();
        self.db.verify().unwrap();
    }

    pub(super) fn builder(&self) -> emdb::EmdbBuilder {
        let time = Arc::clone(&self.time);
        let builder = Emdb::builder()
            .enable_range_scans(self.settings.ordered)
            .clock(move || time.load(Ordering::Relaxed));
        #[cfg(feature = "encrypt")]
        if self.options & (1 << 15) != 0 {
            return builder.encryption_key([7; 32]);
        }
        let _ = self.options;
        builder
    }

    pub(crate) fn run(mut self, ops: &[Op]) {
        let mut rest = ops;
        while let Some((op, after)) = rest.split_first() {
            rest = after;
            let (through, before) = (self.writes_through, self.state().clone());
            if matches!(op.verb, Verb::Begin | Verb::Trouble) {
                let steps = usize::from(op.key).min(rest.len());
                let (inside, after) = rest.split_at(steps);
                rest = after;
                match op.verb {
                    Verb::Begin => self.transaction(*op, inside),
                    _ => self.trouble(*op, inside),
                }
            } else {
                self.apply(*op);
            }
            // What another process wrote is not flushed until something is.
            if through && self.writes_through && op.verb != Verb::Trouble && *self.state() != before
            {
                self.flushed();
            }
        }
        for held in std::mem::take(&mut self.iterators) {
            held.end();
        }
        self.compare();
        self.db.verify().unwrap();
        self.replace_disk(self.disk.after_kill(), self.options);
        self.compare();
        self.db.verify().unwrap();
    }

    pub(super) fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> &State {
        &self.versions[self.versions.len() - 1]
    }

    pub(super) fn push(&mut self, state: State) {
        self.versions.push(state);
    }

    /// Only what is there now can be found from here on.
    pub(super) fn flushed(&mut self) {
        self.versions.drain(..self.versions.len() - 1);
    }

    pub(super) fn compare(&self) {
        assert_eq!(Dump::of(&self.db), Dump::expected(self.state(), self.now()));
    }

    fn space(&mut self, space: usize) -> Space {
        match NAMES[space] {
            "" => Space::Default(self.db.clone_handle()),
            name => {
                let namespace = self.db.namespace(name).unwrap();
                if !self.state().contains_key(name) {
                    let mut state = self.state().clone();
                    state.insert(name, Arc::default());
                    self.push(state);
                }
                assert_eq!(namespace.name(), name);
                Space::Named(namespace)
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let name = NAMES[op.space];
        match op.verb {
            Verb::Get | Verb::GetMany | Verb::Walk | Verb::Range | Verb::Ends => {
                let (space, now) = (self.space(op.space), self.now());
                let view = View {
                    records: &self.state()[name],
                    now,
                };
                match &space {
                    Space::Default(db) => verbs::read(db, op, view, self.settings.ordered),
                    Space::Named(space) => {
                        verbs::read_namespace(space, op, view, self.settings.ordered);
                    }
                }
            }
            Verb::ExtractIf | Verb::Sweep | Verb::Group => {
                let space = self.space(op.space);
                let (mut state, now, settings) = (self.state().clone(), self.now(), self.settings);
                let records = Arc::make_mut(state.get_mut(name).unwrap());
                let versions = match &space {
                    Space::Default(db) => verbs::pass_over(db, op, records, now, settings),
                    Space::Named(space) => {
                        verbs::pass_over_namespace(space, op, records, now, settings)
                    }
                };
                for version in versions {
                    let mut state = state.clone();
                    state.insert(name, Arc::new(version));
                    self.push(state);
                }
                self.push(state);
                if op.verb == Verb::Sweep {
                    // In what order it went is its own business.
                    self.db.flush().unwrap();
                    self.flushed();
                }
            }
            Verb::DropNamespace => {
                let old = self.db.open_namespace(name);
                if name.is_empty() {
                    return;
                }
                let old = old.unwrap();
                let mut state = self.state().clone();
                let there = state.remove(name).is_some();
                assert_eq!(old.is_some(), there);
                assert_eq!(self.db.drop_namespace(name).unwrap(), there);
                if there {
                    self.push(state);
                }
                if let Some(old) = old {
                    let answer = old.insert(op.key(), "");
                    assert!(matches!(answer, Err(Error::NamespaceDropped)), "{answer:?}");
                }
            }
            Verb::Flush => {
                self.db.flush().unwrap();
                self.flushed();
            }
            Verb::Checkpoint => {
                self.db.checkpoint().unwrap();
                self.flushed();
                self.sidecars.extend(self.disk.sidecar_bytes());
            }
            Verb::Verify => drop(self.db.verify().unwrap()),
            Verb::Compare => self.compare(),
            Verb::Pass => {
                self.time
                    .fetch_add(u64::from(op.other) / 3, Ordering::Relaxed);
            }
            Verb::OpenSnapshot => {
                let (snapshot, state) = (self.db.snapshot().unwrap(), self.state().clone());
                self.snapshots
                    .push((snapshot, state, self.now(), self.settings.ordered));
            }
            Verb::ReadSnapshot => self.read_snapshot(op),
            Verb::DropSnapshot if !self.snapshots.is_empty() => {
                let at = usize::from(op.detail) % self.snapshots.len();
                self.snapshots.swap_remove(at);
            }
            Verb::OpenIterator => self.open_iterator(op),
            Verb::StepIterator | Verb::EndIterator if !self.iterators.is_empty() => {
                let at = usize::from(op.detail) % self.iterators.len();
                match op.verb {
                    Verb::StepIterator => self.iterators[at].step(usize::from(op.other)),
                    _ => self.iterators.swap_remove(at).end(),
                }
            }
            Verb::Close => {
                self.db.clone_handle().close().unwrap();
                assert!(matches!(self.db.get(op.key()), Err(Error::Closed)));
                self.flushed();
                self.open(op.detail);
                self.compare();
            }
            Verb::Drop => {
                // An iterator and a snapshot keep the database open.
                self.iterators.clear();
                self.snapshots.clear();
                self.db = Emdb::open_in_memory();
                self.flushed();
                self.open(op.detail);
                self.compare();
            }
            Verb::Kill => {
                let disk = match op.other % 4 {
                    0 => self.disk.after_kill().with_sidecar(None),
                    _ => self.disk.after_kill(),
                };
                self.replace_disk(disk, op.detail);
                self.compare();
            }
            Verb::LosePower => self.lose_power(op),
            Verb::OpenReadOnly => self.open_read_only(op),
            Verb::Hold => self.hold(op),
            Verb::Insert
            | Verb::Replace
            | Verb::InsertIfAbsent
            | Verb::Remove
            | Verb::Update
            | Verb::CompareAndSwap
            | Verb::InsertMany
            | Verb::InsertManyInVain
            | Verb::Clear
            | Verb::PopFirst
            | Verb::PopLast
            | Verb::RemoveRange
            | Verb::Retain
            | Verb::InsertWithTtl
            | Verb::Persist
            | Verb::Expiry => {
                let space = self.space(op.space);
                let (mut state, now, settings) = (self.state().clone(), self.now(), self.settings);
                let records = Arc::make_mut(state.get_mut(name).unwrap());
                match &space {
                    Space::Default(db) => verbs::write(db, op, records, now, settings),
                    Space::Named(space) => {
                        verbs::write_namespace(space, op, records, now, settings);
                    }
                }
                self.push(state);
            }
            _ => {}
        }
    }

    fn read_snapshot(&self, op: Op) {
        if self.snapshots.is_empty() {
            return;
        }
        let at = usize::from(op.other) % self.snapshots.len();
        let (snapshot, state, now, ordered) = &self.snapshots[at];
        let names = state.keys().filter(|name| !name.is_empty());
        assert!(names.eq(&snapshot.list_namespaces().unwrap()));
        let verbs = [
            Verb::Get,
            Verb::GetMany,
            Verb::Walk,
            Verb::Range,
            Verb::Ends,
        ];
        let op = Op {
            verb: verbs[usize::from(op.key) % verbs.len()],
            ..op
        };
        let name = NAMES[op.space];
        let view = state.get(name).map(|records| View { records, now: *now });
        if name.is_empty() {
            let view = view.unwrap();
            verbs::read_snapshot(snapshot, op, view, *ordered);
            assert_eq!(snapshot.len().unwrap(), view.live().len());
            return;
        }
        let space = snapshot.namespace(name).unwrap();
        assert_eq!(space.is_some(), view.is_some());
        if let Some((space, view)) = space.zip(view) {
            verbs::read_snapshot_namespace(&space, op, view, *ordered);
            assert_eq!(space.len().unwrap(), view.live().len());
        }
    }

    /// Reads what a killed process left, without changing any of it.
    fn open_read_only(&self, op: Op) {
        let disk = Arc::new(match op.other % 4 {
            0 => self.disk.after_kill().with_sidecar(None),
            _ => self.disk.after_kill(),
        });
        let (before, sidecar) = (disk.live_bytes(), disk.sidecar_bytes());
        let builder = self
            .builder()
            .enable_range_scans(op.detail.is_multiple_of(2));
        let db = builder
            .read_only(true)
            .build_on(Box::new(Arc::clone(&disk)))
            .unwrap();
        assert_eq!(Dump::of(&db), Dump::expected(self.state(), self.now()));
        db.verify().unwrap();
        let answer = db.insert(op.key(), "");
        assert!(matches!(answer, Err(Error::ReadOnly)), "{answer:?}");
        db.close().unwrap();
        assert_eq!(before, disk.live_bytes());
        assert_eq!((0, sidecar), (disk.calls(), disk.sidecar_bytes()));
    }

    /// Keeps a value without a copy of it; all that were kept are still what they were.
    fn hold(&mut self, op: Op) {
        let space = self.space(op.space);
        let held = match &space {
            Space::Default(db) => db.get_zerocopy(op.key()).unwrap(),
            Space::Named(space) => space.get_zerocopy(op.key()).unwrap(),
        };
        self.values
            .extend(held.map(|value| (value.to_vec(), value)));
        for (copy, held) in &self.values {
            assert_eq!(held, copy);
        }
        self.values.truncate(16);
    }

    fn open_iterator(&mut self, op: Op) {
        let (space, now) = (self.space(op.space), self.now());
        let left = View {
            records: &self.state()[NAMES[op.space]],
            now,
        }
        .live();
        let iterator = match (&space, self.settings.ordered && op.detail.is_multiple_of(2)) {
            (Space::Default(db), true) => Iter::Ordered(db.range_iter(..).unwrap()),
            (Space::Default(db), false) => Iter::Any(db.iter().unwrap()),
            (Space::Named(space), true) => Iter::Ordered(space.range_iter(..).unwrap()),
            (Space::Named(space), false) => Iter::Any(space.iter().unwrap()),
        };
        self.iterators.push(Held { iterator, left });
    }

    /// Goes on with another disk. What still stands on the old one reads on.
    fn replace_disk(&mut self, disk: SimulatedMedium, how: u16) {
        self.disk = Arc::new(disk);
        self.open(how);
    }

    /// Each unsynced sector is kept, torn or dropped.
    pub(super) fn lose_power(&mut self, op: Op) {
        let mut random = Random(u64::from(op.detail) << 16 | u64::from(op.key));
        let drops = random.below(4);
        let bytes = self.disk.crash(|_| match random.below(4) {
            n if n < drops => 0,
            3 if random.below(2) == 0 => random.below(512) as usize,
            _ => 1,
        });
        let sidecar = match op.other % 4 {
            0 => None,
            1 if !self.sidecars.is_empty() => {
                let at = usize::from(op.detail) % self.sidecars.len();
                Some(self.sidecars[at].clone())
            }
            _ => self.disk.sidecar_bytes(),
        };
        let disk = SimulatedMedium::with_bytes(&bytes).with_sidecar(sidecar);
        self.replace_disk(disk, op.detail);
        self.find_version();
        // Opening synced what it found.
        self.flushed();
    }

    fn transaction(&mut self, begin: Op, steps: &[Op]) {
        let db = self.db.clone_handle();
        let mut state = self.state().clone();
        let run = |tx: &Transaction<'_>, case: &Self, state: &mut State| {
            let mut savepoints = Vec::new();
            for op in steps {
                case.step(tx, *op, state, &mut savepoints);
            }
            let names = state.keys().filter(|name| !name.is_empty());
            assert!(names.eq(&tx.list_namespaces().unwrap()));
        };
        let committed = match begin.detail % 8 {
            0 | 1 => {
                db.transaction(|tx| {
                    run(tx, self, &mut state);
                    Ok(())
                })
                .unwrap();
                true
            }
            2 => {
                let failed = db.transaction::<_, ()>(|tx| {
                    run(tx, self, &mut state);
                    Err(Error::KeyNotFound)
                });
                assert!(matches!(failed, Err(Error::KeyNotFound)));
                false
            }
            3 => {
                let mut through = false;
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    db.transaction::<_, ()>(|tx| {
                        run(tx, self, &mut state);
                        through = true;
                        resume_unwind(Box::new("rolls back"))
                    })
                }));
                match caught {
                    Err(panic) if !through => resume_unwind(panic),
                    caught => assert!(caught.is_err()),
                }
                false
            }
            how => {
                let tx = match how {
                    4 => until_free(|| db.try_begin()),
                    5 => until_free(|| db.begin_timeout(Duration::ZERO)),
                    _ => db.begin().unwrap(),
                };
                run(&tx, self, &mut state);
                match begin.other % 6 {
                    0 => tx.rollback().unwrap(),
                    1 => tx.abort().unwrap(),
                    2 => drop(tx),
                    _ => tx.commit().unwrap(),
                }
                begin.other % 6 > 2
            }
        };
        if committed {
            self.push(state);
        }
    }

    fn step(
        &self,
        tx: &Transaction<'_>,
        op: Op,
        state: &mut State,
        savepoints: &mut Vec<(emdb::Savepoint, State)>,
    ) {
        let (name, now) = (NAMES[op.space], self.now());
        let space = |state: &mut State| {
            state.entry(name).or_default();
            (!name.is_empty()).then(|| tx.namespace(name).unwrap())
        };
        match op.verb {
            Verb::Savepoint => savepoints.push((tx.savepoint().unwrap(), state.clone())),
            Verb::RollbackTo if !savepoints.is_empty() => {
                let at = usize::from(op.detail) % savepoints.len();
                let void = savepoints.split_off(at + 1);
                let (savepoint, then) = &savepoints[at];
                tx.rollback_to(*savepoint).unwrap();
                state.clone_from(then);
                for (savepoint, _) in void {
                    let refused = tx.rollback_to(savepoint);
                    assert!(matches!(refused, Err(Error::InvalidConfig(_))));
                }
            }
            Verb::Outside => self.look_from_outside(op),
            Verb::Pass => self.apply_pass(op),
            Verb::Get | Verb::GetMany | Verb::Walk | Verb::Range | Verb::Ends => {
                let on = space(state);
                let view = View {
                    records: &state[name],
                    now,
                };
                match &on {
                    None => verbs::read_transaction(tx, op, view, self.settings.ordered),
                    Some(on) => {
                        verbs::read_transaction_namespace(on, op, view, self.settings.ordered);
                    }
                }
            }
            _ => {
                let on = space(state);
                let records = Arc::make_mut(state.get_mut(name).unwrap());
                match &on {
                    None => verbs::write_transaction(tx, op, records, now, self.settings),
                    Some(on) => {
                        verbs::write_transaction_namespace(on, op, records, now, self.settings);
                    }
                }
            }
        }
    }

    fn apply_pass(&self, op: Op) {
        self.time
            .fetch_add(u64::from(op.other) / 3, Ordering::Relaxed);
    }

    /// Nobody else sees anything of a transaction, or writes while it is open; and nothing
    /// is left of it if the process dies.
    fn look_from_outside(&self, op: Op) {
        let answer = self.db.insert(op.key(), "");
        assert!(
            matches!(answer, Err(Error::WriteInProgress(_))),
            "{answer:?}"
        );
        if !op.detail.is_multiple_of(4) {
            return self.compare();
        }
        let disk = Arc::new(self.disk.after_kill());
        let db = self.builder().build_on(Box::new(disk)).unwrap();
        assert_eq!(Dump::of(&db), Dump::expected(self.state(), self.now()));
    }
}

/// A checkpoint of the engine's own has the write side for a moment.
fn until_free<'a>(begin: impl Fn() -> emdb::Result<Option<Transaction<'a>>>) -> Transaction<'a> {
    loop {
        match begin().unwrap() {
            Some(tx) => return tx,
            None => std::thread::yield_now(),
        }
    }
}
