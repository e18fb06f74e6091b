// SPDX-License-Identifier: Apache-2.0
//! The gates of an upgrade.

use std::collections::{BTreeMap, BTreeSet};

use super::{Canaries, Gate, Request, Verdict};
use crate::checks::{self, Selection};
use crate::compatibility::{self, KERNEL_FLOOR, data};
use crate::facts::{Facts, Provider};
use crate::finding::Severity;
use crate::version::Version;

/// What a gate found: its verdict, the evidence, what to do.
type Found = (Verdict, String, String);

pub(super) fn all(facts: &Facts, request: &Request, canaries: &Canaries) -> Vec<Gate> {
    const ONE_NETWORK: [&str; 5] = [
        "cni.order",
        "cni.second",
        "cni.running",
        "cni.daemonset",
        "cni.addon",
    ];
    const WELL: [&str; 3] = ["agent.answers", "agent.ready", "versions.agents"];
    let soft = |check| softer(checked(facts, &[check]));
    #[rustfmt::skip]
    let gates = [
        ("kubernetes.step", 6, "the step is one that Kubernetes supports", step(facts, request)),
        ("kubernetes.kubelets", 6, "the kubelets stay within the version skew policy", kubelets(facts, request)),
        ("kubernetes.tested", 6, "this version was tested with that Kubernetes", tested(request)),
        ("kubernetes.apis", 6, "nobody uses API versions that go away", apis(facts, request)),
        ("thalweg.version", 10, "the wanted version is the one whose programs were tried", version(facts, request)),
        ("kernel.image", 2, "the kernel of the new nodes' image is in the matrix", image(facts, request)),
        ("kernel.canary", 2, "the programs load on every kernel that runs now", canary(facts, canaries)),
        ("nodes.well", 10, "agents answer and are ready", checked(facts, &WELL)),
        ("nodes.one-network", 3, "there is no second network that the upgrade would bring back", checked(facts, &ONE_NETWORK)),
        ("drain.budgets", 10, "disruption budgets let nodes be drained", checked(facts, &["upgrade.budgets"])),
        ("drain.webhooks", 10, "no webhook keeps the network from coming up", soft("upgrade.webhooks")),
        ("drain.daemonset", 10, "our DaemonSet is rolled node by node", soft("upgrade.daemonset")),
        ("rollback.kept", 1, "the way back is at hand", soft("support.rollback")),
    ];
    let gates = gates
        .into_iter()
        .map(|(id, trap, title, (verdict, evidence, mend))| Gate {
            id,
            trap,
            title,
            verdict,
            evidence,
            mend,
        });
    gates.collect()
}

fn pass(evidence: impl Into<String>) -> Found {
    (Verdict::Pass, evidence.into(), String::new())
}

fn unknown(reason: impl Into<String>, mend: &str) -> Found {
    (Verdict::Unknown, reason.into(), mend.to_owned())
}

/// A gate that counsels, but does not block.
fn softer((verdict, evidence, mend): Found) -> Found {
    let verdict = if verdict == Verdict::Block {
        Verdict::Warn
    } else {
        verdict
    };
    (verdict, evidence, mend)
}

fn step(facts: &Facts, request: &Request) -> Found {
    let text = match facts.cluster.version.get() {
        Ok(text) => text,
        Err(reason) => return unknown(reason, "ask a cluster: --kubeconfig FILE"),
    };
    let from = match Version::parse(text) {
        Ok(version) => version,
        Err(error) => return unknown(error.to_string(), "see `kubectl version`"),
    };
    let to = request.to_kubernetes;
    let policy = &data().kubernetes.skew;
    match to.minors_after(from) {
        None => (
            Verdict::Block,
            format!("{text} to {to} changes the major version"),
            "there is no such upgrade".into(),
        ),
        Some(steps) if steps < 0 => (
            Verdict::Block,
            format!("{text} to {to} is a way back, which Kubernetes does not support"),
            "restore a backup of etcd, or build a new cluster".into(),
        ),
        Some(0) => pass(format!("{text} stays {to}: nodes and patches only")),
        Some(steps) if steps <= policy.control_plane_minors_per_step => pass(format!(
            "{text} to {to} ({}, read {})",
            policy.source, policy.read
        )),
        Some(steps) => (
            Verdict::Block,
            format!(
                "{text} to {to} skips {} minor versions ({}, read {})",
                steps - 1,
                policy.source,
                policy.read
            ),
            format!("go to {} first", Version::new(from.major, from.minor + 1)),
        ),
    }
}

