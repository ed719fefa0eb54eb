//! The time that records expire by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Gives milliseconds since the Unix epoch.
pub(crate) type TimeSource = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A clock that never goes backwards, so that what has expired stays expired.
#[derive(Default)]
pub(crate) struct Clock {
    latest_ms: AtomicU64,
    source: Option<TimeSource>,
}

impl Clock {
    pub(crate) fn new(source: Option<TimeSource>) -> Self {
        Self {
            latest_ms: AtomicU64::new(0),
            source,
        }
    }

    /// Milliseconds since the Unix epoch; at least what any call before gave.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = match &self.source {
            Some(source) => source(),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
        };
        // Relaxed: the number is all there is to see. Most calls find it as it is, and
        // leave the cache line alone.
        if self.latest_ms.load(Ordering::Relaxed) == now {
            return now;
        }
        self.latest_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_backwards() {
        let time = Arc::new(AtomicU64::new(50));
        let source = Arc::clone(&time);
        let clock = Clock::new(Some(Arc::new(move || source.load(Ordering::Relaxed))));
        assert_eq!(clock.now_ms(), 50);
        time.store(40, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 50);
        time.store(60, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 60);
    }

    #[test]
    fn the_systems_time_is_of_this_century() {
        assert!(Clock::default().now_ms() > 946_684_800_000);
    }
}
