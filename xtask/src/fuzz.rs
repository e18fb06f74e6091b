// SPDX-License-Identifier: Apache-2.0
//! `./dev fuzz`: libFuzzer over the targets of `fuzz/`, on the toolchain that is there.
//!
//! The flags are those of `cargo fuzz` less the address sanitizer, so that nothing here needs a nightly: coverage, debug
//! assertions and overflow checks find what safe code can get wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::{build, run};

/// How long one target runs if nobody says.
pub(crate) const DEFAULT_SECONDS: u64 = 60;

const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Clink-dead-code",
    "--cfg=fuzzing",
];
/// Inputs are small: a configuration, a packet.
const MAX_LENGTH: &str = "-max_len=4096";
/// One input that takes longer is a finding.
const INPUT_SECONDS: &str = "-timeout=10";

/// The verb: one target or each in turn; `merge` then keeps in `fuzz/corpus` what covers something new.
pub(crate) fn run(target: Option<&str>, seconds: u64, merge: bool) -> Result<()> {
    setup::ensure(Need::Fuzz)?;
    let all = targets()?;
    let chosen = match target {
        None => all,
        Some(name) if all.iter().any(|known| known == name) => vec![name.to_owned()],
        Some(name) => bail!("no target {name}; there are {}", all.join(", ")),
    };
    let binaries = compile()?;
    for name in &chosen {
        let fuzzer = Fuzzer::new(name, binaries.join(name))?;
        fuzzer.explore(seconds)?;
        if merge {
            fuzzer.merge()?;
        }
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let dir = crate::root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn compile() -> Result<PathBuf> {
    let triple = build::host_triple()?;
    let dir = crate::root().join("target/fuzz");
    let mut cargo = run::cargo();
    cargo.args([
        "build",
        "--release",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target",
        &triple,
        "--target-dir",
    ]);
    cargo
        .arg(&dir)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    run::step("compiling the fuzzers", &mut cargo)?;
    Ok(dir.join(triple).join("release"))
}

/// One target: its seeds, which are committed, and what it found, which is not.
struct Fuzzer {
    name: String,
    binary: PathBuf,
    seeds: PathBuf,
    found: PathBuf,
}

impl Fuzzer {
    fn new(name: &str, binary: PathBuf) -> Result<Self> {
        let found = crate::root().join("target/fuzz/corpus").join(name);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let seeds = crate::root().join("fuzz/corpus").join(name);
        Ok(Self {
            name: name.to_owned(),
            binary,
            seeds,
            found,
        })
    }

    fn explore(&self, seconds: u64) -> Result<()> {
        let artifacts = crate::root().join("target/fuzz").join(format!("{}-", self.name));
        let mut fuzzer = Command::new(&self.binary);
        fuzzer.args([MAX_LENGTH, INPUT_SECONDS, "-print_final_stats=1"]);
        fuzzer.arg(format!("-max_total_time={seconds}"));
        fuzzer.arg(format!("-artifact_prefix={}", artifacts.display()));
        run::step(
            &format!("fuzz {} for {seconds} s", self.name),
            fuzzer.arg(&self.found).arg(&self.seeds),
        )?;
        let log = crate::root()
            .join("target/log")
            .join(format!("fuzz-{}-for-{seconds}-s.log", self.name));
        println!("  {}: {}", self.name, executed(&log));
        Ok(())
    }

    fn merge(&self) -> Result<()> {
        let mut fuzzer = Command::new(&self.binary);
        fuzzer
            .args(["-merge=1", MAX_LENGTH])
            .arg(&self.seeds)
            .arg(&self.found);
        run::step(&format!("merge {}", self.name), &mut fuzzer)
    }
}

fn executed(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let number = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
            .unwrap_or("?")
            .to_owned()
    };
    let coverage = text
        .lines()
        .rev()
        .find_map(|line| line.split(" cov: ").nth(1)?.split(' ').next());
    format!(
        "{} inputs, {} new, {} edges covered",
        number("stat::number_of_executed_units:"),
        number("stat::new_units_added:"),
        coverage.unwrap_or("?")
    )
}
