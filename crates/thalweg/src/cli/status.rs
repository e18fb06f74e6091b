// SPDX-License-Identifier: Apache-2.0
//! `thalweg status`: what is wrong comes first.

use std::process::ExitCode;

use api::agent::{LimitView, Status};
use comfy_table::Cell;

use super::agents::{self, Answer, Unreachable};
use super::output::{self, Format, Text, bad, good, plain_or_bad};

/// From this use on a limit is shown, in percent.
const NEAR_FULL: u64 = 80;

/// `thalweg status`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: agents::AgentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    /// Runs the verb. The exit code is 1 when an agent does not answer or is not ready.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let agents = self.agents.agents().await?;
        let mut statuses = Vec::new();
        let mut unreachable = Vec::new();
        for Answer { node, result } in agents.get::<Status>("/v1/status").await {
            match result {
                Ok(status) => statuses.push(status),
                Err(error) => unreachable.push(Unreachable { node, error }),
            }
        }
        let all_ready = statuses.iter().all(|status| status.ready);
        let code = output::list(self.output, &statuses, &unreachable, || {
            screen(&agents.title, &statuses, &unreachable)
        })?;
        Ok(if all_ready { code } else { ExitCode::FAILURE })
    }
}

fn screen(title: &str, statuses: &[Status], unreachable: &[Unreachable]) -> Text {
    let mut text = Text::default();
    text.line(headline(title, statuses, unreachable));
    text.section("Not well", &complaints(statuses));
    text.section("Nodes", &nodes(statuses, unreachable));
    text.section("Limits near full", &limits(statuses));
    text.section("Dropped packets", &drops(statuses));
    if let [status] = statuses {
        text.section("Conditions", &conditions(status));
        text.section("Programs", &programs(status));
    }
    text
}

fn headline(title: &str, statuses: &[Status], unreachable: &[Unreachable]) -> String {
    let total = statuses.len() + unreachable.len();
    let ready = statuses.iter().filter(|status| status.ready).count();
    let pods: usize = statuses.iter().map(|status| status.endpoints.total).sum();
    let nodes = if total == 1 { "node" } else { "nodes" };
    let mut line = format!("{title}: {ready} of {total} {nodes} ready, {pods} pods attached");
    if let [first, ..] = statuses {
        line.push_str(&format!(", routing {}, MTU {}", first.routing_mode, first.mtu));
        if let Some(services) = &first.services {
            line.push_str(&format!(", {} services", services.services));
        }
    }
    line
}

fn complaints(statuses: &[Status]) -> comfy_table::Table {
    let mut table = output::table(&["NODE", "WHAT", "WHY"]);
    for status in statuses {
        for condition in status.conditions.iter().filter(|condition| !condition.ok) {
            table.add_row(vec![
                Cell::new(&status.node),
                bad(&condition.name),
                Cell::new(&condition.message),
            ]);
        }
        for row in status.tables.iter().filter(|row| row.errors > 0) {
            let message = format!("{} of {} rows in error", row.errors, row.rows);
            table.add_row(vec![
                Cell::new(&status.node),
                bad(format!("table {}", row.name)),
                Cell::new(message),
            ]);
        }
        let health = status.health.iter().flat_map(|health| &health.failures);
        for failure in health {
            table.add_row(vec![
                Cell::new(&status.node),
                bad(format!("way to {}", failure.peer)),
                Cell::new(format!(
                    "{} for {}: {}",
                    output::join(&failure.kinds),
                    output::duration(failure.since_seconds),
                    failure.error
                )),
            ]);
        }
        for problem in status.services.iter().flat_map(|services| &services.problems) {
            table.add_row(vec![Cell::new(&status.node), bad("services"), Cell::new(problem)]);
        }
        for skipped in &status.kubernetes.skipped_objects {
            table.add_row(vec![
                Cell::new(&status.node),
                bad("skipped object"),
                Cell::new(skipped),
            ]);
        }
    }
    table
}

fn nodes(statuses: &[Status], unreachable: &[Unreachable]) -> comfy_table::Table {
    let columns = [
        "NODE",
        "READY",
        "VERSION",
        "UP",
        "KERNEL",
        "HOOK",
        ">PODS",
        ">CONNECTIONS",
        ">DROPPED",
        ">MEMORY",
    ];
    let mut table = output::table(&columns);
    for status in statuses {
        let dropped: u64 = status.drops.iter().map(|row| row.packets).sum();
        let conntrack = &status.conntrack;
        let pressed = u64::from(conntrack.pressure) >= NEAR_FULL;
        table.add_row(vec![
            Cell::new(&status.node),
            if status.ready { good("yes") } else { bad("no") },
            Cell::new(&status.version),
            Cell::new(output::duration(status.uptime_seconds)),
            Cell::new(&status.kernel),
            Cell::new(&status.datapath.attach),
            plain_or_bad(status.endpoints.total, status.endpoints.errors > 0),
            plain_or_bad(
                format!("{} ({} %)", conntrack.entries, conntrack.pressure),
                pressed,
            ),
            Cell::new(dropped),
            Cell::new(output::bytes(status.resident_bytes)),
        ]);
    }
    for Unreachable { node, .. } in unreachable {
        table.add_row(vec![Cell::new(node), bad("no answer")]);
    }
    table
}

fn limits(statuses: &[Status]) -> comfy_table::Table {
    let mut table = output::table(&["NODE", "LIMIT", ">USED", ">OF", ">PERCENT"]);
    for status in statuses {
        for LimitView { name, used, max } in &status.limits {
            let percent = used.saturating_mul(100) / (*max).max(1);
            if percent >= NEAR_FULL {
                table.add_row(vec![
                    Cell::new(&status.node),
                    Cell::new(name),
                    Cell::new(used),
                    Cell::new(max),
                    bad(percent),
                ]);
            }
        }
    }
    table
}

fn drops(statuses: &[Status]) -> comfy_table::Table {
    let mut table = output::table(&["NODE", "REASON", "DIRECTION", ">PACKETS", ">BYTES"]);
    for status in statuses {
        for row in status.drops.iter().filter(|row| row.packets > 0) {
            table.add_row(vec![
                Cell::new(&status.node),
                Cell::new(&row.reason),
                Cell::new(&row.direction),
                Cell::new(row.packets),
                Cell::new(output::bytes(row.bytes)),
            ]);
        }
    }
    table
}

fn conditions(status: &Status) -> comfy_table::Table {
    let mut table = output::table(&["CONDITION", "OK", "MESSAGE"]);
    for condition in &status.conditions {
        let ok = if condition.ok { good("yes") } else { bad("no") };
        table.add_row(vec![
            Cell::new(&condition.name),
            ok,
            Cell::new(&condition.message),
        ]);
    }
    table
}

fn programs(status: &Status) -> comfy_table::Table {
    let mut table = output::table(&["PROGRAM", ">ID", "TAG", ">INSTRUCTIONS", ">NS PER RUN"]);
    for program in &status.datapath.programs {
        let time = program.run_time_ns.checked_div(program.run_count);
        table.add_row(vec![
            Cell::new(&program.name),
            Cell::new(program.id),
            Cell::new(&program.tag),
            Cell::new(program.instructions),
            Cell::new(time.map_or_else(|| "-".into(), |time| time.to_string())),
        ]);
    }
    table
}
