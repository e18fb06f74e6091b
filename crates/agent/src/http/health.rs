// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/health`: how this node reaches the others.

use std::time::{Duration, Instant};

use api::agent::{FailureView, HEALTH_FAILURES_MAX, HealthSummary, HealthView, PeerView, ProbeView};
use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Site;
use crate::health::{Health, PeerHealth, Probe};

/// How long a try of all nodes may take until the answer is given without it: what is known says how old it is.
const PROBE_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Deserialize)]
pub(super) struct HealthQuery {
    /// Not 0: try all nodes first.
    #[serde(default)]
    probe: u8,
}

pub(super) async fn get(State(site): State<Site>, Query(query): Query<HealthQuery>) -> Json<HealthView> {
    let observed = &site.observed;
    if let Some(health) = &observed.health
        && query.probe != 0
    {
        health.probe(PROBE_MAX).await;
    }
    let now = Instant::now();
    let peers = observed.health.iter().flat_map(|health| {
        let peers = health.peers.snapshot();
        peers.iter().map(|peer| view(peer, now)).collect::<Vec<_>>()
    });
    Json(HealthView {
        node: observed.config.node_name.clone(),
        enabled: observed.health.is_some(),
        peers: peers.collect(),
    })
}

fn view(peer: &PeerHealth, now: Instant) -> PeerView {
    let probe = |probe: &Probe| ProbeView {
        kind: probe.kind.name().to_owned(),
        address: probe.address,
        ok: probe.outcome.is_ok(),
        latency_microseconds: probe.outcome.as_ref().ok().map(microseconds),
        error: probe.outcome.as_ref().err().cloned(),
        since_seconds: now.saturating_duration_since(probe.since).as_secs(),
    };
    PeerView {
        peer: peer.node.clone(),
        tried_seconds_ago: peer
            .tried
            .map(|tried| now.saturating_duration_since(tried).as_secs()),
        probes: peer.probes.iter().map(probe).collect(),
    }
}

fn microseconds(time: &Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn summary(health: &Health, now: Instant) -> HealthSummary {
    let peers = health.peers.snapshot();
    let failing = peers.iter().filter_map(|peer| failure(peer, now));
    let failures: Vec<_> = failing.collect();
    HealthSummary {
        peers: peers.len(),
        failing: failures.len(),
        failures: failures.into_iter().take(HEALTH_FAILURES_MAX).collect(),
    }
}

fn failure(peer: &PeerHealth, now: Instant) -> Option<FailureView> {
    let first = peer.failures().next()?;
    let mut kinds: Vec<_> = peer
        .failures()
        .map(|probe| probe.kind.name().to_owned())
        .collect();
    kinds.dedup();
    Some(FailureView {
        peer: peer.node.clone(),
        kinds,
        error: first.outcome.as_ref().err().cloned().unwrap_or_default(),
        since_seconds: now.saturating_duration_since(first.since).as_secs(),
    })
}
