//! Checkpoints that are held up, beside what must not wait for them or show in them.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use emdb_index::{Cursor, HashIndex};
use emdb_journal::{Error, Map, Medium, SidecarMemory, SimulatedMedium, Store};

use crate::Emdb;
use crate::space::End;

/// A disk where something happens when the first checkpoint is about to be written, and
/// once it is.
struct Staged {
    disk: Arc<SimulatedMedium>,
    before: Mutex<Option<mpsc::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
    after: mpsc::Sender<()>,
}

impl Medium for Staged {
    fn path(&self) -> &Path {
        Medium::path(&self.disk)
    }
    fn len(&self) -> Result<u64, Error> {
        self.disk.len()
    }
    fn create(&self, header: &[u8]) -> Result<(), Error> {
        self.disk.create(header)
    }
    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        self.disk.map(needed, wanted)
    }
    fn prepare(&self, from: u64, to: u64) -> Result<(), Error> {
        self.disk.prepare(from, to)
    }
    fn store(&self) -> Store {
        self.disk.store()
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        self.disk.write_at(position, bytes)
    }
    fn sync(&self) -> Result<(), Error> {
        self.disk.sync()
    }
    fn truncate(&self, len: u64) -> Result<(), Error> {
        self.disk.truncate(len)
    }
    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let before = self.before.lock().unwrap().take();
        if let Some(before) = &before {
            before.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        let written = self.disk.write_sidecar(write);
        // Nobody listens to what comes after the first one.
        let _ = self.after.send(());
        written
    }
    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        self.disk.sidecar()
    }
}

/// The test's ends of these.
struct Stage {
    begun: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
    written: mpsc::Receiver<()>,
}

fn staged(disk: &Arc<SimulatedMedium>) -> (Stage, Emdb) {
    let (before, begun) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let (after, written) = mpsc::channel();
    let medium = Staged {
        disk: Arc::clone(disk),
        before: Mutex::new(Some(before)),
        go_on: Mutex::new(told),
        after,
    };
    let builder = Emdb::builder().checkpoint_every(1);
    let db = builder.build_on(Box::new(medium)).unwrap();
    let stage = Stage {
        begun,
        go_on,
        written,
    };
    (stage, db)
}

fn is_empty(index: &HashIndex) -> bool {
    let (mut entries, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = next {
        next = index.copy_segment(at, &mut entries).unwrap();
        if !entries.is_empty() {
            return false;
        }
    }
    true
}

#[test]
fn a_checkpoint_has_nothing_of_a_clear_that_is_under_way() {
    let disk = Arc::new(SimulatedMedium::new());
    let (stage, db) = staged(&disk);
    db.insert_many((0..100_u8).map(|key| ([key], "value")))
        .unwrap();
    let left = thread::scope(|scope| {
        let space = &db.engine().root;
        // What the clear asks for once it has exchanged the contents.
        space.dead_ends.reach(End::First, b"", false);
        let held = space.dead_ends.hold();
        stage.begun.recv().unwrap();
        scope.spawn(|| db.clear().unwrap());
        while !is_empty(&space.index) {
            thread::yield_now();
        }
        stage.go_on.send(()).unwrap();
        stage.written.recv().unwrap();
        // Power fails. The clear was never synced.
        let left = SimulatedMedium::with_bytes(&disk.durable_bytes());
        let left = left.with_sidecar(disk.sidecar_bytes());
        drop(held);
        left
    });
    assert_eq!(db.len().unwrap(), 0);
    let left = Emdb::builder().build_on(Box::new(left)).unwrap();
    for key in 0..100_u8 {
        assert!(left.contains_key([key]).unwrap(), "{key}");
    }
}

#[test]
fn dropping_the_last_handle_ends_a_forgotten_transaction_that_a_checkpoint_waits_for() {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let (stage, db) = staged(&Arc::default());
        db.insert("key", "value").unwrap();
        stage.begun.recv().unwrap();
        // So the helper has to start again, with the write side.
        db.clear().unwrap();
        std::mem::forget(db.begin().unwrap());
        stage.go_on.send(()).unwrap();
        drop(db);
        sender.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(ended.is_ok(), "it hangs");
}
