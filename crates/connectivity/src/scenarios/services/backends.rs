// SPDX-License-Identifier: Apache-2.0
//! Which backends are chosen, and what becomes of connections when one goes.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::super::tools::{ensure, perf};
use super::super::{Case, Problem, Verdict};
use super::tools::{ECHO, answered_by, answers, make, only, refused, selector};
use crate::bed::{Bed, TestPod};
use crate::objects::{Server, label};
use crate::perf::ask::{Lingered, Who};

/// How long a pod that is told to end goes on.
const GRACE: u32 = 30;
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn affinity(bed: &Bed, case: Case) -> Verdict {
    let more = json!({ "sessionAffinity": "ClientIP" });
    let made = make(bed, case, "affinity", selector("backend", "yes"), more).await?;
    let mut kept = Vec::new();
    for node in &bed.nodes {
        let client = case.client(node);
        let found = answers(bed, client, made.address(), 50, &[]).await?;
        let servers: Vec<_> = found.servers.into_keys().collect();
        ensure(servers.len() == 1, || {
            format!("{} was answered by {servers:?}", client.name)
        })?;
        kept.push(servers.concat());
    }
    Ok(format!("kept {}", kept.join(", ")))
}

pub(super) async fn internal_local(bed: &Bed, case: Case) -> Verdict {
    let Some((here, elsewhere)) = bed.nodes.split_first() else {
        return Err(Problem::Skipped("there is no node".into()));
    };
    let more = json!({ "internalTrafficPolicy": "Local" });
    let everywhere = make(bed, case, "local", selector("kind", "second"), more.clone()).await?;
    for node in &bed.nodes {
        let own = [node.second.name.as_str()];
        answered_by(bed, case.client(node), everywhere.address(), &own).await?;
    }
    let one = make(bed, case, "local-one", selector("pod", &here.second.name), more).await?;
    answered_by(bed, case.client(here), one.address(), &[&here.second.name]).await?;
    for node in elsewhere {
        refused(bed, case.client(node), one.address()).await?;
    }
    Ok(format!("unanswered on {} nodes", elsewhere.len()))
}

pub(super) async fn not_ready(bed: &Bed, case: Case) -> Verdict {
    let node = bed.nodes.last();
    let node = node.ok_or_else(|| Problem::Skipped("there is no node".into()))?;
    let name = format!("unready-{}", suffix(case));
    let chosen = selector("pod", &name);
    let (hidden, shown) = (json!({}), json!({ "publishNotReadyAddresses": true }));
    let hidden = make(bed, case, "unready", chosen.clone(), hidden).await?;
    let shown = make(bed, case, "published", chosen, shown).await?;
    let server = Server {
        ready: false,
        ..Server::new(&name, &node.name, &[("pod", &name)])
    };
    start(bed, &server).await?;
    for node in &bed.nodes {
        answered_by(bed, case.client(node), shown.address(), &[&name]).await?;
        refused(bed, case.client(node), hidden.address()).await?;
    }
    Ok(String::new())
}

pub(super) async fn terminating(bed: &Bed, case: Case) -> Verdict {
    let (Some(first), Some(last)) = (bed.nodes.first(), bed.nodes.last()) else {
        return Err(Problem::Skipped("there is no node".into()));
    };
    let [leaving, staying, group] =
        ["leaving", "staying", "group"].map(|word| format!("{word}-{}", suffix(case)));
    let made = make(bed, case, "terminating", selector("group", &group), json!({})).await?;
    let server = Server {
        grace: GRACE.into(),
        ..Server::new(&leaving, &last.name, &[("group", &group)])
    };
    let leaver = start(bed, &server).await?;
    let stayer = Server::new(&staying, &first.name, &[]);
    start(bed, &stayer).await?;
    let client = case.client(first);
    answered_by(bed, client, made.address(), &[&leaving]).await?;

    let hold = SocketAddr::new(made.ip, ECHO).to_string();
    let ask = made.address().to_string();
    let linger = ["linger", &hold, &ask, "--server", &staying];
    let (found, ()) = tokio::try_join!(
        perf::<Lingered>(bed, client, &linger),
        replace(bed, case, &leaver, &staying, &group)
    )?;
    ensure(found.broken.is_none(), || {
        format!(
            "after {} exchanges: {}",
            found.exchanges,
            found.broken.clone().unwrap_or_default()
        )
    })?;
    ensure(found.moved, || {
        format!("new connections stayed: {:?}", found.answers)
    })?;
    ensure(found.answers.unanswered() == 0, || {
        format!("new connections failed meanwhile: {:?}", found.answers)
    })?;
    only(client, made.address(), &found.answers, &[&leaving, &staying])?;
    Ok(format!("{} exchanges on the old connection", found.exchanges))
}

/// Once the leaver holds a connection, adds the other pod to the service and has the leaver end.
async fn replace(bed: &Bed, case: Case, leaver: &TestPod, staying: &str, group: &str) -> Result<(), Problem> {
    let ip = leaver
        .ip(case.family)
        .map(|ip| ip.to_string())
        .unwrap_or_default();
    let beside = bed.nodes.first().map_or(leaver, |node| &node.second);
    while perf::<Who>(bed, beside, &["whoami", &ip]).await?.held == 0 {
        tokio::time::sleep(POLL).await;
    }
    let pods = bed.api::<Pod>();
    let failed = |error: kube::Error| Problem::Failed(format!("cannot change a test pod: {error}"));
    let labels = Patch::Merge(json!({ "metadata": { "labels": { label("group"): group } } }));
    pods.patch(staying, &PatchParams::default(), &labels)
        .await
        .map_err(failed)?;
    let grace = DeleteParams::default().grace_period(GRACE);
    pods.delete(&leaver.name, &grace).await.map_err(failed)?;
    Ok(())
}

async fn start(bed: &Bed, server: &Server<'_>) -> Result<TestPod, Problem> {
    bed.start(server).await.map_err(|error| Problem::Failed(error.0))
}

fn suffix(case: Case) -> &'static str {
    match case.family {
        model::Family::Ipv4 => "ipv4",
        model::Family::Ipv6 => "ipv6",
    }
}
