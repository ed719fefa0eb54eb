//! Encrypted databases: what opens them, what an attacker without the key can do to their
//! files, what of their contents can be found anywhere, and that everything else works.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod attacks;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../support/file_calls.rs"]
mod file_calls;
mod forge;
mod mixing;
mod opening;
mod secrets;
mod works;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use emdb::{Emdb, EmdbBuilder, Error};
use emdb_journal::SimulatedMedium;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// Every namespace with its records; the default one has the empty name.
type State = BTreeMap<String, Map>;

const KEY: [u8; 32] = [0x6b; 32];

fn keyed() -> EmdbBuilder {
    Emdb::builder().encryption_key(KEY)
}

fn try_open(disk: &Arc<SimulatedMedium>) -> Result<Emdb, Error> {
    let builder = keyed().enable_range_scans(true);
    builder.build_on(Box::new(Arc::clone(disk)))
}

fn open(disk: &Arc<SimulatedMedium>) -> Emdb {
    try_open(disk).unwrap()
}

/// Ends a process: its handle never closes, so nothing is synced, trimmed or written.
fn kill(db: Emdb) {
    std::mem::forget(db);
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn state(db: &Emdb) -> Result<State, Error> {
    let mut state = State::from([(String::new(), db.try_iter()?.collect::<Result<_, _>>()?)]);
    for name in db.list_namespaces()? {
        if let Some(space) = db.open_namespace(&name)? {
            let records = space.try_iter()?.collect::<Result<_, _>>()?;
            state.insert(name, records);
        }
    }
    Ok(state)
}
