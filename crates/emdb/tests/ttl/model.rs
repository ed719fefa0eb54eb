//! Random operations with a clock that moves, against a map of values and expiries.

use std::collections::BTreeMap;

use emdb::Ttl;
use proptest::prelude::*;

use crate::Time;

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, Option<u64>),
    Remove(u8),
    Persist(u8),
    InsertIfAbsent(u8),
    Pass(u64),
    Sweep,
    Reopen { checkpoint: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..20_u8;
    prop_oneof![
        6 => (key(), proptest::option::of(0..50_u64)).prop_map(|(key, ms)| Op::Insert(key, ms)),
        2 => key().prop_map(Op::Remove),
        2 => key().prop_map(Op::Persist),
        2 => key().prop_map(Op::InsertIfAbsent),
        4 => (0..20_u64).prop_map(Op::Pass),
        1 => Just(Op::Sweep),
        1 => any::<bool>().prop_map(|checkpoint| Op::Reopen { checkpoint }),
    ]
}

/// What is stored: the number of its operation, and when it expires.
type Model = BTreeMap<u8, (usize, Option<u64>)>;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_database_agrees_with_a_map(
        ops in proptest::collection::vec(op(), 1..80),
        encrypted in any::<bool>(),
    ) {
        let _guard = crate::support::encrypt(encrypted);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut now = 1000;
        let time = Time::new(now);
        let mut db = time.open(&path);
        let mut model = Model::new();
        for (number, op) in ops.into_iter().enumerate() {
            let live = |model: &Model, key: u8, now: u64| {
                model.get(&key).copied().filter(|(_, expiry)| expiry.is_none_or(|at| at > now))
            };
            match op {
                Op::Insert(key, ms) => {
                    let expiry = ms.map(|ms| now + ms);
                    let ttl = expiry.map_or(Ttl::None, Ttl::ExpiresAt);
                    db.insert_with_ttl([key], number.to_le_bytes(), ttl).unwrap();
                    model.insert(key, (number, expiry));
                }
                Op::Remove(key) => {
                    let expected = live(&model, key, now).map(|(number, _)| number.to_le_bytes().to_vec());
                    prop_assert_eq!(db.remove([key]).unwrap(), expected);
                    model.remove(&key);
                }
                Op::Persist(key) => {
                    let had = matches!(live(&model, key, now), Some((_, Some(_))));
                    prop_assert_eq!(db.persist([key]).unwrap(), had);
                    if had && let Some((_, expiry)) = model.get_mut(&key) {
                        *expiry = None;
                    }
                }
                Op::InsertIfAbsent(key) => {
                    let absent = live(&model, key, now).is_none();
                    prop_assert_eq!(db.insert_if_absent([key], number.to_le_bytes()).unwrap(), absent);
                    if absent {
                        model.insert(key, (number, None));
                    }
                }
                Op::Pass(ms) => {
                    now += ms;
                    time.set(now);
                }
                Op::Sweep => {
                    let before = model.len();
                    model.retain(|_, (_, expiry)| expiry.is_none_or(|at| at > now));
                    prop_assert_eq!(db.sweep_expired(), before - model.len());
                }
                Op::Reopen { checkpoint } => {
                    if checkpoint {
                        db.checkpoint().unwrap();
                    }
                    drop(db);
                    db = time.open(&path);
                }
            }
            prop_assert_eq!(db.len().unwrap(), model.len());
            let mut seen: Vec<_> = db.iter().unwrap().collect();
            seen.sort();
            let expected: Vec<_> = model
                .keys()
                .filter_map(|key| Some((vec![*key], live(&model, *key, now)?.0.to_le_bytes().to_vec())))
                .collect();
            prop_assert_eq!(seen, expected);
            for key in 0..20_u8 {
                let expected = live(&model, key, now).map(|(number, _)| number.to_le_bytes().to_vec());
                prop_assert_eq!(db.get([key]).unwrap(), expected);
                prop_assert_eq!(db.expires_at([key]).unwrap(), model.get(&key).and_then(|stored| stored.1));
            }
        }
        prop_assert_eq!(db.verify().unwrap().records, model.len() as u64);
    }
}
