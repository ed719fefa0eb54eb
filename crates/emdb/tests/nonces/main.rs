//! No key ever seals with one nonce twice, whatever is written, taken back, cut off, copied,
//! put back or opened again.
//!
//! A process of its own: it looks at everything that the process has sealed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod admin;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../support/file_calls.rs"]
mod file_calls;

use std::io::ErrorKind;
use std::sync::Arc;

use emdb::{Cipher, Emdb, Error, FlushPolicy};
use emdb_crypto::audit;
use emdb_journal::SimulatedMedium;
use proptest::prelude::*;

/// What happens to one of the copies of a database.
#[derive(Debug, Clone)]
enum Step {
    Insert(u8, usize),
    Remove(u8),
    InsertMany(usize, usize),
    /// So many bytes that a helper seals some, all or half of them, and how the batch ends.
    Long(Ending),
    /// Steps of a transaction, of which the last ones may be taken back, and its end.
    Transaction(usize, Option<usize>, bool),
    Clear,
    Threads,
    Flush,
    Checkpoint,
    /// A call of the medium fails, that many calls from now.
    Fail(u64),
    FullDisk,
    RoomAgain,
    /// What comes next happens to another copy.
    Turn(usize),
    /// The handle ends, and the copy is opened again.
    Reopen(End),
    /// A copy of the files as they are now becomes a copy of its own.
    Copy,
    /// The files become those of an earlier moment.
    Restore(usize),
}

#[derive(Debug, Clone)]
enum Ending {
    Commit,
    RollBack,
    /// Back to where it was half done, then a commit.
    Savepoint,
    Panic,
}

#[derive(Debug, Clone)]
enum End {
    Close,
    Drop,
    Kill,
    /// Each sector that was not synced is dropped, kept or torn.
    PowerLoss(Vec<usize>),
    /// The same, and opening fails at some calls first.
    TroubledOpening(Vec<usize>, u64),
}

fn end() -> impl Strategy<Value = End> {
    let fates = || proptest::collection::vec(0..600_usize, 1..8);
    prop_oneof![
        Just(End::Close),
        Just(End::Drop),
        Just(End::Kill),
        fates().prop_map(End::PowerLoss),
        (fates(), 0..8_u64).prop_map(|(fates, calls)| End::TroubledOpening(fates, calls)),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Commit),
        Just(Ending::RollBack),
        Just(Ending::Savepoint),
        Just(Ending::Panic),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![4 => 0..200_usize, 1 => Just(3000), 1 => Just(17_000)];
    prop_oneof![
        12 => (any::<u8>(), len()).prop_map(|(key, len)| Step::Insert(key, len)),
        3 => any::<u8>().prop_map(Step::Remove),
        4 => (0..30_usize, len()).prop_map(|(count, len)| Step::InsertMany(count, len)),
        4 => (0..10_usize, proptest::option::of(0..10_usize), any::<bool>())
            .prop_map(|(steps, back, commits)| Step::Transaction(steps, back, commits)),
        1 => ending().prop_map(Step::Long),
        1 => Just(Step::Clear),
        1 => Just(Step::Threads),
        4 => Just(Step::Flush),
        2 => Just(Step::Checkpoint),
        3 => (0..6_u64).prop_map(Step::Fail),
        1 => Just(Step::FullDisk),
        1 => Just(Step::RoomAgain),
        2 => any::<usize>().prop_map(Step::Turn),
        5 => end().prop_map(Step::Reopen),
        1 => Just(Step::Copy),
        2 => any::<usize>().prop_map(Step::Restore),
    ]
}

/// One file, and the handle that has it open.
struct Copied {
    disk: Arc<SimulatedMedium>,
    db: Option<Emdb>,
}

struct Tested {
    copies: Vec<Copied>,
    turn: usize,
    /// Files of earlier moments, of any copy.
    earlier: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Handles that are done with; what dropping them does goes to files nobody looks at.
    ended: Vec<Emdb>,
    cipher: Cipher,
    policy: FlushPolicy,
}

impl Tested {
    fn open(&self, disk: &Arc<SimulatedMedium>) -> Result<Emdb, Error> {
        Emdb::builder()
            .encryption_key([1; 32])
            .cipher(self.cipher)
            .flush_policy(self.policy)
            .build_on(Box::new(Arc::clone(disk)))
    }

