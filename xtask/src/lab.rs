// SPDX-License-Identifier: Apache-2.0
//! `./dev lab` and `./dev bench`: run what was built.

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{build, run};

/// The lab that `thalweg lab up` makes if nobody names one.
const DEFAULT_LAB: &str = "lab";

/// Builds and starts a lab; one that is up stays.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::ensure(Need::Lab)?;
    let thalweg = build::release()?.thalweg;
    let listed = run::output(run::as_root(&thalweg).args(["lab", "list", "--output", "json"]))?;
    if arguments.is_empty() && names(&listed)?.iter().any(|name| name == DEFAULT_LAB) {
        println!("The lab is up already:\n");
        run::loud(run::as_root(&thalweg).args(["lab", "status", DEFAULT_LAB]))?;
    } else {
        run::loud(run::as_root(&thalweg).args(["lab", "up"]).args(arguments))?;
    }
    let sudo = if run::is_root() { "" } else { "sudo " };
    println!(
        "\n(`thalweg` is {sudo}{}; `./dev lab` again shows this lab.)",
        thalweg.display()
    );
    Ok(())
}

fn names(json: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Lab {
        name: String,
    }
    let labs: Vec<Lab> = serde_json::from_str(json).context("`thalweg lab list` printed something else")?;
    Ok(labs.into_iter().map(|lab| lab.name).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_are_known_by_name() {
        assert_eq!(
            names(r#"[{"name":"lab","nodes":3},{"name":"b"}]"#).unwrap(),
            ["lab", "b"]
        );
        assert_eq!(names("[]").unwrap(), Vec::<String>::new());
    }
}
