//! Zipfian numbers, after Gray et al., "Quickly generating billion-record synthetic
//! databases" (SIGMOD 1994), as YCSB has them.

use crate::data::{Random, mix};

pub struct Zipf {
    count: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(count: u64, theta: f64) -> Self {
        let zeta_of = |count: u64| -> f64 { (1..=count).map(|at| (at as f64).powf(-theta)).sum() };
        let zeta = zeta_of(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Self {
            count,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta,
            eta,
        }
    }

    /// 0 is the most frequent.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        let scaled = fraction * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.count as f64 * (self.eta * fraction - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }

    /// The frequent ones spread over all numbers.
    pub fn scattered(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.count
    }
}
