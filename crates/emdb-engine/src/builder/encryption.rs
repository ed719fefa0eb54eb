//! The builder's options for encryption at rest.

use emdb_journal::{Cipher, Encryption, EncryptionInput, Medium, Opening, Options};

use super::EmdbBuilder;
use crate::{Error, Result};

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    key: Option<EncryptionInput>,
    passphrase: Option<EncryptionInput>,
    cipher: Option<Cipher>,
}

impl Wanted {
    pub(super) fn check(&self) -> Result<()> {
        let reason = match (&self.key, &self.passphrase, self.cipher) {
            (Some(_), Some(_), _) => "encryption_key excludes encryption_passphrase",
            (None, None, Some(_)) => "cipher needs encryption_key or encryption_passphrase",
            _ => return Ok(()),
        };
        Err(Error::InvalidConfig(reason.to_owned()))
    }

    fn encryption(&self) -> Option<Encryption> {
        let input = self.key.as_ref().or(self.passphrase.as_ref())?;
        let cipher = self.cipher.unwrap_or_default();
        Some(Encryption::new(input.clone()).cipher(cipher))
    }
}

impl EmdbBuilder {
    /// The key of an encrypted database: 32 bytes from a random generator or a key store,
    /// never a password. A database that does not exist yet, or is an empty file, is
    /// created encrypted.
    ///
    /// # Errors
    /// [`build`](Self::build) returns [`Error::EncryptionKeyMismatch`] for another key than
    /// the database's, and [`Error::EncryptionError`] if the database is not encrypted.
    /// Nothing is written then.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::{Emdb, Error};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("data.emdb");
    /// let key = [42; 32]; // Random, in earnest.
    /// let db = Emdb::builder().path(&path).encryption_key(key).build()?;
    /// db.insert("name", "ada")?;
    /// drop(db);
    ///
    /// let wrong = Emdb::builder().path(&path).encryption_key([43; 32]).build();
    /// assert!(matches!(wrong, Err(Error::EncryptionKeyMismatch)));
    /// let db = Emdb::builder().path(&path).encryption_key(key).build()?;
    /// assert_eq!(db.get("name")?.as_deref(), Some(&b"ada"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn encryption_key(mut self, key: [u8; 32]) -> Self {
        self.encryption.key = Some(EncryptionInput::RawKey(key));
        self
    }

    /// The passphrase of an encrypted database; as [`encryption_key`](Self::encryption_key).
    /// Each opening derives a key from it, which takes 64 MiB of memory and a good part of a
    /// second by intention: whoever guesses pays it for each guess.
    ///
    /// # Errors
    /// As [`encryption_key`](Self::encryption_key); [`Error::EncryptionError`] for an empty
    /// passphrase.
    #[must_use]
    pub fn encryption_passphrase(mut self, passphrase: impl Into<String>) -> Self {
        self.encryption.passphrase = Some(EncryptionInput::Passphrase(passphrase.into()));
        self
    }

    /// The cipher of a new encrypted database; AES-256-GCM by default. One that exists keeps
    /// the cipher it has.
    ///
    /// # Errors
    /// [`build`](Self::build) returns [`Error::InvalidConfig`] without a key or passphrase.
    #[must_use]
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.encryption.cipher = Some(cipher);
        self
    }

    pub(super) fn opening(&self, medium: Box<dyn Medium>, options: Options) -> Result<Opening> {
        Ok(match self.encryption.encryption() {
            Some(encryption) => Opening::new_encrypted(medium, options, &encryption)?,
            None => Opening::new(medium, options)?,
        })
    }
}
