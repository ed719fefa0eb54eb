//! Images of the ordered index: what is written comes back, and what is damaged is
//! noticed.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, convert::Infallible};

use emdb_index::{Error, Location, OrderedIndex, RangeBatch, RangeCursor};

type Keys = Vec<Vec<u8>>;

/// The key at place n is that of location n + 1.
struct Records {
    index: OrderedIndex,
    keys: Keys,
}

fn at(number: usize) -> Location {
    Location::new(number as u64 + 1).unwrap()
}

fn mix(number: u64) -> u64 {
    let x = (number ^ (number >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let x = (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    x ^ (x >> 33)
}

fn key_at<'a>(keys: &'a Keys) -> impl Fn(Location) -> Result<&'a [u8], Infallible> {
    |location| Ok(&keys[location.get() as usize - 1])
}

impl Records {
    fn new(keys: Keys) -> Self {
        let index = OrderedIndex::new();
        for (number, key) in keys.iter().enumerate() {
            let Ok(old) = index.insert(key, at(number), key_at(&keys));
            assert_eq!(old, None);
        }
        Self { index, keys }
    }

    fn image(&self) -> Vec<u8> {
        self.image_of(&mut |location| Ok(Some(location)))
    }

    fn image_of(
        &self,
        choose: &mut dyn FnMut(Location) -> Result<Option<Location>, Infallible>,
    ) -> Vec<u8> {
        let mut image = Vec::new();
        let Ok(len) = self
            .index
            .write_image(choose, key_at(&self.keys), &mut |bytes| {
                image.extend_from_slice(bytes);
                Ok(())
            });
        assert_eq!(len, image.len() as u64);
        image
    }

    fn sorted(&self) -> Vec<Location> {
        let sorted: BTreeMap<_, _> = (0..).zip(&self.keys).map(|(n, key)| (key, at(n))).collect();
        sorted.into_values().collect()
    }
}

fn walk(index: &OrderedIndex, keys: &Keys) -> Vec<Location> {
    let (mut range, mut batch, mut all) =
        (RangeCursor::default(), RangeBatch::default(), Vec::new());
    while let Ok(true) = index.next_batch(&mut range, 100, &mut batch, key_at(keys)) {
        all.extend(batch.entries().iter().map(|entry| entry.location));
    }
    all
}

fn open(image: &[u8]) -> Result<OrderedIndex, Error> {
    OrderedIndex::from_image(image, Location::MAX)
}

/// Keys that tell apart early, late, by nothing but zeros, and by their lengths.
fn shapes(count: usize) -> Vec<Keys> {
    let of = |key: &dyn Fn(usize) -> Vec<u8>| (0..count).map(key).collect::<Keys>();
    vec![
        of(&|n| mix(n as u64).to_le_bytes().repeat(3)),
        of(&|n| format!("tenant-00042/{n:012}").into_bytes()),
        of(&|n| [vec![b'x'; 3000], mix(n as u64).to_le_bytes().to_vec()].concat()),
        of(&|n| vec![0; n % 4096]).into_iter().take(4096).collect(),
    ]
}

#[test]
fn what_is_written_comes_back_and_takes_changes() {
    let count = if cfg!(miri) { 300 } else { 10_000 };
    for keys in shapes(count) {
        let records = Records::new(keys);
        let image = records.image();
        let opened = open(&image).unwrap();
        assert_eq!(opened.len(), records.keys.len() as u64);
        assert_eq!(walk(&opened, &records.keys), records.sorted());
        // Each is found, goes and comes back, one by one and with all others.
        let resolve = key_at(&records.keys);
        for (number, key) in records.keys.iter().enumerate() {
            let location = at(number);
            assert!(opened.replace_at(key, location, location));
            if number % 3 > 0 {
                assert!(opened.remove_at(key, location));
            }
        }
        for (number, key) in records.keys.iter().enumerate() {
            if number % 3 == 1 {
                assert_eq!(opened.insert(key, at(number), &resolve), Ok(None));
            }
        }
        let mut rest: Vec<_> = (0..).zip(&records.keys).map(|(n, k)| (k, at(n))).collect();
        rest.sort();
        assert!(opened.insert_sorted_batch(rest, &resolve).is_ok());
        assert_eq!(opened.len(), records.keys.len() as u64);
        assert_eq!(walk(&opened, &records.keys), records.sorted());
    }
}

#[test]
fn an_empty_index_has_an_image() {
    let records = Records::new(Vec::new());
    let opened = open(&records.image()).unwrap();
    assert!(opened.is_empty());
    let keys = vec![b"key".to_vec()];
    assert_eq!(opened.insert(b"key", at(0), key_at(&keys)), Ok(None));
    assert_eq!(walk(&opened, &keys), [at(0)]);
}

#[test]
fn an_image_takes_no_more_memory_than_a_fresh_index() {
    for keys in shapes(30_000) {
        let records = Records::new(keys);
        let opened = open(&records.image()).unwrap();
        let mut sorted: Vec<_> = records.keys.iter().zip((0..).map(at)).collect();
        sorted.sort();
        let fresh = OrderedIndex::build(sorted).unwrap();
        let (opened, fresh) = (opened.memory_bytes(), fresh.memory_bytes());
        // Leaves may be half as full.
        assert!(opened <= fresh + fresh / 2, "{opened} of {fresh}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let records = Records::new((0..40).map(|n| vec![b'k', n, n, n]).collect());
    let image = records.image();
    assert_eq!(
        walk(&open(&image).unwrap(), &records.keys),
        records.sorted()
    );
    for at in 0..image.len() {
        for bit in 0..8 {
            let mut damaged = image.clone();
            damaged[at] ^= 1 << bit;
            let opened = open(&damaged);
            assert_eq!(opened.err(), Some(Error::Damaged), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn damage_anywhere_in_a_large_image_is_noticed() {
    let records = Records::new((0..60_000).map(|n| mix(n).to_le_bytes().to_vec()).collect());
    let image = records.image();
    for at in (0..image.len()).step_by(37_003) {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        assert_eq!(open(&damaged).err(), Some(Error::Damaged), "byte {at}");
    }
}

#[test]
fn truncated_and_shifted_images_are_refused() {
    let records = Records::new((0..500_u16).map(|n| n.to_le_bytes().to_vec()).collect());
    let image = records.image();
    for cut in 0..image.len() {
        assert_eq!(open(&image[..cut]).err(), Some(Error::Damaged), "{cut}");
        if cut > 0 {
            assert_eq!(open(&image[cut..]).err(), Some(Error::Damaged), "{cut}");
        }
    }
    let longer = [&image[..], &[0]].concat();
    assert_eq!(open(&longer).err(), Some(Error::Damaged));
    assert_eq!(open(&[]).err(), Some(Error::Damaged));
}

#[test]
fn locations_beyond_the_end_of_the_records_are_damage() {
    let records = Records::new(vec![b"a".to_vec(), b"b".to_vec()]);
    let image = records.image();
    assert!(OrderedIndex::from_image(&image, 3).is_ok());
    for end in [0, 1, 2] {
        let opened = OrderedIndex::from_image(&image, end);
        assert_eq!(opened.err(), Some(Error::Damaged));
    }
}

#[test]
fn an_image_holds_what_was_chosen() {
    let mut keys: Keys = (0..20_000_u64)
        .map(|n| mix(n).to_le_bytes().to_vec())
        .collect();
    let records = Records::new(keys.clone());
    // The same key in an earlier record.
    keys.extend_from_within(..);
    let image = records.image_of(&mut |location| {
        let number = location.get() as usize - 1;
        Ok((!number.is_multiple_of(5)).then(|| at(number + 20_000)))
    });
    let opened = open(&image).unwrap();
    let expected: Vec<_> = records
        .sorted()
        .into_iter()
        .map(|location| location.get() as usize - 1)
        .filter(|number| !number.is_multiple_of(5))
        .map(|number| at(number + 20_000))
        .collect();
    assert_eq!(opened.len(), expected.len() as u64);
    assert_eq!(walk(&opened, &keys), expected);
    // Nothing chosen at all.
    let image = records.image_of(&mut |_| Ok(None));
    assert!(open(&image).unwrap().is_empty());
}

#[test]
fn failures_of_the_closures_are_passed_on() {
    let records = Records::new(vec![b"key".to_vec()]);
    let resolve = |_| Ok::<_, &str>("key");
    let (index, mut all) = (&records.index, |location| Ok(Some(location)));
    let failed = index.write_image(&mut |_| Err("choose"), resolve, &mut |_| Ok(()));
    assert_eq!(failed, Err("choose"));
    let failed = index.write_image(&mut all, resolve, &mut |_| Err("sink"));
    assert_eq!(failed, Err("sink"));
}

#[test]
fn leaves_split_and_merged_while_an_image_is_written_are_in_it_once() {
    // Even keys stay; odd ones come and go in front of the walk and behind it.
    let keys: Keys = (0..40_000_u32)
        .map(|n| format!("number {n:012}").into_bytes())
        .collect();
    let index = OrderedIndex::new();
    let resolve = key_at(&keys);
    for (number, key) in keys.iter().enumerate() {
        let Ok(_) = index.insert(key, at(number), &resolve);
    }
    let records = Records {
        index,
        keys: keys.clone(),
    };
    let mut seed = 0;
    let mut turn = 0_usize;
    let image = records.image_of(&mut |location| {
        turn += 1;
        // Now and then takes a stretch out, or puts it back.
        if turn.is_multiple_of(50) {
            seed += 1;
            let begin = (mix(seed) as usize % 39_000) | 1;
            for number in (begin..begin + 900).step_by(2) {
                if seed.is_multiple_of(2) {
                    let Ok(_) = records.index.insert(&keys[number], at(number), &resolve);
                } else {
                    records.index.remove_at(&keys[number], at(number));
                }
            }
        }
        Ok((location.get() % 2 == 1).then_some(location))
    });
    let opened = open(&image).unwrap();
    let even: Vec<_> = (0..40_000).step_by(2).map(at).collect();
    assert_eq!(walk(&opened, &keys), even);
}

#[test]
fn an_image_does_not_say_what_was_verified() {
    let records = Records::new(vec![b"apple".to_vec(), b"pear".to_vec()]);
    let verified = |index: &OrderedIndex| {
        let (mut range, mut batch) = (RangeCursor::default(), RangeBatch::remembering());
        let Ok(found) = index.next_batch(&mut range, 8, &mut batch, key_at(&records.keys));
        assert!(found);
        for (at, entry) in batch.entries().iter().enumerate() {
            batch.set_verified(at, *entry);
        }
        let entries = batch.entries().iter();
        entries.map(|entry| entry.verified).collect::<Vec<_>>()
    };
    assert_eq!(verified(&records.index), [false, false]);
    assert_eq!(verified(&records.index), [true, true]);
    let opened = open(&records.image()).unwrap();
    assert_eq!(verified(&opened), [false, false]);
}
