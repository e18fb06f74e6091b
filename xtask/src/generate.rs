// SPDX-License-Identifier: Apache-2.0
//! `./dev gen`: writes the planner's data files from what the ecosystem's packages publish. The sources are given as
//! files; what kind each is, its content says. Facts are taken over, never code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use plan::cloud::Cloud;
use plan::data::Provenance;
use plan::date::Date;
use plan::instance::{Instance, InstanceTable};
use plan::price::{Micros, PriceTable};

mod golang;
mod json;
mod providers;
mod providers_python;

/// What to generate.
#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// crates/plan/data/aws-instance-types.csv, from the VPC CNI's pkg/vpc/vpc_ip_resource_limit.go, the VPC resource
    /// controller's limits.go (branch interfaces) and any answer of DescribeInstanceTypes (vCPUs).
    InstanceTypes(Sources),
    /// crates/plan/data/{aws,azure}-prices.csv, from Karpenter's zz_generated.pricing*.go.
    Prices {
        #[command(flatten)]
        sources: Sources,
        /// aws or azure.
        #[arg(long)]
        cloud: String,
        /// Keep these regions only.
        #[arg(long, value_delimiter = ',')]
        regions: Vec<String>,
        /// Keep only names that begin so.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// crates/plan/data/regions.csv, from botocore's partitions.json and Karpenter's Azure price list.
    Regions(Sources),
    /// crates/plan/testdata/eni-max-pods.csv, from the VPC CNI's misc/eni-max-pods.txt.
    MaxPods(Sources),
    /// crates/platform/data/provider-names.txt, from the type packages that the providers publish on npm and PyPI, which
    /// are fetched.
    ProviderNames {
        /// The day of the newest package.
        #[arg(long)]
        date: Date,
    },
}

/// Files, and what to say of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// A file to read.
    #[arg(long, required = true)]
    from: Vec<PathBuf>,
    /// Where it comes from: repository or package, file, version; one for each --from.
    #[arg(long, required = true)]
    source: Vec<String>,
    /// The day as of which the first of them lists its rows.
    #[arg(long)]
    date: Date,
}

impl Sources {
    fn provenance(&self) -> Result<Provenance> {
        if self.source.len() != self.from.len() {
            bail!("give one --source for each --from");
        }
        Ok(Provenance {
            sources: self.source.clone(),
            date: self.date,
        })
    }

    fn read(&self) -> Result<Vec<(&Path, String)>> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        self.from
            .iter()
            .map(|path| Ok((path.as_path(), read(path)?)))
            .collect()
    }
}

/// The verb.
pub(crate) fn run(target: &Target) -> Result<()> {
    match target {
        Target::InstanceTypes(sources) => instance_types(sources),
        Target::Prices {
            sources,
            cloud,
            regions,
            prefix,
        } => prices(sources, cloud, regions, prefix),
        Target::Regions(sources) => regions(sources),
        Target::MaxPods(sources) => max_pods(sources),
        Target::ProviderNames { date } => providers::run(&date.to_string()),
    }
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = crate::root().join("crates/plan").join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), text.len());
    Ok(())
}

fn instance_types(sources: &Sources) -> Result<()> {
    let mut types: BTreeMap<String, Instance> = BTreeMap::new();
    let mut processors = BTreeMap::new();
    let mut branches = BTreeMap::new();
    for (path, text) in sources.read()? {
        if text.contains("BranchInterface") {
            branches.extend(golang::branches(&text));
        } else if text.contains("ENILimit") {
            types.extend(
                golang::limits(&text)
                    .into_iter()
                    .map(|row| (row.name.clone(), row)),
            );
        } else if text.trim_start().starts_with('{') {
            processors.extend(json::processors(&text).with_context(|| path.display().to_string())?);
        } else {
            bail!("{}: none of the kinds of file that this reads", path.display());
        }
    }
    if types.is_empty() {
        bail!("none of the files has ENI limits");
    }
    for (name, row) in &mut types {
        row.vcpus = processors.get(name).copied();
        row.branch_interfaces = branches.get(name).copied();
    }
    let unknown = types.values().filter(|row| row.vcpus.is_none()).count();
    println!("{} types, {unknown} without a number of vCPUs", types.len());
    let table = InstanceTable::new(sources.provenance()?, types.into_values());
    write("data/aws-instance-types.csv", &table.to_text())
}

fn prices(sources: &Sources, cloud: &str, wanted: &[String], prefix: &str) -> Result<()> {
    if !["aws", "azure"].contains(&cloud) {
        bail!("--cloud is aws or azure");
    }
    let mut found: BTreeMap<String, BTreeMap<String, Micros>> = BTreeMap::new();
    for (_, text) in sources.read()? {
        for (region, prices) in golang::prices(&text) {
            if wanted.is_empty() || wanted.contains(&region) {
                found.entry(region).or_default().extend(prices);
            }
        }
    }
    let regions: Vec<String> = found.keys().cloned().collect();
    if regions.is_empty() {
        bail!("no prices of these regions");
    }
    let mut rows: BTreeMap<String, Vec<Option<Micros>>> = BTreeMap::new();
    for (column, prices) in found.values().enumerate() {
        // A name with a space or a comma is a dedicated host's, not a machine's.
        let machines = prices
            .iter()
            .filter(|(name, price)| name.starts_with(prefix) && !name.contains([' ', ',']) && price.0 > 0);
        for (name, price) in machines {
            let row = rows
                .entry(name.clone())
                .or_insert_with(|| vec![None; regions.len()]);
            if let Some(cell) = row.get_mut(column) {
                *cell = Some(*price);
            }
        }
    }
    let table = PriceTable::new(sources.provenance()?, regions, rows);
    write(&format!("data/{cloud}-prices.csv"), &table.to_text())
}

fn regions(sources: &Sources) -> Result<()> {
    let mut rows = Vec::new();
    for (path, text) in sources.read()? {
        if text.contains("\"partitions\"") {
            let names = json::regions(&text).with_context(|| path.display().to_string())?;
            rows.extend(names.into_iter().map(|name| (name, Cloud::Aws)));
        } else {
            let names = golang::prices(&text).into_keys();
            rows.extend(names.map(|name| (name, Cloud::Azure)));
        }
    }
    rows.sort();
    write(
        "data/regions.csv",
        &plan::cloud::regions_text(&sources.provenance()?, &rows),
    )
}

fn max_pods(sources: &Sources) -> Result<()> {
    let mut text = String::from("# SPDX-License-Identifier: Apache-2.0\n");
    for line in &sources.provenance()?.sources {
        text += &format!("# source: {line}\n");
    }
    text += &format!("# date: {}\n", sources.date);
    for (path, content) in sources.read()? {
        for line in content
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let (name, number) = line
                .split_once(' ')
                .with_context(|| format!("{}: `{line}` has no number", path.display()))?;
            text += &format!("{name},{}\n", number.trim().parse::<u32>()?);
        }
    }
    write("testdata/eni-max-pods.csv", &text)
}
