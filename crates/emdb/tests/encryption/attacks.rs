//! An attacker who can write the files, has old copies of them, and lacks the key. What he
//! does is an error, or leaves a state that the database had.

use std::sync::Arc;

use emdb::{Emdb, Error};
use emdb_format::{FrameSpec, HEADER_SLOTS, Header, Kind};
use emdb_journal::SimulatedMedium;

use crate::forge::{Files, Seen, Verdict};
use crate::{State, kill, open, state, try_open};

/// A database in some epochs, as it was after each.
struct Story {
    disk: Arc<SimulatedMedium>,
    /// The files after each handle was closed.
    files: Vec<Files>,
    states: Vec<State>,
}

impl Story {
    /// Three epochs of small records, replaced and removed ones, a batch and a namespace.
    fn new(checkpoint: bool) -> Self {
        let mut story = Self {
            disk: Arc::new(SimulatedMedium::new()),
            files: Vec::new(),
            states: Vec::new(),
        };
        story.write(|db| {
            for number in 0..8_u8 {
                db.insert([b'k', number], [number; 5]).unwrap();
            }
            db.insert("large", vec![7; 16_500]).unwrap();
        });
        story.write(|db| {
            let space = db.namespace("named").unwrap();
            space.insert("in", "named").unwrap();
            db.insert([b'k', 1], [101; 5]).unwrap();
            db.remove([b'k', 2]).unwrap();
            db.insert_many([([b'b', 1], [1; 5]), ([b'b', 2], [2; 5])])
                .unwrap();
            // More than is ever taken for the padding of a marker.
            db.flush().unwrap();
            db.insert([b'k', 3], [103; 5]).unwrap();
        });
        story.write(|db| {
            for number in 0..6_u8 {
                db.insert([b'l', number], [number; 5]).unwrap();
                db.flush().unwrap();
            }
            if checkpoint {
                db.checkpoint().unwrap();
            }
        });
        story
    }

    /// The same with and without a checkpoint that leads past all frames.
    fn both() -> [Self; 2] {
        [Self::new(false), Self::new(true)]
    }

    fn write(&mut self, write: impl FnOnce(&Emdb)) {
        let db = open(&self.disk);
        write(&db);
        self.states.push(state(&db).unwrap());
        db.close().unwrap();
        self.files.push(Files::of(&self.disk));
    }

    /// The files as they are now, and the only state that they may show.
    fn last(&self) -> (&Files, &[State]) {
        let (files, states) = (self.files.last(), self.states.last());
        (files.unwrap(), std::slice::from_ref(states.unwrap()))
    }
}

/// Another history, which begins as this one does after its first epoch.
fn diverged(story: &Story) -> (Files, State) {
    let disk = story.files[0].disk();
    let db = open(&disk);
    for number in 0..20_u8 {
        db.insert([b'd', number], [number; 5]).unwrap();
        db.flush().unwrap();
    }
    let state = state(&db).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    (Files::of(&disk), state)
}

#[test]
fn nothing_that_was_done_is_refused() {
    for story in Story::both() {
        for (files, at) in story.files.iter().zip(0..) {
            assert_eq!(files.judge_and_go_on(&story.states), Verdict::State(at));
        }
        let (files, _) = story.last();
        assert_eq!(files.places(Seen::Epoch).len(), 3);
        assert!(files.places(Seen::Marker).len() > 6);
        let (files, state) = diverged(&story);
        assert_eq!(files.judge_and_go_on(&[state]), Verdict::State(0));
    }
}

