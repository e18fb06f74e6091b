// SPDX-License-Identifier: Apache-2.0
//! From the VPC CNI to Thalweg on a running EKS cluster, by new nodes beside the old ones. No node has two networks.

use super::{Draft, Facts, Runbook, numbered, unknown};
use crate::file::Mode;
use crate::render::{Context, TAINT};

pub(super) fn plan(context: &Context<'_>, facts: &Facts<'_>) -> Runbook {
    let name = &context.cluster.name;
    let mut before = vec![
        format!("kubectl has the context `{name}`; Velero is installed and reaches the bucket `{}`", facts.bucket),
        "`thalweg upgrade check` says yes for the kernel of the node image".into(),
        "the quota of instances holds the doubled capacity: all new nodes come before an old one goes".into(),
        "pods of old and new nodes reach each other for the time between only where both have addresses of the VPC".into(),
    ];
    let mut lost = vec![
        "security groups per pod (SecurityGroupPolicy): they are the VPC CNI's branch interfaces, and become NetworkPolicy".to_owned(),
        "the VPC CNI's network policy agent; NetworkPolicy objects stay, and Thalweg enforces them once it does policy".to_owned(),
    ];
    if context.cluster.mode == Mode::Overlay {
        before.push("overlay addresses are not routed by the VPC: pods of old and new nodes do NOT reach each other directly. Move by whole applications, or take mode eni first".into());
        lost.push("pods' addresses in the VPC: load balancers with target type `ip` and peers that know pod addresses stop working; change to target type `instance` first".into());
    }
    Runbook {
        title: format!("VPC CNI to Thalweg on {}", context.full_name()),
        from: name.clone(),
        to: name.clone(),
        before,
        steps: numbered(
            [first(context), second(context), third(context)]
                .into_iter()
                .flatten()
                .collect(),
            "remove the VPC CNI",
        ),
        lost,
    }
}

/// The label that new nodes' groups give them; the old ones get another.
const OURS: &str = "thalweg.io/network=thalweg";

fn first(context: &Context<'_>) -> Vec<Draft> {
    let (name, full, region) = (
        &context.cluster.name,
        context.full_name(),
        &context.cluster.region,
    );
    vec![
        Draft {
            title: "back up",
            command: format!(
                "velero --kubecontext {name} backup create before-thalweg --default-volumes-to-fs-backup --wait && kubectl --context {name} get daemonset aws-node -n kube-system -o yaml >aws-node.yaml && {{ aws eks describe-addon --region {region} --cluster-name {full} --addon-name vpc-cni >vpc-cni-addon.json || true; }}"
            ),
            check: format!(
                "test \"$(velero --kubecontext {name} backup get before-thalweg -o json | jq -r .status.phase)\" = Completed && test -s aws-node.yaml"
            ),
            undo: format!("velero --kubecontext {name} backup delete before-thalweg --confirm"),
            duration: unknown("how much data volumes hold"),
            impact: "none",
        },
        Draft {
            title: "keep the VPC CNI to the old nodes",
            command: format!(
                "kubectl --context {name} label nodes --all thalweg.io/network=vpc-cni --overwrite && kubectl --context {name} patch daemonset aws-node -n kube-system --type merge -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{{\"thalweg.io/network\":\"vpc-cni\"}}}}}}}}}}'"
            ),
            check: format!(
                "kubectl --context {name} rollout status daemonset/aws-node -n kube-system --timeout=10m && test \"$(kubectl --context {name} get daemonset aws-node -n kube-system -o jsonpath='{{.spec.template.spec.nodeSelector.thalweg\\.io/network}}')\" = vpc-cni"
            ),
            undo: format!(
                "kubectl --context {name} patch daemonset aws-node -n kube-system --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/template/spec/nodeSelector\"}}]'"
            ),
            duration: unknown("the number of nodes: the DaemonSet restarts on each"),
            impact: "none for running pods; no new pod starts on a node while its aws-node restarts",
        },
        Draft {
            title: "install Thalweg, for new nodes only",
            command: format!(
                "helm --kube-context {name} upgrade --install thalweg CHART -n kube-system -f gitops/clusters/{name}/values.yaml --set nodeSelector.thalweg\\\\.io/network=thalweg"
            ),
            check: format!(
                "test \"$(kubectl --context {name} get daemonset thalweg -n kube-system -o jsonpath='{{.status.desiredNumberScheduled}}')\" = 0"
            ),
            undo: format!("helm --kube-context {name} uninstall thalweg -n kube-system"),
            duration: unknown("how fast the image is pulled"),
            impact: "none: no node has the label yet",
        },
    ]
}

