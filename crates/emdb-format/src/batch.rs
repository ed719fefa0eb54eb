//! What closes a batch: commit and discard frames.
//!
//! A batch is a run of frames with the batch flag. It begins with the first such
//! frame after the last batch ended, and counts only when a commit frame closes it.
//!
//! Value of a commit frame:
//!
//! | offset | bytes | field |
//! |--------|-------|-------|
//! | 0 | 8 | number of frames that count |
//! | 8 | 4 | CRC32C over the checksums of all frames of the run, in order |
//!
//! Value of a discard frame: 8 bytes, the position from which on the run's frames
//! do not count. If that is where the run began, the discard frame ends the batch.

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;

const COMMIT_LEN: usize = size_of::<u64>() + size_of::<u32>();
const DISCARD_LEN: usize = size_of::<u64>();

/// The running checksum over a batch's frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchSum(u32);

impl BatchSum {
    /// Adds a frame, record or discard, by its checksum.
    #[inline]
    pub fn add(&mut self, frame_checksum: u32) {
        self.0 = crc32c::crc32c_append(self.0, &frame_checksum.to_le_bytes());
    }
}

/// The contents of a commit frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Frames that count: all of the run but discarded ones and discard frames.
    pub count: u64,
    /// The sum over every frame of the run.
    pub sum: BatchSum,
}

impl Commit {
    /// The value of the commit frame.
    pub fn encode(&self) -> [u8; COMMIT_LEN] {
        let mut bytes = [0; COMMIT_LEN];
        let mut out = Writer::new(&mut bytes);
        // The buffer has exactly the room for both fields.
        let _ = out.u64(self.count).and_then(|()| out.u32(self.sum.0));
        bytes
    }

    /// Reads the value of a commit frame.
    ///
    /// # Errors
    /// [`FormatError`] if the length is not that of a commit.
    pub fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(value, "commit frame");
        let commit = Self {
            count: reader.u64()?,
            sum: BatchSum(reader.u32()?),
        };
        reader.end()?;
        Ok(commit)
    }
}

/// The contents of a discard frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard {
    /// Frames of the run at or above this position do not count.
    pub from: u64,
}

impl Discard {
    /// The value of the discard frame.
    pub fn encode(&self) -> [u8; DISCARD_LEN] {
        self.from.to_le_bytes()
    }

    /// Reads the value of a discard frame.
    ///
    /// # Errors
    /// [`FormatError`] if the length is not that of a discard.
    pub fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(value, "discard frame");
        let discard = Self {
            from: reader.u64()?,
        };
        reader.end()?;
        Ok(discard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_and_discard_round_trip() {
        let mut sum = BatchSum::default();
        sum.add(1);
        sum.add(2);
        let commit = Commit { count: 2, sum };
        assert_eq!(Commit::decode(&commit.encode()), Ok(commit));
        let discard = Discard { from: 1 << 40 };
        assert_eq!(Discard::decode(&discard.encode()), Ok(discard));
    }

    #[test]
    fn the_order_of_frames_counts() {
        let (mut a, mut b) = (BatchSum::default(), BatchSum::default());
        a.add(1);
        a.add(2);
        b.add(2);
        b.add(1);
        assert_ne!(a, b);
    }

    #[test]
    fn other_lengths_are_refused() {
        for len in (0..32).filter(|len| *len != COMMIT_LEN) {
            assert!(Commit::decode(&vec![0; len]).is_err(), "{len}");
        }
        for len in (0..32).filter(|len| *len != DISCARD_LEN) {
            assert!(Discard::decode(&vec![0; len]).is_err(), "{len}");
        }
    }
}
