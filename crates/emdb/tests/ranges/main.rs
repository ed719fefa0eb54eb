//! Ranges: every verb against an ordered map, in databases, transactions and snapshots.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod model;
mod removal;
mod stored;
#[path = "../support/builder.rs"]
mod support;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use emdb::{Emdb, Error, Namespace};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn ordered() -> Emdb {
    Emdb::builder().enable_range_scans(true).build().unwrap()
}

fn open(path: &Path) -> Emdb {
    let builder = support::builder().path(path).enable_range_scans(true);
    builder.build().unwrap()
}

fn records(map: &Map) -> Vec<(Vec<u8>, Vec<u8>)> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Keys that are hard to tell apart: prefixes of each other, and bytes at the ends.
fn awkward_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], vec![255], vec![255, 255]];
    keys.push(vec![255; 30]);
    keys.push(vec![0; 30]);
    for number in 0..300_u32 {
        keys.push(format!("counter:prefix:{number:010}").into_bytes());
        keys.push(format!("tenant-0000000000000000/{}", number % 17).into_bytes());
        keys.push(vec![b'a'; (number % 40) as usize]);
    }
    keys.sort();
    keys.dedup();
    keys
}

fn filled() -> (Emdb, Map) {
    let db = ordered();
    let mut map = Map::new();
    // Not in the order of keys.
    for (number, key) in awkward_keys().into_iter().enumerate() {
        if number % 2 == 0 {
            db.insert(&key, number.to_string()).unwrap();
            map.insert(key, number.to_string().into_bytes());
        }
    }
    for (number, key) in awkward_keys().into_iter().enumerate().rev() {
        if number % 2 == 1 {
            db.insert(&key, number.to_string()).unwrap();
            map.insert(key, number.to_string().into_bytes());
        }
    }
    (db, map)
}

#[test]
fn every_kind_of_range_is_as_in_an_ordered_map() {
    let (db, map) = filled();
    assert_eq!(db.range(..).unwrap(), records(&map));
    let keys = awkward_keys();
    for from in keys.iter().step_by(7) {
        for to in keys.iter().step_by(11).filter(|to| *to >= from) {
            let expected = |lower, upper| -> Vec<_> {
                map.range::<Vec<u8>, _>((lower, upper))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            };
            let half_open = expected(Bound::Included(from), Bound::Excluded(to));
            assert_eq!(db.range(from..to).unwrap(), half_open);
            assert_eq!(db.range(from.clone()..to.clone()).unwrap(), half_open);
            let closed = expected(Bound::Included(from), Bound::Included(to));
            assert_eq!(db.range(from.as_slice()..=to.as_slice()).unwrap(), closed);
            if from < to {
                let open = expected(Bound::Excluded(from), Bound::Excluded(to));
                let bounds = (Bound::Excluded(from), Bound::Excluded(to));
                assert_eq!(db.range(bounds).unwrap(), open);
            }
            let mut backwards: Vec<_> = db.range_iter(from..=to).unwrap().rev().collect();
            backwards.reverse();
            assert_eq!(backwards, closed);
        }
        let tail: Vec<_> = map.range(from.clone()..).map(|(k, _)| k.clone()).collect();
        let keys = |iter: emdb::EmdbRangeIter| iter.map(|(k, _)| k).collect::<Vec<_>>();
        assert_eq!(keys(db.iter_from(from).unwrap()), tail);
        assert_eq!(keys(db.iter_after(from).unwrap()), tail[1..]);
        let prefixed: Vec<_> = map
            .keys()
            .filter(|k| k.starts_with(from))
            .cloned()
            .collect();
        assert_eq!(keys(db.range_prefix_iter(from).unwrap()), prefixed);
        assert_eq!(db.range_prefix(from).unwrap().len(), prefixed.len());
    }
    assert_eq!(db.range("b".."a").unwrap(), []);
    assert_eq!(db.first().unwrap(), records(&map).first().cloned());
    assert_eq!(db.last().unwrap(), records(&map).last().cloned());
}

