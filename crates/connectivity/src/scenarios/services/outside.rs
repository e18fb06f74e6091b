// SPDX-License-Identifier: Apache-2.0
//! Addresses for clients outside of the cluster: node ports, external IPs, load balancers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use model::Family;
use serde_json::{Value, json};

use super::super::tools::{ensure, perf};
use super::super::{Case, Problem, Reach, Verdict};
use super::tools::{PORT, PROTOCOLS, answered_by, answers, make, names, only, selector};
use crate::bed::{Bed, TestNode};
use crate::perf::ask::Answers;

/// So that no controller of the cluster makes a load balancer, which costs money.
const CLASS: &str = "connectivity.thalweg.io/none";
/// The first of the documentation addresses that services get here.
const EXTERNAL: u8 = 80;
const BALANCED: u8 = 90;

pub(super) async fn node_port(bed: &Bed, case: Case) -> Verdict {
    let more = json!({ "type": "NodePort" });
    let made = make(bed, case, "node-port", selector("kind", "second"), more).await?;
    let backends = names(bed, |node| &node.second);
    for node in &bed.nodes {
        let client = case.client(node);
        for other in &bed.nodes {
            for (protocol, port) in PROTOCOLS.into_iter().zip(made.node_ports) {
                let to = SocketAddr::new(address(other, case.family)?, given(port)?);
                let found = answers(bed, client, to, 5, protocol).await?;
                only(client, to, &found, &backends)?;
            }
        }
    }
    Ok(format!("at {} nodes", bed.nodes.len()))
}

pub(super) async fn external_local(bed: &Bed, case: Case) -> Verdict {
    let [here, elsewhere @ ..] = bed.nodes.as_slice() else {
        return Err(Problem::Skipped("there is no node".into()));
    };
    if elsewhere.is_empty() {
        return Err(Problem::Skipped("takes two nodes, and there is one".into()));
    }
    let more = json!({ "type": "NodePort", "externalTrafficPolicy": "Local" });
    let made = make(
        bed,
        case,
        "external-local",
        selector("pod", &here.second.name),
        more,
    )
    .await?;
    let port = given(made.node_ports[0])?;
    let to = SocketAddr::new(address(here, case.family)?, port);
    for node in elsewhere {
        let found = answers(bed, &node.host, to, 5, &[]).await?;
        only(&node.host, to, &found, &[&here.second.name])?;
        let own = found.peers.iter().all(|peer| node.addresses.contains(peer));
        ensure(own, || {
            format!(
                "{} was seen as {:?}, which is not its address",
                node.host.name, found.peers
            )
        })?;
        unanswered(bed, here, SocketAddr::new(address(node, case.family)?, port)).await?;
    }
    Ok(format!("unanswered at {} nodes", elsewhere.len()))
}

async fn unanswered(bed: &Bed, from: &TestNode, to: SocketAddr) -> Result<(), Problem> {
    let found: Answers = perf(bed, &from.host, &["ask", &to.to_string()]).await?;
    ensure(found.answered() == 0, || {
        format!("{} to {to}, where there is no backend: {found:?}", from.host.name)
    })
}

pub(super) async fn external_ip(bed: &Bed, case: Case) -> Verdict {
    let ip = documentation(case, EXTERNAL);
    let more = json!({ "externalIPs": [ip] });
    make(bed, case, "external-ip", selector("kind", "second"), more).await?;
    everywhere(bed, case, ip).await
}

pub(super) async fn load_balancer(bed: &Bed, case: Case) -> Verdict {
    let ip = documentation(case, BALANCED);
    let more: Value = json!({ "type": "LoadBalancer", "loadBalancerClass": CLASS });
    let made = make(bed, case, "load-balancer", selector("kind", "second"), more).await?;
    let ingress = json!([{ "ip": ip, "ipMode": "VIP" }]);
    let status = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": ingress } } }));
    let failed = |error: kube::Error| {
        Problem::Failed(format!(
            "cannot write the status of service {}: {error}",
            made.name
        ))
    };
    bed.api::<Service>()
        .patch_status(&made.name, &PatchParams::default(), &status)
        .await
        .map_err(failed)?;
    everywhere(bed, case, ip).await
}

/// Every node's client is answered at an address.
async fn everywhere(bed: &Bed, case: Case, ip: IpAddr) -> Verdict {
    let backends = names(bed, |node| &node.second);
    for node in &bed.nodes {
        answered_by(bed, case.client(node), SocketAddr::new(ip, PORT), &backends).await?;
    }
    Ok(ip.to_string())
}

/// Nobody's address; another one for each case, since they run at the same time.
fn documentation(case: Case, number: u8) -> IpAddr {
    let number = number + u8::from(case.reach == Reach::NodeToService);
    match case.family {
        Family::Ipv4 => Ipv4Addr::new(203, 0, 113, number).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn address(node: &TestNode, family: Family) -> Result<IpAddr, Problem> {
    let ip = node.host.ip(family);
    ip.ok_or_else(|| Problem::Skipped(format!("{} has no {family} address", node.name)))
}

fn given(port: Option<u16>) -> Result<u16, Problem> {
    port.ok_or_else(|| Problem::Failed("the service was given no node port".into()))
}
