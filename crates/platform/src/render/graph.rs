// SPDX-License-Identifier: Apache-2.0
//! Resources of a provider, written once, for Terraform and for those Pulumi providers that are bridged from it.
//!
//! A resource's settings are JSON in Terraform's form; references are Terraform's, `${kind.name.attribute}`. Terraform
//! gets them as they are; for Pulumi names become camelCase and references follow.

use serde_json::{Map, Value, json};

/// A resource or, with `data`, a query.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) data: bool,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) settings: Value,
    /// The region, where it is not the default provider's.
    pub(crate) region: Option<String>,
    /// What has to be there first, beyond what is referred to.
    pub(crate) after: Vec<String>,
}

/// All resources of one root module or stack.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) name: String,
    pub(crate) provider: &'static Provider,
    /// Settings of the provider that are the whole stack's.
    pub(crate) configuration: Value,
    /// Other regions, each with a provider of its own.
    pub(crate) regions: Vec<String>,
    pub(crate) resources: Vec<Resource>,
    /// Name and value.
    pub(crate) outputs: Vec<(&'static str, String)>,
}

/// A provider as both tools know it.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Terraform's local name and the beginning of its resource types.
    pub(crate) terraform: &'static str,
    /// Terraform's registry address.
    pub(crate) source: &'static str,
    /// The version range that the names were checked against.
    pub(crate) version: &'static str,
    /// Pulumi's package; empty where the stack is not translated.
    pub(crate) pulumi: &'static str,
    /// Terraform type to Pulumi token.
    pub(crate) tokens: &'static [(&'static str, &'static str)],
    /// Settings whose name in Pulumi is not just the camelCase: the last two parts of the path in Terraform.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
}

/// Settings whose keys are the user's own words.
const FREE: [&str; 5] = ["tags", "labels", "resource_labels", "node_labels", "tag_filters"];

