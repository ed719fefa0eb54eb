//! kill -9 and fork.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use emdb::{Emdb, Error};

use crate::{alone, directory, in_child, run_child, spawn_child};

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    if let Some(path) = in_child() {
        // Killed in the middle of syncs, too, whose lock must not outlive the process.
        let db = Emdb::builder()
            .path(path)
            .sync_every(Duration::from_micros(100))
            .iouring_sqpoll(10)
            .build()
            .unwrap();
        let first = db.len().unwrap();
        let mut out = std::io::stdout();
        for number in first.. {
            let value = vec![number as u8; number % 2000];
            if number % 16 == 15 {
                // The batch counts as one record more or none.
                let batch = [(format!("a{number}"), "x"), (format!("b{number}"), "y")];
                db.namespace("batches").unwrap().insert_many(batch).unwrap();
            }
            if number % 8 == 7 {
                db.transaction(|tx| {
                    let (here, there) = (tx.namespace("here")?, tx.namespace("there")?);
                    let savepoint = tx.savepoint()?;
                    here.insert("never", "x")?;
                    tx.rollback_to(savepoint)?;
                    here.insert(number.to_string(), "x")?;
                    if number > 64 {
                        there.remove((number - 64).to_string())?;
                        here.remove((number - 64).to_string())?;
                    }
                    there.insert(number.to_string(), "x")
                })
                .unwrap();
            }
            db.insert(number.to_string(), value).unwrap();
            if number % 1000 == 999 {
                db.checkpoint().unwrap();
            }
            out.write_all(format!("\nacknowledged {number}").as_bytes())
                .unwrap();
            out.flush().unwrap();
        }
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    let mut acknowledged = 0;
    for round in 0..6_usize {
        let mut child = spawn_child("kill::what_a_killed_process_acknowledged_is_there", &path);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let target = acknowledged + 50 + round * 300;
        while acknowledged < target {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the child died");
            if line.ends_with('\n')
                && let Some(number) = line.trim_end().strip_prefix("acknowledged ")
            {
                acknowledged = number.parse::<usize>().unwrap() + 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had still printed counts too.
        for line in out.lines().map_while(Result::ok) {
            if let Some(Ok(number)) = line.strip_prefix("acknowledged ").map(str::parse::<usize>) {
                acknowledged = acknowledged.max(number);
            }
        }
        let db = Emdb::open(&path).unwrap();
        assert!(db.len().unwrap() >= acknowledged);
        for number in 0..db.len().unwrap() {
            let value = db.get(number.to_string()).unwrap().unwrap();
            assert_eq!(value, vec![number as u8; number % 2000]);
        }
        let batches = db.namespace("batches").unwrap();
        assert_eq!(batches.len().unwrap() % 2, 0);
        for number in (15..db.len().unwrap()).step_by(16) {
            assert_eq!(batches.get(format!("a{number}")).unwrap().unwrap(), b"x");
            assert_eq!(batches.get(format!("b{number}")).unwrap().unwrap(), b"y");
        }
        let keys = |name| {
            let space = db.namespace(name).unwrap();
            space.keys().unwrap().collect::<BTreeSet<_>>()
        };
        assert_eq!(keys("here"), keys("there"));
        assert!(keys("here").len() >= 8 || acknowledged < 64);
        assert!(!keys("here").contains(&b"never"[..]));
        db.verify().unwrap();
        acknowledged = db.len().unwrap();
    }
}

/// Forks, runs `child` there, and gives its exit code; 101 for a panic.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `child` alone and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let code = match catch_unwind(AssertUnwindSafe(child)) {
                Ok(()) => 0,
                Err(_) => 101,
            };
            // SAFETY: ends the child at once, as a fork in a test must.
            unsafe { libc::_exit(code) }
        }
        pid => {
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: `status` is there for the call to write.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            assert!(libc::WIFEXITED(status), "status {status}");
            libc::WEXITSTATUS(status)
        }
    }
}

#[test]
fn a_forked_child_can_neither_use_nor_harm_its_parents_database() {
    let _alone = alone();
    let (_directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    let space = db.namespace("a").unwrap();
    let (child_db, child_space) = (db.clone_handle(), space.clone());
    let code = fork(move || {
        fn refused<T: std::fmt::Debug>(result: Result<T, Error>) {
            assert!(matches!(result, Err(Error::InvalidConfig(_))), "{result:?}");
        }
        refused(child_db.insert("child", "x"));
        refused(child_db.get("key"));
        refused(child_db.remove("key"));
        refused(child_db.insert_many([("a", "b"), ("c", "d")]));
        refused(child_db.clear());
        refused(child_db.len());
        refused(child_db.flush());
        refused(child_db.checkpoint());
        refused(child_db.stats());
        refused(child_db.verify());
        refused(child_db.namespace("b"));
        refused(child_db.drop_namespace("a"));
        refused(child_db.list_namespaces());
        refused(child_db.iter().map(drop));
        refused(child_db.begin().map(drop));
        refused(child_db.snapshot().map(drop));
        refused(child_space.insert("child", "x"));
        refused(child_db.clone_handle().close());
        drop((child_db, child_space));
    });
    assert_eq!(code, 0);
    // The parent goes on, still holds its lock, and loses nothing.
    assert!(matches!(Emdb::open(&path), Err(Error::AlreadyLocked)));
    assert_eq!(
        Emdb::lock_holder(&path).unwrap().unwrap().pid,
        std::process::id()
    );
    db.insert("later", "value").unwrap();
    space.insert("later", "value").unwrap();
    db.verify().unwrap();
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.len().unwrap(), 2);
    db.verify().unwrap();
}

