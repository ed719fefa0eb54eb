//! Records that expire: what each read path sees, before and after, and what a sweep takes.
#![cfg(feature = "ttl")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod model;
#[path = "../support/builder.rs"]
mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use emdb::{Emdb, EmdbBuilder, Error, Ttl};

/// A time that only the test moves.
#[derive(Clone)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn new(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    fn builder(&self) -> EmdbBuilder {
        let time = Arc::clone(&self.0);
        support::builder().clock(move || time.load(Ordering::SeqCst))
    }

    fn open(&self, path: &Path) -> Emdb {
        self.builder().path(path).build().unwrap()
    }
}

fn keys(db: &Emdb) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = db.keys().unwrap().collect();
    keys.sort();
    keys
}

#[test]
fn an_expired_record_is_hidden_from_every_read() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert("stays", "1").unwrap();
    db.insert_with_ttl("goes", "2", Ttl::Duration(Duration::from_millis(500)))
        .unwrap();
    let before = db.iter().unwrap();
    time.set(1499);
    assert_eq!(db.get("goes").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(db.ttl("goes").unwrap(), Some(Duration::from_millis(1)));
    assert_eq!(db.expires_at("goes").unwrap(), Some(1500));
    time.set(1500);
    assert_eq!(db.get("goes").unwrap(), None);
    assert_eq!(db.get_zerocopy("goes").unwrap(), None);
    assert_eq!(db.get_with("goes", <[u8]>::len).unwrap(), None);
    assert_eq!(
        db.get_many(["goes", "stays"]).unwrap(),
        [None, Some(b"1".to_vec())]
    );
    assert!(!db.contains_key("goes").unwrap());
    assert_eq!(keys(&db), [b"stays"]);
    assert_eq!(db.iter().unwrap().count(), 1);
    let mut seen = Vec::new();
    db.for_each(|key, _| {
        seen.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, [b"stays"]);
    // An iterator sees what was there when it was made.
    assert_eq!(before.count(), 2);
    // What is stored counts until it is swept.
    assert_eq!(db.len().unwrap(), 2);
    assert_eq!(db.ttl("goes").unwrap(), Some(Duration::ZERO));
    assert_eq!(db.expires_at("goes").unwrap(), Some(1500));
}

#[test]
fn writes_take_an_expired_value_for_none() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    let expired = |key: &str| {
        db.insert_with_ttl(key, "old", Ttl::ExpiresAt(1)).unwrap();
    };
    expired("a");
    assert_eq!(db.remove("a").unwrap(), None);
    assert_eq!(db.len().unwrap(), 0);
    expired("b");
    assert_eq!(db.replace("b", "new").unwrap(), None);
    expired("c");
    assert!(db.insert_if_absent("c", "new").unwrap());
    expired("d");
    assert_eq!(
        db.compare_and_swap("d", Some(b"old"), Some(b"x")).unwrap(),
        Err(None)
    );
    assert_eq!(
        db.compare_and_swap("d", None, Some(b"new")).unwrap(),
        Ok(())
    );
    expired("e");
    let updated = db.update("e", |old| {
        assert_eq!(old, None);
        Some(b"new".to_vec())
    });
    assert_eq!(updated.unwrap().as_deref(), Some(&b"new"[..]));
    expired("f");
    assert!(!db.persist("f").unwrap());
    assert_eq!(db.get("f").unwrap(), None);
    for key in ["b", "c", "d", "e"] {
        assert_eq!(db.get(key).unwrap().as_deref(), Some(&b"new"[..]), "{key}");
        assert_eq!(db.ttl(key).unwrap(), None, "{key}");
    }
}

#[test]
fn what_expired_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let time = Time::new(1000);
    let db = time.open(&path);
    db.insert_with_ttl("key", "value", Ttl::ExpiresAt(2000))
        .unwrap();
    time.set(2000);
    assert_eq!(db.get("key").unwrap(), None);
    // The system's clock is set back.
    time.set(1500);
    assert_eq!(db.get("key").unwrap(), None);
    assert!(!db.persist("key").unwrap());
    db.checkpoint().unwrap();
    db.close().unwrap();
    time.set(2500);
    let db = time.open(&path);
    assert_eq!(db.get("key").unwrap(), None);
    assert_eq!(db.len().unwrap(), 1);
    assert_eq!(db.sweep_expired(), 1);
    assert_eq!(db.len().unwrap(), 0);
}