impl Stack {
    pub(crate) fn new(name: &str, provider: &'static Provider, configuration: Value) -> Self {
        Self {
            name: name.to_owned(),
            provider,
            configuration,
            regions: Vec::new(),
            resources: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds a resource.
    pub(crate) fn add(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        settings: Value,
    ) -> &mut Resource {
        self.push(false, kind, name.into(), settings)
    }

    /// Adds a query.
    pub(crate) fn query(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        settings: Value,
    ) -> &mut Resource {
        self.push(true, kind, name.into(), settings)
    }

    fn push(&mut self, data: bool, kind: &'static str, name: String, settings: Value) -> &mut Resource {
        let name = name.replace('-', "_");
        let index = self.resources.len();
        self.resources.push(Resource {
            data,
            kind,
            name,
            settings,
            region: None,
            after: Vec::new(),
        });
        &mut self.resources[index]
    }

    /// The stack as one Terraform JSON document.
    pub(crate) fn terraform(&self) -> Value {
        let mut resources = Map::new();
        let mut queries = Map::new();
        for resource in &self.resources {
            let mut body = resource.settings.clone();
            if let Some(region) = &resource.region {
                body["provider"] = json!(format!("{}.{}", self.provider.terraform, alias(region)));
            }
            if !resource.after.is_empty() {
                body["depends_on"] = json!(resource.after);
            }
            let into = if resource.data {
                &mut queries
            } else {
                &mut resources
            };
            let kind = into.entry(resource.kind).or_insert_with(|| json!({}));
            kind[resource.name.as_str()] = body;
        }
        let mut document = json!({
            "terraform": {
                "required_version": ">= 1.5",
                "required_providers": {
                    self.provider.terraform: {"source": self.provider.source, "version": self.provider.version}
                }
            },
            "provider": {self.provider.terraform: self.providers()},
            "resource": resources,
        });
        if !queries.is_empty() {
            document["data"] = Value::Object(queries);
        }
        for (name, value) in &self.outputs {
            document["output"][name]["value"] = json!(value);
        }
        document
    }

    fn providers(&self) -> Value {
        let mut providers = vec![self.configuration.clone()];
        providers.extend(self.regions.iter().map(|region| {
            let mut configuration = self.configuration.clone();
            configuration["region"] = json!(region);
            configuration["alias"] = json!(alias(region));
            configuration
        }));
        Value::Array(providers)
    }

    /// The stack as a Pulumi YAML project; nothing where it is not translated.
    pub(crate) fn pulumi(&self) -> Option<Value> {
        let package = self.provider.pulumi;
        if package.is_empty() {
            return None;
        }
        let mut resources = Map::new();
        let mut variables = Map::new();
        for region in &self.regions {
            let provider =
                json!({"type": format!("pulumi:providers:{package}"), "properties": {"region": region}});
            resources.insert(provider_name(region), provider);
        }
        for resource in &self.resources {
            let token = self.token(resource);
            let properties = self.properties(&resource.settings, resource.kind);
            let mut options = Map::new();
            if let Some(region) = &resource.region {
                options.insert(
                    "provider".into(),
                    json!(format!("${{{}}}", provider_name(region))),
                );
            }
            if !resource.after.is_empty() {
                let after = resource
                    .after
                    .iter()
                    .map(|name| format!("${{{}}}", self.flat(name)));
                options.insert("dependsOn".into(), after.collect());
            }
            let name = self.flat(&format!("{}.{}", resource.kind, resource.name));
            if resource.data {
                let mut invoke = json!({"function": token, "arguments": properties});
                if !options.is_empty() {
                    invoke["options"] = Value::Object(options);
                }
                variables.insert(format!("data_{name}"), json!({"fn::invoke": invoke}));
            } else {
                let mut body = json!({"type": token, "properties": properties});
                if !options.is_empty() {
                    body["options"] = Value::Object(options);
                }
                resources.insert(name, body);
            }
        }
        let mut document = json!({"name": self.name, "runtime": "yaml", "resources": resources});
        document["config"] = self.pulumi_configuration();
        if !variables.is_empty() {
            document["variables"] = Value::Object(variables);
        }
        for (name, value) in &self.outputs {
            document["outputs"][camel(name)] = json!(self.translate(value));
        }
        Some(document)
    }

    fn pulumi_configuration(&self) -> Value {
        let package = self.provider.pulumi;
        let settings = self.configuration.as_object().into_iter().flatten();
        let settings = settings
            .filter(|(_, value)| {
                value.is_string() && !value.as_str().is_some_and(|text| text.starts_with("${"))
            })
            .map(|(key, value)| (format!("{package}:{}", camel(key)), json!({"value": value})));
        Value::Object(settings.collect())
    }

    fn token(&self, resource: &Resource) -> String {
        let wanted = if resource.data {
            format!("data.{}", resource.kind)
        } else {
            resource.kind.to_owned()
        };
        let found = self.provider.tokens.iter().find(|(kind, _)| **kind == wanted);
        // A kind without a token fails the test of names, which looks every token up.
        found.map_or(wanted, |(_, token)| (*token).to_owned())
    }

    /// The settings with Pulumi's names.
    fn properties(&self, value: &Value, parent: &str) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, inner)| {
                        let name = self.rename(parent, key);
                        let inner = if FREE.contains(&key.as_str()) {
                            self.words(inner)
                        } else {
                            self.properties(inner, key)
                        };
                        (name, inner)
                    })
                    .collect(),
            ),
            Value::Array(items) => items.iter().map(|item| self.properties(item, parent)).collect(),
            Value::String(text) => json!(self.translate(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn words(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, inner)| (key.clone(), self.words(inner)))
                    .collect(),
            ),
            Value::String(text) => json!(self.translate(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.clone(),
        }
    }

    fn rename(&self, parent: &str, key: &str) -> String {
        let path = format!("{parent}.{key}");
        let found = self.provider.renamed.iter().find(|(of, _)| *of == path);
        found.map_or_else(|| camel(key), |(_, name)| (*name).to_owned())
    }

    /// Terraform's references as Pulumi's.
    fn translate(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (reference, behind) = after.split_once('}').unwrap_or((after, ""));
            out.push_str(before);
            out.push_str(&format!("${{{}}}", self.reference(reference)));
            rest = behind;
        }
        out + rest
    }

    fn reference(&self, reference: &str) -> String {
        let (prefix, reference) = match reference.strip_prefix("data.") {
            Some(rest) => ("data_", rest),
            None => ("", reference),
        };
        let mut parts = reference.splitn(3, '.');
        let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let attributes = parts.next().unwrap_or("id");
        let attributes: Vec<String> = attributes
            .split('.')
            .map(|attribute| {
                let (word, index) = attribute.split_at(attribute.find('[').unwrap_or(attribute.len()));
                // Blocks that Terraform has once at most are lists there and plain objects in Pulumi.
                let index = if word == "vpc_config" { "" } else { index };
                let renamed = self
                    .provider
                    .renamed
                    .iter()
                    .find(|(of, _)| *of == format!("{kind}.{word}"));
                renamed.map_or_else(|| camel(word), |(_, name)| (*name).to_owned()) + index
            })
            .collect();
        format!(
            "{prefix}{}.{}",
            self.flat(&format!("{kind}.{name}")),
            attributes.join(".")
        )
    }

    /// A Pulumi name for `kind.name`.
    fn flat(&self, reference: &str) -> String {
        let short = reference
            .strip_prefix(self.provider.terraform)
            .unwrap_or(reference);
        short.trim_start_matches('_').replace('.', "_")
    }
}

/// The name of the provider of a region.
fn alias(region: &str) -> String {
    region.replace('-', "_")
}

fn provider_name(region: &str) -> String {
    format!("provider_{}", alias(region))
}

/// `snake_case` as `camelCase`.
pub(crate) fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            name.extend(first.to_uppercase());
            name.push_str(letters.as_str());
        }
    }
    name
}

/// A reference to an attribute.
pub(crate) fn of(kind: &str, name: &str, attribute: &str) -> String {
    format!("${{{kind}.{}.{attribute}}}", name.replace('-', "_"))
}