#[test]
fn a_forked_child_can_not_use_a_database_in_memory() {
    // Otherwise dropping it there waits for a thread that only the parent has.
    if in_child().is_some() {
        // Nothing in this process ever opened a file.
        let db = Emdb::builder().checkpoint_every(1).build().unwrap();
        for number in 0..1000_u32 {
            db.insert(number.to_le_bytes(), "value").unwrap();
        }
        let (records, keys) = (db.try_iter().unwrap(), db.keys().unwrap());
        let mut held = Some((db, records, keys));
        let code = fork(|| {
            let (db, mut records, mut keys) = held.take().unwrap();
            // SAFETY: `alarm` has no preconditions. It ends a child that hangs.
            unsafe { libc::alarm(20) };
            let refused = |error: Error| assert!(matches!(error, Error::InvalidConfig(_)));
            refused(db.insert("child", "x").unwrap_err());
            refused(db.get(0_u32.to_le_bytes()).unwrap_err());
            refused(db.len().unwrap_err());
            refused(db.flush().unwrap_err());
            refused(db.verify().unwrap_err());
            refused(records.next().unwrap().unwrap_err());
            assert_eq!(keys.next(), None);
            assert!(keys.error().is_some());
            drop((db, records, keys));
            // One of its own works.
            let db = Emdb::open_in_memory();
            db.insert("key", "value").unwrap();
            assert_eq!(db.iter().unwrap().count(), 1);
        });
        assert_eq!(code, 0);
        let (db, records, keys) = held.take().unwrap();
        assert_eq!(records.count(), 1000);
        assert_eq!(keys.count(), 1000);
        db.verify().unwrap();
        return;
    }
    let _alone = alone();
    let name = "kill::a_forked_child_can_not_use_a_database_in_memory";
    run_child(name, &directory().1);
}

#[test]
fn a_forked_child_can_neither_use_nor_end_its_parents_transaction() {
    let _alone = alone();
    let (_directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", "value").unwrap();
    let snapshot = db.snapshot().unwrap();
    let tx = db.begin().unwrap();
    tx.insert("staged", "x").unwrap();
    tx.insert("key", "other").unwrap();
    assert_eq!(tx.len().unwrap(), 2);
    let mut held = Some((tx, snapshot));
    let code = fork(|| {
        let (tx, snapshot) = held.take().unwrap();
        let refused = |error: Error| assert!(matches!(error, Error::InvalidConfig(_)));
        refused(tx.insert("child", "x").unwrap_err());
        refused(tx.get("key").unwrap_err());
        refused(tx.remove("key").unwrap_err());
        refused(tx.savepoint().unwrap_err());
        refused(tx.namespace("a").unwrap_err());
        refused(tx.iter().map(drop).unwrap_err());
        refused(snapshot.get("key").unwrap_err());
        refused(snapshot.len().unwrap_err());
        refused(snapshot.namespace("a").unwrap_err());
        refused(tx.commit().unwrap_err());
        drop(snapshot);
    });
    assert_eq!(code, 0);
    let (tx, snapshot) = held.take().unwrap();
    tx.insert("later", "x").unwrap();
    tx.commit().unwrap();
    assert_eq!(snapshot.get("key").unwrap().unwrap(), b"value");
    drop(snapshot);
    assert_eq!(db.len().unwrap(), 3);
    db.verify().unwrap();
    db.clone_handle().close().unwrap();
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 3);
}

#[test]
fn a_forked_child_that_drops_the_last_handle_leaves_the_file_alone() {
    let _alone = alone();
    let (_directory, path) = directory();
    let db = Emdb::open(&path).unwrap();
    db.insert("key", vec![1; 100_000]).unwrap();
    let mut db = Some(db);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(fork(|| drop(db.take())), 0);
    assert!(std::fs::read(&path).unwrap() == before);
    let db = db.take().unwrap();
    db.insert("later", "value").unwrap();
    db.close().unwrap();
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 2);
}

#[test]
fn a_forked_child_leaves_alone_what_syncs_for_its_parent() {
    let _alone = alone();
    let (_directory, path) = directory();
    let db = Emdb::builder()
        .path(&path)
        .sync_every(Duration::MAX)
        .iouring_sqpoll(10)
        .build()
        .unwrap();
    db.insert("key", "value").unwrap();
    let mut db = Some(db);
    let code = fork(|| {
        assert!(db.as_ref().unwrap().flush().is_err());
        drop(db.take());
    });
    assert_eq!(code, 0);
    let db = db.take().unwrap();
    db.insert("later", "value").unwrap();
    db.flush().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.durable_lsn, stats.last_lsn);
    // Waits for the thread, which must be there still.
    db.close().unwrap();
    assert_eq!(Emdb::open(&path).unwrap().len().unwrap(), 2);
}
