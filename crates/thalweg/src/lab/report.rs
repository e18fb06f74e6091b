// SPDX-License-Identifier: Apache-2.0
//! What `thalweg lab` shows of a lab.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::SystemTime;

use lab::state::{AgentState, Phase};
use lab::{Lab, NodeHandle, PodRecord, Summary};
use serde::Serialize;

use crate::cli::output::{self, Format, Text, bad, good, join};

/// A node, as `status` shows it.
#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    addresses: Vec<IpAddr>,
    agent_pid: Option<i32>,
    agent_restarts: u32,
    agent_ready: bool,
    pods: usize,
}

/// A lab, as `status` shows it.
#[derive(Debug, Serialize)]
struct StatusView<'a> {
    name: &'a str,
    phase: Phase,
    defects: Vec<String>,
    api: Option<&'a str>,
    kubeconfig: String,
    directory: String,
    nodes: Vec<NodeLine>,
    pods: Vec<PodRecord>,
}

/// `lab list`
pub(super) fn list(format: Format) -> anyhow::Result<ExitCode> {
    let labs = Lab::list();
    if matches!(format, Format::Json) {
        output::json(&labs)?;
        return Ok(ExitCode::SUCCESS);
    }
    if labs.is_empty() {
        return crate::print("No lab is running; start one with `thalweg lab up`.\n");
    }
    let mut table = output::table(&["NAME", "STATE", ">NODES", ">PODS", "AGE"]);
    for lab in &labs {
        let counts = [lab.nodes.to_string(), lab.pods.to_string()];
        let mut row = vec![lab.name.clone().into(), state(lab.phase, &lab.defects)];
        row.extend(counts.map(Into::into));
        row.push(age(lab).into());
        table.add_row(row);
    }
    crate::print(&Text::from(&table).0)
}

/// `lab status`; the exit code is 1 when something is wrong.
pub(super) fn status(lab: &Lab, format: Format) -> anyhow::Result<ExitCode> {
    let view = view(lab);
    match format {
        Format::Json => output::json(&view)?,
        Format::Text => output::print(&text(&view).0)?,
    }
    let well = view.defects.is_empty() && view.nodes.iter().all(|node| node.agent_ready);
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn view(lab: &Lab) -> StatusView<'_> {
    let pods = lab.pods();
    let state = lab.state();
    StatusView {
        name: lab.name(),
        phase: state.phase,
        defects: state.defects(lab.paths()),
        api: state.api_url.as_deref(),
        kubeconfig: lab.kubeconfig().display().to_string(),
        directory: lab.paths().dir.display().to_string(),
        nodes: lab
            .nodes()
            .iter()
            .map(|node| node_line(lab, node, &pods))
            .collect(),
        pods,
    }
}

fn node_line(lab: &Lab, node: &NodeHandle, pods: &[PodRecord]) -> NodeLine {
    let agent = AgentState::load(&node.dir);
    NodeLine {
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        agent_pid: agent
            .as_ref()
            .map(|agent| agent.process)
            .filter(lab::Process::is_alive)
            .map(|p| p.pid),
        agent_restarts: agent.map_or(0, |agent| agent.restarts),
        agent_ready: lab.agent_is_ready(node),
        pods: pods.iter().filter(|pod| pod.node == node.name).count(),
    }
}

fn text(view: &StatusView<'_>) -> Text {
    let mut text = Text::default();
    let phase = match (view.phase, view.defects.as_slice()) {
        (Phase::Starting, []) => "starting".to_owned(),
        (Phase::Ready, []) => "ready".to_owned(),
        (_, defects) => format!(
            "not whole: {}; `thalweg lab down --name {}` removes it",
            defects.join(", "),
            view.name
        ),
    };
    text.line(format!("Lab {}: {phase}", view.name));
    if let Some(api) = view.api {
        text.line(format!("API server {api}, kubeconfig {}", view.kubeconfig));
    }
    text.line(format!("Files {}, logs in log/", view.directory));
    text.section("Nodes", &nodes_table(&view.nodes));
    text.section("Pods", &pods_table(&view.pods));
    text
}

fn nodes_table(nodes: &[NodeLine]) -> comfy_table::Table {
    let mut table = output::table(&["NODE", "ADDRESSES", "AGENT", ">RESTARTS", ">PODS"]);
    for node in nodes {
        let agent = match (node.agent_pid, node.agent_ready) {
            (Some(pid), true) => good(format!("ready, pid {pid}")),
            (Some(pid), false) => bad(format!("not ready, pid {pid}")),
            (None, _) => bad("not running"),
        };
        let mut row = vec![node.name.clone().into(), join(&node.addresses).into(), agent];
        row.extend([node.agent_restarts.to_string(), node.pods.to_string()].map(Into::into));
        table.add_row(row);
    }
    table
}

fn pods_table(pods: &[PodRecord]) -> comfy_table::Table {
    let mut table = output::table(&["POD", "NODE", "ADDRESSES", "STATE"]);
    for pod in pods {
        let name = if pod.namespace == "default" {
            pod.name.clone()
        } else {
            format!("{}/{}", pod.namespace, pod.name)
        };
        let state = if pod.ready {
            good("ready")
        } else {
            bad("not ready")
        };
        table.add_row(vec![
            name.into(),
            pod.node.clone().into(),
            join(&pod.ips).into(),
            state,
        ]);
    }
    table
}

fn state(phase: Option<Phase>, defects: &[String]) -> comfy_table::Cell {
    match (phase, defects) {
        (_, [_, ..]) => bad(defects.join(", ")),
        (Some(Phase::Ready), []) => good("ready"),
        (Some(Phase::Starting) | None, []) => "starting".into(),
    }
}

fn age(lab: &Summary) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    lab.created.map_or_else(
        || "-".to_owned(),
        |created| output::duration(now.saturating_sub(created)),
    )
}

/// What `up` says at its end.
pub(super) fn welcome(lab: &Lab) -> String {
    let view = view(lab);
    let name = lab.name();
    let prefix = if Lab::list().len() == 1 {
        String::new()
    } else {
        format!("{name}/")
    };
    let mut text = Text::default();
    text.line(format!("Lab {name} is up."));
    text.section("Nodes", &nodes_table(&view.nodes));
    text.section("Pods", &pods_table(&view.pods));
    text.line("\nTry:");
    if let (Some(from), Some(to)) = (view.pods.first(), view.pods.last())
        && let Some(ip) = to.ips.first()
    {
        text.line(format!(
            "  thalweg lab exec {prefix}{} -- ping -c 3 {ip}",
            from.name
        ));
    }
    text.line(format!(
        "  export KUBECONFIG={}; kubectl get pods -o wide",
        view.kubeconfig
    ));
    text.line(format!("  thalweg status --lab {name}"));
    text.line(format!("  thalweg lab down --name {name}"));
    text.0
}
