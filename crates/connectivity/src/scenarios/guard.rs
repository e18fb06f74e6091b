// SPDX-License-Identifier: Apache-2.0
//! What must not get through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::Family;
use serde::Deserialize;

use super::tools::{Pair, ensure, perf};
use super::{Case, Problem, Verdict};
use crate::bed::Bed;
use crate::perf::probe::Heard;

/// The drop reason of a forged source address.
const REASON: &str = "INVALID_SOURCE_IP";
/// Addresses for documentation: nobody's.
const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);
/// Where the receiver of forged packets listens; another port for each scenario, since they run at the same time.
const FOREIGN_PORT: u16 = 4790;
const NEIGHBOUR_PORT: u16 = 4791;

pub(super) async fn foreign_source(bed: &Bed, case: Case) -> Verdict {
    let source = match case.family {
        Family::Ipv4 => NOBODY_V4.into(),
        Family::Ipv6 => NOBODY_V6.into(),
    };
    forge(bed, &case.one_pair(bed)?, source, FOREIGN_PORT).await
}

pub(super) async fn neighbour_source(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let node = bed.nodes.iter().find(|node| node.name == pair.from.node);
    let source = node.and_then(|node| node.second.ip(case.family));
    let source = source.ok_or_else(|| Problem::Skipped("there is no second pod".into()))?;
    forge(bed, &pair, source, NEIGHBOUR_PORT).await
}

async fn forge(bed: &Bed, pair: &Pair<'_>, source: IpAddr, port: u16) -> Verdict {
    #[derive(Deserialize)]
    struct Forged {
        forged: u64,
    }
    let (source, target) = (source.to_string(), SocketAddr::new(pair.ip, port).to_string());
    let before = dropped(bed, &pair.from.node).await?;
    let listen = ["listen", &target];
    let send = ["forge", &target, "--source", &source];
    let (heard, sent) = tokio::try_join!(
        perf::<Heard>(bed, pair.to, &listen),
        perf::<Forged>(bed, pair.from, &send)
    )?;
    let after = dropped(bed, &pair.from.node).await?;
    ensure(heard.forged == 0, || {
        format!(
            "{pair}: {} of {} packets from {source} arrived",
            heard.forged, sent.forged
        )
    })?;
    ensure(after >= before + sent.forged, || {
        format!(
            "{pair}: {} packets from {source} were sent and none arrived, but {REASON} on {} went from {before} to \
             {after} only",
            sent.forged, pair.from.node
        )
    })?;
    Ok(format!("{} dropped as {REASON}", sent.forged))
}

/// How many packets the node has dropped for their source address.
async fn dropped(bed: &Bed, node: &str) -> Result<u64, Problem> {
    let drops = bed.drops(node).await.map_err(|error| Problem::Failed(error.0))?;
    let counted = drops
        .unwrap_or_default()
        .into_iter()
        .filter(|row| row.reason == REASON);
    Ok(counted.map(|row| row.packets).sum())
}
