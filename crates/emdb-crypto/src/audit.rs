//! The nonce auditor: what every [`EpochKey`](crate::EpochKey) of this process has sealed.
//!
//! For tests only. It remembers every key and nonce and takes a lock for each seal.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::aead::Cipher;
use crate::key::{Secret, hkdf};

/// Names a key without telling it: two keys have the same name only if they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl KeyId {
    pub(crate) fn of(cipher: Cipher, key: &Secret) -> Self {
        let name = hkdf(key.bytes(), &[], &[b"emdb audit\0", &[cipher.to_byte()]]);
        let (id, _) = name.bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(*id)
    }
}

/// How often each key and nonce have sealed.
static SEALS: Mutex<Option<HashMap<(KeyId, u64), u64>>> = Mutex::new(None);

pub(crate) fn record(key: KeyId, nonce: u64) {
    let mut seals = lock();
    let seals = seals.get_or_insert_default();
    *seals.entry((key, nonce)).or_default() += 1;
}

/// How many different pairs of key and nonce have sealed in this process.
pub fn pairs() -> usize {
    lock().as_ref().map_or(0, HashMap::len)
}

/// The pairs of key and nonce that have sealed more than once, sorted. Must be empty.
pub fn repeated() -> Vec<(KeyId, u64)> {
    let seals = lock();
    let mut repeated: Vec<_> = seals
        .iter()
        .flatten()
        .filter(|(_, count)| **count > 1)
        .map(|(pair, _)| *pair)
        .collect();
    repeated.sort_unstable();
    repeated
}

fn lock() -> MutexGuard<'static, Option<HashMap<(KeyId, u64), u64>>> {
    SEALS.lock().unwrap_or_else(PoisonError::into_inner)
}