#[test]
fn persist_and_a_plain_insert_take_the_expiry_away() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    for key in ["kept", "replaced"] {
        db.insert_with_ttl(key, "value", Ttl::After(Duration::from_secs(1)))
            .unwrap();
    }
    assert!(db.persist("kept").unwrap());
    assert!(!db.persist("kept").unwrap());
    assert!(!db.persist("not there").unwrap());
    db.insert("replaced", "value").unwrap();
    time.set(10_000);
    assert_eq!(db.sweep_expired(), 0);
    for key in ["kept", "replaced"] {
        assert_eq!(db.get(key).unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(db.ttl(key).unwrap(), None);
    }
}

#[test]
fn a_sweep_takes_what_has_expired_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let time = Time::new(0);
    let db = time.open(&path);
    let space = db.namespace("space").unwrap();
    for number in 0..1000_u64 {
        let ttl = match number % 3 {
            0 => Ttl::None,
            _ => Ttl::ExpiresAt(number),
        };
        db.insert_with_ttl(number.to_le_bytes(), [7; 100], ttl)
            .unwrap();
        space
            .insert_with_ttl(number.to_le_bytes(), "", ttl)
            .unwrap();
    }
    time.set(499);
    let gone = (0..=499).filter(|number| number % 3 != 0).count();
    assert_eq!(db.try_sweep_expired().unwrap(), gone);
    assert_eq!(db.len().unwrap(), 1000 - gone);
    assert_eq!(space.len().unwrap(), 1000, "another namespace");
    assert_eq!(db.sweep_expired(), 0, "nothing more to take");
    db.close().unwrap();
    let db = time.open(&path);
    assert_eq!(db.len().unwrap(), 1000 - gone);
    time.set(500);
    assert_eq!(
        db.sweep_expired(),
        1,
        "500 has expired, also after reopening"
    );
    assert_eq!(db.sweep_expired(), 0);
    db.insert_with_ttl("late", "", Ttl::ExpiresAt(501)).unwrap();
    time.set(501);
    assert_eq!(
        db.sweep_expired(),
        1,
        "the record that came after the sweep"
    );
    time.set(5000);
    assert_eq!(
        db.sweep_expired(),
        (502..1000).filter(|n| n % 3 != 0).count()
    );
    assert_eq!(keys(&db).len(), 334);
}

#[test]
fn a_sweep_during_which_everything_is_cleared_is_no_error() {
    const RECORDS: u32 = 4000;
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    for round in 0..5 {
        let at = 1000 + round * 10;
        time.set(at);
        for key in 0..RECORDS {
            let ttl = Ttl::ExpiresAt(at + 5);
            db.insert_with_ttl(key.to_le_bytes(), "value", ttl).unwrap();
        }
        time.set(at + 5);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while db.len().unwrap() == RECORDS as usize {
                    std::hint::spin_loop();
                }
                db.clear().unwrap();
            });
            assert!(db.try_sweep_expired().unwrap() > 0);
        });
        assert_eq!(db.len().unwrap(), 0);
    }
}

#[test]
fn a_sweep_leaves_a_value_that_was_stored_meanwhile() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    std::thread::scope(|scope| {
        for round in 0..200_u64 {
            for number in 0..20_u64 {
                db.insert_with_ttl(number.to_le_bytes(), "old", Ttl::ExpiresAt(1))
                    .unwrap();
            }
            let writer = scope.spawn(|| {
                for number in (0..20_u64).rev() {
                    db.insert(number.to_le_bytes(), "new").unwrap();
                }
            });
            db.sweep_expired();
            writer.join().unwrap();
            for number in 0..20_u64 {
                let found = db.get(number.to_le_bytes()).unwrap();
                assert_eq!(found.as_deref(), Some(&b"new"[..]), "round {round}");
            }
        }
    });
}

#[test]
fn the_default_is_for_those_who_say_nothing() {
    let time = Time::new(1000);
    let db = time
        .builder()
        .default_ttl(Duration::from_millis(100))
        .build()
        .unwrap();
    db.insert("insert", "").unwrap();
    db.replace("replace", "").unwrap();
    db.insert_if_absent("absent", "").unwrap();
    db.insert_many([("many 1", ""), ("many 2", "")]).unwrap();
    db.insert_with_ttl("default", "", Ttl::Default).unwrap();
    db.insert_with_ttl("none", "", Ttl::None).unwrap();
    db.insert_with_ttl(
        "longer",
        "",
        Ttl::Duration(Duration::from_nanos(100_000_001)),
    )
    .unwrap();
    assert_eq!(db.len().unwrap(), 8);
    time.set(1100);
    assert_eq!(
        keys(&db),
        [&b"longer"[..], b"none"],
        "a part of a millisecond is a whole one"
    );
    time.set(1101);
    assert_eq!(keys(&db), [b"none"]);
    assert_eq!(db.sweep_expired(), 7);
}

