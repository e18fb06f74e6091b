// SPDX-License-Identifier: Apache-2.0
//! ClusterIPs: who answers, and what when nobody does.

use std::net::SocketAddr;

use serde_json::json;

use super::super::tools::{ensure, perf};
use super::super::{Case, Problem, Verdict};
use super::tools::{
    BY_NAME, ECHO, NO_PORT, PORT, answered_by, answers, make, names, only, refused, selector,
};
use crate::bed::Bed;
use crate::perf::probe::Many;

/// How often a service is asked to see all of its backends: with eight the chance to miss one is below 1e-10.
const OFTEN: u32 = 200;

pub(super) async fn cluster_ip(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "cluster-ip", selector("kind", "first"), json!({})).await?;
    let backends = names(bed, |node| &node.first);
    for node in &bed.nodes {
        answered_by(bed, case.client(node), made.address(), &backends).await?;
    }
    Ok(format!(
        "{} backends, from {} nodes",
        backends.len(),
        bed.nodes.len()
    ))
}

pub(super) async fn to_itself(bed: &Bed, case: Case) -> Verdict {
    let node = bed.nodes.first();
    let node = node.ok_or_else(|| Problem::Skipped("there is no node".into()))?;
    let pod = &node.first;
    let made = make(bed, case, "to-itself", selector("pod", &pod.name), json!({})).await?;
    answered_by(bed, pod, made.address(), &[&pod.name]).await?;
    let (ip, echo) = (made.ip.to_string(), ECHO.to_string());
    let held: Many = perf(bed, pod, &["many", &ip, "--port", &echo]).await?;
    Ok(format!("{} connections at once", held.connections))
}

pub(super) async fn source_address(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "source", selector("kind", "second"), json!({})).await?;
    for node in &bed.nodes {
        let client = case.client(node);
        let found = answers(bed, client, made.address(), 20, &[]).await?;
        let own = found.peers.iter().all(|peer| client.ips.contains(peer));
        ensure(own, || format!("{} was seen as {:?}", client.name, found.peers))?;
    }
    Ok(String::new())
}

pub(super) async fn spread(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "spread", selector("backend", "yes"), json!({})).await?;
    let mut expected = names(bed, |node| &node.first);
    expected.extend(names(bed, |node| &node.second));
    for node in &bed.nodes {
        let client = case.client(node);
        let found = answers(bed, client, made.address(), OFTEN, &[]).await?;
        only(client, made.address(), &found, &expected)?;
        ensure(found.servers.len() == expected.len(), || {
            format!(
                "{}: of {} backends only these answered: {:?}",
                client.name,
                expected.len(),
                found.servers
            )
        })?;
    }
    Ok(format!("{} backends", expected.len()))
}

pub(super) async fn port_mapping(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "ports", selector("kind", "second"), json!({})).await?;
    let backends = names(bed, |node| &node.second);
    for node in &bed.nodes {
        for port in [PORT, BY_NAME] {
            let address = SocketAddr::new(made.ip, port);
            answered_by(bed, case.client(node), address, &backends).await?;
        }
    }
    Ok("by number and by name".into())
}

pub(super) async fn no_such_port(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "no-such-port", selector("kind", "second"), json!({})).await?;
    for node in &bed.nodes {
        let client = case.client(node);
        answers(bed, client, made.address(), 1, &[]).await?;
        refused(bed, client, SocketAddr::new(made.ip, NO_PORT)).await?;
    }
    Ok(String::new())
}

pub(super) async fn no_backend(bed: &Bed, case: Case) -> Verdict {
    let made = make(bed, case, "no-backend", selector("pod", "nobody"), json!({})).await?;
    for node in &bed.nodes {
        refused(bed, case.client(node), made.address()).await?;
    }
    Ok(String::new())
}
