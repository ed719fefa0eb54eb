//! Writing one key: lock its stripe, look, reserve, copy, publish.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use emdb_index::{Guard, Location};
use emdb_journal::{Frame, FrameSpec, Kind, Opened, Previous};

use super::{Engine, Extent, find_error};
use crate::builder::VerifyReads;
use crate::snapshots::KeptTombstone;
use crate::space::{Delta, Space};
use crate::{Error, Result};

/// What a write decided to do after it saw the current value.
pub(crate) enum Step<'v, T> {
    /// Store this value, to live as long as the builder's default says.
    Put(&'v [u8], T),
    /// Store this value, to live until then, in Unix milliseconds.
    PutUntil(&'v [u8], Option<u64>, T),
    /// Store the present value again, to live until then; nothing happens if there is none.
    KeepUntil(Option<u64>, T),
    /// Remove the key; nothing happens if it is not there.
    Remove(T),
    /// Leave everything as it is.
    Keep(T),
}

/// A key's newest version, dead or alive.
#[derive(Clone, Copy)]
pub(super) struct Newest<'a> {
    pub(super) position: u64,
    pub(super) frame: Frame<'a>,
}

impl<'a> Newest<'a> {
    pub(super) fn live(&self) -> Option<&Frame<'a>> {
        (self.frame.kind == Kind::Put).then_some(&self.frame)
    }
}