    fn begin(&self, disk: SimulatedMedium) -> Copied {
        let disk = Arc::new(disk);
        let db = Some(self.open(&disk).unwrap());
        Copied { disk, db }
    }

    fn note(&mut self) {
        let disk = &self.copies[self.turn].disk;
        self.earlier.push((disk.live_bytes(), disk.sidecar_bytes()));
    }

    /// Errors of a full disk and of failing calls are expected; what counts is what was sealed.
    fn apply(&mut self, step: Step) {
        let at = self.turn;
        match step {
            Step::Turn(which) => self.turn = which % self.copies.len(),
            Step::Copy if self.copies.len() < 4 => {
                let disk = self.copies[at].disk.after_kill();
                let copy = self.begin(disk);
                self.copies.push(copy);
            }
            Step::Restore(which) if !self.earlier.is_empty() => {
                let (bytes, sidecar) = self.earlier[which % self.earlier.len()].clone();
                let disk = SimulatedMedium::with_bytes(&bytes).with_sidecar(sidecar);
                self.end_handle(at, false);
                self.copies[at] = self.begin(disk);
            }
            Step::Reopen(end) => {
                self.note();
                self.reopen(at, end);
            }
            Step::Fail(calls) => {
                let disk = &self.copies[at].disk;
                disk.fail_call(disk.calls() + calls, ErrorKind::Other);
            }
            Step::FullDisk => {
                let disk = &self.copies[at].disk;
                disk.set_capacity(Some(disk.live_bytes().len() as u64));
            }
            Step::RoomAgain => self.copies[at].disk.set_capacity(None),
            step => {
                if let Some(db) = &self.copies[at].db {
                    let _ = write(db, step);
                }
            }
        }
    }

    fn end_handle(&mut self, at: usize, closes: bool) {
        let Some(db) = self.copies[at].db.take() else {
            return;
        };
        if closes {
            let _ = db.close();
        } else {
            self.ended.push(db);
        }
    }

    fn reopen(&mut self, at: usize, end: End) {
        let disk = &self.copies[at].disk;
        let disk = match &end {
            End::Close => {
                self.end_handle(at, true);
                self.copies[at].disk.after_kill()
            }
            End::Drop => {
                drop(self.copies[at].db.take());
                self.copies[at].disk.after_kill()
            }
            End::Kill => disk.after_kill(),
            End::PowerLoss(fates) | End::TroubledOpening(fates, _) => {
                let mut fates = fates.iter().cycle();
                let bytes = disk.crash(|_| fates.next().copied().unwrap_or(1));
                SimulatedMedium::with_bytes(&bytes).with_sidecar(disk.sidecar_bytes())
            }
        };
        self.end_handle(at, false);
        if let End::TroubledOpening(_, calls) = end {
            for call in 0..calls {
                let troubled = Arc::new(disk.after_kill());
                troubled.fail_call(call, ErrorKind::Other);
                if let Ok(db) = self.open(&troubled) {
                    let _ = db.insert("troubled", "opening");
                    let _ = db.flush();
                    self.ended.push(db);
                }
            }
        }
        self.copies[at] = self.begin(disk);
    }
}

fn write(db: &Emdb, step: Step) -> Result<(), Error> {
    match step {
        Step::Insert(key, len) => db.insert([key], vec![key; len]),
        Step::Remove(key) => db.remove([key]).map(drop),
        Step::InsertMany(count, len) => {
            db.insert_many((0..count).map(|at| ([1, at as u8], vec![2; len])))
        }
        Step::Transaction(steps, back, commits) => {
            let tx = db.begin()?;
            let savepoint = tx.savepoint()?;
            for at in 0..steps {
                tx.insert([2, at as u8], [3; 30])?;
                if back == Some(at) {
                    tx.rollback_to(savepoint)?;
                }
            }
            if commits { tx.commit() } else { tx.rollback() }
        }
        Step::Long(ending) => write_long(db, &ending),
        Step::Clear => db.namespace("cleared")?.clear(),
        Step::Threads => std::thread::scope(|scope| {
            for thread in 0..2_u8 {
                scope.spawn(move || {
                    for number in 0..20_u8 {
                        let _ = db.insert([3, thread, number], [number; 50]);
                        if number % 7 == 3 {
                            let _ = db.insert_many([([4, thread], [5; 40])]);
                            let _ = db.flush();
                        }
                    }
                });
            }
            Ok(())
        }),
        Step::Flush => db.flush(),
        Step::Checkpoint => db.checkpoint(),
        _ => Ok(()),
    }
}

