//! Argon2id against published vectors, and what `Debug` may show.

use argon2::{AssociatedData, ParamsBuilder};

use super::*;
use crate::testing::hex;

/// RFC 9106, section 5.3. It uses a secret and associated data, which emdb does not, so it
/// checks the crate below.
#[test]
fn argon2id_agrees_with_its_rfc() {
    let params = ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let algorithm = Algorithm::Argon2id;
    let argon = Argon2::new_with_secret(&[3; 8], algorithm, Version::V0x13, params).unwrap();
    let mut memory = vec![Block::default(); 32];
    let mut key = [0; 32];
    argon
        .hash_password_into_with_memory(&[1; 32], &[2; 16], &mut key, &mut memory)
        .unwrap();
    let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
    assert_eq!(hex(&key), expected);
}

/// From the tests of the reference implementation.
#[test]
fn argon2id_agrees_with_the_reference_implementation() {
    let check = |memory_kib, passes, lanes, expected| {
        let params = KdfParams {
            memory_kib,
            passes,
            lanes,
        };
        let key = argon2id(params, b"password", b"somesalt").unwrap();
        assert_eq!(hex(key.bytes()), expected);
    };
    let expected = "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe";
    check(256, 2, 1, expected);
    let expected = "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037";
    check(256, 2, 2, expected);
    let expected = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7";
    check(65_536, 2, 1, expected);
}

#[test]
fn the_defaults_lie_between_floor_and_ceiling() {
    KdfParams::default().check_floor().unwrap();
    KdfParams::FLOOR.check_floor().unwrap();
}

#[test]
fn debug_shows_no_secret() {
    let raw = EncryptionInput::RawKey([0xa7; 32]);
    let passphrase = EncryptionInput::Passphrase("open sesame".to_owned());
    assert_eq!(format!("{raw:?} {raw:#?}"), "RawKey(..) RawKey(..)");
    assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
}
