// SPDX-License-Identifier: Apache-2.0
//! Benchmarks by paired ratios: `./dev bench`.
//!
//! Subject and reference take turns in one run, with both ends on one CPU, so that a rate is the reciprocal of the whole
//! cost of a transaction. Everything is in namespaces that this process alone holds, or in labs that end with it.

mod agent;
mod answers;
mod attach;
mod cni;
mod conditions;
mod document;
mod kube_proxy;
mod load;
mod namespace;
mod rates;
mod reference;
mod report;
mod results;
mod services;
mod subject;
mod svg;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::load::Effort;
use crate::results::Results;
use crate::subject::{Programs, Subject};

/// Benchmarks by paired ratios
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make load; this program starts itself so
    #[command(hide = true)]
    Perf(connectivity::perf::args::Args),
}

#[derive(Debug, clap::Args)]
struct Bench {
    /// Only groups whose name contains this: rates, tunnels, world, services, cni, agent, programs,
    /// lab, doctor, planner
    #[arg(long, value_name = "TEXT")]
    group: Option<String>,
    /// Only rates whose name contains this, such as `same node TCP_RR 1 cpu`
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// A few short rounds: shows that everything runs, not what it is worth
    #[arg(long)]
    quick: bool,
    /// Rounds
    #[arg(long, value_name = "NUMBER", default_value_t = 6)]
    rounds: usize,
    /// Seconds per measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// How many services there are, for each run of that group
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    services: Vec<u32>,
    /// The CPUs: the client's when the ends are apart, and the one of everything else
    #[arg(long, value_name = "CPU,CPU", value_delimiter = ',', num_args = 2, default_values_t = [0, 1])]
    cpus: Vec<usize>,
    /// Where the figures go, as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "target/bench.svg")]
    svg: PathBuf,
    /// Write figures and picture into the documents
    #[arg(long)]
    update: bool,
    /// The program under test
    #[arg(
        long,
        env = "THALWEG_BIN",
        value_name = "FILE",
        default_value = "target/release/thalweg"
    )]
    thalweg: PathBuf,
    /// The plugin under test
    #[arg(
        long,
        env = "THALWEG_CNI_BIN",
        value_name = "FILE",
        default_value = "target/release/thalweg-cni"
    )]
    plugin: PathBuf,
}

/// What `--update` writes.
const DOCUMENT: &str = "docs/benchmarks.md";
const PICTURE: &str = "docs/benchmarks.svg";
const FIGURES: &str = "docs/benchmarks.json";

fn main() -> Result<()> {
    let Program { verb, bench } = Program::parse();
    match verb {
        Some(Verb::Perf(args)) => Ok(args.run(&mut io::stdout().lock())?),
        None => bench.run(),
    }
}

impl Bench {
    fn run(self) -> Result<()> {
        let effort = if self.quick {
            Effort {
                rounds: 2,
                seconds: 0.3,
            }
        } else {
            Effort {
                rounds: self.rounds,
                seconds: self.seconds,
            }
        };
        let results = self.measure(effort)?;
        let committed = committed();
        say(&format!("\n{}", report::terminal(&results, committed.as_ref())))?;
        write_file(&self.json, &serde_json::to_string_pretty(&results)?)?;
        write_file(&self.svg, &svg::draw(&results))?;
        if self.update {
            document::update(Path::new(DOCUMENT), &results)?;
            write_file(Path::new(PICTURE), &svg::draw(&results))?;
            write_file(
                Path::new(FIGURES),
                &format!("{}\n", serde_json::to_string_pretty(&results)?),
            )?;
        }
        Ok(())
    }

    fn measure(&self, effort: Effort) -> Result<Results> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "benchmarks make network namespaces: run them as root"
        );
        let [first, second] = self.cpus.as_slice() else {
            anyhow::bail!("--cpus takes two numbers")
        };
        let cpus = [*first, *second];
        let programs = Programs {
            thalweg: absolute(&self.thalweg)?,
            cni: absolute(&self.plugin)?,
        };
        let mut results = Results {
            conditions: conditions::conditions(effort, cpus),
            ..Results::default()
        };
        if self.wants("lab") {
            say("lab up")?;
            results
                .figures
                .push(agent::lab_up(&programs, if self.quick { 1 } else { 5 })?);
        }
        if self.wants("agent") {
            say("agent: start and memory")?;
            results
                .figures
                .extend(agent::starts(&programs, if self.quick { 2 } else { 7 })?);
        }
        if self.wants("world") {
            let compared = rates::compare_masquerade(&programs, effort, cpus, |name| self.wants_rate(name));
            results.comparisons.extend(compared?);
        }
        if self.wants("services") {
            for count in self.services.iter().copied() {
                let compared =
                    rates::compare_services(&programs, count, effort, cpus, |name| self.wants_rate(name));
                results.comparisons.extend(compared?);
            }
        }
        let times = if self.quick { 2 } else { 10 };
        if self.wants("doctor") {
            say("doctor")?;
            results.figures.push(answers::doctor(&programs, times)?);
        }
        if self.wants("planner") {
            say("planner")?;
            results.figures.push(answers::plan(&programs, times)?);
        }
        if ["rates", "tunnels", "cni", "programs"]
            .iter()
            .any(|group| self.wants(group))
        {
            let subject = Subject::start(&programs, 2, 2)?;
            self.on_a_lab(&subject, &programs, effort, cpus, &mut results)?;
        }
        Ok(results)
    }

    fn on_a_lab(
        &self,
        subject: &Subject,
        programs: &Programs,
        effort: Effort,
        cpus: [usize; 2],
        results: &mut Results,
    ) -> Result<()> {
        if self.wants("cni") {
            say("CNI ADD and DEL")?;
            let effort = attach::Effort {
                sequential: if self.quick { 10 } else { 100 },
                rounds: if self.quick { 1 } else { 5 },
            };
            let (comparisons, figures) = attach::measure(subject, programs, effort)?;
            results.comparisons.extend(comparisons);
            results.figures.extend(figures);
        }
        let wanted = |name: &str| self.wants_rate(name);
        if self.wants("rates") {
            results
                .comparisons
                .extend(rates::compare(subject, effort, cpus, wanted)?);
        }
        if self.wants("tunnels") {
            let compared = rates::compare_tunnels(subject, programs, effort, cpus, wanted);
            results.comparisons.extend(compared?);
        }
        if self.wants("programs") {
            say("programs")?;
            results.programs = agent::programs(subject, effort.seconds, cpus[1])?;
        }
        Ok(())
    }

    fn wants(&self, group: &str) -> bool {
        self.group
            .as_ref()
            .is_none_or(|wanted| group.contains(wanted.as_str()))
    }

    /// Whether a rate is to be measured; says so.
    fn wants_rate(&self, name: &str) -> bool {
        let wanted = self
            .filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()));
        if wanted {
            // Whether anybody sees the progress is no reason to stop.
            let _ = say(name);
        }
        wanted
    }
}

/// The figures of the last `--update`.
fn committed() -> Option<Results> {
    serde_json::from_str(&std::fs::read_to_string(FIGURES).ok()?).ok()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("{} is not there; `./dev build` makes it", path.display()))
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}
