// SPDX-License-Identifier: Apache-2.0
//! What scenarios share: who the parties are, and commands that must succeed.

use std::net::IpAddr;

use model::Family;
use serde::de::DeserializeOwned;

use super::{Case, Problem, Reach};
use crate::bed::{Bed, TestPod};

/// One party calls another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'bed> {
    /// Where the command runs.
    pub(super) from: &'bed TestPod,
    /// Who is called.
    pub(super) to: &'bed TestPod,
    /// At which address.
    pub(super) ip: IpAddr,
}

impl Case {
    /// All pairs of the test bed that this case is about.
    pub(super) fn pairs(self, bed: &Bed) -> Vec<Pair<'_>> {
        let mut pairs = Vec::new();
        for node in &bed.nodes {
            let others = || bed.nodes.iter().filter(|other| other.name != node.name);
            let mut add = |from, to| pairs.extend(pair(from, to, self.family));
            match self.reach {
                Reach::PodToPodSameNode => add(&node.first, &node.second),
                Reach::PodToPodOtherNode => others().for_each(|other| add(&node.first, &other.second)),
                Reach::PodToOwnNode => add(&node.first, &node.host),
                Reach::PodToOtherNode => others().for_each(|other| add(&node.first, &other.host)),
                Reach::NodeToLocalPod => add(&node.host, &node.first),
                Reach::NodeToRemotePod => others().for_each(|other| add(&node.host, &other.first)),
                Reach::PodToItself => add(&node.first, &node.first),
                Reach::PodToApiServer | Reach::PodToService | Reach::NodeToService => {}
            }
        }
        pairs
    }

    /// One of them, for what is expensive.
    pub(super) fn one_pair(self, bed: &Bed) -> Result<Pair<'_>, Problem> {
        let first = self.pairs(bed).into_iter().next();
        first.ok_or_else(|| Problem::Skipped("there is no such pair".into()))
    }
}

fn pair<'bed>(from: &'bed TestPod, to: &'bed TestPod, family: Family) -> Option<Pair<'bed>> {
    Some(Pair {
        from,
        to,
        ip: to.ip(family)?,
    })
}

impl std::fmt::Display for Pair<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} to {} ({})", self.from.name, self.to.name, self.ip)
    }
}

/// How a command ended, for people and for parsing.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) succeeded: bool,
    pub(super) text: String,
    pub(super) complaint: String,
}

/// Runs any command in a pod.
pub(super) async fn run(bed: &Bed, pod: &TestPod, command: &[&str]) -> Result<Ran, Problem> {
    let command: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
    let output = bed
        .exec(pod, &command)
        .await
        .map_err(|error| Problem::Failed(error.0))?;
    Ok(Ran {
        succeeded: output.code == 0,
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs the load generator in a pod; what it printed last.
pub(super) async fn perf<T: DeserializeOwned>(
    bed: &Bed,
    pod: &TestPod,
    arguments: &[&str],
) -> Result<T, Problem> {
    let output = bed
        .perf(pod, arguments)
        .await
        .map_err(|error| Problem::Failed(error.0))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    if output.code != 0 {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.trim().trim_start_matches("error: ");
        return Err(Problem::Failed(format!(
            "in {} on {}: {complaint}",
            pod.name, pod.node
        )));
    }
    serde_json::from_str(line).map_err(|error| {
        Problem::Failed(format!(
            "perf {} in {}: {error} in {line:?}",
            arguments.join(" "),
            pod.name
        ))
    })
}

/// What `ping` saw.
#[derive(Debug)]
pub(super) struct Pinged {
    pub(super) sent: u32,
    pub(super) received: u32,
    pub(super) output: String,
}

impl Pinged {
    /// The rest of the line after a word, up to a blank: of `ttl=63 time=…` the `63`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.output.split_once(name)?;
        rest.split([' ', ':', ',', '\n']).next()
    }
}

/// Sends echo requests quickly; `options` go to `ping`.
pub(super) async fn ping(bed: &Bed, pair: &Pair<'_>, options: &[&str]) -> Result<Pinged, Problem> {
    let ip = pair.ip.to_string();
    let mut command = vec!["ping", "-n", "-i", "0.02", "-W", "1"];
    command.extend(options);
    command.push(&ip);
    let ran = run(bed, pair.from, &command).await?;
    let summary = ran.text.lines().find(|line| line.contains("packets transmitted"));
    let numbers: Vec<u32> = summary
        .into_iter()
        .flat_map(|line| line.split([' ', ',', '+']))
        .filter_map(|word| word.parse().ok())
        .collect();
    let [sent, received, ..] = numbers.as_slice() else {
        return Err(Problem::Failed(format!(
            "ping, {pair}: {} {}",
            ran.text.trim(),
            ran.complaint
        )));
    };
    let output = if ran.complaint.is_empty() {
        ran.text
    } else {
        format!("{}{}", ran.text, ran.complaint)
    };
    Ok(Pinged {
        sent: *sent,
        received: *received,
        output,
    })
}

/// A failure unless `holds`.
pub(super) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), Problem> {
    if holds {
        Ok(())
    } else {
        Err(Problem::Failed(message()))
    }
}
