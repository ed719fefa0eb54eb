//! The attacker of [`attacks`](crate::attacks) takes what is real and puts it where it does
//! not belong: to another record, another batch, another checkpoint, another database.

use std::sync::Arc;

use emdb::Emdb;
use emdb_format::{HEADER_BYTES, HEADER_SLOTS};
use emdb_journal::SimulatedMedium;

use crate::forge::{Files, Seen, Verdict};
use crate::{State, open, state};

/// What `write` leaves, closed, and the only state it may show.
fn written(write: impl FnOnce(&Emdb)) -> (Files, [State; 1]) {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    write(&db);
    let state = state(&db).unwrap();
    db.close().unwrap();
    (Files::of(&disk), [state])
}

fn is_caught(forged: &Files, states: &[State]) -> bool {
    matches!(forged.judge(states), Verdict::Refused | Verdict::Errors)
}

/// Two of everything that takes up as many bytes: records, their later versions, removals,
/// namespaces created and cleared, expiries, batches and what closes them, savepoints.
fn twins(checkpoint: bool) -> (Files, [State; 1]) {
    written(|db| {
        for name in ["one", "two"] {
            let space = db.namespace(name).unwrap();
            for key in ["a", "b"] {
                space.insert(key, name).unwrap();
                space.insert(key, name.to_uppercase()).unwrap();
            }
            space.remove("a").unwrap();
            db.namespace(name.to_uppercase()).unwrap().clear().unwrap();
        }
        #[cfg(feature = "ttl")]
        for expiry in [1_u64 << 50, (1 << 50) + 1, 1 << 51] {
            db.insert_with_ttl("mortal", "x", emdb::Ttl::ExpiresAt(expiry))
                .unwrap();
        }
        for batch in ["p", "q"] {
            let tx = db.begin().unwrap();
            tx.insert([batch, "1"].concat(), "x").unwrap();
            let savepoint = tx.savepoint().unwrap();
            tx.insert([batch, "2"].concat(), "x").unwrap();
            tx.rollback_to(savepoint).unwrap();
            tx.insert([batch, "3"].concat(), "x").unwrap();
            tx.commit().unwrap();
        }
        if checkpoint {
            db.checkpoint().unwrap();
        }
    })
}

#[test]
fn no_frame_can_take_the_place_of_any_other() {
    for checkpoint in [false, true] {
        let (files, states) = twins(checkpoint);
        let sealed = files.places(Seen::Sealed);
        let mut pairs = 0;
        for (at, one) in sealed.iter().enumerate() {
            for other in sealed[at + 1..].iter().filter(|it| it.len() == one.len()) {
                let (first, second) = (
                    files.journal[one.clone()].to_vec(),
                    files.journal[other.clone()].to_vec(),
                );
                // Swapped, the later one over the earlier one, and the reverse.
                for [to_one, to_other] in [[&second, &first], [&second, &second], [&first, &first]]
                {
                    let mut forged = files.clone();
                    forged.journal[one.clone()].copy_from_slice(to_one);
                    forged.journal[other.clone()].copy_from_slice(to_other);
                    forged.set_checksum(one);
                    forged.set_checksum(other);
                    assert!(is_caught(&forged, &states), "{one:?} {other:?}");
                }
                pairs += 1;
            }
        }
        assert!(pairs > 40, "{pairs}");
    }
}

/// A large value is sealed by itself, so it could be cut out by itself.
#[test]
fn large_values_cannot_be_swapped_between_records() {
    for checkpoint in [false, true] {
        let (files, states) = written(|db| {
            for number in [1, 2, 1, 3] {
                db.insert([number], vec![number; 17_000 + 3]).unwrap();
            }
            if checkpoint {
                db.checkpoint().unwrap();
            }
        });
        let sealed = files.places(Seen::Sealed).into_iter();
        let large: Vec<_> = sealed.filter(|place| place.len() > 17_000).collect();
        assert_eq!(large.len(), 4);
        for one in &large {
            for other in large.iter().filter(|other| *other != one) {
                let value = files.journal[other.end - 17_019..other.end].to_vec();
                let mut forged = files.clone();
                forged.journal[one.end - 17_019..one.end].copy_from_slice(&value);
                forged.set_checksum(one);
                // Nobody reads the first one any more: it was replaced.
                let is_dead = one == &large[0];
                let caught = is_caught(&forged, &states);
                assert!(caught || is_dead, "{one:?} {other:?}");
            }
        }
    }
}

