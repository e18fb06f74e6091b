// SPDX-License-Identifier: Apache-2.0
//! How long the doctor and the planner take to answer.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::results::{Figure, Spread};
use crate::subject::{Programs, Subject};

/// Milliseconds in which the doctor looks at a healthy lab of three nodes.
const DOCTOR_GOAL: f64 = 2000.0;
/// Milliseconds in which three regions with a hundred clusters each are planned.
const PLAN_GOAL: f64 = 1000.0;
const REGIONS: [&str; 3] = ["eu-central-1", "us-east-1", "ap-southeast-1"];
const CLUSTERS: usize = 100;

/// Looks at a healthy lab, in which nothing may be found.
pub(crate) fn doctor(programs: &Programs, times: usize) -> Result<Figure> {
    let subject = Subject::start(programs, 3, 2)?;
    let arguments = ["doctor", "--lab", subject.lab.name(), "-o", "json"];
    let mut checks = 0;
    let took = timed(&programs.thalweg, &arguments, times, |report| {
        let findings = &report["findings"];
        checks = report["passed"].as_array().map_or(0, Vec::len);
        ensure!(
            findings.as_array().is_some_and(Vec::is_empty),
            "the lab is not healthy, the figure is void: {findings}"
        );
        Ok(())
    })?;
    let what = format!("nothing found, {checks} checks passed");
    Ok(figure("doctor: healthy lab of 3 nodes", took, DOCTOR_GOAL, &what))
}

/// Plans many clusters from one file.
pub(crate) fn plan(programs: &Programs, times: usize) -> Result<Figure> {
    let file = std::env::temp_dir().join(format!("thalweg-bench-{}.yaml", std::process::id()));
    std::fs::write(&file, platform()).with_context(|| format!("write {}", file.display()))?;
    let path = file.to_string_lossy();
    let took = timed(
        &programs.thalweg,
        &["platform", "plan", &path, "-o", "json"],
        times,
        |plan| {
            let planned = plan["clusters"].as_array().map_or(0, Vec::len);
            ensure!(
                planned == REGIONS.len() * CLUSTERS,
                "{planned} clusters were planned"
            );
            Ok(())
        },
    );
    // A file that stays in a directory for such files does no harm.
    let _ = std::fs::remove_file(&file);
    let what = format!("{} regions with {CLUSTERS} clusters each", REGIONS.len());
    Ok(figure("platform plan", took?, PLAN_GOAL, &what))
}

fn platform() -> String {
    let mut text = String::from(
        "name: bench\npools: {networks: [10.0.0.0/9], services: [10.128.0.0/9]}\ndefaults: {cloud: aws, kubernetes: '1.33', mode: eni}\nclusters:\n",
    );
    for region in REGIONS {
        for number in 0..CLUSTERS {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  - {{name: {region}-{number}, region: {region}, nodeGroups: [{{name: w, instanceTypes: [m5.large], max: 20}}]}}"
            );
        }
    }
    text
}

/// The program's time from start to end, in milliseconds, with each answer looked at.
fn timed(
    program: &Path,
    arguments: &[&str],
    times: usize,
    mut look: impl FnMut(&Value) -> Result<()>,
) -> Result<Spread> {
    let mut took = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        let output = Command::new(program).args(arguments).output()?;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        look(&serde_json::from_slice(&output.stdout)?)?;
    }
    Ok(Spread::of(took))
}

fn figure(name: &str, took: Spread, goal: f64, what: &str) -> Figure {
    Figure {
        name: name.into(),
        value: took.median,
        unit: "ms".into(),
        goal: Some(goal),
        detail: format!("{what}; {:.0} to {:.0} ms", took.min, took.max),
    }
}
