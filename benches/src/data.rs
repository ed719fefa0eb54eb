//! Random records, the same in every run.

/// Bytes of a key.
pub const KEY_BYTES: usize = 24;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 150;

/// Records by number: random keys and values.
#[derive(Debug, Clone, Copy)]
pub struct Records {
    seed: u64,
}

impl Records {
    /// The records of that seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The key of record `number`.
    #[inline]
    pub fn key(&self, number: u64) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        let mut state = mix(number ^ self.seed);
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&state.to_le_bytes());
            state = mix(state);
        }
        key
    }

    /// The value of record `number`.
    #[inline]
    pub fn value(&self, number: u64) -> [u8; VALUE_BYTES] {
        let mut value = [0; VALUE_BYTES];
        let mut state = mix(number ^ !self.seed);
        for part in value.chunks_mut(8) {
            let bytes = state.to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        value
    }
}

/// The numbers below `count` in an order that no cache foresees.
pub fn shuffled(count: u64, seed: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    let mut state = seed;
    for at in (1..numbers.len()).rev() {
        state = mix(state.wrapping_add(1));
        numbers.swap(at, (state % (at as u64 + 1)) as usize);
    }
    numbers
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(mut state: u64) -> u64 {
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
