//! The bars of docs/bench.md: each row beside the floor it is measured against, in one
//! run. `EMDB_BENCH_RECORDS` sets the number of records (5 million by default).

use std::hint::black_box;
use std::io;
use std::sync::Barrier;
use std::time::Instant;

use emdb::{Emdb, VerifyReads};
use emdb_benches::{BareFile, HandTable, Records, append_floor, median, shuffled};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let count = std::env::var("EMDB_BENCH_RECORDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(5_000_000);
    let rows = std::env::var("EMDB_BENCH_ROWS").unwrap_or_default();
    let wanted = |row: &str| rows.is_empty() || rows.split(',').any(|name| name == row);
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let at = |name: &str| directory.path().join(name);
    let records = Records::new(7);
    println!("{count} records of 24 + 150 bytes");
    if wanted("insert") {
        inserts(&at, records, count)?;
    }
    if wanted("sync") {
        syncs(&at, records)?;
    }
    if wanted("memory") {
        memory(&at, records, count)?;
    }
    if wanted("get") || wanted("open") {
        let path = at("reads");
        let db = Emdb::open(&path)?;
        for number in 0..count {
            db.insert(records.key(number), records.value(number))?;
        }
        if wanted("get") {
            reads(&at, &db, records, count)?;
        }
        db.close()?;
        if wanted("open") {
            openings(&path, records, count)?;
        }
        drop(directory);
    }
    Ok(())
}

fn row(name: &str, measured: f64, floor: f64, unit: &str) {
    println!(
        "{name:44} {measured:10.1} {floor:10.1} {unit:4} ratio {:.3}",
        measured / floor
    );
}

