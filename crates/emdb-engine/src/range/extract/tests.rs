//! What a removal leaves behind in the indexes.

use crate::{Emdb, EmdbBuilder, Result};

fn filled(builder: EmdbBuilder) -> Result<Emdb> {
    let db = builder.enable_range_scans(true).build()?;
    db.insert_many((0..300).map(|number| (format!("{number:03}"), "value")))?;
    Ok(db)
}

#[test]
fn what_only_extract_if_itself_has_passed_is_removed_at_once() -> Result<()> {
    removes_at_once(Emdb::builder())
}

#[cfg(feature = "encrypt")]
#[test]
fn what_only_extract_if_itself_has_passed_is_removed_at_once_where_records_are_sealed() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("sealed");
    removes_at_once(Emdb::builder().path(path).encryption_key([7; 32]))
}

fn removes_at_once(builder: EmdbBuilder) -> Result<()> {
    let db = filled(builder)?;
    let mut extracted = db.extract_if(|_, _| true)?;
    for _ in 0..200 {
        assert!(extracted.next().transpose()?.is_some());
    }
    assert!(!db.engine().snapshots.has_kept());
    assert_eq!(db.engine().root.order().len(), 100);
    // What comes back is not met again.
    db.insert("000", "again")?;
    assert_eq!(extracted.count(), 100);
    assert_eq!(db.range(..)?, [(b"000".to_vec(), b"again".to_vec())]);
    Ok(())
}

#[test]
fn what_a_snapshot_needs_is_kept_from_extract_if() -> Result<()> {
    let db = filled(Emdb::builder())?;
    let before = db.range(..)?;
    let mut extracted = db.extract_if(|_, _| true)?;
    let mut first: Vec<_> = extracted.by_ref().take(20).collect::<Result<_>>()?;
    let snapshot = db.snapshot()?;
    let rest: Vec<_> = extracted.collect::<Result<_>>()?;
    assert!(db.engine().snapshots.has_kept());
    assert_eq!(snapshot.range(..)?, before.get(20..).unwrap_or_default());
    assert_eq!(snapshot.get("299")?.as_deref(), Some(&b"value"[..]));
    first.extend(rest);
    assert_eq!(first, before);
    assert!(db.is_empty()?);
    Ok(())
}
