//! What the thread does, and that it ends.

use std::sync::Arc;

use emdb_journal::SimulatedMedium;

use super::*;
use crate::engine::Handle;
use crate::{Emdb, EmdbBuilder, Error};

/// A database on a simulated disk, and what is below its handles.
fn open(builder: EmdbBuilder) -> (Emdb, Handle, Arc<SimulatedMedium>) {
    let medium = Arc::new(SimulatedMedium::new());
    let db = builder.build_on(Box::new(Arc::clone(&medium))).unwrap();
    let engine = db.engine().clone();
    (db, engine, medium)
}

fn runs(engine: &Engine) -> bool {
    engine.sync_timer.thread().is_some()
}

#[test]
fn a_sync_needs_something_written_since_the_last_one() {
    let (db, engine, medium) = open(Emdb::builder());
    engine.flush().unwrap();
    for round in 0..3 {
        let before = medium.syncs();
        assert!(engine.sync_if_written().is_continue());
        assert_eq!(medium.syncs(), before, "nothing was written");
        db.insert("key", [round]).unwrap();
        assert!(engine.sync_if_written().is_continue());
        assert_eq!(medium.syncs(), before + 1);
        assert_eq!(engine.journal.durable_lsn(), engine.journal.end_lsn());
    }
}

#[test]
fn a_failed_sync_is_the_last_one() {
    let (db, engine, medium) = open(Emdb::builder());
    db.insert("key", "value").unwrap();
    medium.fail_call(medium.calls(), io::ErrorKind::Other);
    assert!(engine.sync_if_written().is_break());
    let calls = medium.calls();
    assert!(matches!(db.insert("key", "new"), Err(Error::Poisoned)));
    assert!(matches!(db.flush(), Err(Error::Poisoned)));
    assert!(engine.sync_if_written().is_break());
    assert_eq!(medium.calls(), calls, "a failed sync is not tried again");
}

#[test]
fn closing_ends_the_thread_however_long_its_interval() {
    for every in [Duration::from_secs(3600), Duration::MAX] {
        let (db, engine, _) = open(Emdb::builder().sync_every(every));
        assert!(runs(&engine));
        db.insert("key", "value").unwrap();
        // Another handle lives on.
        db.close().unwrap();
        assert!(!runs(&engine));
    }
}

#[test]
fn a_database_without_need_has_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let every = || Emdb::builder().sync_every(Duration::from_secs(3600));
    drop(every().path(&path).build().unwrap());
    for (builder, expected) in [
        (every().path(&path), true),
        (Emdb::builder().path(&path), false),
        (every().path(&path).read_only(true), false),
        (every(), false),
    ] {
        let db = builder.build().unwrap();
        assert_eq!(runs(db.engine()), expected);
    }
}