/// Flips bits of a database of two records, and makes checksums right again if asked to.
fn flip_bits(checkpoint: bool, with_checksums: bool) {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    let before = state(&db).unwrap();
    db.insert("a", "1").unwrap();
    db.insert("b", "2").unwrap();
    let states = [before, state(&db).unwrap()];
    if checkpoint {
        db.checkpoint().unwrap();
    }
    db.close().unwrap();
    let files = Files::of(&disk);
    let newest = files.header().sequence;
    let fields = |at: u64| (at..at + 400).chain(at + 4050..at + 4096);
    for at in HEADER_SLOTS.into_iter().flat_map(fields) {
        let at = at as usize;
        // A wrong checksum is a wrong checksum, whichever bit it is.
        let bits = if with_checksums {
            0..8
        } else {
            at % 8..at % 8 + 1
        };
        for bit in bits {
            let mut forged = files.clone();
            forged.journal[at] ^= 1 << bit;
            let slot = at - at % 8192..at - at % 8192 + 4096;
            if with_checksums {
                let checksum = crc32c(&forged.journal[slot.start..slot.end - 4]);
                forged.journal[slot.end - 4..slot.end].copy_from_slice(&checksum);
            }
            let slot = &forged.journal[slot];
            let is_other_version = Header::whole_slot_version(slot).is_some_and(|it| it != 1);
            let counts = forged.journal != files.journal
                && Header::decode(slot).is_ok_and(|it| it.sequence >= newest);
            let verdict = forged.judge(&states);
            let expected = if counts || is_other_version {
                Verdict::Refused
            } else {
                Verdict::State(1)
            };
            assert_eq!(verdict, expected, "bit {bit} of byte {at}");
        }
    }
    for (place, _) in files.frames() {
        for (at, bit) in place
            .clone()
            .flat_map(|at| (0..8).map(move |bit| (at, bit)))
        {
            let mut forged = files.clone();
            forged.journal[at] ^= 1 << bit;
            if with_checksums {
                forged.set_checksum(&place);
            }
            let is_same = forged.journal == files.journal;
            let verdict = forged.judge(&states[1..]);
            // A checkpoint leads past what is no record.
            let harmless = is_same || checkpoint;
            assert!(
                harmless || verdict == Verdict::Refused,
                "bit {bit} of byte {at}"
            );
        }
    }
}

/// CRC-32C as it stands in a file.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

#[test]
fn a_flipped_bit_is_an_error_or_harmless() {
    for checkpoint in [false, true] {
        flip_bits(checkpoint, false);
    }
}

#[test]
fn a_flipped_bit_with_right_checksums_is_an_error() {
    for checkpoint in [false, true] {
        flip_bits(checkpoint, true);
    }
}

#[test]
fn a_flipped_bit_in_the_checkpoint_is_harmless() {
    let story = Story::new(true);
    let (files, states) = story.last();
    let len = files.sidecar.as_ref().unwrap().len();
    for at in (0..len).step_by(97).chain(0..60).chain(len - 40..len) {
        let mut forged = files.clone();
        forged.sidecar.as_mut().unwrap()[at] ^= 1 << (at % 8);
        assert_eq!(forged.judge(states), Verdict::State(0), "byte {at}");
    }
}

#[test]
fn two_records_of_equal_length_cannot_be_swapped() {
    for story in Story::both() {
        let (files, states) = story.last();
        let sealed = files.places(Seen::Sealed);
        let mut swapped = 0;
        for (one, other) in sealed.iter().zip(&sealed[1..]) {
            if one.len() != other.len() {
                continue;
            }
            let mut forged = files.clone();
            forged.journal[one.clone()].copy_from_slice(&files.journal[other.clone()]);
            forged.journal[other.clone()].copy_from_slice(&files.journal[one.clone()]);
            forged.set_checksum(one);
            forged.set_checksum(other);
            let verdict = forged.judge(states);
            assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
            swapped += 1;
        }
        assert!(swapped > 10);
    }
}

#[test]
fn an_old_record_cannot_be_put_back_at_its_place() {
    for story in Story::both() {
        let (files, states) = story.last();
        let (other, _) = diverged(&story);
        let mut replayed = 0;
        for (place, seen) in files.frames() {
            // There is a frame of the same length there, in what became of a copy.
            let same = other.frames().contains(&(place.clone(), seen));
            if !same || files.journal[place.clone()] == other.journal[place.clone()] {
                continue;
            }
            let mut forged = files.clone();
            forged.journal[place.clone()].copy_from_slice(&other.journal[place]);
            let verdict = forged.judge(states);
            assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
            replayed += 1;
        }
        assert!(replayed > 1, "{replayed}");
    }
}

