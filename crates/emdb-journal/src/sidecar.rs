//! Reading the sidecar, piece by piece: what is not asked for is neither opened nor kept.

use std::ops::Range;

use crate::medium::{Medium, SidecarMemory};
use crate::seal::{Seal, SealedSidecar};

/// Shorter pieces are copied, so that many do not take many maps.
const COPIED_BYTES: usize = 1 << 20;

/// A sidecar that is read; see [`Opening::sidecar`](crate::Opening::sidecar).
///
/// What it gives of a sealed one has been authenticated.
pub struct Sidecar<'a> {
    medium: &'a dyn Medium,
    memory: Box<dyn SidecarMemory>,
    sealed: Option<SealedSidecar>,
}

impl<'a> Sidecar<'a> {
    pub(crate) fn new(medium: &'a dyn Medium, seal: Option<&Seal>) -> Option<Self> {
        let mut memory = medium.sidecar().ok().flatten()?;
        let sealed = match seal {
            None => None,
            Some(seal) => Some(seal.open_sidecar(memory.bytes_mut())?),
        };
        Some(Self {
            medium,
            memory,
            sealed,
        })
    }

    /// How many bytes there are.
    pub fn bytes_len(&mut self) -> u64 {
        match &self.sealed {
            None => self.memory.bytes_mut().len() as u64,
            Some(sealed) => sealed.contents_len() as u64,
        }
    }

    /// A copy of `len` bytes from `offset` on; `None` if there are not so many, or they
    /// cannot be opened.
    pub fn read(&mut self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let piece = range(offset, len)?;
        let memory = self.memory.bytes_mut();
        match &mut self.sealed {
            None => memory.get(piece).map(<[u8]>::to_vec),
            Some(sealed) => sealed.read(memory, piece),
        }
    }

    /// As [`read`](Self::read), for what is large and kept: mapped where that can be,
    /// and opened by several threads.
    pub fn open(&mut self, offset: u64, len: u64) -> Option<Box<dyn SidecarMemory>> {
        let piece = range(offset, len)?;
        if piece.len() <= COPIED_BYTES {
            return Some(Box::new(self.read(offset, len)?));
        }
        match &self.sealed {
            Some(sealed) => Some(Box::new(sealed.open(self.memory.bytes_mut(), piece)?)),
            None => {
                let mut memory = self.medium.sidecar().ok().flatten()?;
                memory.bytes_mut().get(piece.clone())?;
                Some(Box::new(Window { memory, piece }))
            }
        }
    }
}

impl std::fmt::Debug for Sidecar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sidecar").finish_non_exhaustive()
    }
}

fn range(offset: u64, len: u64) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    Some(start..end)
}

/// A piece of memory that keeps all of it.
struct Window {
    memory: Box<dyn SidecarMemory>,
    piece: Range<usize>,
}

impl SidecarMemory for Window {
    fn bytes_mut(&mut self) -> &mut [u8] {
        let piece = self.piece.clone();
        self.memory.bytes_mut().get_mut(piece).unwrap_or_default()
    }
}
