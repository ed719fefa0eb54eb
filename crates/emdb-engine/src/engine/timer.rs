//! A thread that does something for the database again and again, until it closes.
//!
//! The thread holds the engine only while it is at work, so it never keeps a database
//! open, and it waits on a condition, so that ending it takes no longer than what it
//! is about to finish. Writers know nothing of it.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Engine;
use crate::Result;

/// The thread, if it was started and has not been ended.
#[derive(Default)]
pub(crate) struct Timer {
    thread: Mutex<Option<JoinHandle<()>>>,
    end: Arc<End>,
}

/// What the thread waits for; outlives the engine.
#[derive(Default)]
struct End {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl End {
    fn wanted(&self) -> MutexGuard<'_, bool> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `time`; `false` when it is time to end.
    fn wait(&self, time: Duration) -> bool {
        let (wanted, _) = self
            .changed
            .wait_timeout_while(self.wanted(), time, |wanted| !*wanted)
            .unwrap_or_else(PoisonError::into_inner);
        !*wanted
    }
}

impl Timer {
    /// Calls `work` whenever `every` went by since it last returned, until it breaks.
    pub(super) fn start(
        &self,
        name: &str,
        engine: &Arc<Engine>,
        every: Duration,
        work: impl Fn(&Engine) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<()> {
        let (engine, end) = (Arc::downgrade(engine), Arc::clone(&self.end));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while end.wait(every) {
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    if work(&engine).is_break() {
                        return;
                    }
                }
            })?;
        *self.thread() = Some(thread);
        Ok(())
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread, once it has finished what it is at.
    pub(super) fn stop(&self) {
        let thread = self.thread().take();
        *self.end.wanted() = true;
        self.end.changed.notify_all();
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }

    /// Lets go of the thread without touching it: in a fork it does not exist.
    pub(super) fn forget(&mut self) {
        if let Ok(thread) = self.thread.get_mut() {
            std::mem::forget(thread.take());
        }
    }
}

impl Engine {
    /// Has the journal synced at an interval.
    pub(super) fn sync_every(self: &Arc<Self>, every: Duration) -> Result<()> {
        self.start_timer(&self.sync_timer, "emdb-sync", every, Self::sync_if_written)
    }

    pub(super) fn start_timer(
        self: &Arc<Self>,
        timer: &Timer,
        name: &str,
        every: Duration,
        work: impl Fn(&Self) -> ControlFlow<()> + Send + 'static,
    ) -> Result<()> {
        timer.start(name, self, every, work).map_err(|error| {
            let message = format!("start the thread {name}: {error}");
            io::Error::new(error.kind(), message).into()
        })
    }

    /// Syncs if something was written since the last sync. Breaks when there will
    /// never be anything to sync again.
    fn sync_if_written(&self) -> ControlFlow<()> {
        // Without anything to sync, flushing is looking at two numbers.
        match self.flush() {
            Ok(()) => ControlFlow::Continue(()),
            // It has poisoned the journal, or the journal is poisoned or closed.
            Err(_) => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests;
