//! Keys and sealing for a database at rest: what emdb encrypts with.
//!
//! This crate owns how keys are derived, wrapped and wiped, and how nonces are made. It
//! does no I/O, knows no clock and has no unsafe code. It promises that a secret never
//! shows in `Debug` or in an error, that no input makes it panic, and that what fails to
//! authenticate is never handed out.
//!
//! The parts, from the secret that a user has to the bytes on disk:
//!
//! - A [`MasterKey`] is random and belongs to one database for its life.
//! - A [`KeySlot`] stores it, wrapped by the user's [`EncryptionInput`]. It commits to the
//!   one input that opens it: a wrong one is [`Error::KeyMismatch`], never anything else.
//! - An [`EpochKey`] is derived from the master key and a random salt, and seals what has
//!   one nonce each: frames, whose nonce is their own LSN, or the parts of a checkpoint.
//! - A [`HeaderKey`] authenticates the header, which stays readable.
//!
//! # Examples
//!
//! ```
//! use emdb_crypto::{Cipher, EncryptionInput, Epoch, KdfParams, KeySlot, MasterKey, Purpose};
//!
//! let (cipher, database_id) = (Cipher::Aes256Gcm, [7; 16]);
//! let secret = EncryptionInput::RawKey([42; 32]); // Random, in earnest.
//! let master = MasterKey::generate()?;
//! let slot = KeySlot::wrap(&master, &secret, cipher, KdfParams::default(), &database_id)?;
//! let stored: [u8; KeySlot::BYTES] = slot.to_bytes();
//!
//! // Later, from the stored bytes and the secret:
//! let slot = KeySlot::from_bytes(&stored)?.ok_or("an empty slot")?;
//! let master = slot.unwrap_key(&secret, cipher, &database_id)?;
//! let epoch = Epoch {
//!     cipher,
//!     purpose: Purpose::Frames,
//!     salt: emdb_crypto::random_salt()?,
//!     first_nonce: 16_384,
//! };
//! let key = master.epoch(&epoch, b"context");
//! let mut bytes = *b"attack at dawn";
//! let tag = key.seal_in_place(16_400, b"in the clear", &mut bytes)?;
//! assert_ne!(&bytes, b"attack at dawn");
//! key.open_in_place(16_400, b"in the clear", &mut bytes, &tag)?;
//! assert_eq!(&bytes, b"attack at dawn");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod aead;
#[cfg(feature = "audit")]
pub mod audit;
mod epoch;
mod error;
mod kdf;
mod key;
mod keyslot;
#[cfg(test)]
mod testing;

pub use aead::{Cipher, TAG_LEN};
pub use epoch::{Epoch, EpochKey, MAX_BYTES_PER_EPOCH, MAX_FRAMES_PER_EPOCH, Purpose, SALT_LEN};
pub use error::Error;
pub use kdf::{EncryptionInput, Kdf, KdfParams};
pub use key::{HeaderKey, MasterKey, random_salt};
pub use keyslot::KeySlot;
