// SPDX-License-Identifier: Apache-2.0
//! What is served: the built-in kinds, and the registry that custom kinds join.

mod builtin;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use serde_json::Value;

use crate::crd::CustomKind;

/// A field that field selectors may name.
#[derive(Debug, Clone)]
pub(crate) struct SelectableField {
    pub(crate) label: String,
    pub(crate) pointer: String,
}

/// Checks an object against its Rust type: the paths of unknown fields, or why it is no such object.
pub(crate) type Check = fn(&Value) -> Result<Vec<Vec<String>>, String>;

/// Where the `scale` subresource finds its parts, as JSON pointers.
#[derive(Debug, Clone)]
pub(crate) struct ScalePaths {
    pub(crate) spec: String,
    pub(crate) status: String,
    pub(crate) selector: Option<String>,
}

/// One served resource in one version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: Option<ScalePaths>,
    /// Whether changes of the desired state count in `metadata.generation`.
    pub(crate) generation: bool,
    /// The name of the table in the store; versions of one kind share it.
    pub(crate) storage: Arc<str>,
    /// What messages call it: `pods`, `deployments.apps`.
    pub(crate) group_resource: String,
    pub(crate) fields: Vec<SelectableField>,
    pub(crate) check: Option<Check>,
    pub(crate) custom: Option<Arc<CustomKind>>,
    /// Only created, never kept: access reviews.
    pub(crate) review: bool,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub(crate) fn is(&self, group_resource: &str) -> bool {
        self.group_resource == group_resource
    }

    /// Whether stored bytes have to be rewritten before they are sent as this version.
    pub(crate) fn converted(&self) -> bool {
        self.group == "events.k8s.io"
            || self
                .custom
                .as_ref()
                .is_some_and(|c| c.storage_version != self.version)
    }
}

/// `v1` or `group/version`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// All served resources, found by group, version and plural name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
}

static BUILTIN: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    builtin::all().into_iter().for_each(|r| registry.insert(r));
    registry
});

impl Registry {
    /// The built-in kinds.
    pub(crate) fn builtin() -> Self {
        BUILTIN.clone()
    }

    pub(crate) fn insert(&mut self, resource: Resource) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.resources.insert(key, Arc::new(resource));
    }

    /// Takes the versions of a custom resource out.
    pub(crate) fn remove(&mut self, group: &str, plural: &str) {
        self.resources
            .retain(|(g, _, p), r| !(g == group && p == plural && r.custom.is_some()));
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resources of one group and version.
    pub(crate) fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.iter()
            .filter(move |r| r.group == group && r.version == version)
    }

    /// Groups but the core one, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.iter().filter(|r| !r.group.is_empty()) {
            let versions = groups.entry(&resource.group).or_default();
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        groups
            .values_mut()
            .for_each(|v| v.sort_by_key(|v| std::cmp::Reverse(priority(v))));
        groups
    }
}

/// Kubernetes' order of versions: stable before beta before alpha before others, then the higher number.
pub(crate) fn priority(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        let beta = tail
            .strip_prefix("beta")
            .and_then(|n| n.parse().ok())
            .map(|n| (2, major, n));
        beta.or_else(|| {
            tail.strip_prefix("alpha")
                .and_then(|n| n.parse().ok())
                .map(|n| (1, major, n))
        })
    };
    parse().unwrap_or((0, 0, 0))
}

/// The registry as it is now; readers keep what they got.
pub(crate) struct SharedRegistry(RwLock<Arc<Registry>>);

impl SharedRegistry {
    pub(crate) fn new() -> Self {
        Self(RwLock::new(Arc::new(Registry::builtin())))
    }

    pub(crate) fn load(&self) -> Arc<Registry> {
        self.0.read().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Registry)) {
        let mut slot = self.0.write();
        let mut registry = (**slot).clone();
        change(&mut registry);
        *slot = Arc::new(registry);
    }
}
