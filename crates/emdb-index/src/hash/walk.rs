//! Walks over all entries, and contents that were cut off by a clear.

use crate::{Entry, Error, FindError, Verdict, primitive::lock};

use super::{
    HashIndex, Structure,
    directory::{Directory, DirectoryId, Leaf},
    growth::Shape,
    segment::Contents,
    word::Hash,
};

/// How far a walk has come. The default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(u64);

/// The contents an index had before [`HashIndex::detach`], or may get by
/// [`HashIndex::exchange`].
///
/// Its memory belongs to the index: pass it to [`HashIndex::release`] when it
/// is no longer needed, or the memory stays in use until the index is dropped.
#[derive(Debug)]
#[must_use]
pub struct Detached {
    index: u64,
    tree: usize,
}

/// A root that is no longer, or not yet, the index's.
#[derive(Debug)]
pub(super) struct Tree {
    directory: DirectoryId,
    shape: Shape,
}

impl HashIndex {
    /// Empties the index. What it held stays readable through the result.
    ///
    /// Nobody may hold a [`Guard`](super::Guard) meanwhile, or take one;
    /// otherwise changes may be lost. Readers may go on.
    pub fn detach(&self) -> Detached {
        let fresh = self.fill(self.arena.take_or_abort(), &Contents::new(), 0);
        self.meta_unlock(fresh);
        let mut shape = Shape::new();
        shape.add(0);
        let directory = self.directories.make(0, |_| fresh);
        self.exchange(self.set_aside(Tree { directory, shape }))
    }

