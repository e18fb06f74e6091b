// SPDX-License-Identifier: Apache-2.0
//! `./dev test`: five levels, one summary.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::{build, kernels, run};

/// A test that cannot run here prints a line that begins so, and why.
const SKIP_MARK: &str = "SKIPPED:";
const STORY: &str = "test(/story/) + binary(stories)";
const DATAPATH: &str = "package(thalweg-tests-datapath)";
const NETNS: &str = "package(thalweg-tests-netns)";

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Logic, codecs, corpora: no privilege.
    Unit,
    /// Objects in, desired rows out: no privilege.
    Story,
    /// Programs and packets by `BPF_PROG_TEST_RUN`: root.
    Datapath,
    /// Agents and traffic in namespaces: root.
    Netns,
    /// The shipped programs on other kernels.
    Kernels,
    /// All of them.
    All,
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The verb.
pub(crate) fn run(level: Level, arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    setup::ensure(Need::Test)?;
    if matches!(level, Level::Kernels | Level::All) {
        setup::ensure(Need::Kernels)?;
    }
    let mut counts = Counts::default();
    if level != Level::Kernels {
        counts += nextest(level, arguments)?;
    }
    if matches!(level, Level::Kernels | Level::All) {
        counts += kernels::test()?;
    }
    println!("\ntook {} s", start.elapsed().as_secs());
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if counts.failed > 0 || counts.passed == 0 {
        bail!("the tests failed");
    }
    Ok(())
}

fn nextest(level: Level, arguments: &[String]) -> Result<Counts> {
    let mut command = run::cargo();
    command.args(["nextest", "run", "--workspace", "--locked", "--no-tests", "warn"]);
    let filter = match level {
        Level::Unit => format!("not ({STORY} + {DATAPATH} + {NETNS})"),
        Level::Story => STORY.to_owned(),
        Level::Datapath => DATAPATH.to_owned(),
        Level::Netns => NETNS.to_owned(),
        Level::Kernels | Level::All => "all()".to_owned(),
    };
    command.args(["-E", &filter]).args(arguments);
    if matches!(level, Level::Netns | Level::All) {
        let programs = build::release()?;
        command
            .env("THALWEG_BIN", programs.thalweg)
            .env("THALWEG_CNI_BIN", programs.cni);
    }
    privileges(level, &mut command)?;
    let junit = crate::root().join("target/nextest/default/junit.xml");
    let _ = fs::remove_file(&junit);
    let mut compile = run::cargo();
    compile.args(["nextest", "run", "--workspace", "--locked", "--no-run"]);
    run::step("compiling the tests", &mut compile)?;
    let status = run::status(&mut command)?;
    let counts = read_junit(&junit)?;
    if !status.success() && counts.failed == 0 {
        bail!("cargo nextest failed ({status})");
    }
    Ok(counts)
}

/// Who is root, or in CI, is owed every test: what lacks a privilege fails there. Others go through sudo if it asks
/// nothing.
fn privileges(level: Level, command: &mut std::process::Command) -> Result<()> {
    if run::is_root() || std::env::var_os("CI").is_some() {
        command.env("REQUIRE_PRIVILEGED", "1");
    }
    let privileged = matches!(level, Level::Datapath | Level::Netns | Level::All);
    let sudo = || run::output(std::process::Command::new("sudo").args(["-n", "true"])).is_ok();
    if privileged && !run::is_root() && sudo() {
        let triple = build::host_triple()?.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo -E");
        command.env("REQUIRE_PRIVILEGED", "1");
    }
    Ok(())
}

fn read_junit(path: &Path) -> Result<Counts> {
    // Nothing matched the filter: nextest writes no report.
    if !path.exists() {
        return Ok(Counts::default());
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    count(&text).with_context(|| format!("{} is not a report of nextest's", path.display()))
}

/// Counts from a report: a passed test that says it skipped counts as skipped.
fn count(junit: &str) -> Option<Counts> {
    let totals = junit.split("<testsuites").nth(1)?.split('>').next()?;
    let number = |name: &str| -> Option<usize> {
        totals
            .split(&format!(" {name}=\""))
            .nth(1)?
            .split('"')
            .next()?
            .parse()
            .ok()
    };
    let failed = number("failures")? + number("errors")?;
    let said_skip = |case: &&str| case.lines().any(|line| strip_tags(line).starts_with(SKIP_MARK));
    let skipped = junit.split("<testcase").skip(1).filter(said_skip).count();
    Some(Counts {
        passed: number("tests")?.saturating_sub(failed + skipped),
        failed,
        skipped,
    })
}

fn strip_tags(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with('<') {
        line.split_once('>').map_or(line, |(_, rest)| rest)
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="x" time="0.0">
    <testsuite name="a" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="fine" classname="a"><system-out>ok</system-out></testcase>
        <testcase name="skips" classname="a">
            <system-err>SKIPPED: needs root
</system-err>
        </testcase>
        <testcase name="fails" classname="a"><failure type="test failure"/></testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn a_skip_is_counted_as_a_skip_and_not_as_a_pass() {
        assert_eq!(
            count(REPORT),
            Some(Counts {
                passed: 1,
                failed: 1,
                skipped: 1
            })
        );
    }

    #[test]
    fn something_else_is_not_a_report() {
        assert_eq!(count("<html>"), None);
    }
}
