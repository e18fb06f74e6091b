// SPDX-License-Identifier: Apache-2.0
//! Which node a pod goes to: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
    Toleration,
};
use kube::ResourceExt as _;

/// The pods of one node, as far as placement cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// All pods that are not finished.
    pub(crate) pods: usize,
    /// How many of them each owner has, by the owner's UID.
    pub(crate) by_owner: BTreeMap<String, usize>,
}

impl Load {
    /// Counts one more pod.
    pub(crate) fn add(&mut self, pod: &Pod) {
        self.pods += 1;
        if let Some(owner) = owner(pod) {
            *self.by_owner.entry(owner.to_owned()).or_default() += 1;
        }
    }
}

/// Why a node does not take a pod; in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    NotReady,
    Cordoned,
    Selector,
    Taint,
    Full,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::NotReady => "were not ready",
            Self::Cordoned => "were unschedulable",
            Self::Selector => "didn't match Pod's node affinity/selector",
            Self::Taint => "had untolerated taint(s)",
            Self::Full => "had too many pods",
        }
    }
}

/// The node for the pod: of those that take it the one with the fewest pods of the same owner, then with the fewest pods,
/// then the first by name. `Err` says why there is none, in the words of the Kubernetes scheduler.
pub(crate) fn place(
    pod: &Pod,
    nodes: &[Arc<Node>],
    loads: &BTreeMap<String, Load>,
) -> Result<String, String> {
    let empty = Load::default();
    let mut refusals: BTreeMap<Refusal, usize> = BTreeMap::new();
    let mut best: Option<(usize, usize, String)> = None;
    for node in nodes {
        let name = node.name_any();
        let load = loads.get(&name).unwrap_or(&empty);
        if let Some(refusal) = refuses(node, pod, load) {
            *refusals.entry(refusal).or_default() += 1;
            continue;
        }
        let siblings = owner(pod)
            .and_then(|owner| load.by_owner.get(owner))
            .copied()
            .unwrap_or_default();
        let candidate = (siblings, load.pods, name);
        if best.as_ref().is_none_or(|best| candidate < *best) {
            best = Some(candidate);
        }
    }
    best.map(|(_, _, name)| name)
        .ok_or_else(|| explain(nodes.len(), &refusals))
}

fn explain(nodes: usize, refusals: &BTreeMap<Refusal, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let parts: Vec<String> = refusals
        .iter()
        .map(|(why, count)| format!("{count} node(s) {}", why.text()))
        .collect();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

fn refuses(node: &Node, pod: &Pod, load: &Load) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let node_spec = node.spec.clone().unwrap_or_default();
    if !is_ready(node) {
        return Some(Refusal::NotReady);
    }
    if node_spec.unschedulable == Some(true) {
        return Some(Refusal::Cordoned);
    }
    if !matches_node(spec, node) {
        return Some(Refusal::Selector);
    }
    if node_spec
        .taints
        .iter()
        .flatten()
        .any(|taint| !tolerated(spec, taint))
    {
        return Some(Refusal::Taint);
    }
    (load.pods >= pod_capacity(node)).then_some(Refusal::Full)
}

/// Whether the node's Ready condition is true.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether the pod's node selector and required node affinity accept the node.
pub(crate) fn matches_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let selector = spec.node_selector.as_ref();
    let selected = selector
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    selected
        && affinity
            .and_then(required)
            .is_none_or(|required| matches_selector(required, node))
}

fn required(affinity: &NodeAffinity) -> Option<&NodeSelector> {
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

fn matches_selector(selector: &NodeSelector, node: &Node) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| matches_term(term, node))
}

fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.labels();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // An empty term selects nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.name_any();
    expressions
        .iter()
        .all(|r| meets(r, labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && meets(r, Some(&name)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|v| number(v));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((value.and_then(number), bound), (Some(value), Some(bound)) if value > bound),
        "Lt" => matches!((value.and_then(number), bound), (Some(value), Some(bound)) if value < bound),
        _ => false,
    }
}