#[test]
fn a_record_cannot_be_deleted_by_dead_space() {
    for story in Story::both() {
        let (files, states) = story.last();
        for place in files.places(Seen::Sealed) {
            for kind in [Kind::Filler, Kind::Extended] {
                let mut forged = files.clone();
                forged.put_plain(place.clone(), kind, b"");
                let verdict = forged.judge(states);
                assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
            }
            let mut forged = files.clone();
            forged.journal[place].fill(0);
            let verdict = forged.judge(states);
            assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
        }
    }
}

/// Replaces runs of frames that contain a plain one by one plain frame with its value.
fn delete_around(seen: Seen, kind: Kind, value_at: impl Fn(&Files, usize) -> Vec<u8>) {
    for story in Story::both() {
        let (files, states) = story.last();
        let frames = files.frames();
        let mut deleted = 0;
        for (at, (place, _)) in frames.iter().enumerate().filter(|it| it.1.1 == seen) {
            let value = value_at(files, at);
            for reach in 1..6 {
                // The value where it was, and all before it taken for a key.
                if seen == Seen::Marker && at >= reach {
                    let mut forged = files.clone();
                    let from = frames[at - reach].0.start;
                    forged.put_plain(from..place.end, kind, &value);
                    let verdict = forged.judge(states);
                    let caught = matches!(verdict, Verdict::Refused | Verdict::Errors);
                    assert!(caught, "{reach} frames before {place:?}");
                    deleted += 1;
                }
                let Some((last, _)) = frames.get(at + reach) else {
                    continue;
                };
                // What comes behind it taken for a part of its value, or for its key.
                let whole = place.start..last.end;
                let key_len = place.len() - 7 - value.len();
                let head_len = 7 + usize::from(whole.len() - 8 - key_len > 127);
                let longer = [
                    &value[..],
                    &vec![0; whole.len() - head_len - key_len - value.len()],
                ];
                if whole.len() < 16_000 {
                    let mut forged = files.clone();
                    let (key, value) = (vec![0; key_len], longer.concat());
                    let spec = FrameSpec::new(kind, &key, &value);
                    forged.put_spec(whole.clone(), &spec);
                    let verdict = forged.judge(states);
                    let caught = matches!(verdict, Verdict::Refused | Verdict::Errors);
                    assert!(caught, "{reach} frames behind {place:?}");
                }
                let mut forged = files.clone();
                forged.put_plain(whole, kind, &value);
                let verdict = forged.judge(states);
                let caught = matches!(verdict, Verdict::Refused | Verdict::Errors);
                assert!(caught, "{reach} frames behind {place:?}");
                deleted += 1;
            }
        }
        assert!(deleted > 5);
    }
}

/// The marker proved itself, and not where its frame began or ended: a longer one took the
/// place of the records around it.
#[test]
fn a_record_cannot_be_deleted_by_a_longer_marker() {
    delete_around(Seen::Marker, Kind::Filler, |files, at| {
        files.marker(&files.frames()[at].0)
    });
}

/// The same with the frame that begins an epoch.
#[test]
fn a_record_cannot_be_deleted_by_a_longer_epoch_frame() {
    delete_around(Seen::Epoch, Kind::Extended, |files, at| {
        let place = files.frames()[at].0.clone();
        files.journal[place.end - 33..place.end].to_vec()
    });
}

/// A short record just before a marker, where its place can pass for padding.
#[test]
fn a_record_cannot_be_deleted_by_the_padding_of_a_marker() {
    let mut hidden = 0;
    for len in 0..64 {
        let disk = Arc::new(SimulatedMedium::new());
        let db = open(&disk);
        // Moves what comes behind it.
        db.insert("first", vec![0; len]).unwrap();
        db.insert("k", "").unwrap();
        db.flush().unwrap();
        db.insert("last", "").unwrap();
        let expected = state(&db).unwrap();
        db.close().unwrap();
        let files = Files::of(&disk);
        let frames = files.frames();
        let [.., (record, Seen::Sealed), (marker, Seen::Marker), _] = &frames[..] else {
            panic!("{frames:?}");
        };
        let whole = record.start..marker.end;
        if whole.len() - 64 - 7 > 63 {
            continue;
        }
        let mut forged = files.clone();
        forged.put_plain(whole, Kind::Filler, &files.marker(marker));
        assert_eq!(forged.judge(&[expected]), Verdict::Refused);
        hidden += 1;
    }
    assert!(hidden > 10, "{hidden}");
}

