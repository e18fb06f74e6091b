// SPDX-License-Identifier: Apache-2.0
//! `./dev lab` and `./dev bench`: run what was built.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{build, run};

/// Builds, starts a lab, and says what to try.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::ensure(Need::Lab)?;
    let thalweg = build::release()?.thalweg;
    let listed = run::output(run::as_root(&thalweg).args(["lab", "list"]))?;
    let is_up = arguments.is_empty()
        && listed
            .lines()
            .any(|line| line.split_whitespace().next() == Some("lab"));
    if is_up {
        println!("The lab is up already.");
    } else {
        run::loud(run::as_root(&thalweg).args(["lab", "up"]).args(arguments))?;
    }
    print_next(&thalweg.display().to_string());
    Ok(())
}

fn print_next(thalweg: &str) {
    let sudo = if run::is_root() { "" } else { "sudo " };
    println!(
        "
What to try now:
  {sudo}{thalweg} lab exec pod-1-1 -- ping -c 3 10.244.1.2
  {sudo}{thalweg} status
  {sudo}{thalweg} connectivity test
  kubectl --kubeconfig $({sudo}{thalweg} lab kubeconfig) get pods -o wide
  {sudo}{thalweg} lab down"
    );
}

/// Builds and runs the benchmarks.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    setup::ensure(Need::Bench)?;
    let programs = build::release()?;
    let mut compile = run::cargo();
    compile.args(["build", "--release", "--locked", "--package", "thalweg-benches"]);
    run::step("compiling the benchmarks", &mut compile)?;
    let mut bench = run::as_root(crate::root().join("target/release/thalweg-benches"));
    bench
        .env("THALWEG_BIN", programs.thalweg)
        .env("THALWEG_CNI_BIN", programs.cni);
    run::loud(bench.args(arguments).current_dir(crate::root()))
}
