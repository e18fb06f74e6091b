// SPDX-License-Identifier: Apache-2.0
//! Other networks that run, or will run again (trap 3).

use super::{Check, each_node, some_of};
use crate::facts::{ConflistDir, Facts, NodeFacts};
use crate::finding::{Outcome, Severity};
use crate::owner::Owner;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "cni.order",
        per_node: true,
        trap: Some(3),
        title: "another network's configuration sorts before ours",
        why: "container runtimes take the first file by name: new pods get the other network, old ones keep ours",
        run: order,
    },
    Check {
        id: "cni.second",
        per_node: true,
        trap: Some(3),
        title: "another network's configuration lies behind ours",
        why: "the day ours is away (an upgrade, a restart with removal) new pods get the other network without a word",
        run: second,
    },
    Check {
        id: "cni.ours",
        per_node: true,
        trap: Some(3),
        title: "our network configuration is missing, or a file beside it cannot be read",
        why: "without it the runtime starts no pod, or starts it in another network",
        run: ours,
    },
    Check {
        id: "cni.running",
        per_node: true,
        trap: Some(3),
        title: "another network's program runs on a node",
        why: "two networks that program the same node undo each other's rules and routes",
        run: running,
    },
    Check {
        id: "cni.daemonset",
        per_node: false,
        trap: Some(3),
        title: "another network's DaemonSet wants pods on nodes",
        why: "it writes its configuration again at each of its restarts",
        run: daemon_set,
    },
    Check {
        id: "cni.addon",
        per_node: false,
        trap: Some(3),
        title: "the cloud manages its own network as an add-on of this cluster",
        why: "the cloud puts the add-on's DaemonSet back after every upgrade of the cluster",
        run: addon,
    },
];

/// Our file, if there is one: its place in the order.
fn our_place(dir: &ConflistDir) -> Option<usize> {
    let ours = |plugins: &[String]| plugins.iter().any(|plugin| plugin == cni::PLUGIN_TYPE);
    dir.files.iter().position(|file| ours(&file.plugins))
}

/// Whether the node's addresses come from a cloud's own service on purpose (Azure CNI's delegated mode).
fn delegated_to(node: &NodeFacts, owner: Owner) -> bool {
    let dir = node.conflists.known();
    let ours = dir.and_then(|dir| dir.files.get(our_place(dir)?));
    owner == Owner::AzureCni
        && ours.is_some_and(|file| file.plugins.iter().any(|plugin| plugin == "ipam:azure-ipam"))
}

fn order(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(dir) = outcome.need(&node.name, &node.conflists) else {
            return;
        };
        let Some(place) = our_place(dir) else { return };
        // A file that cannot be read is passed over by the runtime, until somebody mends it.
        for rival in dir.files.iter().take(place).filter(|file| file.error.is_none()) {
            let owner = Owner::of_plugins(&rival.plugins).unwrap_or(Owner::Other);
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{}/{} ({owner}: {}) sorts before {}",
                    dir.dir,
                    rival.file,
                    rival.plugins.join(", "),
                    dir.files[place].file
                ),
                format!(
                    "on {1}: thalweg conflicts remove --owner {0} --execute",
                    owner.as_str(),
                    node.name
                ),
            );
        }
    });
}

fn second(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(dir) = outcome.need(&node.name, &node.conflists) else {
            return;
        };
        let Some(place) = our_place(dir) else { return };
        for other in dir
            .files
            .iter()
            .skip(place + 1)
            .filter(|file| file.error.is_none())
        {
            let Some(owner) = Owner::of_plugins(&other.plugins) else {
                continue;
            };
            outcome.find(
                Severity::Warning,
                &node.name,
                format!(
                    "{}/{} ({owner}: {}) is still there",
                    dir.dir,
                    other.file,
                    other.plugins.join(", ")
                ),
                format!(
                    "on {1}: thalweg conflicts remove --owner {0} --execute",
                    owner.as_str(),
                    node.name
                ),
            );
        }
    });
}