impl Engine {
    /// Changes one key atomically. `decide` sees the current value and may run more
    /// than once; only its last answer counts.
    #[inline]
    pub(crate) fn change<'v, T>(
        &self,
        space: &Arc<Space>,
        key: &[u8],
        call: &'static str,
        mut decide: impl FnMut(Option<&[u8]>) -> Step<'v, T>,
    ) -> Result<T> {
        self.change_frame(space, key, call, |stored| {
            let seen = stored.filter(|frame| !self.is_expired(frame, None));
            decide(seen.map(|frame| frame.value))
        })
    }

    /// As `change`, for a step that asks for nothing of the current value: a large one is
    /// then not opened.
    #[inline]
    pub(crate) fn put<'v>(
        &self,
        space: &Arc<Space>,
        key: &[u8],
        call: &'static str,
        mut step: impl FnMut() -> Step<'v, ()>,
    ) -> Result<()> {
        let hash = self.hash(key);
        self.change_hashed(space, key, hash, Extent::Head, call, |_| step())
    }

    /// As `change`; `decide` sees also a record that has expired.
    #[inline]
    pub(crate) fn change_frame<'v, T>(
        &self,
        space: &Arc<Space>,
        key: &[u8],
        call: &'static str,
        decide: impl FnMut(Option<&Frame<'_>>) -> Step<'v, T>,
    ) -> Result<T> {
        self.change_hashed(space, key, self.hash(key), Extent::Whole, call, decide)
    }

    /// As `change_frame`; `decide` sees so much of a record.
    #[inline]
    pub(super) fn change_hashed<'v, T>(
        &self,
        space: &Arc<Space>,
        key: &[u8],
        hash: u64,
        extent: Extent,
        call: &'static str,
        mut decide: impl FnMut(Option<&Frame<'_>>) -> Step<'v, T>,
    ) -> Result<T> {
        self.check_open()?;
        // On their way while the stripe is locked.
        space.index.prefetch(hash);
        self.journal.prefetch_end();
        loop {
            let mut kept = None;
            // The guard ends where it is: it is large, too.
            let (appended, answer, expires_at_ms, written) = {
                let mut guard = self.lock(space, hash)?;
                // A batch that began before the stripe was locked may need it; one that
                // begins from here on waits for it.
                if self.journal.is_batch_open() {
                    drop(guard);
                    self.journal.wait_for_batch(call)?;
                    continue;
                }
                if space.is_dropped() {
                    return Err(Error::NamespaceDropped);
                }
                let id = space.id();
                let opened = Opened::new();
                let mut newest = None;
                self.find_newest(&mut guard, id, key, extent, &opened, &mut newest)?;
                let live = newest.as_ref().and_then(Newest::live);
                let (spec, answer) = match self.decided(decide(live), live, key)? {
                    ControlFlow::Continue(decided) => decided,
                    ControlFlow::Break(answer) => return Ok(answer),
                };
                let (kind, expires_at_ms) = (spec.kind, spec.expires_at_ms);
                let spec = FrameSpec {
                    namespace: id,
                    previous: newest.as_ref().map(|newest| self.link(newest)),
                    ..spec
                };
                let delta = self.delta(&spec, live);
                if newest.is_none() {
                    self.make_room(&mut guard)?;
                }
                let appended = self.journal.append_then(&spec, |position| {
                    let Some(location) = Location::new(position) else {
                        return;
                    };
                    match &newest {
                        Some(old) if kind == Kind::Tombstone && self.snapshots.count() == 0 => {
                            guard.remove();
                            self.order_remove(space, key, old.position);
                        }
                        Some(old) => {
                            guard.replace(location, kind == Kind::Tombstone);
                            kept = (kind == Kind::Tombstone).then_some(position);
                            self.order_replace(space, key, old.position, location, kind);
                        }
                        None => {
                            guard.insert(location, false);
                            self.order_insert(space, key, location);
                        }
                    }
                    space.apply(&delta);
                    self.add_dead(delta.dead_bytes);
                })?;
                (appended, answer, expires_at_ms, spec.value.len() as u64)
            };
            let Ok(lsn) = appended else {
                self.journal.wait_for_batch(call)?;
                continue;
            };
            if let Some(expiry) = expires_at_ms {
                space.will_expire_at(expiry);
            }
            if let Some(position) = kept {
                self.snapshots.keep(KeptTombstone {
                    space: Arc::clone(space),
                    hash,
                    position,
                });
            } else if self.snapshots.has_unneeded() {
                self.remove_kept_tombstones();
            }
            self.checkpoint_when_due(written);
            // Without the stripe, so that others of it can share the sync.
            self.journal.sync_appended(lsn)?;
            return Ok(answer);
        }
    }

    /// The frame that a step calls for, but for its namespace and its link; or the answer
    /// if it calls for none.
    #[inline]
    pub(super) fn decided<'a, T>(
        &self,
        step: Step<'a, T>,
        live: Option<&Frame<'a>>,
        key: &'a [u8],
    ) -> Result<ControlFlow<T, (FrameSpec<'a>, T)>> {
        let (kind, value, expires_at_ms, answer) = match (step, live) {
            (Step::Keep(answer), _) | (Step::Remove(answer) | Step::KeepUntil(_, answer), None) => {
                return Ok(ControlFlow::Break(answer));
            }
            (Step::Remove(answer), Some(_)) => (Kind::Tombstone, &b""[..], None, answer),
            (Step::Put(value, answer), _) => (Kind::Put, value, self.default_expiry()?, answer),
            (Step::PutUntil(value, expiry, answer), _) => (Kind::Put, value, expiry, answer),
            (Step::KeepUntil(expiry, answer), Some(frame)) => {
                (Kind::Put, frame.value, expiry, answer)
            }
        };
        let spec = FrameSpec {
            expires_at_ms,
            ..FrameSpec::new(kind, key, value)
        };
        Ok(ControlFlow::Continue((spec, answer)))
    }

    /// Bytes of the journal that nothing points at any more. Only in a writer's turn
    /// or under the write side.
    #[inline]
    pub(super) fn add_dead(&self, bytes: u64) {
        if bytes > 0 {
            let dead = self.dead_bytes.load(Ordering::Relaxed);
            self.dead_bytes
                .store(dead.saturating_add(bytes), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn make_room(&self, guard: &mut Guard<'_>) -> Result<()> {
        guard
            .make_room(|location| {
                let opened = Opened::new();
                let frame = self.journal.head(location.get(), &opened)?;
                self.journal.verify_head(location.get(), &frame)?;
                Ok(self.hash(frame.key))
            })
            .map_err(find_error)
    }

    /// The newest version of a key, committed or not: for whoever may change it.
    #[inline]
    pub(super) fn newest<'a>(
        &'a self,
        guard: &mut Guard<'_>,
        id: u32,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<Newest<'a>>> {
        let mut newest = None;
        self.find_newest(guard, id, key, extent, opened, &mut newest)?;
        Ok(newest)
    }

    /// As `newest`, in a place that the caller has, as it is large.
    #[inline]
    fn find_newest<'a>(
        &'a self,
        guard: &mut Guard<'_>,
        id: u32,
        key: &[u8],
        extent: Extent,
        opened: &'a Opened,
        newest: &mut Option<Newest<'a>>,
    ) -> Result<()> {
        guard.find(|entry| {
            let position = entry.location.get();
            let frame = self.frame(position, extent, opened)?;
            let verify = match self.verify_reads {
                VerifyReads::Once => !entry.verified,
                VerifyReads::Always => true,
                VerifyReads::Never => false,
            };
            if verify {
                // A write believes the lengths and the link, and may hand out the value.
                self.journal.verify(position, &frame)?;
            }
            let found = frame.key == key && frame.namespace == id;
            if found {
                *newest = Some(Newest { position, frame });
            }
            Ok::<bool, Error>(found)
        })?;
        Ok(())
    }

    /// How a frame changes the counts, given the live frame it replaces.
    #[inline]
    pub(super) fn delta(&self, spec: &FrameSpec<'_>, old: Option<&Frame<'_>>) -> Delta {
        let mut delta = Delta::default();
        if let Some(old) = old {
            delta.remove(old);
        }
        if spec.kind == Kind::Put {
            delta.put((spec.key.len() + spec.value.len()) as u64);
        } else {
            delta.dead_bytes += self.journal.frame_len(spec).unwrap_or(0) as u64;
        }
        delta
    }

    /// The link to the version that a new frame replaces.
    pub(super) fn link(&self, newest: &Newest<'_>) -> Previous {
        let link = newest.frame.previous;
        let jump_link = link.and_then(|link| {
            let opened = Opened::new();
            let frame = self.journal.head(link.jump, &opened).ok()?;
            // A damaged frame gives no shortcut, but it does not stand in the way.
            self.journal.verify_head(link.jump, &frame).ok()?;
            frame.previous
        });
        Previous::link(newest.position, link, jump_link)
    }
}
