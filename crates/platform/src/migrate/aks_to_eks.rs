// SPDX-License-Identifier: Apache-2.0
//! From AKS to EKS: both run beside each other, and DNS decides.

use super::{Draft, Duration, Facts, Runbook, numbered, unknown};
use crate::render::Context;

/// Traffic that both clusters answer before the old one is left: one day, so that daily jobs have run once.
const SOAK_SECONDS: u32 = 86_400;

pub(super) fn plan(from: &Context<'_>, to: &Context<'_>, facts: &Facts<'_>) -> Runbook {
    let (old, new) = (&from.cluster.name, &to.cluster.name);
    let mut drafts = prepare(from, to, facts);
    drafts.extend(move_over(old, new, facts));
    drafts.extend(leave(from, facts));
    Runbook {
        title: format!("{} (AKS) to {} (EKS)", from.full_name(), to.full_name()),
        from: old.clone(),
        to: new.clone(),
        before: vec![
            format!("kubectl has the contexts `{old}` and `{new}`, and Velero is installed in both with an object store plugin that reaches the bucket `{}`", facts.bucket),
            "workloads name no Azure storage class, load balancer annotation or workload identity; those that do are changed first, in Git".into(),
            "quotas in both clouds hold the doubled capacity, since both clusters run in full for the time between".into(),
            format!("whoever may change the DNS record of {} takes part", facts.host),
        ],
        steps: numbered(drafts, "take the writes over"),
        lost: vec![
            "addresses of pods, services and load balancers: what has them written down has to learn the new ones".into(),
            "Azure disks: Velero's file-system backup copies their content, not the disk".into(),
            "policies that select by address instead of by label".into(),
            "open connections, when the record has moved and the old load balancer is taken away".into(),
        ],
    }
}

fn prepare(from: &Context<'_>, to: &Context<'_>, facts: &Facts<'_>) -> Vec<Draft> {
    let (old, new, ttl) = (&from.cluster.name, &to.cluster.name, facts.dns_ttl);
    let host = facts.host;
    vec![
        Draft {
            title: "shorten the lifetime of the DNS record",
            command: format!("# with your DNS provider: set the TTL of {host} to 60 seconds"),
            check: format!("test \"$(dig +noall +answer {host} | awk 'NR==1{{print $2}}')\" -le 60"),
            undo: format!("# set the TTL of {host} back to {ttl} seconds"),
            duration: Duration::Known {
                seconds: ttl,
                because: format!("resolvers keep the old record for its {ttl} seconds"),
            },
            impact: "none",
        },
        Draft {
            title: "make the new cluster with the old one's capacity",
            command: format!(
                "cd terraform/{new} && terraform init && terraform apply -target=aws_eks_cluster.this && helm --kube-context {new} upgrade --install thalweg CHART -n kube-system -f ../../gitops/clusters/{new}/values.yaml && terraform apply"
            ),
            check: format!(
                "thalweg platform verify platform.yaml --kubeconfig \"$KUBECONFIG\" --cluster {new}"
            ),
            undo: format!("cd terraform/{new} && terraform destroy"),
            duration: unknown("how fast AWS makes a control plane and nodes"),
            impact: "none; both clusters are paid for from here to the end",
        },
        Draft {
            title: "prove the new network",
            command: format!(
                "thalweg connectivity test --kubeconfig \"$KUBECONFIG\" --context {new} --image IMAGE"
            ),
            check: format!("thalweg doctor --kubeconfig \"$KUBECONFIG\" --context {new}"),
            undo: "# nothing was changed".into(),
            duration: unknown("the number of nodes"),
            impact: "none",
        },
        Draft {
            title: "back the old cluster up",
            command: format!(
                "velero --kubecontext {old} backup create move-1 --default-volumes-to-fs-backup --exclude-namespaces kube-system,velero --wait"
            ),
            check: format!(
                "test \"$(velero --kubecontext {old} backup get move-1 -o json | jq -r .status.phase)\" = Completed"
            ),
            undo: format!("velero --kubecontext {old} backup delete move-1 --confirm"),
            duration: unknown("how much data volumes hold"),
            impact: "disks are read while users use them",
        },
        Draft {
            title: "restore into the new cluster",
            command: format!("velero --kubecontext {new} restore create move-1 --from-backup move-1 --wait"),
            check: format!(
                "test \"$(velero --kubecontext {new} restore get move-1 -o json | jq -r .status.phase)\" = Completed && kubectl --context {new} wait --for=condition=Available deployments --all -A --timeout=15m"
            ),
            undo: format!(
                "kubectl --context {new} delete namespaces -l velero.io/restore-name=move-1 && velero --kubecontext {new} restore delete move-1 --confirm"
            ),
            duration: unknown("how much data volumes hold"),
            impact: "none: nobody is sent there yet; jobs and consumers of queues do start, so scale them to zero in the backup's namespaces first",
        },
    ]
}

