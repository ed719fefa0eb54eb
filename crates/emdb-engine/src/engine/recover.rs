//! Opening: the checkpoint's image if it fits, then the journal from there on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use crate::hash::KeyHasher;
use dashmap::DashMap;
use emdb_format::{CatalogChange, CheckpointHead, CheckpointSpace, FIRST_POSITION};
use emdb_index::{Cursor, HashIndex, ImageMemory};
use emdb_journal::{Frame, Kind, Opened, Opening, Sidecar, SidecarMemory};

use super::catalog::dead_bytes_of;
use super::replay::{self, Change, LookBack};
use super::{Catalog, Checkpoints, Engine, EngineOptions, Handle, Staging, StoredOrders, Timer};
use crate::clock::Clock;
use crate::snapshots::{KeptTombstone, Snapshots};
use crate::space::Space;
use crate::{Error, Result};

/// Builds the database that a journal holds.
pub(crate) fn open(opening: Opening, options: EngineOptions) -> Result<Handle> {
    let hasher = KeyHasher::new(&opening.header().hash_seed);
    let checkpoint = Recovery::from_checkpoint(&opening, &hasher, options.range_scans)
        // An index cannot be rebuilt later without the write side.
        .filter(|(recovery, _)| !options.read_only || recovery.is_sound());
    // An image that does not fit its journal is only a cache gone stale; damage of the
    // journal itself shows again below.
    let restored = checkpoint.and_then(|(mut recovery, from)| {
        let replayed = recovery.replay(&opening, from);
        replayed.is_ok().then_some((recovery, from))
    });
    let stale = restored.is_none() && opening.has_sidecar();
    let (recovery, from) = match restored {
        Some(restored) => restored,
        None => (Recovery::from_start(&opening, &hasher)?, FIRST_POSITION),
    };
    let journal = opening.finish()?;
    if stale && !journal.is_read_only() {
        // Its place in the journal may be overtaken by other frames than those it was
        // made from, and then it would seem to fit: an older copy of the journal put
        // back beside a newer image does that.
        journal.write_sidecar(&mut |_| Ok(()))?;
    }
    // By itself it would ask the system for the number of cores, which takes long.
    let spaces = DashMap::with_shard_amount(16);
    let mut root = None;
    for (name, space) in recovery.by_name {
        if name.is_empty() {
            root = Some(space);
        } else {
            spaces.insert(name, space);
        }
    }
    let root = root.ok_or_else(|| Error::corrupted(0, "no default namespace"))?;
    let engine = Arc::new(Engine {
        journal,
        hasher,
        verify_reads: options.verify_reads,
        staging: Mutex::new(Staging::new(Arc::clone(&root))),
        all_checked: AtomicBool::new(false),
        root,
        catalog: Catalog::new(spaces, recovery.next_id),
        snapshots: Snapshots::default(),
        dead_bytes: AtomicU64::new(recovery.dead_bytes),
        checkpoints: Checkpoints::new(from, recovery.checkpoint, options.checkpoint_bytes),
        sync_timer: Timer::default(),
        sweep_timer: Timer::default(),
        default_ttl: options.default_ttl,
        range_scans: options.range_scans,
        keys_unread: recovery.orders.is_some(),
        clock: Clock::new(options.time_source),
        handles: AtomicUsize::new(0),
    });
    engine.start_checkpoints();
    if options.range_scans {
        engine.restore_orders(recovery.orders)?;
    }
    if let Some(every) = options.sync_every {
        engine.sync_every(every)?;
    }
    if let Some(every) = options.sweep_every {
        engine.sweep_every(every)?;
    }
    Ok(Handle::new(engine))
}

/// The indexes as they are being rebuilt.
struct Recovery {
    hasher: KeyHasher,
    by_name: HashMap<String, Arc<Space>>,
    by_id: HashMap<u32, Arc<Space>>,
    next_id: u32,
    dead_bytes: u64,
    /// The orders of keys in the checkpoint, where they are wanted.
    orders: Option<StoredOrders>,
    /// Name of the checkpoint that it began with, zeros for none.
    checkpoint: [u8; 16],
}

