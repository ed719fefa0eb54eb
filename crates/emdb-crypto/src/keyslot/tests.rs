//! What a slot promises: the right input opens it, and nothing else does.

use proptest::prelude::*;

use super::*;
use crate::testing::array;

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
                // From 64 to 512 MiB: allowed, and mismatches too, but too slow to try here.
                if kdf == CHEAP && (48..52).contains(&bit) {
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

/// The bytes come from another implementation of the construction, not from this one.
#[test]
fn the_bytes_of_a_slot_never_change() {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(0..).for_each(|(to, from)| *to = from);
    let (master, id) = (
        MasterKey::known(bytes),
        array("101112131415161718191a1b1c1d1e1f"),
    );
    let check = |kdf, input: &EncryptionInput, cipher, expected: &str| {
        let slot = KeySlot::wrap_with(&master, input, cipher, kdf, [9; 16], &id).unwrap();
        assert_eq!(slot.to_bytes(), array(expected));
        let stored = KeySlot::from_bytes(&array(expected)).unwrap().unwrap();
        let opened = stored.unwrap_key(input, cipher, &id).unwrap();
        assert!(same(&opened, &master));
    };
    let [(hkdf, key), (argon, passphrase)] = inputs();
    check(
        hkdf,
        &key,
        Cipher::Aes256Gcm,
        "01000000000000000000000000000000 09090909090909090909090909090909
         08f3adfde5f10a3fec66b0cf4b17e9bb48b9526ec2a68cd6d9e82f02d6eeb2d3
         23ab67057954270b28e0cca60277d7739494cbb45e6888faa8c5cfb43a917a21
         e84bf76c5273c56fa77aa4b4a241aec5",
    );
    check(
        hkdf,
        &key,
        Cipher::ChaCha20Poly1305,
        "01000000000000000000000000000000 09090909090909090909090909090909
         27fa62d776798d00cb87cf39dccbf683ce6b8a72abc08c3795c11229df3310f4
         651377a280749ecb45b860914c3d6cad3c919769b07df92a9dc7da5cb568f0a9
         07146ee0a9fb7d6fbbabe4f11b3b1d07",
    );
    check(
        argon,
        &passphrase,
        Cipher::Aes256Gcm,
        "02000000200000000100000002000000 09090909090909090909090909090909
         6d40b696f4a5609382bc9be09fbff6779eafb4074dc2e42355b3054699c60252
         68cce0393580787586b31bc54f1973e7aa2e863954a7b4981f59cf11abe92575
         abc1d4d92041b61fd16d700331af8f40",
    );
    check(
        argon,
        &passphrase,
        Cipher::ChaCha20Poly1305,
        "02000000200000000100000002000000 09090909090909090909090909090909
         7fcaf5f097828b57687e7b45524e7e7ad05bf5c03b7f3b282df1ed75dfa9a5b8
         9e83aa591ccee03ede1e06b4340c691bee51be3ac7bf4c11978d4ffe4cbc4506
         8f3fd2f6db38145d3df0ff9aa780b7d4",
    );
}

proptest! {
    #[test]
    fn garbage_opens_nothing_and_never_panics(bytes: [u8; 64], kdf in 0_u8..4) {
        let mut slot = [0; KeySlot::BYTES];
        slot[48..].copy_from_slice(&bytes);
        slot[0] = kdf;
        if let Ok(Some(slot)) = KeySlot::from_bytes(&slot) {
            prop_assert!(slot.unwrap_key(&raw(1), Cipher::Aes256Gcm, &ID).is_err());
        }
    }

    #[test]
    fn bytes_that_are_read_are_written_back(bytes: [[u8; 16]; 7], kdf in 0_u8..3) {
        let mut bytes: [u8; KeySlot::BYTES] = bytes.concat().try_into().unwrap();
        bytes[..4].copy_from_slice(&[kdf, 0, 0, 0]);
        if kdf == 1 {
            bytes[4..16].fill(0);
        }
        let slot = KeySlot::from_bytes(&bytes);
        prop_assert_eq!(slot.is_ok(), kdf > 0);
        if let Ok(Some(slot)) = slot {
            prop_assert_eq!(slot.to_bytes(), bytes);
        }
    }
}
