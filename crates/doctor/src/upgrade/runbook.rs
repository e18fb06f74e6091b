// SPDX-License-Identifier: Apache-2.0
//! The runbook of an upgrade.

use serde::Serialize;

use super::{Assessment, Gate, Request, Verdict};
use crate::facts::{Facts, Provider};

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does.
    pub title: String,
    /// What to run.
    pub command: String,
    /// How to see that it worked; if not, undo it and stop.
    pub gate: String,
    /// How to undo it.
    pub undo: String,
}

const HEALTHY: &str =
    "thalweg doctor --kubeconfig FILE; its exit code is 0, and thalweg connectivity test passes";

fn step(
    title: impl Into<String>,
    command: impl Into<String>,
    gate: impl Into<String>,
    undo: impl Into<String>,
) -> Step {
    Step {
        title: title.into(),
        command: command.into(),
        gate: gate.into(),
        undo: undo.into(),
    }
}

pub(super) fn steps(facts: &Facts, request: &Request, gates: &[Gate]) -> Vec<Step> {
    let mut steps = Vec::new();
    for gate in gates
        .iter()
        .filter(|gate| gate.verdict != Verdict::Pass && !gate.mend.is_empty())
    {
        steps.push(step(
            format!("Before anything: {} ({})", gate.title, gate.verdict.as_str()),
            gate.mend.clone(),
            format!(
                "thalweg upgrade check --to-kubernetes {} says pass for {}",
                request.to_kubernetes, gate.id
            ),
            "nothing of the upgrade was done",
        ));
    }
    steps.push(step(
        "Record what is",
        "thalweg doctor --kubeconfig FILE --record before.json; kubectl get nodes -o wide > nodes-before.txt; take a backup of etcd, or of the objects (velero backup create before-upgrade)",
        "before.json is there, and `thalweg doctor --from before.json` reads it",
        "nothing was changed",
    ));
    if let Some(version) = &request.to_version {
        steps.push(step(
            format!("Thalweg to {version}, one node first"),
            format!("kubectl -n kube-system set image daemonset/thalweg agent=IMAGE:{version}, with updateStrategy OnDelete; kubectl delete pod of the agent on NODE"),
            format!("thalweg status --node NODE shows {version}, ready, and the connections from before; {HEALTHY}"),
            "kubectl -n kube-system rollout undo daemonset/thalweg; kubectl delete pod of the agent on NODE",
        ));
        steps.push(step(
            format!("Thalweg to {version}, the other nodes"),
            "kubectl -n kube-system patch daemonset thalweg -p '{\"spec\":{\"updateStrategy\":{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxUnavailable\":1}}}}'; kubectl -n kube-system rollout status daemonset/thalweg",
            HEALTHY,
            "kubectl -n kube-system rollout undo daemonset/thalweg: running connections stay, the older agent takes the pinned maps over",
        ));
    }
    steps.extend(control_plane(facts, request));
    steps.extend(nodes(facts, request));
    steps.push(step(
        "Afterwards",
        "thalweg doctor --kubeconfig FILE --record after.json; thalweg connectivity test --kubeconfig FILE --image IMAGE",
        "no finding that before.json does not have",
        "the undo of the last step that was done, then of the one before",
    ));
    steps
}

fn control_plane(facts: &Facts, request: &Request) -> Option<Step> {
    let to = request.to_kubernetes;
    let unchanged = facts
        .cluster
        .version
        .known()
        .and_then(|text| crate::version::Version::parse(text).ok())
        == Some(to);
    if unchanged {
        return None;
    }
    let (command, undo) = match facts.cloud.provider.known() {
        Some(Provider::Aws) => (
            format!("aws eks update-cluster-version --name CLUSTER --kubernetes-version {to}"),
            "none: EKS does not go back; a new cluster of the old version and the backup",
        ),
        Some(Provider::Azure) => (
            format!(
                "az aks upgrade --resource-group GROUP --name CLUSTER --kubernetes-version {to} --control-plane-only"
            ),
            "none: AKS does not go back; a new cluster of the old version and the backup",
        ),
        Some(Provider::Gcp) => (
            format!("gcloud container clusters upgrade CLUSTER --master --cluster-version {to}"),
            "gcloud container clusters upgrade CLUSTER --master --cluster-version OLD, patches of one minor version only",
        ),
        _ => (
            format!(
                "kubeadm upgrade plan {to}; kubeadm upgrade apply {to} on the first control plane node, kubeadm upgrade node on the others"
            ),
            "restore etcd's snapshot and the static pods' manifests in /etc/kubernetes/tmp",
        ),
    };
    let gate = format!("kubectl version shows {to}; thalweg status: all agents ready, and their watches run");
    Some(step(format!("The control plane to {to}"), command, gate, undo))
}

