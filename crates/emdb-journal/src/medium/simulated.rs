//! A medium that keeps live and durable bytes apart, for crash and fault tests.
//!
//! Stores change the live bytes; `sync` makes them durable. [`SimulatedMedium::crash`]
//! gives the medium as it might be found after a power failure: durable bytes,
//! and of the rest whichever sectors the caller picks, whole or torn.
//!
//! A sync that fails does as operating systems do: what was to be written stays
//! readable but counts as written, so no later sync writes it unless it is stored anew.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::memory::{MemoryMedium, out_of_memory};
use super::{Medium, SidecarMemory, Store};
use crate::error::Error;
use crate::extent::Map;

/// Bytes that a disk writes whole or tears somewhere.
const SECTOR_BYTES: usize = 512;

/// A simulated disk.
#[derive(Debug, Default)]
pub struct SimulatedMedium {
    live: MemoryMedium,
    disk: Mutex<Disk>,
    calls: AtomicU64,
}

#[derive(Debug, Default)]
struct Disk {
    durable: Vec<u8>,
    /// Sectors that count as written but are not, with what they held when a sync failed.
    lost: BTreeMap<u64, Vec<u8>>,
    sidecar: Option<Vec<u8>>,
    /// Call number that fails, counted from 0, and how.
    fault: Option<(u64, io::ErrorKind)>,
    /// Most bytes the disk holds.
    capacity: Option<u64>,
    /// Not all of what is durable could be brought to life.
    is_short_of_memory: bool,
    syncs: u64,
}

/// What becomes of one sector that was not synced when power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sector {
    Dropped,
    Kept,
    Torn(usize),
}

impl SimulatedMedium {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with these bytes, all durable. Without the memory for it, whatever needs its
    /// length fails, as opening does.
    pub fn with_bytes(bytes: &[u8]) -> Self {
        Self::in_memory(MemoryMedium::new(), bytes)
    }

    fn in_memory(live: MemoryMedium, bytes: &[u8]) -> Self {
        let is_short_of_memory = !bytes.is_empty() && live.create(bytes).is_err();
        let disk = Disk {
            durable: bytes.to_vec(),
            is_short_of_memory,
            ..Disk::default()
        };
        Self {
            live,
            disk: Mutex::new(disk),
            ..Self::default()
        }
    }

    /// The disk as another process finds it after this one was killed: the live bytes
    /// are all there, and what was not durable still is not.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let medium = Self::with_bytes(&self.live_bytes());
        {
            let (mut to, from) = (medium.disk(), self.disk());
            to.durable.clone_from(&from.durable);
            to.lost.clone_from(&from.lost);
            to.sidecar.clone_from(&from.sidecar);
        }
        medium
    }

    /// Also gives the disk a sidecar.
    #[must_use]
    pub fn with_sidecar(self, sidecar: Option<Vec<u8>>) -> Self {
        self.disk().sidecar = sidecar;
        self
    }

    /// The live bytes: what another process sees after this one was killed.
    pub fn live_bytes(&self) -> Vec<u8> {
        let len = self.live.len().unwrap_or(0);
        self.live
            .stored()
            .and_then(|map| map.copy(0, len))
            .unwrap_or_default()
    }

    /// The durable bytes alone.
    pub fn durable_bytes(&self) -> Vec<u8> {
        self.disk().durable.clone()
    }

    /// Drops from memory what a failed sync left there: reads see the durable bytes,
    /// as when the system needs the memory for something else.
    ///
    /// # Errors
    /// None but for bytes that do not exist.
    pub fn evict(&self) -> Result<(), Error> {
        let live = self.live_bytes();
        let mut disk = self.disk();
        for (at, held) in std::mem::take(&mut disk.lost) {
            let start = at as usize * SECTOR_BYTES;
            let now = live.get(start..).unwrap_or(&[]);
            if !now.starts_with(&held) {
                continue;
            }
            let mut bytes = disk.durable.get(start..).unwrap_or(&[]).to_vec();
            bytes.resize(held.len(), 0);
            self.live.write_at(start as u64, &bytes)?;
        }
        Ok(())
    }

    /// The sidecar.
    pub fn sidecar_bytes(&self) -> Option<Vec<u8>> {
        self.disk().sidecar.clone()
    }

    /// The bytes a power failure leaves, where `pick` decides for each unsynced
    /// sector what becomes of it: 0 drops it, 1 keeps it, any other number n keeps
    /// its first n bytes.
    pub fn crash(&self, mut pick: impl FnMut(u64) -> usize) -> Vec<u8> {
        let live = self.live_bytes();
        let mut bytes = self.durable_bytes();
        // The length is metadata of its own: it may or may not have got through.
        if pick(u64::MAX) != 0 {
            bytes.resize(live.len(), 0);
        }
        let sectors = bytes
            .chunks_mut(SECTOR_BYTES)
            .zip(live.chunks(SECTOR_BYTES));
        for (at, (old, new)) in sectors.enumerate() {
            if old.get(..new.len()) == Some(new) {
                continue;
            }
            let fate = match pick(at as u64) {
                0 => Sector::Dropped,
                1 => Sector::Kept,
                n => Sector::Torn(n % SECTOR_BYTES),
            };
            let kept = match fate {
                Sector::Dropped => 0,
                Sector::Kept => new.len(),
                Sector::Torn(len) => len.min(new.len()),
            };
            for (to, from) in old.iter_mut().zip(new).take(kept) {
                *to = *from;
            }
        }
        bytes
    }

    /// Makes call number `call` (of `prepare`, `write_at`, `sync`, `truncate`,
    /// `create` and `write_sidecar`, counted from 0) fail.
    pub fn fail_call(&self, call: u64, kind: io::ErrorKind) {
        self.disk().fault = Some((call, kind));
    }

    /// Calls made so far that can fail.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Syncs that succeeded.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Limits the disk to `bytes`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, attempt: &str) -> Result<(), Error> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.disk().fault {
            Some((at, kind)) if at == call => {
                Err(Error::io(attempt, self.path(), io::Error::from(kind)))
            }
            _ => Ok(()),
        }
    }
}

