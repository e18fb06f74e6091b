// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/events`: the last events, and with `follow=1` those to come, one object per line.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use api::agent::{EventLine, EventView, LostPlace, LostView};
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use super::Site;
use crate::events::{Record, unix_milliseconds, view};
use crate::observe::Observed;

/// How often a follower is told what the kernel's ring has lost.
const LOST_CHECK: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    /// 1 to go on with the events to come.
    #[serde(default)]
    follow: u8,
    /// How many past events to begin with; all that are kept when not given.
    last: Option<usize>,
}

/// Which events are wanted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    /// Those of this reason.
    reason: Option<String>,
    /// Those of this pod, as `namespace/name`.
    pod: Option<String>,
    /// Those from or to this address.
    ip: Option<IpAddr>,
}

impl Filter {
    fn wants(&self, event: &EventView) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let ends = [event.source, event.destination];
        is(&self.reason, Some(&event.reason))
            && is(&self.pod, event.pod.as_deref())
            && self.ip.is_none_or(|ip| ends.contains(&Some(ip)))
    }
}

pub(super) async fn get(
    State(site): State<Site>,
    Query(query): Query<EventsQuery>,
    Query(filter): Query<Filter>,
) -> Response {
    let (kept, receiver) = site.observed.events.subscribe();
    let past = past(&kept, &filter, query.last, &site.observed);
    let past = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from(past))));
    let body = match query.follow {
        0 => Body::from_stream(past),
        _ => Body::from_stream(past.chain(follow(Follower::new(site, receiver, filter)))),
    };
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

/// The last of those that are wanted, oldest first.
fn past(kept: &[Record], filter: &Filter, last: Option<usize>, observed: &Observed) -> Vec<u8> {
    let endpoints = observed.endpoints.snapshot();
    let mut wanted: Vec<EventView> = kept
        .iter()
        .map(|record| view(record, &endpoints))
        .filter(|event| filter.wants(event))
        .collect();
    let surplus = last.map_or(0, |last| wanted.len().saturating_sub(last));
    wanted.drain(..surplus);
    wanted
        .into_iter()
        .map(EventLine::Drop)
        .flat_map(|event| line(&event))
        .collect()
}

/// Somebody who follows.
struct Follower {
    site: Site,
    receiver: Receiver<Record>,
    filter: Filter,
    check: Interval,
    /// What the ring had lost when it was last looked at.
    lost: u64,
}

impl Follower {
    fn new(site: Site, receiver: Receiver<Record>, filter: Filter) -> Self {
        let lost = lost_by_ring(&site.observed);
        Self {
            site,
            receiver,
            filter,
            check: tokio::time::interval(LOST_CHECK),
            lost,
        }
    }

    /// Nothing when the agent ends.
    async fn next(&mut self) -> Option<EventLine> {
        loop {
            tokio::select! {
                received = self.receiver.recv() => match received {
                    Ok(record) => {
                        let event = view(&record, &self.site.observed.endpoints.snapshot());
                        if self.filter.wants(&event) {
                            return Some(EventLine::Drop(event));
                        }
                    }
                    Err(RecvError::Lagged(events)) => return Some(lost(events, LostPlace::Reader)),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.check.tick() => {
                    let (before, now) = (self.lost, lost_by_ring(&self.site.observed));
                    self.lost = now;
                    if now > before {
                        return Some(lost(now - before, LostPlace::Ring));
                    }
                }
            }
        }
    }
}

fn follow(follower: Follower) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(Bytes::from(line(&event))), follower))
    })
}

fn lost(events: u64, place: LostPlace) -> EventLine {
    EventLine::Lost(LostView {
        unix_milliseconds: unix_milliseconds(),
        events,
        place,
    })
}

/// Counters that cannot be read are shown by `/metrics`.
fn lost_by_ring(observed: &Observed) -> u64 {
    observed.counters.events_lost().unwrap_or_default()
}

fn line(event: &EventLine) -> Vec<u8> {
    // A view has nothing that JSON could not say.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_passes() {
        let event = EventView {
            sequence: 1,
            unix_milliseconds: 1,
            reason: "INVALID_SOURCE_IP".to_owned(),
            direction: "egress".to_owned(),
            interface: "tw1".to_owned(),
            source: Some("10.0.0.1".parse().unwrap()),
            destination: None,
            protocol: "udp".to_owned(),
            source_port: None,
            destination_port: None,
            length: 60,
            pod: Some("default/a".to_owned()),
        };
        let wants = |query: &str| {
            let filter: Filter = serde_json::from_str(query).unwrap();
            filter.wants(&event)
        };
        for query in [
            "{}",
            r#"{"pod":"default/a"}"#,
            r#"{"ip":"10.0.0.1"}"#,
            r#"{"reason":"INVALID_SOURCE_IP"}"#,
        ] {
            assert!(wants(query), "{query}");
        }
        for query in [
            r#"{"pod":"default/b"}"#,
            r#"{"ip":"10.0.0.2"}"#,
            r#"{"ip":"10.0.0.1","reason":"OTHER"}"#,
        ] {
            assert!(!wants(query), "{query}");
        }
    }
}
