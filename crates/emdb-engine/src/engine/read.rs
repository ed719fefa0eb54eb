//! Reading: from a key to its bytes in the map, without a lock or an allocation.
//!
//! An index entry points at a key's newest version. A reader loads the entry first
//! and `hidden_from` after it: at or above that, the version belongs to a batch that
//! is not committed, and the reader goes back to the newest version before it. A
//! reader at a snapshot goes back to the newest version below the snapshot.

use std::sync::Arc;

use emdb_index::{Entry, FindError, Location, Verdict};
use emdb_journal::{Frame, Kind};

use super::{Engine, index_error};
use crate::builder::VerifyReads;
use crate::space::Space;
use crate::{Error, Result};

/// How much of a record a read looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Head, key and value.
    Whole,
    /// All but a value above 16 KiB.
    Head,
}

impl Engine {
    /// The value of a key's newest committed version, if that is live.
    #[inline]
    pub(crate) fn get<'a>(
        &'a self,
        space: &Arc<Space>,
        key: &[u8],
        extent: Extent,
    ) -> Result<Option<&'a [u8]>> {
        self.check_open()?;
        self.find(space, self.hash(key), key, extent, u64::MAX)
    }

    /// The value of a key's newest committed version below `upto`, if that is live.
    #[inline]
    pub(crate) fn find<'a>(
        &'a self,
        space: &Arc<Space>,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
    ) -> Result<Option<&'a [u8]>> {
        match self.find_plain(space, hash, key, upto) {
            Some(value) => Ok(Some(value)),
            None => self.find_in_full(space, hash, key, extent, upto),
        }
    }

    /// Where nearly every read of a key that is there ends: a plain record of the
    /// default namespace, verified before. `None` says nothing.
    #[inline]
    fn find_plain(&self, space: &Space, hash: u64, key: &[u8], upto: u64) -> Option<&[u8]> {
        let entry = space.index.first_candidate(hash)?;
        let position = entry.location.get();
        let value = match self.verify_reads {
            VerifyReads::Once if !entry.verified => None,
            VerifyReads::Once | VerifyReads::Never => self.journal.plain_value(position, key),
            VerifyReads::Always => self.journal.verified_plain_value(position, key),
        }?;
        // The entry was loaded before, so a batch that stored it is still hidden.
        let is_seen = position < upto.min(self.journal.hidden_from());
        (is_seen && space.id() == 0 && !space.is_dropped()).then_some(value)
    }

    /// As `find`, for frames of every kind and keys that are not there.
    #[inline(never)]
    fn find_in_full<'a>(
        &'a self,
        space: &Arc<Space>,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
    ) -> Result<Option<&'a [u8]>> {
        loop {
            let epoch = space.epoch();
            if space.is_dropped() {
                return Err(Error::NamespaceDropped);
            }
            let id = space.id();
            let found = space
                .index
                .find(hash, |entry| self.check(entry, id, key, extent, upto));
            match found {
                Ok(Some(version)) => return Ok(version),
                Ok(None) if epoch.is_multiple_of(2) && space.epoch() == epoch => {
                    return if space.is_broken() {
                        Err(broken())
                    } else {
                        Ok(None)
                    };
                }
                // The contents were being exchanged: look again once they are.
                Ok(None) => std::thread::yield_now(),
                Err(FindError::Check(error)) => return Err(error),
                Err(FindError::Index(emdb_index::Error::Damaged)) => self.rebuild(space)?,
                Err(FindError::Index(error)) => return Err(index_error(error)),
            }
        }
    }

    /// Whether an entry is the key's, and which version of it a reader sees.
    #[inline]
    fn check<'a>(
        &'a self,
        entry: Entry,
        id: u32,
        key: &[u8],
        extent: Extent,
        upto: u64,
    ) -> Result<Verdict<Option<&'a [u8]>>> {
        let verify = match self.verify_reads {
            VerifyReads::Once => !entry.verified,
            VerifyReads::Always => true,
            VerifyReads::Never => false,
        };
        let position = entry.location.get();
        let frame = self.journal.frame(position)?;
        if frame.key != key || frame.namespace != id {
            // Damage may have made the key differ: verify before believing it does.
            if verify {
                self.journal.verify_head(position, &frame)?;
            }
            return Ok(Verdict::Pass);
        }
        let whole = extent == Extent::Whole || !frame.has_large_value();
        if verify {
            if whole {
                self.journal.verify(position, &frame)?;
            } else {
                self.journal.verify_head(position, &frame)?;
            }
        }
        let upto = upto.min(self.journal.hidden_from());
        let version = if position >= upto {
            self.version_below(&frame, upto)?
        } else if frame.kind == Kind::Put {
            Some(frame.value)
        } else {
            None
        };
        Ok(
            if verify && whole && self.verify_reads == VerifyReads::Once {
                Verdict::FoundAndVerified(version)
            } else {
                Verdict::Found(version)
            },
        )
    }

    /// Follows a key's versions back to the newest below `upto`; O(log n) steps.
    #[cold]
    fn version_below<'a>(&'a self, frame: &Frame<'a>, upto: u64) -> Result<Option<&'a [u8]>> {
        let mut frame = *frame;
        while let Some(link) = frame.previous {
            let next = if link.jump >= upto {
                link.jump
            } else {
                link.position
            };
            frame = self.journal.frame(next)?;
            // Every step is verified: the next one depends on its bytes.
            self.journal.verify(next, &frame)?;
            if next < upto {
                return Ok(live(frame).map(|frame| frame.value));
            }
        }
        Ok(None)
    }

    /// What an index entry stands for at a snapshot: the position and the frame of the
    /// version below `upto`, if that is live and of incarnation `id`.
    pub(crate) fn entry_at(
        &self,
        entry: Entry,
        id: u32,
        upto: u64,
        extent: Extent,
    ) -> Result<Option<(Location, Frame<'_>)>> {
        let mut position = entry.location.get();
        let mut frame = self.journal.frame(position)?;
        let verify = match self.verify_reads {
            VerifyReads::Once => !entry.verified || position >= upto,
            VerifyReads::Always => true,
            VerifyReads::Never => position >= upto,
        };
        if verify {
            match extent {
                Extent::Whole => self.journal.verify(position, &frame)?,
                Extent::Head => self.journal.verify_head(position, &frame)?,
            }
        }
        if frame.namespace != id {
            return Ok(None);
        }
        while position >= upto {
            let Some(link) = frame.previous else {
                return Ok(None);
            };
            position = if link.jump >= upto {
                link.jump
            } else {
                link.position
            };
            frame = self.journal.frame(position)?;
            match extent {
                Extent::Whole => self.journal.verify(position, &frame)?,
                Extent::Head => self.journal.verify_head(position, &frame)?,
            }
        }
        Ok(live(frame).and_then(|frame| Some((Location::new(position)?, frame))))
    }

    /// Visits many keys at one point in time, with the memory each needs on its way
    /// before it is looked at.
    pub(crate) fn get_many_with<K: AsRef<[u8]>>(
        &self,
        space: &Arc<Space>,
        keys: &[K],
        mut visit: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.check_open()?;
        let snapshot = OpenSnapshot::new(self, space)?;
        self.visit_many(space, keys, snapshot.position(), &mut visit)
    }

    fn visit_many<K: AsRef<[u8]>>(
        &self,
        space: &Arc<Space>,
        keys: &[K],
        upto: u64,
        visit: &mut impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        const TOGETHER: usize = 32;
        let mut at = 0;
        let mut hashes = [0; TOGETHER];
        for group in keys.chunks(TOGETHER) {
            for (hash, key) in hashes.iter_mut().zip(group) {
                *hash = self.hash(key.as_ref());
                space.index.prefetch(*hash);
            }
            for hash in hashes.iter().take(group.len()) {
                if let Some(entry) = space.index.first_candidate(*hash) {
                    self.journal.prefetch(entry.location.get());
                }
            }
            for (hash, key) in hashes.iter().zip(group) {
                let found = self.find(space, *hash, key.as_ref(), Extent::Whole, upto)?;
                visit(at, found);
                at += 1;
            }
        }
        Ok(())
    }
}

/// A snapshot that is open for as long as this lives.
struct OpenSnapshot<'a> {
    engine: &'a Engine,
    space: &'a Space,
    position: u64,
}

impl<'a> OpenSnapshot<'a> {
    fn new(engine: &'a Engine, space: &'a Space) -> Result<Self> {
        let position = engine.snapshots.open(&engine.journal)?;
        Ok(Self {
            engine,
            space,
            position,
        })
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for OpenSnapshot<'_> {
    fn drop(&mut self) {
        self.engine.close_snapshot(self.space, self.position);
    }
}

/// The journal was damaged when an index had to be rebuilt from it.
#[cold]
pub(super) fn broken() -> Error {
    Error::corrupted(0, "the index could not be rebuilt from the damaged journal")
}

#[inline]
fn live(frame: Frame<'_>) -> Option<Frame<'_>> {
    (frame.kind == Kind::Put).then_some(frame)
}