fn second(context: &Context<'_>) -> Vec<Draft> {
    let name = &context.cluster.name;
    let groups: Vec<&str> = context
        .cluster
        .node_groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    let targets: Vec<String> = groups
        .iter()
        .map(|group| format!("-target=aws_eks_node_group.{}", group.replace('-', "_")))
        .collect();
    vec![
        Draft {
            title: "double the capacity by new node groups",
            command: format!(
                "# in terraform/{name}: give each group the label {OURS} and a new name, so that the old groups stay\nterraform apply {}",
                targets.join(" ")
            ),
            check: format!(
                "kubectl --context {name} wait --for=condition=Ready nodes -l {OURS} --timeout=20m && ! kubectl --context {name} get nodes -l {OURS} -o json | grep -q {TAINT}"
            ),
            undo: format!(
                "kubectl --context {name} drain -l {OURS} --ignore-daemonsets --delete-emptydir-data && terraform destroy {}",
                targets.join(" ")
            ),
            duration: unknown("how fast AWS makes nodes"),
            impact: "none; twice the nodes are paid for",
        },
        Draft {
            title: "prove the new nodes",
            command: format!(
                "thalweg connectivity test --kubeconfig \"$KUBECONFIG\" --context {name} --image IMAGE"
            ),
            check: format!("thalweg doctor --kubeconfig \"$KUBECONFIG\" --context {name}"),
            undo: "# nothing was changed".into(),
            duration: unknown("the number of nodes"),
            impact: "none",
        },
        Draft {
            title: "move the pods, one old node after the other",
            command: format!(
                "for node in $(kubectl --context {name} get nodes -l thalweg.io/network=vpc-cni -o name); do kubectl --context {name} cordon \"$node\" && kubectl --context {name} drain \"$node\" --ignore-daemonsets --delete-emptydir-data --timeout=15m || break; done"
            ),
            check: format!(
                "test -z \"$(kubectl --context {name} get pods -A -o json | jq -r '.items[] | select(.status.phase==\"Pending\" or .status.phase==\"Failed\") | .metadata.name')\""
            ),
            undo: format!(
                "kubectl --context {name} uncordon -l thalweg.io/network=vpc-cni && kubectl --context {name} drain -l {OURS} --ignore-daemonsets --delete-emptydir-data"
            ),
            duration: unknown("pods' own shutdown times and PodDisruptionBudgets"),
            impact: "each pod restarts once; a PodDisruptionBudget that allows nothing stops it here, and is shown",
        },
    ]
}

fn third(context: &Context<'_>) -> Vec<Draft> {
    let (name, full, region) = (
        &context.cluster.name,
        context.full_name(),
        &context.cluster.region,
    );
    vec![
        Draft {
            title: "remove the VPC CNI",
            command: format!(
                "aws eks delete-addon --region {region} --cluster-name {full} --addon-name vpc-cni || kubectl --context {name} delete daemonset aws-node -n kube-system"
            ),
            check: format!("! kubectl --context {name} get daemonset aws-node -n kube-system"),
            undo: format!(
                "kubectl --context {name} apply -f aws-node.yaml  # on nodes with the label thalweg.io/network=vpc-cni only"
            ),
            duration: unknown("how fast EKS deletes the add-on"),
            impact: "none: the old nodes are empty",
        },
        Draft {
            title: "remove the old nodes",
            command: format!(
                "# the old groups by their names; see `aws eks list-nodegroups --region {region} --cluster-name {full}`\naws eks delete-nodegroup --region {region} --cluster-name {full} --nodegroup-name OLD"
            ),
            check: format!(
                "test -z \"$(kubectl --context {name} get nodes -l thalweg.io/network=vpc-cni -o name)\" && thalweg platform verify platform.yaml --kubeconfig \"$KUBECONFIG\" --cluster {name}"
            ),
            undo: format!(
                "# nodes with the VPC CNI come from a group with the label thalweg.io/network=vpc-cni, after `kubectl --context {name} apply -f aws-node.yaml`"
            ),
            duration: unknown("how fast AWS takes nodes away"),
            impact: "none; the capacity is the old one again",
        },
    ]
}
