// SPDX-License-Identifier: Apache-2.0
//! Addresses that run out: in a node's pool, on an instance, in the cloud (trap 4); permissions to get more (trap 5).

use std::collections::BTreeSet;

use plan::iam::{Policy, Problem, Scope};

use super::{Check, each_node, some_of};
use crate::facts::{Facts, IamFacts, Provider};
use crate::finding::{Outcome, Severity};

/// From here on a pool is pressed, in percent.
const PRESSED: u64 = 80;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "capacity.pool",
        per_node: true,
        trap: Some(4),
        title: "a node's addresses for pods are nearly used up",
        why: "the next pods of the node hang in ContainerCreating",
        run: pool,
    },
    Check {
        id: "capacity.slots",
        per_node: false,
        trap: Some(4),
        title: "the scheduler may put more pods on an instance than it has addresses for",
        why: "addresses per machine follow its type, not its size: pods are scheduled where they cannot start",
        run: slots,
    },
    Check {
        id: "iam.permissions",
        per_node: false,
        trap: Some(5),
        title: "the operator's role lacks actions, or allows more than is needed",
        why: "a missing action shows only when the next node needs an address; a broad one is an attacker's",
        run: permissions,
    },
];

fn pool(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        for pool in &agent.pools {
            let percent = pool.used.saturating_mul(100) / pool.total.max(1);
            if percent < PRESSED {
                continue;
            }
            let full = pool.used >= pool.total;
            outcome.find(
                if full { Severity::Error } else { Severity::Warning },
                &node.name,
                format!(
                    "{} of {} addresses of {} are in use",
                    pool.used, pool.total, pool.cidr
                ),
                "give nodes larger networks (--node-cidr-mask-size), or the cluster more nodes",
            );
        }
    });
}

fn slots(facts: &Facts, outcome: &mut Outcome) {
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    // Elsewhere a pool is what limits, which the other check looks at.
    if *provider != Provider::Aws {
        return;
    }
    let Some(slots) = outcome.need("cloud", &facts.cloud.pod_slots) else {
        return;
    };
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    let counts = facts.cluster.pods_per_node.known();
    for node in nodes.iter().filter(|node| !super::support::is_managed(node)) {
        let kind = node.labels.get("node.kubernetes.io/instance-type");
        let Some(kind) = kind else {
            outcome.not_known(
                &node.name,
                "the node has no label node.kubernetes.io/instance-type",
            );
            continue;
        };
        let Some(limit) = slots.get(kind) else {
            outcome.not_known(&node.name, format!("the limits of {kind} are not in the data"));
            continue;
        };
        let mend = format!(
            "thalweg capacity --instance-type {kind} shows what fits; set the kubelet's maxPods to {} or take prefix delegation",
            limit.slots + HOST_NETWORK_PODS
        );
        let used = counts
            .and_then(|counts| counts.get(&node.name))
            .copied()
            .unwrap_or_default();
        if let Some(most) = node.max_pods
            && most > limit.slots + HOST_NETWORK_PODS
        {
            outcome.find(
                Severity::Warning,
                &node.name,
                format!(
                    "{kind} has addresses for {} pods ({}), the kubelet lets {most} in; {used} are there",
                    limit.slots, limit.how
                ),
                mend.clone(),
            );
        }
        if used > limit.slots {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{used} pods want addresses on {kind}, which has {} ({})",
                    limit.slots, limit.how
                ),
                mend,
            );
        }
    }
}

/// Pods with the host's network, which need no address: the official formula allows for two.
const HOST_NETWORK_PODS: u32 = 2;

fn permissions(facts: &Facts, outcome: &mut Outcome) {
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    if *provider != Provider::Aws {
        return;
    }
    let Some(iam) = outcome.need("cloud", &facts.cloud.iam) else {
        return;
    };
    match evaluated(iam) {
        Ok(report) => judge(iam, &report, outcome),
        Err(reason) => outcome.not_known("cloud", reason),
    }
}

