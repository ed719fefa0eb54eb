//! What threads see of each other's transactions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use emdb::{Emdb, Error, Transaction};

const ACCOUNTS: u8 = 20;
const AMOUNT: i64 = 1000;
const TOTAL: i64 = ACCOUNTS as i64 * AMOUNT;

/// A small generator, different for every seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn amount(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

/// Half of the accounts are in a namespace of their own.
fn read(tx: &Transaction<'_>, account: u8) -> i64 {
    let value = match account % 2 {
        0 => tx.get([account]),
        _ => tx.namespace("odd").unwrap().get([account]),
    };
    value.unwrap().map_or(0, |value| amount(&value))
}

/// An account without money has no record.
fn write(tx: &Transaction<'_>, account: u8, amount: i64) {
    let space = tx.namespace("odd").unwrap();
    let (key, value) = ([account], amount.to_le_bytes());
    match (account % 2, amount) {
        (0, 0) => drop(tx.remove(key).unwrap()),
        (0, _) => tx.insert(key, value).unwrap(),
        (_, 0) => drop(space.remove(key).unwrap()),
        _ => space.insert(key, value).unwrap(),
    }
}

fn filled() -> Emdb {
    let db = Emdb::open_in_memory();
    db.transaction(|tx| {
        for account in 0..ACCOUNTS {
            write(tx, account, AMOUNT);
        }
        Ok(())
    })
    .unwrap();
    db
}

fn transfer(db: &Emdb, random: &mut Random) {
    let (from, to) = (random.below(20) as u8, random.below(20) as u8);
    let fails = random.below(3) == 0;
    let result = db.transaction(|tx| {
        let part = match random.below(3) {
            0 => read(tx, from),
            _ => random.below(100) as i64,
        };
        if random.below(4) == 0 {
            // Something that never happens.
            let savepoint = tx.savepoint()?;
            write(tx, from, 1_000_000);
            write(tx, to, 1_000_000);
            tx.rollback_to(savepoint)?;
        }
        let left = read(tx, from) - part;
        write(tx, from, left);
        if fails {
            return Err(Error::KeyNotFound);
        }
        let more = read(tx, to) + part;
        write(tx, to, more);
        Ok(())
    });
    assert_eq!(result.is_err(), fails);
}

fn sum(records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> i64 {
    records.map(|(_, value)| amount(&value)).sum()
}

#[test]
fn the_sum_of_all_accounts_never_wavers() {
    let db = filled();
    let left = AtomicU64::new(3);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (db, left) = (&db, &left);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..1000 {
                    transfer(db, &mut random);
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            // Snapshots that are taken while others are still held.
            let mut held = Vec::new();
            while left.load(Ordering::Relaxed) > 1 {
                held.push(db.snapshot().unwrap());
                if held.len() > 5 {
                    let snapshot = held.remove(0);
                    let odd = snapshot.namespace("odd").unwrap().unwrap();
                    let mut total = sum(snapshot.iter().unwrap()) + sum(odd.iter().unwrap());
                    assert_eq!(total, TOTAL);
                    total = (0..ACCOUNTS)
                        .map(|account| match account % 2 {
                            0 => snapshot.get([account]),
                            _ => odd.get([account]),
                        })
                        .map(|value| value.unwrap().map_or(0, |value| amount(&value)))
                        .sum();
                    assert_eq!(total, TOTAL);
                }
            }
            left.fetch_sub(1, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while left.load(Ordering::Relaxed) > 0 {
                let tx = db.begin().unwrap();
                let odd = tx.namespace("odd").unwrap();
                let total = sum(tx.iter().unwrap()) + sum(odd.iter().unwrap());
                assert_eq!(total, TOTAL);
                drop(tx);
                thread::yield_now();
            }
        });
    });
    db.verify().unwrap();
}

