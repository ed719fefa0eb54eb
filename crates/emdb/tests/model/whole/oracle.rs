//! What a database should hold: ordered maps, one version after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use emdb::Emdb;

use super::KEYS;
use crate::{Bytes, Map};

/// The default namespace and three others.
pub(crate) const NAMES: [&str; 4] = ["", "a", "b", "c"];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) value: Arc<[u8]>,
    pub(crate) expires_at: Option<u64>,
}

impl Stored {
    fn is_live(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

/// What is stored in a namespace, expired or not.
pub(crate) type Records = BTreeMap<Bytes, Stored>;

/// Every namespace. A copy shares what does not change.
pub(crate) type State = BTreeMap<&'static str, Arc<Records>>;

/// Records as they are seen at one time.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) records: &'a Records,
    pub(crate) now: u64,
}

impl View<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let stored = self.records.get(key)?;
        stored.is_live(self.now).then_some(&*stored.value)
    }

    pub(crate) fn live(&self) -> Map {
        let live = self
            .records
            .iter()
            .filter(|(_, stored)| stored.is_live(self.now));
        live.map(|(key, stored)| (key.clone(), stored.value.to_vec()))
            .collect()
    }
}

/// Keys in groups, and some odd ones.
pub(crate) fn key(number: u8) -> Bytes {
    match number {
        0 => Bytes::new(),
        1 => vec![b'k'; 3000],
        2 => vec![255; 3],
        _ => format!("g{}.key{number}", number % 4).into_bytes(),
    }
}

pub(crate) fn value(detail: u16) -> Bytes {
    let len = match detail % 256 {
        0 => 70_000,
        1 => (16 << 10) + 1,
        2 => 16 << 10,
        3..8 => 3000,
        other => usize::from(other) / 4,
    };
    vec![(detail >> 8) as u8; len]
}

/// All that can be asked about one namespace.
#[derive(Debug, PartialEq)]
struct Contents {
    live: Map,
    stored: usize,
    expiries: Vec<Option<u64>>,
}

/// All that can be asked about a database.
#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    spaces: BTreeMap<String, Contents>,
    live_records: usize,
    logical_bytes: u64,
}

impl Dump {
    pub(crate) fn of(db: &Emdb) -> Self {
        let stats = db.stats().unwrap();
        let mut spaces = BTreeMap::new();
        macro_rules! contents {
            ($space:expr) => {{
                let space = $space;
                let mut live: Map = space.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
                if stats.range_scans_enabled {
                    let ordered = space.range(..).unwrap();
                    assert!(
                        live.iter()
                            .eq(ordered.iter().map(|(key, value)| (key, value)))
                    );
                    live = ordered.into_iter().collect();
                }
                let expiries = (0..KEYS).map(|number| space.expires_at(key(number)).unwrap());
                Contents {
                    live,
                    stored: space.len().unwrap(),
                    expiries: expiries.collect(),
                }
            }};
        }
        spaces.insert(String::new(), contents!(db));
        for name in db.list_namespaces().unwrap() {
            let contents = contents!(db.open_namespace(&name).unwrap().unwrap());
            spaces.insert(name, contents);
        }
        Self {
            spaces,
            live_records: stats.live_records,
            logical_bytes: stats.logical_size_bytes,
        }
    }

    pub(crate) fn expected(state: &State, now: u64) -> Self {
        let contents = |records: &Records| Contents {
            live: View { records, now }.live(),
            stored: records.len(),
            expiries: (0..KEYS)
                .map(|number| {
                    records
                        .get(&key(number))
                        .and_then(|stored| stored.expires_at)
                })
                .collect(),
        };
        let bytes = |records: &Arc<Records>| -> usize {
            let lens = records
                .iter()
                .map(|(key, stored)| key.len() + stored.value.len());
            lens.sum()
        };
        Self {
            spaces: state
                .iter()
                .map(|(name, records)| ((*name).to_owned(), contents(records)))
                .collect(),
            live_records: state.values().map(|records| records.len()).sum(),
            logical_bytes: state.values().map(bytes).sum::<usize>() as u64,
        }
    }
}
