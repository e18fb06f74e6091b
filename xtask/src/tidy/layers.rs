// SPDX-License-Identifier: Apache-2.0
//! Imports go down only.

use anyhow::{Context, Result};
use serde::Deserialize;

/// What `cargo metadata` says about a crate of the workspace, as far as the rules ask.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    name: String,
    #[serde(default)]
    metadata: Option<Metadata>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    thalweg: Option<Thalweg>,
}

#[derive(Debug, Deserialize)]
struct Thalweg {
    layer: String,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

/// Crates with a closed list of what they may import.
const ONLY: [(&str, &[&str]); 2] = [
    ("thalweg-ebpf", &["thalweg-datapath-common"]),
    // The plugin has to start in a millisecond.
    ("thalweg-cni", &["thalweg-cni-types"]),
];

/// From the bottom up. Tests and tools stand on top, and nothing imports them.
const LAYERS: [&str; 9] = ["L0", "L1", "L2", "L3", "L4a", "L4b", "L5", "test", "tool"];

/// Layers whose crates may import one another: words are made of words.
const SIDEWAYS_ALLOWED: [&str; 2] = ["L0", "L1"];

pub(super) fn packages(metadata: &str) -> Result<Vec<Package>> {
    let workspace: Workspace = serde_json::from_str(metadata).context("cannot read cargo's metadata")?;
    Ok(workspace.packages)
}

impl Package {
    fn layer(&self) -> Option<&str> {
        Some(self.metadata.as_ref()?.thalweg.as_ref()?.layer.as_str())
    }

    /// What it is built from; tests may use what they like.
    fn imports(&self) -> impl Iterator<Item = &str> {
        let built = self
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        built.map(|dependency| dependency.name.as_str())
    }
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|known| *known == layer)
}

/// Every edge that does not go down, and every crate without a layer.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in packages {
        let Some((layer, height)) = package.layer().and_then(|layer| Some((layer, rank(layer)?))) else {
            breaches.push(format!(
                "{}: Cargo.toml has no [package.metadata.thalweg] layer, or not one of {}",
                package.name,
                LAYERS.join(", ")
            ));
            continue;
        };
        for import in package.imports() {
            let Some(other) = packages.iter().find(|other| other.name == import) else {
                continue;
            };
            let Some(below) = other.layer().and_then(rank) else {
                continue;
            };
            let sideways = below == height && SIDEWAYS_ALLOWED.contains(&layer);
            if below < height || sideways {
                continue;
            }
            let (layer, its) = (LAYERS[height], LAYERS[below]);
            breaches.push(format!(
                "{} ({layer}) imports {import} ({its}): imports go down only",
                package.name
            ));
        }
    }
    breaches.extend(packages.iter().flat_map(closed));
    breaches
}

fn closed(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = ONLY.iter().find(|(name, _)| *name == package.name) else {
        return Vec::new();
    };
    let ours = package.imports().filter(|import| import.starts_with("thalweg"));
    let strangers = ours.filter(|import| !allowed.contains(import));
    let allowed_names = allowed.join(", ");
    strangers
        .map(|import| {
            format!(
                "{} imports {import}: of our crates it may import only {allowed_names}",
                package.name
            )
        })
        .collect()
}

/// Crates that the architecture's map does not name.
pub(super) fn unnamed(packages: &[Package], map: &str) -> Vec<String> {
    let named = |name: &str| map.contains(&format!("`{name}`"));
    let lost = packages.iter().filter(|package| !named(&package.name));
    lost.map(|package| format!("{}: ARCHITECTURE.md does not name it", package.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, layer: &str, imports: &[&str]) -> Package {
        let dependencies = imports.iter().map(|name| Dependency {
            name: (*name).to_owned(),
            kind: None,
        });
        Package {
            name: name.to_owned(),
            metadata: Some(Metadata {
                thalweg: Some(Thalweg {
                    layer: layer.to_owned(),
                }),
            }),
            dependencies: dependencies.collect(),
        }
    }

    #[test]
    fn an_import_of_a_lower_layer_is_fine() {
        let packages = [package("a", "L3", &["b", "serde"]), package("b", "L1", &[])];
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_import_upward_is_a_breach() {
        let packages = [package("a", "L1", &["b"]), package("b", "L3", &[])];
        assert_eq!(check(&packages), ["a (L1) imports b (L3): imports go down only"]);
    }

    #[test]
    fn a_pure_crate_does_not_import_its_neighbour() {
        let packages = [package("a", "L2", &["b"]), package("b", "L2", &[])];
        assert_eq!(check(&packages).len(), 1);
    }

    #[test]
    fn words_may_be_made_of_words() {
        let packages = [package("api", "L1", &["model"]), package("model", "L1", &[])];
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn a_test_may_import_upward() {
        let mut packages = [package("a", "L1", &["b"]), package("b", "L3", &[])];
        packages[0].dependencies[0].kind = Some("dev".to_owned());
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn the_plugin_sees_almost_nothing() {
        let packages = [
            package("thalweg-cni", "L4a", &["thalweg-model"]),
            package("thalweg-model", "L1", &[]),
        ];
        assert_eq!(check(&packages).len(), 1);
    }

    #[test]
    fn a_crate_without_a_layer_is_a_breach() {
        let packages = [package("a", "L9", &[])];
        assert!(check(&packages)[0].contains("no [package.metadata.thalweg] layer"));
    }

    #[test]
    fn every_crate_is_on_the_map() {
        let packages = [package("thalweg", "L5", &[]), package("thalweg-new", "L3", &[])];
        assert_eq!(
            unnamed(&packages, "| `thalweg` |"),
            ["thalweg-new: ARCHITECTURE.md does not name it"]
        );
    }
}
