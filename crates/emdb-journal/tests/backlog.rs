//! Batches of an encrypted journal, whose frames are sealed some time after they were appended.
#![cfg(feature = "encrypt")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use emdb_journal::{
    Encryption, EncryptionInput, Error, FrameSpec, Journal, Kind, Opened, Opening, Options,
    SimulatedMedium,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Larger than what is sealed by itself, and than what is sealed together.
const LENS: [usize; 4] = [0, 3000, 30_000, 100_000];

#[derive(Debug, Clone)]
enum Op {
    Append(u8, usize),
    Gather(u8, usize),
    /// So much that a helper seals.
    Many(u8),
    Store,
    Mark,
    /// Back to one of the marks.
    Discard(usize),
    /// One that was appended and may not be sealed yet.
    Read(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let byte = any::<u8>;
    let len = || (0..LENS.len()).prop_map(|at| LENS[at]);
    prop_oneof![
        6 => (byte(), len()).prop_map(|(byte, len)| Op::Append(byte, len)),
        3 => (byte(), len()).prop_map(|(byte, len)| Op::Gather(byte, len)),
        1 => byte().prop_map(Op::Many),
        1 => Just(Op::Store),
        2 => Just(Op::Mark),
        2 => any::<usize>().prop_map(Op::Discard),
        3 => any::<usize>().prop_map(Op::Read),
    ]
}

type Records = Vec<(u8, usize)>;

fn open(disk: &Arc<SimulatedMedium>) -> (Journal, Records) {
    let key = Encryption::new(EncryptionInput::RawKey([1; 32]));
    let medium = Box::new(Arc::clone(disk));
    let opening = Opening::new_encrypted(medium, Options::default(), &key).unwrap();
    let mut seen = Vec::new();
    opening
        .replay(emdb_format::FIRST_POSITION, &mut |replayed| {
            let frame = replayed.frame;
            let byte = frame.key.first().copied().unwrap_or_default();
            assert!(frame.value.iter().all(|it| *it == byte));
            // A large value is left out.
            seen.push((byte, frame.value_len()));
            Ok::<_, Error>(())
        })
        .unwrap();
    (opening.finish().unwrap(), seen)
}

fn check(journal: &Journal, position: u64, (byte, len): (u8, usize)) {
    let opened = Opened::new();
    let frame = journal.frame(position, &opened).unwrap();
    assert_eq!((frame.key, frame.value.len()), (&[byte][..], len));
    assert!(frame.value.iter().all(|it| *it == byte));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_counts_of_a_batch_is_what_was_not_discarded(
        ops in vec(op(), 0..40),
        commits in any::<bool>(),
    ) {
        let disk = Arc::new(SimulatedMedium::new());
        let (journal, _) = open(&disk);
        journal.append(&FrameSpec::new(Kind::Put, b"a", b"")).unwrap();
        let mut expected: Vec<(u64, (u8, usize))> = Vec::new();
        let mut batch = journal.begin("test").unwrap();
        let mut marks = vec![(batch.mark(), 0)];
        for op in ops {
            match op {
                Op::Append(byte, len) => {
                    let value = vec![byte; len];
                    let at = batch.append(&FrameSpec::new(Kind::Put, &[byte], &value)).unwrap();
                    expected.push((at, (byte, len)));
                }
                Op::Gather(byte, len) => {
                    let value = vec![byte; len];
                    let at = batch.gather(&FrameSpec::new(Kind::Put, &[byte], &value)).unwrap();
                    expected.push((at, (byte, len)));
                }
                Op::Many(byte) => for _ in 0..150 {
                    let value = vec![byte; 9000];
                    let at = batch.append(&FrameSpec::new(Kind::Put, &[byte], &value)).unwrap();
                    expected.push((at, (byte, 9000)));
                }
                Op::Store => batch.store_gathered().unwrap(),
                Op::Mark => marks.push((batch.mark(), expected.len())),
                Op::Discard(which) => {
                    marks.truncate(which % marks.len() + 1);
                    let (mark, len) = marks.last().unwrap();
                    batch.discard_from(mark).unwrap();
                    expected.truncate(*len);
                }
                Op::Read(which) => {
                    if let Some(at) = which.checked_rem(expected.len()) {
                        check(&journal, expected[at].0, expected[at].1);
                    }
                }
            }
            prop_assert_eq!(batch.count() as usize, expected.len());
        }
        let before = disk.after_kill();
        if commits {
            batch.commit(|| {}).unwrap();
        } else {
            drop(batch);
            expected.clear();
        }
        for (position, record) in &expected {
            check(&journal, *position, *record);
        }
        journal.append(&FrameSpec::new(Kind::Put, b"z", b"")).unwrap();
        let killed = disk.after_kill();
        drop(journal);
        prop_assert_eq!(open(&Arc::new(before)).1, [(b'a', 0)]);
        let records = expected.into_iter().map(|(_, record)| record);
        let expected: Records = [(b'a', 0)].into_iter().chain(records).chain([(b'z', 0)]).collect();
        prop_assert_eq!(open(&Arc::new(killed)).1, expected);
    }
}

#[test]
fn others_read_what_is_not_sealed_yet() {
    let (journal, _) = open(&Arc::new(SimulatedMedium::new()));
    let appended = Mutex::new(Vec::new());
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut turn = 0_usize;
                while !ended.load(Ordering::Relaxed) {
                    turn = turn.wrapping_add(1);
                    let seen = appended.lock().unwrap();
                    let last = seen.len().checked_sub(1 + turn % 3);
                    let found = last.map(|at| seen[at]);
                    drop(seen);
                    if let Some((position, byte)) = found {
                        check(&journal, position, (byte, 200));
                    }
                }
            });
        }
        let mut batch = journal.begin("test").unwrap();
        for number in 0..30_000_u32 {
            let byte = number as u8;
            let (key, value) = ([byte], [byte; 200]);
            let position = batch
                .append(&FrameSpec::new(Kind::Put, &key, &value))
                .unwrap();
            appended.lock().unwrap().push((position, byte));
        }
        batch.commit(|| {}).unwrap();
        ended.store(true, Ordering::Relaxed);
    });
    for (position, byte) in appended.into_inner().unwrap() {
        check(&journal, position, (byte, 200));
    }
}