fn ours(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(dir) = outcome.need(&node.name, &node.conflists) else {
            return;
        };
        for file in &dir.files {
            if let Some(error) = &file.error {
                outcome.find(
                    Severity::Warning,
                    &node.name,
                    format!("{}/{} cannot be read: {error}", dir.dir, file.file),
                    format!("mend or remove {}/{}", dir.dir, file.file),
                );
            }
        }
        let ready = node.agent.known().is_some_and(|agent| agent.ready);
        if our_place(dir).is_none() && ready {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{} has no configuration of ours although the agent is ready",
                    dir.dir
                ),
                "see cni.confDir: is it the directory that the container runtime reads?",
            );
        }
    });
}

fn running(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(processes) = outcome.need(&node.name, &node.processes) else {
            return;
        };
        for owner in Owner::ALL {
            let running = processes
                .iter()
                .filter(|name| owner.processes().contains(&name.as_str()));
            let running: Vec<_> = running.collect();
            // kube-proxy is no network of pods, and belongs beside one that does not replace it.
            if owner == Owner::KubeProxy || running.is_empty() || delegated_to(node, owner) {
                continue;
            }
            outcome.find(
                Severity::Error,
                &node.name,
                format!("{} of {owner} runs", some_of(running)),
                remove_daemon_set(facts, owner),
            );
        }
    });
}

fn daemon_set(facts: &Facts, outcome: &mut Outcome) {
    let Some(sets) = outcome.need("cluster", &facts.cluster.daemon_sets) else {
        return;
    };
    for set in sets.iter().filter(|set| set.desired > 0) {
        let Some(owner) = Owner::of_daemon_set(&set.name) else {
            continue;
        };
        if owner == Owner::KubeProxy || facts.nodes.iter().any(|node| delegated_to(node, owner)) {
            continue;
        }
        outcome.find(
            Severity::Error,
            "cluster",
            format!(
                "DaemonSet {}/{} ({owner}) wants {} pods, {} are ready",
                set.namespace, set.name, set.desired, set.ready
            ),
            off_the_nodes(&set.namespace, &set.name),
        );
    }
}

/// The DaemonSet is kept, without nodes: the way back needs it.
fn off_the_nodes(namespace: &str, set: &str) -> String {
    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"thalweg.io/never":"true"}}}}}"#;
    format!("kubectl -n {namespace} patch daemonset {set} --type merge -p '{patch}'")
}

/// A network's DaemonSet off the nodes: the one that is there, else by its usual name.
fn remove_daemon_set(facts: &Facts, owner: Owner) -> String {
    let sets = facts.cluster.daemon_sets.known().into_iter().flatten();
    let mut sets = sets.filter(|set| Owner::of_daemon_set(&set.name) == Some(owner));
    if let Some(set) = sets.next() {
        return off_the_nodes(&set.namespace, &set.name);
    }
    let (set, namespace) = match owner {
        Owner::VpcCni => ("aws-node", "kube-system"),
        Owner::AzureCni => ("azure-cns", "kube-system"),
        Owner::Calico => ("calico-node", "kube-system"),
        Owner::Flannel => ("kube-flannel-ds", "kube-flannel"),
        Owner::Cilium => ("cilium", "kube-system"),
        Owner::Weave => ("weave-net", "kube-system"),
        Owner::KubeRouter => ("kube-router", "kube-system"),
        Owner::KubeProxy => ("kube-proxy", "kube-system"),
        Owner::Other => return "stop it, then `thalweg conflicts list` shows what it left".to_owned(),
    };
    off_the_nodes(namespace, set)
}

fn addon(facts: &Facts, outcome: &mut Outcome) {
    use crate::facts::Provider;
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    if *provider != Provider::Aws {
        return;
    }
    let Some(addons) = outcome.need("cloud", &facts.cloud.addons) else {
        return;
    };
    for addon in addons.iter().filter(|addon| addon.name == "vpc-cni") {
        outcome.find(
            Severity::Warning,
            "cloud",
            format!("the add-on vpc-cni {} is {}", addon.version, addon.status),
            "aws eks delete-addon --cluster-name NAME --addon-name vpc-cni --preserve, then patch aws-node off the nodes",
        );
    }
}
