// SPDX-License-Identifier: Apache-2.0
//! Removes what nobody wants: what an earlier kubelet left, and attachments that only the plugins still know.

use std::sync::Arc;
use std::time::Duration;

use tracing::{Instrument as _, info, warn};

use super::cni::CachedAttachment;
use super::network::NetworkState;
use super::{Node, blocking, log_dirs, sandbox};
use crate::controllers::pause_after;
use crate::{PodRecord, cgroup};

/// How often plugins are told which attachments still exist.
const GC_INTERVAL: Duration = Duration::from_secs(600);

/// At start: no pod of an earlier kubelet is adopted. Its processes are killed, its attachments removed.
pub(super) async fn leftovers(node: &Arc<Node>) {
    if let Some(pods) = node.handle.cgroup.as_ref().map(|own| own.join("pods"))
        && let Err(error) = blocking(move || cgroup::destroy(&pods)).await
    {
        warn!(%error, "processes of earlier pods not removed");
    }
    for record in PodRecord::load_all(&node.handle.dir) {
        if let Err(error) = PodRecord::remove(&node.handle.dir, &record.namespace, &record.name) {
            warn!(%error, "record of an earlier pod not removed");
        }
    }
    // Absent is what is wanted, and a log too many does no harm.
    let _ = std::fs::remove_dir_all(log_dirs::all(&node.handle.dir));
    for cached in sandbox::attachments(node) {
        // The processes are gone, so the name leads nowhere: plugins know what to do without a namespace.
        sandbox::unname(node, &cached.attachment).await;
        let node = Arc::clone(node);
        tokio::spawn(detach(node, cached).in_current_span());
    }
}

/// Detaches what an earlier kubelet attached, until it succeeds.
async fn detach(node: Arc<Node>, cached: CachedAttachment) {
    let mut failures = 0;
    while !sandbox::detach_one(&node, &cached).await {
        failures += 1;
        tokio::time::sleep(pause_after(failures)).await;
    }
    info!(
        container = cached.attachment.container_id,
        "attachment of an earlier pod removed"
    );
}

/// Tells the plugins which attachments are left: when the network is ready for the first time, and then now and again.
pub(super) async fn collect(node: &Arc<Node>) {
    let mut network = node.network.clone();
    loop {
        let state = network
            .wait_for(NetworkState::is_ready)
            .await
            .map(|state| state.clone());
        let Ok(NetworkState::Ready(conflist)) = state else {
            return;
        };
        let alone = node.attaching.write().await;
        let valid: Vec<_> = sandbox::attachments(node)
            .into_iter()
            .map(|cached| cached.attachment)
            .collect();
        if let Err(error) = node.cni(&conflist).gc(&valid).await {
            warn!(%error, "plugins did not collect their garbage; trying again later");
        }
        drop(alone);
        tokio::time::sleep(GC_INTERVAL).await;
    }
}
