// SPDX-License-Identifier: Apache-2.0
//! `thalweg capacity`

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use aws::Call;
use plan::cloud::{self, Cloud};
use plan::data::{Age, Provenance, STALE_AFTER_MONTHS};
use plan::date::Date;
use plan::price::{self, Price};
use plan::refresh::{Answer, Comparison};
use plan::{Capacity, InstanceTable, Mode, Network, Request};
use serde::Serialize;

use super::cloud::AwsArgs;

mod render;
mod space;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    #[value(alias = "text")]
    Table,
    /// For programs
    Json,
    /// Bars
    Chart,
}

/// `thalweg capacity`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0, all questions have an answer (which may be \"unknown\"); 1, some are refused; 2, \
                        the command line makes no sense."
)]
pub(crate) struct Args {
    /// Instance types, such as m5.large or Standard_D4s_v5
    #[arg(
        short = 't',
        long = "instance-type",
        value_name = "TYPES",
        value_delimiter = ','
    )]
    types: Vec<String>,
    /// Modes: eni, eni-prefix, eni-overflow, overlay, azure-overlay, azure-pod-subnet, azure-node-subnet, gke, pod-cidr;
    /// all that fit if none is named
    #[arg(short, long = "mode", value_name = "MODES", value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Networks: thalweg, vpc-cni, cilium, azure, gke
    #[arg(
        long = "cni",
        value_name = "NETWORKS",
        value_delimiter = ',',
        default_value = "thalweg"
    )]
    networks: Vec<Network>,
    /// The kubelet's --max-pods, if it is not the recommended one
    #[arg(long, value_name = "NUMBER")]
    max_pods: Option<u32>,
    /// Size of each node's range of the pod CIDR
    #[arg(long, value_name = "BITS")]
    node_mask: Option<u8>,
    /// Interfaces that pods may not use: 1 with the VPC CNI's custom networking
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    reserved_interfaces: u16,
    /// Say what a pod costs in this region, where there is a dated price list; with --refresh-from-aws, whose limits are asked for
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    #[command(flatten)]
    space: space::SpaceArgs,
    #[command(flatten)]
    data: DataArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Write the chart to this file, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Whose limits count.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("newer").args(["refresh", "refresh_from_aws"])))]
struct DataArgs {
    /// Take newer limits from an answer of `aws ec2 describe-instance-types`; - reads standard input
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    refresh: Option<PathBuf>,
    /// Take newer limits from EC2 itself, in the region of --region, the environment or the profile; nothing is changed
    #[arg(long, conflicts_with = "refresh", help_heading = "Data")]
    refresh_from_aws: bool,
    #[command(flatten)]
    aws: AwsArgs,
    /// The day of that answer [default: the file's own, or today]
    #[arg(long, value_name = "YYYY-MM-DD", requires = "refresh", help_heading = "Data")]
    answered: Option<Date>,
    /// Write the limits with the answer's to this file
    #[arg(long, value_name = "FILE", requires = "newer", help_heading = "Data")]
    save: Option<PathBuf>,
    /// Use limits that --save wrote instead of those that this version ships
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Warn when data are this many months old
    #[arg(long, value_name = "MONTHS", default_value_t = STALE_AFTER_MONTHS, help_heading = "Data")]
    stale_after: u32,
}

/// One answer, with what it costs.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    capacity: Capacity,
    /// What the machine is called, also where the mode does not depend on it.
    machine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
    /// US dollars a month of 730 hours, for each pod that can run.
    #[serde(skip_serializing_if = "Option::is_none")]
    usd_per_pod_month: Option<f64>,
}

/// A question without an answer.
#[derive(Debug, Serialize)]
struct Refused {
    machine: Option<String>,
    mode: Mode,
    network: Network,
    reason: String,
    /// Whether it was asked for by name.
    #[serde(skip)]
    asked: bool,
}

/// A source with its age.
#[derive(Debug, Serialize)]
struct Dated {
    what: &'static str,
    #[serde(flatten)]
    provenance: Provenance,
    #[serde(flatten)]
    age: Age,
}

