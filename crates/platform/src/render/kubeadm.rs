// SPDX-License-Identifier: Apache-2.0
//! kubeadm on machines that are there: configuration, and what each machine needs before.

use serde_json::{Value, json};

use super::{Context, TAINT, yaml};
use crate::file::Mode;

/// kubeadm's configuration format since Kubernetes 1.31.
const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// File names and contents below the cluster's directory.
pub(crate) fn files(context: &Context<'_>) -> Vec<(&'static str, String)> {
    vec![
        (
            "init.yaml",
            format!(
                "{}---\n{}---\n{}",
                yaml(&init(context)),
                yaml(&cluster(context)),
                yaml(&kubelet(context))
            ),
        ),
        ("join.yaml", yaml(&join(context))),
        ("prepare-node.sh", prepare(context)),
    ]
}

fn registration() -> Value {
    json!({"taints": [{"key": TAINT, "value": "true", "effect": "NoExecute"}]})
}

fn init(context: &Context<'_>) -> Value {
    let mut document = json!({
        "apiVersion": API_VERSION,
        "kind": "InitConfiguration",
        // A control plane keeps its own taint; naming taints replaces kubeadm's default.
        "nodeRegistration": {"taints": [
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
            {"key": TAINT, "value": "true", "effect": "NoExecute"},
        ]},
    });
    if context.cluster.features.kube_proxy_replacement {
        document["skipPhases"] = json!(["addon/kube-proxy"]);
    }
    document
}

fn cluster(context: &Context<'_>) -> Value {
    let addresses = context.addresses;
    let mask = context.cluster.node_mask.to_string();
    json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": context.full_name(),
        "kubernetesVersion": format!("stable-{}", context.cluster.kubernetes),
        "controlPlaneEndpoint": context.cluster.endpoint,
        "networking": {
            "podSubnet": addresses.pods.map(|net| net.to_string()),
            "serviceSubnet": addresses.services.to_string(),
        },
        "controllerManager": {"extraArgs": [{"name": "node-cidr-mask-size", "value": mask}]},
    })
}

fn kubelet(context: &Context<'_>) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "maxPods": context.cluster.pods_per_node.unwrap_or(crate::address::PODS_PER_NODE),
        "cgroupDriver": "systemd",
    })
}

fn join(context: &Context<'_>) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "JoinConfiguration",
        // The token and the certificate's hash are secrets of the running cluster: `kubeadm token create
        // --print-join-command` prints them.
        "discovery": {"bootstrapToken": {
            "apiServerEndpoint": context.cluster.endpoint,
            "token": "${KUBEADM_TOKEN}",
            "caCertHashes": ["${KUBEADM_CA_HASH}"],
        }},
        "nodeRegistration": registration(),
    })
}

fn prepare(context: &Context<'_>) -> String {
    let modules = match context.cluster.mode {
        Mode::Overlay => match context.cluster.features.tunnel {
            crate::file::Tunnel::Vxlan => "overlay br_netfilter vxlan",
            crate::file::Tunnel::Geneve => "overlay br_netfilter geneve",
        },
        Mode::Eni | Mode::EniPrefix | Mode::Delegated | Mode::PodCidr => "overlay br_netfilter",
    };
    format!(
        "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n# Run once as root on each machine of {name}, before kubeadm.\n\
         set -eu\nfor module in {modules}; do\n    modprobe \"$module\"\n    echo \"$module\"\ndone \
         >/etc/modules-load.d/thalweg.conf\ncat >/etc/sysctl.d/90-thalweg.conf <<'END'\nnet.ipv4.ip_forward = \
         1\nEND\nsysctl --system\nmountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf\n# networkd and \
         NetworkManager leave devices alone that are not theirs, only if they are told to.\nif [ -d /etc/systemd/network \
         ]; then\n    mkdir -p /etc/systemd/networkd.conf.d\n    printf \
         '[Network]\\nManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=no\\n' \\\n        \
         >/etc/systemd/networkd.conf.d/thalweg.conf\n    systemctl try-restart systemd-networkd\nfi\nkubeadm config \
         images pull\n",
        name = context.full_name(),
    )
}
