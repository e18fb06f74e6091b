// SPDX-License-Identifier: Apache-2.0
//! Whether pods can be started on this node, and if not, what is missing and what to do.

use std::path::Path;
use std::time::Duration;

use api::agent::Condition;
use api::config::{Config, IpamMode};
use k8s::WatchStatus;
use model::Node;
use routing::Way;
use state::{Snapshot, Status};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::apply::View;
use crate::conflist::{Conflist, FILE};
use crate::observe::Observed;
use crate::plugin::Plugin;

/// How often the container runtime's directories are looked at: others write there too.
const RUNTIME_CHECK: Duration = Duration::from_secs(10);

/// Whether pods can be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What it depends on.
    pub conditions: Vec<Condition>,
    /// How long it took until all conditions were fulfilled for the first time.
    pub after: Option<Duration>,
}

impl Readiness {
    /// Whether all conditions are fulfilled.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.conditions.is_empty() && self.conditions.iter().all(|condition| condition.ok)
    }
}

/// What the conditions are computed from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The address of the Kubernetes API.
    pub api_server: &'a str,
    /// How the watches are doing.
    pub watches: &'a [WatchStatus],
    /// The cluster's nodes.
    pub nodes: &'a Snapshot<Node>,
    /// What the apply thread publishes.
    pub view: &'a View,
}

/// What must be the case before the container runtime is told about us.
#[must_use]
pub fn conditions(facts: &Facts<'_>) -> Vec<Condition> {
    vec![kubernetes(facts), node(facts), host(facts.view), routes(facts)]
}

fn fulfilled(name: &str, message: String) -> Condition {
    Condition {
        name: name.to_owned(),
        ok: true,
        message,
    }
}

fn missing(name: &str, message: String) -> Condition {
    Condition {
        name: name.to_owned(),
        ok: false,
        message,
    }
}

/// Once in sync, an API that is away does not take readiness away: everything on this node goes on working.
fn kubernetes(facts: &Facts<'_>) -> Condition {
    const NAME: &str = "kubernetes";
    let server = facts.api_server;
    let waiting = facts.watches.iter().find(|watch| !watch.in_sync);
    let down = facts.watches.iter().find(|watch| !watch.connected);
    let error = |watch: &WatchStatus| match &watch.last_error {
        Some((_, error)) => format!("{}: {error}", watch.resource),
        None => format!("{}: no answer yet", watch.resource),
    };
    match (waiting, down) {
        (Some(watch), _) => missing(
            NAME,
            format!(
                "waiting for {server} ({}); see the setting kubeconfig",
                error(watch)
            ),
        ),
        (None, Some(watch)) => fulfilled(
            NAME,
            format!("in sync, but {server} does not answer now ({})", error(watch)),
        ),
        (None, None) => fulfilled(NAME, format!("in sync with {server}")),
    }
}

fn node(facts: &Facts<'_>) -> Condition {
    const NAME: &str = "node";
    let name = &facts.config.node_name;
    match facts.nodes.get(name) {
        Some(node) if node.pod_cidrs.is_empty() && facts.config.ipam_mode == IpamMode::ClusterPool => {
            missing(
                NAME,
                format!(
                    "the operator has not handed node {name} any addresses yet; see `thalweg ipam status`, and whether the \
                 operator runs"
                ),
            )
        }
        Some(node) if node.pod_cidrs.is_empty() => missing(
            NAME,
            format!(
                "node {name} has no spec.podCIDRs; have kube-controller-manager set it \
                 (--allocate-node-cidrs=true --cluster-cidr=…)"
            ),
        ),
        Some(node) => {
            let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
            fulfilled(
                NAME,
                format!("pods of {name} get addresses of {}", cidrs.join(", ")),
            )
        }
        None if !facts.nodes.in_sync() => missing(NAME, "the cluster's nodes are not known yet".to_owned()),
        None => missing(
            NAME,
            format!(
                "there is no node {name} in Kubernetes; correct nodeName (from {}) or start its kubelet",
                facts.config.source("nodeName")
            ),
        ),
    }
}

fn host(view: &View) -> Condition {
    const NAME: &str = "host";
    match view.problems.as_slice() {
        [] if view.devices.is_empty() => missing(
            NAME,
            "no device leads to other nodes; name them in the setting devices".to_owned(),
        ),
        [] => fulfilled(
            NAME,
            format!("programs are attached to {}", view.devices.join(", ")),
        ),
        problems => missing(NAME, problems.join("; ")),
    }
}

