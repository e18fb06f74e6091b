// SPDX-License-Identifier: Apache-2.0
//! What goes with what, as data with source and date: the kernels that our programs were run on, the images of the clouds
//! and their kernels, Kubernetes' version skew policy and the API versions that it removed. What is not in the data is unknown.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::facts::Provider;
use crate::version::Version;

/// The table that `./dev kernels` writes.
const KERNELS: &str = include_str!("../../../docs/kernels.md");
const KUBERNETES: &str = include_str!("../data/kubernetes.json");
const IMAGES: &str = include_str!("../data/images.json");

/// The oldest kernel on which the programs load.
pub const KERNEL_FLOOR: Version = Version::new(5, 10);
/// From here on the kernel has tcx, and needs no classifier modules.
pub const KERNEL_WITH_TCX: Version = Version::new(6, 6);

/// The data, read once.
#[derive(Debug)]
pub struct Compatibility {
    /// Kernels that the shipped programs were run on.
    pub kernels: Vec<TestedKernel>,
    /// When.
    pub kernels_date: String,
    /// Kubernetes' own rules and ours.
    pub kubernetes: Kubernetes,
    /// Images and their kernels.
    pub images: Images,
}

/// A kernel that the shipped programs were run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestedKernel {
    /// The series.
    pub series: Version,
    /// The package's version.
    pub package: String,
    /// Whether all went well.
    pub passed: bool,
}

/// Kubernetes' own rules and ours.
#[derive(Debug, Deserialize)]
pub struct Kubernetes {
    /// The version skew policy.
    pub skew: SkewPolicy,
    /// The version of the API whose types are compiled in.
    pub api_types: ApiTypes,
    /// Versions that were run against.
    pub tested: Tested,
    /// API versions that are gone.
    pub removed_apis: RemovedApis,
}

/// The version skew policy.
#[derive(Debug, Deserialize)]
pub struct SkewPolicy {
    /// Where it is written.
    pub source: String,
    /// When it was read.
    pub read: String,
    /// How many minor versions a kubelet may be behind the API server.
    pub kubelet_minors_behind: i64,
    /// The same for kubelets before 1.25.
    pub kubelet_minors_behind_before_1_25: i64,
    /// How many minor versions the control plane goes at once.
    pub control_plane_minors_per_step: i64,
}

/// The version of the API whose types are compiled in.
#[derive(Debug, Deserialize)]
pub struct ApiTypes {
    /// The version.
    pub kubernetes: String,
}

/// Versions that were run against.
#[derive(Debug, Deserialize)]
pub struct Tested {
    /// What there is to say.
    pub note: String,
    /// The versions.
    pub versions: Vec<String>,
}

/// API versions that are gone.
#[derive(Debug, Deserialize)]
pub struct RemovedApis {
    /// Where it is written.
    pub source: String,
    /// When it was read.
    pub read: String,
    /// The API versions.
    pub apis: Vec<RemovedApi>,
    /// The newest version whose removals are in the data.
    pub known_up_to: String,
}

/// An API version that is gone.
#[derive(Debug, Deserialize)]
pub struct RemovedApi {
    /// As `policy/v1beta1`.
    pub version: String,
    /// The kinds that went.
    pub kinds: Vec<String>,
    /// The first version without it.
    pub removed: String,
    /// What takes its place.
    pub instead: String,
}

/// Images and their kernels.
#[derive(Debug, Deserialize)]
pub struct Images {
    /// The images.
    pub images: Vec<Image>,
}

/// An image of a cloud.
#[derive(Debug, Deserialize)]
pub struct Image {
    /// Whose.
    pub provider: Provider,
    /// Its name.
    pub image: String,
    /// `ID` of its `/etc/os-release`.
    pub os: String,
    /// The first version of Kubernetes that it is for.
    pub from: String,
    /// The last one.
    pub to: String,
    /// The series of its kernel.
    pub kernel: String,
    /// Where it is written.
    pub source: String,
    /// As of when.
    pub date: String,
}

/// What the matrix says of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The series was run, and all went well.
    Passed(TestedKernel),
    /// The series was run, and something failed.
    Failed(TestedKernel),
    /// It is older than what the programs need.
    TooOld,
    /// The series was not run; the nearest older and newer ones that were.
    Untested {
        /// The nearest older one.
        older: Option<Version>,
        /// The nearest newer one.
        newer: Option<Version>,
    },
}

/// The data.
///
/// # Panics
/// Never in a build that passed its tests: the data is compiled in.
#[must_use]
pub fn data() -> &'static Compatibility {
    static DATA: LazyLock<Compatibility> = LazyLock::new(|| Compatibility {
        kernels: kernels(KERNELS),
        kernels_date: kernels_date(KERNELS),
        kubernetes: serde_json::from_str(KUBERNETES).expect("tested at build time"),
        images: serde_json::from_str(IMAGES).expect("tested at build time"),
    });
    &DATA
}

