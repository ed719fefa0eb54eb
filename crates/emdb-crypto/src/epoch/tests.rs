//! What the key of an epoch promises.

use super::*;
use crate::key::MasterKey;
use crate::testing::hex;

const EPOCH: Epoch = Epoch {
    cipher: Cipher::Aes256Gcm,
    purpose: Purpose::Frames,
    salt: [3; SALT_LEN],
    first_nonce: 16_384,
};

fn master() -> MasterKey {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(0..).for_each(|(to, from)| *to = from);
    MasterKey::known(bytes)
}

/// The bytes come from another implementation of the construction, not from this one.
#[test]
fn the_key_of_an_epoch_never_changes() {
    let check = |cipher, purpose, expected| {
        let epoch = Epoch {
            cipher,
            purpose,
            ..EPOCH
        };
        let mut buf = *b"plaintext";
        let key = master().epoch(&epoch, b"context");
        let tag = key.seal_in_place(16_400, b"aad", &mut buf).unwrap();
        assert_eq!(hex(&buf) + &hex(&tag), expected);
    };
    let (aes, chacha) = (Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305);
    let expected = "3fb74fb31093f0f5d5239f7057698e8eebb2bf61f6decfb924";
    check(aes, Purpose::Frames, expected);
    let expected = "c7bb0f2862667b6adbedc4b07505eda1b524cbde72d05a0ff2";
    check(aes, Purpose::Checkpoint, expected);
    let expected = "a001f9765452681f16c645301fbe5c4168ef54a2719baddf7f";
    check(chacha, Purpose::Frames, expected);
    let expected = "8c8ba347432864656b79dc8274e3a13ca88fc70fce0d8d326e";
    check(chacha, Purpose::Checkpoint, expected);
}

#[test]
fn nothing_opens_in_another_epoch_or_place() {
    let mut sealed = *b"plaintext";
    let key = master().epoch(&EPOCH, b"context");
    let tag = key.seal_in_place(20_000, b"aad", &mut sealed).unwrap();
    let open = |epoch: &Epoch, context: &[u8], nonce, aad: &[u8]| {
        let mut buf = sealed;
        let key = master().epoch(epoch, context);
        key.open_in_place(nonce, aad, &mut buf, &tag).is_ok()
    };
    assert!(open(&EPOCH, b"context", 20_000, b"aad"));
    assert!(!open(&EPOCH, b"context", 20_001, b"aad"));
    assert!(!open(&EPOCH, b"context", 20_000, b"aae"));
    assert!(!open(&EPOCH, b"contexs", 20_000, b"aad"));
    let mut salt = EPOCH.salt;
    salt[15] ^= 1;
    for other in [
        Epoch { salt, ..EPOCH },
        Epoch {
            cipher: Cipher::ChaCha20Poly1305,
            ..EPOCH
        },
        Epoch {
            purpose: Purpose::Checkpoint,
            ..EPOCH
        },
        Epoch {
            first_nonce: 16_385,
            ..EPOCH
        },
    ] {
        assert!(!open(&other, b"context", 20_000, b"aad"), "{other:?}");
    }
    let another = MasterKey::generate().unwrap().epoch(&EPOCH, b"context");
    assert!(
        another
            .open_in_place(20_000, b"aad", &mut sealed, &tag)
            .is_err()
    );
}

#[test]
fn an_epoch_seals_nothing_before_its_beginning_or_beyond_its_limit() {
    let key = master().epoch(&EPOCH, b"");
    let seal = |nonce| {
        let mut buf = [1; 4];
        let sealed = key.seal_in_place(nonce, b"", &mut buf);
        match sealed {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error, Error::EpochExhausted));
                assert_eq!(buf, [1; 4]);
                false
            }
        }
    };
    assert!(!seal(0) && !seal(16_383) && seal(16_384));
    assert!(seal(16_384 + MAX_BYTES_PER_EPOCH - 1));
    assert!(!seal(16_384 + MAX_BYTES_PER_EPOCH) && !seal(u64::MAX));
    let last = Epoch {
        first_nonce: u64::MAX,
        ..EPOCH
    };
    let sealed = master()
        .epoch(&last, b"")
        .seal_in_place(u64::MAX, b"", &mut []);
    assert!(sealed.is_ok());
}

#[test]
fn the_nonce_is_the_number_behind_four_zeros() {
    let nonce = nonce_bytes(0x0807_0605_0403_0201);
    assert_eq!(nonce, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn open_into_appends_what_was_sealed_or_nothing() {
    let key = master().epoch(&EPOCH, b"");
    let mut sealed = *b"plaintext";
    let tag = key.seal_in_place(20_000, b"", &mut sealed).unwrap();
    let mut out = b"before ".to_vec();
    let wrong = key.open_into(20_001, b"", &sealed, &tag, &mut out);
    assert!(matches!(wrong, Err(Error::Damaged)));
    assert_eq!(out, b"before ");
    key.open_into(20_000, b"", &sealed, &tag, &mut out).unwrap();
    assert_eq!(out, b"before plaintext");
}

#[test]
fn debug_shows_no_key() {
    let key = master().epoch(&EPOCH, b"");
    assert_eq!(format!("{key:?} {key:#?}"), "EpochKey(..) EpochKey(..)");
}