fn kubelets(facts: &Facts, request: &Request) -> Found {
    let nodes = match facts.cluster.nodes.get() {
        Ok(nodes) => nodes,
        Err(reason) => return unknown(reason, "ask a cluster: --kubeconfig FILE"),
    };
    let (mut late, mut unread) = (Vec::new(), Vec::new());
    for node in nodes {
        match Version::parse(&node.kubelet) {
            Ok(kubelet) => {
                let behind = request.to_kubernetes.minors_after(kubelet).unwrap_or(i64::MAX);
                if behind > checks::kubelet_lag_allowed(kubelet) {
                    late.push(format!("{} ({})", node.name, node.kubelet));
                }
            }
            Err(_) => unread.push(format!("{} (`{}`)", node.name, node.kubelet)),
        }
    }
    if !late.is_empty() {
        return (
            Verdict::Block,
            format!(
                "too far behind {}: {}",
                request.to_kubernetes,
                checks::some_of(late)
            ),
            "replace these nodes with current ones before the control plane goes on".into(),
        );
    }
    if !unread.is_empty() {
        return unknown(
            format!("no version in {}", checks::some_of(unread)),
            "see `kubectl get nodes`",
        );
    }
    pass(format!(
        "{} kubelets stay within {} minor versions of {}",
        nodes.len(),
        data().kubernetes.skew.kubelet_minors_behind,
        request.to_kubernetes
    ))
}

fn tested(request: &Request) -> Found {
    let tested = &data().kubernetes.tested;
    if tested
        .versions
        .iter()
        .any(|version| Version::parse(version) == Ok(request.to_kubernetes))
    {
        return pass(format!(
            "tested with {}. {}",
            tested.versions.join(", "),
            tested.note
        ));
    }
    (
        Verdict::Warn,
        format!(
            "tested: {}. {} Types of the API compiled in: {}",
            tested.versions.join(", "),
            tested.note,
            data().kubernetes.api_types.kubernetes
        ),
        "try it on a cluster of no importance: thalweg connectivity test --kubeconfig FILE --image IMAGE"
            .into(),
    )
}

fn apis(facts: &Facts, request: &Request) -> Found {
    let uses = match facts.cluster.deprecated.get() {
        Ok(uses) => uses,
        Err(reason) => {
            return unknown(
                reason,
                "kubectl get --raw /metrics | grep apiserver_requested_deprecated_apis",
            );
        }
    };
    let removed = &data().kubernetes.removed_apis;
    let mut gone = Vec::new();
    for one in uses {
        let row = removed.apis.iter().find(|row| {
            row.version == one.group_version && row.kinds.iter().any(|kind| fits(kind, &one.resource))
        });
        let when = Version::parse(&one.removed_in)
            .ok()
            .or_else(|| row.and_then(|row| Version::parse(&row.removed).ok()));
        if when.is_some_and(|when| when <= request.to_kubernetes) {
            let instead = row
                .map(|row| format!(", instead {}", row.instead))
                .unwrap_or_default();
            gone.push(format!(
                "{} {} (gone in {}{instead})",
                one.group_version,
                one.resource,
                when.map(|when| when.to_string()).unwrap_or_default()
            ));
        }
    }
    if gone.is_empty() {
        return pass(format!(
            "the API server counted {} uses of deprecated versions since it started, none that goes by {} ({}, read {})",
            uses.len(),
            request.to_kubernetes,
            removed.source,
            removed.read
        ));
    }
    (
        Verdict::Block,
        checks::some_of(gone),
        "the audit log names who (annotation k8s.io/deprecated); kubectl convert rewrites manifests".into(),
    )
}

