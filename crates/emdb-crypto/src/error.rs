//! What can go wrong with keys and sealed bytes.

use std::io;

/// Why a key, a key slot or sealed bytes were refused. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key or passphrase is not the one that the slot was made with, or the slot was
    /// changed or moved to another database, which cannot be told from it.
    #[error("the key or passphrase does not match")]
    KeyMismatch,
    /// Sealed bytes, or what is authenticated with them, are not as they were sealed.
    #[error("authentication failed")]
    Damaged,
    /// Stored bytes name a cipher or a key derivation that this version does not know.
    #[error("{what} {id} is not supported")]
    Unsupported {
        /// What is not known.
        what: &'static str,
        /// Its number in the file.
        id: u8,
    },
    /// Parameters of the key derivation, or an input, that are not accepted.
    #[error("{0}")]
    InvalidParams(&'static str),
    /// A nonce outside of its epoch, or more bytes than one nonce may seal: start a new epoch.
    #[error("the limits of an epoch are reached")]
    EpochExhausted,
    /// The system gave no random bytes, or no memory for the key derivation.
    #[error("{attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
