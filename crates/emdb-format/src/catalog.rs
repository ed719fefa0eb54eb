//! Catalog frames: which namespaces there are.
//!
//! The frame's key is the namespace's name in UTF-8 (empty for the default
//! namespace), its value one byte for the change and the internal id as a varint.
//! An id names one incarnation of a namespace and is never used again.

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::varint::VARINT_MAX;

const CREATE: u8 = 1;
const CLEAR: u8 = 2;
const DROP: u8 = 3;

/// A change of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogChange {
    /// The namespace exists from here on, empty, under this id.
    Create(u32),
    /// The namespace is empty from here on and continues under this new id.
    Clear(u32),
    /// The namespace that had this id is gone.
    Drop(u32),
}

impl CatalogChange {
    /// The value of the catalog frame.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, id) = match *self {
            Self::Create(id) => (CREATE, id),
            Self::Clear(id) => (CLEAR, id),
            Self::Drop(id) => (DROP, id),
        };
        let mut bytes = [0; 1 + VARINT_MAX];
        let mut out = Writer::new(&mut bytes);
        // The buffer is longer than any encoding.
        let _ = out.u8(tag).and_then(|()| out.varint(u64::from(id)));
        let len = out.position();
        bytes.iter().take(len).copied().collect()
    }

    /// Reads the value of a catalog frame.
    ///
    /// # Errors
    /// [`FormatError`] for bytes that are no catalog change.
    pub fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(value, "catalog frame");
        let tag = reader.u8()?;
        let id = reader.varint_u32()?;
        reader.end()?;
        match tag {
            CREATE => Ok(Self::Create(id)),
            CLEAR => Ok(Self::Clear(id)),
            DROP => Ok(Self::Drop(id)),
            _ => Err(FormatError::Malformed("catalog frame")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(id: u32, which in 0..3) {
            let change = match which {
                0 => CatalogChange::Create(id),
                1 => CatalogChange::Clear(id),
                _ => CatalogChange::Drop(id),
            };
            prop_assert_eq!(CatalogChange::decode(&change.encode()), Ok(change));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            if let Ok(change) = CatalogChange::decode(&bytes) {
                prop_assert_eq!(change.encode(), bytes);
            }
        }
    }
}
