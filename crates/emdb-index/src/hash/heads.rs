//! The upper halves of a bucket's words, tags and displacements, all looked at together.
//!
//! They only choose the slots that are worth a look. Who takes an entry loads its word
//! again, whole and with Acquire.

use super::segment::Bucket;

/// Some of a bucket's slots, the first ones first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots(u32);

impl Slots {
    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let at = self.0.trailing_zeros();
        let some = self.0 != 0;
        self.0 &= self.0.wrapping_sub(1);
        some.then_some(at as usize)
    }
}

#[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
mod imp {
    use super::{Bucket, Slots};
    use crate::hash::segment::SLOTS;

    #[derive(Clone, Copy, Debug)]
    pub(in crate::hash) struct Heads([u32; SLOTS]);

    impl Heads {
        #[inline]
        pub(in crate::hash) fn of(bucket: &Bucket) -> Self {
            Self(std::array::from_fn(|at| bucket.word(at).head()))
        }

        /// The slots whose heads have these bits under the mask. Which ones they are is
        /// random, so there is no branch for each: a processor would guess wrong.
        #[inline]
        pub(in crate::hash) fn with(self, bits: u32, mask: u32) -> Slots {
            let found = self.0.iter().enumerate();
            Slots(found.fold(0, |slots, (at, head)| {
                slots | u32::from(head & mask == bits) << at
            }))
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod imp {
    use std::arch::{
        asm,
        x86_64::{
            __m128i, _mm_and_si128, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32,
            _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32, _mm_shuffle_ps,
        },
    };

    use super::{Bucket, Slots};

    const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

    /// Four in each.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::hash) struct Heads([__m128i; 2]);

    impl Heads {
        #[inline]
        pub(in crate::hash) fn of(bucket: &Bucket) -> Self {
            let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
            // SAFETY: it reads the 64 bytes of `bucket`, which its type aligns to a cache
            // line, and nothing else. Others may store words there meanwhile, with atomic
            // stores; the processor reads each aligned half of a word, and so each head, at
            // once. It loads in program order, like an Acquire; and as the block may do
            // anything to memory, the compiler moves no access of memory across it.
            unsafe {
                asm!(
                    "movdqa {a}, xmmword ptr [{at}]",
                    "movdqa {b}, xmmword ptr [{at} + 16]",
                    "movdqa {c}, xmmword ptr [{at} + 32]",
                    "movdqa {d}, xmmword ptr [{at} + 48]",
                    at = in(reg) std::ptr::from_ref(bucket),
                    a = out(xmm_reg) a,
                    b = out(xmm_reg) b,
                    c = out(xmm_reg) c,
                    d = out(xmm_reg) d,
                    options(nostack, preserves_flags),
                );
            }
            // SAFETY: every x86_64 processor has SSE2.
            unsafe { Self::of_words(a, b, c, d) }
        }

        /// The slots whose heads have these bits under the mask.
        #[inline]
        pub(in crate::hash) fn with(self, bits: u32, mask: u32) -> Slots {
            // SAFETY: every x86_64 processor has SSE2.
            Slots(unsafe { self.slots_with(bits, mask) })
        }

        #[inline]
        #[target_feature(enable = "sse2")]
        fn of_words(a: __m128i, b: __m128i, c: __m128i, d: __m128i) -> Self {
            const ODD: i32 = 0b11_01_11_01;
            let [a, b, c, d] = [a, b, c, d].map(|words| _mm_castsi128_ps(words));
            let (low, high) = (_mm_shuffle_ps::<ODD>(a, b), _mm_shuffle_ps::<ODD>(c, d));
            Self([_mm_castps_si128(low), _mm_castps_si128(high)])
        }

        #[inline]
        #[target_feature(enable = "sse2")]
        fn slots_with(self, bits: u32, mask: u32) -> u32 {
            let (bits, mask) = (_mm_set1_epi32(bits as i32), _mm_set1_epi32(mask as i32));
            let Self([low, high]) = self;
            let low = _mm_cmpeq_epi32(_mm_and_si128(low, mask), bits);
            let high = _mm_cmpeq_epi32(_mm_and_si128(high, mask), bits);
            let all = _mm_packs_epi32(low, high);
            // The same eight slots twice.
            _mm_movemask_epi8(_mm_packs_epi16(all, all)) as u32 & 0xff
        }
    }
}

pub(super) use imp::Heads;
