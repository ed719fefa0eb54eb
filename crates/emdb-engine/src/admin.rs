//! Encrypting, decrypting and changing keys of a database that nobody has open.
//!
//! All but a change of the passphrase write the database anew beside the old one, and put it
//! in the old one's place in one step. Until then the old one is only read.

use std::fs;
use std::path::Path;

use emdb_journal::{
    Cipher, Encryption, EncryptionInput, FileMedium, Journal, Medium, OpenMode, Opening, Options,
    Place,
};

use crate::engine::{self, EngineOptions, Extent, Handle, Step};
use crate::iter::{Stand, Walk};
use crate::space::Space;
use crate::{Emdb, Error, Result, VerifyReads};

/// How far writing a database anew has come; see [`Emdb::rotate_encryption_key_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RewriteProgress {
    /// So many records of so many are copied.
    Copied {
        /// Records copied.
        records: u64,
        /// Records in all.
        of: u64,
    },
    /// The copy is whole, and survives power loss.
    Synced,
    /// The old file has its second name, `<path>.encbak`.
    BackedUp,
    /// The new file is in the old one's place.
    Replaced,
    /// Its checkpoint, too; nothing is left to do.
    Done,
}

impl Emdb {
    /// Encrypts a database with a key or a passphrase, and AES-256-GCM.
    ///
    /// Every record is written anew, which takes time and room in proportion to what is
    /// stored; the old file stays as `<path>.encbak`, **with all its plaintext**: remove it
    /// once you have seen that the new one opens. What had expired is left out. Holds the
    /// lock throughout; nobody else can have the database open.
    ///
    /// # Durability
    /// Survives power loss once it returns. A crash or an error meanwhile leaves the database
    /// as it was, or encrypted whole; what else it left is removed when the database is next
    /// opened for writing.
    ///
    /// # Errors
    /// [`Error::AlreadyLocked`] while the database is open; [`Error::EncryptionError`] if it
    /// is encrypted already, or for an empty passphrase; [`Error::Corrupted`] if a record is
    /// damaged; [`Error::Io`] if there is no such file, or no room for the new one.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::{Emdb, EncryptionInput};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("data.emdb");
    /// Emdb::open(&path)?.insert("name", "ada")?;
    ///
    /// let key = [42; 32]; // Random, in earnest.
    /// Emdb::enable_encryption(&path, EncryptionInput::RawKey(key))?;
    /// assert!(Emdb::open(&path).is_err());
    /// let db = Emdb::builder().path(&path).encryption_key(key).build()?;
    /// assert_eq!(db.get("name")?.as_deref(), Some(&b"ada"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enable_encryption(path: impl AsRef<Path>, target: EncryptionInput) -> Result<()> {
        Self::enable_encryption_with(path, target, Cipher::default(), |_| {})
    }

    /// As [`enable_encryption`](Self::enable_encryption), with a cipher, and telling how far
    /// it has come.
    ///
    /// # Errors
    /// As [`enable_encryption`](Self::enable_encryption).
    pub fn enable_encryption_with(
        path: impl AsRef<Path>,
        target: EncryptionInput,
        cipher: Cipher,
        progress: impl FnMut(RewriteProgress),
    ) -> Result<()> {
        let target = Encryption::new(target).cipher(cipher);
        rewrite(path.as_ref(), None, |_| Some(target), progress)
    }

    /// Decrypts a database; otherwise as [`enable_encryption`](Self::enable_encryption).
    ///
    /// # Errors
    /// As [`enable_encryption`](Self::enable_encryption); [`Error::EncryptionKeyMismatch`] for
    /// another key or passphrase than the database's.
    pub fn disable_encryption(path: impl AsRef<Path>, current: EncryptionInput) -> Result<()> {
        Self::disable_encryption_with(path, current, |_| {})
    }

    /// As [`disable_encryption`](Self::disable_encryption), telling how far it has come.
    ///
    /// # Errors
    /// As [`disable_encryption`](Self::disable_encryption).
    pub fn disable_encryption_with(
        path: impl AsRef<Path>,
        current: EncryptionInput,
        progress: impl FnMut(RewriteProgress),
    ) -> Result<()> {
        let current = Encryption::new(current);
        rewrite(path.as_ref(), Some(&current), |_| None, progress)
    }

    /// Encrypts everything anew under a new master key, which another key or passphrase (or
    /// the same) opens; otherwise as [`enable_encryption`](Self::enable_encryption). The
    /// cipher stays. The old key still opens `<path>.encbak`.
    ///
    /// # Errors
    /// As [`disable_encryption`](Self::disable_encryption).
    pub fn rotate_encryption_key(
        path: impl AsRef<Path>,
        current: EncryptionInput,
        new: EncryptionInput,
    ) -> Result<()> {
        Self::rotate_encryption_key_with(path, current, new, |_| {})
    }

    /// As [`rotate_encryption_key`](Self::rotate_encryption_key), telling how far it has come.
    ///
    /// # Errors
    /// As [`rotate_encryption_key`](Self::rotate_encryption_key).
    pub fn rotate_encryption_key_with(
        path: impl AsRef<Path>,
        current: EncryptionInput,
        new: EncryptionInput,
        progress: impl FnMut(RewriteProgress),
    ) -> Result<()> {
        let current = Encryption::new(current);
        let target = |journal: &Journal| {
            let cipher = journal.cipher().unwrap_or_default();
            Some(Encryption::new(new).cipher(cipher))
        };
        rewrite(path.as_ref(), Some(&current), target, progress)
    }

    /// Has another key or passphrase open a database, and the present one no longer. Only
    /// the header is written, whatever the size.
    ///
    /// The data stays encrypted with the same master key: who has an older copy of the file
    /// and the old passphrase has that key, and can read what is written later, too. If the
    /// old passphrase is known to others, use
    /// [`rotate_encryption_key`](Self::rotate_encryption_key).
    ///
    /// # Durability
    /// Survives power loss once it returns. A crash meanwhile leaves the old one or the new
    /// one working.
    ///
    /// # Errors
    /// As [`disable_encryption`](Self::disable_encryption).
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::{Emdb, EncryptionInput};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("data.emdb");
    /// let key = [42; 32];
    /// drop(Emdb::builder().path(&path).encryption_key(key).build()?);
    /// Emdb::change_passphrase(
    ///     &path,
    ///     EncryptionInput::RawKey(key),
    ///     EncryptionInput::RawKey([43; 32]),
    /// )?;
    /// assert!(Emdb::builder().path(&path).encryption_key(key).build().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn change_passphrase(
        path: impl AsRef<Path>,
        current: EncryptionInput,
        new: EncryptionInput,
    ) -> Result<()> {
        let medium = open_file(path.as_ref())?;
        let current = Encryption::new(current);
        let mut opening = Opening::new_encrypted(Box::new(medium), Options::default(), &current)?;
        Ok(opening.change_key(&Encryption::new(new))?)
    }
}

