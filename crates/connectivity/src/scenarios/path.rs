// SPDX-License-Identifier: Apache-2.0
//! Sizes, hops and neighbours.

use std::net::IpAddr;

use model::Family;
use serde_json::Value;

use super::tools::{Pair, ensure, perf, ping, run};
use super::{Case, Problem, Verdict};
use crate::bed::Bed;
use crate::perf::probe::Datagrams;

/// The hop limit that packets start with.
const INITIAL_TTL: u8 = 64;
/// More hops than any path between pods should have.
const MOST_HOPS: u8 = 8;
/// Headers of an echo request of a family: IP and ICMP.
const fn overhead(family: Family) -> u64 {
    match family {
        Family::Ipv4 => 20 + 8,
        Family::Ipv6 => 40 + 8,
    }
}

/// The pod's interface.
const INTERFACE: &str = "eth0";

pub(super) async fn full_size(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let mtu = path_mtu(bed, &pair).await?;
    let fits = mtu - overhead(case.family);
    for size in [fits - 1, fits] {
        let seen = ping(bed, &pair, &["-c", "2", "-M", "do", "-s", &size.to_string()]).await?;
        ensure(seen.received == seen.sent, || {
            format!(
                "{pair}: {} of {} echoes of {size} bytes came back, MTU {mtu}",
                seen.received, seen.sent
            )
        })?;
    }
    let seen = ping(
        bed,
        &pair,
        &["-c", "1", "-M", "do", "-s", &(fits + 1).to_string()],
    )
    .await?;
    ensure(seen.received == 0, || {
        format!("{pair}: an unfragmented packet bigger than the MTU {mtu} passed")
    })?;
    Ok(format!("MTU {mtu}"))
}

/// The MTU of the route to the other end: that of the route, or else of its interface.
async fn path_mtu(bed: &Bed, pair: &Pair<'_>) -> Result<u64, Problem> {
    let ip = pair.ip.to_string();
    let route = ip_json(bed, pair, &["ip", "-j", "route", "get", &ip]).await?;
    let of_route = route.pointer("/0/metrics/0/mtu").and_then(Value::as_u64);
    if let Some(mtu) = of_route {
        return Ok(mtu);
    }
    let link = ip_json(bed, pair, &["ip", "-j", "link", "show", "dev", INTERFACE]).await?;
    let of_link = link.pointer("/0/mtu").and_then(Value::as_u64);
    of_link.ok_or_else(|| Problem::Failed(format!("ip shows no MTU of {INTERFACE} in {}", pair.from.name)))
}

async fn ip_json(bed: &Bed, pair: &Pair<'_>, command: &[&str]) -> Result<Value, Problem> {
    let ran = run(bed, pair.from, command).await?;
    ensure(ran.succeeded, || {
        format!("{} in {}: {}", command.join(" "), pair.from.name, ran.complaint)
    })?;
    serde_json::from_str(&ran.text)
        .map_err(|error| Problem::Failed(format!("{} in {}: {error}", command.join(" "), pair.from.name)))
}

pub(super) async fn fragments(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let ip = pair.ip.to_string();
    for size in ["1600", "4000", "9000"] {
        let seen: Datagrams = perf(
            bed,
            pair.from,
            &["datagrams", &ip, "--size", size, "--count", "3"],
        )
        .await?;
        ensure(seen.received == seen.sent, || {
            format!(
                "{pair}: {} of {} datagrams of {size} bytes came back",
                seen.received, seen.sent
            )
        })?;
    }
    Ok("up to 9000 bytes".into())
}

pub(super) async fn ttl(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let expected = INITIAL_TTL.saturating_sub(hops_between(bed, case, &pair).await?);
    let seen = ttl_of(bed, &pair).await?;
    ensure(seen == expected, || {
        format!("{pair}: the answer's TTL is {seen} instead of {expected}")
    })?;
    Ok(format!("{expected} of {INITIAL_TTL} left"))
}

/// The TTL of an answer.
async fn ttl_of(bed: &Bed, pair: &Pair<'_>) -> Result<u8, Problem> {
    let seen = ping(bed, pair, &["-c", "1"]).await?;
    let ttl = seen.field("ttl=").and_then(|text| text.parse().ok());
    ttl.ok_or_else(|| Problem::Failed(format!("{pair}: no answer")))
}

