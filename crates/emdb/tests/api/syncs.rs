//! Syncs that nobody calls for, and those through an io_uring.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use emdb::{Emdb, Error, FlushPolicy};
use emdb_journal::{Map, Medium, SidecarMemory, SimulatedMedium, Store};

/// Longer than anything here takes.
const HANG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(1);

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < deadline, "it never happens");
        std::thread::yield_now();
    }
}

fn is_durable(db: &Emdb) -> bool {
    let stats = db.stats().unwrap();
    stats.durable_lsn == stats.last_lsn
}

#[test]
fn what_was_written_becomes_durable_without_a_flush() {
    for policy in [FlushPolicy::OnEachFlush, FlushPolicy::Group] {
        let medium = Arc::new(SimulatedMedium::new());
        let db = Emdb::builder()
            .sync_every(SHORT)
            .flush_policy(policy)
            .build_on(Box::new(Arc::clone(&medium)))
            .unwrap();
        for round in 0..5_u8 {
            db.insert([round], "value").unwrap();
            let batch = (0..100).map(|number| ([round, number], "value"));
            db.namespace("space").unwrap().insert_many(batch).unwrap();
            wait_until(|| is_durable(&db));
            // What a power loss leaves.
            let left = SimulatedMedium::with_bytes(&medium.durable_bytes());
            let left = Emdb::builder().build_on(Box::new(left)).unwrap();
            assert_eq!(left.len().unwrap(), usize::from(round) + 1);
            let space = left.open_namespace("space").unwrap().unwrap();
            assert_eq!(space.len().unwrap(), (usize::from(round) + 1) * 100);
        }
    }
}

/// A disk whose syncs, and nothing else, fail from some moment on; and where checkpoints
/// can be held up.
struct Failing {
    disk: Arc<SimulatedMedium>,
    fails: Arc<AtomicBool>,
    checkpoints: Arc<Mutex<()>>,
}

impl Medium for Failing {
    fn path(&self) -> &Path {
        Medium::path(&self.disk)
    }
    fn len(&self) -> Result<u64, emdb_journal::Error> {
        self.disk.len()
    }
    fn create(&self, header: &[u8]) -> Result<(), emdb_journal::Error> {
        self.disk.create(header)
    }
    fn map(&self, needed: u64, wanted: u64) -> Result<Map, emdb_journal::Error> {
        self.disk.map(needed, wanted)
    }
    fn prepare(&self, from: u64, to: u64) -> Result<(), emdb_journal::Error> {
        self.disk.prepare(from, to)
    }
    fn store(&self) -> Store {
        self.disk.store()
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), emdb_journal::Error> {
        self.disk.write_at(position, bytes)
    }
    fn sync(&self) -> Result<(), emdb_journal::Error> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(emdb_journal::Error::Io {
                attempt: "sync".to_owned(),
                source: ErrorKind::Other.into(),
            });
        }
        self.disk.sync()
    }
    fn truncate(&self, len: u64) -> Result<(), emdb_journal::Error> {
        self.disk.truncate(len)
    }
    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), emdb_journal::Error> {
        let held = self.checkpoints.lock();
        let _held = held.unwrap_or_else(PoisonError::into_inner);
        self.disk.write_sidecar(write)
    }
    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, emdb_journal::Error> {
        self.disk.sidecar()
    }
}

#[test]
fn a_sync_that_fails_in_the_background_poisons_as_a_failed_flush_does() {
    let medium = Arc::new(SimulatedMedium::new());
    let fails = Arc::new(AtomicBool::new(false));
    let db = Emdb::builder()
        .sync_every(SHORT)
        .build_on(Box::new(Failing {
            disk: Arc::clone(&medium),
            fails: Arc::clone(&fails),
            checkpoints: Arc::default(),
        }))
        .unwrap();
    db.insert("synced", "value").unwrap();
    db.flush().unwrap();
    fails.store(true, Ordering::SeqCst);
    // Nobody calls for a sync, and writing works until the thread's has failed.
    wait_until(|| match db.insert("key", "value") {
        Ok(()) => false,
        Err(Error::Poisoned) => true,
        Err(error) => panic!("{error}"),
    });
    // Syncs would succeed from here on, but none is believed.
    fails.store(false, Ordering::SeqCst);
    let syncs = medium.syncs();
    assert!(matches!(db.flush(), Err(Error::Poisoned)));
    assert!(matches!(db.checkpoint(), Err(Error::Poisoned)));
    assert_eq!(db.get("key").unwrap(), Some(b"value".to_vec()));
    assert!(matches!(db.close(), Err(Error::Poisoned)));
    assert_eq!(medium.syncs(), syncs);
    let left = SimulatedMedium::with_bytes(&medium.durable_bytes());
    let left = Emdb::builder().build_on(Box::new(left)).unwrap();
    assert_eq!(left.get("synced").unwrap(), Some(b"value".to_vec()));
}

