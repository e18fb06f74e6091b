// SPDX-License-Identifier: Apache-2.0
//! Paths.

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Version,
    ApiVersions,
    ApiGroups,
    ApiGroup { group: String },
    ApiResources { group: String, version: String },
    OpenApiIndex,
    OpenApi { group: String, version: String },
    Resource(Target),
}

/// A collection, an object or a subresource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Route {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz" | "readyz" | "livez", ..] => Some(Self::Health),
            ["version"] => Some(Self::Version),
            ["api"] => Some(Self::ApiVersions),
            ["apis"] => Some(Self::ApiGroups),
            ["apis", group] => Some(Self::ApiGroup {
                group: (*group).into(),
            }),
            ["openapi", "v3"] => Some(Self::OpenApiIndex),
            ["openapi", "v3", "api", version] => Some(Self::OpenApi {
                group: String::new(),
                version: (*version).into(),
            }),
            ["openapi", "v3", "apis", group, version] => Some(Self::OpenApi {
                group: (*group).into(),
                version: (*version).into(),
            }),
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            _ => None,
        }
    }

    fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (group, version) = (group.to_owned(), version.to_owned());
        // Namespaces are a resource and a prefix at once; their subresources are known.
        let (namespace, rest) = match rest {
            [] => return Some(Self::ApiResources { group, version }),
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some((*name).to_owned()), None),
            [plural, name, subresource] => {
                (plural, Some((*name).to_owned()), Some((*subresource).to_owned()))
            }
            _ => return None,
        };
        Some(Self::Resource(Target {
            group,
            version,
            namespace,
            plural: (*plural).into(),
            name,
            subresource,
        }))
    }
}

/// Percent-decoding; names of roles may hold colons.
fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    // A form's decoding is the same but for the plus sign.
    let escaped = segment.replace('+', "%2B");
    form_urlencoded::parse(escaped.as_bytes())
        .next()
        .map_or_else(String::new, |(name, _)| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> (String, Option<String>, String, Option<String>, Option<String>) {
        match Route::parse(path) {
            Some(Route::Resource(t)) => (t.group, t.namespace, t.plural, t.name, t.subresource),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_objects_with_and_without_a_namespace() {
        let s = |s: &str| Some(s.to_owned());
        assert_eq!(
            target("/api/v1/pods"),
            ("".into(), None, "pods".into(), None, None)
        );
        assert_eq!(
            target("/api/v1/namespaces/a"),
            ("".into(), None, "namespaces".into(), s("a"), None)
        );
        assert_eq!(target("/api/v1/namespaces/a/finalize").4, s("finalize"));
        assert_eq!(
            target("/apis/apps/v1/namespaces/a/deployments/d/scale"),
            ("apps".into(), s("a"), "deployments".into(), s("d"), s("scale"))
        );
        assert_eq!(
            target("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode").3,
            s("system:node")
        );
    }

    #[test]
    fn other_paths_are_discovery_or_nothing() {
        assert_eq!(Route::parse("/readyz/ping"), Some(Route::Health));
        assert_eq!(
            Route::parse("/api/v1"),
            Some(Route::ApiResources {
                group: "".into(),
                version: "v1".into()
            })
        );
        assert_eq!(Route::parse("/openapi/v2"), None);
        assert_eq!(Route::parse("/api/v1/namespaces/a/pods/b/exec/c"), None);
    }
}
