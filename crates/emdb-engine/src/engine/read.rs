//! Reading: from a key to its bytes in the map, without a lock or an allocation.
//!
//! An index entry points at a key's newest version. A reader loads the entry first
//! and `hidden_from` after it: at or above that, the version belongs to a batch that
//! is not committed, and the reader goes back to the newest version before it. A
//! reader at a snapshot goes back to the newest version below the snapshot.
//!
//! A batch that is discarded takes its entries back before it stops being hidden. So
//! a reader that met one of them sees that `hidden_from`, or the number of discards,
//! has changed since before it loaded the entry, and looks again.

use std::sync::Arc;

use emdb_index::{Entry, FindError, Location, Verdict};
use emdb_journal::{Frame, Kind, Opened};

use super::{Engine, index_error};
use crate::builder::VerifyReads;
use crate::snapshots::Ticket;
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

/// Which versions a read sees, all of them below a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Those that are committed.
    Committed(u64),
    /// Those of the open batch, too: it is the reader's own.
    Own(u64),
}

impl Engine {
    /// The value of a key's newest committed version, if that is live.
    #[inline]
    pub(crate) fn get<'a>(
        &'a self,
        space: &Arc<Space>,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        let hash = self.hash(key);
        if self.journal.is_open()
            && let Some(value) = self.find_plain(space, hash, key, u64::MAX, opened)
        {
            return Ok(Some(value));
        }
        self.get_other(space, hash, key, extent, opened)
    }

    /// As `get`, also where `find_plain` says nothing.
    #[inline(never)]
    fn get_other<'a>(
        &'a self,
        space: &Arc<Space>,
        hash: u64,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        self.check_open()?;
        let frame = self.find_frame(space, hash, key, extent, u64::MAX, opened)?;
        Ok(self.unexpired(frame, None).map(|frame| frame.value))
    }

    /// As `get`, for who holds the write side: sees what the batch did, below `upto`.
    pub(crate) fn find_own<'a>(
        &'a self,
        space: &Space,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        let frame = self.find_own_frame(space, hash, key, extent, upto, opened)?;
        Ok(self.unexpired(frame, None).map(|frame| frame.value))
    }

    /// As `find_own`, expired or not.
    pub(super) fn find_own_frame<'a>(
        &'a self,
        space: &Space,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
        opened: &'a Opened,
    ) -> Result<Option<Frame<'a>>> {
        let id = space.id();
        let found = space.index.find(hash, |entry| {
            self.check(entry, id, key, extent, View::Own(upto), opened)
        });
        match found {
            Ok(None) if space.is_broken() => Err(broken()),
            Ok(found) => Ok(found.flatten()),
            Err(FindError::Check(error)) => Err(error),
            Err(FindError::Index(error)) => Err(index_error(error)),
        }
    }

    /// The value that a key had in the incarnation `id` of the namespace, alive or ended:
    /// `upto` is an open snapshot that sees it, and was taken at `at_ms` if it may be old.
    #[expect(clippy::too_many_arguments, reason = "a place, a key and a moment")]
    pub(crate) fn find_at<'a>(
        &'a self,
        space: &Arc<Space>,
        id: u32,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
        at_ms: Option<u64>,
        opened: &'a Opened,
    ) -> Result<Option<&'a [u8]>> {
        self.journal.check_not_forked()?;
        if space.id() == id
            && let Some(value) = self.find_plain(space, hash, key, upto, opened)
        {
            return Ok(Some(value));
        }
        let check = |entry| self.check(entry, id, key, extent, View::Committed(upto), opened);
        loop {
            let epoch = space.epoch();
            let found = if space.id() == id {
                let found = space.index.find(hash, check);
                if matches!(found, Ok(None)) && (space.epoch() != epoch || epoch % 2 == 1) {
                    // The contents were being exchanged: look again once they are.
                    std::thread::yield_now();
                    continue;
                }
                found
            } else {
                let past = space.past();
                let ended = past.ended.iter().find(|ended| ended.id == id);
                let ended = ended.ok_or(Error::NamespaceDropped)?;
                space.index.find_detached(&ended.contents, hash, check)
            };
            return match found {
                Ok(Some(version)) => {
                    let seen = self.unexpired(version, at_ms);
                    Ok(seen.map(|frame| frame.value))
                }
                Ok(None) if space.is_broken() => Err(broken()),
                Ok(None) => Ok(None),
                Err(FindError::Check(error)) => Err(error),
                Err(FindError::Index(emdb_index::Error::Damaged)) if space.id() == id => {
                    self.rebuild(space)?;
                    continue;
                }
                Err(FindError::Index(error)) => Err(index_error(error)),
            };
        }
    }

    /// Where nearly every read of a key that is there ends: a plain record of the
    /// default namespace, verified before. `None` says nothing.
    #[inline]
    fn find_plain<'a>(
        &'a self,
        space: &Space,
        hash: u64,
        key: &[u8],
        upto: u64,
        opened: &'a Opened,
    ) -> Option<&'a [u8]> {
        let hidden_from = self.journal.hidden_from();
        let entry = space.index.first_candidate(hash)?;
        let position = entry.location.get();
        // The entry was loaded in between, so a batch that stored it is still hidden, or
        // was committed before.
        let is_seen = position < upto.min(hidden_from) && self.journal.hidden_from() == hidden_from;
        // Only the default namespace has the id 0, and that one is never dropped.
        if !is_seen || space.id() != 0 {
            return None;
        }
        match self.verify_reads {
            _ if self.journal.is_sealed() => self.journal.sealed_value(position, key, opened),
            VerifyReads::Once if !entry.verified => None,
            VerifyReads::Once | VerifyReads::Never => self.journal.plain_value(position, key),
            VerifyReads::Always => self.journal.verified_plain_value(position, key),
        }
    }

    /// The frame of a key's newest committed version below `upto`, if that is live,
    /// expired or not.
    #[inline(never)]
    pub(super) fn find_frame<'a>(
        &'a self,
        space: &Arc<Space>,
        hash: u64,
        key: &[u8],
        extent: Extent,
        upto: u64,
        opened: &'a Opened,
    ) -> Result<Option<Frame<'a>>> {
        loop {
            let epoch = space.epoch();
            if space.is_dropped() {
                return Err(Error::NamespaceDropped);
            }
            let id = space.id();
            let discards = self.journal.discards();
            let found = space.index.find(hash, |entry| {
                self.check(entry, id, key, extent, View::Committed(upto), opened)
            });
            match found {
                // A version that was discarded may have been met.
                Ok(Some(_)) if self.journal.discards() != discards => {}
                Ok(Some(Some(version))) => return Ok(Some(version)),
                // What hides it is all there is, unless other contents hid it, too.
                Ok(_) if epoch.is_multiple_of(2) && space.epoch() == epoch => {
                    return if space.is_broken() {
                        Err(broken())
                    } else {
                        Ok(None)
                    };
                }
                // The contents were being exchanged: look again once they are.
                Ok(_) => std::thread::yield_now(),
                Err(FindError::Check(error)) => return Err(error),
                Err(FindError::Index(emdb_index::Error::Damaged)) => self.rebuild(space)?,
                Err(FindError::Index(error)) => return Err(index_error(error)),
            }
        }
    }

    #[inline]
    pub(super) fn frame<'a>(
        &'a self,
        position: u64,
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Frame<'a>> {
        Ok(match extent {
            Extent::Whole => self.journal.frame(position, opened)?,
            Extent::Head => self.journal.head(position, opened)?,
        })
    }

    /// Whether an entry is the key's, and which version of it a reader sees.
    #[inline]
    fn check<'a>(
        &'a self,
        entry: Entry,
        id: u32,
        key: &[u8],
        extent: Extent,
        view: View,
        opened: &'a Opened,
    ) -> Result<Verdict<Option<Frame<'a>>>> {
        let verify = match self.verify_reads {
            VerifyReads::Once => !entry.verified,
            VerifyReads::Always => true,
            VerifyReads::Never => false,
        };
        let position = entry.location.get();
        let frame = self.frame(position, extent, opened)?;
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
        let upto = match view {
            View::Committed(upto) => upto.min(self.journal.hidden_from()),
            View::Own(upto) => upto,
        };
        let version = if position >= upto {
            self.version_below(&frame, upto, opened)?
        } else if frame.kind == Kind::Put {
            Some(frame)
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
    fn version_below<'a>(
        &'a self,
        frame: &Frame<'a>,
        upto: u64,
        opened: &'a Opened,
    ) -> Result<Option<Frame<'a>>> {
        let mut frame = *frame;
        while let Some(link) = frame.previous {
            let next = if link.jump >= upto {
                link.jump
            } else {
                link.position
            };
            frame = self.journal.frame(next, opened)?;
            // Every step is verified: the next one depends on its bytes.
            self.journal.verify(next, &frame)?;
            if next < upto {
                return Ok(live(frame));
            }
        }
        Ok(None)
    }

    /// What an index entry stands for at a snapshot: the position and the frame of the
    /// version below `upto`, if that is live and of incarnation `id`.
    pub(crate) fn entry_at<'a>(
        &'a self,
        entry: Entry,
        id: u32,
        upto: u64,
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<(Location, Frame<'a>)>> {
        let mut position = entry.location.get();
        let mut frame = self.frame(position, extent, opened)?;
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
            frame = self.frame(position, extent, opened)?;
            match extent {
                Extent::Whole => self.journal.verify(position, &frame)?,
                Extent::Head => self.journal.verify_head(position, &frame)?,
            }
        }
        Ok(live(frame).and_then(|frame| Some((Location::new(position)?, frame))))
    }

    /// The frame of an entry that was seen in another index and is committed, and the hash of
    /// its key, if it still is the key's newest version and live. `None` says nothing.
    #[inline]
    pub(crate) fn still_newest<'a>(
        &'a self,
        space: &Space,
        seen: Entry,
        hash: Option<u64>,
        opened: &'a Opened,
    ) -> Option<(u64, Frame<'a>)> {
        let position = seen.location.get();
        let frame = self.journal.frame(position, opened).ok()?;
        // If a byte of the key flipped, it leads to nothing.
        let hash = hash.unwrap_or_else(|| self.hash(frame.key));
        let once = self.verify_reads == VerifyReads::Once;
        let found = space.index.find(hash, |entry| {
            if entry.location != seen.location {
                return Ok(Verdict::Pass);
            }
            let verify = match self.verify_reads {
                VerifyReads::Once => !entry.verified && !seen.verified,
                VerifyReads::Always => true,
                VerifyReads::Never => false,
            };
            if verify {
                self.journal.verify(position, &frame)?;
            }
            Ok::<_, Error>(if once && !entry.verified {
                Verdict::FoundAndVerified(())
            } else {
                Verdict::Found(())
            })
        });
        let is_live = matches!(found, Ok(Some(())))
            && frame.kind == Kind::Put
            && frame.namespace == space.id()
            && !self.is_expired(&frame, None);
        is_live.then_some((hash, frame))
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
        let snapshot = self.open_snapshot()?;
        let upto = snapshot.position();
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        // What is cleared from here on was there at that point.
        let id = space.id_at(upto);
        let mut at = 0;
        self.visit_many(space, keys, |hashes, keys| {
            for (hash, key) in hashes.iter().zip(keys) {
                let opened = Opened::new();
                let key = key.as_ref();
                let found = match id {
                    Some(id) => {
                        self.find_at(space, id, *hash, key, Extent::Whole, upto, None, &opened)?
                    }
                    None => None,
                };
                visit(at, found);
                at += 1;
            }
            Ok(())
        })
    }

    /// Calls `visit` with some keys and their hashes at a time, with the memory that
    /// they need on its way.
    pub(crate) fn visit_many<K: AsRef<[u8]>>(
        &self,
        space: &Space,
        keys: &[K],
        mut visit: impl FnMut(&[u64], &[K]) -> Result<()>,
    ) -> Result<()> {
        const TOGETHER: usize = 32;
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
            visit(hashes.get(..group.len()).unwrap_or(&hashes), group)?;
        }
        Ok(())
    }
}

impl Engine {
    /// Opens a snapshot of now, until the answer goes.
    #[inline]
    pub(crate) fn open_snapshot(&self) -> Result<OpenSnapshot<'_>> {
        Ok(OpenSnapshot(self, self.snapshots.open(&self.journal)?))
    }
}

/// A snapshot that is open for as long as this lives.
pub(crate) struct OpenSnapshot<'a>(&'a Engine, Ticket);

impl OpenSnapshot<'_> {
    /// What the snapshot sees ends here.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.1.position()
    }
}

impl Drop for OpenSnapshot<'_> {
    fn drop(&mut self) {
        self.0.close_snapshot(&self.1);
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
