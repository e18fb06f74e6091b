// SPDX-License-Identifier: Apache-2.0
//! A watched kind: the objects of one watch, by key, in a plain map that one task owns.
//!
//! A controller owns its [`Watched`] maps, so there are no locks; after a write it puts the answer back with
//! [`Watched::written`], so that its next plan already counts on it. Resource versions keep an older event from
//! undoing that.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use kube::api::Api;
use kube::runtime::utils::{Backoff, WatchStreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::debug;

/// The first pause after a failed list or watch; it doubles up to [`RECONNECT_MAX`].
const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to watch.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Namespace (empty for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The namespace; empty for cluster-wide kinds.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object.
    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }

    /// A key from its parts.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The objects of one watch.
pub(crate) struct Watched<K> {
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    objects: BTreeMap<Key, Arc<K>>,
    /// What a list in progress has shown so far.
    listing: BTreeMap<Key, Arc<K>>,
    synced: bool,
}

impl<K> Watched<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts to watch what `api` and `config` select, at the first [`Watched::changed`].
    pub(crate) fn new(api: Api<K>, config: watcher::Config) -> Self {
        Self {
            stream: watcher::watcher(api, config)
                .backoff(Reconnect::default())
                .boxed(),
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            synced: false,
        }
    }

    /// Waits until something changed, and takes in everything that is there by then. Safe to cancel.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(event) = self.stream.next().await else {
                return std::future::pending().await;
            };
            let mut changed = self.take(event);
            while let Some(Some(event)) = self.stream.next().now_or_never() {
                changed |= self.take(event);
            }
            if changed && self.synced {
                return;
            }
        }
    }

    /// Whether a first list is complete.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    /// The object of that key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// All objects, by namespace and name.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// Takes in the server's answer to a write of ours.
    pub(crate) fn written(&mut self, object: K) {
        let key = Key::of(&object);
        insert(&mut self.objects, key, Arc::new(object));
    }

    /// Forgets an object that we removed.
    pub(crate) fn removed(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    fn take(&mut self, event: watcher::Result<Event<K>>) -> bool {
        match event {
            Ok(Event::Apply(object)) => insert(&mut self.objects, Key::of(&object), Arc::new(object)),
            Ok(Event::Delete(object)) => self.delete(&object),
            Ok(Event::Init) => {
                self.listing.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                self.listing.insert(Key::of(&object), Arc::new(object));
                false
            }
            Ok(Event::InitDone) => self.relisted(),
            Err(error) => {
                debug!(kind = std::any::type_name::<K>(), %error, "watch interrupted; trying again");
                false
            }
        }
    }

    fn delete(&mut self, object: &K) -> bool {
        let key = Key::of(object);
        // A deletion that is older than the object of the same name that we know.
        let other = self
            .objects
            .get(&key)
            .is_some_and(|known| known.uid() != object.uid());
        !other && self.objects.remove(&key).is_some()
    }

    fn relisted(&mut self) -> bool {
        let mut listed = std::mem::take(&mut self.listing);
        for (key, object) in &mut listed {
            if let Some(known) = self
                .objects
                .get(key)
                .filter(|known| is_newer(known.as_ref(), object.as_ref()))
            {
                *object = Arc::clone(known);
            }
        }
        self.objects = listed;
        self.synced = true;
        true
    }
}

impl<K> Debug for Watched<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("objects", &self.objects.len())
            .field("synced", &self.synced)
            .finish()
    }
}

/// False when the map already has the same or a newer version.
fn insert<K: Resource>(objects: &mut BTreeMap<Key, Arc<K>>, key: Key, object: Arc<K>) -> bool {
    if let Some(known) = objects.get(&key) {
        let same = known.meta().resource_version.is_some()
            && known.meta().resource_version == object.meta().resource_version;
        if same || is_newer(known.as_ref(), object.as_ref()) {
            return false;
        }
    }
    objects.insert(key, object);
    true
}

/// Whether `a` is a later version than `b`. Versions of one kind compare as numbers, both in the embedded server and in
/// etcd; anything else counts as not newer, that is, the event wins.
pub(crate) fn is_newer<K: Resource>(a: &K, b: &K) -> bool {
    let version = |object: &K| {
        object
            .meta()
            .resource_version
            .as_deref()
            .and_then(|v| v.parse::<u64>().ok())
    };
    matches!((version(a), version(b)), (Some(a), Some(b)) if a > b)
}

/// Exponential pauses between attempts to watch.
#[derive(Debug, Default)]
struct Reconnect {
    next: Option<Duration>,
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.unwrap_or(RECONNECT_MIN);
        self.next = Some((pause * 2).min(RECONNECT_MAX));
        Some(pause)
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn object(name: &str, version: &str, uid: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                resource_version: Some(version.into()),
                uid: Some(uid.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn watched(events: Vec<Event<ConfigMap>>) -> Watched<ConfigMap> {
        let mut watched = Watched {
            stream: futures::stream::empty().boxed(),
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            synced: false,
        };
        for event in events {
            watched.take(Ok(event));
        }
        watched
    }

    #[test]
    fn a_list_replaces_what_was_known() {
        let w = watched(vec![
            Event::Apply(object("a", "1", "u1")),
            Event::Init,
            Event::InitApply(object("b", "2", "u2")),
            Event::InitDone,
        ]);
        assert!(w.synced());
        assert_eq!(
            w.objects.keys().map(ToString::to_string).collect::<Vec<_>>(),
            ["ns/b"]
        );
    }

    #[test]
    fn an_older_event_does_not_undo_our_own_write() {
        let mut w = watched(vec![Event::Init, Event::InitDone]);
        w.written(object("a", "10", "u1"));
        assert!(!w.take(Ok(Event::Apply(object("a", "9", "u1")))));
        assert_eq!(
            w.get(&Key::new("ns", "a"))
                .unwrap()
                .meta()
                .resource_version
                .as_deref(),
            Some("10")
        );
        assert!(
            !w.take(Ok(Event::Apply(object("a", "10", "u1")))),
            "our own write coming back is no news"
        );
    }

    #[test]
    fn the_deletion_of_a_predecessor_leaves_its_successor() {
        let mut w = watched(vec![Event::Init, Event::InitDone]);
        w.written(object("a", "10", "new"));
        assert!(!w.take(Ok(Event::Delete(object("a", "9", "old")))));
        assert!(w.get(&Key::new("ns", "a")).is_some());
    }
}
