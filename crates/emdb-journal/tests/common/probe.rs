//! A medium that tells a test what the journal does, and lets the test interfere.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use emdb_journal::{Error, Map, Medium, SidecarMemory, Store};

/// Called with the name of each call before it is passed on; an error is its answer.
pub(crate) type Hook = Box<dyn Fn(&'static str) -> Result<(), Error> + Send + Sync>;

/// Passes every call on to another medium, unless the hook refuses.
pub(crate) struct Probe<M> {
    inner: M,
    hook: Hook,
    store: Option<Store>,
    small_maps: bool,
    read_only_maps: Arc<AtomicBool>,
}

impl<M: Medium> Probe<M> {
    pub(crate) fn new(
        inner: M,
        hook: impl Fn(&'static str) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            hook: Box::new(hook),
            store: None,
            small_maps: false,
            read_only_maps: Arc::default(),
        }
    }

    /// Has appended bytes stored in another way than the medium's own.
    pub(crate) fn storing(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Gives maps of what is needed and not a byte more.
    pub(crate) fn small_maps(mut self) -> Self {
        self.small_maps = true;
        self
    }

    /// While this is set, gives maps of the file that can not be made writable.
    pub(crate) fn read_only_maps(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.read_only_maps)
    }
}

/// An error as a broken disk gives it.
pub(crate) fn broken() -> Error {
    Error::Io {
        attempt: "use".to_owned(),
        source: io::Error::other("broken"),
    }
}

impl<M: Medium> Medium for Probe<M> {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }
    fn create(&self, header: &[u8]) -> Result<(), Error> {
        (self.hook)("create")?;
        self.inner.create(header)
    }
    fn map(&self, needed: u64, wanted: u64) -> Result<Map, Error> {
        let wanted = if self.small_maps { needed } else { wanted };
        if self.read_only_maps.load(Ordering::Relaxed) {
            // The system lets nobody store through a map of a file opened for reading.
            let map = File::open(self.path()).and_then(|file| Map::file(&file, needed, wanted));
            return map.map_err(|_| broken());
        }
        self.inner.map(needed, wanted)
    }
    fn prepare(&self, from: u64, to: u64) -> Result<(), Error> {
        (self.hook)("prepare")?;
        self.inner.prepare(from, to)?;
        (self.hook)("prepared")
    }
    fn store(&self) -> Store {
        self.store.unwrap_or_else(|| self.inner.store())
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        (self.hook)("write")?;
        self.inner.write_at(position, bytes)
    }
    fn sync(&self) -> Result<(), Error> {
        (self.hook)("sync")?;
        self.inner.sync()
    }
    fn truncate(&self, len: u64) -> Result<(), Error> {
        (self.hook)("truncate")?;
        self.inner.truncate(len)
    }
    fn release(&self) {
        let _ = (self.hook)("release");
        self.inner.release();
    }
    fn populate(&self, from: u64, to: u64) {
        let _ = (self.hook)("populate");
        self.inner.populate(from, to);
    }
    fn write_back(&self, from: u64, to: u64) {
        let _ = (self.hook)("write_back");
        self.inner.write_back(from, to);
    }
    fn next_data(&self, position: u64) -> u64 {
        self.inner.next_data(position)
    }
    fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        (self.hook)("write_sidecar")?;
        self.inner.write_sidecar(write)
    }
    fn sidecar(&self) -> Result<Option<Box<dyn SidecarMemory>>, Error> {
        self.inner.sidecar()
    }
}