fn nodes(facts: &Facts, request: &Request) -> Vec<Step> {
    let to = request.to_kubernetes;
    let (canary, rest, undo) = match facts.cloud.provider.known() {
        Some(Provider::Aws) => (
            format!(
                "aws eks create-nodegroup … --version {to} --scaling-config minSize=1,maxSize=1,desiredSize=1, with the not-ready taint"
            ),
            format!(
                "aws eks update-nodegroup-version --cluster-name CLUSTER --nodegroup-name GROUP --kubernetes-version {to}, group by group, updateConfig maxUnavailable=1"
            ),
            "aws eks update-nodegroup-version … --release-version OLD: images go back within the skew policy",
        ),
        Some(Provider::Azure) => (
            format!("az aks nodepool add --name canary --node-count 1 --kubernetes-version {to}"),
            format!(
                "az aks nodepool upgrade --name POOL --kubernetes-version {to} --max-surge 1, pool by pool"
            ),
            "az aks nodepool add of the old version within the skew policy, drain the new one",
        ),
        Some(Provider::Gcp) => (
            format!("gcloud container node-pools create canary --num-nodes 1 --node-version {to}"),
            format!(
                "gcloud container clusters upgrade CLUSTER --node-pool POOL --cluster-version {to}, pool by pool"
            ),
            "gcloud container node-pools rollback POOL",
        ),
        _ => (
            format!(
                "kubectl drain NODE --ignore-daemonsets; upgrade kubelet and image of NODE to {to}; kubectl uncordon NODE"
            ),
            "the other nodes one by one: drain, upgrade, uncordon".to_owned(),
            "the old packages or image on the node, then uncordon",
        ),
    };
    vec![
        step(
            "One node of the new image: the canary",
            canary,
            "thalweg upgrade canary on it says that all programs load; thalweg status --node NODE: ready; a pod there reaches one elsewhere",
            "delete this node; the others are as they were",
        ),
        step(
            "The other nodes",
            rest,
            format!("after each group: {HEALTHY}"),
            undo,
        ),
    ]
}

/// The assessment as a page of Markdown.
#[must_use]
pub fn markdown(assessment: &Assessment) -> String {
    let from = if assessment.from_kubernetes.is_empty() {
        "unknown"
    } else {
        &assessment.from_kubernetes
    };
    let mut page = format!(
        "# Upgrade of {} from Kubernetes {from} to {}\n\nVerdict: **{}**\n\n| gate | trap | verdict | evidence |\n|---|---|---|---|\n",
        assessment.title,
        assessment.to_kubernetes,
        assessment.verdict.as_str()
    );
    for gate in &assessment.gates {
        let trap = gate.trap;
        let evidence = gate.evidence.replace('|', "\\|").replace('\n', " ");
        page.push_str(&format!(
            "| {} | {trap} | {} | {evidence} |\n",
            gate.title,
            gate.verdict.as_str()
        ));
    }
    page.push_str("\n## Runbook\n\nStop at the first gate that does not hold, and undo that step.\n");
    for (number, step) in assessment.runbook.iter().enumerate() {
        page.push_str(&format!(
            "\n### {}. {}\n\n```\n{}\n```\n\n- Gate: {}\n- Undo: {}\n",
            number + 1,
            step.title,
            step.command,
            step.gate,
            step.undo
        ));
    }
    page
}