fn move_over(old: &str, new: &str, facts: &Facts<'_>) -> Vec<Draft> {
    let host = facts.host;
    vec![
        Draft {
            title: "send a tenth of the users over",
            command: format!("# with your DNS provider: weigh {host} 90 to the old load balancer, 10 to the new one:\nkubectl --context {new} get services -A -o jsonpath='{{range .items[?(@.spec.type==\"LoadBalancer\")]}}{{.metadata.name}} {{.status.loadBalancer.ingress[0].hostname}}{{\"\\n\"}}{{end}}'"),
            check: format!("for i in $(seq 20); do curl -fsS -o /dev/null --max-time 5 https://{host}/ || exit 1; done"),
            undo: format!("# weigh {host} 100 to 0"),
            duration: Duration::Known { seconds: 60, because: "the record lives 60 seconds by now".into() },
            impact: "a tenth of the users see the new cluster, with the data of the backup: only for what reads",
        },
        Draft {
            title: "take the writes over",
            command: format!("kubectl --context {old} scale deployment,statefulset --all --replicas=0 -n NAMESPACES-THAT-WRITE && velero --kubecontext {old} backup create move-2 --default-volumes-to-fs-backup --exclude-namespaces kube-system,velero --wait && velero --kubecontext {new} restore create move-2 --from-backup move-2 --existing-resource-policy update --wait && kubectl --context {new} scale deployment,statefulset --all --replicas=2 -n NAMESPACES-THAT-WRITE"),
            check: format!("test \"$(velero --kubecontext {new} restore get move-2 -o json | jq -r .status.phase)\" = Completed"),
            undo: format!("kubectl --context {new} scale deployment,statefulset --all --replicas=0 -n NAMESPACES-THAT-WRITE && kubectl --context {old} scale deployment,statefulset --all --replicas=2 -n NAMESPACES-THAT-WRITE  # what was written in the new cluster until then is lost, unless it is carried back the same way"),
            duration: unknown("how much data changed since the first backup"),
            impact: "nothing can be written in between: announce it",
        },
        Draft {
            title: "send all users over",
            command: format!("# with your DNS provider: weigh {host} 0 to 100"),
            check: format!("for i in $(seq 100); do curl -fsS -o /dev/null --max-time 5 https://{host}/ || exit 1; done"),
            undo: format!("# weigh {host} 100 to 0; then take the writes back as said in the step before"),
            duration: Duration::Known { seconds: 60, because: "the record lives 60 seconds by now; clients that keep connections open stay until those end".into() },
            impact: "users are on the new cluster",
        },
    ]
}

fn leave(from: &Context<'_>, facts: &Facts<'_>) -> Vec<Draft> {
    let (old, host, ttl) = (&from.cluster.name, facts.host, facts.dns_ttl);
    vec![
        Draft {
            title: "wait with both",
            command: format!(
                "# watch errors and latencies for a day; requests that still reach the old one:\nkubectl --context {old} logs -n INGRESS-NAMESPACE -l app.kubernetes.io/component=controller --since=1h | grep -c {host}"
            ),
            check: format!(
                "test \"$(kubectl --context {old} logs -n INGRESS-NAMESPACE -l app.kubernetes.io/component=controller --since=1h | grep -c {host})\" = 0"
            ),
            undo: "# nothing was changed".into(),
            duration: Duration::Known {
                seconds: SOAK_SECONDS,
                because: "a day, so that daily jobs have run once".into(),
            },
            impact: "both clusters are paid for",
        },
        Draft {
            title: "give the DNS record its lifetime back",
            command: format!(
                "# with your DNS provider: set the TTL of {host} to {ttl} seconds, and take the old load balancer out"
            ),
            check: format!("dig +noall +answer {host}"),
            undo: format!("# set the TTL of {host} to 60 seconds"),
            duration: Duration::Known {
                seconds: 60,
                because: "the record lives 60 seconds by now".into(),
            },
            impact: "none",
        },
        Draft {
            title: "take the old cluster away",
            command: format!("cd terraform/{old} && terraform destroy"),
            check: format!("! az aks show --resource-group {0} --name {0}", from.full_name()),
            undo: format!(
                "cd terraform/{old} && terraform apply && velero --kubecontext {old} restore create back --from-backup move-2 --wait  # with what is in the backup"
            ),
            duration: unknown("how fast Azure deletes"),
            impact: "the way back is from the backup only",
        },
    ]
}