/// Opens and locks a file that must exist.
fn open_file(path: &Path) -> Result<FileMedium> {
    let found = fs::metadata(path).map_err(|error| {
        let message = format!("open {}: {error}", path.display());
        std::io::Error::new(error.kind(), message)
    })?;
    if found.is_file() && found.len() == 0 {
        let reason = "the file is empty; open it with the key to make it an encrypted database";
        return Err(Error::EncryptionError(reason.to_owned()));
    }
    Ok(FileMedium::open(path, OpenMode::Create)?)
}

fn opening(
    medium: FileMedium,
    options: Options,
    encryption: Option<&Encryption>,
) -> Result<Opening> {
    let medium = Box::new(medium);
    Ok(match encryption {
        Some(encryption) => Opening::new_encrypted(medium, options, encryption)?,
        None => Opening::new(medium, options)?,
    })
}

fn options(read_only: bool) -> EngineOptions {
    EngineOptions {
        verify_reads: VerifyReads::Always,
        checkpoint_bytes: Some(u64::MAX),
        sync_every: None,
        sweep_every: None,
        default_ttl: None,
        range_scans: false,
        time_source: None,
        read_only,
    }
}

/// Writes the database anew, and puts it in the place of the old one.
fn rewrite(
    path: &Path,
    current: Option<&Encryption>,
    target: impl FnOnce(&Journal) -> Option<Encryption>,
    mut progress: impl FnMut(RewriteProgress),
) -> Result<()> {
    let medium = open_file(path)?;
    let path = medium.path().to_owned();
    // Locked for writing, and never written.
    let journal_options = Options::default().read_only(true);
    let opening = opening(medium, journal_options, current)?;
    let old = engine::open(opening, options(true))?;
    let target = target(&old.journal);

    let new_path = beside(&path, ".new");
    emdb_journal::remove_unfinished(&path, &old.journal.header())?;
    let medium = FileMedium::open(&new_path, OpenMode::Create)?;
    let opening = Opening::successor(
        Box::new(medium),
        Options::default(),
        target.as_ref(),
        &old.journal,
    );
    let written = opening.map_err(Error::from).and_then(|opening| {
        let new = engine::open(opening, options(false))?;
        copy(&old, &new, &mut progress)?;
        new.checkpoint()?;
        new.flush()?;
        progress(RewriteProgress::Synced);
        Ok(new)
    });
    let new = match written {
        Ok(new) => new,
        Err(error) => {
            // If it cannot be removed, the next opening tries again.
            let _ = emdb_journal::remove_unfinished(&path, &old.journal.header());
            return Err(error);
        }
    };
    emdb_journal::put_in_place(&path, &mut |place| {
        progress(match place {
            Place::BackedUp => RewriteProgress::BackedUp,
            Place::Replaced => RewriteProgress::Replaced,
            _ => RewriteProgress::Done,
        });
    })?;
    // Its note goes while the new file is still locked.
    drop(old);
    new.close()
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies every namespace.
fn copy(old: &Handle, new: &Handle, progress: &mut impl FnMut(RewriteProgress)) -> Result<()> {
    const STEP: u64 = 10_000;
    let spaces = old.spaces();
    let of: u64 = spaces.iter().map(|space| space.records()).sum();
    let mut records = 0;
    progress(RewriteProgress::Copied { records, of });
    for space in spaces {
        let target = match space.name.as_str() {
            "" => std::sync::Arc::clone(&new.root),
            name => new.create_space(name)?,
        };
        let mut walk = Walk::new(Stand::now(old, &space)?, Extent::Whole);
        let mut copied = 0;
        while let Some(stored) = walk.next(|frame| {
            new.change(&target, frame.key, "rewrite", |_| {
                Step::PutUntil(frame.value, frame.expires_at_ms, ())
            })
        })? {
            stored?;
            copied += 1;
            records += 1;
            if records % STEP == 0 {
                progress(RewriteProgress::Copied { records, of });
            }
        }
        check_count(&target, copied)?;
    }
    progress(RewriteProgress::Copied {
        records,
        of: records,
    });
    Ok(())
}

/// Whether all that was read is there.
fn check_count(space: &Space, copied: u64) -> Result<()> {
    if space.records() == copied {
        Ok(())
    } else {
        Err(Error::corrupted(0, "a key was there more than once"))
    }
}
