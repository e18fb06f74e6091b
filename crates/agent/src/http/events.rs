// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/events`: the last events, and with `follow=1` those to come, one object per line.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Site;
use crate::events::{Record, view};
use crate::observe::Observed;

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    /// 1 to go on with the events to come.
    #[serde(default)]
    follow: u8,
    /// How many past events to begin with; all that are kept when not given.
    last: Option<usize>,
}

pub(super) async fn get(State(site): State<Site>, Query(query): Query<EventsQuery>) -> Response {
    let (mut kept, receiver) = site.observed.events.subscribe();
    let surplus = query.last.map_or(0, |last| kept.len().saturating_sub(last));
    kept.drain(..surplus);
    let past: Vec<u8> = kept
        .iter()
        .flat_map(|record| line(record, &site.observed))
        .collect();
    let past = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from(past))));
    let body = match query.follow {
        0 => Body::from_stream(past),
        _ => Body::from_stream(past.chain(follow(site, receiver))),
    };
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

/// Ends when the agent does. A reader that is too slow misses events, which shows as a gap in their sequence.
fn follow(site: Site, receiver: Receiver<Record>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((site, receiver), |(site, mut receiver)| async move {
        loop {
            match receiver.recv().await {
                Ok(record) => {
                    let bytes = Bytes::from(line(&record, &site.observed));
                    return Some((Ok(bytes), (site, receiver)));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn line(record: &Record, observed: &Observed) -> Vec<u8> {
    // A view has nothing that JSON could not say.
    let mut line = serde_json::to_vec(&view(record, &observed.endpoints.snapshot())).unwrap_or_default();
    line.push(b'\n');
    line
}