#[test]
fn an_iterator_from_both_ends_gives_every_record_once() {
    let (db, map) = filled();
    for turns in [1, 2, 3, 50] {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut iter = db.range_iter(..).unwrap();
        'all: loop {
            for _ in 0..turns {
                let Some(record) = iter.next() else {
                    break 'all;
                };
                low.push(record);
            }
            let Some(record) = iter.next_back() else {
                break;
            };
            high.push(record);
        }
        assert!(iter.next().is_none() && iter.next_back().is_none());
        assert!(iter.error().is_none());
        high.reverse();
        low.extend(high);
        assert_eq!(low, records(&map));
    }
}

#[test]
fn scans_show_records_in_place_until_they_break() {
    let (db, map) = filled();
    let mut seen = Vec::new();
    db.scan(.., |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() == 10 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(seen, records(&map)[..10]);
    seen.clear();
    db.scan_rev(.., |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    seen.reverse();
    assert_eq!(seen, records(&map));
}

#[test]
fn without_the_option_every_verb_says_which_it_needs() {
    let db = Emdb::open_in_memory();
    db.insert("key", "value").unwrap();
    let says = |error: Error| match error {
        Error::InvalidConfig(reason) => assert!(reason.contains("enable_range_scans"), "{reason}"),
        other => panic!("{other:?}"),
    };
    says(db.range(..).unwrap_err());
    says(db.range_iter("a"..).map(drop).unwrap_err());
    says(db.range_prefix("a").unwrap_err());
    says(db.iter_from("a").map(drop).unwrap_err());
    says(db.first().unwrap_err());
    says(db.pop_last().unwrap_err());
    says(db.remove_range(.."z").unwrap_err());
    says(db.retain(|_, _| false).unwrap_err());
    says(db.extract_if(|_, _| true).map(drop).unwrap_err());
    says(db.snapshot().unwrap().range(..).unwrap_err());
    assert!(!db.stats().unwrap().range_scans_enabled);
    assert_eq!(db.len().unwrap(), 1);
}

#[test]
fn the_option_can_be_switched_on_and_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut map = Map::new();
    for round in 0..4_u8 {
        let db = if round % 2 == 0 {
            Emdb::open(&path).unwrap()
        } else {
            open(&path)
        };
        for (number, key) in awkward_keys().into_iter().enumerate() {
            match (number + usize::from(round)) % 3 {
                0 => {
                    db.insert(&key, [round]).unwrap();
                    map.insert(key, vec![round]);
                }
                1 => {
                    db.remove(&key).unwrap();
                    map.remove(&key);
                }
                _ => {}
            }
        }
        if round % 2 == 1 {
            assert_eq!(db.range(..).unwrap(), records(&map));
            assert!(db.stats().unwrap().range_scans_enabled);
        }
        if round > 1 {
            db.checkpoint().unwrap();
        }
    }
    assert_eq!(open(&path).range(..).unwrap(), records(&map));
}

#[test]
fn pops_take_the_ends() {
    let (db, mut map) = filled();
    for turn in 0.. {
        let (found, expected) = if turn % 3 == 0 {
            (db.pop_last().unwrap(), map.pop_last())
        } else {
            (db.pop_first().unwrap(), map.pop_first())
        };
        assert_eq!(found, expected);
        if expected.is_none() {
            break;
        }
    }
    assert_eq!(db.len().unwrap(), 0);
    assert_eq!(db.first().unwrap(), None);
}

/// A record that was popped, and given back by a savepoint, was passed over from then on.
#[test]
fn what_a_savepoint_takes_back_is_popped_again() {
    let (db, map) = filled();
    let (first, last) = (
        records(&map).first().cloned(),
        records(&map).last().cloned(),
    );
    let tx = db.begin().unwrap();
    let savepoint = tx.savepoint().unwrap();
    for _ in 0..3 {
        for pops in 1..4 {
            assert_eq!(tx.pop_first().unwrap(), first);
            assert_eq!(tx.pop_last().unwrap(), last);
            for _ in 1..pops {
                tx.pop_first().unwrap();
                tx.pop_last().unwrap();
            }
            tx.rollback_to(savepoint).unwrap();
        }
        // The only change is held back.
        assert_eq!(tx.pop_first().unwrap(), first);
        tx.rollback_to(savepoint).unwrap();
    }
    drop(tx);
    assert_eq!(db.pop_first().unwrap(), first);
    assert_eq!(db.pop_last().unwrap(), last);
}

#[test]
fn retain_and_remove_range_are_one_step_each() {
    let (db, mut map) = filled();
    let snapshot = db.snapshot().unwrap();
    let before = map.clone();
    let removed = db.remove_range("b".."d").unwrap();
    let len = map.len();
    map.retain(|key, _| !(b"b".as_slice()..b"d".as_slice()).contains(&key.as_slice()));
    assert_eq!(removed, (len - map.len()) as u64);
    let len = map.len();
    let odd = |value: &[u8]| value.last().is_some_and(|last| last % 2 == 1);
    let removed = db.retain(|_, value| odd(value)).unwrap();
    map.retain(|_, value| odd(value));
    assert_eq!(removed, (len - map.len()) as u64);
    assert_eq!(db.range(..).unwrap(), records(&map));
    assert_eq!(snapshot.range(..).unwrap(), records(&before));
    // The closure runs while the write side is held.
    let mut refused = false;
    db.retain(|_, _| {
        refused |= matches!(db.insert("x", ""), Err(Error::WriteInProgress(_)));
        true
    })
    .unwrap();
    assert!(refused);
}

#[test]
fn extract_if_removes_as_it_is_pulled() {
    let (db, mut map) = filled();
    let mut extracted = db.extract_if(|key, _| key.len() % 2 == 0).unwrap();
    let expected: Vec<_> = map
        .keys()
        .filter(|key| key.len() % 2 == 0)
        .cloned()
        .collect();
    for key in &expected[..5] {
        let (found, value) = extracted.next().unwrap().unwrap();
        assert_eq!(&found, key);
        assert_eq!(Some(value), map.remove(key));
    }
    // Nothing is held in between.
    db.insert("zz", "new").unwrap();
    map.insert(b"zz".to_vec(), b"new".to_vec());
    db.remove(&expected[5]).unwrap();
    map.remove(&expected[5]);
    assert_eq!(extracted.next().unwrap().unwrap().0, expected[6]);
    map.remove(&expected[6]);
    drop(extracted);
    assert_eq!(db.range(..).unwrap(), records(&map));
}

#[test]
fn extract_if_asks_about_what_a_key_has_when_it_is_met() {
    let db = ordered();
    db.insert_many((0..400).map(|number| (format!("{number:03}"), "old")))
        .unwrap();
    let mut asked = 0;
    let mut extracted = db
        .extract_if(|key, value| {
            asked += 1;
            if key == b"010" && asked == 11 {
                // Between the question and the removal: it is asked again.
                db.insert("010", "changed").unwrap();
            }
            value != b"changed"
        })
        .unwrap();
    assert_eq!(extracted.next().unwrap().unwrap().0, b"000");
    // Already fetched, and not yet.
    for key in ["012", "399"] {
        db.insert(key, "changed").unwrap();
    }
    db.insert("398", "newer").unwrap();
    db.remove("013").unwrap();
    db.insert("0125", "not there at the call").unwrap();
    let tx = db.begin().unwrap();
    tx.insert("014", "changed").unwrap();
    tx.rollback().unwrap();
    let rest: Vec<_> = extracted.map(Result::unwrap).collect();
    assert_eq!(rest.len(), 395);
    let value_of = |key: &str| rest.iter().find(|(found, _)| found == key.as_bytes());
    assert_eq!(value_of("398").unwrap().1, b"newer");
    assert_eq!(value_of("014").unwrap().1, b"old");
    assert_eq!(asked, 400);
    let left: Vec<_> = db
        .range(..)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        left,
        ["010", "012", "0125", "399"].map(|key| key.as_bytes())
    );
}