/// A transaction that did nothing else left the record, and it still counted.
#[test]
fn removing_an_expired_record_removes_it_in_a_transaction_too() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert_with_ttl("plain", "", Ttl::ExpiresAt(2000))
        .unwrap();
    db.insert_with_ttl("in one", "", Ttl::ExpiresAt(2000))
        .unwrap();
    time.set(3000);
    assert_eq!(db.remove("plain").unwrap(), None);
    assert_eq!(db.len().unwrap(), 1);
    let removed = db.transaction(|tx| tx.remove("in one")).unwrap();
    assert_eq!(removed, None);
    assert_eq!(db.len().unwrap(), 0);
}

/// What a transaction had cleared still counted, where it had expired.
#[test]
fn a_clear_in_a_transaction_takes_what_has_expired_too() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert("stays", "").unwrap();
    db.insert_with_ttl("goes", "", Ttl::ExpiresAt(2000))
        .unwrap();
    db.insert_with_ttl("was never there", "", Ttl::ExpiresAt(0))
        .unwrap();
    time.set(3000);
    db.transaction(|tx| {
        tx.clear()?;
        assert!(tx.is_empty()?);
        Ok(())
    })
    .unwrap();
    assert_eq!(db.len().unwrap(), 0);
    assert_eq!(db.sweep_expired(), 0);
}

#[test]
fn what_a_transaction_stores_after_a_clear_expires_and_is_swept() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert_with_ttl("old", "", Ttl::ExpiresAt(1500)).unwrap();
    // From here on a sweep knows that nothing expires before that.
    assert_eq!(db.sweep_expired(), 0);
    let tx = db.begin().unwrap();
    tx.clear().unwrap();
    tx.insert_with_ttl("early", "", Ttl::ExpiresAt(1100))
        .unwrap();
    tx.insert_with_ttl("late", "", Ttl::ExpiresAt(2000))
        .unwrap();
    assert!(tx.persist("late").unwrap());
    tx.insert_with_ttl("late", "", Ttl::ExpiresAt(2000))
        .unwrap();
    time.set(1200);
    assert_eq!(tx.get("early").unwrap(), None);
    assert_eq!(tx.len().unwrap(), 2);
    tx.commit().unwrap();
    assert_eq!(db.get("early").unwrap(), None);
    assert_eq!(keys(&db), [b"late"]);
    assert_eq!(db.sweep_expired(), 1);
    assert_eq!(db.len().unwrap(), 1);
    time.set(2000);
    assert_eq!(db.sweep_expired(), 1);
    assert!(db.is_empty().unwrap());
    db.verify().unwrap();
    // What a rollback brings back expires as it did.
    db.insert_with_ttl("back", "", Ttl::ExpiresAt(2100))
        .unwrap();
    let tx = db.begin().unwrap();
    tx.clear().unwrap();
    drop(tx);
    time.set(2100);
    assert_eq!(db.sweep_expired(), 1);
}

#[test]
fn times_past_the_end_of_time_are_refused() {
    let db = Time::new(1000).builder().build().unwrap();
    for duration in [Duration::MAX, Duration::from_millis(u64::MAX)] {
        let stored = db.insert_with_ttl("key", "", Ttl::Duration(duration));
        assert!(matches!(stored, Err(Error::TtlOverflow)), "{stored:?}");
    }
    assert_eq!(db.len().unwrap(), 0);
    db.insert_with_ttl("key", "", Ttl::ExpiresAt(u64::MAX))
        .unwrap();
    assert_eq!(db.expires_at("key").unwrap(), Some(u64::MAX));
}

#[test]
fn a_snapshot_keeps_what_a_sweep_removes() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    for number in 0..100_u64 {
        db.insert_with_ttl(number.to_le_bytes(), "", Ttl::ExpiresAt(2000))
            .unwrap();
    }
    let iter = db.iter().unwrap();
    time.set(3000);
    assert_eq!(db.sweep_expired(), 100);
    assert_eq!(db.len().unwrap(), 0);
    assert_eq!(iter.count(), 100);
}

