use std::f64::consts::TAU;

/// Draws that only depend on the seed.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// From 0 up to 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0.f64()
    }

    /// With mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.0.f64()).ln()
    }

    /// Box and Muller's.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (TAU * self.0.f64()).cos()
    }

    /// With mean 1, the sum of so many exponentials.
    pub(super) fn erlang(&mut self, shape: u32) -> f64 {
        (0..shape).map(|_| self.exponential()).sum::<f64>() / f64::from(shape)
    }
}
