//! Has a test run with encrypted databases, too, where the feature is on.

use std::cell::Cell;

use emdb::{Emdb, EmdbBuilder};

thread_local! {
    static ENCRYPTED: Cell<bool> = const { Cell::new(false) };
}

/// Ends what [`encrypt`] began.
#[must_use]
pub(crate) struct Encrypted;

impl Drop for Encrypted {
    fn drop(&mut self) {
        ENCRYPTED.set(false);
    }
}

/// As long as the guard lives, what this thread opens through [`builder`] is encrypted, or
/// is not.
pub(crate) fn encrypt(encrypted: bool) -> Encrypted {
    ENCRYPTED.set(encrypted);
    Encrypted
}

/// A builder, with a key if this thread's databases are encrypted.
pub(crate) fn builder() -> EmdbBuilder {
    #[cfg(feature = "encrypt")]
    if ENCRYPTED.get() {
        return Emdb::builder().encryption_key([0x7e; 32]);
    }
    Emdb::builder()
}
