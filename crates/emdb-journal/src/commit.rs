//! Group commit: who leads a sync, who waits, and how far is durable.
//!
//! One thread leads: it notes how far the journal is published, syncs, and what it
//! noted is durable. Everyone who asks meanwhile waits; who is still not served
//! then leads the next one.
//!
//! To wake a thread takes as long as half a sync of a fast disk, and it would come too late
//! for the next one each time. So one of those who wait does not sleep while a sync is under
//! way that should be over soon.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::doubt::Doubt;
use crate::error::Error;
use crate::journal::Core;
use crate::options::SyncPolicy;

/// A sync that usually takes longer is slept through: to wake up costs little beside it.
const WATCHED_MAX: Duration = Duration::from_micros(500);

/// The state of group commit.
pub(crate) struct GroupCommit {
    durable: AtomicU64,
    /// Threads inside `sync_to` that wait for a leader.
    waiting: AtomicU32,
    /// One of them is awake.
    watched: AtomicBool,
    /// How many syncs were led to their end.
    ended: AtomicU64,
    turn: Mutex<Turn>,
    /// Held while the medium syncs; taken with no other lock but the header's.
    /// Holds what must be stored again before a sync can be believed.
    syncing: Mutex<Option<Doubt>>,
    done: Condvar,
}

#[derive(Default)]
struct Turn {
    led: bool,
    /// How many the last sync served, or found waiting at its end, its leader included.
    last_group: u32,
    /// How long a sync takes, smoothed.
    sync_time: Duration,
}

impl GroupCommit {
    pub(crate) fn new(durable: u64, doubt: Option<Doubt>) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            waiting: AtomicU32::new(0),
            watched: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            turn: Mutex::new(Turn::default()),
            syncing: Mutex::new(doubt),
            done: Condvar::new(),
        }
    }

    /// Every frame below this position survives power loss.
    #[inline]
    pub(crate) fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `sync_to`.
        self.durable.load(Ordering::Acquire)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits awake for the sync under way; tells whether it ended. At most one thread does
    /// that, for at most twice as long as a sync takes.
    fn watch(&self, turn: MutexGuard<'_, Turn>) -> bool {
        let (ended, patience) = (self.ended.load(Ordering::Acquire), turn.sync_time * 2);
        if self.watched.swap(true, Ordering::Relaxed) {
            return false;
        }
        drop(turn);
        let started = Instant::now();
        let is_over = loop {
            // Acquire: pairs with the Release when a sync ends.
            if self.ended.load(Ordering::Acquire) != ended {
                break true;
            }
            if started.elapsed() >= patience {
                break false;
            }
            // Whoever has work to do on this core comes first.
            std::thread::yield_now();
            for _ in 0..100 {
                std::hint::spin_loop();
            }
        };
        self.watched.store(false, Ordering::Relaxed);
        is_over
    }

    fn syncing(&self) -> MutexGuard<'_, Option<Doubt>> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Syncs until everything below `target` is durable.
    pub(crate) fn sync_to(&self, target: u64) -> Result<(), Error> {
        let commit = &self.commit;
        if commit.durable() >= target {
            return self.check_not_poisoned();
        }
        let mut turn = commit.turn();
        let mut may_watch = true;
        loop {
            self.check_not_poisoned()?;
            if commit.durable() >= target {
                return Ok(());
            }
            if !turn.led {
                break;
            }
            commit.waiting.fetch_add(1, Ordering::Relaxed);
            turn = if may_watch && turn.sync_time < WATCHED_MAX {
                // Who watched a sync that takes too long sleeps.
                may_watch = commit.watch(turn);
                commit.turn()
            } else {
                commit
                    .done
                    .wait(turn)
                    .unwrap_or_else(PoisonError::into_inner)
            };
            commit.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        turn.led = true;
        let (last_group, sync_time) = (turn.last_group, turn.sync_time);
        drop(turn);
        let leader = Leader(commit);
        self.gather(last_group, sync_time / 10);

        let upto = self.tail.published.load(Ordering::Acquire);
        let group = commit.waiting.load(Ordering::Relaxed) + 1;
        let mut took = Duration::ZERO;
        // What a failed sync left on the disk is unknown, and a second one may
        // succeed without having written it: never retry.
        let result = self.sync_medium(|| {
            let started = Instant::now();
            let result = self.medium.sync();
            took = started.elapsed();
            result
        });

        let mut turn = commit.turn();
        turn.last_group = group.max(commit.waiting.load(Ordering::Relaxed) + 1);
        turn.sync_time = (turn.sync_time * 7 + took) / 8;
        if result.is_ok() {
            // Release: pairs with the Acquire in `durable`.
            commit.durable.fetch_max(upto, Ordering::Release);
            // The next append says in the journal how far this got.
            // Release: pairs with the Acquire in `store_marker`.
            self.tail.marker_due.store(0, Ordering::Release);
        }
        drop(turn);
        drop(leader);
        result
    }

    /// Runs something that syncs, one at a time. The operating system reports a lost
    /// write to one sync only, so that the one which fails poisons before another can
    /// succeed and be believed.
    pub(crate) fn sync_medium(
        &self,
        sync: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut doubt = self.commit.syncing();
        self.check_not_poisoned()?;
        let unfinished = Unfinished(self);
        let stored = match &*doubt {
            Some(doubt) => self.store_again(doubt),
            None => Ok(()),
        };
        let result = stored.and_then(|()| sync());
        if result.is_ok() {
            *doubt = None;
            std::mem::forget(unfinished);
        }
        result
    }

    /// Whether nothing was synced yet of what opening found.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.commit.syncing().is_some()
    }

    /// Waits a little for as many as were served last time.
    fn gather(&self, last_group: u32, patience: Duration) {
        let always = self.options.sync_policy == SyncPolicy::Group;
        let expected = if always {
            last_group.max(2)
        } else {
            last_group
        };
        if expected < 2 || patience.is_zero() {
            return;
        }
        let started = Instant::now();
        while self.commit.waiting.load(Ordering::Relaxed) + 1 < expected
            && started.elapsed() < patience
        {
            std::thread::yield_now();
        }
    }
}

/// The one who leads; lets another lead when dropped, also by a medium that panics.
struct Leader<'a>(&'a GroupCommit);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.turn().led = false;
        // Release: pairs with the Acquire in `watch`.
        self.0.ended.fetch_add(1, Ordering::Release);
        self.0.done.notify_all();
    }
}

/// A sync that has not succeeded: poisons when dropped, since nothing is known of what
/// it was to write.
struct Unfinished<'a>(&'a Core);

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.poison();
    }
}
