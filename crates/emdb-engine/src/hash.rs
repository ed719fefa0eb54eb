//! The hash of keys.

use polymur_hash::PolymurHash;

/// Hashes keys under a database's own seed, so that nobody who lacks it can make them collide
/// (docs/security.md).
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher(PolymurHash);

impl KeyHasher {
    pub(crate) fn new(seed: &[u8; 16]) -> Self {
        Self(PolymurHash::new(u128::from_le_bytes(*seed)))
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.0.hash(key)
    }

    /// Differs if the function does, in this release or in that of whoever asked before: an
    /// index that was stored is then worth nothing.
    pub(crate) fn check(&self) -> u64 {
        // The function treats lengths differently, from 8, 22 and 50 bytes on.
        let bytes: Vec<u8> = (0..=255).collect();
        let prefixes = (0..=bytes.len()).filter_map(|len| bytes.get(..len));
        prefixes.fold(0, |check: u64, key| check.rotate_left(5) ^ self.hash(key))
    }
}

#[cfg(test)]
mod tests {
    use super::KeyHasher;

    #[test]
    fn the_check_is_that_of_seed_and_function() {
        let check = |seed: u8| KeyHasher::new(&[seed; 16]).check();
        assert_ne!(check(0), check(1));
        // As of polymur-hash 0.2.3. Should it change, stored indexes are made anew once.
        assert_eq!(check(1), 2_113_307_838_589_589_330);
    }
}
