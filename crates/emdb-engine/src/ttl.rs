//! Records that expire: what users say about time, and the verbs.

#[cfg(feature = "ttl")]
mod verbs;

use std::time::Duration;

use crate::clock::Clock;
use crate::{Error, Result};

/// How long a record lives.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use emdb_engine::{Emdb, Ttl};
///
/// let db = Emdb::open_in_memory();
/// db.insert_with_ttl("session", "ada", Ttl::Duration(Duration::from_secs(3600)))?;
/// assert!(db.ttl("session")?.is_some());
/// # Ok::<(), emdb_engine::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// For ever, whatever the builder's default is.
    None,
    /// As long as [`EmdbBuilder::default_ttl`](crate::EmdbBuilder::default_ttl) says; for
    /// ever without one.
    #[default]
    Default,
    /// So long from now on, in whole milliseconds, rounded up.
    Duration(Duration),
    /// Until this time, in milliseconds since the Unix epoch. At that moment the record
    /// is gone.
    ExpiresAt(u64),
}

impl Ttl {
    /// The same as [`Ttl::Duration`].
    #[expect(non_snake_case, reason = "it stands beside the variants")]
    pub const fn After(duration: Duration) -> Self {
        Self::Duration(duration)
    }

    /// When a record stored now expires.
    pub(crate) fn expires_at_ms(
        self,
        default: Option<Duration>,
        clock: &Clock,
    ) -> Result<Option<u64>> {
        let duration = match self {
            Self::None => None,
            Self::Default => default,
            Self::Duration(duration) => Some(duration),
            Self::ExpiresAt(at_ms) => return Ok(Some(at_ms)),
        };
        let Some(duration) = duration else {
            return Ok(None);
        };
        let ms = duration.as_nanos().div_ceil(1_000_000);
        u64::try_from(ms)
            .ok()
            .and_then(|ms| clock.now_ms().checked_add(ms))
            .map(Some)
            .ok_or(Error::TtlOverflow)
    }
}