    /// Copies what another index holds into the memory of this one, for
    /// [`exchange`](Self::exchange). This one does not change.
    ///
    /// Nobody may change the other index meanwhile.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no memory, [`Error::Damaged`] if the other index
    /// comes from an image and is damaged.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use emdb_index::{HashIndex, Location, Verdict};
    ///
    /// let (index, next) = (HashIndex::new(), HashIndex::new());
    /// let location = Location::new(1).ok_or("no location")?;
    /// let mut guard = next.lock(7)?;
    /// guard.make_room(|_| Ok::<_, Infallible>(7))?;
    /// guard.insert(location, false);
    /// drop(guard);
    ///
    /// let old = index.exchange(index.import(&next)?);
    /// let found = index.find(7, |entry| Ok::<_, Infallible>(Verdict::Found(entry.location)))?;
    /// assert_eq!(found, Some(location));
    /// index.release(old);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import(&self, other: &HashIndex) -> Result<Detached, Error> {
        let shape = lock(&other.structure).shape.clone();
        // Each with the last rank that it covers.
        let mut leaves: Vec<(u64, Leaf)> = Vec::new();
        let mut start = Some(0_u64);
        while let Some(rank) = start {
            let copied = other.verified_leaf(rank).and_then(|leaf| {
                let contents = other.arena.segment(leaf.id()).copy();
                let fresh = self.fresh(&contents, leaf.depth())?;
                self.meta_unlock(fresh);
                Ok((rank | leaf.span(), fresh))
            });
            match copied {
                Ok(leaf) => {
                    leaves.push(leaf);
                    start = leaf.0.checked_add(1);
                }
                Err(error) => {
                    let ids = leaves.iter().map(|(_, leaf)| leaf.id());
                    self.arena.give_back(ids);
                    return Err(error);
                }
            }
        }
        let mut at = 0;
        let directory = self.directories.make(shape.bits(), |rank| {
            while leaves[at].0 < rank {
                at += 1;
            }
            leaves[at].1
        });
        Ok(self.set_aside(Tree { directory, shape }))
    }

    /// Puts detached contents in the place of what the index holds, which the result
    /// then stands for.
    ///
    /// As for [`detach`](Self::detach), nobody may hold a guard meanwhile. Does nothing if
    /// the contents are another index's.
    pub fn exchange(&self, detached: Detached) -> Detached {
        let mut structure = lock(&self.structure);
        let Structure {
            shape,
            detached: trees,
            ..
        } = &mut *structure;
        if detached.index == self.id
            && let Some(place) = trees.get_mut(detached.tree)
            && let Some(new) = place.take()
        {
            let old = self.directories.publish(new.directory);
            let old_shape = std::mem::replace(shape, new.shape);
            *place = old.map(|directory| Tree {
                directory,
                shape: old_shape,
            });
        }
        detached
    }

    fn set_aside(&self, tree: Tree) -> Detached {
        let mut structure = lock(&self.structure);
        let free = structure.detached.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            structure.detached.push(None);
            structure.detached.len() - 1
        });
        structure.detached[at] = Some(tree);
        Detached {
            index: self.id,
            tree: at,
        }
    }

    /// Takes the memory of detached contents back.
    ///
    /// Does nothing if they are another index's.
    pub fn release(&self, detached: Detached) {
        if detached.index != self.id {
            return;
        }
        let mut structure = lock(&self.structure);
        let Some(tree) = structure
            .detached
            .get_mut(detached.tree)
            .and_then(Option::take)
        else {
            return;
        };
        let directory = self.directories.get(tree.directory);
        let mut ids = Vec::new();
        let mut start = Some(0_u64);
        while let Some(rank) = start {
            let leaf = directory.leaf(rank);
            ids.push(leaf.id());
            start = (rank | leaf.span()).checked_add(1);
        }
        self.arena.give_back(ids);
        self.directories.retire(tree.directory);
    }

    /// Copies the entries of one segment to `out`, which is cleared first, and
    /// returns where the walk goes on, or `None` at the end.
    ///
    /// Writers may go on. An entry that is there during the whole walk is seen
    /// exactly once, however segments are split and merged between the calls.
    /// A key that is removed and inserted again may be seen once, twice or not
    /// at all.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the segment comes from an image and is damaged.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_index::{Cursor, HashIndex};
    ///
    /// let index = HashIndex::new();
    /// let (mut entries, mut next) = (Vec::new(), Some(Cursor::default()));
    /// while let Some(cursor) = next {
    ///     next = index.copy_segment(cursor, &mut entries)?;
    ///     assert!(entries.is_empty());
    /// }
    /// # Ok::<(), emdb_index::Error>(())
    /// ```
    pub fn copy_segment(&self, at: Cursor, out: &mut Vec<Entry>) -> Result<Option<Cursor>, Error> {
        loop {
            let leaf = self.verified_leaf(at.0)?;
            let contents = self.arena.segment(leaf.id()).copy();
            if self.directories.root().leaf(at.0) == leaf {
                return Ok(copy_from(leaf, &contents, at, out));
            }
        }
    }

    /// Like [`Self::copy_segment`], for contents cut off by [`Self::detach`].
    ///
    /// There is nothing in the contents of another index.
    ///
    /// # Errors
    /// As [`Self::copy_segment`].
    pub fn copy_detached(
        &self,
        detached: &Detached,
        at: Cursor,
        out: &mut Vec<Entry>,
    ) -> Result<Option<Cursor>, Error> {
        out.clear();
        let Some(leaf) = self.detached_leaf(detached, at.0)? else {
            return Ok(None);
        };
        let contents = self.arena.segment(leaf.id()).copy();
        Ok(copy_from(leaf, &contents, at, out))
    }

    /// Like [`Self::find`], in contents cut off by [`Self::detach`].
    ///
    /// There is nothing in the contents of another index.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_detached<R, E>(
        &self,
        detached: &Detached,
        hash: u64,
        mut check: impl FnMut(Entry) -> Result<Verdict<R>, E>,
    ) -> Result<Option<R>, FindError<E>> {
        let hash = Hash::new(hash);
        let Some(leaf) = self.detached_leaf(detached, hash.rank())? else {
            return Ok(None);
        };
        let segment = self.arena.segment(leaf.id());
        segment
            .probe(hash, leaf.depth(), |_, word| match check(word.entry()?) {
                Ok(Verdict::Pass) => None,
                Ok(Verdict::Found(found) | Verdict::FoundAndVerified(found)) => Some(Ok(found)),
                Err(error) => Some(Err(FindError::Check(error))),
            })
            .transpose()
    }

    /// The leaf that covers a rank in detached contents, its segment verified.
    fn detached_leaf(&self, detached: &Detached, rank: u64) -> Result<Option<Leaf>, Error> {
        if detached.index != self.id {
            return Ok(None);
        }
        let tree = lock(&self.structure)
            .detached
            .get(detached.tree)
            .and_then(|tree| Some(tree.as_ref()?.directory));
        let Some(id) = tree else {
            return Ok(None);
        };
        let directory: &Directory = self.directories.get(id);
        let leaf = directory.leaf(rank);
        if leaf.is_unverified() {
            return self.verify(directory, rank).map(Some);
        }
        Ok(Some(leaf))
    }
}

/// The entries whose rank is not below the cursor.
fn copy_from(leaf: Leaf, contents: &Contents, at: Cursor, out: &mut Vec<Entry>) -> Option<Cursor> {
    let start = leaf.start(at.0);
    out.clear();
    out.extend(
        contents
            .entries()
            .filter(|(_, word)| word.rank_max(start, leaf.depth()) >= at.0)
            .filter_map(|(_, word)| word.entry()),
    );
    (start | leaf.span()).checked_add(1).map(Cursor)
}
