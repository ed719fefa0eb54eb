//! The thread that works ahead of the writers: prepares space, has its memory made, and what
//! they have left behind written.

use std::sync::{MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Core;

/// The thread that prepares large extents before they are needed, and what it is told.
#[derive(Default)]
pub(super) struct Growing {
    stop: bool,
    wanted: bool,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    fn growing(&self) -> MutexGuard<'_, Growing> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next extent prepared off the writers' path once the space left is less
    /// than half an extent. Small extents are quick enough to prepare when needed.
    #[cold]
    pub(crate) fn grow_ahead(&self, end: u64) {
        if !self.extents.is_running_out(end) && self.extents.to_populate(end).is_none() {
            return;
        }
        let mut growing = self.growing();
        growing.wanted = true;
        if growing.thread.is_none() && !growing.stop {
            let Some(core) = self.me.upgrade() else {
                return;
            };
            let builder = std::thread::Builder::new().name("emdb-grow".to_owned());
            // Without the thread, the writer that needs the space prepares it.
            growing.thread = builder.spawn(move || core.grow_when_told()).ok();
        }
        drop(growing);
        self.grow_wanted.notify_one();
    }

    fn grow_when_told(&self) {
        let mut growing = self.growing();
        while !growing.stop {
            if growing.wanted {
                growing.wanted = false;
                drop(growing);
                self.work_ahead();
                growing = self.growing();
            } else {
                growing = self
                    .grow_wanted
                    .wait(growing)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Prepares the space that writers will need, has its memory made, and what they have left
    /// behind written.
    fn work_ahead(&self) {
        while !self.growing().stop {
            if self.extents.is_running_out(self.readable()) {
                // An error is the writer's to meet, when it needs the space.
                let _ = self.grow(self.extents.prepared().saturating_add(1));
            }
            if let Some((from, to)) = self.extents.to_populate(self.readable()) {
                self.medium.populate(from, to);
                self.extents.set_populated(to);
            } else if let Some((from, to)) = self.extents.to_write_back(self.readable()) {
                // Only once writers have the space that they need: this may wait for the disk.
                if self.is_batch_open() {
                    // What stores as fast as it can needs all of this thread.
                    break;
                }
                self.medium.write_back(from, to);
                self.extents.set_written_back(to);
            } else {
                break;
            }
        }
    }

    /// Ends the thread that grows ahead, for good: nothing is prepared behind a cut.
    pub(super) fn stop_growing(&self) {
        let mut growing = self.growing();
        growing.stop = true;
        let thread = growing.thread.take();
        drop(growing);
        self.grow_wanted.notify_all();
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}
