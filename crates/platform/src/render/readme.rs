// SPDX-License-Identifier: Apache-2.0
//! What to do with the rendered files, in which order.

use std::fmt::Write as _;

use super::Fleet;
use crate::file::{Cloud, Connect, Mode};

pub(crate) fn text(fleet: &Fleet<'_>) -> String {
    let platform = fleet.platform;
    let mut out = format!(
        "# {}\n\nWritten by `thalweg platform render`; write it again instead of changing it. Names of types and \
         attributes were checked against the published providers; no provider was run. Read what \
         `terraform plan` or `pulumi preview` says before you apply anything.\n\n",
        platform.name
    );
    out.push_str(
        "| cluster | cloud | region | mode | network | pods | services |\n|---|---|---|---|---|---|---|\n",
    );
    for (cluster, addresses) in fleet.members() {
        let pods = addresses
            .pods
            .map_or_else(|| "in the network".to_owned(), |net| net.to_string());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {pods} | {} |",
            cluster.name, cluster.cloud, cluster.region, cluster.mode, addresses.network, addresses.services
        );
    }
    let has = |cloud| platform.clusters.iter().any(|cluster| cluster.cloud == cloud);
    if has(Cloud::Aws) {
        out.push_str(EKS);
    }
    if has(Cloud::Azure) {
        out.push_str(AKS);
        if platform
            .clusters
            .iter()
            .any(|cluster| cluster.mode == Mode::Delegated)
        {
            out.push_str(AKS_DELEGATED);
        }
    }
    if has(Cloud::Gcp) {
        out.push_str(GKE);
    }
    if has(Cloud::Machines) {
        out.push_str(KUBEADM);
    }
    if platform.mesh != Connect::None {
        out.push_str(MESH);
    }
    out
}

const EKS: &str = "
## EKS

A managed node group counts as made when its nodes are ready, and a node is ready when it has a CNI. So:

1. In `terraform/CLUSTER`: `terraform init && terraform apply -target=aws_eks_cluster.this`. Pulumi makes no part with what it needs: there
   begin with `pulumi up`, and do step 2 as soon as the cluster is there; the node groups wait for it.
2. Install Thalweg with `gitops/clusters/CLUSTER/values.yaml`; its pods wait for nodes.
3. `terraform apply` for the rest: nodes come up with the taint `node.thalweg.io/agent-not-ready`, which the agent takes away; then
   CoreDNS.

There is no VPC CNI and no kube-proxy: `bootstrap_self_managed_addons` is off. Do not add them as add-ons later.
";

const AKS: &str = "
## AKS

`terraform apply` in `terraform/CLUSTER` makes all of it; with `network-plugin none` nodes stay NotReady until Thalweg is installed with
`gitops/clusters/CLUSTER/values.yaml`. AKS does not let a workload take away the taints of a node pool, so there is no agent-not-ready taint
here. AKS keeps kube-proxy; taking it away is a preview feature that is not rendered.
";

const AKS_DELEGATED: &str = "
In delegated mode Azure's own plugin is on the node before our agent: pods that start in between are not managed until they are
restarted (`thalweg doctor` names them).
";

const GKE: &str = "
## GKE

`terraform apply -var project=PROJECT` (Pulumi: `pulumi config set gcp:project PROJECT`), then Thalweg with
`gitops/clusters/CLUSTER/values.yaml`. GKE keeps kube-proxy and its own conflist; Thalweg's sorts first.
";

const KUBEADM: &str = "
## kubeadm

On each machine `prepare-node.sh`; on the first `kubeadm init --config init.yaml`; Thalweg with `gitops/clusters/CLUSTER/values.yaml`; on the
others `envsubst <join.yaml >/run/join.yaml && kubeadm join --config /run/join.yaml` with the token and hash that `kubeadm token create` prints.
";

const MESH: &str = "
## Between clusters

When all clusters of a cloud are there: `terraform apply` in `terraform/mesh-CLOUD`. It finds the networks by their tags or names. Between
clouds nothing is rendered: that takes a VPN or a leased line.
";
