//! Any bytes as a key slot, and as what the header of an encrypted journal says about its keys:
//! no panic, and nothing but what was written opens.
#![no_main]

use std::sync::LazyLock;

use emdb_crypto::{Cipher, EncryptionInput, Kdf, KeySlot};
use emdb_format::{HEADER_SLOT_BYTES, HEADER_SLOTS, Header};
use emdb_journal::{Encryption, Medium, Opening, Options, SimulatedMedium};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [42; 32];
const DATABASE_ID: [u8; 16] = [7; 16];
const CRC_AT: usize = HEADER_SLOT_BYTES - 4;
/// Where cipher, key slots and what the header says of epochs and checkpoints lie.
const SEALING_AT: usize = 96;

/// An encrypted journal, just made.
static JOURNAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let disk = std::sync::Arc::new(SimulatedMedium::new());
    let opening = open(Box::new(std::sync::Arc::clone(&disk))).expect("a new journal");
    drop(opening);
    disk.live_bytes()
});

fn open(medium: Box<dyn Medium>) -> Result<Opening, emdb_journal::Error> {
    let encryption = Encryption::new(EncryptionInput::RawKey(KEY));
    Opening::new_encrypted(medium, Options::default(), &encryption)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(slot) = bytes.first_chunk()
        && let Ok(Some(slot)) = KeySlot::from_bytes(slot)
    {
        assert_eq!(slot.to_bytes(), bytes[..KeySlot::BYTES]);
        // A passphrase would take as long as the bytes ask for.
        assert!(matches!(slot.kdf(), Kdf::Hkdf | Kdf::Argon2id(_)));
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let input = EncryptionInput::RawKey(KEY);
            assert!(slot.unwrap_key(&input, cipher, &DATABASE_ID).is_err());
        }
    }

    // Changes of the header that counts, under a right checksum.
    let mut journal = JOURNAL.clone();
    let slots = HEADER_SLOTS.map(|at| at as usize..at as usize + HEADER_SLOT_BYTES);
    let newest = slots
        .into_iter()
        .filter(|slot| Header::decode(&journal[slot.clone()]).is_ok())
        .max_by_key(|slot| Header::decode(&journal[slot.clone()]).map_or(0, |it| it.sequence));
    let slot = &mut journal[newest.expect("a journal has a header")];
    for (byte, change) in slot[SEALING_AT..CRC_AT].iter_mut().zip(bytes) {
        *byte ^= change;
    }
    let crc = crc32c::crc32c(&slot[..CRC_AT]);
    slot[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    let is_whole = Header::decode(slot).is_ok();
    let is_same = journal == *JOURNAL;
    let opened = open(Box::new(SimulatedMedium::with_bytes(&journal)));
    // One that is not whole is a write that was cut short: the one before counts.
    assert_eq!(opened.is_ok(), is_same || !is_whole);
});
