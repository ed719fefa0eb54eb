//! How far the journal may grow beyond the last checkpoint, and how fast once it is about
//! to grow too far.
//!
//! While a checkpoint is being taken, writers go on as ever at first. What room is left
//! then they may fill by as much of the rest in each moment, so that they become slower
//! and never get to its end, and no single one has to wait for long.

use std::time::{Duration, Instant};

/// How long a writer that is ahead waits before it looks again: less than a pause that
/// somebody might notice.
pub(super) const STEP: Duration = Duration::from_micros(500);
/// In this time writers fill 63 % of the room that is left.
const TIME: Duration = Duration::from_secs(2);
/// The room, as a part of what the journal may grow by.
const ROOM_PART: u64 = 5;
/// What writers fill behind a transaction that went beyond before they are slowed down, as a
/// part of the growth at which a checkpoint is wanted.
const FREE_PART: u64 = 2;

/// How long a single write may take longer, at most: so no thread gets on by more than
/// some hundred small records or a MiB a second, should the room be used up all the same.
pub(super) fn patience(bytes: u64) -> Duration {
    const MOST_BYTES: u64 = 10 << 20;
    Duration::from_millis(2) + Duration::from_micros(bytes.min(MOST_BYTES))
}

/// Growth of the journal since the last checkpoint, in bytes.
pub(super) struct Growth {
    /// At which one is wanted.
    pub(super) wanted: u64,
    /// At which one has to be there.
    most: u64,
}

impl Growth {
    /// By what was configured.
    pub(super) fn of(bytes: u64) -> Self {
        const LEAST_BYTES: u64 = 32 << 20;
        Self {
            wanted: bytes.max(1),
            most: bytes.saturating_add(bytes.max(LEAST_BYTES)),
        }
    }

    /// By default: little enough to be replayed soon, and enough that indexes are not
    /// written all the time.
    pub(super) fn by_index(index_bytes: u64) -> Self {
        const WANTED_BYTES: u64 = 512 << 20;
        // Opening replays at most 1 GiB: this, and what single writers were ahead.
        const MOST_BYTES: u64 = 960 << 20;
        Self {
            wanted: WANTED_BYTES.max(index_bytes.saturating_add(index_bytes / 2)),
            most: MOST_BYTES.max(index_bytes.saturating_mul(3)),
        }
    }
}

/// Up to where the journal may grow while a checkpoint is being taken.
pub(super) struct Pace {
    /// From here on writers are slowed down.
    from: u64,
    room: u64,
    /// When the first one came there.
    since: Option<Instant>,
}

impl Pace {
    /// For a checkpoint that is wanted at a position, the last one being of another.
    pub(super) fn new(growth: &Growth, last: u64, at: u64) -> Self {
        let room = growth.most / ROOM_PART;
        let from = last.saturating_add(growth.most - room);
        // A transaction may have gone beyond by itself: who writes after it goes on as ever for
        // as long as a checkpoint usually takes.
        let free = at.saturating_add(growth.wanted / FREE_PART);
        Self {
            from: if at > from { free } else { from },
            room,
            since: None,
        }
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// The position below which nobody has to wait at this time.
    pub(super) fn allowed(&mut self, now: Instant) -> u64 {
        let since = *self.since.get_or_insert(now);
        let times = now.saturating_duration_since(since).as_secs_f64() / TIME.as_secs_f64();
        let left = self.room as f64 * (-times).exp();
        self.from
            .saturating_add(self.room - (left as u64).min(self.room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check_end(growth: &Growth, at: u64, end: u64) {
        let last = 3 * MIB;
        let mut pace = Pace::new(growth, last, last + at);
        let now = Instant::now();
        let mut before = pace.from();
        for seconds in 0..60 {
            let allowed = pace.allowed(now + Duration::from_secs(seconds));
            assert!(before <= allowed && allowed <= last + end);
            before = allowed;
        }
        assert!(before + MIB > last + end, "the room was not used");
    }

    #[test]
    fn growth_ends_where_it_must_whatever_the_time() {
        check_end(&Growth::by_index(0), 512 * MIB, 960 * MIB);
        // After a transaction, too, unless it went beyond that by itself.
        check_end(&Growth::by_index(0), 768 * MIB, 960 * MIB);
        check_end(&Growth::by_index(308 * MIB), 462 * MIB, 960 * MIB);
        check_end(&Growth::by_index(1 << 30), 1536 * MIB, 3072 * MIB);
        check_end(&Growth::of(1), 1, 32 * MIB + 1);
        check_end(&Growth::of(100 * MIB), 100 * MIB, 200 * MIB);
    }

    #[test]
    fn who_writes_after_a_batch_that_went_beyond_is_not_slowed_at_once() {
        let growth = Growth::by_index(0);
        check_end(&growth, 5000 * MIB, (5000 + 256 + 192) * MIB);
        let at = 5000 * MIB;
        assert_eq!(Pace::new(&growth, 0, at).from(), at + 256 * MIB);
    }

    #[test]
    fn extreme_settings_overflow_nowhere() {
        for bytes in [0, u64::MAX] {
            let now = Instant::now();
            for growth in [Growth::of(bytes), Growth::by_index(bytes)] {
                assert!(growth.wanted > 0);
                Pace::new(&growth, u64::MAX - 1, u64::MAX).allowed(now);
            }
        }
    }

    #[test]
    fn small_writes_wait_less_than_anybody_notices() {
        assert!(patience(200) < Duration::from_millis(3));
    }
}
