// SPDX-License-Identifier: Apache-2.0
//! A rehearsal on a cluster that is thrown away: install, break, upgrade, go back, before anybody does it for real.

use crate::address::Addresses;
use crate::catalogue::Catalogue;
use crate::file::{Cloud, Mode, Platform};
use crate::migrate::{Draft, MigrateError, Runbook, numbered, unknown};
use crate::render::{Context, Fleet};

/// The rehearsal for one cluster of the file.
///
/// # Errors
/// The file has no such cluster.
pub fn rehearse(
    platform: &Platform,
    addresses: &Addresses,
    catalogue: &Catalogue,
    cluster: &str,
) -> Result<Runbook, MigrateError> {
    let fleet = Fleet {
        platform,
        addresses,
        catalogue,
    };
    let known: Vec<&str> = platform
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    let Some(context) = fleet.contexts().find(|context| context.cluster.name == cluster) else {
        return Err(MigrateError::NoCluster {
            name: cluster.to_owned(),
            near: crate::file::nearest(cluster, &known).map(str::to_owned),
            known: known.into_iter().map(str::to_owned).collect(),
        });
    };
    let mut drafts = build(&context);
    drafts.extend(break_it(&context));
    drafts.extend(upgrade_and_go(&context));
    Ok(Runbook {
        title: format!("Rehearsal for {} (mode {}) on a cluster that is thrown away", context.full_name(), context.cluster.mode),
        from: "rehearsal".into(),
        to: "rehearsal".into(),
        before: vec![
            "`rehearsal.yaml` is the platform file with this cluster alone, named `rehearsal`, its node groups with max 3, and pools that overlap with nothing that is reachable".into(),
            "an account or project in which nothing else lives, and a budget alarm in it".into(),
            "kubectl will get the context `rehearsal`; nothing below names another one".into(),
        ],
        steps: numbered(drafts, ""),
        lost: vec!["the cluster, at the end: that is what it is for".into()],
    })
}

fn draft(title: &'static str, command: String, check: &str, undo: &str, impact: &'static str) -> Draft {
    Draft {
        title,
        command,
        check: check.to_owned(),
        undo: undo.to_owned(),
        duration: unknown("the cloud, the image and the number of nodes; write down what you see"),
        impact,
    }
}

fn build(context: &Context<'_>) -> Vec<Draft> {
    let make = match context.cluster.cloud {
        Cloud::Aws => {
            "cd out/terraform/rehearsal && terraform init && terraform apply -target=aws_eks_cluster.this"
        }
        Cloud::Azure => "cd out/terraform/rehearsal && terraform init && terraform apply",
        Cloud::Gcp => {
            "cd out/terraform/rehearsal && terraform init && terraform apply -var project=\"$PROJECT\""
        }
        Cloud::Machines => {
            "sh out/kubeadm/rehearsal/prepare-node.sh && kubeadm init --config out/kubeadm/rehearsal/init.yaml"
        }
    };
    let nodes = match context.cluster.cloud {
        Cloud::Aws => "cd out/terraform/rehearsal && terraform apply",
        Cloud::Azure | Cloud::Gcp => "true  # the nodes are there already",
        Cloud::Machines => "# on each further machine: prepare-node.sh, then kubeadm join --config join.yaml",
    };
    let away = match context.cluster.cloud {
        Cloud::Machines => "kubeadm reset --force",
        Cloud::Aws | Cloud::Azure | Cloud::Gcp => "cd out/terraform/rehearsal && terraform destroy",
    };
    vec![
        draft(
            "plan and render",
            "thalweg platform plan rehearsal.yaml && thalweg platform render rehearsal.yaml --to out".into(),
            "test -s out/gitops/clusters/rehearsal/values.yaml",
            "rm -r out",
            "none",
        ),
        draft("make the cluster", make.into(), "kubectl --context rehearsal version", away, "it costs money from here on"),
        draft(
            "install Thalweg",
            "helm --kube-context rehearsal upgrade --install thalweg CHART -n kube-system -f out/gitops/clusters/rehearsal/values.yaml".into(),
            "helm --kube-context rehearsal status thalweg -n kube-system",
            "helm --kube-context rehearsal uninstall thalweg -n kube-system",
            "none",
        ),
        draft(
            "let nodes come up",
            nodes.into(),
            "kubectl --context rehearsal wait --for=condition=Ready nodes --all --timeout=20m",
            away,
            "none",
        ),
        draft(
            "prove the network",
            "thalweg connectivity test --kubeconfig \"$KUBECONFIG\" --context rehearsal --image IMAGE".into(),
            "thalweg platform verify rehearsal.yaml --kubeconfig \"$KUBECONFIG\" --cluster rehearsal",
            "# nothing was changed",
            "none",
        ),
    ]
}

