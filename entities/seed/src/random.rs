//! Chance that repeats itself: `SplitMix64` (Steele, Lea, Flood 2014), one stream for each kind of row, so that more
//! rows of one kind change nothing in another.

use uuid::{Builder, Uuid};

use crate::Micros;

/// A stream of numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of this name.
    pub(crate) fn of(name: &str) -> Self {
        // FNV-1a: any spread of the few names will do.
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 ≤ x < 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 ≤ x < `end`; 0 when there is nothing below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The high half of the product: no bias that matters, and no division.
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// `from` ≤ x ≤ `to`.
    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from).max(0) as usize + 1) as i64
    }

    pub(crate) fn float(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index below `end` that prefers the low ones: the first percent gets `0.01^(1/power)` of all picks, which
    /// is a fifth for a power of 3.
    pub(crate) fn skewed(&mut self, end: usize, power: i32) -> usize {
        (self.unit().powi(power) * end as f64) as usize
    }

    /// An id of version 7 (RFC 9562, method 3): milliseconds, then their fraction, then chance.
    pub(crate) fn id(&mut self, at: Micros) -> Uuid {
        let fraction = (at.rem_euclid(1_000) * 4_096 / 1_000) as u16;
        let chance = self.next();
        let mut tail = [0; 10];
        tail[..2].copy_from_slice(&fraction.to_be_bytes());
        tail[2..].copy_from_slice(&chance.to_be_bytes());
        Builder::from_unix_timestamp_millis(at.div_euclid(1_000) as u64, &tail).into_uuid()
    }
}
