// SPDX-License-Identifier: Apache-2.0
//! Whether data gets there and back.

use std::net::SocketAddr;

use model::Family;
use serde::Deserialize;

use super::tools::{self, ensure, perf};
use super::{Case, Problem, Reach, Verdict};
use crate::bed::Bed;
use crate::perf::Report;
use crate::perf::probe::{Bulk, Connect, Datagrams, Many};

pub(super) async fn ping(bed: &Bed, case: Case) -> Verdict {
    let pairs = case.pairs(bed);
    for pair in &pairs {
        let seen = tools::ping(bed, pair, &["-c", "3"]).await?;
        ensure(seen.received == seen.sent, || {
            format!("{pair}: {} of {} echoes came back", seen.received, seen.sent)
        })?;
    }
    Ok(count(pairs.len()))
}

pub(super) async fn tcp(bed: &Bed, case: Case) -> Verdict {
    let pairs = case.pairs(bed);
    for pair in &pairs {
        let _: Many = perf(
            bed,
            pair.from,
            &["many", &pair.ip.to_string(), "--connections", "1"],
        )
        .await?;
    }
    Ok(count(pairs.len()))
}

pub(super) async fn udp(bed: &Bed, case: Case) -> Verdict {
    let pairs = case.pairs(bed);
    for pair in &pairs {
        let seen: Datagrams = perf(bed, pair.from, &["datagrams", &pair.ip.to_string()]).await?;
        ensure(seen.received == seen.sent, || {
            format!("{pair}: {} of {} datagrams came back", seen.received, seen.sent)
        })?;
    }
    Ok(count(pairs.len()))
}

fn count(pairs: usize) -> String {
    if pairs == 1 {
        "1 pair".into()
    } else {
        format!("{pairs} pairs")
    }
}

pub(super) async fn api_server(bed: &Bed, case: Case) -> Verdict {
    #[derive(Deserialize)]
    struct Tried {
        connect: Connect,
    }
    let is_wanted = |address: &&SocketAddr| Family::of(&address.ip()) == case.family;
    let targets: Vec<_> = bed.api.iter().filter(is_wanted).collect();
    if targets.is_empty() {
        return Err(Problem::Skipped(format!(
            "the API server has no {} endpoint here",
            case.family
        )));
    }
    for target in &targets {
        for node in &bed.nodes {
            let tried: Tried = perf(bed, &node.first, &["connect", &target.to_string()]).await?;
            ensure(tried.connect == Connect::Connected, || {
                format!(
                    "{} on {} to {target}: {:?}",
                    node.first.name, node.name, tried.connect
                )
            })?;
        }
    }
    Ok(format!("{} from {} nodes", targets.len(), bed.nodes.len()))
}

pub(super) async fn source_address(bed: &Bed, case: Case) -> Verdict {
    #[derive(Deserialize)]
    struct Seen {
        peer: SocketAddr,
    }
    let pairs = case.pairs(bed);
    for pair in &pairs {
        let Seen { peer } = perf(bed, pair.from, &["whoami", &pair.ip.to_string()]).await?;
        let is_own =
            pair.from.ips.contains(&peer.ip()) || case.reach == Reach::NodeToLocalPod && is_nodes(bed, peer);
        ensure(is_own, || {
            format!("{pair}: seen as {}, which is not its address", peer.ip())
        })?;
    }
    Ok(count(pairs.len()))
}

/// Whether it is an address of a node, and not of a pod: a node may have more addresses than it reports.
fn is_nodes(bed: &Bed, peer: SocketAddr) -> bool {
    let pods = bed.nodes.iter().flat_map(|node| [&node.first, &node.second]);
    !pods.flat_map(|pod| &pod.ips).any(|ip| *ip == peer.ip())
}

pub(super) async fn bulk(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let done: Bulk = perf(bed, pair.from, &["bulk", &pair.ip.to_string()]).await?;
    Ok(format!("{} MiB each way", done.bytes >> 20))
}

pub(super) async fn many(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let done: Many = perf(bed, pair.from, &["many", &pair.ip.to_string()]).await?;
    Ok(format!("{} at once", done.connections))
}

pub(super) async fn short(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let ip = pair.ip.to_string();
    let arguments = ["client", "tcp-crr", &ip, "--duration", "0.3", "--warmup", "0"];
    let done: Report = perf(bed, pair.from, &arguments).await?;
    ensure(done.transactions > 0, || format!("{pair}: none"))?;
    Ok(format!("{} one after the other", done.transactions))
}
