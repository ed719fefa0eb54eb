//! Transactions: many changes that happen all at once, or not at all.

use crate::engine::{Handle, OpenBatch, Patience};
use crate::{Emdb, Result};

mod namespace;
mod verbs;

pub use namespace::TransactionNamespace;

/// Changes that others see all at once, or never.
///
/// It holds the write side: every other writer, and every other transaction, waits
/// until it ends. Readers do not wait; they see what was committed before it. What it
/// reads is what it wrote itself, else what was committed. Its records go into the
/// journal as they come and not into memory, so it may be larger than that.
///
/// Dropping it rolls it back, as a panic does. It may be sent to another thread and
/// belongs to the thread that last used it: a write of *that* thread through the
/// database itself is [`Error::WriteInProgress`](crate::Error::WriteInProgress), where others wait.
///
/// An operation that fails changes nothing, and the transaction can go on, unless the
/// journal failed ([`Error::Poisoned`](crate::Error::Poisoned)). A small record may be held back for up to 16
/// calls; where there is no room for it, it is a later call, or
/// [`commit`](Self::commit), that returns [`Error::Io`](crate::Error::Io).
///
/// # Durability
/// Nothing of it survives a crash before [`commit`](Self::commit) returns; all of it
/// survives the death of the process afterwards, and power loss after the next
/// [`flush`](Emdb::flush) (at once with [`FlushPolicy::WriteThrough`](crate::FlushPolicy)).
///
/// # Examples
///
/// ```
/// let db = emdb_engine::Emdb::open_in_memory();
/// let tx = db.begin()?;
/// tx.insert("apple", "red")?;
/// tx.namespace("stock")?.insert("apple", "12")?;
/// assert_eq!(tx.get("apple")?.as_deref(), Some(&b"red"[..]));
/// assert_eq!(db.get("apple")?, None, "others do not see it yet");
/// tx.commit()?;
/// assert!(db.contains_key("apple")?);
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[must_use = "dropping a transaction rolls it back"]
pub struct Transaction<'a> {
    engine: &'a Handle,
    open: OpenBatch<'a>,
}

/// A point in a transaction to which it can be taken back; see
/// [`Transaction::savepoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint(u64);

impl Emdb {
    /// Runs `work` in a transaction and commits it. An error that `work` returns rolls
    /// it back and is returned; so does a panic, which goes on.
    ///
    /// In `work`, write through the transaction, not through the database.
    ///
    /// # Durability
    /// As [`Transaction`].
    ///
    /// # Errors
    /// What `work` returns, and as [`begin`](Self::begin) and [`Transaction::commit`].
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_engine::{Emdb, Error};
    ///
    /// let db = Emdb::open_in_memory();
    /// db.insert("from", [5])?;
    /// db.transaction::<_, ()>(|tx| {
    ///     let amount = tx.remove("from")?.ok_or(Error::KeyNotFound)?;
    ///     tx.insert("to", amount)
    /// })?;
    /// assert_eq!(db.get("to")?, Some(vec![5]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn transaction<F, T>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T>,
    {
        let mut transaction = self.begin_for("transaction")?;
        let answer = work(&mut transaction)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Begins a transaction; waits for whoever writes a batch.
    ///
    /// The first transaction after opening also checks the checkpoint's images
    /// throughout, if there are any.
    ///
    /// # Errors
    /// [`Error::WriteInProgress`](crate::Error::WriteInProgress) if a transaction of this thread is open,
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Poisoned`](crate::Error::Poisoned) and [`Error::Closed`](crate::Error::Closed).
    pub fn begin(&self) -> Result<Transaction<'_>> {
        self.begin_for("begin")
    }

    fn begin_for(&self, call: &'static str) -> Result<Transaction<'_>> {
        let open = self.engine().begin_batch(call, Patience::RollBack)?;
        Ok(Transaction {
            engine: self.engine(),
            open,
        })
    }

    /// As [`begin`](Self::begin), but `None` at once if another thread writes a batch, or the
    /// engine takes a moment of the write side for a checkpoint of its own.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// let first = db.begin()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(db.try_begin().is_ok_and(|second| second.is_none())));
    /// });
    /// drop(first);
    /// assert!(db.try_begin()?.is_some());
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn try_begin(&self) -> Result<Option<Transaction<'_>>> {
        self.begin_within("try_begin", std::time::Duration::ZERO)
    }

    /// As [`begin`](Self::begin), but `None` after waiting for as long as `timeout`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_timeout(&self, timeout: std::time::Duration) -> Result<Option<Transaction<'_>>> {
        self.begin_within("begin_timeout", timeout)
    }

    fn begin_within(
        &self,
        call: &'static str,
        timeout: std::time::Duration,
    ) -> Result<Option<Transaction<'_>>> {
        let engine = self.engine();
        let open = engine.begin_batch_within(call, timeout)?;
        Ok(open.map(|open| Transaction { engine, open }))
    }
}

impl Transaction<'_> {
    /// Makes everything in it visible at once.
    ///
    /// # Durability
    /// As [`Transaction`].
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::TooLarge`](crate::Error::TooLarge) if there is no room for a record that was
    /// held back, and [`Error::Poisoned`](crate::Error::Poisoned): the transaction is rolled back then.
    /// [`Error::Closed`](crate::Error::Closed) if the database was closed, which rolled it back. With
    /// [`FlushPolicy::WriteThrough`](crate::FlushPolicy) [`Error::Io`](crate::Error::Io) also if the sync
    /// fails: then it is visible, but only reopening tells whether it survived.
    pub fn commit(self) -> Result<()> {
        self.open.commit()
    }