impl Recovery {
    fn new(hasher: &KeyHasher) -> Self {
        let mut recovery = Self {
            hasher: hasher.clone(),
            by_name: HashMap::new(),
            by_id: HashMap::new(),
            next_id: 1,
            dead_bytes: 0,
            orders: None,
            checkpoint: [0; 16],
        };
        recovery.insert(Space::new(String::new(), 0, 0, HashIndex::new()));
        recovery
    }

    fn insert(&mut self, space: Space) {
        let space = Arc::new(space);
        if let Some(old) = self.by_name.insert(space.name.clone(), Arc::clone(&space)) {
            self.by_id.remove(&old.id());
        }
        self.by_id.insert(space.id(), space);
    }

    fn from_start(opening: &Opening, hasher: &KeyHasher) -> Result<Self> {
        let mut recovery = Self::new(hasher);
        recovery.replay(opening, FIRST_POSITION)?;
        Ok(recovery)
    }

    /// What the checkpoint holds, if it belongs to this journal and is whole.
    fn from_checkpoint(
        opening: &Opening,
        hasher: &KeyHasher,
        range_scans: bool,
    ) -> Option<(Self, u64)> {
        let mut sidecar = opening.sidecar()?;
        let head = checkpoint_head(&mut sidecar)?;
        let header = opening.header();
        let fits = head.database_id == header.database_id
            && head.generation == header.generation
            // A copy of this database that went on by itself has checkpoints of its own.
            && header.names(&head.nonce)
            // Another release may hash otherwise, and would miss keys.
            && head.hash_check == hasher.check()
            // Below the confirmed position nothing is ever cut, so the image cannot
            // know more than the journal.
            && head.replay_from <= header.confirmed
            && head.replay_from <= opening.file_bytes();
        if !fits {
            return None;
        }
        let mut recovery = Self::new(hasher);
        recovery.next_id = head.next_namespace;
        recovery.dead_bytes = head.dead_bytes;
        recovery.checkpoint = head.nonce;
        let mut orders = range_scans.then(|| StoredOrders::new(&head));
        for space in &head.spaces {
            let index = image(&mut sidecar, space, head.replay_from)?;
            let restored = Space::from_checkpoint(space.name.clone(), space.id, index);
            restored.set_counts(space.records, space.logical_bytes);
            recovery.insert(restored);
            if let Some(orders) = &mut orders {
                orders.add(space, &mut sidecar);
            }
        }
        recovery.orders = orders;
        Some((recovery, head.replay_from))
    }

    /// Reads every image throughout.
    fn is_sound(&self) -> bool {
        let mut entries = Vec::new();
        self.by_name.values().all(|space| {
            let mut next = Some(Cursor::default());
            while let Some(at) = next {
                match space.index.copy_segment(at, &mut entries) {
                    Ok(further) => next = further,
                    Err(_) => return false,
                }
            }
            true
        })
    }

    fn replay(&mut self, opening: &Opening, from: u64) -> Result<()> {
        let look_back = |position, look: &mut dyn FnMut(&Frame<'_>)| {
            look(&opening.head(position, &Opened::new())?);
            Ok(())
        };
        replay::changes(opening, from, &self.hasher.clone(), &mut |changes| {
            self.apply(changes, &look_back)
        })
    }

    /// Applies changes in order, the index lines they need on their way before.
    fn apply(&mut self, changes: &[Change], look_back: &LookBack<'_>) -> Result<()> {
        /// Changes looked ahead.
        const AHEAD: usize = 16;
        // Neighbours are mostly of one namespace.
        let mut near: Option<Arc<Space>> = None;
        for (at, change) in changes.iter().enumerate() {
            if let Some(next) = changes.get(at + AHEAD)
                && let Some(space) = &near
                && space.id() == next.namespace
            {
                space.index.prefetch(next.hash);
            }
            if change.kind == Kind::Catalog {
                let mut changed = Ok(());
                look_back(change.position, &mut |frame| {
                    changed = self.change_catalog(change.position, frame);
                })?;
                changed?;
                near = None;
                continue;
            }
            let space = match &near {
                Some(space) if space.id() == change.namespace => space,
                _ => {
                    let space = self.by_id.get(&change.namespace).ok_or_else(|| {
                        Error::corrupted(change.position, "a record of an unknown namespace")
                    })?;
                    near.insert(Arc::clone(space))
                }
            };
            if let Some(orders) = &mut self.orders {
                orders.note(change.position);
            }
            let delta = change.apply(space, &self.hasher, look_back, &mut |_| false)?;
            self.dead_bytes = self.dead_bytes.saturating_add(delta.dead_bytes);
        }
        Ok(())
    }

