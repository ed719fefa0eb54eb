//! Operations on one key from several threads have an order that explains them all.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use emdb::Emdb;

const THREADS: usize = 3;
const EACH: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Get,
    Insert(u8),
    Replace(u8),
    Remove,
    InsertIfAbsent(u8),
    CompareAndSwap(Option<u8>, Option<u8>),
    /// Adds one; none becomes zero.
    Update,
    /// The same in a transaction.
    Transaction,
    Snapshot,
}

/// What a call returned, as far as it says something.
type Answer = Option<u8>;

#[derive(Debug, Clone)]
struct Event {
    call: Call,
    answer: Answer,
    /// Ticks of a clock that all threads share.
    began: u64,
    ended: u64,
}

/// What a call does to the value, and what it answers.
fn expected(call: &Call, value: Option<u8>) -> (Option<u8>, Answer) {
    let added = Some(value.map_or(0, |value| value.wrapping_add(1)));
    match *call {
        Call::Get | Call::Snapshot => (value, value),
        Call::Insert(new) => (Some(new), None),
        Call::Replace(new) => (Some(new), value),
        Call::Remove => (None, value),
        Call::InsertIfAbsent(new) => (value.or(Some(new)), Some(u8::from(value.is_none()))),
        Call::CompareAndSwap(old, new) if old == value => (new, None),
        Call::CompareAndSwap(..) => (value, Some(value.map_or(255, |value| value))),
        Call::Update | Call::Transaction => (added, added),
    }
}

fn run(db: &Emdb, call: &Call) -> Answer {
    let byte = |value: Vec<u8>| value[0];
    let add = |old: Option<&[u8]>| Some(vec![old.map_or(0, |old| old[0].wrapping_add(1))]);
    match *call {
        Call::Get => db.get("key").unwrap().map(byte),
        Call::Snapshot => db.snapshot().unwrap().get("key").unwrap().map(byte),
        Call::Insert(new) => {
            db.insert("key", [new]).unwrap();
            None
        }
        Call::Replace(new) => db.replace("key", [new]).unwrap().map(byte),
        Call::Remove => db.remove("key").unwrap().map(byte),
        Call::InsertIfAbsent(new) => Some(u8::from(db.insert_if_absent("key", [new]).unwrap())),
        Call::CompareAndSwap(old, new) => {
            let (old, new) = (old.map(|old| [old]), new.map(|new| [new]));
            let swapped = db
                .compare_and_swap(
                    "key",
                    old.as_ref().map(<[u8; 1]>::as_slice),
                    new.as_ref().map(<[u8; 1]>::as_slice),
                )
                .unwrap();
            swapped.err().map(|current| current.map_or(255, byte))
        }
        Call::Update => db.update("key", add).unwrap().map(byte),
        Call::Transaction => db
            .transaction(|tx| {
                tx.insert("other", "x")?;
                tx.update("key", add)
            })
            .unwrap()
            .map(byte),
    }
}

/// Whether some order of the events, in which none comes before one that had ended
/// when it began, explains every answer. `done` are the events that came before.
fn explains(
    events: &[Event],
    done: u32,
    value: Option<u8>,
    tried: &mut HashSet<(u32, Option<u8>)>,
) -> bool {
    if done.count_ones() as usize == events.len() {
        return true;
    }
    if !tried.insert((done, value)) {
        return false;
    }
    let left = || (0..events.len()).filter(|at| done & (1 << at) == 0);
    let first_end = left().map(|at| events[at].ended).min().unwrap();
    left().any(|at| {
        let event = &events[at];
        let (next, answer) = expected(&event.call, value);
        event.began < first_end
            && answer == event.answer
            && explains(events, done | 1 << at, next, tried)
    })
}

fn call(random: u64) -> Call {
    let byte = (random >> 8) as u8 % 4;
    let other = (random >> 16) as u8 % 5;
    let maybe = |byte: u8| (byte < 4).then_some(byte);
    match random % 10 {
        0 | 1 => Call::Get,
        2 => Call::Insert(byte),
        3 => Call::Replace(byte),
        4 => Call::Remove,
        5 => Call::InsertIfAbsent(byte),
        6 => Call::CompareAndSwap(maybe(other), maybe(byte + 1)),
        7 => Call::Update,
        8 => Call::Transaction,
        _ => Call::Snapshot,
    }
}

#[test]
fn every_history_of_one_key_has_an_order_that_explains_it() {
    let clock = AtomicU64::new(0);
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let mut seed = 1_u64;
    for round in 0..1500 {
        let db = Emdb::open_in_memory();
        let start = Barrier::new(THREADS);
        let plans: Vec<Vec<Call>> = (0..THREADS)
            .map(|_| {
                (0..EACH)
                    .map(|_| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        call(seed >> 24)
                    })
                    .collect()
            })
            .collect();
        let events: Vec<Event> = thread::scope(|scope| {
            let threads: Vec<_> = plans
                .into_iter()
                .map(|plan| {
                    let (db, start, tick) = (&db, &start, &tick);
                    scope.spawn(move || {
                        start.wait();
                        let event = |call: Call| {
                            let began = tick();
                            let answer = run(db, &call);
                            let ended = tick();
                            Event {
                                call,
                                answer,
                                began,
                                ended,
                            }
                        };
                        plan.into_iter().map(event).collect::<Vec<_>>()
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.flatten().collect()
        });
        let explained = explains(&events, 0, None, &mut HashSet::new());
        assert!(explained, "round {round}: {events:#?}");
    }
}

#[test]
fn the_checker_refuses_a_history_that_cannot_be() {
    let event = |call, answer, began, ended| Event {
        call,
        answer,
        began,
        ended,
    };
    let stale = [
        event(Call::Insert(1), None, 0, 1),
        event(Call::Insert(2), None, 2, 3),
        event(Call::Get, Some(1), 4, 5),
    ];
    assert!(!explains(&stale, 0, None, &mut HashSet::new()));
    let lost = [
        event(Call::Update, Some(0), 0, 5),
        event(Call::Transaction, Some(0), 1, 4),
    ];
    assert!(!explains(&lost, 0, None, &mut HashSet::new()));
    let fine = [
        event(Call::Get, Some(2), 0, 9),
        event(Call::Insert(2), None, 1, 8),
        event(Call::Remove, Some(2), 2, 7),
    ];
    assert!(explains(&fine, 0, None, &mut HashSet::new()));
}
