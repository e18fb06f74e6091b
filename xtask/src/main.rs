// SPDX-License-Identifier: Apache-2.0
//! What `./dev` runs: set-up, builds, tests, checks. One module per verb.
//!
//! It is not a build system: cargo builds. Start at [`main`].
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod build;
mod check;
mod clean;
mod fuzz;
mod generate;
mod kernels;
mod lab;
mod run;
mod setup;
mod test;
mod tidy;

/// Thalweg's tasks.
#[derive(Debug, Parser)]
#[command(name = "./dev", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what a verb needs (all of them if none is named).
    Setup { verb: Option<setup::Need> },
    /// Build the static programs into target/release.
    Build,
    /// Run the tests.
    Test {
        #[arg(default_value = "all")]
        level: test::Level,
        /// Arguments for cargo nextest, after `--`.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// fmt, clippy, tidy, cargo deny.
    Check,
    /// The project's own rules only.
    Tidy,
    /// Run the benchmarks.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the shipped programs on Debian's kernels in QEMU.
    Kernels(kernels::Arguments),
    /// Start a lab.
    Lab {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz one target, or each in turn.
    Fuzz {
        target: Option<String>,
        #[arg(default_value_t = fuzz::DEFAULT_SECONDS)]
        seconds: u64,
        /// Afterwards keep in fuzz/corpus what covers something new.
        #[arg(long)]
        merge: bool,
    },
    /// Write the planner's data files from published sources.
    Gen {
        #[command(subcommand)]
        target: generate::Target,
    },
    /// Remove what was built; downloaded kernels stay unless `--all`.
    Clean {
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup { verb } => setup::run(verb),
        Verb::Build => build::run(),
        Verb::Test { level, nextest } => test::run(level, &nextest),
        Verb::Check => check::run(),
        Verb::Tidy => tidy::run(),
        Verb::Bench { arguments } => lab::bench(&arguments),
        Verb::Kernels(arguments) => kernels::run(&arguments),
        Verb::Lab { arguments } => lab::run(&arguments),
        Verb::Fuzz {
            target,
            seconds,
            merge,
        } => fuzz::run(target.as_deref(), seconds, merge),
        Verb::Gen { target } => generate::run(&target),
        Verb::Clean { all } => clean::run(all),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