/// The nodes, and the routers that the nodes have between them.
async fn hops_between(bed: &Bed, case: Case, pair: &Pair<'_>) -> Result<u8, Problem> {
    if !case.reach.crosses_nodes() {
        return Ok(1);
    }
    let host = |name: &str| {
        bed.nodes
            .iter()
            .find(|node| node.name == name)
            .map(|node| &node.host)
    };
    let ends = host(&pair.from.node).zip(host(&pair.to.node));
    let nodes = ends.and_then(|(from, to)| {
        Some(Pair {
            from,
            to,
            ip: to.ip(case.family)?,
        })
    });
    let nodes =
        nodes.ok_or_else(|| Problem::Skipped(format!("the nodes have no {} address", case.family)))?;
    let routers = INITIAL_TTL.saturating_sub(ttl_of(bed, &nodes).await?);
    Ok(routers + 2)
}

pub(super) async fn traceroute(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let expected = hops_between(bed, case, &pair).await?;
    let mut hops: Vec<IpAddr> = Vec::new();
    for ttl in 1..=MOST_HOPS {
        let seen = ping(bed, &pair, &["-c", "1", "-t", &ttl.to_string()]).await?;
        if seen.received > 0 {
            return judge(bed, &pair, &hops, expected);
        }
        let hop = seen.field("From ").and_then(|text| address(text, &seen.output));
        let Some(hop) = hop else {
            return Err(Problem::Failed(format!("{pair}: nobody answered for hop {ttl}")));
        };
        hops.push(hop);
    }
    Err(Problem::Failed(format!(
        "{pair}: not reached in {MOST_HOPS} hops: {}",
        list(&hops)
    )))
}

/// The address after `From`. An IPv6 address is full of the colons that end other fields.
fn address(field: &str, output: &str) -> Option<IpAddr> {
    field.parse().ok().or_else(|| {
        let (_, rest) = output.split_once("From ")?;
        let word = rest.split_whitespace().next()?;
        word.trim_end_matches(':').parse().ok()
    })
}

fn judge(bed: &Bed, pair: &Pair<'_>, hops: &[IpAddr], expected: u8) -> Verdict {
    ensure(hops.len() == usize::from(expected), || {
        format!(
            "{pair}: {} hops instead of {expected}: {}",
            hops.len(),
            list(hops)
        )
    })?;
    let ends = [(hops.first(), &pair.from.node), (hops.last(), &pair.to.node)];
    for (hop, name) in ends {
        let node = bed.nodes.iter().find(|node| node.name == *name);
        let is_its = hop
            .zip(node)
            .is_some_and(|(hop, node)| node.addresses.contains(hop));
        ensure(is_its, || {
            format!(
                "{pair}: {hop:?} is not an address of {name}; hops: {}",
                list(hops)
            )
        })?;
    }
    Ok(list(hops))
}

fn list(hops: &[IpAddr]) -> String {
    hops.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) async fn neighbour_flush(bed: &Bed, case: Case) -> Verdict {
    let pair = case.one_pair(bed)?;
    let flag = match case.family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    };
    let flush = ["ip", flag, "neighbour", "flush", "dev", INTERFACE, "nud", "all"];
    let ran = run(bed, pair.from, &flush).await?;
    ensure(ran.succeeded, || {
        format!("{} in {}: {}", flush.join(" "), pair.from.name, ran.complaint)
    })?;
    let seen = ping(bed, &pair, &["-c", "3"]).await?;
    ensure(seen.received == seen.sent, || {
        format!(
            "{pair}: {} of {} echoes came back after the flush",
            seen.received, seen.sent
        )
    })?;
    let show = ["ip", flag, "neighbour", "show", "dev", INTERFACE];
    let learned = run(bed, pair.from, &show).await?.text;
    let learned = learned.lines().find(|line| line.contains("lladdr"));
    let learned = learned.ok_or_else(|| Problem::Failed(format!("{pair}: no neighbour was learned")))?;
    Ok(format!("learned {}", learned.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hop_is_read_from_either_family_of_ping() {
        let four = "From 172.30.0.11 icmp_seq=1 Time to live exceeded";
        assert_eq!(address("172.30.0.11", four), "172.30.0.11".parse().ok());
        let six = "From fd74:77::11 icmp_seq=1 Time exceeded: Hop limit";
        assert_eq!(address("fd74", six), "fd74:77::11".parse().ok());
    }
}
