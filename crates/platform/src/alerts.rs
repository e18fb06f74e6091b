// SPDX-License-Identifier: Apache-2.0
//! Alert rules for Prometheus, for what the agent really measures in a cluster's mode.

use serde_json::{Value, json};

use crate::file::{Cluster, Mode, Platform};
use crate::render::yaml;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    name: &'static str,
    expression: String,
    /// How long it has to hold, as Prometheus writes durations.
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
    action: &'static str,
}

/// The rules of each cluster as a rule file for Prometheus: its path and content.
#[must_use]
pub fn alerts(platform: &Platform) -> Vec<(String, String)> {
    let file = |cluster: &Cluster| {
        (
            format!("alerts/{}.yaml", cluster.name),
            yaml(&group(platform, cluster)),
        )
    };
    platform.clusters.iter().map(file).collect()
}

fn group(platform: &Platform, cluster: &Cluster) -> Value {
    let rules: Vec<Value> = rules(cluster)
        .into_iter()
        .map(|rule| {
            json!({
                "alert": rule.name,
                "expr": rule.expression,
                "for": rule.lasting,
                "labels": {"severity": rule.severity, "cluster": cluster.name, "platform": platform.name},
                "annotations": {"summary": rule.summary, "action": rule.action},
            })
        })
        .collect();
    json!({"groups": [{"name": format!("thalweg-{}", cluster.name), "rules": rules}]})
}

fn rules(cluster: &Cluster) -> Vec<Rule> {
    let mut rules = agent();
    rules.extend(datapath());
    // Where the cloud owns addresses, its pools are not the agent's to count.
    if matches!(cluster.mode, Mode::Overlay | Mode::PodCidr) {
        rules.push(Rule {
            name: "ThalwegPodAddressesNearlyGone",
            expression: "thalweg_ipam_used + thalweg_ipam_resting > 0.9 * thalweg_ipam_capacity".into(),
            lasting: "10m",
            severity: "warning",
            summary: "Node {{ $labels.instance }} has used nine tenths of pool {{ $labels.pool }}",
            action: "thalweg ipam status; more nodes, or a shorter nodeMask in a new cluster",
        });
    }
    rules
}

fn agent() -> Vec<Rule> {
    vec![
        Rule {
            name: "ThalwegNobodyMeasured",
            expression: "absent(thalweg_build_info)".into(),
            lasting: "10m",
            severity: "critical",
            summary: "No agent is measured",
            action: "set metricsAddress and let Prometheus scrape it; kubectl -n kube-system get daemonset thalweg",
        },
        Rule {
            name: "ThalwegAgentNotReady",
            expression: "thalweg_ready == 0".into(),
            lasting: "5m",
            severity: "critical",
            summary: "On {{ $labels.instance }} no pod can be started; those that run are not touched",
            action: "thalweg status --node NODE says which condition is not fulfilled",
        },
        Rule {
            name: "ThalwegAgentRestarts",
            expression: "resets(thalweg_uptime_seconds[1h]) > 3".into(),
            lasting: "5m",
            severity: "warning",
            summary: "The agent on {{ $labels.instance }} started more than three times in an hour",
            action: "kubectl -n kube-system logs --previous; traffic goes on meanwhile",
        },
        Rule {
            name: "ThalwegVersionsDiffer",
            expression: "count(count by (version) (thalweg_build_info)) > 1".into(),
            lasting: "2h",
            severity: "warning",
            summary: "Agents of several versions for two hours: an upgrade has stopped half-way",
            action: "go on with the upgrade or take it back",
        },
        Rule {
            name: "ThalwegEndpointsNotInForce",
            expression: "thalweg_endpoint_errors > 0".into(),
            lasting: "5m",
            severity: "critical",
            summary: "Pods on {{ $labels.instance }} are not in the datapath",
            action: "thalweg endpoint list --node NODE",
        },
        Rule {
            name: "ThalwegApplyFails",
            expression: "thalweg_apply_problems > 0 or thalweg_apply_routes{state=\"error\"} > 0".into(),
            lasting: "5m",
            severity: "critical",
            summary: "The agent on {{ $labels.instance }} cannot bring the kernel to what is wanted",
            action: "thalweg status --node NODE, under Not well",
        },
        Rule {
            name: "ThalwegKubernetesUnreachable",
            expression: "thalweg_k8s_watch_connected == 0".into(),
            lasting: "10m",
            severity: "warning",
            summary: "The agent on {{ $labels.instance }} hears nothing of {{ $labels.resource }}",
            action: "new nodes and pods elsewhere stay unknown; look at the way to the Kubernetes API",
        },
        Rule {
            name: "ThalwegNodeNotReached",
            expression: "thalweg_health_up == 0".into(),
            lasting: "5m",
            severity: "critical",
            summary: "{{ $labels.instance }} does not reach {{ $labels.peer }} ({{ $labels.kind }})",
            action: "thalweg health shows which way is broken: node or pod, ICMP or TCP",
        },
    ]
}