/// `podsecuritypolicies` and `PodSecurityPolicy`.
fn fits(kind: &str, resource: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let stem = kind.strip_suffix('y').unwrap_or(&kind);
    resource.starts_with(stem)
}

fn version(facts: &Facts, request: &Request) -> Found {
    let known = facts.nodes.iter().filter_map(|node| node.agent.known());
    let now: BTreeSet<&str> = known.map(|agent| agent.version.as_str()).collect();
    let runs = if now.is_empty() {
        "unknown".to_owned()
    } else {
        now.iter().copied().collect::<Vec<_>>().join(", ")
    };
    let Some(wanted) = &request.to_version else {
        return match now.len() {
            0 => unknown("no agent says its version", "see `thalweg version`"),
            1 if now.contains(request.program_version.as_str()) => {
                pass(format!("agents stay {runs}, whose programs the canaries loaded"))
            }
            _ => (
                Verdict::Warn,
                format!(
                    "agents are {runs}, this program is {}: the canaries loaded its programs, not theirs",
                    request.program_version
                ),
                "run `upgrade check` from the agents' version, or say --to-version".into(),
            ),
        };
    };
    if Version::parse(wanted).is_err() {
        return unknown(format!("`{wanted}` is no version"), "give one as 0.2.0");
    }
    if *wanted == request.program_version {
        pass(format!(
            "agents go from {runs} to {wanted}, whose programs the canaries loaded"
        ))
    } else {
        unknown(
            format!(
                "the programs of {wanted} are not in this program ({})",
                request.program_version
            ),
            "run `thalweg upgrade check` from the program of that version",
        )
    }
}

fn image(facts: &Facts, request: &Request) -> Found {
    let provider = match facts.cloud.provider.get() {
        Ok(provider) => *provider,
        Err(reason) => return unknown(reason, "ask a cluster: --kubeconfig FILE"),
    };
    if provider == Provider::Own {
        return unknown(
            "the images of your own machines are in no table",
            "boot one node of the new image, and run `thalweg upgrade canary` on it",
        );
    }
    let systems: BTreeSet<Option<String>> = match &request.os {
        Some(os) => BTreeSet::from([Some(os.clone())]),
        None => facts
            .nodes
            .iter()
            .filter_map(|node| node.os.known())
            .map(|os| Some(os.id.clone()))
            .collect(),
    };
    let systems = if systems.is_empty() {
        BTreeSet::from([None])
    } else {
        systems
    };
    let mut found: Vec<Found> = Vec::new();
    for os in &systems {
        let mut images = data()
            .images_for(provider, os.as_deref(), request.to_kubernetes)
            .peekable();
        if images.peek().is_none() {
            found.push(unknown(
                format!(
                    "no image of {} for Kubernetes {} is in the data",
                    os.as_deref().unwrap_or("this cloud"),
                    request.to_kubernetes
                ),
                "boot one node of the new image, and run `thalweg upgrade canary` on it",
            ));
        }
        found.extend(images.map(verdict_of));
    }
    worst(found)
}