/// Rows of the first table: kernel, distribution, version, programs, result.
fn kernels(page: &str) -> Vec<TestedKernel> {
    let table = page.split("Seconds for each step").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        Some(TestedKernel {
            series: Version::parse(cells.first()?).ok()?,
            package: (*cells.get(2)?).to_owned(),
            passed: *cells.get(4)? == "passed",
        })
    });
    rows.collect()
}

fn kernels_date(page: &str) -> String {
    let line = page.lines().find_map(|line| line.strip_prefix("This table: "));
    line.and_then(|line| line.split(',').next())
        .unwrap_or("unknown")
        .to_owned()
}

impl Compatibility {
    /// What the matrix says of a kernel.
    #[must_use]
    pub fn kernel(&self, series: Version) -> Verdict {
        if series < KERNEL_FLOOR {
            return Verdict::TooOld;
        }
        match self.kernels.iter().find(|kernel| kernel.series == series) {
            Some(kernel) if kernel.passed => Verdict::Passed(kernel.clone()),
            Some(kernel) => Verdict::Failed(kernel.clone()),
            None => {
                let passed = || {
                    self.kernels
                        .iter()
                        .filter(|kernel| kernel.passed)
                        .map(|kernel| kernel.series)
                };
                Verdict::Untested {
                    older: passed().filter(|tested| *tested < series).max(),
                    newer: passed().filter(|tested| *tested > series).min(),
                }
            }
        }
    }

    /// The images of a cloud for a version of Kubernetes, if given only those of one operating system.
    pub fn images_for<'a>(
        &'a self,
        provider: Provider,
        os: Option<&'a str>,
        kubernetes: Version,
    ) -> impl Iterator<Item = &'a Image> {
        self.images.images.iter().filter(move |image| {
            let range = (Version::parse(&image.from), Version::parse(&image.to));
            let inside = matches!(range, (Ok(from), Ok(to)) if from <= kubernetes && kubernetes <= to);
            image.provider == provider && os.is_none_or(|os| os == image.os) && inside
        })
    }

    /// The tested series, in words.
    #[must_use]
    pub fn tested_kernels(&self) -> String {
        let series: Vec<String> = self
            .kernels
            .iter()
            .filter(|one| one.passed)
            .map(|one| one.series.to_string())
            .collect();
        format!("{} ({})", series.join(", "), self.kernels_date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_matrix_is_read_from_the_page_that_tests_write() {
        let data = data();
        assert!(data.kernels.len() >= 4, "{:?}", data.kernels);
        assert!(data.kernels_date.starts_with("20"), "{}", data.kernels_date);
        let verdict = data.kernel(Version::new(6, 12));
        assert!(matches!(verdict, Verdict::Passed(_)), "{verdict:?}");
        assert_eq!(data.kernel(Version::new(5, 4)), Verdict::TooOld);
        let Verdict::Untested { older, newer } = data.kernel(Version::new(6, 8)) else {
            panic!("6.8 is not in the matrix");
        };
        assert_eq!(
            (older, newer),
            (Some(Version::new(6, 1)), Some(Version::new(6, 12)))
        );
    }

    #[test]
    fn a_failed_row_is_no_pass() {
        let page = "| kernel | Debian | version | programs loaded | result |\n|---|---|---|---:|---|\n\
                    | 6.1 | 12 | 6.1.1-1 | 0 | failed: refused |\n| 6.2 | x | 6.2-1 | 8 | passed |\n";
        let kernels = kernels(page);
        assert_eq!(
            kernels.iter().map(|one| one.passed).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn all_data_has_versions_sources_and_dates() {
        let data = data();
        for image in &data.images.images {
            for version in [&image.from, &image.to, &image.kernel] {
                Version::parse(version).unwrap();
            }
            assert!(
                image.source.starts_with("https://") && image.date.len() == 10,
                "{image:?}"
            );
        }
        for api in &data.kubernetes.removed_apis.apis {
            Version::parse(&api.removed).unwrap();
            assert!(!api.kinds.is_empty() && !api.instead.is_empty());
        }
        Version::parse(&data.kubernetes.removed_apis.known_up_to).unwrap();
        assert!(data.kubernetes.skew.source.starts_with("https://"));
    }

    #[test]
    fn images_are_found_by_version_and_unknown_outside() {
        let data = data();
        let kernel = |provider, version| {
            let mut images = data.images_for(provider, None, version);
            images.next().map(|image| image.kernel.clone())
        };
        assert_eq!(
            kernel(Provider::Aws, Version::new(1, 36)).as_deref(),
            Some("6.18")
        );
        assert_eq!(
            kernel(Provider::Azure, Version::new(1, 34)).as_deref(),
            Some("5.15")
        );
        assert_eq!(kernel(Provider::Gcp, Version::new(1, 34)), None);
        assert_eq!(kernel(Provider::Aws, Version::new(1, 99)), None);
    }
}
