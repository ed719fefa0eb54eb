//! Where frames go that were sealed.

#[cfg(feature = "encrypt")]
use std::cell::{Cell, OnceCell};

/// Room for what a caller has opened of sealed frames, while it looks at them.
///
/// Costs nothing for frames that are not sealed: those are borrowed from the journal. What
/// was opened stays until it is dropped, so make a new one for each frame, or few.
#[derive(Default)]
pub struct Opened {
    #[cfg(feature = "encrypt")]
    first: OnceCell<Vec<u8>>,
    #[cfg(feature = "encrypt")]
    more: OnceCell<Box<Room>>,
}

/// Some places, and a room with twice as many behind them.
#[cfg(feature = "encrypt")]
struct Room {
    places: Box<[OnceCell<Vec<u8>>]>,
    taken: Cell<usize>,
    next: OnceCell<Box<Room>>,
}

#[cfg(feature = "encrypt")]
impl Room {
    fn new(places: usize) -> Box<Self> {
        Box::new(Self {
            places: (0..places).map(|_| OnceCell::new()).collect(),
            taken: Cell::new(0),
            next: OnceCell::new(),
        })
    }
}

impl Opened {
    /// Nothing opened yet.
    #[inline]
    pub const fn new() -> Self {
        Self {
            #[cfg(feature = "encrypt")]
            first: OnceCell::new(),
            #[cfg(feature = "encrypt")]
            more: OnceCell::new(),
        }
    }

    /// Keeps bytes for as long as this lives. O(log n) after n.
    #[cfg(feature = "encrypt")]
    pub(crate) fn keep(&self, bytes: Vec<u8>) -> &[u8] {
        const PLACES: usize = 4;
        if self.first.get().is_none() {
            return self.first.get_or_init(|| bytes);
        }
        let mut room = self.more.get_or_init(|| Room::new(PLACES));
        loop {
            let taken = room.taken.get();
            if let Some(place) = room.places.get(taken) {
                room.taken.set(taken + 1);
                return place.get_or_init(|| bytes);
            }
            let places = room.places.len().saturating_mul(2);
            room = room.next.get_or_init(|| Room::new(places));
        }
    }
}

#[cfg(feature = "encrypt")]
thread_local! {
    /// Memory to open the next frame into, so that most take none from the system.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Empty memory to open something into.
#[cfg(feature = "encrypt")]
#[inline]
pub(crate) fn spare() -> Vec<u8> {
    // A thread that is being torn down has none.
    SPARE.try_with(Cell::take).unwrap_or_default()
}

#[cfg(feature = "encrypt")]
impl Drop for Opened {
    #[inline]
    fn drop(&mut self) {
        const SPARE_BYTES_MAX: usize = 1 << 16;
        if let Some(mut bytes) = self.first.take()
            && bytes.capacity() <= SPARE_BYTES_MAX
        {
            bytes.clear();
            let _ = SPARE.try_with(|spare| spare.set(bytes));
        }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes are users' data and stay out.
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}
