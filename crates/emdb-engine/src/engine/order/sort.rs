//! Sorting records by their keys, which stand in the journal and not in memory.

use emdb_journal::Journal;

use crate::Result;

/// Bytes of a key that are compared without another look at it.
const KNOWN: usize = 7;
/// Records whose memory is on its way while others are looked at.
pub(super) const AHEAD: usize = 16;

/// A record, and where it stands among those with which it has been compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Placed {
    /// The next bytes of the key, then how many of them there are, or one more.
    next: u64,
    pub(super) position: u64,
}

/// Records in the order of their keys; of equal keys, in that of their positions.
///
/// Takes 16 bytes for each, and looks at a key once more for every seven bytes that it
/// has in common with others beyond what all of these have in common.
pub(super) fn by_key(
    journal: &Journal,
    positions: impl Iterator<Item = u64>,
) -> Result<Vec<Placed>> {
    let unplaced = |position| Placed { next: 0, position };
    let mut all: Vec<_> = positions.map(unplaced).collect();
    if is_sorted(journal, &all)? {
        return Ok(all);
    }
    // Parts whose keys have so many bytes in common.
    let mut parts = vec![(0..all.len(), 0)];
    while let Some((range, common)) = parts.pop() {
        let start = range.start;
        let Some(part) = all.get_mut(range) else {
            continue;
        };
        let common = common + common_len(journal, part, common)?;
        for at in 0..part.len() {
            prefetch(journal, part, at);
            if let Some(placed) = part.get_mut(at) {
                let key = journal.key(placed.position)?;
                placed.next = next_bytes(key.get(common..).unwrap_or_default());
            }
        }
        part.sort_unstable();
        let mut end = start;
        for equal in part.chunk_by(|a, b| a.next == b.next) {
            end += equal.len();
            let goes_on = equal
                .first()
                .is_some_and(|first| first.next as u8 as usize > KNOWN);
            if goes_on && equal.len() > 1 {
                parts.push((end - equal.len()..end, common + KNOWN));
            }
        }
    }
    Ok(all)
}

/// Whether they came in that order. Looks at no record behind the first that did not.
fn is_sorted(journal: &Journal, all: &[Placed]) -> Result<bool> {
    let mut last = None;
    for (at, placed) in all.iter().enumerate() {
        prefetch(journal, all, at);
        let next = (journal.key(placed.position)?, placed.position);
        if last.is_some_and(|last| last > next) {
            return Ok(false);
        }
        last = Some(next);
    }
    Ok(true)
}

/// How many bytes all keys have in common behind the first `from`.
fn common_len(journal: &Journal, part: &[Placed], from: usize) -> Result<usize> {
    let Some(first) = part.first() else {
        return Ok(0);
    };
    let first = journal.key(first.position)?;
    let mut common = first.get(from..).unwrap_or_default();
    for (at, placed) in part.iter().enumerate().skip(1) {
        if common.is_empty() {
            break;
        }
        prefetch(journal, part, at);
        let key = journal.key(placed.position)?;
        let rest = key.get(from..).unwrap_or_default();
        let len = common.iter().zip(rest).take_while(|(a, b)| a == b).count();
        common = common.get(..len).unwrap_or_default();
    }
    Ok(common.len())
}

fn prefetch(journal: &Journal, part: &[Placed], at: usize) {
    if let Some(ahead) = part.get(at + AHEAD) {
        journal.prefetch(ahead.position);
    }
}

/// Compares as the bytes do, but for what comes behind the first few.
fn next_bytes(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest.iter().take(KNOWN)) {
        *to = *from;
    }
    #[expect(clippy::big_endian_bytes, reason = "the first byte decides first")]
    let bytes = u64::from_be_bytes(bytes);
    bytes | rest.len().min(KNOWN + 1) as u64
}
