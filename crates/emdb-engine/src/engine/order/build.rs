//! Putting the keys of a namespace in order by reading them all, in several threads.

use std::borrow::Cow;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use emdb_index::{Cursor, Location, OrderedIndex};
use emdb_journal::Opened;

use crate::engine::Engine;
use crate::space::Space;
use crate::{Error, Result};

/// Fewer keys are not worth another thread.
const KEYS_A_THREAD: usize = 1 << 15;
/// More threads wait for memory, and for each other.
const THREADS_MAX: usize = 4;
/// Records on their way into the cache at once.
const AHEAD: usize = 64;
/// Keys from which is guessed what all begin with.
const SAMPLES: usize = 64;

/// A record to be put in its place.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    /// What tells most keys apart without looking at them; see [`rank`].
    pub(super) rank: u64,
    pub(super) bytes: &'a [u8],
    pub(super) location: Location,
}

impl Key<'_> {
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let ranks = self.rank.cmp(&other.rank);
        ranks.then_with(|| self.bytes.cmp(other.bytes))
    }
}

impl Engine {
    /// Puts the keys of a namespace in order; nobody changes it meanwhile.
    pub(in crate::engine) fn build_order(&self, space: &Arc<Space>) -> Result<()> {
        let mut keys = Vec::new();
        let mut entries = Vec::new();
        let mut next = Some(Cursor::default());
        while let Some(at) = next {
            next = self.copy_entries(space, space.id(), at, &mut entries)?;
            keys.extend(entries.iter().map(|entry| Key {
                rank: 0,
                bytes: &[],
                location: entry.location,
            }));
        }
        let mut rooms = Vec::new();
        self.sort(&mut keys, &mut rooms)?;
        let sorted = keys.into_iter().map(|key| (key.bytes, key.location));
        let order = OrderedIndex::build(sorted)
            .map_err(|_| Error::corrupted(0, "two records of one key in the index"))?;
        space.set_order(order);
        Ok(())
    }

    /// Reads the keys, into `rooms` if need be, and sorts them.
    fn sort<'a>(&'a self, keys: &mut [Key<'a>], rooms: &'a mut Vec<Opened>) -> Result<()> {
        let step = (keys.len() / SAMPLES).max(1);
        let samples = keys.iter().step_by(step);
        let samples: Vec<_> = samples
            .map(|key| self.key_at(key.location))
            .collect::<Result<_>>()?;
        let prefix = common_prefix(&samples);
        let sort = |part: &mut [Key<'a>], room: &'a Opened| {
            self.read_keys(part, prefix, room)?;
            part.sort_unstable_by(Key::order);
            Ok::<(), Error>(())
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (keys.len() / KEYS_A_THREAD).min(cores).min(THREADS_MAX);
        let threads = threads.max(1);
        rooms.resize_with(threads, Opened::new);
        let parts = keys.chunks_mut(keys.len().div_ceil(threads).max(1));
        let parts = Mutex::new(parts.zip(rooms));
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((part, room)) = next() {
                sort(part, room)?;
            }
            Ok::<(), Error>(())
        };
        std::thread::scope(|scope| {
            // Without another thread, this one does it all.
            let helpers: Vec<_> = (1..threads)
                .map_while(|_| {
                    let builder = std::thread::Builder::new().name("emdb-order".to_owned());
                    builder.spawn_scoped(scope, work).ok()
                })
                .collect();
            let own = work();
            helpers
                .into_iter()
                .map(|helper| helper.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .fold(own, Result::and)
        })?;
        // Merges what is sorted already.
        keys.sort_by(Key::order);
        Ok(())
    }

    fn read_keys<'a>(
        &'a self,
        keys: &mut [Key<'a>],
        prefix: &[u8],
        room: &'a Opened,
    ) -> Result<()> {
        for part in keys.chunks_mut(AHEAD) {
            for key in part.iter() {
                self.journal.prefetch(key.location.get());
            }
            for key in part {
                let position = key.location.get();
                // A damaged key would stand where nobody looks for it.
                key.bytes = self.journal.verified_key_in(position, room)?;
                key.rank = rank(key.bytes, prefix);
            }
        }
        Ok(())
    }
}

/// What all of the keys begin with.
fn common_prefix<'a>(keys: &'a [Cow<'_, [u8]>]) -> &'a [u8] {
    let Some(first) = keys.first() else {
        return &[];
    };
    let common = |key: &Cow<'_, [u8]>| {
        let both = first.iter().zip(key.iter());
        both.take_while(|(a, b)| a == b).count()
    };
    let len = keys.iter().map(common).min().unwrap_or(0);
    first.get(..len).unwrap_or_default()
}

/// A number that rises with the keys: the first bytes behind `prefix`, which most
/// keys begin with.
pub(super) fn rank(key: &[u8], prefix: &[u8]) -> u64 {
    let Some(rest) = key.strip_prefix(prefix) else {
        return if key < prefix { 0 } else { u64::MAX };
    };
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    #[expect(clippy::big_endian_bytes, reason = "the first byte decides first")]
    u64::from_be_bytes(bytes)
}