fn break_it(context: &Context<'_>) -> Vec<Draft> {
    let mut drafts = vec![
        draft(
            "kill every agent under traffic",
            "kubectl --context rehearsal run traffic --image=CLIENT-IMAGE --restart=Never -- sh -c 'while sleep 0.2; do wget -qO- --timeout=2 http://SERVICE || echo lost; done' && kubectl --context rehearsal delete pods -n kube-system -l app.kubernetes.io/name=thalweg".into(),
            "test \"$(kubectl --context rehearsal logs traffic | grep -c lost)\" = 0",
            "kubectl --context rehearsal rollout restart daemonset/thalweg -n kube-system",
            "none expected: running connections do not need the agent",
        ),
        draft(
            "take a node away",
            "node=$(kubectl --context rehearsal get nodes -o name | head -n 1) && kubectl --context rehearsal drain \"$node\" --ignore-daemonsets --delete-emptydir-data && kubectl --context rehearsal uncordon \"$node\"".into(),
            "kubectl --context rehearsal wait --for=condition=Available deployments --all -A --timeout=10m",
            "kubectl --context rehearsal uncordon \"$node\"",
            "its pods start elsewhere",
        ),
    ];
    let fill = |what: &'static str, check: &'static str| {
        draft(
            what,
            format!(
                "kubectl --context rehearsal create deployment fill --image=registry.k8s.io/pause:3.10 --replicas={}",
                fill_pods(context)
            ),
            check,
            "kubectl --context rehearsal delete deployment fill",
            "other pods wait meanwhile",
        )
    };
    drafts.push(match context.cluster.mode {
        Mode::Eni | Mode::EniPrefix => fill(
            "ask for more pods than the interfaces have addresses",
            "kubectl --context rehearsal get pods -l app=fill -o json | jq -e '[.items[].status.phase] | index(\"Pending\")' && ! kubectl --context rehearsal get pods -l app=fill | grep ContainerCreating",
        ),
        Mode::Delegated | Mode::Overlay | Mode::PodCidr => fill(
            "ask for more pods than the nodes hold",
            "kubectl --context rehearsal get pods -l app=fill -o json | jq -e '[.items[].status.phase] | index(\"Pending\")'",
        ),
    });
    if context.cluster.cloud == Cloud::Aws {
        drafts.push(draft(
            "let the VPC CNI come back",
            format!("aws eks create-addon --region {} --cluster-name \"$(terraform -chdir=out/terraform/rehearsal console <<<aws_eks_cluster.this.name | tr -d '\\042')\" --addon-name vpc-cni", context.cluster.region),
            "! thalweg platform verify rehearsal.yaml --kubeconfig \"$KUBECONFIG\" --cluster rehearsal",
            "kubectl --context rehearsal delete daemonset aws-node -n kube-system",
            "new pods may get the wrong network: that is what the rehearsal is to show",
        ));
    }
    drafts
}

/// One more than the most nodes can hold.
fn fill_pods(context: &Context<'_>) -> u64 {
    let group = |group: &crate::file::NodeGroup| {
        let pods = crate::address::pods_of(context.cluster, group, context.catalogue);
        u64::from(pods.unwrap_or(crate::address::PODS_PER_NODE)) * 3
    };
    context.cluster.node_groups.iter().map(group).sum::<u64>() + 1
}

