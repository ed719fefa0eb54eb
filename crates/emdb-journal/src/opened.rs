//! Where frames go that were sealed.

/// Room for what a caller has opened of sealed frames, while it looks at them.
///
/// Costs nothing for frames that are not sealed: those are borrowed from the journal.
#[derive(Debug, Default)]
pub struct Opened {
    _sealed: (),
}

impl Opened {
    /// Nothing opened yet.
    #[inline]
    pub const fn new() -> Self {
        Self { _sealed: () }
    }
}