/// Alternating pairs, files deleted between them, the first pair discarded.
fn inserts(
    at: &dyn Fn(&str) -> std::path::PathBuf,
    records: Records,
    count: u64,
) -> Result<(), Failure> {
    let (mut ours, mut floors, mut slowest, mut slow_share) = (vec![], vec![], vec![], vec![]);
    for pair in 0..6 {
        let floor = append_floor(&at("floor"), records, count)?;
        std::fs::remove_file(at("floor"))?;
        let db = Emdb::open(at("insert"))?;
        let started = Instant::now();
        for number in 0..count {
            db.insert(records.key(number), records.value(number))?;
        }
        let taken = started.elapsed();
        drop(db);
        remove(&at("insert"))?;

        let db = Emdb::open(at("insert"))?;
        let (mut worst, mut slow, mut total) = (0.0_f64, 0.0, 0.0);
        for number in 0..count {
            let (key, value) = (records.key(number), records.value(number));
            let started = Instant::now();
            db.insert(key, value)?;
            let ms = started.elapsed().as_secs_f64() * 1e3;
            worst = worst.max(ms);
            total += ms;
            if ms > 1.0 {
                slow += ms;
            }
        }
        drop(db);
        remove(&at("insert"))?;
        if pair > 0 {
            ours.push(taken.as_secs_f64() * 1e9 / count as f64);
            floors.push(floor.as_secs_f64() * 1e9 / count as f64);
            slowest.push(worst);
            slow_share.push(slow / total * 100.0);
        }
    }
    let ratio = median(
        &mut ours
            .iter()
            .zip(&floors)
            .map(|(a, b)| a / b)
            .collect::<Vec<_>>(),
    );
    row(
        "insert, no flush",
        median(&mut ours),
        median(&mut floors),
        "ns",
    );
    println!("  median ratio of the pairs {ratio:.3}");
    let least = slowest.iter().copied().fold(f64::MAX, f64::min);
    println!("slowest insert, smallest of five runs        {least:10.3} ms");
    println!(
        "inserts above 1 ms, share of the time        {:10.3} %",
        median(&mut slow_share)
    );
    Ok(())
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    let mut meta = path.as_os_str().to_owned();
    meta.push(".meta");
    match std::fs::remove_file(meta) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn reads(
    at: &dyn Fn(&str) -> std::path::PathBuf,
    db: &Emdb,
    records: Records,
    count: u64,
) -> Result<(), Failure> {
    let hand = HandTable::build(&at("hand"), records, count)?;
    let order: Vec<_> = shuffled(count, 3)
        .into_iter()
        .map(|n| records.key(n.into()))
        .collect();
    let order = &order[..];
    let per_key = |taken: f64| taken * 1e9 / order.len() as f64;
    let timed = |read: &dyn Fn(&[[u8; 24]])| {
        let started = Instant::now();
        read(order);
        per_key(started.elapsed().as_secs_f64())
    };
    let hand = &hand;
    let hand_copied = |verify: bool| move |keys: &[[u8; 24]]| hand_copied(hand, keys, verify);
    // The first pass verifies every record; it also warms up.
    with(db, order);
    let pairs = |name: &str, ours: &dyn Fn(&[[u8; 24]]), floor: &dyn Fn(&[[u8; 24]])| {
        let (mut a, mut b) = (vec![], vec![]);
        for _ in 0..5 {
            a.push(timed(ours));
            b.push(timed(floor));
        }
        row(name, median(&mut a), median(&mut b), "ns");
        median(&mut a)
    };
    let hand_plain = |verify: bool| move |keys: &[[u8; 24]]| hand_with(hand, keys, verify);
    let single = pairs(
        "get_with, verified once",
        &|keys| with(db, keys),
        &hand_plain(false),
    );
    pairs(
        "get, verified once",
        &|keys| copied(db, keys),
        &hand_copied(false),
    );
    // One cycle through all keys; which comes next is known only with the answer.
    let cycle = shuffled(count, 11);
    let nothing = black_box(0);
    let dependent = |get: &dyn Fn(&[u8; 24]) -> u64| {
        let started = Instant::now();
        let mut at = 0_usize;
        for number in &cycle {
            let answer = get(&order[at]) as usize & nothing;
            at = *number as usize + answer;
        }
        black_box(at);
        per_key(started.elapsed().as_secs_f64())
    };
    let (mut a, mut b) = (vec![], vec![]);
    for _ in 0..5 {
        a.push(dependent(&|key| {
            db.get_with(key, |value| {
                u64::from(value[0]) << 8 | u64::from(value[149])
            })
            .ok()
            .flatten()
            .unwrap_or(0)
        }));
        b.push(dependent(&|key| {
            hand.get(key, false)
                .map_or(0, |value| u64::from(value[0]) << 8 | u64::from(value[149]))
        }));
    }
    row(
        "get_with, each after the last answer",
        median(&mut a),
        median(&mut b),
        "ns",
    );

    let many = |keys: &[[u8; 24]]| {
        for keys in keys.chunks(32) {
            let mut sum = 0_u64;
            let visited = db.get_many_with(keys, |_, value| {
                sum += value.map_or(0, |value| u64::from(value[0]) + u64::from(value[149]));
            });
            black_box((sum, visited.is_ok()));
        }
    };
    let mut many_ns: Vec<_> = (0..5).map(|_| timed(&many)).collect();
    let many_ns = median(&mut many_ns);
    println!(
        "get_many_with, 32 keys                       {many_ns:10.1} ns   {:.2} times get_with",
        single / many_ns
    );

    let scaling =
        |name: &str, ours: &(dyn Fn(&[[u8; 24]]) + Sync), floor: &(dyn Fn(&[[u8; 24]]) + Sync)| {
            let half = order.len() / 2;
            let two = |read: &(dyn Fn(&[[u8; 24]]) + Sync)| {
                let barrier = Barrier::new(3);
                std::thread::scope(|scope| {
                    for part in [&order[..half], &order[half..]] {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            read(part);
                            barrier.wait();
                        });
                    }
                    barrier.wait();
                    let started = Instant::now();
                    barrier.wait();
                    per_key(started.elapsed().as_secs_f64())
                })
            };
            let (mut a, mut b) = (vec![], vec![]);
            for _ in 0..5 {
                a.push(timed(&|keys| ours(keys)) / two(ours));
                b.push(timed(&|keys| floor(keys)) / two(floor));
            }
            row(name, median(&mut a), median(&mut b), "x");
        };
    scaling(
        "two threads, get",
        &|keys| copied(db, keys),
        &hand_copied(false),
    );
    scaling(
        "two threads, get_zerocopy",
        &|keys| {
            for key in keys {
                black_box(db.get_zerocopy(key).ok().flatten().map(|value| value[0]));
            }
        },
        &hand_plain(false),
    );

    let path = at("always");
    {
        let db = Emdb::open(&path)?;
        for number in 0..count {
            db.insert(records.key(number), records.value(number))?;
        }
    }
    let always = Emdb::builder()
        .path(&path)
        .verify_reads(VerifyReads::Always)
        .build()?;
    with(&always, order);
    pairs(
        "get_with, verified always",
        &|keys| with(&always, keys),
        &hand_plain(true),
    );
    pairs(
        "get, verified always",
        &|keys| copied(&always, keys),
        &hand_copied(true),
    );
    drop(always);
    remove(&path)?;
    Ok(())
}

// Each loop in a function of its own, so that both are compiled alike wherever they
// are called.

