// SPDX-License-Identifier: Apache-2.0
//! Custom kinds: from a CustomResourceDefinition to something that is served.

pub(crate) mod jsonpath;
pub(crate) mod schema;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::resources::{Resource, ScalePaths, SelectableField, priority};
use crate::server::Server;
use crate::status::FieldError;
use crate::store::{Object, Txn};
use crate::time;
use crate::value::Json;
use schema::Schema;

/// The kind that makes kinds.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What a version of a custom kind has beside what all kinds have.
#[derive(Debug)]
pub(crate) struct CustomKind {
    pub(crate) storage_version: String,
    pub(crate) columns: Vec<PrinterColumn>,
    schema: Schema,
}

/// An additional printer column.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

impl CustomKind {
    pub(crate) fn schema(&self) -> &Value {
        self.schema.root()
    }

    /// Takes unknown fields out; their paths.
    pub(crate) fn prune(&self, value: &mut Value) -> Vec<String> {
        self.schema.prune(value)
    }

    pub(crate) fn default(&self, value: &mut Value) {
        self.schema.default(value);
    }

    pub(crate) fn validate(&self, value: &Value) -> Vec<FieldError> {
        self.schema.validate(value)
    }
}

/// Serves a definition that has been written.
pub(crate) fn after_write(server: &Server, _txn: &mut Txn<'_>, resource: &Resource, object: &Object) {
    if resource.group_resource != DEFINITIONS {
        return;
    }
    let crd = object.value();
    server.registry.change(|registry| {
        registry.remove(crd.str_at("/spec/group"), crd.str_at("/spec/names/plural"));
        resources_of(&crd).into_iter().for_each(|r| registry.insert(r));
    });
}

/// Takes a definition that has been removed, and the objects of its kind, away.
pub(crate) fn after_remove(server: &Server, txn: &mut Txn<'_>, resource: &Resource, object: &Object) {
    if resource.group_resource != DEFINITIONS {
        return;
    }
    for custom in resources_of(&object.value()).iter().take(1) {
        for object in txn.objects(&custom.storage).values() {
            txn.remove(custom, object.value());
        }
        server
            .registry
            .change(|registry| registry.remove(&custom.group, &custom.plural));
    }
}

/// The served versions of a definition.
fn resources_of(crd: &Value) -> Vec<Resource> {
    let spec = crd.at("/spec");
    let versions = spec.list_at("/versions");
    let storage_version = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map_or("", |v| v.str_at("/name"));
    let served = versions.iter().filter(|v| v["served"] == true);
    served
        .map(|version| resource_of(spec, version, storage_version))
        .collect()
}

fn resource_of(spec: &Value, version: &Value, storage_version: &str) -> Resource {
    let strings = |pointer| {
        spec.list_at(pointer)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let (group, plural) = (spec.str_at("/group"), spec.str_at("/names/plural"));
    let group_resource = format!("{plural}.{group}");
    let custom = CustomKind {
        storage_version: storage_version.to_owned(),
        columns: columns(version),
        schema: Schema::new(version.at("/schema/openAPIV3Schema").clone()),
    };
    Resource {
        group: group.into(),
        version: version.str_at("/name").into(),
        kind: spec.str_at("/names/kind").into(),
        plural: plural.into(),
        singular: spec.str_at("/names/singular").into(),
        short_names: strings("/names/shortNames"),
        categories: strings("/names/categories"),
        namespaced: spec.str_at("/scope") == "Namespaced",
        status: !version.at("/subresources/status").is_null(),
        scale: scale_paths(version.at("/subresources/scale")),
        generation: true,
        storage: group_resource.as_str().into(),
        group_resource,
        fields: version
            .list_at("/selectableFields")
            .iter()
            .map(selectable)
            .collect(),
        check: None,
        custom: Some(Arc::new(custom)),
        review: false,
    }
}

fn selectable(field: &Value) -> SelectableField {
    let path = field.str_at("/jsonPath");
    SelectableField {
        label: path.trim_start_matches('.').into(),
        pointer: path.replace('.', "/"),
    }
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let pointer = |key: &str| scale.str_at(key).replace('.', "/");
    scale.is_object().then(|| ScalePaths {
        spec: pointer("/specReplicasPath"),
        status: pointer("/statusReplicasPath"),
        selector: Some(pointer("/labelSelectorPath")).filter(|p| !p.is_empty()),
    })
}

fn columns(version: &Value) -> Vec<PrinterColumn> {
    let column = |c: &Value| PrinterColumn {
        name: c.str_at("/name").into(),
        kind: c.str_at("/type").into(),
        description: c.str_at("/description").into(),
        priority: c.at("/priority").as_i64().unwrap_or(0),
        path: c.str_at("/jsonPath").into(),
    };
    let age = PrinterColumn {
        name: "Age".into(),
        kind: "date".into(),
        description:
            "CreationTimestamp is a timestamp representing the server time when this object was created."
                .into(),
        priority: 0,
        path: ".metadata.creationTimestamp".into(),
    };
    let own: Vec<_> = version
        .list_at("/additionalPrinterColumns")
        .iter()
        .map(column)
        .collect();
    if own.is_empty() { vec![age] } else { own }
}

/// Fills in what a definition leaves out, and says that it is served.
pub(crate) fn complete(crd: &mut Value) {
    let kind = crd.str_at("/spec/names/kind").to_owned();
    let spec = crd["spec"].map_mut();
    spec.entry("conversion")
        .or_insert_with(|| json!({ "strategy": "None" }));
    if let Some(names) = spec.get_mut("names").filter(|n| n.is_object()) {
        names.default_to("singular", kind.to_lowercase());
        names.default_to("listKind", format!("{kind}List"));
    }
    let accepted = crd.at("/spec/names").clone();
    let versions = crd.list_at("/spec/versions");
    let stored: Vec<Value> = versions
        .iter()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    let was = crd.list_at("/status/storedVersions").to_vec();
    let status = crd["status"].map_mut();
    status.insert("acceptedNames".into(), accepted);
    let versions: Vec<Value> = was
        .iter()
        .cloned()
        .chain(stored.into_iter().filter(|s| !was.contains(s)))
        .collect();
    status.insert("storedVersions".into(), versions.into());
    if status.get("conditions").is_none() {
        let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time::now() });
        let conditions = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]);
        status.insert("conditions".into(), conditions);
    }
}

/// What makes a definition one that cannot be served.
pub(crate) fn validate(crd: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "/spec/group",
        "/spec/names/plural",
        "/spec/names/kind",
        "/spec/scope",
    ] {
        if crd.str_at(field).is_empty() {
            errors.push(FieldError::required(
                field.trim_start_matches('/').replace('/', "."),
                "",
            ));
        }
    }
    let expected = format!(
        "{}.{}",
        crd.str_at("/spec/names/plural"),
        crd.str_at("/spec/group")
    );
    if crd.meta_str("name") != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", crd.meta("name"), detail));
    }
    if !matches!(crd.str_at("/spec/scope"), "" | "Namespaced" | "Cluster") {
        errors.push(FieldError::unsupported(
            "spec.scope",
            crd.at("/spec/scope"),
            &["Cluster", "Namespaced"],
        ));
    }
    let versions = crd.list_at("/spec/versions");
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(versions), detail));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        if priority(version.str_at("/name")) == (0, 0, 0) && version.str_at("/name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        if !version.at("/schema/openAPIV3Schema").is_object() {
            errors.push(FieldError::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            ));
        }
        errors.extend(schema::bad_patterns(version.at("/schema/openAPIV3Schema"), &path));
    }
    errors
}
