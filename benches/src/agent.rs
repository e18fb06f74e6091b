// SPDX-License-Identifier: Apache-2.0
//! The agent's start and memory, what its programs cost per packet, and how fast a lab is up.

use anyhow::{Context, Result};
use api::agent::ProgramView;
use connectivity::perf::Kind;
use nix::sys::signal::Signal;

use crate::load::{self, Effort, Work};
use crate::results::{Figure, ProgramCost, Spread};
use crate::subject::{Programs, Subject};

/// Pods on the node of the agent that is restarted.
const PODS: usize = 30;
/// Milliseconds from the start of its process until it is ready.
const START_GOAL: f64 = 1000.0;
/// Resident memory in MiB.
const MEMORY_GOAL: f64 = 25.0;
/// Milliseconds until a lab of three nodes and six pods is up.
const LAB_GOAL: f64 = 3000.0;

/// Restarts an agent that has pods.
pub(crate) fn starts(programs: &Programs, times: usize) -> Result<Vec<Figure>> {
    let subject = Subject::start(programs, 1, PODS)?;
    let node = subject.node()?.name;
    let mut started = Vec::new();
    for _ in 0..times {
        subject.lab.restart_agent(&node, Signal::SIGTERM)?;
        let after = subject.status(&node)?.ready_after_milliseconds;
        started.push(after.context("the agent is ready and does not say since when")? as f64);
    }
    let spread = Spread::of(started);
    let status = subject.status(&node)?;
    let memory = memory_of(status.pid)?;
    let detail = format!(
        "{PODS} pods; {:.0} to {:.0} ms in {times} starts",
        spread.min, spread.max
    );
    Ok(vec![
        figure(
            "agent: start to ready",
            spread.median,
            "ms",
            Some(START_GOAL),
            detail,
        ),
        figure(
            "agent: resident memory",
            memory.resident,
            "MiB",
            Some(MEMORY_GOAL),
            format!(
                "{} pods; {:.1} MiB of it shared with nobody",
                status.endpoints.total, memory.private
            ),
        ),
    ])
}

/// Memory in MiB.
struct Memory {
    resident: f64,
    private: f64,
}

fn memory_of(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let sum = |names: &[&str]| {
        let lines = text
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)));
        lines
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
            .sum::<f64>()
            / 1024.0
    };
    Ok(Memory {
        resident: sum(&["Rss:"]),
        private: sum(&["Private_Clean:", "Private_Dirty:"]),
    })
}

/// Starts labs, one after the other.
pub(crate) fn lab_up(programs: &Programs, times: usize) -> Result<Figure> {
    let mut took = Vec::new();
    for _ in 0..times {
        took.push(Subject::start(programs, 3, 2)?.up.as_secs_f64() * 1e3);
    }
    let spread = Spread::of(took);
    let detail = format!(
        "3 nodes, 6 pods; {:.0} to {:.0} ms in {times} starts",
        spread.min, spread.max
    );
    Ok(figure("lab up", spread.median, "ms", Some(LAB_GOAL), detail))
}

/// What each program costs during request/response, by the kernel's own clock.
pub(crate) fn programs(subject: &Subject, seconds: f64, cpu: usize) -> Result<Vec<ProgramCost>> {
    // The kernel takes times only while this descriptor is open.
    let _stats =
        aya::sys::enable_stats(aya::sys::Stats::RunTime).context("make the kernel take programs' times")?;
    let node = subject.node()?.name;
    let mut costs = Vec::new();
    for (scope, server) in [("same node", "pod-1-2"), ("across nodes", "pod-2-1")] {
        let path = subject.path("pod-1-1", server)?;
        let before = subject.status(&node)?.datapath.programs;
        let work = Work {
            kind: Kind::TcpRr,
            flows: 1,
            client_cpu: cpu,
            server_cpu: cpu,
        };
        load::rounds(&[&path], work, Effort { rounds: 1, seconds })?;
        let after = subject.status(&node)?.datapath.programs;
        costs.extend(after.iter().filter_map(|program| cost(scope, program, &before)));
    }
    Ok(costs)
}

/// Programs that hardly ran say nothing.
const FEWEST_RUNS: u64 = 1000;

fn cost(scope: &str, after: &ProgramView, before: &[ProgramView]) -> Option<ProgramCost> {
    let before = before.iter().find(|program| program.id == after.id)?;
    let runs = after.run_count.checked_sub(before.run_count)?;
    let time = after.run_time_ns.checked_sub(before.run_time_ns)?;
    (runs >= FEWEST_RUNS).then(|| ProgramCost {
        program: after.name.clone(),
        scope: scope.into(),
        nanoseconds: time as f64 / runs as f64,
        instructions: after.instructions,
    })
}

fn figure(name: &str, value: f64, unit: &str, goal: Option<f64>, detail: String) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit: unit.into(),
        goal,
        detail,
    }
}
