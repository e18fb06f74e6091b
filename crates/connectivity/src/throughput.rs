// SPDX-License-Identifier: Apache-2.0
//! Rates between pods: `connectivity perf`.

use model::Family;
use serde::Serialize;

use crate::bed::{Bed, TestPod};
use crate::cluster::ClusterError;
use crate::perf::{Kind, Report};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Kinds of work.
    pub kinds: Vec<Kind>,
    /// Connections at once.
    pub flows: usize,
    /// Seconds each.
    pub seconds: f64,
    /// The family.
    pub family: Family,
    /// Which paths.
    pub paths: Vec<PathKind>,
}

/// Between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Two pods of one node
    SameNode,
    /// Pods of two nodes
    OtherNode,
    /// A pod and its node
    OwnNode,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Between whom.
    pub path: PathKind,
    /// The client's pod and node.
    pub client: String,
    /// The server's pod and node.
    pub server: String,
    /// What was measured.
    #[serde(flatten)]
    pub report: Report,
}

/// Measures one after the other; `progress` hears what comes next. Paths that the cluster does not have are left out.
pub async fn measure(
    bed: &Bed,
    what: &Measure,
    mut progress: impl FnMut(PathKind, Kind),
) -> Result<Vec<Figure>, ClusterError> {
    let mut figures = Vec::new();
    for path in &what.paths {
        let Some((client, server)) = ends(bed, *path) else {
            continue;
        };
        let ip = server.ip(what.family).ok_or_else(|| {
            ClusterError(format!(
                "{} on {} has no {} address",
                server.name, server.node, what.family
            ))
        })?;
        for kind in &what.kinds {
            progress(*path, *kind);
            let report = one(bed, client, &ip.to_string(), *kind, what).await?;
            let place = |pod: &TestPod| format!("{} on {}", pod.name, pod.node);
            figures.push(Figure {
                path: *path,
                client: place(client),
                server: place(server),
                report,
            });
        }
    }
    Ok(figures)
}

fn ends(bed: &Bed, path: PathKind) -> Option<(&TestPod, &TestPod)> {
    let node = bed.nodes.first()?;
    Some(match path {
        PathKind::SameNode => (&node.first, &node.second),
        PathKind::OtherNode => (&node.first, &bed.nodes.get(1)?.second),
        PathKind::OwnNode => (&node.first, &node.host),
    })
}

async fn one(
    bed: &Bed,
    client: &TestPod,
    server: &str,
    kind: Kind,
    what: &Measure,
) -> Result<Report, ClusterError> {
    let (flows, seconds) = (what.flows.to_string(), what.seconds.to_string());
    let arguments = [
        "client",
        kind.argument(),
        server,
        "--flows",
        &flows,
        "--duration",
        &seconds,
    ];
    let output = bed.perf(client, &arguments).await?;
    if output.code != 0 {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(ClusterError(format!(
            "{} in {}: {}",
            kind.label(),
            client.name,
            complaint.trim()
        )));
    }
    serde_json::from_slice(&output.stdout).map_err(ClusterError::new)
}
