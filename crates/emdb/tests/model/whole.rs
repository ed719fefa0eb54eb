//! Every operation there is, in one model: versions of ordered maps.
//!
//! The disk is simulated, so that power may fail anywhere: what is found again must be
//! one of the versions since the last flush. Time is the test's own.
//!
//! `cargo xtask torture` runs this for as long as it is told to. A case is a seed; one
//! that fails is made smaller, and names the seed.

mod case;
mod oracle;
mod trouble;
mod verbs;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use case::Case;
use verbs::VERBS;
pub(crate) use verbs::Verb;

/// Different keys.
const KEYS: u8 = 48;
const OPERATIONS_OF_CASE: usize = 400;

/// What is done, and to what; what the numbers mean is the verb's to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) verb: Verb,
    pub(crate) space: usize,
    pub(crate) key: u8,
    pub(crate) other: u8,
    pub(crate) detail: u16,
}

fn op() -> impl Strategy<Value = Op> {
    let weights: u32 = VERBS.iter().map(|(weight, _)| weight).sum();
    (0..weights, 0..8_usize, 0..KEYS, 0..KEYS, any::<u16>()).prop_map(
        |(mut at, space, key, other, detail)| {
            let chosen = VERBS.iter().find(|(weight, _)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            // Half of what is done is done to the default namespace.
            let space = space.saturating_sub(4);
            let verb = chosen.unwrap().1;
            Op {
                verb,
                space,
                key,
                other,
                detail,
            }
        },
    )
}

/// When to stop.
enum Until {
    Operations(u64),
    Time(Instant),
    /// After one case.
    Once,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn until() -> Until {
    if variable("EMDB_TORTURE_ONCE").is_some() {
        return Until::Once;
    }
    if let Some(seconds) = variable("EMDB_TORTURE_SECONDS") {
        return Until::Time(Instant::now() + Duration::from_secs(seconds.parse().unwrap()));
    }
    let operations = variable("EMDB_TORTURE_OPERATIONS");
    Until::Operations(operations.map_or(50_000, |operations| operations.parse().unwrap()))
}

#[test]
fn every_operation_does_what_versions_of_ordered_maps_do() {
    let first = variable("EMDB_TORTURE_SEED").map_or_else(
        || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    let until = until();
    let (cases, operations) = (AtomicU64::new(0), AtomicU64::new(0));
    let run = || {
        loop {
            let case = cases.fetch_add(1, Ordering::Relaxed);
            let over = match until {
                Until::Operations(most) => operations.load(Ordering::Relaxed) >= most,
                Until::Time(end) => Instant::now() >= end,
                Until::Once => case > 0,
            };
            if over {
                return;
            }
            let done = run_case(first.wrapping_add(case));
            operations.fetch_add(done, Ordering::Relaxed);
        }
    };
    quiet_while_shrinking();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    println!(
        "{} operations from seed {first} on",
        operations.into_inner()
    );
}

thread_local! {
    static SHRINKING: Cell<bool> = const { Cell::new(false) };
}

/// A case that fails is tried thousands of times; what is said is said at the end.
fn quiet_while_shrinking() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !SHRINKING.get() {
            usual(panic);
        }
    }));
}

/// Gives the number of operations.
fn run_case(seed: u64) -> u64 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let operations = AtomicU64::new(0);
    let strategy = (any::<u16>(), vec(op(), 1..OPERATIONS_OF_CASE));
    SHRINKING.set(true);
    let result = TestRunner::new_with_rng(config, rng).run(&strategy, |(options, ops)| {
        operations.store(ops.len() as u64, Ordering::Relaxed);
        Case::new(options).run(&ops);
        Ok(())
    });
    SHRINKING.set(false);
    match result {
        Ok(()) => operations.into_inner(),
        Err(TestError::Fail(why, (options, ops))) => {
            let ops: Vec<_> = ops.iter().map(|op| format!("{op:?}")).collect();
            panic!(
                "seed {seed} fails: {why}\nwith options {options} and\n{}\n\
                 to repeat: cargo xtask torture once {seed}",
                ops.join("\n")
            )
        }
        Err(aborted) => panic!("seed {seed}: {aborted}"),
    }
}