fn verdict_of(image: &compatibility::Image) -> Found {
    let said = format!(
        "{}: kernel {} ({}, {})",
        image.image, image.kernel, image.source, image.date
    );
    let Ok(series) = Version::parse(&image.kernel) else {
        return unknown(said, "the data is wrong; please report it");
    };
    let tested = data().tested_kernels();
    let canary =
        "boot one node of the new image, and run `thalweg upgrade canary` on it before the others follow"
            .to_owned();
    match data().kernel(series) {
        compatibility::Verdict::Passed(row) => pass(format!(
            "{said}; the shipped programs ran on {} on {}",
            row.package,
            data().kernels_date
        )),
        compatibility::Verdict::Failed(row) => (
            Verdict::Block,
            format!("{said}; the programs failed on {}", row.package),
            "keep the present image".into(),
        ),
        compatibility::Verdict::TooOld => (
            Verdict::Block,
            format!("{said}; older than {KERNEL_FLOOR}"),
            "take another image".into(),
        ),
        compatibility::Verdict::Untested { older, newer } => {
            let between = match (older, newer) {
                (Some(older), Some(newer)) => format!("between the tested {older} and {newer}"),
                (Some(older), None) => format!("newer than all that was tested (up to {older})"),
                (None, _) => "older than all that was tested".to_owned(),
            };
            (
                Verdict::Unknown,
                format!("{said}; not in the matrix, {between}; tested: {tested}"),
                canary,
            )
        }
    }
}

fn worst(found: Vec<Found>) -> Found {
    let verdict = found
        .iter()
        .map(|(verdict, _, _)| *verdict)
        .max()
        .unwrap_or(Verdict::Unknown);
    let evidence = found
        .iter()
        .map(|(_, evidence, _)| evidence.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    let mend = found
        .into_iter()
        .find(|(one, _, _)| *one == verdict)
        .map(|(_, _, mend)| mend)
        .unwrap_or_default();
    (verdict, evidence, mend)
}

fn canary(facts: &Facts, canaries: &Canaries) -> Found {
    let mut kernels: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    let (mut refused, mut untried) = (Vec::new(), Vec::new());
    for (node, result) in canaries {
        match result {
            Ok(canary) => match &canary.error {
                None => {
                    let entry = kernels
                        .entry(canary.kernel.clone())
                        .or_insert((canary.programs.len(), 0));
                    entry.1 = entry.1.max(canary.milliseconds);
                }
                Some(error) => refused.push(format!("{node} ({}): {error}", canary.kernel)),
            },
            Err(reason) => untried.push(format!("{node}: {reason}")),
        }
    }
    let missing = facts
        .nodes
        .iter()
        .filter(|node| !canaries.contains_key(&node.name));
    untried.extend(missing.map(|node| format!("{}: not tried", node.name)));
    if !refused.is_empty() {
        return (
            Verdict::Block,
            refused.join("; "),
            "do not go on; report the verifier's words with `uname -a`".into(),
        );
    }
    if !untried.is_empty() || kernels.is_empty() {
        let reason = if untried.is_empty() {
            "no canary was run".to_owned()
        } else {
            untried.join("; ")
        };
        return unknown(reason, "run `thalweg upgrade canary` on these nodes");
    }
    let each = kernels
        .iter()
        .map(|(kernel, (programs, took))| format!("{kernel}: {programs} programs loaded in {took} ms"));
    pass(each.collect::<Vec<_>>().join("; "))
}

/// What some checks say, as a gate: what they find blocks, what they do not know is unknown.
fn checked(facts: &Facts, names: &[&str]) -> Found {
    let selection = Selection {
        only: names.iter().map(|name| (*name).to_owned()).collect(),
        skip: Vec::new(),
    };
    let report = checks::examine(facts, &selection);
    let findings: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
        .collect();
    if let Some(first) = findings.first() {
        let each = findings
            .iter()
            .map(|finding| format!("{}: {}", finding.place, finding.evidence));
        return (
            Verdict::Block,
            each.collect::<Vec<_>>().join("; "),
            first.mend.clone(),
        );
    }
    if !report.unknown.is_empty() {
        let reasons = report
            .unknown
            .iter()
            .map(|one| format!("{}: {}", one.place, one.reason));
        return unknown(
            checks::some_of(reasons),
            "gather what is missing, or look by hand",
        );
    }
    pass(format!("nothing found by {}", names.join(", ")))
}
