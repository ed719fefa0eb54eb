//! What it costs to seal and to open the 176 bytes of a usual record, beside the ciphers
//! alone, and to derive the key of an epoch.

use std::hint::black_box;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use criterion::{Criterion, Throughput};
use emdb_crypto::{Cipher, Epoch, MasterKey, Purpose};

const RECORD: [u8; 176] = [0x5a; 176];
const AAD: [u8; 4] = [1; 4];

fn epoch(cipher: Cipher) -> Epoch {
    Epoch {
        cipher,
        purpose: Purpose::Frames,
        salt: [3; 16],
        first_nonce: 0,
    }
}

fn bench(criterion: &mut Criterion) -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterKey::generate()?;
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(RECORD.len() as u64));
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let key = master.epoch(&epoch(cipher), b"");
        let mut sealed = RECORD;
        let tag = key.seal_in_place(7, &AAD, &mut sealed)?;
        let mut buf = RECORD;
        group.bench_function(format!("{cipher:?}/seal_in_place"), |bencher| {
            bencher.iter(|| key.seal_in_place(black_box(7), &AAD, black_box(&mut buf)));
        });
        group.bench_function(format!("{cipher:?}/open_in_place"), |bencher| {
            bencher.iter(|| {
                buf = sealed;
                key.open_in_place(black_box(7), &AAD, black_box(&mut buf), &tag)
            });
        });
        let mut out = Vec::with_capacity(RECORD.len());
        group.bench_function(format!("{cipher:?}/open_into"), |bencher| {
            bencher.iter(|| {
                out.clear();
                key.open_into(black_box(7), &AAD, &sealed, &tag, black_box(&mut out))
            });
        });
    }
    bare(
        &mut group,
        "Aes256Gcm",
        &aes_gcm::Aes256Gcm::new(&[7; 32].into()),
    );
    let chacha = chacha20poly1305::ChaCha20Poly1305::new(&[7; 32].into());
    bare(&mut group, "ChaCha20Poly1305", &chacha);
    group.finish();
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        criterion.bench_function(&format!("epoch/{cipher:?}"), |bencher| {
            bencher.iter(|| master.epoch(black_box(&epoch(cipher)), b"context"));
        });
    }
    Ok(())
}

/// The floor: the cipher without anything around it.
fn bare<C>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    aead: &C,
) where
    C: AeadInPlace,
{
    let nonce = aes_gcm::aead::Nonce::<C>::default();
    let mut buf = RECORD;
    let mut sealed = RECORD;
    let Ok(tag) = aead.encrypt_in_place_detached(&nonce, &AAD, &mut sealed) else {
        return;
    };
    group.bench_function(format!("{name}/bare seal"), |bencher| {
        bencher
            .iter(|| aead.encrypt_in_place_detached(black_box(&nonce), &AAD, black_box(&mut buf)));
    });
    group.bench_function(format!("{name}/bare open"), |bencher| {
        bencher.iter(|| {
            buf = sealed;
            aead.decrypt_in_place_detached(black_box(&nonce), &AAD, black_box(&mut buf), &tag)
        });
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
