// SPDX-License-Identifier: Apache-2.0
//! `thalweg service`

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::bail;
use api::agent::{BackendView, FrontendView, ServiceView};
use comfy_table::Cell;

use super::agents;
use super::output::{self, Format, Row, Text, bad, good};

/// `thalweg service`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the services, and whether each node serves them
    List {
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what clients of one connect to, who answers on each node, and why
    Get {
        /// NAMESPACE/NAME of the service, or of a pod with ports of its node
        service: String,
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::List { agents, output } => {
                let answers = agents
                    .agents()
                    .await?
                    .get::<Vec<ServiceView>>("/v1/services")
                    .await;
                let (rows, unreachable) = output::merge(answers);
                output::list(output, &rows, &unreachable, || list(&rows))
            }
            Verb::Get {
                service,
                agents,
                output,
            } => {
                let Some((namespace, name)) = service.split_once('/').filter(|_| is_name(&service)) else {
                    bail!("{service:?} is not NAMESPACE/NAME; `thalweg service list` shows which there are");
                };
                let path = format!("/v1/services/{namespace}/{name}");
                let answers = agents.agents().await?.get::<Vec<ServiceView>>(&path).await;
                let (rows, unreachable) = output::merge(answers);
                output::list(output, &rows, &unreachable, || details(&rows))
            }
        }
    }
}

/// What names in Kubernetes are made of, with one `/`.
fn is_name(text: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./".contains(&byte);
    text.bytes().all(may_be) && text.matches('/').count() == 1 && !text.contains("..")
}

/// How nodes serve a service: the cells of its row, and the nodes that have these.
type Ways<'a> = BTreeMap<[String; 3], Vec<&'a str>>;

/// A service that all nodes serve in the same way is one row.
fn list(rows: &[Row<ServiceView>]) -> Text {
    let mut services: BTreeMap<(&str, &str, &str), Ways<'_>> = BTreeMap::new();
    let mut nodes: Vec<&str> = rows.iter().map(|row| row.node.as_str()).collect();
    nodes.dedup();
    for Row { node, view } in rows {
        let name = (view.namespace.as_str(), view.name.as_str(), view.kind.as_str());
        let cells = [frontends(view), backends(view), in_short(view)];
        services
            .entry(name)
            .or_default()
            .entry(cells)
            .or_default()
            .push(node);
    }
    let mut table = output::table(&["SERVICE", "FRONTENDS", "BACKENDS", "STATE", "NODES"]);
    for ((namespace, name, kind), ways) in services {
        for ([frontends, backends, state], on) in ways {
            let name = match kind {
                "Pod" => format!("{namespace}/{name} (pod)"),
                _ => format!("{namespace}/{name}"),
            };
            table.add_row(vec![
                Cell::new(name),
                Cell::new(frontends),
                Cell::new(backends),
                if state == "ok" { good(state) } else { bad(state) },
                Cell::new(if on.len() == nodes.len() {
                    format!("all {}", on.len())
                } else {
                    output::join(on)
                }),
            ]);
        }
    }
    Text::from(&table)
}

/// Ports on every node are one, at however many addresses.
fn frontends(view: &ServiceView) -> String {
    let one = |frontend: &FrontendView| match frontend.kind.as_str() {
        "NodePort" | "HostPort" => format!("{}:{}/{}", frontend.kind, frontend.port, frontend.protocol),
        _ => address(frontend),
    };
    let mut all: Vec<String> = Vec::new();
    for text in view.frontends.iter().map(one) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    output::join(all)
}

fn address(frontend: &FrontendView) -> String {
    format!(
        "{}/{}",
        SocketAddr::new(frontend.address, frontend.port),
        frontend.protocol
    )
}

/// What the frontend with the fewest has.
fn backends(view: &ServiceView) -> String {
    let least = view
        .frontends
        .iter()
        .map(|frontend| frontend.backends)
        .min()
        .unwrap_or(0);
    let outside = view
        .frontends
        .iter()
        .filter_map(|frontend| frontend.backends_outside)
        .min();
    match outside.filter(|outside| *outside != least) {
        Some(outside) => format!("{least} ({outside} from outside)"),
        None => least.to_string(),
    }
}

/// The whole of it is for who asks for one service.
fn in_short(view: &ServiceView) -> String {
    match (&view.error, view.refused().next()) {
        (Some(error), _) => format!("error: {}", error.split(':').next().unwrap_or(error)),
        (None, Some(remark)) => format!("refused: {}", remark.reason),
        (None, None) => "ok".to_owned(),
    }
}

fn state(view: &ServiceView) -> String {
    match (&view.error, view.refused().next()) {
        (Some(error), _) => format!("error: {error}"),
        (None, Some(remark)) => format!("refused: {}", remark.message),
        (None, None) => "ok".to_owned(),
    }
}

