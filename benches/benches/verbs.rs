//! The verbs by themselves, in a small database that fits the cache.

use criterion::{Criterion, criterion_group, criterion_main};
use emdb::Emdb;
use emdb_benches::Records;

fn verbs(criterion: &mut Criterion) {
    let db = Emdb::open_in_memory();
    let records = Records::new(1);
    for number in 0..10_000 {
        if db
            .insert(records.key(number), records.value(number))
            .is_err()
        {
            return;
        }
    }
    let mut number = 0;
    let mut next = move || {
        number = (number + 7) % 10_000;
        records.key(number)
    };
    criterion.bench_function("get", |bench| bench.iter(|| db.get(next())));
    criterion.bench_function("get_zerocopy", |bench| {
        bench.iter(|| db.get_zerocopy(next()))
    });
    criterion.bench_function("get_with", |bench| {
        bench.iter(|| db.get_with(next(), <[u8]>::len));
    });
    criterion.bench_function("insert", |bench| bench.iter(|| db.insert(next(), [7; 150])));
}

criterion_group!(benches, verbs);
criterion_main!(benches);
