// SPDX-License-Identifier: Apache-2.0
//! Events about pools that are refused or run dry, and about nodes that do not get what they need.

use std::collections::BTreeSet;

use api::crd::{NODE_KIND, POOL_KIND};
use ipam::cluster::{ACCEPTED, EXHAUSTED, World};
use k8s::{Reporter, Severity};
use tracing::warn;

/// What has been told already; a new leader tells it once more.
#[derive(Debug, Default)]
pub(crate) struct News {
    told: BTreeSet<(String, String)>,
}

impl News {
    /// Tells what is new.
    pub(crate) async fn tell(&mut self, world: &World, reporter: &Reporter) {
        let mut still = BTreeSet::new();
        for pool in world.pools.values() {
            for (kind, bad, reason) in [
                (ACCEPTED, false, "PoolRefused"),
                (EXHAUSTED, true, "PoolExhausted"),
            ] {
                let condition = pool.condition(kind).filter(|one| one.ok == bad);
                if let Some(condition) = condition {
                    let about = (POOL_KIND, pool.name.as_str(), pool.uid.as_str());
                    // Counts in the message change all the time: the condition is what is told.
                    let key = (format!("pool {} {kind}", pool.uid), condition.since.clone());
                    self.once(&mut still, key, about, (reason, &condition.message), reporter)
                        .await;
                }
            }
        }
        for node in world.nodes.values() {
            for grant in node.grants.iter().filter(|grant| !grant.shortage.is_empty()) {
                let about = (NODE_KIND, node.node.as_str(), node.uid.as_str());
                let key = (format!("node {} {}", node.uid, grant.pool), String::new());
                self.once(
                    &mut still,
                    key,
                    about,
                    ("AddressShortage", &grant.shortage),
                    reporter,
                )
                .await;
            }
        }
        self.told = still;
    }

    async fn once(
        &self,
        still: &mut BTreeSet<(String, String)>,
        key: (String, String),
        about: (&str, &str, &str),
        (reason, message): (&str, &str),
        reporter: &Reporter,
    ) {
        if !self.told.contains(&key) {
            warn!(kind = about.0, name = about.1, reason, "{message}");
            reporter.report(about, Severity::Warning, reason, message).await;
        }
        still.insert(key);
    }
}
