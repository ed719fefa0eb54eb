//! A stand-in for the engine: keys are integers, and a location holds the key
//! and which version of its record it is.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::convert::Infallible;

use emdb_index::{Cursor, Detached, Entry, Error, FindError, HashIndex, Location, Verdict};

pub(crate) const VERSIONS: u64 = 1 << 16;

/// A hash that is uniform in all bits.
pub(crate) fn mix(key: u64) -> u64 {
    let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

pub(crate) fn location(key: u64, version: u64) -> Location {
    Location::new((key + 1) * VERSIONS + version % VERSIONS).unwrap()
}

pub(crate) fn key_of(location: Location) -> u64 {
    location.get() / VERSIONS - 1
}

pub(crate) fn try_find(
    index: &HashIndex,
    key: u64,
) -> Result<Option<Entry>, FindError<Infallible>> {
    index.find(mix(key), |entry| {
        Ok(match key_of(entry.location) == key {
            true => Verdict::Found(entry),
            false => Verdict::Pass,
        })
    })
}

pub(crate) fn find(index: &HashIndex, key: u64) -> Option<Location> {
    try_find(index, key).unwrap().map(|entry| entry.location)
}

/// Inserts or replaces; returns how many hashes had to be computed again.
pub(crate) fn put(index: &HashIndex, key: u64, version: u64) -> usize {
    try_put(index, key, version).unwrap()
}

pub(crate) fn try_put(
    index: &HashIndex,
    key: u64,
    version: u64,
) -> Result<usize, FindError<Infallible>> {
    let mut rehashed = 0;
    let mut guard = index.lock(mix(key)).map_err(FindError::Index)?;
    let found = guard.find(|entry| Ok(key_of(entry.location) == key));
    if found.map_err(FindError::Check)?.is_some() {
        guard.replace(location(key, version), false);
    } else {
        guard.make_room(|location| {
            rehashed += 1;
            Ok(mix(key_of(location)))
        })?;
        guard.insert(location(key, version), false);
    }
    Ok(rehashed)
}

pub(crate) fn remove(index: &HashIndex, key: u64) -> bool {
    let mut guard = index.lock(mix(key)).unwrap();
    let Ok(found) = guard.find(|entry| Ok::<_, Infallible>(key_of(entry.location) == key));
    if found.is_some() {
        guard.remove();
    }
    found.is_some()
}

/// All entries, in the order of a walk.
pub(crate) fn walk(index: &HashIndex) -> Result<Vec<Entry>, Error> {
    collect(|at, out| index.copy_segment(at, out))
}

pub(crate) fn walk_detached(index: &HashIndex, detached: &Detached) -> Result<Vec<Entry>, Error> {
    collect(|at, out| index.copy_detached(detached, at, out))
}

fn collect(
    mut copy: impl FnMut(Cursor, &mut Vec<Entry>) -> Result<Option<Cursor>, Error>,
) -> Result<Vec<Entry>, Error> {
    let (mut all, mut part, mut next) = (Vec::new(), Vec::new(), Some(Cursor::default()));
    while let Some(at) = next {
        next = copy(at, &mut part)?;
        all.append(&mut part);
    }
    Ok(all)
}

pub(crate) fn image(index: &HashIndex) -> Vec<u8> {
    let mut image = Vec::new();
    let len = index.write_image::<Infallible>(
        &mut |entry| Ok((!entry.tombstone).then_some(entry.location)),
        &mut |bytes| {
            image.extend_from_slice(bytes);
            Ok(())
        },
    );
    assert_eq!(len.unwrap(), image.len() as u64);
    image
}