/// The planner's own evaluation of the role's policies.
fn evaluated(iam: &IamFacts) -> Result<plan::iam::Report, String> {
    let mode = iam
        .mode
        .parse::<plan::Mode>()
        .map_err(|error| error.to_string())?;
    let policies = iam
        .policies
        .iter()
        .map(|policy| Policy::parse(&policy.name, &policy.document.to_string()));
    let policies: Vec<Policy> = policies
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let any = || "*".to_owned();
    let scope = Scope {
        partition: plan::cloud::partition(iam.region.as_deref().unwrap_or_default()).to_owned(),
        region: iam.region.clone().unwrap_or_else(any),
        account: iam.account.clone().unwrap_or_else(any),
        vpc: iam.vpc.clone(),
        ..Scope::new(mode, &iam.cluster)
    };
    Ok(plan::iam::check(&scope, &policies))
}

fn judge(iam: &IamFacts, report: &plan::iam::Report, outcome: &mut Outcome) {
    let mend = format!(
        "thalweg iam policy --mode {} prints the policy to attach to {}",
        iam.mode, iam.role
    );
    let lacking = report
        .findings
        .iter()
        .filter(|one| !matches!(one.problem, Problem::Unknown { .. }));
    let lacking: BTreeSet<&str> = lacking.map(|one| one.action).collect();
    if !lacking.is_empty() {
        let evidence = format!("{} may not {} in mode {}", iam.role, some_of(lacking), iam.mode);
        outcome.find(Severity::Error, "cloud", evidence, mend.clone());
    }
    for one in &report.findings {
        if let Problem::Unknown { because } = &one.problem {
            outcome.not_known(
                "cloud",
                format!("whether {} may {}: {because}", iam.role, one.action),
            );
        }
    }
    let broad = report
        .superfluous
        .iter()
        .map(|one| format!("{} ({}: {})", one.action, one.by, one.reason));
    let broad: Vec<String> = broad.collect();
    if !broad.is_empty() {
        let evidence = format!(
            "{} may do more than mode {} needs: {}",
            iam.role,
            iam.mode,
            some_of(broad)
        );
        outcome.find(Severity::Warning, "cloud", evidence, mend);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::facts::{Gathered, PolicyFacts};

    fn found(document: Value) -> Vec<String> {
        let mut facts = Facts::default();
        facts.cloud.provider = Gathered::Known(Provider::Aws);
        facts.cloud.iam = Gathered::Known(IamFacts {
            role: "operator".into(),
            mode: "eni".into(),
            cluster: "shop".into(),
            region: Some("eu-central-1".into()),
            account: Some("111122223333".into()),
            vpc: Some("vpc-1".into()),
            policies: vec![PolicyFacts {
                name: "p".into(),
                document,
            }],
        });
        let mut outcome = Outcome::default();
        permissions(&facts, &mut outcome);
        assert_eq!(outcome.unknown, []);
        outcome.found.into_iter().map(|one| one.evidence).collect()
    }

    #[test]
    fn the_generated_policy_is_well_and_one_action_less_is_not() {
        let scope = Scope::new(plan::Mode::Eni, "shop");
        let document = plan::iam::policy(&scope)
            .document
            .expect("ENI mode needs permissions");
        assert_eq!(found(document.clone()), Vec::<String>::new());
        let less = document
            .to_string()
            .replace("ec2:AssignPrivateIpAddresses", "ec2:DescribeVpcs");
        let evidence = found(serde_json::from_str(&less).expect("JSON"));
        assert!(
            evidence
                .iter()
                .any(|one| one.contains("may not ec2:AssignPrivateIpAddresses")),
            "{evidence:?}"
        );
    }

    /// As the documentation advises: for one region, account and network.
    #[test]
    fn a_policy_for_the_clusters_own_place_is_well_and_one_for_another_is_not() {
        let here = Scope {
            region: "eu-central-1".into(),
            account: "111122223333".into(),
            vpc: Some("vpc-1".into()),
            ..Scope::new(plan::Mode::Eni, "shop")
        };
        let document = |scope: &Scope| {
            plan::iam::policy(scope)
                .document
                .expect("ENI mode needs permissions")
        };
        assert_eq!(found(document(&here)), Vec::<String>::new());
        let there = Scope {
            vpc: Some("vpc-2".into()),
            ..here
        };
        let evidence = found(document(&there));
        assert!(
            evidence.len() == 1 && evidence[0].contains("may not ec2:CreateNetworkInterface"),
            "{evidence:?}"
        );
    }
}
