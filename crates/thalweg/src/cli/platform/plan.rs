// SPDX-License-Identifier: Apache-2.0
//! `thalweg platform plan`

use std::path::PathBuf;
use std::process::ExitCode;

use ::platform::plan::{self, Answer, ClusterPlan, Cost, Plan};
use comfy_table::Cell;

use super::Loaded;
use crate::cli::output::{self, Format, Text, bad, good, join};

/// `thalweg platform plan`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show the subnets too
    #[arg(long)]
    subnets: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let plan = plan::of(&loaded.platform, &loaded.addresses, &loaded.catalogue);
        match self.output {
            Format::Json => output::json(&plan)?,
            Format::Text => output::print(&text(&plan, self.subnets).0)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(plan: &Plan, subnets: bool) -> Text {
    let mut text = Text::default();
    text.section("Addresses", &addresses(plan));
    if subnets {
        text.section("Subnets", &subnet_table(plan));
    }
    let free: Vec<String> = plan
        .free
        .iter()
        .map(|(pool, left)| format!("{pool} {left}"))
        .collect();
    text.line(format!("\nAddresses left in the pools: {}", free.join(", ")));
    text.section("Capacity", &capacity(plan));
    notes(plan, &mut text);
    text.section("Cost of the machines", &cost(plan));
    text.section("Traps", &traps(plan));
    text.section("Not comparable", &differences(plan));
    let mut pairs = output::table(&["FROM", "TO", "WHY"]);
    for pair in &plan.unconnected {
        pairs.add_row([&pair.left, &pair.right, &pair.reason]);
    }
    text.section("No way between", &pairs);
    let mut lacking = output::table(&["CLUSTER", "THE AGENT OF THIS VERSION DOES NOT TAKE"]);
    for cluster in plan.clusters.iter().filter(|cluster| !cluster.not_yet.is_empty()) {
        lacking.add_row(vec![
            Cell::new(&cluster.addresses.cluster),
            bad(cluster.not_yet.join(", ")),
        ]);
    }
    text.section("Not yet", &lacking);
    text
}

fn addresses(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&[
        "CLUSTER", "CLOUD", "REGION", "MODE", "NETWORK", "PODS", "NODE", "SERVICES", "DNS",
    ]);
    for ClusterPlan {
        cloud,
        region,
        mode,
        addresses,
        ..
    } in &plan.clusters
    {
        let pods = addresses
            .pods
            .map_or_else(|| "in the network".to_owned(), |net| net.to_string());
        table.add_row([
            addresses.cluster.clone(),
            cloud.to_string(),
            region.clone(),
            mode.to_string(),
            addresses.network.to_string(),
            pods,
            addresses
                .node_mask
                .map_or_else(|| "-".to_owned(), |mask| format!("/{mask}")),
            addresses.services.to_string(),
            addresses.dns.to_string(),
        ]);
    }
    table
}

fn subnet_table(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&["CLUSTER", "SUBNET", "ZONE", "ADDRESSES", ">USABLE"]);
    for addresses in plan.clusters.iter().map(|cluster| &cluster.addresses) {
        for subnet in &addresses.subnets {
            let zone = match (&subnet.zone_name, subnet.zone) {
                (Some(name), _) => name.clone(),
                (None, Some(number)) => (number + 1).to_string(),
                (None, None) => "all".to_owned(),
            };
            let role = format!("{:?}", subnet.role).to_lowercase();
            table.add_row([
                addresses.cluster.clone(),
                role,
                zone,
                subnet.cidr.to_string(),
                subnet.usable.to_string(),
            ]);
        }
    }
    table
}

fn capacity(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&[
        "CLUSTER",
        "GROUP",
        "TYPES",
        ">MIN",
        ">START",
        ">MAX",
        ">MAX-PODS",
        ">PODS/NODE",
        ">OFFICIAL",
    ]);
    let shown = |number: Option<u32>| number.map_or_else(|| Cell::new("unknown"), Cell::new);
    for cluster in &plan.clusters {
        for group in &cluster.groups {
            let [min, start, max] = group.nodes;
            table.add_row(vec![
                Cell::new(&cluster.addresses.cluster),
                Cell::new(&group.name),
                Cell::new(join(&group.instance_types)),
                Cell::new(min),
                Cell::new(start),
                Cell::new(max),
                shown(group.max_pods),
                shown(group.pods),
                group.official_max_pods.map_or_else(|| Cell::new("-"), Cell::new),
            ]);
        }
    }
    table
}

fn notes(plan: &Plan, text: &mut Text) {
    let mut said: Vec<&String> = plan
        .clusters
        .iter()
        .flat_map(|cluster| &cluster.groups)
        .flat_map(|group| &group.notes)
        .collect();
    said.sort();
    said.dedup();
    for note in said {
        text.line(format!("  {note}"));
    }
}

fn cost(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&["CLUSTER", ">USD/MONTH", ">AT MOST", "PRICES OF", "WITHOUT"]);
    for cluster in &plan.clusters {
        let name = cluster.addresses.cluster.clone();
        match &cluster.cost {
            Cost::Known {
                usd_per_month,
                usd_per_month_max,
                date,
                without,
            } => table.add_row([
                name,
                format!("{usd_per_month:.2}"),
                format!("{usd_per_month_max:.2}"),
                date.clone(),
                (*without).to_owned(),
            ]),
            Cost::Unknown { reason } => table.add_row([
                name,
                "unknown".into(),
                "unknown".into(),
                "-".into(),
                reason.clone(),
            ]),
        };
    }
    table
}

fn traps(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&[">NO", "TRAP", "CLUSTERS", "IS", "BY"]);
    for trap in &plan.traps {
        let answer = match trap.answer {
            Answer::Prevented => good("prevented"),
            Answer::Checked => Cell::new("checked"),
            Answer::Open => bad("open"),
        };
        table.add_row(vec![
            Cell::new(trap.number),
            Cell::new(trap.name),
            Cell::new(join(&trap.clusters)),
            answer,
            Cell::new(&trap.done),
        ]);
    }
    table
}

fn differences(plan: &Plan) -> comfy_table::Table {
    let mut table = output::table(&["PROPERTY", "VALUE", "CLUSTERS", "THEREFORE"]);
    for difference in &plan.not_comparable {
        let mut property = difference.property;
        let mut therefore = difference.therefore;
        for (value, clusters) in &difference.values {
            table.add_row([property, value, &join(clusters), therefore]);
            (property, therefore) = ("", "");
        }
    }
    table
}
