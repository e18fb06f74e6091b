// SPDX-License-Identifier: Apache-2.0
//! `./dev kernels`: boots Debian's kernels in QEMU and runs the shipped programs on each.
//!
//! Emulated (TCG), so it needs no virtualisation, and its times compare kernels with each other only.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::build;
use crate::setup::{self, Need};
use crate::test::Counts;

mod initramfs;
mod modules;
mod packages;
mod report;
mod vm;

use packages::{KERNELS, Kernel};
use vm::Outcome;

/// Machines that run at the same time: what two cores can carry.
const AT_ONCE: usize = 2;

/// Arguments of the verb.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these, for example `5.10`.
    kernels: Vec<String>,
    /// Write the table to docs/kernels.md.
    #[arg(long)]
    update: bool,
    /// Fetch the newest packages even if some are there.
    #[arg(long)]
    refresh: bool,
    /// Show all that the machines print.
    #[arg(long)]
    verbose: bool,
}

/// The verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let outcomes = run_matrix(arguments)?;
    if arguments.update {
        report::write(&outcomes)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    if failed > 0 {
        bail!("{failed} of {} kernels failed", outcomes.len());
    }
    Ok(())
}

/// The matrix as a level of `./dev test`: one test per kernel.
pub(crate) fn test() -> Result<Counts> {
    let arguments = Arguments {
        kernels: Vec::new(),
        update: false,
        refresh: false,
        verbose: false,
    };
    let outcomes = run_matrix(&arguments)?;
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    Ok(Counts {
        passed,
        failed: outcomes.len() - passed,
        skipped: 0,
    })
}

fn run_matrix(arguments: &Arguments) -> Result<Vec<Outcome>> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernel matrix runs x86-64 programs; this machine builds others");
    }
    setup::ensure(Need::Kernels)?;
    let wanted = select(&arguments.kernels)?;
    let programs = build::release()?;
    let start = Instant::now();
    let dir = crate::root().join("target/kernels");
    let mut machines = Vec::new();
    for kernel in wanted {
        let files = packages::fetch(kernel, &dir, arguments.refresh)?;
        let image = dir.join(kernel.series).join("initramfs");
        initramfs::write(&image, &files, &programs)?;
        machines.push(vm::Machine {
            kernel,
            vmlinuz: files.vmlinuz,
            initramfs: image,
        });
    }
    let outcomes = boot_all(&machines, arguments.verbose)?;
    print!("{}", report::table(&outcomes));
    println!("{} kernels in {} s", outcomes.len(), start.elapsed().as_secs());
    Ok(outcomes)
}

fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let find = |name: &String| {
        let known = KERNELS
            .iter()
            .map(|kernel| kernel.series)
            .collect::<Vec<_>>()
            .join(", ");
        let found = KERNELS.iter().find(|kernel| kernel.series == name);
        found.with_context(|| format!("no kernel {name} in the matrix; there are {known}"))
    };
    names.iter().map(find).collect()
}

fn boot_all(machines: &[vm::Machine], verbose: bool) -> Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let claims = std::iter::from_fn(|| claim(&next, machines));
        claims
            .map(|(index, machine)| (index, vm::boot(machine, verbose)))
            .collect::<Vec<_>>()
    };
    let mut outcomes = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            outcomes.extend(
                worker
                    .join()
                    .map_err(|_| anyhow!("a thread that ran a machine panicked"))?,
            );
        }
        anyhow::Ok(())
    })?;
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn claim<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}