/// Both databases open with the same key.
#[test]
fn key_slots_of_another_database_open_nothing() {
    let (files, states) = twins(true);
    let (other, _) = twins(true);
    let slots = other.header().sealing.key_slots;
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let mut forged = files.clone();
        for slot in 0..2 {
            forged.change_header(|header| {
                header.sequence += 1;
                if first {
                    header.sealing.key_slots[0] = slots[0];
                }
                if second {
                    header.sealing.key_slots[1] = slots[0];
                }
            });
            // In the newest header alone, and in both.
            assert_eq!(forged.judge(&states), Verdict::Refused, "{slot}");
        }
    }
    // All of its header, and one slot of it beside one of ours.
    let mut forged = files.clone();
    forged.journal[..HEADER_BYTES].copy_from_slice(&other.journal[..HEADER_BYTES]);
    assert_eq!(forged.judge(&states), Verdict::Refused);
    for slot in HEADER_SLOTS {
        let slot = slot as usize..slot as usize + 4096;
        let mut forged = files.clone();
        forged.journal[slot.clone()].copy_from_slice(&other.journal[slot]);
        let verdict = forged.judge(&states);
        assert!(matches!(verdict, Verdict::Refused | Verdict::State(0)));
    }
}

/// A checkpoint of several parts, each sealed by itself; the orders of keys are among them.
#[test]
fn parts_of_checkpoints_cannot_be_exchanged() {
    const PART: usize = (1 << 20) + 16;
    const FRONT: usize = 24;
    let disk = Arc::new(SimulatedMedium::new());
    let write = |round: u8| {
        let db = open(&disk);
        // Names are long, so that the list of namespaces is.
        for number in 0..40_u8 {
            let name = char::from(b'A' + number).to_string().repeat(60_000);
            let space = db.namespace(name).unwrap();
            space.insert([round], "value").unwrap();
        }
        db.checkpoint().unwrap();
        let state = state(&db).unwrap();
        db.close().unwrap();
        (Files::of(&disk), [state])
    };
    let (older, _) = write(1);
    let (files, states) = write(2);
    let sidecar = files.sidecar.as_ref().unwrap();
    let old = older.sidecar.as_ref().unwrap();
    let parts: Vec<&[u8]> = sidecar[FRONT..].chunks(PART).collect();
    let old_parts: Vec<&[u8]> = old[FRONT..].chunks(PART).collect();
    assert!(parts.len() > 2 && parts.len() == old_parts.len());
    let mut forgeries = vec![
        [&[parts[1], parts[0]], &parts[2..]].concat(),
        [&[parts[0], parts[0]], &parts[2..]].concat(),
        // One less, so that another one is the last.
        parts[..parts.len() - 1].to_vec(),
        parts[1..].to_vec(),
        [&parts[..], &parts[parts.len() - 1..]].concat(),
        old_parts.clone(),
    ];
    for (at, old) in old_parts.iter().enumerate() {
        let mut mixed = parts.clone();
        mixed[at] = old;
        forgeries.push(mixed);
    }
    for parts in forgeries {
        let mut forged = files.clone();
        forged.sidecar = Some([&sidecar[..FRONT], &parts.concat()].concat());
        assert_eq!(forged.judge(&states), Verdict::State(0));
    }
    // And under the salt that it was sealed with.
    let mut forged = files.clone();
    forged.sidecar = Some([&old[..FRONT], &sidecar[FRONT..]].concat());
    assert_eq!(forged.judge(&states), Verdict::State(0));
}

/// What docs/security.md says is not noticed: an attacker makes the older copy himself.
#[test]
fn a_file_cut_back_to_its_older_header_is_an_older_copy_and_nothing_else() {
    let disk = Arc::new(SimulatedMedium::new());
    let mut states = Vec::new();
    for round in 0..3_u8 {
        let db = open(&disk);
        states.push(state(&db).unwrap());
        for number in 0..5 {
            db.insert([round, number], "value").unwrap();
            db.flush().unwrap();
            states.push(state(&db).unwrap());
        }
        db.close().unwrap();
    }
    let files = Files::of(&disk);
    let newest = HEADER_SLOTS[(files.header().sequence % 2) as usize] as usize;
    let (mut older, mut refused) = (0, 0);
    for len in (HEADER_BYTES..files.journal.len()).rev().step_by(7) {
        let mut forged = files.clone();
        forged.journal[newest + 100] ^= 1;
        forged.journal.truncate(len);
        match forged.judge_and_go_on(&states) {
            Verdict::State(_) => older += 1,
            Verdict::Refused => refused += 1,
            Verdict::Errors => panic!("{len}"),
        }
    }
    assert!(older > 0 && refused > 10, "{older} {refused}");
}
