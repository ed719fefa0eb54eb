//! Batches that are taken back in part, and who holds the write side.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use emdb_journal::{Error, FrameSpec, Journal, Kind, Options, SimulatedMedium};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Append(u8),
    Gather(u8),
    Store,
    Mark,
    /// Back to one of the marks.
    Discard(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<u8>().prop_map(Op::Append),
        6 => any::<u8>().prop_map(Op::Gather),
        1 => Just(Op::Store),
        2 => Just(Op::Mark),
        2 => any::<usize>().prop_map(Op::Discard),
    ]
}

fn open(disk: &Arc<SimulatedMedium>) -> (Journal, Vec<u8>) {
    let mut seen = Vec::new();
    let medium = Box::new(Arc::clone(disk));
    let journal = Journal::open(medium, Options::default(), |replayed| {
        seen.extend_from_slice(replayed.frame.key);
    })
    .unwrap();
    (journal, seen)
}

proptest! {
    #[test]
    fn what_counts_of_a_batch_is_what_was_not_discarded(
        ops in vec(op(), 0..40),
        commits in any::<bool>(),
        long in any::<bool>(),
    ) {
        let disk = Arc::new(SimulatedMedium::new());
        let (journal, _) = open(&disk);
        journal.append(&FrameSpec::new(Kind::Put, b"a", b"")).unwrap();
        let value = vec![0; if long { 60_000 } else { 1 }];
        let mut expected = vec![b'a'];
        let mut kills = Vec::new();
        let mut batch = journal.begin("test").unwrap();
        let mut marks = vec![(batch.mark(), expected.len())];
        for op in ops {
            match op {
                Op::Append(byte) => {
                    batch.append(&FrameSpec::new(Kind::Put, &[byte], &value)).unwrap();
                    expected.push(byte);
                }
                Op::Gather(byte) => {
                    batch.gather(&FrameSpec::new(Kind::Put, &[byte], &value)).unwrap();
                    expected.push(byte);
                }
                Op::Store => batch.store_gathered().unwrap(),
                Op::Mark => marks.push((batch.mark(), expected.len())),
                Op::Discard(which) => {
                    marks.truncate(which % marks.len() + 1);
                    let (mark, len) = marks.last().unwrap();
                    batch.discard_from(mark).unwrap();
                    expected.truncate(*len);
                }
            }
            prop_assert_eq!(batch.count() as usize, expected.len() - 1);
            if !long {
                kills.push(disk.after_kill());
            }
        }
        if commits {
            batch.commit(|| {}).unwrap();
        } else {
            drop(batch);
            expected.truncate(1);
        }
        journal.append(&FrameSpec::new(Kind::Put, b"z", b"")).unwrap();
        let killed = disk.after_kill();
        drop(journal);
        for kill in kills {
            prop_assert_eq!(open(&Arc::new(kill)).1, b"a");
        }
        expected.push(b'z');
        let (journal, seen) = open(&Arc::new(killed));
        prop_assert_eq!(&seen, &expected);
        let mut replayed = Vec::new();
        journal.replay(emdb_format::FIRST_POSITION, &mut |frame| {
            replayed.extend_from_slice(frame.frame.key);
            Ok::<(), Error>(())
        }).unwrap();
        prop_assert_eq!(replayed, expected);
    }
}

#[test]
fn a_reader_can_tell_that_something_was_discarded() {
    let (journal, _) = open(&Arc::new(SimulatedMedium::new()));
    let spec = FrameSpec::new(Kind::Put, b"a", b"");
    let idle = journal.hidden_from();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&spec).unwrap();
    batch.commit(|| {}).unwrap();
    drop(journal.begin("test").unwrap());
    assert_eq!((journal.hidden_from(), journal.discards()), (idle, 0));
    let mut batch = journal.begin("test").unwrap();
    let mark = batch.mark();
    batch.append(&spec).unwrap();
    batch.discard_from(&mark).unwrap();
    batch.append(&spec).unwrap();
    batch.commit(|| {}).unwrap();
    assert_ne!(journal.hidden_from(), idle);
    assert_eq!(journal.discards(), 1);
    let idle = journal.hidden_from();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&spec).unwrap();
    drop(batch);
    assert_ne!(journal.hidden_from(), idle);
    assert_eq!(journal.discards(), 2);
    // Nor does what a later frame makes void.
    let idle = journal.hidden_from();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&spec).unwrap();
    batch.overrule();
    batch.append(&spec).unwrap();
    batch.commit(|| {}).unwrap();
    assert_ne!(journal.hidden_from(), idle);
    assert_eq!(journal.discards(), 3);
}

#[test]
fn what_a_commit_holds_is_dropped_once_it_is_seen_and_before_anybody_else_writes() {
    struct Held<'a>(&'a Journal, u64);
    impl Drop for Held<'_> {
        fn drop(&mut self) {
            assert!(self.0.hidden_from() > self.1);
            assert!(self.0.is_batch_open());
        }
    }
    let (journal, _) = open(&Arc::new(SimulatedMedium::new()));
    let spec = FrameSpec::new(Kind::Put, b"a", b"");
    let mut batch = journal.begin("test").unwrap();
    batch.append(&spec).unwrap();
    let begin = batch.begin();
    let hold = || {
        assert_eq!(journal.hidden_from(), begin);
        Held(&journal, begin)
    };
    batch.commit(hold).unwrap();
    assert!(!journal.is_batch_open());
    let batch = journal.begin("test").unwrap();
    batch.commit_single(&spec, |at| Held(&journal, at)).unwrap();
    assert!(!journal.is_batch_open());
}

#[test]
fn a_deadline_ends_the_wait_for_the_write_side() {
    let (journal, _) = open(&Arc::new(SimulatedMedium::new()));
    let batch = journal.begin("test").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let soon = Instant::now() + Duration::from_millis(1);
            assert!(journal.begin_until("other", soon).unwrap().is_none());
        });
    });
    let refused = journal.begin_until("again", Instant::now()).map(drop);
    assert!(matches!(refused, Err(Error::WriteInProgress("again"))));
    drop(batch);
    assert!(
        journal
            .begin_until("again", Instant::now())
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_batch_that_is_handed_on_is_held_by_the_thread_that_takes_it() {
    let (journal, _) = open(&Arc::new(SimulatedMedium::new()));
    let batch = journal.begin("test").unwrap();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            batch.adopt();
            let refused = journal.wait_for_batch("here");
            assert!(matches!(refused, Err(Error::WriteInProgress("here"))));
            batch
        });
        let batch = taker.join().unwrap();
        // Here it is somebody else's, for whom one waits.
        assert!(
            journal
                .begin_until("there", Instant::now())
                .unwrap()
                .is_none()
        );
        drop(batch);
    });
    journal.wait_for_batch("done").unwrap();
}