#[test]
fn transactions_see_their_own_ranges_and_others_do_not() {
    let (db, map) = filled();
    let tx = db.begin().unwrap();
    tx.insert("new", "1").unwrap();
    tx.remove("").unwrap();
    let mut own = map.clone();
    own.insert(b"new".to_vec(), b"1".to_vec());
    own.remove(&b""[..]);
    assert_eq!(tx.range(..).unwrap(), records(&own));
    assert_eq!(tx.first().unwrap(), records(&own).first().cloned());
    assert_eq!(tx.pop_first().unwrap(), own.pop_first());
    assert_eq!(tx.remove_range("counter".."d").unwrap(), 300);
    own.retain(|key, _| !key.starts_with(b"counter"));
    assert_eq!(tx.range(..).unwrap(), records(&own));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(db.range(..).unwrap(), records(&map)));
    });
    tx.rollback().unwrap();
    assert_eq!(db.range(..).unwrap(), records(&map));
    db.transaction::<_, ()>(|tx| {
        tx.insert("new", "1")?;
        tx.remove_range("counter".."d").map(drop)
    })
    .unwrap();
    let mut after = map.clone();
    after.insert(b"new".to_vec(), b"1".to_vec());
    after.retain(|key, _| !key.starts_with(b"counter"));
    assert_eq!(db.range(..).unwrap(), records(&after));
}

