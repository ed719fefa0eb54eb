//! Reading frames of a journal where they lie.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use emdb_format::{AnyFrame, Frame, Kind};

use super::Journal;
use crate::error::Error;
use crate::extent::PinnedBytes;
use crate::opened::Opened;
use crate::seal::Seal;

/// Cache lines that a common record takes.
const LINES: usize = 3;
/// Those of one that is sealed.
const SEALED_LINES: usize = 4;

impl Journal {
    /// The frame at `position`; not verified. What is sealed in it is opened into
    /// `opened`.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if there is no frame.
    #[inline]
    pub fn frame<'a>(&'a self, position: u64, opened: &'a Opened) -> Result<Frame<'a>, Error> {
        match &self.core.seal {
            None => self.plain_frame(position),
            Some(seal) => self.sealed_frame(seal, position, true, opened),
        }
    }

    /// As [`frame`](Self::frame), but a value above 16 KiB may be left out: it is then
    /// empty, and only [its length](Frame::value_len) is told.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    #[inline]
    pub fn head<'a>(&'a self, position: u64, opened: &'a Opened) -> Result<Frame<'a>, Error> {
        match &self.core.seal {
            None => self.plain_frame(position),
            Some(seal) => self.sealed_frame(seal, position, false, opened),
        }
    }