    /// Undoes everything in it, as dropping it does.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) if the database was closed, which rolled it back.
    pub fn rollback(self) -> Result<()> {
        self.open.roll_back()
    }

    /// Another name of [`rollback`](Self::rollback).
    ///
    /// # Errors
    /// As [`rollback`](Self::rollback).
    pub fn abort(self) -> Result<()> {
        self.rollback()
    }

    /// The present point, for [`rollback_to`](Self::rollback_to). It costs a few dozen
    /// bytes, and as much again for each namespace in use, until the transaction ends; and a
    /// [`clear`](Self::clear) behind it keeps the index of what the transaction had stored.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let db = emdb_engine::Emdb::open_in_memory();
    /// let tx = db.begin()?;
    /// tx.insert("kept", "1")?;
    /// let savepoint = tx.savepoint()?;
    /// tx.insert("taken back", "2")?;
    /// tx.rollback_to(savepoint)?;
    /// tx.commit()?;
    /// assert_eq!(db.len()?, 1);
    /// # Ok::<(), emdb_engine::Error>(())
    /// ```
    pub fn savepoint(&self) -> Result<Savepoint> {
        self.open.engine.savepoint(self.open.number).map(Savepoint)
    }

    /// Undoes what was done since the savepoint was made. The savepoint stays; those
    /// made after it are void, namespaces created after it are gone, and iterators made
    /// after it end with [`Error::TransactionAborted`](crate::Error::TransactionAborted).
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) if the savepoint is void or of another transaction;
    /// [`Error::Io`](crate::Error::Io) (no space) leaves everything as it was.
    pub fn rollback_to(&self, savepoint: Savepoint) -> Result<()> {
        let Savepoint(savepoint) = savepoint;
        self.open.engine.roll_back_to(self.open.number, savepoint)
    }

    /// The namespace of that name, with the same verbs. If it is missing it is created,
    /// as a part of the transaction: others see it once that is committed, or never.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) if the name is empty; otherwise as
    /// [`insert`](Self::insert).
    pub fn namespace(&self, name: impl AsRef<str>) -> Result<TransactionNamespace<'_>> {
        let name = name.as_ref();
        let at = self.open.engine.create_in(self.open.number, name)?;
        Ok(TransactionNamespace::new(self.engine, self.open.number, at))
    }

    /// The namespace of that name, if there is one, with the same verbs.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) if the database was closed, which rolled it back.
    pub fn open_namespace(
        &self,
        name: impl AsRef<str>,
    ) -> Result<Option<TransactionNamespace<'_>>> {
        let at = self
            .open
            .engine
            .touch_name(self.open.number, name.as_ref())?;
        Ok(at.map(|at| TransactionNamespace::new(self.engine, self.open.number, at)))
    }

    /// The names of all namespaces but the default one, sorted; those that the
    /// transaction created are among them.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) if the database was closed, which rolled it back.
    pub fn list_namespaces(&self) -> Result<Vec<String>> {
        self.open.engine.names_in(self.open.number)
    }

    pub(crate) fn root(&self) -> TransactionNamespace<'_> {
        TransactionNamespace::new(self.engine, self.open.number, 0)
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
