use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Counts what happens; only ever grows.
///
/// **Bounds**: one thread writes, any may read. Two writers would lose counts, never corrupt them: that is why there is one for
/// each [`super::Lane`].
/// **Cost**: half a nanosecond, a plain load and store; a read-modify-write costs ten times that even without contention.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn up(&self) {
        self.add(1);
    }

    /// So many more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes over a count that is kept elsewhere.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are; grows and shrinks. One writer, as [`Counter`].
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    #[inline]
    pub fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// One less.
    #[inline]
    pub fn down(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// So many.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// How many now.
    #[inline]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A measure that is not a whole number. Any thread may set it.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// It is this now.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Words for the values of a label, in the order in which they are counted.
pub trait Kind: Copy {
    /// The label's values.
    const WORDS: &'static [&'static str];

    /// Which of them this is.
    fn index(self) -> usize;
}

/// Several counters, by number.
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Counters<N> {
    /// One more of this number. One that is not foreseen is not counted.
    #[inline]
    pub fn up(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.up();
        }
    }

    /// How many of each.
    pub fn values(&self) -> [u64; N] {
        std::array::from_fn(|index| self.0[index].value())
    }
}

/// A counter for each of a label's words. `N` is how many there are.
#[derive(Debug)]
pub struct ByKind<K, const N: usize>(Counters<N>, PhantomData<fn(K)>);

impl<K, const N: usize> Default for ByKind<K, N> {
    fn default() -> Self {
        ByKind(Counters::default(), PhantomData)
    }
}

impl<K: Kind, const N: usize> ByKind<K, N> {
    /// One more of this kind.
    #[inline]
    pub fn up(&self, kind: K) {
        self.0.up(kind.index());
    }

    /// How many of each kind, in the order of its words.
    pub fn values(&self) -> [u64; N] {
        self.0.values()
    }
}

/// Defines an enum whose variants are a label's values.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant),+ }

        impl $crate::telemetry::Kind for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use kinds;

/// Requests by the first digit of their status.
#[derive(Debug, Default)]
pub struct Classes(Counters<{ Classes::WORDS.len() }>);

impl Classes {
    /// The values of the label `class`.
    pub const WORDS: &'static [&'static str] = &["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// One more answer with this status.
    #[inline]
    pub fn up(&self, status: u16) {
        let class = usize::from(status / 100);
        self.0.up(if class < Self::WORDS.len() { class } else { 0 });
    }

    /// How many of each class, in the order of [`Classes::WORDS`].
    pub fn values(&self) -> [u64; Self::WORDS.len()] {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_by_the_first_digit() {
        let classes = Classes::default();
        [101, 200, 204, 308, 404, 499, 429, 502, 0, 99, 600, u16::MAX]
            .into_iter()
            .for_each(|status| classes.up(status));
        assert_eq!(classes.values(), [4, 1, 2, 1, 3, 1]);
    }

    #[test]
    fn counters_gauges_and_figures_hold_what_they_were_told() {
        let (counter, gauge, figure) = (Counter::default(), Gauge::default(), Figure::default());
        counter.up();
        counter.add(41);
        gauge.up();
        gauge.up();
        gauge.down();
        figure.set(0.25);
        assert_eq!((counter.value(), gauge.value(), figure.value()), (42, 1, 0.25));
        let several = Counters::<2>::default();
        [0, 1, 1, 7].into_iter().for_each(|index| several.up(index));
        assert_eq!(several.values(), [1, 2]);
    }
}
