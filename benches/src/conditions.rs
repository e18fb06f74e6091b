// SPDX-License-Identifier: Apache-2.0
//! Under what a run was made: figures without this mean nothing.

use std::process::Command;

use crate::load::Effort;

/// Name and value of each condition.
pub(crate) fn conditions(effort: Effort, cpus: [usize; 2]) -> Vec<(String, String)> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1));
    let memory = read("/proc/meminfo")
        .lines()
        .next()
        .unwrap_or_default()
        .replace("MemTotal:", "");
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    [
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "Thalweg",
            format!("{} at {}", env!("CARGO_PKG_VERSION"), revision()),
        ),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        (
            "CPU",
            format!(
                "{}, {available} of them; both ends on {}, or on {} and {}",
                model.unwrap_or("unknown"),
                cpus[1],
                cpus[0],
                cpus[1]
            ),
        ),
        ("memory", memory.trim().to_owned()),
        ("load before", read("/proc/loadavg")),
        (
            "rounds",
            format!("{} of {} s each, in turn", effort.rounds, effort.seconds),
        ),
        (
            "bridge plugin",
            output(
                "dpkg-query",
                &["-W", "-f", "${Version}", "containernetworking-plugins"],
            ),
        ),
        (
            "iproute2",
            output("dpkg-query", &["-W", "-f", "${Version}", "iproute2"]),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn revision() -> String {
    let revision = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if changed {
        format!("{revision} with changes")
    } else {
        revision
    }
}

/// What a command prints; nothing when it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