fn details(rows: &[Row<ServiceView>]) -> Text {
    let mut text = Text::default();
    for Row { node, view } in rows {
        if !text.0.is_empty() {
            text.line("");
        }
        text.line(format!(
            "{} {}/{} on {node}: {}",
            view.kind,
            view.namespace,
            view.name,
            state(view)
        ));
        text.section("Frontends", &frontend_table(view));
        text.section("Backends", &backend_table(view));
        let mut remarks = output::table(&["REASON", "WHAT"]);
        for remark in &view.remarks {
            let reason = if remark.refused {
                bad(&remark.reason)
            } else {
                Cell::new(&remark.reason)
            };
            remarks.add_row(vec![reason, Cell::new(&remark.message)]);
        }
        text.section("Remarks", &remarks);
    }
    text
}

fn frontend_table(view: &ServiceView) -> comfy_table::Table {
    let mut table = output::table(&["FRONTEND", "KIND", "PORT", ">BACKENDS", ">FROM OUTSIDE"]);
    for frontend in &view.frontends {
        table.add_row(vec![
            Cell::new(address(frontend)),
            Cell::new(&frontend.kind),
            Cell::new(or_dash(&frontend.port_name)),
            output::plain_or_bad(frontend.backends, frontend.backends == 0),
            Cell::new(
                frontend
                    .backends_outside
                    .map_or_else(|| "-".into(), |count| count.to_string()),
            ),
        ]);
    }
    table
}

fn backend_table(view: &ServiceView) -> comfy_table::Table {
    let mut table = output::table(&["BACKEND", "PORT", "STATE", "NODE", "ZONE", "WHY"]);
    for backend in &view.backends {
        table.add_row(vec![
            Cell::new(SocketAddr::new(backend.address, backend.port)),
            Cell::new(or_dash(&backend.port_name)),
            if backend.state == "ready" {
                good(&backend.state)
            } else {
                bad(&backend.state)
            },
            Cell::new(or_dash(backend.node.as_deref().unwrap_or_default())),
            Cell::new(or_dash(backend.zone.as_deref().unwrap_or_default())),
            Cell::new(why(view, backend)),
        ]);
    }
    table
}

/// Why this node's clients get a backend, or do not.
fn why(view: &ServiceView, backend: &BackendView) -> String {
    if !view
        .frontends
        .iter()
        .any(|frontend| frontend.port_name == backend.port_name)
    {
        return "no frontend leads to it".to_owned();
    }
    let mut why = match (backend.chosen, backend.chosen_local, backend.state.as_str()) {
        (true, true, _) => "chosen; of this node",
        (true, false, "terminating") => "chosen: nobody is ready",
        (true, false, _) => "chosen",
        (false, true, _) => "chosen for those who may have this node's only",
        (false, false, "ready") => "not chosen: others are nearer, or the policy wants this node's",
        (false, false, "terminating") => "keeps its connections; others are ready",
        (false, false, _) => "not ready",
    }
    .to_owned();
    if backend.foreign {
        why.push_str("; in no network that this node knows");
    }
    why
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_all_nodes_serve_alike_is_one_row() {
        let rows = [row("n1", 2, None), row("n2", 2, None)];
        assert_eq!(
            list(&rows).0,
            "SERVICE   FRONTENDS                             BACKENDS            STATE  NODES\n\
             shop/web  10.96.0.10:80/TCP,NodePort:30080/TCP  2 (1 from outside)  ok     all 2\n"
        );
    }

    #[test]
    fn a_node_that_cannot_serve_it_is_another_row() {
        let full = Some("map backends is full: raise the setting loadBalancer.servicesMax".to_owned());
        let text = list(&[row("n1", 2, None), row("n2", 2, full)]).0;
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("error: map backends is full  n2"), "{text}");
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        assert!(is_name("shop/web-1") && is_name("a/b.c"));
        for text in ["web", "a/b/c", "a/../b", "a/b?x=1", "A/b"] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn details_tell_why_a_backend_is_chosen() {
        let mut row = row("n1", 1, None);
        let backend = |state: &str, chosen, foreign| BackendView {
            address: [10, 244, 0, 9].into(),
            port: 8080,
            port_name: "http".into(),
            state: state.into(),
            node: Some("n1".into()),
            zone: None,
            chosen,
            chosen_local: false,
            foreign,
        };
        row.view.backends = vec![backend("ready", true, true), backend("terminating", false, false)];
        let text = details(&[row]).0;
        assert!(text.starts_with("Service shop/web on n1: ok\n"), "{text}");
        assert!(
            text.contains("chosen; in no network that this node knows"),
            "{text}"
        );
        assert!(text.contains("keeps its connections; others are ready"), "{text}");
    }

    fn row(node: &str, backends: usize, error: Option<String>) -> Row<ServiceView> {
        let frontend = |address: [u8; 4], port, kind: &str, outside| FrontendView {
            address: address.into(),
            port,
            protocol: "TCP".into(),
            kind: kind.into(),
            port_name: "http".into(),
            backends,
            backends_outside: outside,
        };
        Row {
            node: node.into(),
            view: ServiceView {
                namespace: "shop".into(),
                name: "web".into(),
                kind: "Service".into(),
                frontends: vec![
                    frontend([10, 96, 0, 10], 80, "ClusterIP", None),
                    frontend([172, 30, 0, 1], 30080, "NodePort", Some(1)),
                    frontend([172, 30, 0, 9], 30080, "NodePort", Some(1)),
                ],
                backends: Vec::new(),
                remarks: Vec::new(),
                error,
            },
        }
    }
}
