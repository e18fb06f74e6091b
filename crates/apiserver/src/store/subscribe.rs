// SPDX-License-Identifier: Apache-2.0
//! Events, and the bounded queues that take them to watchers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::mpsc;

use super::{Inner, Key, Limits, Object};
use crate::selectors::Selector;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change. All watchers share it, and share its rendered line.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) object: Arc<Object>,
    previous: Option<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Event {
    pub(super) fn new(kind: EventKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self {
            kind,
            object,
            previous,
            line: OnceLock::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.object.revision
    }

    /// The event as a line of a watch, rendered once.
    pub(crate) fn line(&self) -> Bytes {
        self.line
            .get_or_init(|| render_line(self.kind, &self.object.json))
            .clone()
    }
}

/// `{"type":…,"object":…}` and a newline.
pub(crate) fn render_line(kind: EventKind, object: &[u8]) -> Bytes {
    let kind = kind.as_str();
    let mut line = Vec::with_capacity(object.len() + kind.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// What a watcher wants to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// One namespace, or all.
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) selector: Arc<Selector>,
}

impl Scope {
    pub(crate) fn contains(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == object.key.namespace) && self.selector.matches(object)
    }

    /// What this event is to somebody who only sees the scope: an object that starts to match is an added one.
    fn classify(&self, event: &Event) -> Option<EventKind> {
        let before = event.previous.as_ref().is_some_and(|p| self.contains(p));
        let after = event.kind != EventKind::Deleted && self.contains(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(EventKind::Added),
            (true, true) => Some(EventKind::Modified),
            (true, false) => Some(EventKind::Deleted),
        }
    }
}

/// An event as one watcher has to be told of it.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) kind: EventKind,
    pub(crate) event: Arc<Event>,
}

pub(super) struct Watcher {
    scope: Scope,
    queue: mpsc::Sender<Delivery>,
}

impl Watcher {
    /// Whether the watcher lives on. A full queue ends it: its client lists again, and nobody else waits for it.
    pub(super) fn offer(&self, event: &Arc<Event>) -> bool {
        let Some(kind) = self.scope.classify(event) else {
            return !self.queue.is_closed();
        };
        match self.queue.try_send(Delivery {
            kind,
            event: event.clone(),
        }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(
                    revision = event.revision(),
                    "a watcher is too slow, its watch ends"
                );
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the objects that are there now.
    Current,
    /// With what happened after this revision.
    After(u64),
}

/// Why a watch cannot begin there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscribeError {
    TooOld { asked: u64, oldest: u64 },
    TooNew { asked: u64, current: u64 },
}

/// A begun watch.
pub(crate) struct Subscription {
    /// The objects there were at `revision`, when asked for.
    pub(crate) initial: OrdMap<Key, Arc<Object>>,
    /// Past events to replay.
    pub(crate) backlog: Vec<Delivery>,
    pub(crate) revision: u64,
    pub(crate) events: mpsc::Receiver<Delivery>,
}

impl Inner {
    pub(super) fn subscribe(
        &mut self,
        storage: &Arc<str>,
        start: Start,
        scope: Scope,
        limits: Limits,
    ) -> Result<Subscription, SubscribeError> {
        let revision = self.revision;
        let table = self.tables.entry(storage.clone()).or_default();
        let (initial, backlog) = match start {
            Start::Current => (table.objects.clone(), Vec::new()),
            Start::After(asked) if asked < table.compacted => {
                return Err(SubscribeError::TooOld {
                    asked,
                    oldest: table.compacted,
                });
            }
            Start::After(asked) if asked > revision => {
                return Err(SubscribeError::TooNew {
                    asked,
                    current: revision,
                });
            }
            Start::After(asked) => {
                let first = table.history.partition_point(|e| e.revision() <= asked);
                let past = table.history.range(first..);
                let seen = past.filter_map(|e| {
                    Some(Delivery {
                        kind: scope.classify(e)?,
                        event: e.clone(),
                    })
                });
                (OrdMap::new(), seen.collect())
            }
        };
        let (queue, events) = mpsc::channel(limits.queue);
        table.watchers.retain(|w| !w.queue.is_closed());
        table.watchers.push(Watcher { scope, queue });
        Ok(Subscription {
            initial,
            backlog,
            revision,
            events,
        })
    }
}
