//! What an attacker without the key has: the files, old copies of them, and the checksums,
//! which he can compute for whatever he writes.

use std::ops::Range;
use std::sync::Arc;

use emdb::{Emdb, Error};
use emdb_format::{
    AnyFrame, EpochMark, FIRST_POSITION, FrameSpec, HEADER_SLOT_BYTES, HEADER_SLOTS, Header, Kind,
    Marker, Stamp,
};
use emdb_journal::SimulatedMedium;

use crate::{State, open, state, try_open};

/// The files of a database.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) journal: Vec<u8>,
    pub(crate) sidecar: Option<Vec<u8>>,
}

/// What a frame is, as far as anybody can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Sealed,
    Marker,
    Epoch,
}

/// What came of opening files and reading everything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused,
    /// Some reads gave errors, the others what belongs there.
    Errors,
    /// The contents are this one of the states.
    State(usize),
}

impl Files {
    pub(crate) fn of(disk: &SimulatedMedium) -> Self {
        Self {
            journal: disk.live_bytes(),
            sidecar: disk.sidecar_bytes(),
        }
    }

    pub(crate) fn disk(&self) -> Arc<SimulatedMedium> {
        let disk = SimulatedMedium::with_bytes(&self.journal);
        Arc::new(disk.with_sidecar(self.sidecar.clone()))
    }

    pub(crate) fn header(&self) -> Header {
        let slots = HEADER_SLOTS.map(|at| Header::decode(&self.journal[slot(at)]).unwrap());
        slots.into_iter().max_by_key(|it| it.sequence).unwrap()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let header = self.header();
        Stamp::new(&header.database_id, header.generation)
    }

    /// Changes the newest header; its checksum is right afterwards.
    pub(crate) fn change_header(&mut self, change: impl FnOnce(&mut Header)) {
        let mut header = self.header();
        let at = HEADER_SLOTS[(header.sequence % 2) as usize];
        change(&mut header);
        self.journal[slot(at)].copy_from_slice(&header.encode());
    }

    /// Every frame, in order.
    pub(crate) fn frames(&self) -> Vec<(Range<usize>, Seen)> {
        let (stamp, mut at, mut frames) = (self.stamp(), FIRST_POSITION as usize, Vec::new());
        while let Ok(frame) = AnyFrame::parse(&self.journal[at..]) {
            if frame.verify(stamp, at as u64).is_err() {
                break;
            }
            let seen = match &frame {
                AnyFrame::Sealed(_) => Seen::Sealed,
                AnyFrame::Plain(frame) if frame.kind == Kind::Filler => Seen::Marker,
                AnyFrame::Plain(frame) => {
                    EpochMark::decode(frame.value).unwrap();
                    Seen::Epoch
                }
            };
            frames.push((at..at + frame.len(), seen));
            at += frame.len();
        }
        frames
    }

    pub(crate) fn places(&self, wanted: Seen) -> Vec<Range<usize>> {
        let frames = self.frames().into_iter();
        frames.filter(|it| it.1 == wanted).map(|it| it.0).collect()
    }

    /// Stores a plain frame with a right checksum that fills a place to its last byte:
    /// what lies before `value` is taken up by the key.
    pub(crate) fn put_plain(&mut self, place: Range<usize>, kind: Kind, value: &[u8]) {
        let longest = vec![0; place.len() - value.len() - 7];
        let specs = (0..8).flat_map(|less| {
            let key = &longest[..longest.len().saturating_sub(less)];
            // A byte that the length of the key may not make up for.
            [None, Some(0)].map(|expires_at_ms| FrameSpec {
                expires_at_ms,
                ..FrameSpec::new(kind, key, value)
            })
        });
        let mut fitting = specs.filter(|spec| spec.encoded_len() == Ok(place.len()));
        let spec = fitting.next().unwrap();
        self.put_spec(place, &spec);
    }

    pub(crate) fn put_spec(&mut self, place: Range<usize>, spec: &FrameSpec<'_>) {
        let (stamp, lsn) = (self.stamp(), place.start as u64);
        let len = spec
            .encode_into(&mut self.journal[place.clone()], stamp, lsn)
            .unwrap();
        assert_eq!(len, place.len());
    }

