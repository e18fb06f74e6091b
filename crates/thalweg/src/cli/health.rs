// SPDX-License-Identifier: Apache-2.0
//! `thalweg health`: which node reaches which.

use std::process::ExitCode;

use agent::health::Kind;
use api::agent::{HealthView, PeerView, ProbeView};
use comfy_table::Cell;

use super::agents::{self, Answer, Unreachable};
use super::output::{self, Format, Text, bad, good};

/// With more nodes than these a matrix fits on no screen: only what fails is shown.
const COLUMNS_MAX: usize = 12;

/// `thalweg health`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: agents::AgentArgs,
    /// Try everything now instead of showing the last try
    #[arg(long)]
    probe: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    /// Runs the verb. The exit code is 1 when an agent does not answer or does not reach a node or its pod.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let agents = self.agents.agents().await?;
        let path = if self.probe {
            "/v1/health?probe=1"
        } else {
            "/v1/health"
        };
        let (mut views, mut unreachable) = (Vec::new(), Vec::new());
        for Answer { node, result } in agents.get::<HealthView>(path).await {
            match result {
                Ok(view) => views.push(view),
                Err(error) => unreachable.push(Unreachable { node, error }),
            }
        }
        let code = output::list(self.output, &views, &unreachable, || {
            screen(&agents.title, &views)
        })?;
        let all_well = views
            .iter()
            .flat_map(|view| &view.peers)
            .all(|peer| failures(peer).next().is_none());
        Ok(if all_well { code } else { ExitCode::FAILURE })
    }
}

fn failures(peer: &PeerView) -> impl Iterator<Item = &ProbeView> {
    peer.probes.iter().filter(|probe| !probe.ok)
}

fn screen(title: &str, views: &[HealthView]) -> Text {
    let mut text = Text::default();
    text.line(headline(title, views));
    for view in views.iter().filter(|view| !view.enabled) {
        text.line(format!("{}: health.enabled is false there", view.node));
    }
    text.section("Not reached", &failing(views));
    let mut columns: Vec<&str> = views
        .iter()
        .flat_map(|view| view.peers.iter().map(|peer| peer.peer.as_str()))
        .collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.len() <= COLUMNS_MAX {
        let kinds = Kind::ALL.map(Kind::name).join(" ");
        let heading = format!("Milliseconds from node to node: {kinds}");
        text.section(&heading, &matrix(views, &columns));
    }
    text
}

fn headline(title: &str, views: &[HealthView]) -> String {
    let peers = || views.iter().flat_map(|view| &view.peers);
    let tried = peers().filter(|peer| peer.tried_seconds_ago.is_some()).count();
    let well = peers()
        .filter(|peer| peer.tried_seconds_ago.is_some() && failures(peer).next().is_none())
        .count();
    let mut line = format!("{title}: {well} of {tried} ways from node to node are well");
    let waiting = peers().count() - tried;
    if waiting > 0 {
        line.push_str(&format!(", {waiting} not tried yet"));
    }
    if let Some(oldest) = peers().filter_map(|peer| peer.tried_seconds_ago).max() {
        line.push_str(&format!("; tried within {}", output::duration(oldest)));
    }
    line
}

fn failing(views: &[HealthView]) -> comfy_table::Table {
    let mut table = output::table(&["FROM", "TO", "WHAT", "ADDRESS", "FOR", "WHY"]);
    for view in views {
        for peer in &view.peers {
            for probe in failures(peer) {
                table.add_row(vec![
                    Cell::new(&view.node),
                    Cell::new(&peer.peer),
                    bad(&probe.kind),
                    Cell::new(probe.address),
                    Cell::new(output::duration(probe.since_seconds)),
                    Cell::new(probe.error.as_deref().unwrap_or("-")),
                ]);
            }
        }
    }
    table
}

fn matrix(views: &[HealthView], columns: &[&str]) -> comfy_table::Table {
    let header: Vec<&str> = std::iter::once("FROM \\ TO")
        .chain(columns.iter().copied())
        .collect();
    let mut table = output::table(&header);
    for view in views {
        let cells = columns.iter().map(|column| {
            let peer = view.peers.iter().find(|peer| &peer.peer == column);
            peer.map_or_else(|| Cell::new("-"), cell)
        });
        table.add_row(std::iter::once(Cell::new(&view.node)).chain(cells));
    }
    table
}

fn cell(peer: &PeerView) -> Cell {
    if peer.tried_seconds_ago.is_none() {
        return Cell::new("not yet");
    }
    let text = Kind::ALL.map(|kind| number(peer, kind)).join(" ");
    match failures(peer).next() {
        None => good(text),
        Some(_) => bad(text),
    }
}

/// The slower family's; `none` where there is no pod to try.
fn number(peer: &PeerView, kind: Kind) -> String {
    let probes = || peer.probes.iter().filter(|probe| probe.kind == kind.name());
    if probes().any(|probe| !probe.ok) {
        return "FAIL".to_owned();
    }
    let slowest = probes().filter_map(|probe| probe.latency_microseconds).max();
    slowest.map_or_else(
        || "none".to_owned(),
        |time| format!("{}.{:02}", time / 1000, time % 1000 / 10),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_shows_exactly_the_way_that_fails_and_why() {
        let views = [
            view("a", &[("b", Some("no answer within 2 s")), ("c", None)]),
            view("b", &[("a", None), ("c", None)]),
        ];
        let text = screen("lab x", &views).0;
        assert_eq!(
            text,
            "lab x: 3 of 4 ways from node to node are well; tried within 3s\n\
             \n\
             Not reached\n\
             FROM  TO  WHAT       ADDRESS    FOR  WHY\n\
             a     b   node-icmp  192.0.2.1  9s   no answer within 2 s\n\
             \n\
             Milliseconds from node to node: node-icmp node-tcp pod-icmp pod-tcp\n\
             FROM \\ TO  a                    b                    c\n\
             a          -                    FAIL 1.25 none none  1.25 1.25 none none\n\
             b          1.25 1.25 none none  -                    1.25 1.25 none none\n"
        );
    }

    #[test]
    fn many_nodes_are_not_drawn_but_what_fails_is() {
        let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
        let others: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
        let mut views = vec![view("a", &others)];
        assert_eq!(screen("x", &views).0.lines().count(), 1);
        views.push(view("b", &[("n7", Some("gone"))]));
        assert!(screen("x", &views).0.contains("n7  node-icmp"));
    }

    fn view(node: &str, peers: &[(&str, Option<&str>)]) -> HealthView {
        let probe = |kind: &str, error: Option<&str>| ProbeView {
            kind: kind.to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            ok: error.is_none(),
            latency_microseconds: error.is_none().then_some(1250),
            error: error.map(str::to_owned),
            since_seconds: 9,
        };
        let peer = |(name, error): &(&str, Option<&str>)| PeerView {
            peer: (*name).to_owned(),
            tried_seconds_ago: Some(3),
            probes: vec![probe("node-icmp", *error), probe("node-tcp", None)],
        };
        HealthView {
            node: node.to_owned(),
            enabled: true,
            peers: peers.iter().map(peer).collect(),
        }
    }
}
