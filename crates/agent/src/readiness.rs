// SPDX-License-Identifier: Apache-2.0
//! Whether pods can be started on this node, and if not, what is missing and what to do.

use std::path::Path;
use std::time::{Duration, SystemTime};

use api::agent::Condition;
use api::config::{Config, IpamMode};
use k8s::WatchStatus;
use model::Node;
use routing::Way;
use state::{Snapshot, Status};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

use crate::apply::{ServicesView, View};
use crate::cni_server::SocketFile;
use crate::conflist::{Conflist, ConflistError, FILE, Others};
use crate::observe::Observed;
use crate::plugin::Plugin;

/// How often the container runtime's directories are looked at: others write there too.
const RUNTIME_CHECK: Duration = Duration::from_secs(10);
/// How often it is asked whether anything was made, renamed or removed among the configurations: that is one system call. Instances
/// of inotify are few (128 for all programs of a machine), and who has none left would have to ask all the same.
const GLANCE: Duration = Duration::from_secs(1);

/// Whether pods can be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What it depends on.
    pub conditions: Vec<Condition>,
    /// How long it took until all conditions were fulfilled for the first time.
    pub after: Option<Duration>,
    /// Other networks' configurations on this node.
    pub others: Others,
    /// How many of them have been set aside since the agent's start, each as often as it came again.
    pub set_aside: u64,
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
    let mut all = vec![kubernetes(facts), node(facts), host(facts.view), routes(facts)];
    all.extend(facts.view.services.as_ref().map(services));
    all
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
        Some(_) if let Some(behind) = &facts.config.cni.behind => fulfilled(
            NAME,
            format!("pods of {name} get addresses of the network {behind}"),
        ),
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

/// Without services a new pod finds no name. One that is in trouble is shown, and does not keep pods from the others.
fn services(view: &ServicesView) -> Condition {
    const NAME: &str = "services";
    let totals = view.totals;
    match view.in_sync {
        true if totals.failed > 0 => fulfilled(
            NAME,
            format!(
                "{} are served; {} are not wholly in force: {}",
                totals.owners,
                totals.failed,
                view.problems.join("; ")
            ),
        ),
        true => fulfilled(NAME, format!("{} are served", totals.owners)),
        false => missing(
            NAME,
            "they are not in force yet: waiting for services, endpoint slices and nodes of the API"
                .to_owned(),
        ),
    }
}

/// Only the way to this node's own pods decides; another node's trouble is shown with that node.
fn routes(facts: &Facts<'_>) -> Condition {
    const NAME: &str = "routes";
    if let Some(behind) = &facts.config.cni.behind {
        return fulfilled(NAME, format!("they are those of the network {behind}"));
    }
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
    /// Whether other networks' configurations are set aside.
    pub exclusive: bool,
    /// How the plugin reaches us.
    pub socket: SocketFile,
    /// Whether a device's ingress queue is free for others, since our programs are attached by tcx.
    pub tcx: bool,
}

/// What a look at the runtime's side showed.
#[derive(Debug, Default)]
struct Files {
    conditions: Vec<Condition>,
    others: Others,
    set_aside: u64,
}

/// Tells the container runtime about us once everything else is in place, and says so. Runs until it is dropped.
pub async fn keep(observed: &Observed, mut runtime: Runtime, readiness: watch::Sender<Readiness>) {
    let mut view = observed.view.clone();
    let mut nodes = observed.nodes.reader();
    let mut watches = observed.watches.clone();
    let mut check = tokio::time::interval(RUNTIME_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    check.tick().await;
    let mut glance = tokio::time::interval(GLANCE);
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut seen, mut files) = (None, None, Files::default());
    loop {
        let mut current = assess(observed);
        let ready = current.iter().all(|condition| condition.ok);
        // Not at each change of anything: files are read, and those of a runtime change rarely.
        if looked != Some(ready) {
            seen = modified(runtime.conflist.dir());
            let set_aside = files.set_aside;
            (runtime, files) = look(runtime, ready).await;
            files.set_aside += set_aside;
            looked = Some(ready);
        }
        current.extend(files.conditions.iter().cloned());
        publish(&readiness, current, &files, observed);
        let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = nodes.changed() => if changed.is_none() { return },
            _ = futures::future::select_all(changes) => {}
            () = differs(runtime.conflist.dir(), seen, &mut glance) => looked = None,
            _ = check.tick() => looked = None,
        }
    }
}

