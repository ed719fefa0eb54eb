//! Fills an index from two threads while a third one reads, clears half of it,
//! and opens it again from an image.

use std::{convert::Infallible, thread};

use emdb_index::{FindError, HashIndex, Location, Verdict};

const COUNT: u64 = 200_000;

/// Here a key is its own position; the hash stands for a keyed one.
fn hash(key: u64) -> u64 {
    let x = (key ^ (key >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let x = (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    x ^ (x >> 33)
}

fn insert(index: &HashIndex, key: u64) -> Result<(), FindError<Infallible>> {
    let Some(location) = Location::new(key) else {
        return Ok(());
    };
    let mut guard = index.lock(hash(key)).map_err(FindError::Index)?;
    let Ok(found) = guard.find(|entry| Ok::<_, Infallible>(entry.location == location));
    if found.is_none() {
        guard.make_room(|location| Ok(hash(location.get())))?;
        guard.insert(location, false);
    }
    Ok(())
}

fn contains(index: &HashIndex, key: u64) -> Result<bool, FindError<Infallible>> {
    let found = index.find(hash(key), |entry| {
        Ok(match entry.location.get() == key {
            true => Verdict::Found(()),
            false => Verdict::Pass,
        })
    })?;
    Ok(found.is_some())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let index = HashIndex::new();
    thread::scope(|scope| {
        let odd = scope.spawn(|| {
            (1..COUNT)
                .step_by(2)
                .try_for_each(|key| insert(&index, key))
        });
        let even = scope.spawn(|| {
            (2..COUNT)
                .step_by(2)
                .try_for_each(|key| insert(&index, key))
        });
        let reader = scope.spawn(|| contains(&index, 1));
        let joined = odd.join().is_ok() && even.join().is_ok() && reader.join().is_ok();
        println!("all threads came back: {joined}");
    });
    let bytes = index.memory_bytes();
    println!("{} records in {bytes} bytes", COUNT - 1);

    for key in (2..COUNT).step_by(2) {
        let mut guard = index.lock(hash(key))?;
        if Location::new(key)
            .and_then(|at| guard.find_location(at))
            .is_some()
        {
            guard.remove();
        }
    }
    println!("half of them in {} bytes", index.memory_bytes());

    let mut image = Vec::new();
    let len =
        index.write_image::<Infallible>(&mut |entry| Ok(Some(entry.location)), &mut |bytes| {
            image.extend_from_slice(bytes);
            Ok(())
        })?;
    let index = HashIndex::from_image(Box::new(image), 0, usize::try_from(len)?, COUNT)?;
    println!(
        "an image of {len} bytes has key 7: {}",
        contains(&index, 7)?
    );
    println!("and key 8: {}", contains(&index, 8)?);
    Ok(())
}
