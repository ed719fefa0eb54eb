//! What a lookup and a change cost, over a million records in random order.

use std::{convert::Infallible, hint::black_box};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use emdb_index::{HashIndex, Location, Verdict};

const COUNT: u64 = 1_000_000;

fn hash(key: u64) -> u64 {
    let x = (key ^ (key >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let x = (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    x ^ (x >> 33)
}

fn insert(index: &HashIndex, key: u64) {
    let (Ok(mut guard), Some(location)) = (index.lock(hash(key)), Location::new(key)) else {
        return;
    };
    let found = guard.find(|entry| Ok::<_, Infallible>(entry.location == location));
    if found == Ok(None)
        && guard
            .make_room(|at| Ok::<_, Infallible>(hash(at.get())))
            .is_ok()
    {
        guard.insert(location, false);
    }
}

fn find(index: &HashIndex, key: u64) -> bool {
    let found = index.find(hash(key), |entry| {
        Ok::<_, Infallible>(match entry.location.get() == key {
            true => Verdict::Found(()),
            false => Verdict::Pass,
        })
    });
    found == Ok(Some(()))
}

fn filled(count: u64) -> HashIndex {
    let index = HashIndex::new();
    (1..=count).for_each(|key| insert(&index, key));
    index
}

fn benches(criterion: &mut Criterion) {
    let index = filled(COUNT);
    let mut next = 1_u64;
    let mut random = move || {
        next = next
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        (next >> 32) % COUNT + 1
    };
    criterion.bench_function("find", |bencher| {
        bencher.iter(|| black_box(find(&index, random())));
    });
    criterion.bench_function("find_absent", |bencher| {
        bencher.iter(|| black_box(find(&index, random() + COUNT)));
    });
    criterion.bench_function("find_16_prefetched", |bencher| {
        bencher.iter(|| {
            let keys: [u64; 16] = std::array::from_fn(|_| random());
            keys.iter().for_each(|key| index.prefetch(hash(*key)));
            black_box(keys.iter().filter(|key| find(&index, **key)).count())
        });
    });
    criterion.bench_function("insert_100_000", |bencher| {
        bencher.iter_batched(|| (), |()| filled(100_000), BatchSize::PerIteration);
    });
}

criterion_group!(all, benches);
criterion_main!(all);
