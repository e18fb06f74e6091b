// SPDX-License-Identifier: Apache-2.0
//! `thalweg drops`: which packets were dropped, and why.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use api::agent::{DropView, EventLine, EventView, LostPlace, LostView, Status};
use comfy_table::{Cell, Table};
use datapath_common::Reason;
use futures::StreamExt as _;
use serde::Serialize;

use super::agents::{self, Agents, Answer, Unreachable};
use super::output::{self, Format, Row, Text};

/// Drops that are shown unless the command line says how many.
const LAST: usize = 20;

/// `thalweg drops`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on with the drops to come
    #[arg(short, long)]
    follow: bool,
    /// The last so many drops; with --follow of each node, and none if not given
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only those of this reason, such as INVALID_SOURCE_IP
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<&'static str>,
    /// Only those of packets from or to this pod
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// Only those of packets from or to this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    agents: agents::AgentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `-o json` prints without `--follow`.
#[derive(Debug, Serialize)]
struct Report {
    items: Vec<Row<EventView>>,
    reasons: Vec<Row<DropView>>,
    lost: Vec<Lost>,
    unreachable: Vec<Unreachable>,
}

/// Events of a node that nobody will see.
#[derive(Debug, Serialize)]
struct Lost {
    node: String,
    events: u64,
}

