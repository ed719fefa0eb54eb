//! What encryption costs, against its four bars: `encrypted [RECORDS]`, 5 million by default,
//! with the feature `encrypt`.
//!
//! Plain and encrypted databases take turns, all in one run: the median of five rounds counts,
//! after one that does not. The cipher alone is timed in each round, too. Records are 24 + 150
//! bytes, and making them is part of the times.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use emdb::{Cipher, Emdb, EmdbBuilder};
use emdb_benches::{KEY_BYTES, Records, VALUE_BYTES, median, shuffled};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const SEED: u64 = 7;
/// Kind and key length, then key and value: what is sealed of a record.
const SEALED_BYTES: usize = 2 + KEY_BYTES + VALUE_BYTES;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Encrypted,
}

impl Kind {
    fn builder(self, path: &Path) -> EmdbBuilder {
        let builder = Emdb::builder().path(path);
        match self {
            Self::Plain => builder,
            // A raw key: what opens it is derived in microseconds.
            Self::Encrypted => builder.encryption_key([42; 32]).cipher(Cipher::Aes256Gcm),
        }
    }
}

/// Times of one kind: seconds of each round.
#[derive(Default)]
struct Times {
    /// All records in one transaction, and the sync.
    load: Vec<f64>,
    /// Inserts one by one, without a sync.
    insert: Vec<f64>,
    /// Reads in another order, after each was read once.
    get: Vec<f64>,
    /// Opening after a clean close.
    open: Vec<f64>,
}

fn main() -> Result<()> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(5_000_000), |it| it.parse())?;
    let (mut plain, mut sealed) = (Times::default(), Times::default());
    let (mut seals, mut opens) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        if round == 1 {
            // The first one warmed up the machine.
            (plain, sealed) = (Times::default(), Times::default());
            (seals, opens) = (Vec::new(), Vec::new());
        }
        measure(Kind::Plain, count, &mut plain)?;
        let (sealing, opening) = cipher(few(count))?;
        seals.push(sealing);
        opens.push(opening);
        measure(Kind::Encrypted, count, &mut sealed)?;
    }
    let each = 1e9 / few(count) as f64;
    let [seals, opens] = [median(&mut seals), median(&mut opens)].map(|it| it * each);
    let (load, get) = (
        [median(&mut plain.load), median(&mut sealed.load)],
        [median(&mut plain.get), median(&mut sealed.get)].map(|it| it * each),
    );
    let insert = [median(&mut plain.insert), median(&mut sealed.insert)].map(|it| it * each);
    let open = [median(&mut plain.open), median(&mut sealed.open)].map(|it| it * 1e3);
    let [without, with] = load;
    line(
        ["bulk load, durable", "times plain", "1.5"],
        with / without,
        &format!("{without:.2} s plain, {with:.2} s encrypted"),
    );
    let [without, with] = insert;
    line(
        ["unsynced inserts, above plain", "times the cipher", "1.2"],
        (with - without) / seals,
        &format!("{without:.0} ns plain, {with:.0} ns encrypted, {seals:.0} ns the cipher"),
    );
    let [without, with] = open;
    line(
        ["opening after a clean close", "ms", "150"],
        with,
        &format!("{without:.1} ms plain, {count} records"),
    );
    let [without, with] = get;
    line(
        ["get, above plain", "times the cipher", "1.2"],
        (with - without) / opens,
        &format!("{without:.0} ns plain, {with:.0} ns encrypted, {opens:.0} ns the cipher"),
    );
    Ok(())
}

fn line([what, unit, bar]: [&str; 3], figure: f64, details: &str) {
    println!("{what:30} {figure:8.2} {unit:16} (at most {bar}: {details})");
}

/// How many records are inserted one by one, read, and sealed by the cipher alone.
fn few(count: u64) -> u64 {
    count.div_ceil(5)
}

fn measure(kind: Kind, count: u64, times: &mut Times) -> Result<()> {
    let records = Records::new(SEED);
    let record = |number| (records.key(number), records.value(number));
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;

    let path = directory.path().join("inserted");
    let db = kind.builder(&path).build()?;
    let started = Instant::now();
    for number in 0..few(count) {
        let (key, value) = record(number);
        db.insert(key, value)?;
    }
    times.insert.push(started.elapsed().as_secs_f64());
    drop(db);
    std::fs::remove_file(&path)?;

    let path = directory.path().join("loaded");
    let db = kind.builder(&path).build()?;
    let started = Instant::now();
    db.transaction(|tx| tx.insert_many((0..count).map(record)))?;
    db.flush()?;
    times.load.push(started.elapsed().as_secs_f64());

    let order = shuffled(few(count), SEED);
    let read = || -> Result<f64> {
        let started = Instant::now();
        for number in &order {
            black_box(db.get(records.key(u64::from(*number) * 5))?);
        }
        Ok(started.elapsed().as_secs_f64())
    };
    read()?;
    times.get.push(read()?);
    db.close()?;

    let started = Instant::now();
    let db = kind.builder(&path).build()?;
    times.open.push(started.elapsed().as_secs_f64());
    assert_eq!(db.len()? as u64, count);
    let last = db.get(records.key(count - 1))?;
    assert_eq!(last.as_deref(), Some(&records.value(count - 1)[..]));
    Ok(())
}

/// Seals, then opens, as many bytes as so many records have, by the cipher alone.
fn cipher(count: u64) -> Result<(f64, f64)> {
    let cipher = Aes256Gcm::new(&[42; 32].into());
    let mut bytes = [7; SEALED_BYTES];
    let nonce = |number: u64| {
        let mut nonce = [0; 12];
        let (_, counter) = nonce.split_at_mut(4);
        counter.copy_from_slice(&number.to_le_bytes());
        nonce.into()
    };
    let started = Instant::now();
    let mut tag = Tag::default();
    for number in 0..count {
        let sealed = cipher.encrypt_in_place_detached(&nonce(number), &[], black_box(&mut bytes));
        tag = black_box(sealed.map_err(|_| "too long")?);
    }
    let sealing = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for _ in 0..count {
        let mut bytes = black_box(bytes);
        let opened = cipher.decrypt_in_place_detached(&nonce(count - 1), &[], &mut bytes, &tag);
        opened.map_err(|_| "cannot be opened")?;
        black_box(bytes);
    }
    Ok((sealing, started.elapsed().as_secs_f64()))
}
