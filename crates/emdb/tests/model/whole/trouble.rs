//! Disks that fail: a call that fails once, and a disk that is full.
//!
//! A write that fails happened as a whole or not at all, and nothing that was acknowledged
//! is lost, whatever comes next.

use std::io;
use std::sync::Arc;

use emdb::{Emdb, Error, Transaction};

use super::Op;
use super::case::{Case, Space};
use super::oracle::{Dump, NAMES, State, Stored};
use super::verbs::Verb;

/// Calls the same verb on either.
macro_rules! either {
    ($space:ident => $call:expr) => {
        match &$space {
            Space::Default($space) => $call,
            Space::Named($space) => $call,
        }
    };
}

fn on(db: &Emdb, name: &str) -> Result<Space, Error> {
    match name {
        "" => Ok(Space::Default(db.clone_handle())),
        name => db.namespace(name).map(Space::Named),
    }
}

impl Case {
    /// Has these steps done on a disk that fails.
    pub(super) fn trouble(&mut self, how: Op, steps: &[Op]) {
        let is_full = how.detail.is_multiple_of(3);
        if is_full {
            let len = self.disk.live_bytes().len() as u64;
            let room = u64::from(how.other % 4) * 20_000;
            self.disk.set_capacity(Some(len + room));
        } else {
            self.fail_soon(how.other % 12);
        }
        for op in steps {
            self.attempt(*op);
        }
        self.disk.set_capacity(None);
        self.repair();
        self.compare();
        self.db.verify().unwrap();
        match self.db.flush() {
            Ok(()) => {
                self.flushed();
                return;
            }
            Err(Error::Poisoned) if !is_full => {}
            Err(error) => panic!("{error:?}"),
        }
        let answer = self.db.insert(how.key(), "");
        assert!(matches!(answer, Err(Error::Poisoned)), "{answer:?}");
        let answer = self.db.transaction(|tx| tx.insert(how.key(), ""));
        assert!(matches!(answer, Err(Error::Poisoned)), "{answer:?}");
        self.compare();
        match how.detail / 3 % 4 {
            0 => return self.lose_power(how),
            1 => {
                // What a failed sync left in memory alone goes at any time; here only once
                // nobody reads it any more.
                self.disk = Arc::new(self.disk.after_kill());
                self.disk.evict().unwrap();
                self.reopen_failing(how);
                return self.find_version();
            }
            2 => drop(self.db.clone_handle().close()),
            _ => {}
        }
        self.reopen_failing(how);
        self.compare();
    }

    fn fail_soon(&self, calls: u8) {
        let call = self.disk.calls() + u64::from(calls);
        self.disk.fail_call(call, io::ErrorKind::Other);
    }

    fn repair(&self) {
        self.disk.fail_call(u64::MAX, io::ErrorKind::Other);
    }

    /// Opens what a killed process left, on a disk that fails meanwhile.
    fn reopen_failing(&mut self, how: Op) {
        self.disk = Arc::new(self.disk.after_kill());
        self.fail_soon(how.key % 16);
        if let Ok(db) = self.builder().build_on(Box::new(Arc::clone(&self.disk))) {
            let _ = db.close();
        }
        self.repair();
        self.open(how.detail);
    }

    /// What is found must be one of the versions since the last flush.
    pub(super) fn find_version(&mut self) {
        let (found, now) = (Dump::of(&self.db), self.now());
        let versions = self.versions.iter();
        let at = versions
            .rev()
            .position(|state| Dump::expected(state, now) == found);
        let Some(at) = at else {
            panic!("none of {} versions: {found:?}", self.versions.len());
        };
        self.versions.truncate(self.versions.len() - at);
    }