impl Args {
    /// Runs the verb. The exit code is 1 when an agent does not answer, and with `--follow` when the last one has ended.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let agents = self.agents.agents().await?;
        if self.follow {
            self.follow(&agents).await
        } else {
            self.list(&agents).await
        }
    }

    fn path(&self, follow: bool, last: usize) -> anyhow::Result<String> {
        let mut path = format!("/v1/events?follow={}&last={last}", u8::from(follow));
        if let Some(reason) = self.reason {
            write!(path, "&reason={reason}")?;
        }
        if let Some(pod) = &self.pod {
            write!(path, "&pod={}", query(pod))?;
        }
        if let Some(ip) = self.ip {
            write!(path, "&ip={ip}")?;
        }
        Ok(path)
    }

    async fn list(&self, agents: &Agents) -> anyhow::Result<ExitCode> {
        let last = self.last.unwrap_or(LAST);
        let path = self.path(false, last)?;
        let (events, statuses) = futures::join!(agents.lines(&path), agents.get::<Status>("/v1/status"));
        let report = report(events, statuses, last);
        if self.output == Format::Json {
            output::json(&report)?;
            return Ok(code(&report.unreachable));
        }
        output::list(self.output, &report.items, &report.unreachable, || {
            screen(&report)
        })
    }

    async fn follow(&self, agents: &Agents) -> anyhow::Result<ExitCode> {
        let path = self.path(true, self.last.unwrap_or(0))?;
        if self.output == Format::Text {
            output::print(&heading())?;
        }
        let mut answers = agents.follow::<EventLine>(&path);
        while let Some(Answer { node, result }) = answers.next().await {
            let text = match result {
                Err(error) => {
                    output::complain(&node, &error)?;
                    continue;
                }
                Ok(view) if self.output == Format::Json => {
                    format!("{}\n", serde_json::to_string(&Row { node, view })?)
                }
                Ok(EventLine::Drop(event)) => line(&node, &event),
                Ok(EventLine::Lost(lost)) => gap(&node, &lost),
            };
            if !output::print_on(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        Ok(ExitCode::FAILURE)
    }
}

/// The name of a drop reason, in whatever case.
fn reason(text: &str) -> Result<&'static str, String> {
    let drops = || Reason::ALL.iter().filter(|reason| reason.is_drop());
    let mut names = drops().filter_map(|reason| reason.name());
    names.find(|name| name.eq_ignore_ascii_case(text)).ok_or_else(|| {
        let names: Vec<_> = drops().filter_map(|reason| reason.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

/// What may not be in a query is left out: no pod's name has it.
fn query(text: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "/-._".contains(*c);
    text.chars().filter(allowed).collect()
}

/// Both questions go to the same agents: one that failed either is told once.
fn report(events: Vec<Answer<Vec<EventLine>>>, statuses: Vec<Answer<Status>>, last: usize) -> Report {
    let (lines, mut unreachable) = output::merge(events);
    let mut items: Vec<_> = lines
        .into_iter()
        .filter_map(|Row { node, view }| match view {
            EventLine::Drop(view) => Some(Row { node, view }),
            EventLine::Lost(_) => None,
        })
        .collect();
    items.sort_by_key(|row| row.view.unix_milliseconds);
    items.drain(..items.len().saturating_sub(last));
    let (mut reasons, mut lost) = (Vec::new(), Vec::new());
    for Answer { node, result } in statuses {
        match result {
            Ok(status) => {
                let events = status.events.lost;
                lost.extend((events > 0).then(|| Lost {
                    node: node.clone(),
                    events,
                }));
                reasons.extend(status.drops.into_iter().map(|view| Row {
                    node: node.clone(),
                    view,
                }));
            }
            Err(error) if unreachable.iter().all(|other| other.node != node) => {
                unreachable.push(Unreachable { node, error });
            }
            Err(_) => {}
        }
    }
    Report {
        items,
        reasons,
        lost,
        unreachable,
    }
}

fn code(unreachable: &[Unreachable]) -> ExitCode {
    if unreachable.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn screen(report: &Report) -> Text {
    let mut text = Text::from(&events(&report.items));
    text.section("All drops by reason", &reasons(&report.reasons));
    for Lost { node, events } in &report.lost {
        text.line(format!(
            "{node}: {events} drops are counted but not listed, because events came faster than they are taken."
        ));
    }
    text
}

const COLUMNS: [&str; 10] = [
    "TIME (UTC)",
    "NODE",
    "REASON",
    "DIRECTION",
    "PROTOCOL",
    "FROM",
    "TO",
    "DEVICE",
    "POD",
    ">BYTES",
];

fn events(rows: &[Row<EventView>]) -> Table {
    let mut table = output::table(&COLUMNS);
    for Row { node, view } in rows {
        table.add_row(fields(node, view).map(Cell::new));
    }
    table
}

fn reasons(rows: &[Row<DropView>]) -> Table {
    let mut table = output::table(&["NODE", "REASON", "DIRECTION", ">PACKETS", ">BYTES", "MEANING"]);
    for Row { node, view } in rows {
        let known = Reason::ALL
            .iter()
            .find(|reason| reason.name() == Some(&view.reason));
        table.add_row(vec![
            Cell::new(node),
            Cell::new(&view.reason),
            Cell::new(&view.direction),
            Cell::new(view.packets),
            Cell::new(output::bytes(view.bytes)),
            Cell::new(known.map_or("", |reason| reason.description())),
        ]);
    }
    table
}

fn fields(node: &str, event: &EventView) -> [String; 10] {
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    [
        time(event.unix_milliseconds),
        node.to_owned(),
        event.reason.clone(),
        or_dash(&event.direction),
        or_dash(&event.protocol),
        end(event.source, event.source_port),
        end(event.destination, event.destination_port),
        or_dash(&event.interface),
        or_dash(event.pod.as_deref().unwrap_or_default()),
        event.length.to_string(),
    ]
}

/// An address with its port where there is one.
fn end(ip: Option<IpAddr>, port: Option<u16>) -> String {
    match (ip, port) {
        (None, _) => "-".to_owned(),
        (Some(ip), None | Some(0)) => ip.to_string(),
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
    }
}

fn time(unix_milliseconds: u64) -> String {
    let time = i64::try_from(unix_milliseconds).ok();
    let time = time.and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
    time.map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%m-%d %H:%M:%S%.3f").to_string(),
    )
}

/// Widths of the columns where lines come one by one: what usually fits.
const WIDTHS: [usize; 9] = [19, 10, 28, 9, 8, 22, 22, 15, 24];

fn heading() -> String {
    aligned(&COLUMNS.map(|name| name.trim_start_matches('>').to_owned()))
}

fn line(node: &str, event: &EventView) -> String {
    aligned(&fields(node, event))
}

fn aligned(fields: &[String; 10]) -> String {
    let widths = WIDTHS.iter().chain([&0]);
    let padded = fields
        .iter()
        .zip(widths)
        .map(|(field, width)| format!("{field:<width$}"));
    format!("{}\n", padded.collect::<Vec<_>>().join(" ").trim_end())
}

fn gap(node: &str, lost: &LostView) -> String {
    let why = match lost.place {
        LostPlace::Ring => "there were more than the agent takes; they are counted",
        LostPlace::Reader => "this reader is too slow; they are counted",
    };
    format!(
        "{:<19} {node:<10} {} drops are missing here: {why}\n",
        time(lost.unix_milliseconds),
        lost.events
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_all_nodes_are_shown_in_the_order_of_time() {
        let answer = |node: &str, times: &[u64]| Answer {
            node: node.to_owned(),
            result: Ok(times.iter().map(|time| EventLine::Drop(event(*time))).collect()),
        };
        let silent = Answer {
            node: "c".to_owned(),
            result: Err("gone".to_owned()),
        };
        let statuses = vec![Answer {
            node: "c".to_owned(),
            result: Err("gone".to_owned()),
        }];
        let report = report(
            vec![answer("a", &[1, 4]), answer("b", &[2, 3]), silent],
            statuses,
            3,
        );
        let shown: Vec<_> = report
            .items
            .iter()
            .map(|row| (&*row.node, row.view.unix_milliseconds))
            .collect();
        assert_eq!(shown, [("b", 2), ("b", 3), ("a", 4)]);
        assert_eq!(report.unreachable.len(), 1);
    }

    #[test]
    fn a_drop_is_one_line_and_what_is_not_known_a_dash() {
        let mut event = event(1_700_000_000_123);
        assert_eq!(
            line("n1", &event)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            "11-14 22:13:20.123 n1 INVALID_SOURCE_IP egress udp 10.0.0.1:53 [fd00::1]:99 tw1 default/a 60"
        );
        (event.source, event.pod, event.protocol) = (None, None, String::new());
        let text = line("n1", &event);
        assert_eq!(
            text.split_whitespace().filter(|field| *field == "-").count(),
            3,
            "{text}"
        );
    }

    #[test]
    fn reasons_are_known_in_any_case_and_others_are_answered_with_the_list() {
        assert_eq!(reason("invalid_source_ip"), Ok("INVALID_SOURCE_IP"));
        assert!(reason("FORWARDED").unwrap_err().contains("INVALID_SOURCE_IP"));
    }

    fn event(unix_milliseconds: u64) -> EventView {
        EventView {
            sequence: 1,
            unix_milliseconds,
            reason: "INVALID_SOURCE_IP".to_owned(),
            direction: "egress".to_owned(),
            interface: "tw1".to_owned(),
            source: Some("10.0.0.1".parse().unwrap()),
            destination: Some("fd00::1".parse().unwrap()),
            protocol: "udp".to_owned(),
            source_port: Some(53),
            destination_port: Some(99),
            length: 60,
            pod: Some("default/a".to_owned()),
        }
    }
}