#[test]
fn records_cannot_be_spliced_in_from_another_database_with_the_same_key() {
    for checkpoint in [false, true] {
        let (story, foreign) = (Story::new(checkpoint), Story::new(checkpoint));
        let (files, states) = story.last();
        let (other, _) = foreign.last();
        assert_eq!(files.frames(), other.frames());
        for (place, _) in files.frames() {
            let mut forged = files.clone();
            forged.journal[place.clone()].copy_from_slice(&other.journal[place.clone()]);
            forged.set_checksum(&place);
            let verdict = forged.judge(states);
            assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
        }
        // All of them, or the checkpoint.
        let mut forged = files.clone();
        let start = files.frames()[0].0.start;
        forged.journal[start..].copy_from_slice(&other.journal[start..]);
        for (place, _) in files.frames() {
            forged.set_checksum(&place);
        }
        let verdict = forged.judge(states);
        assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
        let mut forged = files.clone();
        forged.sidecar.clone_from(&other.sidecar);
        assert_eq!(forged.judge(states), Verdict::State(0));
    }
}

#[test]
fn the_kind_of_a_frame_cannot_be_changed() {
    for story in Story::both() {
        let (files, states) = story.last();
        for (place, _) in files.frames() {
            for flags in [
                0x01, 0x02, 0x06, 0x07, 0x09, 0x0e, 0x16, 0x80, 0x81, 0x82, 0xff,
            ] {
                let mut forged = files.clone();
                if forged.journal[place.start + 4] == flags {
                    continue;
                }
                forged.journal[place.start + 4] = flags;
                forged.set_checksum(&place);
                let verdict = forged.judge(states);
                assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
            }
        }
    }
}

/// With a checkpoint nothing is replayed, and the index led to the plain record.
#[test]
fn a_record_cannot_be_turned_to_plaintext() {
    for story in Story::both() {
        let (files, states) = story.last();
        let mut forgeries = 0;
        for place in files.places(Seen::Sealed) {
            for key in states[0][""].keys().step_by(4) {
                for kind in [Kind::Put, Kind::Tombstone, Kind::Filler, Kind::Extended] {
                    let Some(rest) = place.len().checked_sub(7 + key.len()) else {
                        continue;
                    };
                    if rest > 120 {
                        continue;
                    }
                    let mut forged = files.clone();
                    let value = vec![b'!'; rest];
                    forged.put_spec(place.clone(), &FrameSpec::new(kind, key, &value));
                    let verdict = forged.judge(states);
                    assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
                    forgeries += 1;
                }
            }
        }
        assert!(forgeries > 50);
    }
}

#[test]
fn a_header_cannot_be_stripped_or_weakened() {
    type Change = fn(&mut Header);
    let changes: [Change; 15] = [
        |header| header.sealing = emdb_format::Sealing::default(),
        |header| header.sealing.cipher = 0,
        |header| header.sealing.cipher = 2,
        |header| header.sealing.cipher = 3,
        |header| header.sealing.key_slots[0] = [0; 112],
        |header| header.sealing.key_slots[0][0] = 2,
        |header| header.sealing.key_slots.swap(0, 1),
        |header| header.sealing.key_slots[1] = header.sealing.key_slots[0],
        |header| header.sealing.epoch = [0; 16],
        |header| header.sealing.code = [0; 32],
        |header| header.confirmed = 16_384,
        |header| header.sequence += 2,
        |header| header.generation += 1,
        |header| header.base_lsn += 1,
        |header| header.checkpoint = [0; 16],
    ];
    for story in Story::both() {
        let (files, states) = story.last();
        for (number, change) in changes.into_iter().enumerate() {
            let mut forged = files.clone();
            forged.change_header(change);
            if forged.journal == files.journal {
                continue;
            }
            assert_eq!(forged.judge(states), Verdict::Refused, "change {number}");
            let disk = forged.disk();
            assert!(try_open(&disk).is_err());
            assert!(disk.live_bytes() == forged.journal, "change {number}");
        }
    }
}

