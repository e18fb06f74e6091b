// SPDX-License-Identifier: Apache-2.0
//! What was measured, compared with what it must reach.

use serde::{Deserialize, Serialize};

/// Everything of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// On what, when and how.
    pub(crate) conditions: Vec<(String, String)>,
    /// Rates against references.
    pub(crate) comparisons: Vec<Comparison>,
    /// Single figures.
    pub(crate) figures: Vec<Figure>,
    /// What the programs cost.
    pub(crate) programs: Vec<ProgramCost>,
}

/// The subject's rate against a reference's, round by round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Where: `same node`.
    pub(crate) scope: String,
    /// What: `TCP_RR`.
    pub(crate) work: String,
    /// `1` or `2`.
    pub(crate) cpus: u8,
    /// With what.
    pub(crate) reference: String,
    /// What rates are counted in.
    pub(crate) unit: String,
    /// The subject's median rate.
    pub(crate) subject: f64,
    /// The reference's median rate.
    pub(crate) reference_rate: f64,
    /// Subject over reference.
    pub(crate) ratio: Spread,
    /// What the ratio must be at least.
    pub(crate) goal: Option<f64>,
}

impl Comparison {
    /// Whether it is good enough; nothing without a goal.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio.median >= goal)
    }
}

/// A figure that is to be small.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: String,
    /// What it must be at most.
    pub(crate) goal: Option<f64>,
    /// How it was found.
    pub(crate) detail: String,
}

impl Figure {
    /// Whether it is good enough; nothing without a goal.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| self.value <= goal)
    }
}

/// What one run of a program costs on average.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProgramCost {
    /// The program.
    pub(crate) program: String,
    /// During what.
    pub(crate) scope: String,
    /// Nanoseconds per run, the kernel's own accounting included.
    pub(crate) nanoseconds: f64,
    /// Instructions after verification.
    pub(crate) instructions: u32,
}

/// The middle and the ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Half are smaller.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; zero of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            min: at(0),
            max: at(last),
        }
    }
}

/// The value below which `percent` of all lie.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]),
            Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            }
        );
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (50.0, 99.0));
    }
}
