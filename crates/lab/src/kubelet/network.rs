// SPDX-License-Identifier: Apache-2.0
//! Whether the node's network is ready: there is a CNI configuration, and its plugins say so themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Node;
use super::cni::{Conflist, Launch, Network};
use crate::Place;

/// How often the configuration directory is looked at while there is no network: pods wait for it. A look is one system
/// call, and inotify instances are few (128 for all labs and programs of the machine).
const LOOK_WHILE_WAITING: Duration = Duration::from_millis(20);
/// How often while there is one.
const LOOK: Duration = Duration::from_millis(250);
/// How often plugins are asked whether they still work.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause between questions to a plugin that says no.
const STATUS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The state of a node's network.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NetworkState {
    /// Pods cannot be attached; why.
    NotReady(String),
    /// Pods are attached by this network.
    Ready(Arc<Conflist>),
}

impl Default for NetworkState {
    fn default() -> Self {
        Self::NotReady("container runtime network not ready: the node has just started".into())
    }
}

impl NetworkState {
    /// Whether pods can be attached.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

impl Launch for Arc<Node> {
    fn launch(&self, command: Command) -> std::io::Result<Child> {
        let place = Place {
            cgroup: PathBuf::from("cni"),
            ..Place::default()
        };
        self.handle
            .spawn_in(command, &place)
            .map_err(std::io::Error::other)
    }

    fn has_file(&self, path: &Path) -> bool {
        self.handle.host_path(path).is_file()
    }
}

impl Node {
    /// The network of that configuration, on this node.
    pub(super) fn cni<'a>(self: &'a Arc<Self>, conflist: &'a Conflist) -> Network<'a, Arc<Self>> {
        Network {
            conflist,
            launcher: self,
            bin_dirs: &self.handle.cni_bin_dirs,
            cache_dir: &self.cni_cache,
        }
    }
}

/// Publishes the state of the network until dropped.
pub(super) async fn observe(node: &Arc<Node>, states: watch::Sender<NetworkState>) {
    let mut refusals = 0u32;
    let mut asked: Option<(tokio::time::Instant, Arc<Conflist>)> = None;
    loop {
        let pause = match conflist(node) {
            Err(why) => {
                asked = None;
                publish(&states, NetworkState::NotReady(why));
                LOOK_WHILE_WAITING
            }
            Ok(found) => {
                let fresh = |(at, known): &(tokio::time::Instant, Arc<Conflist>)| {
                    at.elapsed() < STATUS_INTERVAL && **known == found
                };
                if asked.as_ref().is_some_and(fresh) {
                    LOOK
                } else {
                    let found = Arc::new(found);
                    match node.cni(&found).status().await {
                        Ok(()) => {
                            refusals = 0;
                            asked = Some((tokio::time::Instant::now(), Arc::clone(&found)));
                            publish(&states, NetworkState::Ready(found));
                            LOOK
                        }
                        Err(error) => {
                            asked = None;
                            refusals += 1;
                            publish(&states, NetworkState::NotReady(error.to_string()));
                            LOOK_WHILE_WAITING.saturating_mul(refusals).min(STATUS_PAUSE_MAX)
                        }
                    }
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn conflist(node: &Node) -> Result<Conflist, String> {
    let directory = &node.handle.cni_conf_dir;
    let (first, invalid) = Conflist::first_in(directory).map_err(|error| error.to_string())?;
    let why = || match invalid.first() {
        Some(error) => error.to_string(),
        None => format!(
            "container runtime network not ready: no CNI configuration in {}",
            directory.display()
        ),
    };
    first.ok_or_else(why)
}

fn publish(states: &watch::Sender<NetworkState>, state: NetworkState) {
    states.send_if_modified(|known| {
        let changed = *known != state;
        if changed {
            report(known, &state);
            *known = state;
        }
        changed
    });
}

fn report(before: &NetworkState, now: &NetworkState) {
    match now {
        NetworkState::Ready(conflist) => info!(network = conflist.name, "network is ready"),
        NetworkState::NotReady(why) if before.is_ready() => warn!(why, "network is not ready any more"),
        NetworkState::NotReady(why) => debug!(why, "network is not ready yet"),
    }
}
