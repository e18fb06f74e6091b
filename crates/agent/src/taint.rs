// SPDX-License-Identifier: Apache-2.0
//! The taint that keeps pods off a new node until its network is there.
//!
//! Who makes the node sets it: a node group, kubeadm, the kubelet's `--register-with-taints`. The agent takes it away whenever it
//! becomes ready, and never sets it: a node whose agent is away goes on working.

use std::time::Duration;

use ::api::NOT_READY_TAINT;
use k8s::Api;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::readiness::Readiness;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(300);

/// Takes the taint away each time the agent becomes ready. Runs until the agent ends.
pub(crate) async fn keep(api: Api, node: String, mut readiness: watch::Receiver<Readiness>) {
    let mut retry = RETRY_FIRST;
    loop {
        if readiness.wait_for(Readiness::is_ready).await.is_err() {
            return;
        }
        match k8s::remove_taint(&api.client, &node, NOT_READY_TAINT).await {
            Ok(removed) => {
                retry = RETRY_FIRST;
                if removed {
                    info!(taint = NOT_READY_TAINT, "taken away: pods may start on this node");
                }
                // A node that is deleted and made anew has the taint again, and its agent is not ready in between.
                if readiness.wait_for(|now| !now.is_ready()).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(
                    taint = NOT_READY_TAINT,
                    error = telemetry::log::with_causes(&error),
                    "not taken away, pods that do not tolerate it stay off this node; the agent needs get and patch of nodes"
                );
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MOST);
            }
        }
    }
}
