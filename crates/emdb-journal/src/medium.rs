//! Where the bytes live: the trait every byte passes through.

mod file;
mod memory;
mod simulated;

use std::io;
use std::path::Path;

pub(crate) use file::create_anew;
pub use file::remove_unfinished;
pub use file::{FileMedium, OpenMode};
#[cfg(feature = "encrypt")]
pub use file::{Place, put_in_place};
pub use memory::MemoryMedium;
pub use simulated::SimulatedMedium;

use emdb_format::Header;

use crate::error::Error;
use crate::extent::Map;

/// How appended bytes reach the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// By stores into the map: preparing space guarantees that they succeed.
    Mapped,
    /// The first 16 KiB after a sync by [`Medium::write_at`], the rest by stores into
    /// the map. A store into a large page makes the next sync write all of that page,
    /// a write only what it wrote; many small stores are still cheaper than writes.
    Mixed,
    /// By [`Medium::write_at`]: preallocation is not known to hold here.
    Written,
}

/// Memory that holds a checkpoint's bytes, private to this process.
pub trait SidecarMemory: Send + Sync {
    /// The bytes, writable.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl SidecarMemory for Vec<u8> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl SidecarMemory for memmap2::MmapMut {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// The storage below a journal: one growing run of bytes and one sidecar.
///
/// `sync` and, where [`Store::Written`] asks for it, `write_at` to places that do not
/// overlap may run at any time; the journal serialises all other calls.
pub trait Medium: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Bytes that exist, prepared space included.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> Result<u64, Error>;

    /// Whether nothing was ever stored here.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Stores the first bytes of a new journal so that they are there whole or not
    /// at all, and synced.
    ///
    /// # Errors
    /// As the operating system says; nothing is then left behind.
    fn create(&self, header: &[u8]) -> Result<(), Error>;

    /// Maps at least `needed` bytes from the front, if possible `wanted`; the map may
    /// reach past the end.
    ///
    /// # Errors
    /// When not even `needed` bytes of address space can be had.
    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error>;

    /// Makes the bytes from `from` up to `to` exist, zero where nothing was stored,
    /// so that storing there cannot fail for lack of space.
    ///
    /// # Errors
    /// When there is no room; nothing has changed then.
    fn prepare(&self, from: u64, to: u64) -> Result<(), Error>;

    /// How appended bytes are to be stored.
    fn store(&self) -> Store;

    /// Writes within existing bytes. Bytes that others are reading may be written once
    /// more as they are, and must not look different to them meanwhile; the next sync
    /// must write them.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Makes everything stored so far survive power loss.
    ///
    /// # Errors
    /// As the operating system says; what is on stable storage is then unknown. A panic
    /// counts as an error.
    fn sync(&self) -> Result<(), Error>;

    /// Removes what a replacement of this journal by its [successor](crate::Opening::successor)
    /// left that was not finished; `header` is this journal's. Fails silently: it is
    /// dead space.
    fn remove_unfinished(&self, header: &Header) {
        let _ = header;
    }

    /// Cuts everything from `len` on.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&self, len: u64) -> Result<(), Error>;

    /// Lets others open the medium; nothing is written through this one any more.
    fn release(&self) {}

    /// Brings prepared bytes from `from` up to `to` into memory before they are stored
    /// into, so that no store waits for that. A hint, and on no writer's path.
    fn populate(&self, from: u64, to: u64) {
        let _ = (from, to);
    }

    /// Has the system begin to write stored bytes from `from` up to `to` to the disk, so that
    /// the next sync finds less to do. A hint, and on no writer's path; it makes nothing
    /// durable, and an error that the system meets there is for the next sync to tell.
    fn write_back(&self, from: u64, to: u64) {
        let _ = (from, to);
    }

    /// First position at or after `position` that may hold something other than zeros.
    fn next_data(&self, position: u64) -> u64 {
        position
    }

    /// Replaces the sidecar atomically and durably by what `write` produces.
    ///
    /// # Errors
    /// As the operating system says; the old sidecar is then still there.
    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Error>;

    /// The sidecar's bytes, if there is one.
    ///
    /// # Errors
    /// As the operating system says.
    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error>;
}