#[inline(never)]
fn with(db: &Emdb, keys: &[[u8; 24]]) {
    let mut sum = 0_u64;
    for key in keys {
        let ends = db.get_with(key, |value| u64::from(value[0]) + u64::from(value[149]));
        sum += ends.ok().flatten().unwrap_or(0);
    }
    black_box(sum);
}

#[inline(never)]
fn copied(db: &Emdb, keys: &[[u8; 24]]) {
    for key in keys {
        black_box(db.get(key).ok());
    }
}

#[inline(never)]
fn hand_with(hand: &HandTable, keys: &[[u8; 24]], verify: bool) {
    let mut sum = 0_u64;
    for key in keys {
        let value = hand.get(key, verify);
        sum += value.map_or(0, |value| u64::from(value[0]) + u64::from(value[149]));
    }
    black_box(sum);
}

#[inline(never)]
fn hand_copied(hand: &HandTable, keys: &[[u8; 24]], verify: bool) {
    for key in keys {
        black_box(hand.get(key, verify).map(<[u8]>::to_vec));
    }
}

fn syncs(at: &dyn Fn(&str) -> std::path::PathBuf, records: Records) -> Result<(), Failure> {
    const OPERATIONS: u64 = 2000;
    let db = Emdb::open(at("sync"))?;
    let mut bare = BareFile::create(&at("bare"))?;
    let (mut ours, mut floors, mut shared) = (vec![], vec![], vec![]);
    for round in 0..6 {
        let started = Instant::now();
        for number in 0..OPERATIONS {
            db.insert(records.key(number), records.value(number))?;
            db.flush()?;
        }
        let one = started.elapsed().as_secs_f64() * 1e6 / OPERATIONS as f64;
        let started = Instant::now();
        for number in 0..OPERATIONS {
            bare.write_and_sync(&records.key(number), &records.value(number))?;
        }
        let floor = started.elapsed().as_secs_f64() * 1e6 / OPERATIONS as f64;
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..OPERATIONS {
                        let number = number * 2 + thread;
                        let stored = db.insert(records.key(number), records.value(number));
                        if stored.and_then(|()| db.flush()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let two = started.elapsed().as_secs_f64() * 1e6 / (2 * OPERATIONS) as f64;
        if round > 0 {
            ours.push(one);
            floors.push(floor);
            shared.push(one / two);
        }
    }
    row(
        "insert + flush",
        median(&mut ours),
        median(&mut floors),
        "us",
    );
    println!(
        "two threads of insert + flush                {:10.2} times one",
        median(&mut shared)
    );
    Ok(())
}

fn memory(
    at: &dyn Fn(&str) -> std::path::PathBuf,
    records: Records,
    count: u64,
) -> Result<(), Failure> {
    let db = Emdb::open(at("memory"))?;
    let mut worst = 0.0_f64;
    for number in 0..count.max(1_000_000) * 2 {
        db.insert(records.key(number), [])?;
        if number >= 1_000_000 && number % 50_000 == 0 {
            worst = worst.max(db.stats()?.index_bytes as f64 / number as f64);
        }
    }
    println!("index memory, maximum over every 50 k        {worst:10.2} bytes a record");
    drop(db);
    remove(&at("memory"))?;
    Ok(())
}

fn openings(path: &std::path::Path, records: Records, count: u64) -> Result<(), Failure> {
    let mut clean = vec![];
    for number in 0..5 {
        let started = Instant::now();
        let db = Emdb::open(path)?;
        black_box(db.get(records.key(number))?);
        clean.push(started.elapsed().as_secs_f64() * 1e3);
        db.close()?;
    }
    println!(
        "open after a clean close, and first get      {:10.3} ms",
        median(&mut clean)
    );
    let mut meta = path.as_os_str().to_owned();
    meta.push(".meta");
    let mut replays = vec![];
    for number in 0..3 {
        std::fs::remove_file(&meta)?;
        let started = Instant::now();
        let db = Emdb::open(path)?;
        black_box(db.get(records.key(number))?);
        replays.push(count as f64 / started.elapsed().as_secs_f64() / 1e6);
        db.checkpoint()?;
        db.close()?;
    }
    println!(
        "replay without a checkpoint                  {:10.2} M records/s",
        median(&mut replays)
    );
    let empty = path.with_extension("empty");
    drop(Emdb::open(&empty)?);
    let mut opens = vec![];
    for _ in 0..20 {
        let started = Instant::now();
        let db = Emdb::open(&empty)?;
        opens.push(started.elapsed().as_secs_f64() * 1e3);
        drop(db);
    }
    println!(
        "open an empty database                       {:10.3} ms",
        median(&mut opens)
    );
    Ok(())
}