/// All that is printed.
#[derive(Debug, Serialize)]
struct Report {
    data: Vec<Dated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<Comparison>,
    capacity: Vec<Row>,
    refused: Vec<Refused>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    space: Vec<space::Outlook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

const HOURS_PER_MONTH: f64 = 730.0;

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let today = today()?;
        let (table, comparison) = self.data.table(today, self.region.as_deref()).await?;
        if let Some(path) = &self.data.save {
            write(path, &table.to_text())?;
        }
        let cloud = self.cloud();
        if let Some(region) = &self.region {
            cloud::check_region(cloud, region)?;
        }
        let mut report = Report {
            data: self.provenances(&table, cloud, today)?,
            refresh: comparison,
            capacity: Vec::new(),
            refused: Vec::new(),
            space: Vec::new(),
            notes: self.machine_notes(cloud)?,
        };
        for (network, mode, asked) in self.questions(cloud)? {
            self.ask(&table, cloud, (network, mode, asked), &mut report)?;
        }
        if report.capacity.is_empty() && report.refused.is_empty() && report.refresh.is_none() {
            bail!(
                "nothing is asked: name an instance type (-t m5.large), a mode (--mode gke) or an answer to --refresh"
            );
        }
        report.space = self
            .space
            .outlooks(&report.capacity, &table, self.reserved_interfaces)?;
        if let Some(path) = &self.svg {
            write(path, &render::svg(&report))?;
        }
        render::print(self.output, &report)?;
        let refused = report.refused.iter().any(|refused| refused.asked);
        Ok(if refused {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    /// The cloud that the modes, or else the types' names, are of.
    fn cloud(&self) -> Cloud {
        let of_modes = self.modes.iter().find_map(|mode| mode.cloud());
        let azure = || {
            self.types
                .first()
                .is_some_and(|name| name.starts_with("Standard_"))
                .then_some(Cloud::Azure)
        };
        of_modes.or_else(azure).unwrap_or(Cloud::Aws)
    }

    /// Which network in which mode, and whether the mode was named.
    fn questions(&self, cloud: Cloud) -> anyhow::Result<Vec<(Network, Mode, bool)>> {
        let mut questions = Vec::new();
        for network in &self.networks {
            if !self.modes.is_empty() {
                questions.extend(self.modes.iter().map(|mode| (*network, *mode, true)));
                continue;
            }
            if self.types.is_empty() {
                continue;
            }
            let fits = |mode: &Mode| mode.cloud().is_none_or(|of| of == cloud);
            let modes: Vec<Mode> = network.modes().into_iter().filter(fits).collect();
            if modes.is_empty() {
                bail!("{network} has no mode on {cloud}; name a mode or another network with --cni");
            }
            questions.extend(modes.into_iter().map(|mode| (*network, mode, false)));
        }
        Ok(questions)
    }

    fn ask(
        &self,
        table: &InstanceTable,
        cloud: Cloud,
        (network, mode, asked): (Network, Mode, bool),
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let machines: Vec<Option<&str>> = if self.types.is_empty() {
            vec![None]
        } else {
            self.types.iter().map(|name| Some(name.as_str())).collect()
        };
        let cloud = mode.cloud().unwrap_or(cloud);
        for machine in machines {
            // A type of AWS is one in every question, so that other clouds' modes refuse it.
            let instance = match machine.map(|name| table.get(name)) {
                Some(Ok(instance)) => Some(instance),
                Some(Err(unknown)) if cloud == Cloud::Aws => return Err(unknown.into()),
                Some(Err(_)) | None => None,
            };
            match plan::capacity(instance, &self.request(network, mode)) {
                Ok(capacity) => {
                    let row = self.priced(cloud, capacity, machine)?;
                    report.capacity.push(row);
                }
                Err(error) => report.refused.push(Refused {
                    machine: machine.map(str::to_owned),
                    mode,
                    network,
                    reason: error.to_string(),
                    asked,
                }),
            }
        }
        Ok(())
    }

    fn request(&self, network: Network, mode: Mode) -> Request {
        Request {
            max_pods: self.max_pods,
            node_mask: self.node_mask,
            reserved_interfaces: self.reserved_interfaces,
            ..Request::new(mode, network)
        }
    }

    fn priced(&self, cloud: Cloud, capacity: Capacity, machine: Option<&str>) -> anyhow::Result<Row> {
        let price = match (&self.region, machine) {
            (Some(region), Some(machine)) => Some(price::price(cloud, machine, region)?),
            _ => None,
        };
        let dollars = price.as_ref().and_then(Price::usd_per_hour);
        let pods = capacity.pods.filter(|pods| *pods > 0);
        Ok(Row {
            usd_per_pod_month: dollars
                .zip(pods)
                .map(|(usd, pods)| usd * HOURS_PER_MONTH / f64::from(pods)),
            machine: machine.map(str::to_owned),
            capacity,
            price,
        })
    }

    fn provenances(&self, table: &InstanceTable, cloud: Cloud, today: Date) -> anyhow::Result<Vec<Dated>> {
        let dated = |what, provenance: &Provenance| Dated {
            what,
            age: provenance.age(today, self.data.stale_after),
            provenance: provenance.clone(),
        };
        let mut found = Vec::new();
        if cloud == Cloud::Aws {
            found.push(dated("instance limits", table.provenance()));
        }
        if self.region.is_some()
            && let Some(prices) = price::PriceTable::shipped(cloud)?
        {
            found.push(dated("prices", prices.provenance()));
        }
        Ok(found)
    }

    /// What is to be said of machines that no table of limits holds.
    fn machine_notes(&self, cloud: Cloud) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        if cloud == Cloud::Azure {
            for name in &self.types {
                notes.extend(price::unlisted(cloud, name)?);
            }
        } else if cloud != Cloud::Aws && !self.types.is_empty() {
            notes.push(format!(
                "no list of machine types of {cloud} is shipped: names are not checked; pods per node do not depend on them"
            ));
        }
        Ok(notes)
    }
}

impl DataArgs {
    async fn table(
        &self,
        today: Date,
        region: Option<&str>,
    ) -> anyhow::Result<(InstanceTable, Option<Comparison>)> {
        let table = match &self.data {
            Some(path) => InstanceTable::parse(&read(path)?).with_context(|| path.display().to_string())?,
            None => InstanceTable::shipped()?,
        };
        let (answer, date) = if self.refresh_from_aws {
            let answer = self.aws.client(region)?.ask(&Call::DescribeInstanceTypes).await?;
            (Answer::parse(&answer.to_string())?, today)
        } else if let Some(path) = &self.refresh {
            let answer = Answer::parse(&read(path)?).with_context(|| path.display().to_string())?;
            let written = || modified(path).unwrap_or(today);
            (answer, self.answered.unwrap_or_else(written))
        } else {
            return Ok((table, None));
        };
        if date > today {
            bail!("the answer's day {date} is after today, {today}; correct --answered or the clock");
        }
        let (table, comparison) = plan::refresh::refresh(&table, &answer, date);
        Ok((table, Some(comparison)))
    }
}

fn modified(path: &Path) -> Option<Date> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    Some(Date::from_unix_seconds(
        time.duration_since(UNIX_EPOCH).ok()?.as_secs(),
    ))
}

fn today() -> anyhow::Result<Date> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(Date::from_unix_seconds(now.as_secs()))
}

/// A file's text, or standard input's for `-`.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
