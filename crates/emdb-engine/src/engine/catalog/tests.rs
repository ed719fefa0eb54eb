//! What snapshots find of contents that are being exchanged.

use super::*;
use crate::{Emdb, Result};

/// A snapshot that was opened while a clear was being committed found nothing at all, neither
/// what was cleared nor what came after, if another one was closed at the same moment.
#[test]
fn who_opens_a_snapshot_while_a_clear_is_hidden_finds_what_it_clears() -> Result<()> {
    let db = Emdb::open_in_memory();
    db.insert("key", "value")?;
    let engine = db.engine();
    let batch = engine.journal.begin("clear")?;
    let id = engine.catalog.next_id();
    let value = CatalogChange::Clear(id).encode();
    let mut snapshot = None;
    batch.commit_single(&FrameSpec::new(Kind::Catalog, b"", &value), |position| {
        let next = Next::empty(id, position);
        let exchanging = engine.catalog.end(&engine.root, next, false);
        // The last one that is closed gives back what nobody needs.
        drop(db.snapshot());
        snapshot = Some(db.snapshot());
        exchanging
    })?;
    let snapshot = snapshot.transpose()?;
    let seen = snapshot.as_ref().map(|snapshot| snapshot.get("key"));
    assert_eq!(seen.transpose()?.flatten().as_deref(), Some(&b"value"[..]));
    assert_eq!(db.get("key")?, None);
    drop(snapshot);
    assert_eq!(engine.catalog.past_count.load(Ordering::SeqCst), 0);
    Ok(())
}
