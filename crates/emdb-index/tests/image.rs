//! Images: what is written comes back, and what is damaged is noticed.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{cell::Cell, convert::Infallible};

use emdb_index::{Entry, Error, FindError, HashIndex, Location};
use support::{find, image, key_of, location, put, remove, try_find, try_put, walk};

/// Opens an image and reads all of it; everything must be as it was, or
/// refused.
fn check_damaged(bytes: &[u8], expected: &[Entry], what: &str) {
    let opened = HashIndex::from_image(Box::new(bytes.to_vec()), 0, bytes.len(), Location::MAX);
    let Ok(index) = opened else { return };
    match walk(&index) {
        Ok(entries) => assert_eq!(entries, expected, "{what}"),
        Err(error) => assert_eq!(error, Error::Damaged),
    }
    for entry in expected {
        let key = key_of(entry.location);
        match try_find(&index, key) {
            Ok(found) => assert_eq!(found, Some(*entry), "{what}"),
            Err(error) => assert_eq!(error, FindError::Index(Error::Damaged)),
        }
    }
    _ = try_put(&index, 1, 9);
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    let index = HashIndex::new();
    (0..30).for_each(|key| _ = put(&index, key, 0));
    let bytes = image(&index);
    let expected = walk(&index).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let opened = HashIndex::from_image(Box::new(damaged), 0, bytes.len(), Location::MAX);
            let seen = opened.and_then(|index| walk(&index));
            assert_eq!(seen, Err(Error::Damaged), "bit {bit} of byte {at}");
        }
    }
    check_damaged(&bytes, &expected, "unchanged");
}

#[test]
fn damage_in_one_segment_is_found_there_and_only_there() {
    let index = HashIndex::new();
    (0..3000).for_each(|key| _ = put(&index, key, 0));
    let mut bytes = image(&index);
    bytes[4096 + 77] ^= 4;
    let len = bytes.len();
    let index = HashIndex::from_image(Box::new(bytes), 0, len, Location::MAX).unwrap();
    let (mut good, mut bad) = (0, 0);
    for key in 0..3000 {
        match try_find(&index, key) {
            Ok(found) => {
                assert_eq!(found.map(|entry| entry.location), Some(location(key, 0)));
                good += 1;
            }
            Err(error) => {
                assert_eq!(error, FindError::Index(Error::Damaged));
                assert_eq!(index.lock(support::mix(key)).err(), Some(Error::Damaged));
                bad += 1;
            }
        }
        _ = index.first_candidate(support::mix(key));
    }
    assert!(good > 2000 && bad > 0, "{good} good, {bad} bad");
    assert_eq!(walk(&index), Err(Error::Damaged));
    let copied = index.write_image::<Infallible>(&mut |_| Ok(None), &mut |_| Ok(()));
    assert_eq!(copied, Err(FindError::Index(Error::Damaged)));
    let detached = index.detach();
    assert_eq!(
        support::walk_detached(&index, &detached),
        Err(Error::Damaged)
    );
    index.release(detached);
    put(&index, 1, 1);
}

#[test]
fn truncated_and_shifted_images_are_refused() {
    let index = HashIndex::new();
    (0..1000).for_each(|key| _ = put(&index, key, 0));
    let bytes = image(&index);
    let open = |bytes: &[u8], offset, len| {
        HashIndex::from_image(Box::new(bytes.to_vec()), offset, len, Location::MAX).map(|_| ())
    };
    assert_eq!(open(&bytes, 0, bytes.len()), Ok(()));
    let cuts = (0..200).chain((200..bytes.len()).step_by(61));
    for cut in cuts.chain(bytes.len() - 100..bytes.len()) {
        assert_eq!(
            open(&bytes[..cut], 0, cut),
            Err(Error::Damaged),
            "cut at {cut}"
        );
        assert_eq!(open(&bytes, 0, cut), Err(Error::Damaged), "length {cut}");
        let len = bytes.len() - cut;
        if cut > 0 {
            assert_eq!(open(&bytes, cut, len), Err(Error::Damaged), "from {cut}");
        }
    }
    for (offset, len) in [
        (0, usize::MAX),
        (usize::MAX, 1),
        (usize::MAX, usize::MAX),
        (1, bytes.len()),
    ] {
        assert_eq!(open(&bytes, offset, len), Err(Error::Damaged));
    }
}

#[test]
fn entries_beyond_the_end_of_the_records_are_damage() {
    let index = HashIndex::new();
    put(&index, 5, 0);
    let bytes = image(&index);
    let end = location(5, 0).get();
    let open = |end| {
        let image = Box::new(bytes.clone());
        let index = HashIndex::from_image(image, 0, bytes.len(), end).unwrap();
        walk(&index).map(|entries| entries.len())
    };
    assert_eq!(open(end + 1), Ok(1));
    assert_eq!(open(end), Err(Error::Damaged));
    assert_eq!(open(0), Err(Error::Damaged));
}

#[test]
fn an_image_holds_what_resolve_says() {
    let index = HashIndex::new();
    (0..20_000).for_each(|key| _ = put(&index, key, 1));
    for key in (0..20_000).step_by(3) {
        remove(&index, key);
        let mut guard = index.lock(support::mix(key)).unwrap();
        guard
            .make_room(|at| Ok::<_, Infallible>(support::mix(key_of(at))))
            .unwrap();
        guard.insert(location(key, 2), true);
    }
    let mut bytes = Vec::new();
    let resolve = &mut |entry: Entry| {
        let key = key_of(entry.location);
        Ok::<_, Infallible>((!entry.tombstone && !key.is_multiple_of(5)).then(|| location(key, 0)))
    };
    let sink = &mut |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let len = index.write_image(resolve, sink).unwrap() as usize;
    let index = HashIndex::from_image(Box::new(bytes), 0, len, Location::MAX).unwrap();
    for key in 0..20_000_u64 {
        let expected = (key % 3 > 0 && !key.is_multiple_of(5)).then(|| location(key, 0));
        assert_eq!(find(&index, key), expected, "{key}");
    }
    // And it can grow.
    (0..60_000).for_each(|key| _ = put(&index, key, 3));
    assert!((0..60_000).all(|key| find(&index, key) == Some(location(key, 3))));
}

#[test]
fn failures_of_resolve_and_sink_are_passed_on() {
    let index = HashIndex::new();
    (0..1000).for_each(|key| _ = put(&index, key, 1));
    let failed = index.write_image(&mut |_| Err("resolve"), &mut |_| Ok(()));
    assert_eq!(failed, Err(FindError::Check("resolve")));
    let failed = index.write_image(&mut |_| Ok(None), &mut |_| Err("sink"));
    assert_eq!(failed, Err(FindError::Check("sink")));
}

#[test]
fn segments_split_while_an_image_is_written_are_in_it_once() {
    let index = HashIndex::new();
    (0..20_000).for_each(|key| _ = put(&index, key, 0));
    let more = Cell::new(20_000);
    let mut bytes = Vec::new();
    let resolve = &mut |entry: Entry| {
        let key = more.replace(more.get() + 2);
        if key < 100_000 {
            put(&index, key, 0);
            put(&index, key + 1, 0);
            remove(&index, key);
        }
        Ok::<_, Infallible>((key_of(entry.location) < 20_000).then_some(entry.location))
    };
    let sink = &mut |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let len = index.write_image(resolve, sink).unwrap() as usize;
    let index = HashIndex::from_image(Box::new(bytes), 0, len, Location::MAX).unwrap();
    assert_eq!(walk(&index).unwrap().len(), 20_000);
    assert!((0..20_000).all(|key| find(&index, key) == Some(location(key, 0))));
}