    /// As [`head`](Self::head), for who walks from frame to frame: gives frames about the
    /// journal itself, too. In an encrypted journal nothing proves those; believe their
    /// length at most, and only of what this process wrote.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    pub fn any_head<'a>(&'a self, position: u64, opened: &'a Opened) -> Result<Frame<'a>, Error> {
        let Some(seal) = &self.core.seal else {
            return self.plain_frame(position);
        };
        match self.any_frame(position)? {
            AnyFrame::Sealed(sealed) => seal.open(position, &sealed, false, opened),
            AnyFrame::Plain(frame) if matches!(frame.kind, Kind::Filler | Kind::Extended) => {
                Ok(frame)
            }
            AnyFrame::Plain(_) => Err(plain_record(position)),
        }
    }

    fn sealed_frame<'a>(
        &'a self,
        seal: &Seal,
        position: u64,
        whole: bool,
        opened: &'a Opened,
    ) -> Result<Frame<'a>, Error> {
        match self.any_frame(position)? {
            AnyFrame::Sealed(sealed) => {
                if whole && sealed.layout().value().is_some() {
                    self.fetch(position, sealed.layout().len());
                }
                seal.open(position, &sealed, whole, opened)
            }
            // Not even dead space: where a record is looked for, it would seem to be gone.
            AnyFrame::Plain(_) => Err(plain_record(position)),
        }
    }

    /// All of a large frame is about to be read: the map would read page by page what is not
    /// in memory.
    #[cold]
    fn fetch(&self, position: u64, len: usize) {
        let end = position.saturating_add(len as u64);
        self.core.extents.fetch(position, end);
    }

    fn any_frame(&self, position: u64) -> Result<AnyFrame<'_>, Error> {
        let settled = self.core.extents.settled_bytes(position);
        match settled.map(AnyFrame::parse) {
            Some(Ok(frame)) => Ok(frame),
            _ => AnyFrame::parse(self.bytes_at_end(position)?)
                .map_err(|error| Error::corrupted(position, error.to_string())),
        }
    }

    /// The key of the frame at `position`; not verified.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    #[inline]
    pub fn key(&self, position: u64) -> Result<Cow<'_, [u8]>, Error> {
        if self.core.seal.is_none() {
            return Ok(Cow::Borrowed(self.plain_key(position)?));
        }
        let opened = Opened::new();
        Ok(Cow::Owned(self.head(position, &opened)?.key.to_vec()))
    }

    /// As [`key`](Self::key), of a frame that is sound but for a value above 16 KiB.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if it is not.
    pub fn verified_key(&self, position: u64) -> Result<Cow<'_, [u8]>, Error> {
        if self.core.seal.is_none() {
            let frame = self.plain_frame(position)?;
            self.verify_head(position, &frame)?;
            return Ok(Cow::Borrowed(frame.key));
        }
        // What can be opened is authentic.
        self.key(position)
    }

    /// As [`verified_key`](Self::verified_key), kept in `opened` if it was sealed.
    ///
    /// # Errors
    /// As [`verified_key`](Self::verified_key).
    pub fn verified_key_in<'a>(
        &'a self,
        position: u64,
        opened: &'a Opened,
    ) -> Result<&'a [u8], Error> {
        match (self.verified_key(position)?, &self.core.seal) {
            (Cow::Owned(key), Some(seal)) => Ok(seal.keep(key, opened)),
            (Cow::Borrowed(key), _) => Ok(key),
            // Only what was sealed is owned.
            (Cow::Owned(_), None) => Err(Error::corrupted(position, "no key")),
        }
    }

    #[inline]
    fn plain_frame(&self, position: u64) -> Result<Frame<'_>, Error> {
        if let Some(bytes) = self.core.extents.settled_bytes(position)
            && let Ok(frame) = Frame::parse(bytes)
        {
            return Ok(frame);
        }
        self.frame_at_end(position)
    }

    #[inline]
    fn plain_key(&self, position: u64) -> Result<&[u8], Error> {
        let bytes = match self.core.extents.settled_bytes(position) {
            Some(bytes) => bytes,
            None => self.bytes_at_end(position)?,
        };
        match Frame::plain_record(bytes) {
            Some((key, _)) => Ok(key),
            None => Ok(self.plain_frame(position)?.key),
        }
    }

    #[cold]
    fn frame_at_end(&self, position: u64) -> Result<Frame<'_>, Error> {
        Frame::parse(self.bytes_at_end(position)?)
            .map_err(|error| Error::corrupted(position, error.to_string()))
    }

    #[cold]
    pub(super) fn bytes_at_end(&self, position: u64) -> Result<&[u8], Error> {
        if self.core.seal.is_some() && self.core.readable() <= position {
            self.core.store_backlog(position + 1);
        }
        let readable = self.core.readable();
        self.core
            .extents
            .bytes_below(position, readable)
            .ok_or_else(|| Error::corrupted(position, "past the end of the journal"))
    }

    /// The value of the frame at `position`, if that is a plain record of the default
    /// namespace with this key and not among the newest; not verified. `None` says
    /// nothing: look at [`frame`](Self::frame) then.
    #[inline]
    pub fn plain_value(&self, position: u64, key: &[u8]) -> Option<&[u8]> {
        if self.core.seal.is_some() {
            return None;
        }
        Frame::plain_value(self.core.extents.settled_bytes(position)?, key)
    }

    /// As [`plain_value`](Self::plain_value), whatever its key, which is given with the value.
    #[inline]
    pub fn plain_record(&self, position: u64) -> Option<(&[u8], &[u8])> {
        if self.core.seal.is_some() {
            return None;
        }
        Frame::plain_record(self.core.extents.settled_bytes(position)?)
    }

    /// As [`plain_record`](Self::plain_record), but `None` also if the frame is damaged.
    #[inline]
    pub fn verified_plain_record(&self, position: u64) -> Option<(&[u8], &[u8])> {
        if self.core.seal.is_some() {
            return None;
        }
        let bytes = self.core.extents.settled_bytes(position)?;
        let lsn = self.core.base_lsn + position;
        Frame::verified_plain_record(bytes, self.core.stamp, lsn)
    }

    /// As [`plain_value`](Self::plain_value), but `None` also if the frame is damaged.
    #[inline]
    pub fn verified_plain_value(&self, position: u64, key: &[u8]) -> Option<&[u8]> {
        if self.core.seal.is_some() {
            return None;
        }
        let bytes = self.core.extents.settled_bytes(position)?;
        let lsn = self.core.base_lsn + position;
        Frame::verified_plain_value(bytes, key, self.core.stamp, lsn)
    }

    /// As [`plain_value`](Self::plain_value), of a sealed journal; authenticated.
    #[inline]
    pub fn sealed_value<'a>(
        &self,
        position: u64,
        key: &[u8],
        opened: &'a Opened,
    ) -> Option<&'a [u8]> {
        let seal = self.core.seal.as_ref()?;
        // A cipher has so many instructions that nothing of the next read overlaps with this
        // one: let at least the frame's own lines come together.
        self.core.extents.prefetch(position, SEALED_LINES);
        let bytes = self.core.extents.settled_bytes(position)?;
        seal.plain_value(position, bytes, key, opened)
    }

    /// Checks every byte of a frame that [`frame`](Self::frame) gave for `position`.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if one differs from what was written there.
    #[inline]
    pub fn verify(&self, position: u64, frame: &Frame<'_>) -> Result<(), Error> {
        // What is sealed was read when it was opened.
        if frame.has_large_value() && !self.is_sealed() {
            self.fetch(position, frame.len());
        }
        frame
            .verify(self.core.stamp, self.core.base_lsn + position)
            .map_err(|error| Error::corrupted(position, error.to_string()))
    }

    /// As [`verify`](Self::verify), but leaves a value above 16 KiB alone.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    #[inline]
    pub fn verify_head(&self, position: u64, frame: &Frame<'_>) -> Result<(), Error> {
        frame
            .verify_head(self.core.stamp, self.core.base_lsn + position)
            .map_err(|error| Error::corrupted(position, error.to_string()))
    }

    /// Keeps `bytes`, a part of a frame of this journal, alive beyond it. Those of a sealed
    /// journal are copied.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if they are no part of the journal.
    #[inline]
    pub fn pin(&self, bytes: &[u8]) -> Result<PinnedBytes, Error> {
        if self.core.seal.is_some() {
            return Ok(PinnedBytes::copied(bytes));
        }
        let extents = &self.core.extents;
        // The line which every append writes is looked at only for the newest.
        match extents.pin(bytes, extents.settled()) {
            Some(pinned) => Ok(pinned),
            None => self.pin_newest(bytes),
        }
    }

    /// As `pin`, also for bytes near the end of the journal, and of a map that was replaced.
    #[cold]
    fn pin_newest(&self, bytes: &[u8]) -> Result<PinnedBytes, Error> {
        let readable = self.core.tail.readable.load(Ordering::Acquire);
        let extents = &self.core.extents;
        let pinned = extents.pin(bytes, readable);
        let pinned = pinned.or_else(|| extents.pin_older(bytes, readable));
        pinned.ok_or_else(|| Error::corrupted(0, "bytes that are no part of the journal"))
    }

    /// Asks for the front of the frame at `position` to be brought into the cache.
    #[inline]
    pub fn prefetch(&self, position: u64) {
        let lines = if self.is_sealed() {
            SEALED_LINES
        } else {
            LINES
        };
        self.core.extents.prefetch(position, lines);
    }

    /// As [`prefetch`](Self::prefetch), all of a common record, wherever in a line it begins.
    #[inline]
    pub fn prefetch_all(&self, position: u64) {
        self.core.extents.prefetch(position, LINES + 1);
    }
}

#[cold]
fn plain_record(position: u64) -> Error {
    Error::corrupted(position, "a plain record in an encrypted database")
}
