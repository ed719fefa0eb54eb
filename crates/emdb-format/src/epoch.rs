//! Epoch frames: from here on, frames are sealed with another key.
//!
//! An extended frame whose value is:
//!
//! | offset | bytes | field |
//! |--------|-------|-------|
//! | 0 | 1 | sub-kind: 1 |
//! | 1 | 16 | salt of the epoch |
//! | 17 | 16 | tag: what authenticates the frame and the epoch before it |

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::frame::{FrameSpec, Kind, Stamp};

const SUB_KIND: u8 = 1;
const VALUE_LEN: usize = 1 + 16 + 16;

/// Bytes of an epoch frame.
pub const EPOCH_FRAME_LEN: usize = 4 + 1 + 1 + 1 + VALUE_LEN;

/// The announcement of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochMark {
    /// Random, and new for each epoch.
    pub salt: [u8; 16],
    /// What authenticates it.
    pub tag: [u8; 16],
}

impl EpochMark {
    /// Encodes the frame that announces the epoch, as it stands at `lsn`.
    ///
    /// # Errors
    /// None that can occur: the frame is within all limits.
    pub fn encode_frame(
        &self,
        stamp: Stamp,
        lsn: u64,
    ) -> Result<[u8; EPOCH_FRAME_LEN], FormatError> {
        let mut value = [0; VALUE_LEN];
        let mut out = Writer::new(&mut value);
        out.u8(SUB_KIND)?;
        out.put(&self.salt)?;
        out.put(&self.tag)?;
        let mut frame = [0; EPOCH_FRAME_LEN];
        FrameSpec::new(Kind::Extended, b"", &value).encode_into(&mut frame, stamp, lsn)?;
        Ok(frame)
    }

    /// Reads the value of an extended frame.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] if it announces no epoch.
    pub fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(value, "epoch frame");
        if reader.u8()? != SUB_KIND {
            return Err(FormatError::Malformed("epoch frame"));
        }
        let mark = Self {
            salt: reader.array()?,
            tag: reader.array()?,
        };
        reader.end()?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    #[test]
    fn an_epoch_frame_comes_back() {
        let stamp = Stamp::new(&[1; 16], 2);
        let mark = EpochMark {
            salt: [3; 16],
            tag: [4; 16],
        };
        let bytes = mark.encode_frame(stamp, 99).unwrap();
        let frame = Frame::parse(&bytes).unwrap();
        frame.verify(stamp, 99).unwrap();
        assert_eq!((frame.kind, frame.len()), (Kind::Extended, EPOCH_FRAME_LEN));
        assert_eq!(EpochMark::decode(frame.value), Ok(mark));
        assert!(EpochMark::decode(&frame.value[1..]).is_err());
        assert!(EpochMark::decode(&frame.value[..32]).is_err());
        assert!(EpochMark::decode(&[]).is_err());
    }
}
