//! What may be given as a range.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: any of the standard ranges over what is `AsRef<[u8]>`, or a pair of
/// [`Bound`]s. Nobody else can implement it.
///
/// # Examples
///
/// ```
/// use std::ops::Bound;
///
/// let db = emdb_engine::Emdb::builder().enable_range_scans(true).build()?;
/// db.range("a".."c")?;
/// db.range(b"a".to_vec()..=b"c".to_vec())?;
/// db.range(..)?;
/// db.range((Bound::Excluded("a"), Bound::Unbounded))?;
/// # Ok::<(), emdb_engine::Error>(())
/// ```
pub trait KeyRange: sealed::Sealed {
    #[doc(hidden)]
    fn lower(&self) -> Bound<&[u8]>;
    #[doc(hidden)]
    fn upper(&self) -> Bound<&[u8]>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! key_range {
    ($range:ty, $self:ident, $lower:expr, $upper:expr) => {
        impl<K: AsRef<[u8]>> sealed::Sealed for $range {}
        impl<K: AsRef<[u8]>> KeyRange for $range {
            fn lower(&$self) -> Bound<&[u8]> {
                $lower
            }
            fn upper(&$self) -> Bound<&[u8]> {
                $upper
            }
        }
    };
}

key_range!(
    Range<K>,
    self,
    Bound::Included(self.start.as_ref()),
    Bound::Excluded(self.end.as_ref())
);
key_range!(
    RangeInclusive<K>,
    self,
    Bound::Included(self.start().as_ref()),
    Bound::Included(self.end().as_ref())
);
key_range!(
    RangeFrom<K>,
    self,
    Bound::Included(self.start.as_ref()),
    Bound::Unbounded
);
key_range!(
    RangeTo<K>,
    self,
    Bound::Unbounded,
    Bound::Excluded(self.end.as_ref())
);
key_range!(
    RangeToInclusive<K>,
    self,
    Bound::Unbounded,
    Bound::Included(self.end.as_ref())
);
key_range!(
    (Bound<K>, Bound<K>),
    self,
    as_bytes(&self.0),
    as_bytes(&self.1)
);

impl sealed::Sealed for RangeFull {}
impl KeyRange for RangeFull {
    fn lower(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
    fn upper(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
}

fn as_bytes<K: AsRef<[u8]>>(bound: &Bound<K>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key.as_ref()),
        Bound::Excluded(key) => Bound::Excluded(key.as_ref()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The first key above all that begin with `prefix`; `None` if there is none.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(prefix_end(b"a"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