#[test]
fn namespaces_have_orders_of_their_own() {
    let db = ordered();
    let space: Namespace = db.namespace("space").unwrap();
    db.insert("b", "default").unwrap();
    space.insert("a", "space").unwrap();
    assert_eq!(db.first().unwrap().unwrap().0, b"b");
    assert_eq!(space.first().unwrap().unwrap().0, b"a");
    let snapshot = db.snapshot().unwrap();
    space.clear().unwrap();
    assert_eq!(space.first().unwrap(), None);
    space.insert("c", "").unwrap();
    let old = snapshot.namespace("space").unwrap().unwrap();
    assert_eq!(old.range(..).unwrap(), [(b"a".to_vec(), b"space".to_vec())]);
    let iter = space.range_iter(..).unwrap();
    db.drop_namespace("space").unwrap();
    assert_eq!(iter.map(|(key, _)| key).collect::<Vec<_>>(), [b"c"]);
    assert!(matches!(space.range(..), Err(Error::NamespaceDropped)));
    assert_eq!(old.last().unwrap().unwrap().0, b"a");
}

#[test]
fn a_snapshot_reads_a_namespace_that_was_empty_and_is_cleared() {
    let db = ordered();
    let space = db.namespace("space").unwrap();
    let snapshot = db.snapshot().unwrap();
    space.clear().unwrap();
    space.insert("later", "").unwrap();
    let seen = snapshot.namespace("space").unwrap().unwrap();
    assert_eq!(seen.range(..).unwrap(), []);
    assert_eq!(seen.first().unwrap(), None);
    assert_eq!(space.range(..).unwrap().len(), 1);
}

#[test]
fn a_range_stays_as_it_was_while_others_write() {
    let db = &ordered();
    let count = 2000_u32;
    let key = |number: u32| format!("{number:08}");
    for number in 0..count {
        db.insert(key(number), "0").unwrap();
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..count {
                db.insert(key(number), "1").unwrap();
                db.remove(key(count - 1 - number)).unwrap();
                db.insert(key(count + number), "2").unwrap();
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds < 3 {
            let first: Vec<_> = db.range_iter(..).unwrap().collect();
            let snapshot = db.snapshot().unwrap();
            let mut forwards: Vec<_> = snapshot.range_iter(..).unwrap().collect();
            let mut backwards: Vec<_> = snapshot.range_iter(..).unwrap().rev().collect();
            backwards.reverse();
            assert_eq!(forwards, backwards);
            let mut unordered: Vec<_> = snapshot.iter().unwrap().collect();
            unordered.sort();
            assert_eq!(forwards, unordered);
            assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0));
            forwards.dedup_by(|a, b| a.0 == b.0);
            assert_eq!(forwards.len(), unordered.len());
            rounds += 1;
        }
        writer.join().unwrap();
    });
}
