// SPDX-License-Identifier: Apache-2.0
//! One emulated machine: boots, reads what the scenario says on the serial line, and is gone.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::packages::Kernel;
use crate::run;

/// A machine that takes longer is stuck.
const TIME_LIMIT: Duration = Duration::from_secs(400);
const MEMORY: &str = "1024M";
const LOG_LINES: usize = 60;
/// What the scenario prints for us begins so; fields are separated by bars.
const MARK: char = '@';

/// What to boot.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) kernel: &'static Kernel,
    pub(super) vmlinuz: PathBuf,
    pub(super) initramfs: PathBuf,
}

/// One step of the scenario.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) passed: bool,
    pub(super) seconds: f64,
}

/// What the scenario said.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) series: &'static str,
    pub(super) debian: &'static str,
    /// As Debian numbers it.
    pub(super) version: String,
    /// eBPF programs of ours that were loaded.
    pub(super) programs: Option<usize>,
    pub(super) steps: Vec<Step>,
    /// The scenario came to its end.
    pub(super) ended: bool,
    pub(super) seconds: f64,
}

impl Outcome {
    /// Every step passed, to the end.
    pub(super) fn passed(&self) -> bool {
        self.ended && !self.steps.is_empty() && self.steps.iter().all(|step| step.passed)
    }

    fn read(&mut self, line: &str) {
        let Some(message) = line.trim().strip_prefix(MARK) else {
            return;
        };
        match message.split('|').collect::<Vec<_>>().as_slice() {
            ["kernel", version] => (*version).clone_into(&mut self.version),
            ["programs", count] => self.programs = count.parse().ok(),
            ["step", name, verdict, seconds] => self.steps.push(Step {
                name: (*name).to_owned(),
                passed: *verdict == "ok",
                seconds: seconds.parse().unwrap_or_default(),
            }),
            ["end"] => self.ended = true,
            _ => {}
        }
    }
}

/// Boots the machine and follows it to its end.
pub(super) fn boot(machine: &Machine, verbose: bool) -> Result<Outcome> {
    let start = Instant::now();
    let series = machine.kernel.series;
    let mut child = qemu(machine).spawn().context("cannot run qemu-system-x86_64")?;
    let lines = follow(&mut child)?;
    let mut outcome = Outcome {
        series,
        debian: machine.kernel.debian,
        version: String::new(),
        programs: None,
        steps: Vec::new(),
        ended: false,
        seconds: 0.0,
    };
    let mut log = String::new();
    let mut reason = "it stopped before the end";
    loop {
        match lines.recv_timeout(TIME_LIMIT.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if verbose {
                    eprintln!("[{series}] {line}");
                }
                outcome.read(&line);
                log.push_str(&line);
                log.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                reason = "it took too long";
                child.kill().context("cannot stop qemu")?;
                break;
            }
        }
    }
    child.wait().context("cannot wait for qemu")?;
    outcome.seconds = start.elapsed().as_secs_f64();
    if !outcome.ended {
        eprintln!("  kernel {series}: {reason}");
    }
    if !outcome.passed() && !verbose {
        eprintln!(
            "  kernel {series}, the end of what it printed:\n{}",
            run::tail(&log, LOG_LINES)
        );
    }
    Ok(outcome)
}

fn qemu(machine: &Machine) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        MEMORY,
    ]);
    qemu.args([
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-nic",
        "none",
    ]);
    qemu.args([
        "-append",
        "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on",
    ]);
    qemu.arg("-kernel")
        .arg(&machine.vmlinuz)
        .arg("-initrd")
        .arg(&machine.initramfs);
    qemu.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    qemu
}

/// The lines of both of its streams; the channel closes when the machine is off.
fn follow(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().context("qemu has no stdout")?);
    let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().context("qemu has no stderr")?);
    for stream in [stdout, stderr] {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome {
            series: "6.1",
            debian: "12 bookworm",
            version: String::new(),
            programs: None,
            steps: Vec::new(),
            ended: false,
            seconds: 0.0,
        };
        lines.iter().for_each(|line| outcome.read(line));
        outcome
    }

    #[test]
    fn a_scenario_that_ends_with_good_steps_passed() {
        let outcome = outcome(&[
            "noise",
            "@kernel|6.1.1-1",
            "@programs|4",
            "@step|ping|ok|0.25\r",
            "@end",
        ]);
        assert!(outcome.passed());
        assert_eq!((outcome.version.as_str(), outcome.programs), ("6.1.1-1", Some(4)));
        assert_eq!(
            outcome.steps,
            [Step {
                name: "ping".into(),
                passed: true,
                seconds: 0.25
            }]
        );
    }

    #[test]
    fn a_failed_step_fails_the_kernel() {
        assert!(!outcome(&["@step|a|ok|1", "@step|b|FAILED|1", "@end"]).passed());
    }

    #[test]
    fn a_machine_that_dies_half_way_failed() {
        assert!(!outcome(&["@step|a|ok|1"]).passed());
        assert!(!outcome(&["@end"]).passed(), "and so did one that did nothing");
    }
}