fn upgrade_and_go(context: &Context<'_>) -> Vec<Draft> {
    let next = crate::file::Version(context.cluster.kubernetes.0, context.cluster.kubernetes.1 + 1);
    let away = match context.cluster.cloud {
        Cloud::Machines => "kubeadm reset --force".to_owned(),
        // The provider refuses to delete a cluster until it is told otherwise and that is applied.
        Cloud::Gcp => "cd out/terraform/rehearsal && sed -i 's/\"remove_default_node_pool\"/\"deletion_protection\": false, &/' main.tf.json && terraform apply -var project=\"$PROJECT\" && terraform destroy -var project=\"$PROJECT\"".to_owned(),
        Cloud::Aws | Cloud::Azure => "cd out/terraform/rehearsal && terraform destroy".to_owned(),
    };
    vec![
        draft(
            "upgrade Kubernetes",
            format!(
                "thalweg upgrade check --kubeconfig \"$KUBECONFIG\" --context rehearsal --to-kubernetes {next} && sed -i 's/kubernetes: .*/kubernetes: \"{next}\"/' rehearsal.yaml && thalweg platform render rehearsal.yaml --to out --force  # then apply as above"
            ),
            "kubectl --context rehearsal wait --for=condition=Ready nodes --all --timeout=30m",
            "# a control plane does not go back: make the cluster anew",
            "nodes are replaced one after the other",
        ),
        draft(
            "take Thalweg back to the version before",
            "helm --kube-context rehearsal rollback thalweg -n kube-system".into(),
            "thalweg connectivity test --kubeconfig \"$KUBECONFIG\" --context rehearsal --image IMAGE",
            "helm --kube-context rehearsal upgrade thalweg CHART -n kube-system -f out/gitops/clusters/rehearsal/values.yaml",
            "none expected: programs are replaced in place",
        ),
        draft(
            "throw the cluster away",
            away,
            "! kubectl --context rehearsal get nodes --request-timeout=10s",
            "# plan, render and make it again",
            "it costs nothing any more; look in the account for load balancers and disks that it left",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::rehearse;
    use crate::sample::{catalogue, planned};

    #[test]
    fn every_mode_has_a_rehearsal_with_check_and_undo_that_a_shell_understands() {
        let files = [
            include_str!("../../../examples/platform/many-clouds.yaml"),
            include_str!("../../../examples/platform/bare-metal.yaml"),
            include_str!("../../../examples/platform/eks-overlay.yaml"),
        ];
        for text in files {
            let (platform, addresses) = planned(text);
            for cluster in &platform.clusters {
                let runbook = rehearse(&platform, &addresses, catalogue(), &cluster.name).unwrap();
                assert!(runbook.steps.len() >= 11, "{}", cluster.name);
                for script in runbook
                    .steps
                    .iter()
                    .flat_map(|step| [&step.command, &step.check, &step.undo])
                {
                    let names_an_image = script.contains(" --image ");
                    assert!(
                        !script.contains("thalweg connectivity test") || names_an_image,
                        "{script}"
                    );
                    let parsed = Command::new("bash").args(["-n", "-c", script]).output().unwrap();
                    assert!(
                        parsed.status.success(),
                        "{script}\n{}",
                        String::from_utf8_lossy(&parsed.stderr)
                    );
                }
            }
        }
    }

    #[test]
    fn eni_mode_rehearses_that_addresses_run_out_and_that_the_vpc_cni_comes_back() {
        let (platform, addresses) = planned(include_str!("../../../examples/platform/eks-eni.yaml"));
        let runbook = rehearse(&platform, &addresses, catalogue(), "prod-eu").unwrap();
        let fill = runbook
            .steps
            .iter()
            .find(|step| step.title.contains("interfaces have addresses"))
            .unwrap();
        // m5.large 29 and, of m5.xlarge and m5a.xlarge, 58, on three nodes each, and one more.
        assert!(fill.command.contains("--replicas=262"), "{}", fill.command);
        assert!(
            runbook
                .steps
                .iter()
                .any(|step| step.title == "let the VPC CNI come back")
        );
    }

    #[test]
    fn an_unknown_cluster_is_refused_with_the_nearest() {
        let (platform, addresses) = planned(include_str!("../../../examples/platform/eks-eni.yaml"));
        let error = rehearse(&platform, &addresses, catalogue(), "prod-eo")
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean `prod-eu`?"), "{error}");
    }
}
