//! The nonce auditor sees every seal of the process.
#![cfg(feature = "audit")]

use emdb_crypto::{Cipher, Epoch, MasterKey, Purpose, audit};

#[test]
fn a_nonce_used_twice_with_a_key_is_found_and_only_that() {
    let master = MasterKey::generate().unwrap();
    let epoch = |salt| Epoch {
        cipher: Cipher::Aes256Gcm,
        purpose: Purpose::Frames,
        salt: [salt; 16],
        first_nonce: 0,
    };
    let keys = [1, 2].map(|salt| master.epoch(&epoch(salt), b""));
    for key in &keys {
        for nonce in 0..10 {
            key.seal_in_place(nonce, b"", &mut [0; 3]).unwrap();
        }
    }
    assert_eq!(audit::pairs(), 20);
    assert!(audit::repeated().is_empty());

    // The same key, derived again, and the same bytes: still a repetition.
    let again = master.epoch(&epoch(1), b"");
    again.seal_in_place(3, b"", &mut [0; 3]).unwrap();
    assert_eq!(audit::pairs(), 20);
    let repeated: Vec<u64> = audit::repeated().iter().map(|(_, nonce)| *nonce).collect();
    assert_eq!(repeated, [3]);
}