    fn change_catalog(&mut self, position: u64, frame: &Frame<'_>) -> Result<()> {
        let bad = || Error::corrupted(position, "a malformed catalog frame");
        let name = std::str::from_utf8(frame.key).map_err(|_| bad())?;
        let old = self.by_name.get(name);
        let dead = old.map_or(0, |old| dead_bytes_of(old.records(), old.logical_bytes()));
        let id = match (CatalogChange::decode(frame.value).map_err(|_| bad())?, old) {
            (CatalogChange::Create(id), None) | (CatalogChange::Clear(id), Some(_)) => {
                self.insert(Space::new(name.to_owned(), id, position, HashIndex::new()));
                id
            }
            (CatalogChange::Drop(id), Some(space)) if space.id() == id && !name.is_empty() => {
                self.by_name.remove(name);
                self.by_id.remove(&id);
                id
            }
            _ => return Err(bad()),
        };
        self.dead_bytes = self.dead_bytes.saturating_add(dead);
        self.next_id = self.next_id.max(id.saturating_add(1));
        Ok(())
    }
}

fn checkpoint_head(sidecar: &mut Sidecar<'_>) -> Option<CheckpointHead> {
    let len = sidecar.bytes_len();
    let trailer_len = CheckpointHead::TRAILER_LEN as u64;
    let trailer = sidecar.read(len.checked_sub(trailer_len)?, trailer_len)?;
    let offset = CheckpointHead::offset(&trailer).ok()?;
    let head = sidecar.read(offset, len.checked_sub(offset)?)?;
    CheckpointHead::decode(&head).ok()
}

/// The image of one namespace's index.
fn image(
    sidecar: &mut Sidecar<'_>,
    space: &CheckpointSpace,
    max_position: u64,
) -> Option<HashIndex> {
    let len = usize::try_from(space.image_len).ok()?;
    let image = Image(sidecar.open(space.image_offset, space.image_len)?);
    HashIndex::from_image(Box::new(image), 0, len, max_position).ok()
}

struct Image(Box<dyn SidecarMemory>);

impl ImageMemory for Image {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

impl Engine {
    /// Builds an index again from the journal after its image turned out damaged.
    /// Readers that miss meanwhile wait.
    #[cold]
    pub(crate) fn rebuild(&self, space: &Arc<Space>) -> Result<()> {
        use emdb_journal::Error as Journal;
        let write_side = match self.journal.begin("rebuild an index") {
            Ok(batch) => Some(batch),
            // Nobody writes any more, so other rebuilders are all there is to keep out.
            Err(Journal::ReadOnly | Journal::Poisoned | Journal::Closed) => None,
            Err(error) => return Err(error.into()),
        };
        let alone = write_side.is_none().then(|| self.catalog.alone());
        if space.is_checked() {
            // Another thread was quicker.
            return Ok(());
        }
        space.begin_rebuild();
        let id = space.id();
        let look_back = |position, look: &mut dyn FnMut(&Frame<'_>)| {
            look(&self.journal.head(position, &Opened::new())?);
            Ok(())
        };
        let mut kept = Vec::new();
        let snapshots = self.snapshots.count() > 0;
        let rebuilt = self.journal.replay(FIRST_POSITION, &mut |replayed| {
            let frame = replayed.frame;
            if frame.kind == Kind::Catalog || frame.namespace != id {
                return Ok(());
            }
            let change = Change::new(&self.hasher, replayed.position, frame);
            let mut keep_tombstone = |position| {
                if snapshots {
                    kept.push((change.hash, position));
                }
                snapshots
            };
            change
                .apply(space, &self.hasher, &look_back, &mut keep_tombstone)
                .map(drop)
        });
        let rebuilt = match rebuilt {
            // Readers that miss wait, so this looks at the index itself.
            Ok(()) if self.range_scans => self.build_order(space),
            other => other,
        };
        space.set_checked(rebuilt.is_ok());
        space.end_rebuild();
        drop((write_side, alone));
        for (hash, position) in kept {
            let space = Arc::clone(space);
            self.snapshots.keep(KeptTombstone {
                space,
                hash,
                position,
            });
        }
        rebuilt
    }
}
