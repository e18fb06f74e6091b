// SPDX-License-Identifier: Apache-2.0
//! `thalweg connectivity perf`

use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use ::connectivity::perf::Kind;
use ::connectivity::throughput::{self, Figure, Measure, PathKind};
use comfy_table::Cell;
use indicatif::ProgressBar;
use model::Family;

use super::BedArgs;
use crate::cli::output::{self, Format, Text};

/// `thalweg connectivity perf`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to measure; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::TcpRr, Kind::UdpRr, Kind::TcpCrr, Kind::TcpStream])]
    kind: Vec<Kind>,
    /// Between whom; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [PathKind::SameNode, PathKind::OtherNode])]
    path: Vec<PathKind>,
    /// Connections at once
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    flows: usize,
    /// Seconds for each figure
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    duration: f64,
    /// Over IPv6
    #[arg(long)]
    ipv6: bool,
    #[command(flatten)]
    bed: BedArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Less shows nothing, and nobody waits for more.
const DURATIONS: RangeInclusive<f64> = 0.1..=3600.0;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| DURATIONS.contains(seconds));
    let expected = || format!("a number from {} to {}", DURATIONS.start(), DURATIONS.end());
    seconds.ok_or_else(expected)
}

impl Args {
    /// Runs the verb.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let what = Measure {
            kinds: self.kind,
            flows: self.flows.max(1),
            seconds: self.duration,
            family: if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 },
            paths: self.path,
        };
        let figures = self.bed.with_bed(async |bed| {
            let bar = spinner();
            let figures = throughput::measure(bed, &what, |path, kind| {
                bar.set_message(format!("{} {path:?}", kind.label()));
            });
            let figures = figures.await?;
            bar.finish_and_clear();
            Ok(figures)
        });
        let figures = figures.await?;
        match self.output {
            Format::Json => output::json(&figures)?,
            Format::Text => output::print(&table(&figures).0)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn table(figures: &[Figure]) -> Text {
    let columns = [
        "CLIENT", "SERVER", "TEST", ">FLOWS", ">RATE", "", ">P50 µs", ">P99 µs",
    ];
    let mut table = output::table(&columns);
    for Figure {
        client,
        server,
        report,
        ..
    } in figures
    {
        let (rate, unit) = match report.gbit_per_second {
            Some(rate) => (format!("{rate:.2}"), "Gbit/s"),
            None => (format!("{:.0}", report.rate()), "per second"),
        };
        let microseconds =
            |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.1}"));
        table.add_row(vec![
            Cell::new(client),
            Cell::new(server),
            Cell::new(report.kind.label()),
            Cell::new(report.flows),
            Cell::new(rate),
            Cell::new(unit),
            Cell::new(microseconds(report.latency.map(|latency| latency.p50_us))),
            Cell::new(microseconds(report.latency.map(|latency| latency.p99_us))),
        ]);
    }
    Text::from(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_one_that_somebody_waits_for() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "1e30", "long"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
