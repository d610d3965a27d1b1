//! A fast hash for names that come from the configuration.
//!
//! Keys are only ever put in by the operator, and requests only look them up, so nobody can flood a bucket; a keyed hash such as
//! the standard library's would cost three times as much for nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map of names from the configuration.
pub(super) type NameMap<V> = HashMap<Box<str>, V, BuildHasherDefault<Folded>>;

/// Multiplies 64 by 64 bits and folds the product, for each eight bytes.
#[derive(Default)]
pub(super) struct Folded(u64);

impl Folded {
    fn mix(&mut self, word: u64) {
        // Odd numbers without a pattern: the fractional digits of pi.
        let product = u128::from((self.0 ^ word).wrapping_add(0x243f_6a88_85a3_08d3)) * 0x1319_8a2e_0370_7345;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)));
        }
        let rest = words.remainder().iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        self.mix(rest | (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, _: u8) {
        // What ends a string; its length is in the hash already.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::Hash;

    fn hash(text: &str) -> u64 {
        let mut hasher = Folded::default();
        text.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn similar_names_hash_apart() {
        let names: Vec<String> = (0..10_000).map(|n| format!("svc-{n}.example.com")).collect();
        let mask = |bits: u32| names.iter().map(|name| hash(name) >> (64 - bits)).collect::<HashSet<_>>().len();
        let low = names.iter().map(|name| hash(name) & 0xffff).collect::<HashSet<_>>().len();
        assert_eq!(names.iter().map(|name| hash(name)).collect::<HashSet<_>>().len(), names.len());
        // 10,000 balls in 65,536 boxes fill about 9,270 of them.
        assert!(low > 9_000 && mask(16) > 9_000, "{low} {}", mask(16));
        assert!(mask(7) == 128);
    }

    #[test]
    fn length_counts() {
        assert_ne!(hash("a"), hash("a\0"));
        assert_ne!(hash(""), hash("\0"));
    }
}
