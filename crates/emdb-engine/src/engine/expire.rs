//! Expiry: which records are over, and removing them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use emdb_index::Cursor;
use emdb_journal::{Frame, Kind, Opened};

use super::{Engine, Extent, Step};
use crate::space::Space;
use crate::ttl::Ttl;
use crate::{Error, Result};

impl Engine {
    /// When a record stored now expires.
    pub(crate) fn expires_at_ms(&self, ttl: Ttl) -> Result<Option<u64>> {
        ttl.expires_at_ms(self.default_ttl, &self.clock)
    }

    /// When a record expires that is stored without saying so.
    #[inline]
    pub(super) fn default_expiry(&self) -> Result<Option<u64>> {
        match self.default_ttl {
            None => Ok(None),
            Some(_) => self.expires_at_ms(Ttl::Default),
        }
    }

    /// Whether nobody is to see this version any more. Reads the clock only for
    /// records that expire.
    #[inline]
    pub(crate) fn is_expired(&self, frame: &Frame<'_>, at_ms: Option<u64>) -> bool {
        frame
            .expires_at_ms
            .is_some_and(|expiry| expiry <= at_ms.unwrap_or_else(|| self.clock.now_ms()))
    }

    /// The version, if it may be seen.
    #[inline]
    pub(super) fn unexpired<'a>(
        &self,
        frame: Option<Frame<'a>>,
        at_ms: Option<u64>,
    ) -> Option<Frame<'a>> {
        frame.filter(|frame| !self.is_expired(frame, at_ms))
    }

    /// When a stored record expires or has expired.
    pub(crate) fn expiry(&self, space: &Arc<Space>, key: &[u8]) -> Result<Option<u64>> {
        self.check_open()?;
        let (hash, opened) = (self.hash(key), Opened::new());
        let frame = self.find_frame(space, hash, key, Extent::Head, u64::MAX, &opened)?;
        Ok(frame.and_then(|frame| frame.expires_at_ms))
    }

    pub(crate) fn persist(&self, space: &Arc<Space>, key: &[u8]) -> Result<bool> {
        self.change_frame(space, key, "persist", |stored| self.persisted(stored))
    }

    /// What takes the expiry of a stored record away.
    pub(super) fn persisted(&self, stored: Option<&Frame<'_>>) -> Step<'static, bool> {
        match stored {
            Some(frame) if frame.expires_at_ms.is_some() && !self.is_expired(frame, None) => {
                Step::KeepUntil(None, true)
            }
            _ => Step::Keep(false),
        }
    }

    /// Removes what has expired, and counts it in `swept`.
    pub(crate) fn sweep(&self, space: &Arc<Space>, swept: &mut usize) -> Result<()> {
        self.check_open()?;
        let now = self.clock.now_ms();
        let earliest = space.earliest_expiry_ms();
        if now < earliest {
            return Ok(());
        }
        // From here on whoever stores a record that expires says so again.
        space.forget_expiries();
        let result = self.sweep_at(space, now, swept);
        if result.is_err() {
            space.will_expire_at(earliest);
        }
        result
    }

    fn sweep_at(&self, space: &Arc<Space>, now: u64, swept: &mut usize) -> Result<()> {
        let id = space.id();
        let mut entries = Vec::new();
        let mut next = Some(Cursor::default());
        while let Some(at) = next {
            let copied = self.copy_entries(space, id, at, &mut entries);
            if matches!(copied, Err(Error::NamespaceDropped)) && !space.is_dropped() {
                // It was cleared meanwhile: nothing is left of what there was.
                return Ok(());
            }
            next = copied?;
            for entry in &entries {
                let position = entry.location.get();
                let opened = Opened::new();
                let frame = self.journal.head(position, &opened)?;
                let Some(expiry) = frame.expires_at_ms else {
                    continue;
                };
                if !entry.verified {
                    self.journal.verify_head(position, &frame)?;
                }
                if frame.kind != Kind::Put || frame.namespace != id {
                    continue;
                }
                if expiry > now {
                    space.will_expire_at(expiry);
                } else if self.remove_expired(space, frame.key, now)? {
                    *swept += 1;
                }
            }
        }
        Ok(())
    }

    /// Removes a key if what it has now is over; a large value is not opened for that.
    fn remove_expired(&self, space: &Arc<Space>, key: &[u8], now: u64) -> Result<bool> {
        let decide = |stored: Option<&Frame<'_>>| match stored {
            Some(frame) if self.is_expired(frame, Some(now)) => Step::Remove(true),
            _ => Step::Keep(false),
        };
        let hash = self.hash(key);
        self.change_hashed(space, key, hash, Extent::Head, "sweep_expired", decide)
    }

    /// Has a thread sweep every namespace at an interval.
    pub(super) fn sweep_every(self: &Arc<Self>, every: Duration) -> Result<()> {
        let sweep = |engine: &Self| {
            for space in engine.spaces() {
                // Damage, or no room for a tombstone: the next read or write meets it, and
                // the next round tries again.
                let _ = engine.sweep(&space, &mut 0);
            }
            match engine.check_open() {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        self.start_timer(&self.sweep_timer, "emdb-sweep", every, sweep)
    }
}