#[test]
fn writers_do_not_leave_a_checkpoint_behind_that_takes_long() {
    const CHECKPOINT_BYTES: u64 = 1 << 20;
    const MOST_BYTES: u64 = CHECKPOINT_BYTES + (32 << 20);
    let value = vec![7; 16 << 10];
    // What a write may take longer, of each such length, at most.
    let longer = Duration::from_millis(16);
    let checkpoints = Arc::new(Mutex::new(()));
    let disk = Arc::new(SimulatedMedium::new());
    let db = Emdb::builder()
        .checkpoint_every(CHECKPOINT_BYTES)
        .build_on(Box::new(Failing {
            disk: Arc::clone(&disk),
            fails: Arc::default(),
            checkpoints: Arc::clone(&checkpoints),
        }))
        .unwrap();
    let mut number = 0_u32;
    let mut insert = || {
        number += 1;
        db.insert(number.to_le_bytes(), &value).unwrap();
        db.stats().unwrap().file_size_bytes
    };
    let held = checkpoints.lock().unwrap();
    let most = MOST_BYTES + (1 << 20);
    let started = loop {
        if insert() > MOST_BYTES * 4 / 5 {
            break Instant::now();
        }
    };
    while started.elapsed() < Duration::from_secs(1) {
        let ahead = started.elapsed().as_micros() / longer.as_micros();
        let allowed = most + (ahead as u64 + 1) * value.len() as u64;
        assert!(insert() < allowed);
    }
    // Once it is there, nobody waits any more, and it replays from where it began.
    drop(held);
    wait_until(|| disk.sidecar_bytes().is_some());
    let goal = insert() + CHECKPOINT_BYTES;
    while insert() < goal {}
}

#[test]
fn an_interval_of_zero_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let zero = || Emdb::builder().sync_every(Duration::ZERO);
    for builder in [
        zero(),
        zero().path(&path),
        zero().path(&path).read_only(true),
        zero().data_root(directory.path()),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(&error, Error::InvalidConfig(why) if why.contains("sync_every")));
    }
    let refused = zero().build_on(Box::new(SimulatedMedium::new()));
    assert!(matches!(refused, Err(Error::InvalidConfig(_))));
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn the_thread_that_syncs_keeps_no_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    for (round, every) in [SHORT, Duration::MAX, Duration::from_nanos(1), SHORT]
        .into_iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        // The lock is free as soon as the last handle is gone.
        let db = Emdb::builder()
            .path(&path)
            .sync_every(every)
            .build()
            .unwrap();
        assert_eq!(db.len().unwrap(), round);
        db.insert(round.to_string(), "value").unwrap();
        let iterator = db.iter().unwrap();
        drop(db);
        assert_eq!(iterator.count(), round + 1);
    }
}

#[test]
fn syncs_in_the_background_do_not_disturb_writers() {
    const EACH: u32 = 5000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::builder()
        .path(&path)
        .sync_every(Duration::from_micros(50))
        .iouring_sqpoll(10)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u32 {
            let db = &db;
            scope.spawn(move || {
                for number in 0..EACH {
                    let key = format!("{writer}/{number}");
                    db.insert(&key, &key).unwrap();
                    if number % 1000 == 0 {
                        db.flush().unwrap();
                    }
                }
            });
        }
    });
    wait_until(|| is_durable(&db));
    db.close().unwrap();
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.len().unwrap(), 4 * EACH as usize);
    for (key, value) in db.iter().unwrap() {
        assert_eq!(key, value);
    }
    db.verify().unwrap();
}

#[test]
fn who_only_reads_may_name_both_options() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    Emdb::open(&path).unwrap().insert("key", "value").unwrap();
    let before = std::fs::read(&path).unwrap();
    let db = Emdb::builder()
        .path(&path)
        .read_only(true)
        .sync_every(SHORT)
        .iouring_sqpoll(10)
        .build()
        .unwrap();
    assert_eq!(db.get("key").unwrap(), Some(b"value".to_vec()));
    db.flush().unwrap();
    assert!(matches!(db.insert("key", "new"), Err(Error::ReadOnly)));
    db.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn what_goes_through_an_io_uring_is_there_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    for (round, idle_ms) in [0, 1, 100, u32::MAX].into_iter().enumerate() {
        let db = Emdb::builder()
            .path(&path)
            .flush_policy(FlushPolicy::WriteThrough)
            .iouring_sqpoll(idle_ms)
            .build()
            .unwrap();
        #[cfg(feature = "iouring")]
        assert!(ring::is_polled() || !ring::can_be_had());
        assert_eq!(db.len().unwrap(), round * 20);
        for number in 0..20 {
            db.insert(format!("{round}/{number}"), "value").unwrap();
            assert!(is_durable(&db));
        }
        db.checkpoint().unwrap();
        if round % 2 == 0 {
            db.close().unwrap();
        }
    }
    let db = Emdb::open(&path).unwrap();
    assert_eq!(db.len().unwrap(), 80);
    db.verify().unwrap();
}

#[cfg(feature = "iouring")]
mod ring {
    //! What the kernel says about rings of this process.

    /// Whether a kernel thread polls a ring of this process.
    pub(super) fn is_polled() -> bool {
        let Ok(mut tasks) = std::fs::read_dir("/proc/self/task") else {
            return false;
        };
        tasks.any(|task| {
            let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm")));
            name.is_ok_and(|name| name.starts_with("iou-sqp"))
        })
    }

    /// Whether the kernel gives this process a ring whose queue it polls.
    #[cfg(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    pub(super) fn can_be_had() -> bool {
        const SQPOLL: u32 = 1 << 1;
        // The call's parameters: 120 bytes, the flags in the third word.
        let mut parameters = [0_u32; 30];
        parameters[2] = SQPOLL;
        // SAFETY: the array is as large as the struct that the call reads and fills in.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        if ring >= 0 {
            // SAFETY: the descriptor was made above and is used nowhere else.
            unsafe { libc::close(ring as i32) };
        }
        ring >= 0
    }

    #[cfg(not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )))]
    pub(super) fn can_be_had() -> bool {
        false
    }
}
