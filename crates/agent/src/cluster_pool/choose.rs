// SPDX-License-Identifier: Apache-2.0
//! Which pool a pod's addresses come from, and patience where the node has none of it yet.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::codes;
use cni::protocol::{Call, Reply};
use model::{DEFAULT_POOL, Namespace, NodePools, Pod};
use parking_lot::Mutex;
use state::{PodKey, Table};
use tokio::sync::Notify;
use tracing::{debug, info};

use crate::apply::Client;

/// The runtime often knows of a pod before our watch does: how long it may take.
const POD_LIMIT: Duration = Duration::from_secs(2);
/// How long an ADD waits for addresses that the operator has not refused.
const GROWTH_LIMIT: Duration = Duration::from_secs(10);
/// How long it waits where the operator has said that there are none: what it says may be old news.
const SHORTAGE_LIMIT: Duration = Duration::from_secs(2);
/// A look at the pool after this time even if nothing has changed: addresses also come back.
const LOOK: Duration = Duration::from_millis(500);

/// ADDs that wait for an address, by pool.
#[derive(Debug, Default)]
pub struct Waiting {
    counts: Mutex<BTreeMap<String, u64>>,
    /// Woken when somebody begins to wait.
    pub(super) changed: Notify,
}

impl Waiting {
    /// How many wait, by pool.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    fn begin(self: &Arc<Self>, pool: &str) -> Waiter {
        *self.counts.lock().entry(pool.to_owned()).or_default() += 1;
        self.changed.notify_one();
        Waiter {
            all: self.clone(),
            pool: pool.to_owned(),
        }
    }
}

struct Waiter {
    all: Arc<Waiting>,
    pool: String,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut counts = self.all.counts.lock();
        if let Some(count) = counts.get_mut(&self.pool) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.pool);
            }
        }
    }
}

/// Finds a pod's pool and waits for its addresses.
#[derive(Debug)]
pub struct Chooser {
    pub(super) own: String,
    pub(super) pods: Table<Pod>,
    pub(super) namespaces: Table<Namespace>,
    pub(super) granted: Table<NodePools>,
    pub(super) waiting: Arc<Waiting>,
}

impl Chooser {
    /// Runs a call of the plugin; for threads that may block.
    #[must_use]
    pub fn call(&self, client: &Client, call: Call, netns: Option<OwnedFd>) -> Reply {
        let Call::Add { pod, .. } = &call else {
            return client.call(call, netns);
        };
        let pool = self.pool(&pod.namespace, &pod.name, &pod.uid);
        client.counted(&call, || self.add(client, &call, netns.as_ref(), &pool))
    }

    fn add(&self, client: &Client, call: &Call, netns: Option<&OwnedFd>, pool: &str) -> Reply {
        let begin = Instant::now();
        let mut seen = self.granted.snapshot().revision();
        let mut waiter = None;
        loop {
            let descriptor = netns.and_then(|netns| netns.try_clone().ok());
            let reply = client.attempt(call.clone(), descriptor, Some(pool.to_owned()));
            let Reply::Failed(error) = &reply else {
                return reply;
            };
            if !matches!(error.code, codes::POOL_EXHAUSTED | codes::TRY_AGAIN_LATER) {
                return reply;
            }
            let shortage = self.shortage(pool);
            let limit = match shortage {
                None => GROWTH_LIMIT,
                Some(_) => SHORTAGE_LIMIT,
            };
            if begin.elapsed() >= limit {
                return Reply::Failed(explained(error.clone(), shortage));
            }
            if waiter.is_none() {
                info!(pool, reason = %error, "an ADD waits for addresses");
                waiter = Some(self.waiting.begin(pool));
            }
            seen = self.granted.wait_newer(seen, LOOK);
        }
    }

    /// What the operator says about why this node gets no more of a pool.
    fn shortage(&self, pool: &str) -> Option<String> {
        let granted = self.granted.snapshot();
        let shortage = granted.get(&self.own)?.grant(pool)?.shortage.clone();
        (!shortage.is_empty()).then_some(shortage)
    }

    /// The pod's own annotation, else its namespace's, else the default pool. A pod that the API does not know, or cannot tell us of,
    /// gets its namespace's.
    fn pool(&self, namespace: &str, name: &str, uid: &str) -> String {
        let key = PodKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let begin = Instant::now();
        let pod = loop {
            let pods = self.pods.snapshot();
            let found = pods.get(&key).cloned();
            let found = found.filter(|pod| uid.is_empty() || pod.pod.uid == uid);
            let left = POD_LIMIT.saturating_sub(begin.elapsed());
            if found.is_some() || name.is_empty() || left.is_zero() {
                break found;
            }
            let _ = self.pods.wait_newer(pods.revision(), left);
        };
        if pod.is_none() {
            debug!(
                namespace,
                name, "the API has not told us of the pod: its namespace's pool counts"
            );
        }
        let of_namespace = || {
            let namespaces = self.namespaces.snapshot();
            namespaces.get(&key.namespace).and_then(|one| one.pool.clone())
        };
        let pool = pod.and_then(|pod| pod.pool).or_else(of_namespace);
        pool.unwrap_or_else(|| DEFAULT_POOL.to_owned())
    }
}

fn explained(error: cni::Error, shortage: Option<String>) -> cni::Error {
    match shortage {
        Some(shortage) => cni::Error::new(
            codes::POOL_EXHAUSTED,
            error.msg,
            format!("the operator says: {shortage}"),
        ),
        None => cni::Error::new(
            error.code,
            error.msg,
            "the operator has not answered yet; see whether it runs, and `thalweg ipam status`",
        ),
    }
}
