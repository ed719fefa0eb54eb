//! The verbs for records that expire.

use std::time::Duration;

use super::Ttl;
use crate::engine::Step;
use crate::{Emdb, Namespace, Result, Transaction, TransactionNamespace};

impl Namespace {
    /// Stores a record that expires, replacing the key's value and its expiry.
    ///
    /// From that moment on no read sees it. It goes on to take up room, and to be counted
    /// by [`len`](Self::len), until [`sweep_expired`](Self::sweep_expired) removes it or
    /// something else takes its place.
    ///
    /// # Durability
    /// As [`insert`](Self::insert); the expiry is part of the record.
    ///
    /// # Errors
    /// [`Error::TtlOverflow`](crate::Error::TtlOverflow) if the time is past what 64 bits of milliseconds hold;
    /// otherwise as [`insert`](Self::insert).
    pub fn insert_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Ttl,
    ) -> Result<()> {
        let expires_at_ms = self.engine.expires_at_ms(ttl)?;
        let value = value.as_ref();
        self.engine
            .put(self.space(), key.as_ref(), "insert_with_ttl", || {
                Step::PutUntil(value, expires_at_ms, ())
            })
    }

    /// When the record expires, in milliseconds since the Unix epoch; `None` if it never
    /// does or is not there. A record that has expired but was not swept yet still tells.
    ///
    /// # Errors
    /// [`Error::Corrupted`](crate::Error::Corrupted) if the record is damaged.
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        self.engine.expiry(self.space(), key.as_ref())
    }

    /// How long the record still lives; `None` if it never expires or is not there, and
    /// zero if it has expired but was not swept yet.
    ///
    /// # Errors
    /// [`Error::Corrupted`](crate::Error::Corrupted) if the record is damaged.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use emdb_engine::{Emdb, Ttl};
    ///
    /// let db = Emdb::open_in_memory();
    /// db.insert_with_ttl("gone", "", Ttl::ExpiresAt(1))?;
    /// assert_eq!(db.get("gone")?, None);
    /// assert_eq!(db.ttl("gone")?, Some(Duration::ZERO));
    /// assert_eq!(db.sweep_expired(), 1);
    /// assert_eq!(db.ttl("gone")?, None);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        let expires_at = self.expires_at(key)?;
        let left = |at: u64| Duration::from_millis(at.saturating_sub(self.engine.clock.now_ms()));
        Ok(expires_at.map(left))
    }

    /// Takes the record's expiry away, so that it lives for ever. Tells whether it had
    /// one; a record that has expired stays expired.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.persist(self.space(), key.as_ref())
    }

    /// Removes the records that have expired, and says how many they were; an error ends
    /// it early and is lost, see [`try_sweep_expired`](Self::try_sweep_expired).
    pub fn sweep_expired(&self) -> usize {
        let mut swept = 0;
        // What was removed before the error is what there is to tell.
        let _ = self.engine.sweep(self.space(), &mut swept);
        swept
    }

    /// Removes the records that have expired, and says how many they were.
    ///
    /// Each removal is an operation of its own: other writers go on meanwhile, and a
    /// value that one of them stores in place of an expired one stays. Looks at every
    /// record, unless none can have expired since the last sweep.
    ///
    /// # Errors
    /// As [`remove`](Self::remove); what was removed before stays removed.
    pub fn try_sweep_expired(&self) -> Result<usize> {
        let mut swept = 0;
        self.engine.sweep(self.space(), &mut swept)?;
        Ok(swept)
    }
}

impl TransactionNamespace<'_> {
    /// Stores a record that expires; as [`Namespace::insert_with_ttl`].
    ///
    /// # Errors
    /// [`Error::TtlOverflow`](crate::Error::TtlOverflow); otherwise as [`insert`](Self::insert).
    pub fn insert_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Ttl,
    ) -> Result<()> {
        let (engine, number, at) = self.parts();
        let expires_at_ms = engine.expires_at_ms(ttl)?;
        engine.put_until_in(number, at, key.as_ref(), value.as_ref(), expires_at_ms)
    }

    /// When the record expires; as [`Namespace::expires_at`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        let (engine, number, at) = self.parts();
        engine.expiry_in(number, at, key.as_ref())
    }

    /// How long the record still lives; as [`Namespace::ttl`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        let (engine, ..) = self.parts();
        let left = |at: u64| Duration::from_millis(at.saturating_sub(engine.clock.now_ms()));
        Ok(self.expires_at(key)?.map(left))
    }

    /// Takes the record's expiry away; as [`Namespace::persist`].
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let (engine, number, at) = self.parts();
        engine.persist_in(number, at, key.as_ref())
    }
}

impl Transaction<'_> {
    /// As [`TransactionNamespace::insert_with_ttl`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::insert_with_ttl`].
    pub fn insert_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Ttl,
    ) -> Result<()> {
        self.root().insert_with_ttl(key, value, ttl)
    }

    /// As [`TransactionNamespace::expires_at`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::expires_at`].
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        self.root().expires_at(key)
    }

    /// As [`TransactionNamespace::ttl`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::ttl`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.root().ttl(key)
    }

    /// As [`TransactionNamespace::persist`], in the default namespace.
    ///
    /// # Errors
    /// As [`TransactionNamespace::persist`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.root().persist(key)
    }
}

impl Emdb {
    /// As [`Namespace::insert_with_ttl`].
    ///
    /// # Errors
    /// As [`Namespace::insert_with_ttl`].
    pub fn insert_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Ttl,
    ) -> Result<()> {
        self.root().insert_with_ttl(key, value, ttl)
    }

    /// As [`Namespace::expires_at`].
    ///
    /// # Errors
    /// As [`Namespace::expires_at`].
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        self.root().expires_at(key)
    }

    /// As [`Namespace::ttl`].
    ///
    /// # Errors
    /// As [`Namespace::ttl`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.root().ttl(key)
    }

    /// As [`Namespace::persist`].
    ///
    /// # Errors
    /// As [`Namespace::persist`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.root().persist(key)
    }

    /// As [`Namespace::sweep_expired`], in the default namespace.
    pub fn sweep_expired(&self) -> usize {
        self.root().sweep_expired()
    }

    /// As [`Namespace::try_sweep_expired`], in the default namespace.
    ///
    /// # Errors
    /// As [`Namespace::try_sweep_expired`].
    pub fn try_sweep_expired(&self) -> Result<usize> {
        self.root().try_sweep_expired()
    }
}