/// When a file of the directory was last made, renamed or removed.
fn modified(dir: &Path) -> Option<SystemTime> {
    std::fs::metadata(dir).and_then(|found| found.modified()).ok()
}

/// Returns when it is no longer `seen`.
async fn differs(dir: &Path, seen: Option<SystemTime>, glance: &mut Interval) {
    loop {
        glance.tick().await;
        if modified(dir) != seen {
            return;
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
async fn look(runtime: Runtime, ready: bool) -> (Runtime, Files) {
    let looked = tokio::task::spawn_blocking(move || {
        let mut runtime = runtime;
        let plugin = plugin(&mut runtime.plugin);
        let mut files = Files::default();
        let conflist = runtime.conflist(ready && plugin.ok, &mut files);
        files.conditions = vec![plugin, conflist];
        (runtime, files)
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

impl Runtime {
    /// The file is written when all the rest is in place and stays from then on: a pod that cannot be attached fails with a reason,
    /// where another network would be given silently without the file.
    fn conflist(&self, ready: bool, files: &mut Files) -> Condition {
        const NAME: &str = "cni";
        let dir = self.conflist.dir().display();
        if !self.socket.is_there() {
            let path = self.socket.path().display();
            return missing(
                NAME,
                format!(
                    "somebody removed {path} (cni.socket), by which the plugin reaches this agent: restart it"
                ),
            );
        }
        if ready {
            match self.conflist.write() {
                Ok(true) if let Some(refused) = self.refused() => warn!("{refused}"),
                Ok(_) => {}
                Err(error) => return missing(NAME, error.to_string()),
            }
        }
        if let Err(error) = self.order(files) {
            return missing(NAME, error.to_string());
        }
        let rivals = files.others.rivals();
        if !rivals.is_empty() {
            let remedy = if self.conflist.is_behind() {
                "give that file a name that sorts after ours"
            } else {
                "remove that file, or set cni.exclusive"
            };
            return missing(
                NAME,
                format!(
                    "the container runtime prefers {} over our {FILE} in {dir}: pods get another network; {remedy}",
                    rivals.join(", ")
                ),
            );
        }
        if !self.conflist.is_current() {
            return missing(
                NAME,
                format!("{FILE} is written to {dir} when all else is in place"),
            );
        }
        let aside = match files.others.aside.as_slice() {
            [] => String::new(),
            aside => format!("; set aside: {}", aside.join(", ")),
        };
        let refused = self.refused().map(|what| format!("; {what}")).unwrap_or_default();
        fulfilled(NAME, format!("{FILE} is in {dir}{aside}{refused}"))
    }

    /// What plugins around us would do with pods, and cannot on this kernel.
    fn refused(&self) -> Option<&'static str> {
        let refused = !self.tcx && self.conflist.runs("bandwidth");
        refused.then_some(
            "pods whose egress `bandwidth` limits are refused, since the kernel has no tcx (Linux 6.6)",
        )
    }

    /// Sets others' files aside or gives them back. Not before ours is there: a node without any network takes no pods.
    fn order(&self, files: &mut Files) -> Result<(), ConflistError> {
        let dir = self.conflist.dir();
        files.others = Others::find(dir)?;
        if !self.exclusive {
            if !files.others.aside.is_empty() {
                let back = files.others.put_back(dir)?;
                info!(files = ?back, kept = ?files.others.aside, "network configurations that were set aside are put back");
            }
            return Ok(());
        }
        if self.conflist.is_current() {
            let done = files.others.set_aside(dir)?;
            files.set_aside = u64::try_from(done.len()).unwrap_or(u64::MAX);
            if !done.is_empty() {
                warn!(files = ?done, "other networks' configurations are set aside (cni.exclusive)");
            }
        }
        Ok(())
    }
}

fn publish(
    readiness: &watch::Sender<Readiness>,
    conditions: Vec<Condition>,
    files: &Files,
    observed: &Observed,
) {
    readiness.send_if_modified(|readiness| {
        (readiness.others, readiness.set_aside) = (files.others.clone(), files.set_aside);
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
