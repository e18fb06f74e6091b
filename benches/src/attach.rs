// SPDX-License-Identifier: Apache-2.0
//! How long it takes to attach a pod and to detach it, the plugin's process included: `thalweg-cni` and its agent
//! against the `bridge` plugin with `host-local`.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cni::Plugin;
use crate::namespace::Namespace;
use crate::reference;
use crate::results::{Comparison, Figure, Spread, percentile};
use crate::subject::{Programs, Subject};

/// How many pods are attached at once.
const AT_ONCE: usize = 50;
/// What the time of one ADD must be at most, compared with the bridge plugin's.
const GOAL: f64 = 0.5;
/// What the 99th percentile of ADDs one after the other must be at most, in milliseconds.
const P99_GOAL: f64 = 30.0;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Pods attached one after the other.
    pub(crate) sequential: usize,
    /// Rounds of [`AT_ONCE`].
    pub(crate) rounds: usize,
}

/// Ratios of rates, so that here too more is better, and times as figures.
pub(crate) fn measure(
    subject: &Subject,
    programs: &Programs,
    effort: Effort,
) -> Result<(Vec<Comparison>, Vec<Figure>)> {
    let handle = subject.node()?;
    let ours_node = Namespace::open(&handle.netns)?;
    let config = our_config(&handle)?;
    let ours = Plugin::new(programs.cni.clone(), &config, &ours_node);
    let theirs_node = Namespace::node()?;
    let theirs = reference::bridge_plugin(&theirs_node, 1);
    let contenders = [&ours, &theirs];

    subject.check_alive()?;
    let (adds, dels) = sequential(contenders, effort.sequential)?;
    let (bursts, each) = at_once(contenders, effort.rounds)?;
    subject.check_alive()?;

    let comparisons = vec![
        comparison("ADD, one after the other", &adds),
        comparison("DEL, one after the other", &dels),
        comparison(&format!("ADD, {AT_ONCE} at once"), &bursts),
    ];
    let milliseconds: Vec<_> = adds.iter().map(|(ours, _)| ours.as_secs_f64() * 1e3).collect();
    let mut figures = vec![
        figure(
            "CNI ADD, median",
            percentile(&milliseconds, 50),
            None,
            &format!("{} pods", adds.len()),
        ),
        figure(
            "CNI ADD, 99th percentile",
            percentile(&milliseconds, 99),
            Some(P99_GOAL),
            "one after the other",
        ),
    ];
    let each: Vec<_> = each.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let detail = format!("{AT_ONCE} at once");
    figures.push(figure(
        "CNI ADD under burst, 99th percentile",
        percentile(&each, 99),
        None,
        &detail,
    ));
    Ok((comparisons, figures))
}

/// The plugin's part of the conflist that the agent wrote, with the agent's socket as this process sees it.
fn our_config(node: &lab::NodeHandle) -> Result<serde_json::Value> {
    let path = node.cni_conf_dir.join("05-thalweg.conflist");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let list: serde_json::Value = serde_json::from_str(&text)?;
    let mut config = list
        .pointer("/plugins/0")
        .context("the conflist names no plugin")?
        .clone();
    for key in ["cniVersion", "name"] {
        config[key] = list[key].clone();
    }
    config["socket"] = node.run_dir.join("thalweg/cni.sock").display().to_string().into();
    Ok(config)
}

type Times = Vec<(Duration, Duration)>;

/// Attaches pods in turn; then detaches them in turn.
fn sequential(contenders: [&Plugin<'_>; 2], count: usize) -> Result<(Times, Times)> {
    let pods = namespaces(2 * count)?;
    let [ours, theirs] = contenders;
    let (first, second) = pods.split_at(count);
    let turns = |verb: &str| -> Result<Times> {
        let mut times = Vec::with_capacity(count);
        for (index, (mine, other)) in first.iter().zip(second).enumerate() {
            let id = format!("bench-{index}");
            times.push((
                ours.start(verb, &id, mine)?.finish()?.took,
                theirs.start(verb, &id, other)?.finish()?.took,
            ));
        }
        Ok(times)
    };
    Ok((turns("ADD")?, turns("DEL")?))
}

/// Attaches many at once, in turn; each time all are detached again. Also returns how long each of ours took.
fn at_once(contenders: [&Plugin<'_>; 2], rounds: usize) -> Result<(Times, Vec<Duration>)> {
    let mut times = Vec::new();
    let mut each = Vec::new();
    for round in 0..rounds {
        let mut walls = Vec::new();
        for (contender, plugin) in contenders.iter().enumerate() {
            let pods = namespaces(AT_ONCE)?;
            let id = |index: usize| format!("burst-{round}-{index}");
            let begin = Instant::now();
            let took = all_at_once(plugin, "ADD", &pods, &id)?;
            walls.push(begin.elapsed());
            if contender == 0 {
                each.extend(took);
            }
            all_at_once(plugin, "DEL", &pods, &id)?;
        }
        if let [ours, theirs] = walls.as_slice() {
            times.push((*ours, *theirs));
        }
    }
    Ok((times, each))
}

fn all_at_once(
    plugin: &Plugin<'_>,
    verb: &str,
    pods: &[Namespace],
    id: &(impl Fn(usize) -> String + Sync),
) -> Result<Vec<Duration>> {
    thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(index, pod)| scope.spawn(move || plugin.start(verb, &id(index), pod)?.finish()))
            .collect();
        calls
            .into_iter()
            .map(|call| {
                Ok(call
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
                    .took)
            })
            .collect()
    })
}

fn namespaces(count: usize) -> Result<Vec<Namespace>> {
    (0..count).map(|_| Namespace::new()).collect()
}

/// Rates per second from times. The goal on times becomes its reciprocal.
fn comparison(work: &str, times: &Times) -> Comparison {
    let rate = |time: &Duration| 1.0 / time.as_secs_f64();
    Comparison {
        scope: "CNI".into(),
        work: work.into(),
        cpus: 2,
        reference: "bridge + host-local".into(),
        unit: "1/s".into(),
        subject: Spread::of(times.iter().map(|(ours, _)| rate(ours))).median,
        reference_rate: Spread::of(times.iter().map(|(_, theirs)| rate(theirs))).median,
        ratio: Spread::of(times.iter().map(|(ours, theirs)| rate(ours) / rate(theirs))),
        goal: work.starts_with("ADD").then_some(1.0 / GOAL),
    }
}

fn figure(name: &str, value: f64, goal: Option<f64>, detail: &str) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit: "ms".into(),
        goal,
        detail: detail.into(),
    }
}