#[test]
fn the_sweeper_ends_with_the_database() {
    let time = Time::new(1000);
    let zero = time.builder().sweep_every(Duration::ZERO).build();
    assert!(matches!(zero, Err(Error::InvalidConfig(_))));
    let db = time
        .builder()
        .sweep_every(Duration::from_millis(1))
        .build()
        .unwrap();
    let space = db.namespace("space").unwrap();
    space.insert_with_ttl("key", "", Ttl::ExpiresAt(1)).unwrap();
    db.insert_with_ttl("key", "", Ttl::ExpiresAt(1)).unwrap();
    while db.len().unwrap() + space.len().unwrap() > 0 {
        std::thread::yield_now();
    }
    db.close().unwrap();
}

#[test]
fn a_record_without_an_expiry_takes_no_room_for_one() {
    let written = |ttl: Option<Ttl>| {
        let db = Emdb::open_in_memory();
        let before = db.stats().unwrap().last_lsn;
        match ttl {
            Some(ttl) => db.insert_with_ttl("key", "value", ttl).unwrap(),
            None => db.insert("key", "value").unwrap(),
        }
        db.stats().unwrap().last_lsn - before
    };
    assert_eq!(written(None), written(Some(Ttl::None)));
    assert!(written(Some(Ttl::ExpiresAt(1))) > written(None));
}

#[test]
fn transactions_store_and_see_expiries() {
    let time = Time::new(1000);
    let db = time
        .builder()
        .default_ttl(Duration::from_millis(100))
        .build()
        .unwrap();
    db.insert("before", "old").unwrap();
    let tx = db.begin().unwrap();
    tx.insert("default", "").unwrap();
    tx.insert_with_ttl("none", "", Ttl::None).unwrap();
    tx.insert_with_ttl("long", "", Ttl::ExpiresAt(5000))
        .unwrap();
    assert_eq!(tx.ttl("default").unwrap(), Some(Duration::from_millis(100)));
    assert_eq!(tx.expires_at("long").unwrap(), Some(5000));
    assert!(tx.persist("long").unwrap());
    time.set(1100);
    assert_eq!(tx.get("before").unwrap(), None);
    assert_eq!(tx.get("default").unwrap(), None);
    assert!(tx.insert_if_absent("before", "new").unwrap());
    let space = tx.namespace("space").unwrap();
    space
        .insert_with_ttl("key", "", Ttl::ExpiresAt(1200))
        .unwrap();
    tx.commit().unwrap();
    let mut keys = keys(&db);
    keys.sort();
    assert_eq!(keys, [&b"before"[..], b"long", b"none"]);
    assert_eq!(db.get("before").unwrap().as_deref(), Some(&b"new"[..]));
    time.set(1200);
    assert_eq!(db.sweep_expired(), 2, "what the transaction stored");
    assert_eq!(db.namespace("space").unwrap().sweep_expired(), 1);
    // A single record, which is committed as a plain frame.
    db.transaction::<_, ()>(|tx| tx.insert_with_ttl("one", "", Ttl::ExpiresAt(1300)))
        .unwrap();
    assert_eq!(db.expires_at("one").unwrap(), Some(1300));
    time.set(1300);
    assert_eq!(db.sweep_expired(), 1);
}

#[test]
fn what_a_rollback_brings_back_is_swept() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert_with_ttl("key", "", Ttl::ExpiresAt(1)).unwrap();
    db.insert_with_ttl("late", "", Ttl::ExpiresAt(2000))
        .unwrap();
    let tx = db.begin().unwrap();
    tx.insert("key", "").unwrap();
    tx.insert("late", "").unwrap();
    drop(tx);
    assert_eq!(db.sweep_expired(), 1);
    time.set(2000);
    assert_eq!(db.sweep_expired(), 1);
}

#[test]
fn a_snapshot_judges_by_the_time_it_was_taken() {
    let time = Time::new(1000);
    let db = time.builder().build().unwrap();
    db.insert_with_ttl("gone", "", Ttl::ExpiresAt(1000))
        .unwrap();
    db.insert_with_ttl("there", "1", Ttl::ExpiresAt(1001))
        .unwrap();
    let snapshot = db.snapshot().unwrap();
    time.set(5000);
    assert_eq!(db.sweep_expired(), 2);
    db.insert("there", "2").unwrap();
    assert_eq!(snapshot.get("gone").unwrap(), None);
    assert_eq!(snapshot.get("there").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(snapshot.iter().unwrap().count(), 1);
    assert_eq!(snapshot.len().unwrap(), 1);
    assert!(db.snapshot().unwrap().get("gone").unwrap().is_none());
}
