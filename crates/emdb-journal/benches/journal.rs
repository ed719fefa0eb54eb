//! What a frame of 24 + 150 bytes costs to append and to read again, and what a value above 16 KiB
//! adds; in memory, so that no disk is measured.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use emdb_journal::{Error, FrameSpec, Journal, Kind, MemoryMedium, Opened, Options};

const KEY: &[u8] = b"user:0000000000000000042";
const FRAMES: u64 = 10_000;

fn opened() -> Result<Journal, Error> {
    Journal::open(Box::new(MemoryMedium::new()), Options::default(), |_| {})
}

fn append(journal: &Journal, value: &[u8]) -> Result<u64, Error> {
    let lsn = journal.append(&FrameSpec::new(Kind::Put, KEY, value))?;
    Ok(lsn.get() - journal.lsn(0).get())
}

fn read(journal: &Journal, position: u64) -> Result<usize, Error> {
    let opened = Opened::new();
    let frame = journal.frame(position, &opened)?;
    journal.verify(position, &frame)?;
    Ok(frame.value.len())
}

fn bench(criterion: &mut Criterion) -> Result<(), Error> {
    let mut group = criterion.benchmark_group("journal");
    for (name, value) in [("150_B", vec![0x5a; 150]), ("64_KiB", vec![0x5a; 64 << 10])] {
        group.throughput(Throughput::Bytes(value.len() as u64));
        let journal = opened()?;
        let position = append(&journal, &value)?;
        assert_eq!(read(&journal, position)?, value.len());
        group.bench_function(format!("read_verified_{name}"), |bencher| {
            bencher.iter(|| read(&journal, black_box(position)));
        });
    }
    // Each into a journal of its own, which would otherwise grow for as long as is measured.
    group.throughput(Throughput::Elements(FRAMES));
    group.bench_function("append_10_000", |bencher| {
        bencher.iter_batched(
            opened,
            |journal| {
                let journal = journal?;
                for _ in 0..FRAMES {
                    append(&journal, &[0x5a; 150])?;
                }
                Ok::<_, Error>(journal)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), Error> {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