fn write_long(db: &Emdb, ending: &Ending) -> Result<(), Error> {
    let tx = db.begin()?;
    let half = |tx: &emdb::Transaction<'_>, half: u8| {
        tx.insert_many((0..100_u8).map(|at| ([5, half, at], vec![at; 6000])))
    };
    half(&tx, 0)?;
    let savepoint = tx.savepoint()?;
    half(&tx, 1)?;
    match ending {
        Ending::Commit => tx.commit(),
        Ending::RollBack => tx.rollback(),
        Ending::Savepoint => {
            tx.rollback_to(savepoint)?;
            half(&tx, 2)?;
            tx.commit()
        }
        Ending::Panic => {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _tx = tx;
                std::panic::resume_unwind(Box::new("in the middle"));
            }));
            assert!(unwound.is_err());
            Ok(())
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("EMDB_TEST_CASES").map_or(150, |cases| cases.parse().unwrap()),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// A test below runs it, and looks at what came of all cases.
    fn run_schedules(
        steps in proptest::collection::vec(step(), 1..80),
        chacha in any::<bool>(),
        policy in prop_oneof![
            Just(FlushPolicy::OnEachFlush),
            Just(FlushPolicy::Group),
            Just(FlushPolicy::WriteThrough),
        ],
    ) {
        let cipher = if chacha { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm };
        let mut tested = Tested {
            copies: Vec::new(),
            turn: 0,
            earlier: Vec::new(),
            ended: Vec::new(),
            cipher,
            policy,
        };
        let first = tested.begin(SimulatedMedium::new());
        tested.copies.push(first);
        for step in steps {
            tested.apply(step);
        }
        for at in 0..tested.copies.len() {
            tested.end_handle(at, true);
        }
        drop(tested);
        prop_assert_eq!(audit::repeated(), []);
    }
}

#[test]
fn no_nonce_is_used_twice() {
    run_schedules();
    assert!(audit::pairs() > 20_000, "{}", audit::pairs());
    assert_eq!(audit::repeated(), []);
}

/// Each ending of a batch that a helper sealed, with a call of the medium failing meanwhile.
#[test]
fn no_nonce_is_used_twice_by_batches_that_a_helper_seals() {
    for ending in [
        Ending::Commit,
        Ending::RollBack,
        Ending::Savepoint,
        Ending::Panic,
    ] {
        for fails in [None, Some(0), Some(1), Some(5), Some(9)] {
            let disk = Arc::new(SimulatedMedium::new());
            let open = |disk: &Arc<SimulatedMedium>| {
                let builder = Emdb::builder().encryption_key([3; 32]);
                builder.build_on(Box::new(Arc::clone(disk))).unwrap()
            };
            let db = open(&disk);
            db.insert("before", "it").unwrap();
            if let Some(calls) = fails {
                disk.fail_call(disk.calls() + calls, ErrorKind::Other);
            }
            let _ = write_long(&db, &ending);
            let _ = db.flush();
            let _ = write_long(&db, &Ending::Commit);
            let killed = Arc::new(disk.after_kill());
            drop(db);
            let db = open(&killed);
            write_long(&db, &ending).unwrap();
            assert_eq!(db.get("before").unwrap().as_deref(), Some(&b"it"[..]));
        }
    }
    assert_eq!(audit::repeated(), []);
}

/// The auditor itself: it counts what a database seals.
#[test]
fn the_auditor_sees_what_a_database_seals() {
    let before = audit::pairs();
    let db = Emdb::builder().encryption_key([2; 32]).build().unwrap();
    for number in 0..20_000_u32 {
        db.insert(number.to_le_bytes(), "value").unwrap();
    }
    assert!(audit::pairs() >= before + 20_000);
    assert_eq!(audit::repeated(), []);
}
