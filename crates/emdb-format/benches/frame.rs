//! What a frame of 24 + 150 bytes costs to parse, to verify and to encode.

use criterion::{Criterion, Throughput};
use emdb_format::{FormatError, Frame, FrameSpec, Kind, Stamp};
use std::hint::black_box;

const KEY: [u8; 24] = *b"user:0000000000000000042";
const VALUE: [u8; 150] = [0x5a; 150];
const FRAME_LEN: usize = 182;
const LSN: u64 = 16_384;

fn bench(criterion: &mut Criterion) -> Result<(), FormatError> {
    let stamp = Stamp::new(&[7; 16], 1);
    let spec = FrameSpec::new(Kind::Put, &KEY, &VALUE);
    assert_eq!(spec.encoded_len()?, FRAME_LEN);
    let mut bytes = [0; FRAME_LEN];
    spec.encode_into(&mut bytes, stamp, LSN)?;
    let frame = Frame::parse(&bytes)?;
    frame.verify(stamp, LSN)?;

    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(FRAME_LEN as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Frame::parse(black_box(&bytes)));
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| black_box(&frame).verify(stamp, black_box(LSN)));
    });
    group.bench_function("parse_and_verify", |bencher| {
        bencher.iter(|| Frame::parse(black_box(&bytes))?.verify(stamp, black_box(LSN)));
    });
    let mut out = [0; FRAME_LEN];
    group.bench_function("encode_into", |bencher| {
        bencher.iter(|| black_box(&spec).encode_into(black_box(&mut out), stamp, black_box(LSN)));
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), FormatError> {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