/// Whether the pod may start on a node with that taint.
pub(crate) fn tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    taint.effect == "PreferNoSchedule" || spec.tolerations.iter().flatten().any(|t| tolerates(t, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if key.is_empty() {
        return exists;
    }
    let same_value =
        toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    key == taint.key && (exists || same_value)
}

fn pod_capacity(node: &Node) -> usize {
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    allocatable
        .and_then(|all| all.get("pods"))
        .and_then(|pods| pods.0.parse().ok())
        .unwrap_or(usize::MAX)
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, extra: Value) -> Arc<Node> {
        let mut node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }], "allocatable": { "pods": "3" } },
        });
        merge(&mut node, extra);
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn pod(spec: Value) -> Pod {
        let mut full = json!({ "containers": [] });
        merge(&mut full, spec);
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": full })).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn loads(pods: &[(&str, usize)]) -> BTreeMap<String, Load> {
        pods.iter()
            .map(|&(name, pods)| {
                (
                    name.to_owned(),
                    Load {
                        pods,
                        ..Load::default()
                    },
                )
            })
            .collect()
    }

    #[test]
    fn the_emptiest_node_wins_and_the_name_decides_between_equals() {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
        assert_eq!(
            place(&pod(json!({})), &nodes, &loads(&[("a", 2), ("b", 1), ("c", 1)])).unwrap(),
            "b"
        );
    }

    #[test]
    fn replicas_of_one_owner_spread_before_pods_do() {
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let mut pod = pod(json!({}));
        pod.metadata.owner_references = serde_json::from_value(
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }]),
        )
        .unwrap();
        let mut loads = loads(&[("b", 2)]);
        loads.entry("a".into()).or_default().add(&pod);
        assert_eq!(place(&pod, &nodes, &loads).unwrap(), "b");
    }

    #[test]
    fn only_ready_uncordoned_selected_tolerated_and_roomy_nodes_count() {
        let nodes = [
            node("cordoned", json!({ "spec": { "unschedulable": true } })),
            node("down", json!({ "status": { "conditions": [] } })),
            node("full", json!({})),
            node("other", json!({ "metadata": { "labels": { "disk": "slow" } } })),
            node(
                "tainted",
                json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }),
            ),
        ];
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "disk", "operator": "NotIn", "values": ["slow"] }] }],
        } } });
        let why = place(
            &pod(json!({ "affinity": affinity })),
            &nodes,
            &loads(&[("full", 3)]),
        )
        .unwrap_err();
        assert_eq!(
            why,
            "0/5 nodes are available: 1 node(s) were not ready, 1 node(s) were unschedulable, 1 node(s) didn't match \
             Pod's node affinity/selector, 1 node(s) had untolerated taint(s), 1 node(s) had too many pods."
        );
    }

    #[test]
    fn a_toleration_admits_a_tainted_node() {
        let nodes = [node(
            "a",
            json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoExecute" }] } }),
        )];
        let place = |toleration| {
            place(
                &pod(json!({ "tolerations": [toleration] })),
                &nodes,
                &BTreeMap::new(),
            )
        };
        assert!(place(json!({ "key": "k", "value": "v" })).is_ok());
        assert!(place(json!({ "operator": "Exists" })).is_ok());
        assert!(place(json!({ "key": "k", "value": "w" })).is_err());
        assert!(place(json!({ "key": "k", "operator": "Exists", "effect": "NoSchedule" })).is_err());
    }

    #[test]
    fn a_node_is_selected_by_name_field_and_numbers() {
        let nodes = [
            node("a", json!({ "metadata": { "labels": { "gen": "7" } } })),
            node("b", json!({})),
        ];
        let term = |term| {
            let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
                { "nodeSelectorTerms": [term] } } });
            place(&pod(json!({ "affinity": affinity })), &nodes, &BTreeMap::new()).ok()
        };
        let field = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["b"] }] });
        assert_eq!(term(field).as_deref(), Some("b"));
        let newer = json!({ "matchExpressions": [{ "key": "gen", "operator": "Gt", "values": ["6"] }] });
        assert_eq!(term(newer).as_deref(), Some("a"));
        assert_eq!(term(json!({})), None, "an empty term selects nothing");
    }
}