fn datapath() -> Vec<Rule> {
    vec![
        Rule {
            name: "ThalwegDrops",
            expression: "sum by (instance, reason, direction) (rate(thalweg_drops_total{reason!=\"LINK_LOCAL_CHATTER\"}[5m])) > 10".into(),
            lasting: "10m",
            severity: "warning",
            summary: "{{ $labels.instance }} drops {{ $value }} packets a second: {{ $labels.reason }}",
            action: "the table of drop reasons in the book says what each means",
        },
        Rule {
            name: "ThalwegConntrackNearlyFull",
            expression: "thalweg_conntrack_pressure > 0.8".into(),
            lasting: "5m",
            severity: "warning",
            summary: "The connection table of {{ $labels.instance }} is more than 80 % full",
            action: "thalweg conntrack list --node NODE; raise conntrack.maxEntries or shorten conntrack.timeouts",
        },
        Rule {
            name: "ThalwegConntrackFull",
            expression: "thalweg_conntrack_pressure > 0.95".into(),
            lasting: "1m",
            severity: "critical",
            summary: "The connection table of {{ $labels.instance }} is full: new connections fail",
            action: "raise conntrack.maxEntries",
        },
        Rule {
            name: "ThalwegMapNearlyFull",
            expression: "thalweg_map_entries > 0.8 * thalweg_map_max_entries".into(),
            lasting: "10m",
            severity: "warning",
            summary: "Map {{ $labels.map }} of {{ $labels.instance }} is more than 80 % full",
            action: "thalweg map list --node NODE",
        },
        Rule {
            name: "ThalwegEventsLost",
            expression: "rate(thalweg_events_lost_total[5m]) > 0".into(),
            lasting: "10m",
            severity: "warning",
            summary: "{{ $labels.instance }} has more events than the ring holds; counters are still right",
            action: "raise events.ringBytes",
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::alerts;
    use crate::sample::parsed;

    const ALL: [&str; 3] = [
        include_str!("../../../examples/platform/many-clouds.yaml"),
        include_str!("../../../examples/platform/aks-none.yaml"),
        include_str!("../../../examples/platform/bare-metal.yaml"),
    ];

    /// Names in the agent's source, with the ending that counters get in the text format.
    fn exported() -> BTreeSet<String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/metrics.rs");
        let text = std::fs::read_to_string(source).unwrap();
        let mut names = BTreeSet::new();
        for (call, ending) in [
            (".gauge(", ""),
            (".gauges(", ""),
            (".counter(", "_total"),
            (".counters(", "_total"),
        ] {
            for after in text.split(call).skip(1) {
                if let Some(name) = after
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next())
                {
                    names.insert(format!("{name}{ending}"));
                }
            }
        }
        names
    }

    fn named(expression: &str) -> Vec<&str> {
        let word = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
        expression
            .split(word)
            .filter(|word| word.starts_with("thalweg_"))
            .collect()
    }

    #[test]
    fn every_metric_of_a_rule_is_one_that_the_agent_exports() {
        let exported = exported();
        assert!(exported.len() > 20, "{exported:?}");
        let mut looked_up = 0;
        for (path, content) in ALL.iter().flat_map(|text| alerts(&parsed(text))) {
            let rules: serde_json::Value = serde_yaml_ng::from_str(&content).unwrap();
            for rule in rules["groups"][0]["rules"].as_array().unwrap() {
                let expression = rule["expr"].as_str().unwrap();
                assert!(!named(expression).is_empty(), "{expression}");
                for name in named(expression) {
                    assert!(exported.contains(name), "{path}: {name} in {expression}");
                    looked_up += 1;
                }
                for key in ["alert", "for"] {
                    assert!(!rule[key].as_str().unwrap().is_empty(), "{rule}");
                }
                assert!(
                    rule["annotations"]["action"]
                        .as_str()
                        .is_some_and(|action| !action.is_empty())
                );
            }
        }
        assert!(looked_up > 50, "{looked_up}");
    }

    #[test]
    fn address_pools_are_watched_where_they_are_the_agents() {
        let files = alerts(&parsed(ALL[0]));
        let watched: Vec<&str> = files
            .iter()
            .filter(|(_, content)| content.contains("thalweg_ipam_used"))
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(watched, ["alerts/gcp-us.yaml"]);
    }

    #[test]
    fn alert_files_are_as_they_were_read_by_people() {
        let files = alerts(&parsed(ALL[2]));
        insta::with_settings!({snapshot_path => "../testdata", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!("alerts", files[0].1);
        });
    }
}