impl Medium for std::sync::Arc<SimulatedMedium> {
    fn path(&self) -> &Path {
        SimulatedMedium::path(self)
    }
    fn len(&self) -> Result<u64, Error> {
        Medium::len(&**self)
    }
    fn create(&self, header: &[u8]) -> Result<(), Error> {
        (**self).create(header)
    }
    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        (**self).map(needed, wanted)
    }
    fn prepare(&self, from: u64, to: u64) -> Result<(), Error> {
        (**self).prepare(from, to)
    }
    fn store(&self) -> Store {
        (**self).store()
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        (**self).write_at(position, bytes)
    }
    fn sync(&self) -> Result<(), Error> {
        (**self).sync()
    }
    fn truncate(&self, len: u64) -> Result<(), Error> {
        (**self).truncate(len)
    }
    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        (**self).write_sidecar(write)
    }
    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        (**self).sidecar()
    }
}

impl Medium for SimulatedMedium {
    fn path(&self) -> &Path {
        Path::new(":simulated:")
    }

    fn len(&self) -> Result<u64, Error> {
        if self.disk().is_short_of_memory {
            return Err(out_of_memory());
        }
        self.live.len()
    }

    fn create(&self, header: &[u8]) -> Result<(), Error> {
        self.call("create")?;
        self.live.create(header)?;
        let mut disk = self.disk();
        disk.durable = header.to_vec();
        Ok(())
    }

    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        // Enough for every test, and small enough to have thousands of them.
        self.live.map(needed, wanted.min(1 << 30))
    }

    fn prepare(&self, from: u64, to: u64) -> Result<(), Error> {
        self.call("prepare space in")?;
        if self.disk().capacity.is_some_and(|capacity| to > capacity) {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(Error::io("prepare space in", self.path(), full));
        }
        self.live.prepare(from, to)
    }

    fn store(&self) -> Store {
        Store::Mapped
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        self.call("write to")?;
        let sector = SECTOR_BYTES as u64;
        let end = position.saturating_add(bytes.len() as u64);
        // Stored anew, whatever the bytes: the next sync writes them.
        self.disk()
            .lost
            .retain(|at, _| *at < position / sector || *at >= end.div_ceil(sector));
        let there = self.live.stored();
        let there = there.and_then(|map| map.copy(position, bytes.len() as u64));
        if there.as_deref() == Some(bytes) {
            // Memory that others may be reading is not even touched.
            return Ok(());
        }
        self.live.write_at(position, bytes)
    }

    fn sync(&self) -> Result<(), Error> {
        let called = self.call("sync");
        let live = self.live_bytes();
        let mut guard = self.disk();
        let disk = &mut *guard;
        if called.is_ok() && disk.lost.is_empty() {
            disk.durable = live;
            disk.syncs += 1;
            return called;
        }
        if called.is_ok() {
            disk.durable.resize(live.len(), 0);
        }
        for (at, new) in (0..).zip(live.chunks(SECTOR_BYTES)) {
            let start = at as usize * SECTOR_BYTES;
            if disk.lost.get(&at).is_some_and(|held| held == new) {
                continue;
            }
            match disk.durable.get_mut(start..start + new.len()) {
                Some(old) if called.is_ok() => old.copy_from_slice(new),
                Some(old) if old == new => {}
                _ => {
                    disk.lost.insert(at, new.to_vec());
                    continue;
                }
            }
            disk.lost.remove(&at);
        }
        disk.syncs += u64::from(called.is_ok());
        called
    }

    fn truncate(&self, len: u64) -> Result<(), Error> {
        self.call("truncate")?;
        self.disk()
            .lost
            .retain(|at, _| *at < len / SECTOR_BYTES as u64);
        self.live.truncate(len)
    }

    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.call("write the checkpoint of")?;
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(|e| Error::io("write the checkpoint of", self.path(), e))?;
        self.disk().sidecar = Some(bytes);
        Ok(())
    }

    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        Ok(self
            .disk()
            .sidecar
            .clone()
            .map(|bytes| Box::new(bytes) as Box<dyn SidecarMemory>))
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryMedium, SimulatedMedium};
    use crate::error::Error;
    use crate::journal::Journal;
    use crate::medium::Medium;
    use crate::options::Options;

    /// Else it would pass for a new one.
    #[test]
    fn a_disk_that_memory_does_not_suffice_for_is_not_taken_for_an_empty_one() {
        let live = MemoryMedium::new();
        live.map(1, 1).unwrap();
        let medium = SimulatedMedium::in_memory(live, &[7; 100]);
        let opened = Journal::open(Box::new(medium), Options::default(), |_| {});
        assert!(matches!(opened, Err(Error::Io { .. })));
    }
}