    /// Makes the checksum of the frame at a place right, if there still is a frame.
    pub(crate) fn set_checksum(&mut self, place: &Range<usize>) {
        let (stamp, lsn) = (self.stamp(), place.start as u64);
        let frame = &mut self.journal[place.clone()];
        let Ok(parsed) = AnyFrame::parse(frame) else {
            return;
        };
        let len = parsed.len();
        match parsed {
            AnyFrame::Sealed(sealed) => {
                let layout = *sealed.layout();
                layout.finish(&mut frame[..len], stamp, lsn).unwrap();
            }
            AnyFrame::Plain(_) => {
                let checksum = stamp.checksum_at(lsn, &frame[4..len]);
                frame[..4].copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }

    /// The marker in a frame.
    pub(crate) fn marker(&self, place: &Range<usize>) -> Vec<u8> {
        let marker = self.journal[place.end - 64..place.end].to_vec();
        let (tag, lsn) = (self.header().marker_tag, place.end as u64 - 64);
        assert!(Marker::decode(&marker, &tag, self.stamp(), lsn).is_some());
        marker
    }

    /// Opens the files and reads everything in every way. Panics if what was read is not
    /// that of one of the states.
    pub(crate) fn judge(&self, states: &[State]) -> Verdict {
        let db = match try_open(&self.disk()) {
            Ok(db) => db,
            Err(error) => {
                let expected = matches!(
                    error,
                    Error::Corrupted { .. }
                        | Error::MagicMismatch
                        | Error::VersionMismatch { .. }
                        | Error::EncryptionError(_)
                        | Error::EncryptionKeyMismatch
                );
                assert!(expected, "{error:?}");
                return Verdict::Refused;
            }
        };
        let mut possible: Vec<usize> = (0..states.len()).collect();
        let mut intact = true;
        for (name, keys) in union(states) {
            let space = match db.open_namespace(&name) {
                _ if name.is_empty() => None,
                Ok(Some(space)) => Some(space),
                Ok(None) => {
                    possible.retain(|at| !states[*at].contains_key(&name));
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            let mut compare = |found: Result<bool, Error>, what: &str| match found {
                Ok(true) => {}
                Ok(false) => panic!("{what} is what it never was in {name:?}"),
                Err(Error::Corrupted { .. }) => intact = false,
                Err(error) => panic!("{error:?}"),
            };
            for key in &keys {
                let found = match &space {
                    Some(space) => space.get(key),
                    None => db.get(key),
                };
                compare(
                    found.map(|found| {
                        possible.retain(|at| {
                            states[*at].get(&name).and_then(|map| map.get(key)) == found.as_ref()
                        });
                        !possible.is_empty()
                    }),
                    "a value",
                );
            }
            let walked = match &space {
                Some(space) => space.try_iter(),
                None => db.try_iter(),
            };
            let walked = walked.unwrap().collect::<Result<_, _>>();
            compare(
                walked.map(|walked| {
                    possible.retain(|at| states[*at].get(&name) == Some(&walked));
                    !possible.is_empty()
                }),
                "an iterator",
            );
            let range = match &space {
                Some(space) => space.range(..),
                None => db.range(..),
            };
            compare(
                range.map(|range| {
                    possible.retain(|at| states[*at][&name] == range.iter().cloned().collect());
                    !possible.is_empty()
                }),
                "a range",
            );
        }
        let verified = db.verify();
        if !intact {
            return Verdict::Errors;
        }
        match verified {
            Ok(_) => Verdict::State(*possible.last().unwrap()),
            Err(_) => Verdict::Errors,
        }
    }

    /// As `judge`; and if the files can be opened, they can be written and opened again.
    pub(crate) fn judge_and_go_on(&self, states: &[State]) -> Verdict {
        let verdict = self.judge(states);
        if let Verdict::State(at) = verdict {
            let disk = self.disk();
            let mut expected = states[at].clone();
            let db = open(&disk);
            db.insert("afterwards", "value").unwrap();
            db.close().unwrap();
            let records = expected.get_mut("").unwrap();
            records.insert(b"afterwards".to_vec(), b"value".to_vec());
            let db: Emdb = open(&disk);
            assert_eq!(state(&db).unwrap(), expected);
            db.verify().unwrap();
        }
        verdict
    }
}

fn slot(at: u64) -> Range<usize> {
    at as usize..at as usize + HEADER_SLOT_BYTES
}

/// Every key that any of the states has, by namespace.
fn union(states: &[State]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut all = std::collections::BTreeMap::<String, std::collections::BTreeSet<Vec<u8>>>::new();
    for (name, map) in states.iter().flatten() {
        let keys = all.entry(name.clone()).or_default();
        keys.extend(map.keys().cloned());
    }
    let all = all.into_iter();
    all.map(|(name, keys)| (name, keys.into_iter().collect()))
        .collect()
}
