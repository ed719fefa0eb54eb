//! What was read at opening but may never have reached the disk.
//!
//! When a sync fails, operating systems keep what they could not write in memory and
//! count it as written. Whoever opens the file next reads it, and a sync that succeeds
//! then says nothing about it. So what no marker and no header confirms is stored once
//! more, byte for byte, before the first sync is believed.

use emdb_format::{AnyFrame, FIRST_POSITION, Header};

use crate::error::Error;
use crate::journal::Core;
use crate::recovery::store_header;

/// Bytes stored at once.
const PIECE_BYTES: u64 = 1 << 20;

/// What an opening found and cannot know to be on the disk.
pub(crate) struct Doubt {
    /// Where a frame begins; everything below is proven to have been synced.
    from: u64,
    /// Position behind the last frame that was replayed.
    to: u64,
    header: Header,
}

impl Doubt {
    /// `None` if nothing was ever appended.
    pub(crate) fn new(header: &Header, durable: u64, tail: u64) -> Option<Self> {
        (tail > FIRST_POSITION).then_some(Self {
            from: durable.min(tail),
            to: tail,
            header: *header,
        })
    }
}

impl Core {
    /// Stores what is in doubt once more, so that the next sync has to write it.
    ///
    /// Writes the bytes that are there already, so readers see no change, and nothing
    /// behind the last frame, so it meets no append.
    pub(crate) fn store_again(&self, doubt: &Doubt) -> Result<(), Error> {
        let gone = |at| Error::corrupted(at, "read at opening, but gone since: never on the disk");
        let mut piece = Vec::new();
        let (mut verified, mut at) = (doubt.from, doubt.from);
        while at < doubt.to {
            let end = doubt.to.min(at.saturating_add(PIECE_BYTES));
            let bytes = self.extents.bytes_below(at, end);
            piece.clear();
            piece.extend_from_slice(bytes.ok_or_else(|| gone(at))?);
            self.medium.write_at(at, &piece)?;
            at = end;
            // Memory may have been given up between replay and here, and what came back
            // be what the disk has. Now it cannot change any more, so look.
            while verified < at {
                let bytes = self.extents.bytes_below(verified, doubt.to).unwrap_or(&[]);
                let frame = AnyFrame::parse(bytes).map_err(|_| gone(verified))?;
                let next = verified.saturating_add(frame.len() as u64);
                if next > at {
                    break;
                }
                frame
                    .verify(self.stamp, self.base_lsn.saturating_add(verified))
                    .map_err(|_| gone(verified))?;
                verified = next;
            }
        }
        // The newer slot must be on the disk before the older one is overwritten.
        store_header(&*self.medium, &doubt.header)
    }
}