/// Only the way to this node's own pods decides; another node's trouble is shown with that node.
fn routes(facts: &Facts<'_>) -> Condition {
    const NAME: &str = "routes";
    let (own, others): (Vec<_>, Vec<_>) = facts
        .view
        .routes
        .iter()
        .partition(|route| route.row.node == facts.config.node_name);
    let failed = own.iter().find_map(|route| match &route.status {
        Status::Error(reason) => Some(format!("{}: {reason}", route.row.destination)),
        Status::Pending | Status::Done => None,
    });
    if let Some(reason) = failed {
        return missing(NAME, reason);
    }
    let wanted = facts
        .nodes
        .get(&facts.config.node_name)
        .map_or(0, |node| node.pod_cidrs.len());
    let done = own
        .iter()
        .filter(|route| route.status == Status::Done && matches!(route.row.way, Way::Local { .. }));
    if wanted == 0 || done.count() < wanted {
        return missing(
            NAME,
            "the routes to this node's pods are not in force yet".to_owned(),
        );
    }
    match others
        .iter()
        .filter(|route| matches!(route.status, Status::Error(_)))
        .count()
    {
        0 => fulfilled(NAME, format!("{} in force", facts.view.routes.len())),
        errors => fulfilled(
            NAME,
            format!(
                "{errors} of {} failed; see `thalweg node list`",
                facts.view.routes.len()
            ),
        ),
    }
}

/// The container runtime's side.
#[derive(Debug)]
pub struct Runtime {
    /// What tells the runtime about us.
    pub conflist: Conflist,
    /// What the runtime runs.
    pub plugin: Plugin,
}

/// Tells the container runtime about us once everything else is in place, and says so. Runs until it is dropped.
pub async fn keep(observed: &Observed, mut runtime: Runtime, readiness: watch::Sender<Readiness>) {
    let mut view = observed.view.clone();
    let mut nodes = observed.nodes.reader();
    let mut watches = observed.watches.clone();
    let mut check = tokio::time::interval(RUNTIME_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    check.tick().await;
    let (mut looked, mut files) = (None, Vec::new());
    loop {
        let mut current = assess(observed);
        let ready = current.iter().all(|condition| condition.ok);
        // Not at each change of anything: files are read, and those of a runtime change rarely.
        if looked != Some(ready) {
            (runtime, files) = look(runtime, ready, &observed.config).await;
            looked = Some(ready);
        }
        current.extend(files.iter().cloned());
        publish(&readiness, current, observed);
        let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = nodes.changed() => if changed.is_none() { return },
            _ = futures::future::select_all(changes) => {}
            _ = check.tick() => looked = None,
        }
    }
}

fn assess(observed: &Observed) -> Vec<Condition> {
    let watches: Vec<WatchStatus> = observed
        .watches
        .iter()
        .map(|watch| watch.borrow().clone())
        .collect();
    conditions(&Facts {
        config: &observed.config,
        api_server: &observed.api_server,
        watches: &watches,
        nodes: &observed.nodes.snapshot(),
        view: &observed.view.borrow(),
    })
}

/// Looks at the runtime's files and puts ours right, where that may block.
async fn look(runtime: Runtime, ready: bool, config: &Config) -> (Runtime, Vec<Condition>) {
    let dir = config.cni.conf_dir.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut runtime = runtime;
        let plugin = plugin(&mut runtime.plugin);
        let conflist = conflist(&runtime.conflist, ready && plugin.ok, &dir);
        (runtime, vec![plugin, conflist])
    });
    match looked.await {
        Ok(looked) => looked,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn plugin(plugin: &mut Plugin) -> Condition {
    const NAME: &str = "plugin";
    match plugin.check() {
        Ok(message) => fulfilled(NAME, message),
        Err(message) => missing(NAME, message),
    }
}

/// The file is written when all the rest is in place and stays from then on: a pod that cannot be attached fails with a reason,
/// where another network would be given silently without the file.
fn conflist(conflist: &Conflist, ready: bool, dir: &Path) -> Condition {
    const NAME: &str = "cni";
    let dir = dir.display();
    if ready && let Err(error) = conflist.write() {
        return missing(NAME, error.to_string());
    }
    match conflist.rivals() {
        Err(error) => missing(NAME, error.to_string()),
        Ok(rivals) if !rivals.is_empty() => missing(
            NAME,
            format!(
                "the container runtime prefers {} over our {FILE} in {dir}: pods get another network; remove that file",
                rivals.join(", ")
            ),
        ),
        Ok(_) if conflist.is_current() => fulfilled(NAME, format!("{FILE} is in {dir}")),
        Ok(_) => missing(
            NAME,
            format!("{FILE} is written to {dir} when all else is in place"),
        ),
    }
}

fn publish(readiness: &watch::Sender<Readiness>, conditions: Vec<Condition>, observed: &Observed) {
    readiness.send_if_modified(|readiness| {
        if readiness.conditions == conditions {
            return false;
        }
        let before = readiness.is_ready();
        readiness.conditions = conditions;
        let now = readiness.is_ready();
        if now && readiness.after.is_none() {
            readiness.after = Some(observed.started.elapsed());
        }
        match (before, now) {
            (false, true) => info!(after = ?readiness.after.unwrap_or_default(), "ready"),
            (true, false) => warn!(reason = first_missing(readiness), "no longer ready"),
            (true, true) | (false, false) => {}
        }
        true
    });
}

/// The first thing that is missing, for a log line.
#[must_use]
pub fn first_missing(readiness: &Readiness) -> String {
    let missing = readiness.conditions.iter().find(|condition| !condition.ok);
    missing
        .map(|condition| format!("{}: {}", condition.name, condition.message))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
