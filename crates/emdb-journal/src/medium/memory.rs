//! A journal in memory: no file, no lock, nothing left behind.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Medium, SidecarMemory, Store};
use crate::error::Error;
use crate::extent::Map;

/// Anonymous memory: at most 64 GiB, for its address space is reserved at once.
#[derive(Debug)]
pub struct MemoryMedium {
    bytes_max: u64,
    len: AtomicU64,
    map: std::sync::OnceLock<Map>,
}

impl MemoryMedium {
    /// An empty medium.
    pub fn new() -> Self {
        Self::with_limit(Map::RESERVATION_BYTES)
    }

    /// An empty medium that holds at most so many bytes, or fewer if the system does not
    /// give as much address space.
    pub fn with_limit(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            len: AtomicU64::new(0),
            map: std::sync::OnceLock::new(),
        }
    }

    pub(super) fn stored(&self) -> Option<&Map> {
        self.map.get()
    }
}

pub(super) fn out_of_memory() -> Error {
    Error::Io {
        attempt: "grow an in-memory journal".to_owned(),
        source: io::Error::from(io::ErrorKind::OutOfMemory),
    }
}

/// There is nothing to map a larger reservation from, so this is the end.
fn full(needed: u64, map: &Map) -> Error {
    Error::TooLarge {
        what: "database in memory",
        len: needed,
        max: map.len(),
    }
}

impl Default for MemoryMedium {
    fn default() -> Self {
        Self::new()
    }
}

impl Medium for MemoryMedium {
    fn path(&self) -> &Path {
        Path::new(":memory:")
    }

    fn len(&self) -> Result<u64, Error> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn create(&self, header: &[u8]) -> Result<(), Error> {
        self.map(header.len() as u64, Map::RESERVATION_BYTES)?;
        self.len.store(header.len() as u64, Ordering::Release);
        self.write_at(0, header)
    }

    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        let map = match self.map.get() {
            Some(map) => map,
            None => {
                let fresh = Map::anonymous(needed, wanted.min(self.bytes_max).max(needed))
                    .map_err(|source| Error::io("reserve memory for", self.path(), source))?;
                self.map.get_or_init(|| fresh)
            }
        };
        if map.len() < needed {
            Err(full(needed, map))
        } else {
            Ok(map.clone())
        }
    }

    fn prepare(&self, _from: u64, to: u64) -> Result<(), Error> {
        let map = self.map.get().ok_or_else(out_of_memory)?;
        if map.len() < to {
            return Err(full(to, map));
        }
        self.len.fetch_max(to, Ordering::AcqRel);
        Ok(())
    }

    fn store(&self) -> Store {
        Store::Mapped
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        let map = self.map.get().ok_or_else(out_of_memory)?;
        map.store(position, bytes).ok_or_else(out_of_memory)
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<(), Error> {
        let old = self.len.swap(len, Ordering::AcqRel);
        let map = self.map.get().ok_or_else(out_of_memory)?;
        map.zero(len, old).ok_or_else(out_of_memory)
    }

    fn write_sidecar(
        &self,
        _write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        Ok(None)
    }
}