#[test]
fn the_cost_of_guessing_a_passphrase_cannot_be_lowered() {
    let disk = Arc::new(SimulatedMedium::new());
    let open = |disk: &Arc<SimulatedMedium>| {
        let builder = Emdb::builder().encryption_passphrase("correct horse");
        builder.build_on(Box::new(Arc::clone(disk)))
    };
    let db = open(&disk).unwrap();
    db.insert("key", "value").unwrap();
    db.close().unwrap();
    let files = Files::of(&disk);
    // Memory, passes, lanes, and the kind of derivation. The highest ask for 4 TiB.
    for (at, byte) in [(6, 0), (7, 255), (8, 1), (11, 255), (12, 1), (0, 1)] {
        let mut forged = files.clone();
        forged.change_header(|header| header.sealing.key_slots[0][at] = byte);
        assert!(forged.journal != files.journal);
        let opened = open(&forged.disk());
        let refused = matches!(
            opened,
            Err(Error::EncryptionKeyMismatch | Error::EncryptionError(_) | Error::Corrupted { .. })
        );
        assert!(refused, "{opened:?}");
    }
    assert!(open(&files.disk()).unwrap().get("key").unwrap().is_some());
}

#[test]
fn an_epoch_cannot_be_dropped() {
    for story in Story::both() {
        let (files, states) = story.last();
        let frames = files.frames();
        let epochs = files.places(Seen::Epoch);
        for (number, epoch) in epochs.iter().enumerate() {
            // Its frame alone, and with what is sealed in it.
            let end = epochs
                .get(number + 1)
                .map_or(files.journal.len(), |next| next.start);
            for place in [epoch.clone(), epoch.start..end] {
                let mut forged = files.clone();
                if place.len() < 16_000 {
                    forged.put_plain(place.clone(), Kind::Filler, b"");
                    let verdict = forged.judge(states);
                    assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
                }
                let mut forged = files.clone();
                forged.journal.drain(place.clone());
                for at in (0..frames.len()).rev() {
                    let moved = &frames[at].0;
                    if moved.start >= place.end {
                        forged.set_checksum(&(moved.start - place.len()..moved.end - place.len()));
                    }
                }
                assert_eq!(forged.judge(states), Verdict::Refused);
            }
            // By the one before.
            if let Some(before) = number.checked_sub(1).map(|it| epochs[it].clone()) {
                let mut forged = files.clone();
                forged.journal[epoch.clone()].copy_from_slice(&files.journal[before]);
                forged.set_checksum(epoch);
                let verdict = forged.judge(states);
                assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
            }
        }
    }
}

#[test]
fn frames_cannot_be_replaced_by_those_of_another_history() {
    for story in Story::both() {
        let (files, states) = story.last();
        let (other, other_state) = diverged(&story);
        let from = story.files[0].journal.len();
        let both = [states[0].clone(), other_state];
        for sidecar in [None, files.sidecar.clone(), other.sidecar.clone()] {
            // Its frames under our header, and ours under its header.
            for (front, back) in [(files, &other), (&other, files)] {
                let mut forged = front.clone();
                forged.journal.truncate(from);
                forged.journal.extend_from_slice(&back.journal[from..]);
                forged.sidecar.clone_from(&sidecar);
                let refused = matches!(forged.judge(&both), Verdict::Refused | Verdict::Errors);
                assert!(refused);
                // As long as the header says.
                let longer = front.journal.len().max(forged.journal.len());
                forged.journal.resize(longer, 0);
                let refused = matches!(forged.judge(&both), Verdict::Refused | Verdict::Errors);
                assert!(refused);
            }
        }
        // One slot of each.
        for slot in HEADER_SLOTS {
            let mut forged = files.clone();
            let slot = slot as usize..slot as usize + 4096;
            forged.journal[slot.clone()].copy_from_slice(&other.journal[slot]);
            let verdict = forged.judge(&both);
            assert_ne!(verdict, Verdict::State(1));
        }
        // Its checkpoint beside our journal is no checkpoint.
        let mut forged = files.clone();
        forged.sidecar.clone_from(&other.sidecar);
        assert_eq!(forged.judge_and_go_on(states), Verdict::State(0));
    }
}