#[test]
fn nobody_ever_sees_what_was_rolled_back() {
    let db = Emdb::open_in_memory();
    for key in 0..4_u8 {
        db.insert([key], "good").unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000_u32 {
                let tx = db.begin().unwrap();
                let savepoint = tx.savepoint().unwrap();
                tx.insert([(round % 4) as u8], "bad").unwrap();
                tx.insert([4], "bad").unwrap();
                // Their frames and entries are there.
                assert_eq!(tx.len().unwrap(), 5);
                match round % 3 {
                    0 => drop(tx),
                    1 => {
                        tx.rollback_to(savepoint).unwrap();
                        tx.insert([((round + 1) % 4) as u8], "good").unwrap();
                        tx.insert([((round + 2) % 4) as u8], "good").unwrap();
                        tx.commit().unwrap();
                    }
                    _ => {
                        tx.rollback_to(savepoint).unwrap();
                        tx.commit().unwrap();
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        for reader in 0..3 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for key in 0..4_u8 {
                        let value = match reader {
                            0 => db.get([key]).unwrap(),
                            1 => db.get_many([[key]]).unwrap().remove(0),
                            _ => db.snapshot().unwrap().get([key]).unwrap(),
                        };
                        assert_eq!(value.unwrap(), b"good");
                    }
                    assert!(!db.contains_key([4]).unwrap());
                    assert_eq!(db.len().unwrap(), 4);
                }
            });
        }
    });
    db.verify().unwrap();
}

#[test]
fn who_saw_one_key_of_a_commit_sees_all_of_it_from_then_on() {
    let db = Emdb::open_in_memory();
    let rounds = 500_u32;
    db.insert("first", 0_u32.to_le_bytes()).unwrap();
    db.insert("last", 0_u32.to_le_bytes()).unwrap();
    let number = |value: Vec<u8>| u32::from_le_bytes(value.try_into().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                db.transaction(|tx| {
                    tx.insert("first", round.to_le_bytes())?;
                    // A namespace that is there from this commit on.
                    tx.namespace(round.to_string())?.insert("x", "y")?;
                    tx.insert("last", round.to_le_bytes())
                })
                .unwrap();
            }
        });
        for order in [["first", "last"], ["last", "first"]] {
            let db = &db;
            scope.spawn(move || {
                let mut before = 0;
                while before < rounds {
                    let first = number(db.get(order[0]).unwrap().unwrap());
                    let last = number(db.get(order[1]).unwrap().unwrap());
                    assert!(before <= first && first <= last);
                    if first > 0 {
                        let space = db.open_namespace(first.to_string()).unwrap().unwrap();
                        assert_eq!(space.get("x").unwrap().unwrap(), b"y");
                    }
                    before = last;
                }
            });
        }
        scope.spawn(|| {
            let mut before = 0;
            while before < rounds {
                // A namespace that is seen means that the rest is.
                let seen = db.open_namespace((before + 1).to_string()).unwrap();
                if seen.is_some() {
                    before += 1;
                    assert!(number(db.get("last").unwrap().unwrap()) >= before);
                    assert!(
                        db.snapshot().unwrap().list_namespaces().unwrap().len() >= before as usize
                    );
                }
            }
        });
    });
    assert_eq!(db.list_namespaces().unwrap().len(), rounds as usize);
    db.verify().unwrap();
}

#[test]
fn transactions_and_plain_writers_take_turns() {
    let db = Emdb::open_in_memory();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..800_u64 {
                    let add = |old: Option<&[u8]>| {
                        let old = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
                        Some((old + 1).to_le_bytes().to_vec())
                    };
                    match (thread + round) % 4 {
                        0 => drop(db.update("count", add).unwrap()),
                        1 => drop(db.transaction(|tx| tx.update("count", add)).unwrap()),
                        2 => {
                            let tx = db.begin().unwrap();
                            let old = tx.get("count").unwrap();
                            tx.insert("other", round.to_le_bytes()).unwrap();
                            tx.insert("count", add(old.as_deref()).unwrap()).unwrap();
                            tx.commit().unwrap();
                        }
                        _ => loop {
                            if let Some(tx) = db.try_begin().unwrap() {
                                tx.update("count", add).unwrap();
                                tx.commit().unwrap();
                                break;
                            }
                            thread::yield_now();
                        },
                    }
                }
            });
        }
    });
    let count = db.get("count").unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(count.try_into().unwrap()), 3200);
    db.verify().unwrap();
}
