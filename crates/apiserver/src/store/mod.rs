// SPDX-License-Identifier: Apache-2.0
//! All objects, in memory, with one revision counter.
//!
//! A write takes the lock for as long as it computes one object; a read takes it to clone a persistent map's root. Objects
//! are kept as the bytes that go to clients, with just what selectors need beside them, so a list or an event is a copy of
//! bytes and nothing is parsed twice.

mod object;
mod subscribe;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use imbl::OrdMap;
use parking_lot::{RwLock, RwLockWriteGuard};
use serde_json::Value;

pub(crate) use object::{Key, Object};
use subscribe::Event;
pub(crate) use subscribe::{Delivery, EventKind, Scope, Start, SubscribeError, Subscription, render_line};

use crate::admission::alloc::Allocator;
use crate::resources::Resource;
use subscribe::Watcher;

/// The store.
pub(crate) struct Store {
    inner: RwLock<Inner>,
    limits: Limits,
}

/// What bounds the memory of watches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) history: usize,
    pub(crate) queue: usize,
}

struct Inner {
    revision: u64,
    tables: BTreeMap<Arc<str>, Table>,
    allocator: Allocator,
    /// Where the object with this uid is.
    uids: BTreeMap<Box<str>, (Arc<str>, Key)>,
    /// By an owner's uid, the objects that refer to it.
    dependents: BTreeMap<Box<str>, BTreeSet<(Arc<str>, Key)>>,
}

#[derive(Default)]
struct Table {
    objects: OrdMap<Key, Arc<Object>>,
    history: VecDeque<Arc<Event>>,
    /// The revision of the youngest event that `history` has lost.
    compacted: u64,
    watchers: Vec<Watcher>,
}

/// The objects of one resource at one revision.
pub(crate) struct Snapshot {
    pub(crate) objects: OrdMap<Key, Arc<Object>>,
    pub(crate) revision: u64,
}

impl Store {
    pub(crate) fn new(limits: Limits, allocator: Allocator) -> Self {
        // Revision 0 means "any" to clients, so the empty store is at 1.
        let (tables, uids, dependents) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            inner: RwLock::new(Inner {
                revision: 1,
                tables,
                allocator,
                uids,
                dependents,
            }),
            limits,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.inner.read().revision
    }

    pub(crate) fn get(&self, storage: &str, key: &Key) -> Option<Arc<Object>> {
        self.inner.read().tables.get(storage)?.objects.get(key).cloned()
    }

    pub(crate) fn snapshot(&self, storage: &str) -> Snapshot {
        let inner = self.inner.read();
        let objects = inner
            .tables
            .get(storage)
            .map(|t| t.objects.clone())
            .unwrap_or_default();
        Snapshot {
            objects,
            revision: inner.revision,
        }
    }

    /// The oldest revision from which this resource can be watched.
    pub(crate) fn compacted(&self, storage: &str) -> u64 {
        self.inner.read().tables.get(storage).map_or(0, |t| t.compacted)
    }

    /// Starts a write. A dry one computes everything and keeps nothing.
    pub(crate) fn write(&self, dry: bool) -> Txn<'_> {
        Txn {
            inner: self.inner.write(),
            limits: self.limits,
            dry,
        }
    }

    pub(crate) fn subscribe(
        &self,
        storage: &Arc<str>,
        start: Start,
        scope: Scope,
    ) -> Result<Subscription, SubscribeError> {
        self.inner.write().subscribe(storage, start, scope, self.limits)
    }
}

/// A write: the lock, held.
pub(crate) struct Txn<'a> {
    inner: RwLockWriteGuard<'a, Inner>,
    limits: Limits,
    dry: bool,
}

impl Txn<'_> {
    pub(crate) fn dry(&self) -> bool {
        self.dry
    }

    pub(crate) fn get(&self, storage: &str, key: &Key) -> Option<Arc<Object>> {
        self.inner.tables.get(storage)?.objects.get(key).cloned()
    }

    pub(crate) fn objects(&self, storage: &str) -> OrdMap<Key, Arc<Object>> {
        self.inner
            .tables
            .get(storage)
            .map(|t| t.objects.clone())
            .unwrap_or_default()
    }

    pub(crate) fn allocator(&mut self) -> &mut Allocator {
        &mut self.inner.allocator
    }

    /// Whether there is an object with this uid.
    pub(crate) fn uid_exists(&self, uid: &str) -> bool {
        self.inner.uids.contains_key(uid)
    }

    /// Where the object with this uid is.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<(Arc<str>, Key)> {
        self.inner.uids.get(uid).cloned()
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Arc<str>, Key)> {
        self.inner
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Creates or replaces an object, under the next revision.
    pub(crate) fn put(&mut self, resource: &Resource, mut value: Value) -> Arc<Object> {
        let revision = self.inner.revision + 1;
        if self.dry {
            return Arc::new(Object::new(resource, &value, revision));
        }
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = Arc::new(Object::new(resource, &value, revision));
        if &*resource.storage == "services" {
            self.inner.allocator.claim(&object.key, &value);
        }
        let table = self.inner.tables.entry(resource.storage.clone()).or_default();
        let previous = table.objects.insert(object.key.clone(), object.clone());
        self.inner
            .index(&resource.storage, previous.as_deref(), Some(&object));
        let table = self.inner.tables.entry(resource.storage.clone()).or_default();
        let kind = if previous.is_some() {
            EventKind::Modified
        } else {
            EventKind::Added
        };
        table.publish(Event::new(kind, object.clone(), previous), self.limits);
        self.inner.revision = revision;
        object
    }

    /// Removes an object; `value` is its last state.
    pub(crate) fn remove(&mut self, resource: &Resource, mut value: Value) -> Arc<Object> {
        let revision = self.inner.revision + 1;
        if self.dry {
            return Arc::new(Object::new(resource, &value, revision));
        }
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let last = Arc::new(Object::new(resource, &value, revision));
        if &*resource.storage == "services" {
            self.inner.allocator.release(&last.key);
        }
        let table = self.inner.tables.entry(resource.storage.clone()).or_default();
        if let Some(previous) = table.objects.remove(&last.key) {
            self.inner.index(&resource.storage, Some(&previous), None);
            let table = self.inner.tables.entry(resource.storage.clone()).or_default();
            table.publish(
                Event::new(EventKind::Deleted, last.clone(), Some(previous)),
                self.limits,
            );
            self.inner.revision = revision;
        }
        last
    }
}

impl Inner {
    /// Follows an object's uid and owners.
    fn index(&mut self, storage: &Arc<str>, before: Option<&Object>, after: Option<&Object>) {
        if let Some(before) = before {
            self.uids.remove(&before.uid);
            for owner in &before.owners {
                if let Some(dependents) = self.dependents.get_mut(owner) {
                    dependents.remove(&(storage.clone(), before.key.clone()));
                    if dependents.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
        }
        if let Some(after) = after {
            self.uids
                .insert(after.uid.clone(), (storage.clone(), after.key.clone()));
            for owner in &after.owners {
                let dependents = self.dependents.entry(owner.clone()).or_default();
                dependents.insert((storage.clone(), after.key.clone()));
            }
        }
    }
}

impl Table {
    fn publish(&mut self, event: Event, limits: Limits) {
        let event = Arc::new(event);
        self.watchers.retain(|watcher| watcher.offer(&event));
        self.history.push_back(event);
        if self.history.len() > limits.history
            && let Some(lost) = self.history.pop_front()
        {
            self.compacted = lost.revision();
        }
    }
}
