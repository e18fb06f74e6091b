// SPDX-License-Identifier: Apache-2.0
//! The multi-call program: agent, lab and command line.
//!
//! Each verb is a module with an argument type whose `run` does the work; this file only chooses between them. The
//! verbs that ask a running agent are in [`cli`].

mod agent;
mod cli;
mod lab;
mod operator;
mod settings;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Kubernetes networking in eBPF.
#[derive(Debug, Parser)]
#[command(name = "thalweg", version, propagate_version = false, max_term_width = 110)]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the node agent
    Agent(agent::Args),
    /// Run the cluster's operator, which hands address pools to nodes
    Operator(operator::Args),
    /// Make cluster networks on this machine
    Lab(lab::Args),
    #[command(flatten)]
    Cli(cli::Verb),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

fn main() -> ExitCode {
    match run(Program::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> anyhow::Result<ExitCode> {
    match program.verb {
        Verb::Agent(args) => args.run(),
        Verb::Operator(args) => args.run(),
        Verb::Lab(args) => args.run(),
        Verb::Cli(verb) => verb.run(),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Program::command(), "thalweg", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Verb::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Program::command()).render(&mut page)?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}

/// Prints to standard output. A reader that has gone away (`thalweg … | head`) is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    use io::Write as _;
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[expect(clippy::print_stderr, reason = "this is where a program's errors go")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", telemetry::log::with_causes(error.as_ref()));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Program::command().debug_assert();
    }
}
