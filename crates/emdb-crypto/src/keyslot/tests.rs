//! What a slot promises: the right input opens it, and nothing else does.

use super::*;

const ID: [u8; 16] = [7; 16];
const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
/// Below the floor, so that tests can afford it.
const CHEAP: Kdf = Kdf::Argon2id(KdfParams {
    memory_kib: 32,
    passes: 1,
    lanes: 2,
});

fn raw(byte: u8) -> EncryptionInput {
    EncryptionInput::RawKey([byte; 32])
}

fn passphrase(text: &str) -> EncryptionInput {
    EncryptionInput::Passphrase(text.to_owned())
}

fn same(a: &MasterKey, b: &MasterKey) -> bool {
    a.header().authenticate(b"x") == b.header().authenticate(b"x")
}

fn inputs() -> [(Kdf, EncryptionInput); 2] {
    [(Kdf::Hkdf, raw(1)), (CHEAP, passphrase("correct horse"))]
}

fn slot(kdf: Kdf, input: &EncryptionInput, cipher: Cipher) -> (MasterKey, KeySlot) {
    let master = MasterKey::generate().unwrap();
    let slot = KeySlot::wrap_with(&master, input, cipher, kdf, [9; 16], &ID).unwrap();
    (master, slot)
}

#[test]
fn the_right_input_opens_a_stored_slot() {
    for cipher in CIPHERS {
        for (kdf, input) in inputs() {
            let (master, slot) = slot(kdf, &input, cipher);
            let stored = KeySlot::from_bytes(&slot.to_bytes()).unwrap().unwrap();
            assert_eq!(stored, slot);
            assert_eq!(stored.kdf(), kdf);
            let opened = stored.unwrap_key(&input, cipher, &ID).unwrap();
            assert!(same(&opened, &master));
        }
    }
}

#[test]
fn any_other_input_cipher_or_database_is_a_mismatch() {
    for (kdf, input) in inputs() {
        let (_, slot) = slot(kdf, &input, Cipher::Aes256Gcm);
        let check = |input: &EncryptionInput, cipher, id| {
            let opened = slot.unwrap_key(input, cipher, &id);
            assert!(matches!(opened, Err(Error::KeyMismatch)));
        };
        check(&raw(2), Cipher::Aes256Gcm, ID);
        check(&passphrase("correct horsf"), Cipher::Aes256Gcm, ID);
        check(&passphrase(""), Cipher::Aes256Gcm, ID);
        check(&input, Cipher::ChaCha20Poly1305, ID);
        check(&input, Cipher::Aes256Gcm, [8; 16]);
    }
}

#[test]
fn a_slot_with_any_flipped_bit_opens_nothing() {
    for cipher in CIPHERS {
        for (kdf, input) in inputs() {
            let (_, slot) = slot(kdf, &input, cipher);
            let bytes = slot.to_bytes();
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes;
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Parameters that a test cannot afford are not derived with.
                if kdf == CHEAP && (4..16).contains(&(bit / 8)) && bit / 8 % 4 > 0 {
                    continue;
                }
                let opened = KeySlot::from_bytes(&bytes)
                    .map(|slot| slot.map(|slot| slot.unwrap_key(&input, cipher, &ID)));
                let refused = match opened {
                    Err(_) | Ok(Some(Err(_))) => true,
                    Ok(None | Some(Ok(_))) => false,
                };
                assert!(refused, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_changed_wrapped_key_is_damage_and_no_mismatch() {
    let (_, slot) = slot(Kdf::Hkdf, &raw(1), Cipher::Aes256Gcm);
    for at in 64..KeySlot::BYTES {
        let mut bytes = slot.to_bytes();
        bytes[at] ^= 1;
        let slot = KeySlot::from_bytes(&bytes).unwrap().unwrap();
        let opened = slot.unwrap_key(&raw(1), Cipher::Aes256Gcm, &ID);
        assert!(matches!(opened, Err(Error::Damaged)), "byte {at}");
    }
}

#[test]
fn a_new_slot_is_not_made_below_the_floor_above_the_ceiling_or_without_a_passphrase() {
    let master = MasterKey::generate().unwrap();
    let check = |text: &str, params| {
        let input = passphrase(text);
        let made = KeySlot::wrap(&master, &input, Cipher::default(), params, &ID);
        assert!(matches!(made, Err(Error::InvalidParams(_))), "{params:?}");
    };
    let (floor, ceiling) = (KdfParams::FLOOR, KdfParams::CEILING);
    check("", floor);
    for params in [
        KdfParams {
            memory_kib: floor.memory_kib - 1,
            ..floor
        },
        KdfParams { passes: 1, ..floor },
        KdfParams { lanes: 0, ..floor },
        KdfParams {
            memory_kib: ceiling.memory_kib + 1,
            ..floor
        },
        KdfParams {
            passes: ceiling.passes + 1,
            ..floor
        },
        KdfParams {
            lanes: ceiling.lanes + 1,
            ..floor
        },
        ceiling,
    ] {
        check("secret", params);
    }
}

#[test]
fn a_crafted_slot_cannot_ask_for_a_terabyte_or_for_hours() {
    let (_, slot) = slot(CHEAP, &passphrase("secret"), Cipher::Aes256Gcm);
    for (at, value) in [
        (4, u32::MAX),
        (4, (1 << 20) + 1),
        (4, 0),
        (4, 7),
        (8, u32::MAX),
        (8, 65),
        (8, 0),
        (12, u32::MAX),
        (12, 65),
        (12, 0),
    ] {
        let mut bytes = slot.to_bytes();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let slot = KeySlot::from_bytes(&bytes).unwrap().unwrap();
        let opened = slot.unwrap_key(&passphrase("secret"), Cipher::Aes256Gcm, &ID);
        assert!(
            matches!(opened, Err(Error::InvalidParams(_))),
            "{value} at {at}"
        );
    }
}

#[test]
fn an_unknown_key_derivation_is_told_from_damage() {
    let (_, slot) = slot(Kdf::Hkdf, &raw(1), Cipher::Aes256Gcm);
    let read = |at: usize, value: u8| {
        let mut bytes = slot.to_bytes();
        bytes[at] = value;
        KeySlot::from_bytes(&bytes)
    };
    assert!(matches!(read(0, 3), Err(Error::Unsupported { id: 3, .. })));
    assert!(matches!(read(0, 0), Err(Error::Damaged)));
    assert!(matches!(read(1, 1), Err(Error::Damaged)));
    assert!(matches!(read(4, 1), Err(Error::Damaged)));
    assert!(matches!(KeySlot::from_bytes(&[0; 112]), Ok(None)));
}

#[test]
fn two_slots_of_the_same_key_have_nothing_in_common() {
    let master = MasterKey::generate().unwrap();
    let wrap = || {
        let params = KdfParams::default();
        KeySlot::wrap(&master, &raw(1), Cipher::Aes256Gcm, params, &ID).unwrap()
    };
    let (a, b) = (wrap(), wrap());
    assert_ne!(a.salt, b.salt);
    assert_ne!(a.commitment, b.commitment);
    assert_ne!(a.sealed, b.sealed);
}
