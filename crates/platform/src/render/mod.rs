// SPDX-License-Identifier: Apache-2.0
//! Infrastructure code: Terraform JSON, Pulumi YAML, kubeadm, and a tree for Argo CD.
//!
//! [`render`] is deterministic: the same file gives the same bytes. Names of types and attributes are those of the
//! published providers; a test looks each one up. No provider was run on them.

mod aks;
mod aks_native;
mod eks;
mod gitops;
mod gke;
mod graph;
mod kubeadm;
mod mesh;
#[cfg(test)]
mod names;
mod readme;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::address::{Addresses, ClusterAddresses};
use crate::catalogue::Catalogue;
use crate::file::{Cloud, Cluster, Platform};

pub(crate) use aks::outbound;
pub(crate) use api::NOT_READY_TAINT as TAINT;
pub(crate) use gitops::values;

/// A rendered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative, with slashes.
    pub path: String,
    /// Its content.
    pub content: String,
}

/// All clusters and their addresses.
#[derive(Clone, Copy)]
pub(crate) struct Fleet<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) addresses: &'a Addresses,
    pub(crate) catalogue: &'a Catalogue,
}

/// One cluster and what is around it.
pub(crate) struct Context<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) cluster: &'a Cluster,
    pub(crate) addresses: &'a ClusterAddresses,
    pub(crate) catalogue: &'a Catalogue,
}

impl<'a> Fleet<'a> {
    /// Clusters with their addresses, in the order of the file.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a Cluster, &'a ClusterAddresses)> + use<'a> {
        self.platform.clusters.iter().zip(&self.addresses.clusters)
    }

    pub(crate) fn contexts(&self) -> impl Iterator<Item = Context<'a>> + use<'a> {
        let (platform, catalogue) = (self.platform, self.catalogue);
        self.members().map(move |(cluster, addresses)| Context {
            platform,
            cluster,
            addresses,
            catalogue,
        })
    }

    pub(crate) fn full_name(&self, cluster: &Cluster) -> String {
        format!("{}-{}", self.platform.name, cluster.name)
    }
}

impl Context<'_> {
    /// The name in the cloud.
    pub(crate) fn full_name(&self) -> String {
        format!("{}-{}", self.platform.name, self.cluster.name)
    }
}

/// Renders everything, sorted by path.
#[must_use]
pub fn render(platform: &Platform, addresses: &Addresses, catalogue: &Catalogue) -> Vec<File> {
    let fleet = Fleet {
        platform,
        addresses,
        catalogue,
    };
    let mut files = Vec::new();
    let mut add = |path: String, content: String| files.push(File { path, content });
    for context in fleet.contexts() {
        let name = &context.cluster.name;
        let stack = match context.cluster.cloud {
            Cloud::Aws => Some(eks::stack(&context)),
            Cloud::Azure => Some(aks::stack(&context)),
            Cloud::Gcp => Some(gke::stack(&context)),
            Cloud::Machines => None,
        };
        if let Some(stack) = stack {
            add(format!("terraform/{name}/main.tf.json"), json(&terraform(&stack)));
            let project = stack.pulumi().unwrap_or_else(|| aks_native::project(&context));
            add(
                format!("pulumi/{name}/Pulumi.yaml"),
                yaml(&without_variables(project)),
            );
        } else {
            for (file, content) in kubeadm::files(&context) {
                add(format!("kubeadm/{name}/{file}"), content);
            }
        }
        add(
            format!("gitops/clusters/{name}/values.yaml"),
            yaml(&values(&context)),
        );
    }
    for (cloud, stack) in mesh::stacks(&fleet) {
        add(
            format!("terraform/mesh-{cloud}/main.tf.json"),
            json(&terraform(&stack)),
        );
        if let Some(project) = stack.pulumi() {
            add(
                format!("pulumi/mesh-{cloud}/Pulumi.yaml"),
                yaml(&without_variables(project)),
            );
        }
    }
    if let Some(gitops) = &platform.gitops {
        for (path, content) in gitops::files(&fleet, gitops) {
            add(path, content);
        }
    }
    add("README.md".into(), readme::text(&fleet));
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// The document with the variables that it asks for.
fn terraform(stack: &graph::Stack) -> Value {
    let mut document = stack.terraform();
    if document.to_string().contains("${var.project}") {
        document["variable"]["project"] =
            serde_json::json!({"type": "string", "description": "The Google Cloud project"});
    }
    document
}

/// Pulumi has the project as configuration of its provider, set by `pulumi config set gcp:project`.
fn without_variables(mut project: Value) -> Value {
    if let Some(configuration) = project.get_mut("config").and_then(Value::as_object_mut) {
        configuration.retain(|_, value| !value.to_string().contains("${var."));
        if configuration.is_empty() {
            project.as_object_mut().map(|project| project.remove("config"));
        }
    }
    project
}

fn json(value: &Value) -> String {
    // A value of strings, numbers and maps with string keys always has a form.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// As YAML; keys are sorted.
pub(crate) fn yaml(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default()
}
