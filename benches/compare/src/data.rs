//! The generated records: the same for every engine, in every run.
//!
//! A record is a number; key and value follow from it, so reads can be checked without
//! keeping what was written.

/// Bytes of every key.
pub const KEY_BYTES: usize = 24;
/// Bytes of a value, where a row says nothing else.
pub const VALUE_BYTES: usize = 150;
/// Starts of long values in the pool: few enough to stay in the processor's cache.
const POOL_STARTS: usize = 1 << 18;

pub type Key = [u8; KEY_BYTES];

/// What keys look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// 24 random bytes.
    Random,
    /// 16 equal bytes, then 8 random ones.
    Prefixed,
    /// 12 equal bytes, then a counter in decimal.
    Decimal,
}

/// A value: short ones inline, long ones a part of the pool.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Short([u8; VALUE_BYTES], usize),
    Long(&'a [u8]),
}

impl AsRef<[u8]> for Value<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Short(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// Records by number.
pub struct Records {
    shape: Shape,
    value_len: usize,
    pool: Vec<u8>,
}

impl Records {
    pub fn new(shape: Shape, value_len: usize) -> Self {
        let pool = match value_len {
            0..=VALUE_BYTES => Vec::new(),
            _ => (0..(POOL_STARTS + value_len).div_ceil(8) as u64)
                .flat_map(|at| mix(at ^ 0x706f_6f6c).to_le_bytes())
                .collect(),
        };
        Self {
            shape,
            value_len,
            pool,
        }
    }

    /// 24-byte random keys and 150-byte random values, as redb's comparison has them.
    pub fn usual() -> Self {
        Self::new(Shape::Random, VALUE_BYTES)
    }

    pub fn value_len(&self) -> usize {
        self.value_len
    }

    #[inline]
    pub fn key(&self, number: u64) -> Key {
        let mut key = [0; KEY_BYTES];
        match self.shape {
            Shape::Random => {
                let mut state = mix(number ^ 0x6b65_7973);
                for part in key.chunks_exact_mut(8) {
                    part.copy_from_slice(&state.to_le_bytes());
                    state = mix(state);
                }
            }
            Shape::Prefixed => {
                let (head, tail) = key.split_at_mut(16);
                head.copy_from_slice(b"tenant/00000042/");
                tail.copy_from_slice(&mix(number).to_be_bytes());
            }
            Shape::Decimal => {
                let (head, tail) = key.split_at_mut(12);
                head.copy_from_slice(b"orders/2026/");
                let mut rest = number;
                for digit in tail.iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
            }
        }
        key
    }

    #[inline]
    pub fn value(&self, number: u64) -> Value<'_> {
        let mut state = mix(number ^ 0x7661_6c75);
        if self.value_len > VALUE_BYTES {
            let start = state as usize % POOL_STARTS;
            let end = start + self.value_len;
            return Value::Long(self.pool.get(start..end).unwrap_or_default());
        }
        let mut value = [0; VALUE_BYTES];
        for part in value.chunks_mut(8) {
            let bytes = state.to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        Value::Short(value, self.value_len)
    }

    /// The records of these numbers, in this order.
    pub fn records(
        &self,
        numbers: impl IntoIterator<Item = u64>,
    ) -> impl Iterator<Item = (Key, Value<'_>)> {
        numbers
            .into_iter()
            .map(|number| (self.key(number), self.value(number)))
    }

    /// What reading the values of these numbers must sum up to.
    pub fn sum(&self, numbers: impl IntoIterator<Item = u64>) -> u64 {
        numbers.into_iter().fold(0, |sum: u64, number| {
            sum.wrapping_add(sum_of(self.value(number).as_ref()))
        })
    }

    /// The numbers below `count` in the order of their keys.
    pub fn sorted(&self, count: u64) -> Vec<u32> {
        let mut keys: Vec<(Key, u32)> = (0..count as u32)
            .map(|number| (self.key(number.into()), number))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, number)| number).collect()
    }
}

/// A checksum that reads every byte of a value; sums of it do not depend on the order.
#[inline]
pub fn sum_of(value: &[u8]) -> u64 {
    let mut chunks = value.chunks_exact(8);
    let mut sum = 0_u64;
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        sum = sum.wrapping_add(u64::from_le_bytes(word));
    }
    chunks
        .remainder()
        .iter()
        .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// `count` numbers below `below`, without repeats while there are enough, in an order
/// that no cache foresees.
pub fn shuffled(below: u64, count: u64, seed: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..below as u32).collect();
    let mut random = Random::new(seed);
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, random.below(at as u64 + 1) as usize);
    }
    let cycle: Vec<u32> = numbers
        .iter()
        .copied()
        .cycle()
        .take(count as usize)
        .collect();
    cycle
}

/// Random numbers that repeat from run to run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in 0..1.
    #[inline]
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[inline]
pub fn mix(mut state: u64) -> u64 {
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
