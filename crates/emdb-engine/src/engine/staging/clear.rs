//! Clearing a namespace in a transaction.
//!
//! From then on the transaction works on a space of its own, which is empty and has the id
//! of the next incarnation. What it had staged before stays where it is, so that a
//! savepoint or a rollback finds it there. At the commit, the contents of its space take
//! the place of those that everybody knows: see [`Space::end`].

use std::sync::Arc;

use emdb_format::CatalogChange;
use emdb_index::HashIndex;
use emdb_journal::{FrameSpec, Kind};

use super::{Saved, Staging, Touched};
use crate::engine::catalog::{bump, dead_bytes_of};
use crate::engine::{Engine, index_error};
use crate::space::{Delta, Exchanging, Next, Space};
use crate::{Error, Result};

impl Engine {
    /// Empties a namespace in the transaction, whatever its size.
    pub(crate) fn clear_in(&self, number: u64, at: usize) -> Result<()> {
        let mut guard = self.open_staging(number)?;
        let staging = &mut *guard;
        staging.drain(self)?;
        let name = staging.touched(at)?.base.name.clone();
        let id = staging.next_id;
        let next_id = bump(id)?;
        let value = CatalogChange::Clear(id).encode();
        let batch = staging.batch.as_mut().ok_or(Error::Closed)?;
        let born = batch.append(&FrameSpec::new(Kind::Catalog, name.as_bytes(), &value))?;
        // A reader may hold on to an entry of what was staged before.
        batch.overrule();
        staging.next_id = next_id;
        let space = Arc::new(Space::new(name, id, born, HashIndex::new()));
        staging.go_on_in(at, space)
    }

    /// Lets the contents of a namespace that the transaction cleared be seen in the place
    /// of those from before; `None` if it did not. The batch is sealed.
    pub(super) fn exchange(&self, touched: &mut Touched) -> Option<Exchanging> {
        let contents = touched.contents.take()?;
        let (own, delta) = (&touched.space, &touched.delta);
        let next = Next {
            id: touched.id,
            born: own.created,
            contents: Some(contents),
            order: own.begun_order(),
            is_order_broken: own.is_order_broken(),
            records: own.records().saturating_add_signed(delta.records),
            logical_bytes: own
                .logical_bytes()
                .saturating_add_signed(delta.logical_bytes),
        };
        let exchanging = self.catalog.end(&touched.base, next, false);
        touched.space = Arc::clone(&touched.base);
        Some(exchanging)
    }
}

impl Staging {
    fn go_on_in(&mut self, at: usize, space: Arc<Space>) -> Result<()> {
        let touched = self.touched.get_mut(at).ok_or(Error::NamespaceDropped)?;
        let records = touched.space.records();
        let records = records.saturating_add_signed(touched.delta.records);
        let bytes = touched.space.logical_bytes();
        let bytes = bytes.saturating_add_signed(touched.delta.logical_bytes);
        let mut next = Touched::new(space, touched.created);
        next.base = Arc::clone(&touched.base);
        next.delta = Delta {
            dead_bytes: touched.delta.dead_bytes + dead_bytes_of(records, bytes),
            ..Delta::default()
        };
        next.earlier = std::mem::take(&mut touched.earlier);
        let began = touched.space.created;
        let before = std::mem::replace(touched, next);
        let is_needed = |saved: &Saved| saved.mark.position() > began;
        if touched.earlier.is_empty() || self.savepoints.iter().any(is_needed) {
            touched.earlier.push(before);
        }
        Ok(())
    }
}

impl Touched {
    /// Undoes clears from this position on.
    pub(super) fn undo_clears(&mut self, from: u64) {
        if let Some(contents) = self.contents.take() {
            self.base.index.release(contents);
        }
        while self.space.created >= from
            && let Some(mut before) = self.earlier.pop()
        {
            before.earlier = std::mem::take(&mut self.earlier);
            *self = before;
        }
    }

    /// Brings what the transaction has stored since it cleared the namespace to where it
    /// can take the place of what there is.
    pub(super) fn seal_clear(&mut self) -> Result<()> {
        // What the transaction created, nobody else knows.
        if !self.earlier.is_empty() && !self.created {
            let contents = self.base.index.import(&self.space.index);
            self.contents = Some(contents.map_err(index_error)?);
        }
        Ok(())
    }
}