    /// Writes, and takes an error for an answer.
    fn attempt(&mut self, op: Op) {
        let (name, now) = (NAMES[op.space], self.now());
        let db = self.db.clone_handle();
        let mut after = self.state().clone();
        let expires_at = self.settings.default_ttl.map(|ttl| now + ttl);
        let stored = |value: Vec<u8>| Stored {
            value: value.into(),
            expires_at,
        };
        let result = match op.verb {
            Verb::Flush => db.flush(),
            Verb::Checkpoint => db.checkpoint(),
            Verb::DropNamespace if !name.is_empty() => {
                after.remove(name);
                db.drop_namespace(name).map(drop)
            }
            Verb::Get | Verb::Walk | Verb::Range | Verb::Compare => return self.compare(),
            Verb::Begin | Verb::Update | Verb::Replace | Verb::CompareAndSwap => {
                db.transaction(|tx| self.attempt_in(tx, op, &mut after))
            }
            _ => match on(&db, name) {
                Err(error) => {
                    after.entry(name).or_default();
                    Err(error)
                }
                Ok(space) => {
                    if !after.contains_key(name) {
                        after.insert(name, Arc::default());
                        self.push(after.clone());
                    }
                    let records = Arc::make_mut(after.entry(name).or_default());
                    match op.verb {
                        Verb::Remove | Verb::PopFirst | Verb::PopLast => {
                            records.remove(&op.key());
                            either!(space => space.remove(op.key()).map(drop))
                        }
                        Verb::Clear | Verb::Retain => {
                            records.clear();
                            either!(space => space.clear())
                        }
                        Verb::InsertMany | Verb::GetMany => {
                            let many = op.records();
                            let result = either!(space => space.insert_many(many.clone()));
                            records.extend(many.into_iter().map(|(k, v)| (k, stored(v))));
                            result
                        }
                        _ => {
                            let value = op.value();
                            let result = either!(space => space.insert(op.key(), &value));
                            records.insert(op.key(), stored(value));
                            result
                        }
                    }
                }
            },
        };
        let changes = after != *self.state();
        let syncs = matches!(op.verb, Verb::Flush | Verb::Checkpoint);
        match result {
            Ok(()) => self.push(after),
            Err(Error::Io(_) | Error::Poisoned | Error::TransactionAborted(_)) => {
                // A sync that fails comes after what it was to sync.
                if Dump::of(&self.db) == Dump::expected(&after, now) {
                    self.push(after);
                }
                return self.compare();
            }
            Err(error) => panic!("{error:?}"),
        }
        if syncs || changes && self.writes_through {
            self.flushed();
        }
    }

    /// Several writes; some that fail are passed over.
    fn attempt_in(&self, tx: &Transaction<'_>, op: Op, state: &mut State) -> Result<(), Error> {
        let (name, now) = (NAMES[op.space], self.now());
        let expires_at = self.settings.default_ttl.map(|ttl| now + ttl);
        let mut savepoints = Vec::new();
        let space = (!name.is_empty()).then(|| tx.namespace(name)).transpose()?;
        state.entry(name).or_default();
        for step in 0..op.other % 12 {
            let at = Op {
                key: (op.key + step * 7) % super::KEYS,
                detail: op.detail.wrapping_mul(u16::from(step) * 2 + 1),
                ..op
            };
            let (key, value) = (at.key(), at.value());
            let done = match at.detail >> 4 & 7 {
                0 => {
                    savepoints.push((tx.savepoint()?, state.clone()));
                    Ok(())
                }
                1 if !savepoints.is_empty() => {
                    let (savepoint, then) = savepoints.pop().unwrap();
                    let done = tx.rollback_to(savepoint);
                    if done.is_ok() {
                        *state = then;
                    }
                    done
                }
                2 | 3 => {
                    let done = match &space {
                        None => tx.remove(&key),
                        Some(space) => space.remove(&key),
                    };
                    if done.is_ok() {
                        Arc::make_mut(state.entry(name).or_default()).remove(&key);
                    }
                    done.map(drop)
                }
                4 => {
                    let many = at.records();
                    let done = match &space {
                        None => tx.insert_many(many.clone()),
                        Some(space) => space.insert_many(many.clone()),
                    };
                    if done.is_ok() {
                        let records = Arc::make_mut(state.entry(name).or_default());
                        records.extend(many.into_iter().map(|(key, value)| {
                            let value = value.into();
                            (key, Stored { value, expires_at })
                        }));
                    }
                    done
                }
                _ => {
                    let done = match &space {
                        None => tx.insert(&key, &value),
                        Some(space) => space.insert(&key, &value),
                    };
                    if done.is_ok() {
                        let value = value.into();
                        Arc::make_mut(state.entry(name).or_default())
                            .insert(key, Stored { value, expires_at });
                    }
                    done
                }
            };
            if op.key.is_multiple_of(2) {
                done?;
            }
        }
        match op.detail % 5 {
            0 => Err(Error::TransactionAborted("by its owner")),
            _ => Ok(()),
        }
    }
}
