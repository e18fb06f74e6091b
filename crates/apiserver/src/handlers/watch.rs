// SPDX-License-Identifier: Apache-2.0
//! Watches.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::{HeaderValue, Response, StatusCode};
use imbl::ordmap::OrdMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at};

use super::{Context, read};
use crate::http::{Body, body::stream_body};
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::store::{Delivery, EventKind, Key, Object, Scope, Start, SubscribeError, Subscription};
use crate::view::View;

/// How often a quiet watch that allows bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// How long a watch lasts whose client named no time; it then starts another one, from where it was.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// The longest that a client can ask for: the clock could not count to some numbers.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How many lines go into one piece of the body when many are waiting.
const BATCH: usize = 64;

pub(super) fn watch(context: &Context) -> Result<Response<Body>> {
    let view = context.view()?;
    let scope = read::scope(context)?;
    let query = &context.head.query;
    let initial_events = query
        .get("sendInitialEvents")
        .map(|_| query.flag("sendInitialEvents"));
    if initial_events.is_some() && query.get("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let asked = query.number("resourceVersion")?.unwrap_or(0);
    let start = match initial_events {
        Some(true) => Start::Current,
        Some(false) if asked == 0 => Start::After(context.server.store.revision()),
        None if asked == 0 => Start::Current,
        Some(false) | None => Start::After(asked),
    };
    let subscription = context
        .server
        .store
        .subscribe(&context.resource.storage, start, scope.clone())
        .map_err(refusal)?;
    let timeout = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, |seconds| {
        Duration::from_secs(seconds).min(MAX_TIMEOUT)
    });
    let bookmarks = query.flag("allowWatchBookmarks");
    let watch = Watch::new(context.server.clone(), view, scope, subscription, bookmarks);
    let watch = Watch {
        announce_initial_end: bookmarks && initial_events == Some(true),
        ..watch
    };
    let mut response = Response::new(stream_body(watch.lines(Instant::now() + timeout)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

fn refusal(error: SubscribeError) -> ApiError {
    // A revision from the future comes from another server's life; the client has to list again, as for one too old.
    match error {
        SubscribeError::TooOld { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        SubscribeError::TooNew { asked, current } => {
            ApiError::expired(format!("too large resource version: {asked}, current: {current}"))
        }
    }
}

struct Watch {
    server: Arc<Server>,
    view: View,
    scope: Scope,
    initial: OrdMap<Key, Arc<Object>>,
    /// The last of the initial objects that were sent.
    cursor: Option<Key>,
    backlog: VecDeque<Delivery>,
    events: mpsc::Receiver<Delivery>,
    revision: u64,
    announce_initial_end: bool,
    bookmarks: Option<Interval>,
    first: bool,
}

impl Watch {
    fn new(
        server: Arc<Server>,
        view: View,
        scope: Scope,
        subscription: Subscription,
        bookmarks: bool,
    ) -> Self {
        Self {
            server,
            view,
            scope,
            initial: subscription.initial,
            cursor: None,
            backlog: subscription.backlog.into(),
            events: subscription.events,
            revision: subscription.revision,
            announce_initial_end: false,
            bookmarks: bookmarks.then(|| interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL)),
            first: true,
        }
    }

    fn lines(self, deadline: Instant) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, move |mut watch| async move {
            let lines = watch.next(deadline).await?;
            Some((Ok(lines), watch))
        })
    }

    /// The next piece of the body; `None` ends the watch.
    async fn next(&mut self, deadline: Instant) -> Option<Bytes> {
        if let Some(lines) = self.initial_lines() {
            return Some(lines);
        }
        if std::mem::take(&mut self.announce_initial_end) {
            return Some(self.view.bookmark(self.revision, true));
        }
        if let Some(delivery) = self.backlog.pop_front() {
            return Some(self.render(&delivery));
        }
        tokio::select! {
            delivery = self.events.recv() => Some(self.batch(&delivery?)),
            () = tokio::time::sleep_until(deadline) => None,
            () = self.server.stopping.cancelled() => None,
            () = tick(&mut self.bookmarks) => self.bookmark(),
        }
    }

    /// Some of the objects that were there at the start.
    fn initial_lines(&mut self) -> Option<Bytes> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut lines = Vec::new();
        while lines.is_empty() && !self.initial.is_empty() {
            let from = self.cursor.take().map_or(Unbounded, Excluded);
            let objects: Vec<Arc<Object>> = self
                .initial
                .range((from, Unbounded))
                .take(BATCH)
                .map(|(_, o)| o.clone())
                .collect();
            for object in objects.iter().filter(|o| self.scope.contains(o)) {
                lines.extend_from_slice(&self.view.line(EventKind::Added, object, self.first));
                self.first = false;
            }
            self.cursor = objects.last().map(|o| o.key.clone());
            if self.cursor.is_none() {
                self.initial = OrdMap::new();
            }
        }
        (!lines.is_empty()).then(|| lines.into())
    }

    fn render(&mut self, delivery: &Delivery) -> Bytes {
        self.view.event(delivery, std::mem::take(&mut self.first))
    }

    /// One event, and those that are waiting behind it.
    fn batch(&mut self, delivery: &Delivery) -> Bytes {
        let line = self.render(delivery);
        let Ok(second) = self.events.try_recv() else {
            return line;
        };
        let mut lines = line.to_vec();
        lines.extend_from_slice(&self.render(&second));
        for _ in 2..BATCH {
            let Ok(next) = self.events.try_recv() else { break };
            lines.extend_from_slice(&self.render(&next));
        }
        lines.into()
    }

    /// A bookmark, or the events that came just before it. A watch that was ended for its slowness gets none: it has lost
    /// events.
    fn bookmark(&mut self) -> Option<Bytes> {
        // Everything up to this revision is in the queue already, since it is taken under the lock that fills queues.
        let revision = self.server.store.revision();
        match self.events.try_recv() {
            Ok(delivery) => Some(self.batch(&delivery)),
            Err(mpsc::error::TryRecvError::Empty) => Some(self.view.bookmark(revision, false)),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        }
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
