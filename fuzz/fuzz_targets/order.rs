//! Any bytes as the stored order of keys: no panic, and what is let in can be walked to its end
//! and stored again.
//!
//! The bytes are tried as they are, and once more as groups of leaves whose checksums are
//! right, cut where the first two bytes say.
#![no_main]

use std::convert::Infallible;

use emdb_index::{Location, OrderedIndex, RangeBatch, RangeCursor};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"emdbord2";
/// More at once than a leaf has: no key is asked for.
const MANY: usize = 128;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let [first, second, rest @ ..] = bytes {
        let (first, rest) = rest.split_at(usize::from(*first).min(rest.len()));
        let (second, third) = rest.split_at(usize::from(*second).min(rest.len()));
        check(&image(&[first]));
        check(&image(&[first, second]));
        check(&image(&[first, second, third]));
    }
});

fn image(groups: &[&[u8]]) -> Vec<u8> {
    let mut entries = Vec::new();
    for group in groups {
        entries.extend((group.len() as u32).to_le_bytes());
        entries.extend(crc32c::crc32c(group).to_le_bytes());
    }
    let mut end = MAGIC.to_vec();
    end.extend((groups.len() as u64).to_le_bytes());
    end.extend(crc32c::crc32c(&entries).to_le_bytes());
    end.extend(crc32c::crc32c(&end).to_le_bytes());
    [groups.concat(), entries, end].concat()
}

fn check(bytes: &[u8]) {
    let Ok(index) = OrderedIndex::from_image(bytes, Location::MAX) else {
        return;
    };
    let resolve = |_| Ok::<_, Infallible>(b"key");
    let (mut range, mut batch, mut count) = (RangeCursor::default(), RangeBatch::default(), 0);
    while let Ok(true) = index.next_batch(&mut range, MANY, &mut batch, resolve) {
        count += batch.entries().len() as u64;
    }
    assert!(count <= index.len());

    let mut again = Vec::new();
    let Ok(_) = index.write_image(&mut |location| Ok(Some(location)), resolve, &mut |bytes| {
        again.extend_from_slice(bytes);
        Ok(())
    });
    let opened = OrderedIndex::from_image(&again, Location::MAX);
    assert_eq!(opened.map(|index| index.len()).ok(), Some(index.len()));
}