/// What a process had appended when it was killed, put back behind a cut after which
/// another one went on.
#[test]
fn a_tail_that_was_cut_off_cannot_be_put_back() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("kept", "value").unwrap();
    db.flush().unwrap();
    let kept = disk.live_bytes();
    for number in 0..5_u8 {
        db.insert([number], "lost").unwrap();
    }
    let lost = (Files::of(&disk), state(&db).unwrap());
    kill(db);
    let disk = Arc::new(SimulatedMedium::with_bytes(&kept));
    let db = open(&disk);
    for number in 0..9_u8 {
        db.insert([number], "anew").unwrap();
    }
    let anew = state(&db).unwrap();
    db.close().unwrap();
    let files = Files::of(&disk);
    let from = files.places(Seen::Epoch)[1].start;
    let end = lost.0.frames().last().unwrap().0.end;
    assert!(end < files.journal.len());
    let mut forged = files.clone();
    forged.journal[from..end].copy_from_slice(&lost.0.journal[from..end]);
    assert_eq!(forged.judge(&[anew, lost.1]), Verdict::Refused);
}

#[test]
fn a_truncated_file_is_refused_below_the_confirmed_position() {
    for story in Story::both() {
        let (files, states) = story.last();
        let confirmed = files.header().confirmed as usize;
        assert_eq!(confirmed, files.journal.len());
        let boundaries = files.frames().into_iter().map(|(place, _)| place.start);
        let lens = boundaries.chain((1..confirmed).step_by(331));
        for len in lens.chain([0, 1, 16_383, confirmed - 1]) {
            let mut forged = files.clone();
            forged.journal[len.max(1)..].fill(0);
            if len > 0 {
                // What a checkpoint spares opening to read is found out when it is read.
                let verdict = forged.judge(states);
                assert!(matches!(verdict, Verdict::Refused | Verdict::Errors));
                forged.journal.truncate(len);
                assert_eq!(forged.judge(states), Verdict::Refused, "{len}");
            }
        }
    }
}

#[test]
fn an_older_header_leads_back_to_a_state_the_database_had() {
    for story in Story::both() {
        let (files, _) = story.last();
        for old in &story.files {
            for (target, source) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
                let [target, source] = [target, source]
                    .map(|it| HEADER_SLOTS[it] as usize..HEADER_SLOTS[it] as usize + 4096);
                let mut forged = files.clone();
                forged.journal[target.clone()].copy_from_slice(&old.journal[source.clone()]);
                let whole = forged.judge_and_go_on(&story.states);
                assert!(matches!(whole, Verdict::State(_) | Verdict::Refused));
                // And the other slot, too.
                let mut forged = files.clone();
                for slot in HEADER_SLOTS {
                    let slot = slot as usize..slot as usize + 4096;
                    forged.journal[slot].copy_from_slice(&old.journal[source.clone()]);
                }
                let whole = forged.judge_and_go_on(&story.states);
                assert!(matches!(whole, Verdict::State(_)), "{whole:?}");
            }
        }
        // A damaged slot is one that a crash may have torn.
        for slot in HEADER_SLOTS {
            let mut forged = files.clone();
            forged.journal[slot as usize + 100] ^= 1;
            let verdict = forged.judge_and_go_on(&story.states);
            assert_eq!(verdict, Verdict::State(story.states.len() - 1));
        }
    }
}

#[test]
fn an_older_checkpoint_loses_nothing() {
    let mut story = Story::new(true);
    let mut sidecars = vec![story.files.last().unwrap().sidecar.clone(), None];
    for round in 0..4_u8 {
        story.write(|db| {
            for number in 0..10_u8 {
                db.insert([round, number], [round; 5]).unwrap();
                db.remove([b'k', round]).unwrap();
            }
            db.checkpoint().unwrap();
        });
        sidecars.push(story.files.last().unwrap().sidecar.clone());
    }
    let (files, states) = story.last();
    for sidecar in sidecars {
        let mut forged = files.clone();
        forged.sidecar = sidecar;
        assert_eq!(forged.judge_and_go_on(states), Verdict::State(0));
    }
}
