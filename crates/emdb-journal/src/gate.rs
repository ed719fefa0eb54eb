//! Who may write, and who waits for that.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use crate::error::Error;

/// The calling thread, without touching the reference count of its handle.
#[inline]
pub fn this_thread() -> ThreadId {
    thread_local! {
        static THIS: ThreadId = std::thread::current().id();
    }
    // A thread that is ending has to ask.
    THIS.try_with(|id| *id)
        .unwrap_or_else(|_| std::thread::current().id())
}

/// Who holds the write side, or the sidecar.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    free: Condvar,
}

#[derive(Default)]
struct GateState {
    owner: Option<ThreadId>,
    waiting: usize,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it for this thread; waits for whoever has it.
    pub(crate) fn take(&self, call: &'static str) -> Result<(), Error> {
        self.take_until(call, None).map(drop)
    }

    /// As `take`, but gives up at the deadline; tells whether it has it.
    pub(crate) fn take_until(
        &self,
        call: &'static str,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let Some(mut state) = self.wait_free(call, deadline)? else {
            return Ok(false);
        };
        state.owner = Some(this_thread());
        Ok(true)
    }

    /// Makes this thread the one that holds it; only for who has been handed it.
    pub(crate) fn adopt(&self) {
        self.state().owner = Some(this_thread());
    }

    /// Refuses a call on the thread that holds it.
    pub(crate) fn refuse_holder(&self, call: &'static str) -> Result<(), Error> {
        match self.state().owner {
            Some(holder) if holder == this_thread() => Err(Error::WriteInProgress(call)),
            _ => Ok(()),
        }
    }

    /// Waits until nobody holds it.
    pub(crate) fn wait(&self, call: &'static str) -> Result<(), Error> {
        self.wait_free(call, None).map(drop)
    }

    fn wait_free(
        &self,
        call: &'static str,
        deadline: Option<Instant>,
    ) -> Result<Option<MutexGuard<'_, GateState>>, Error> {
        let mut state = self.state();
        while let Some(holder) = state.owner {
            if holder == this_thread() {
                return Err(Error::WriteInProgress(call));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            state.waiting += 1;
            state = match left {
                None => self
                    .free
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.free
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.waiting -= 1;
        }
        Ok(Some(state))
    }

    /// Whether somebody holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.state().owner.is_some()
    }

    pub(crate) fn release(&self) {
        let mut state = self.state();
        state.owner = None;
        // Waking nobody is a system call, too.
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.free.notify_all();
        }
    }
}
