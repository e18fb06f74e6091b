// SPDX-License-Identifier: Apache-2.0
//! `./dev build`: the static programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::setup::{self, Need};

/// Packages with a program that is shipped, and the program's name.
const SHIPPED: [&str; 2] = ["thalweg", "thalweg-cni"];

/// The shipped programs in `target/release`.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The multi-call program.
    pub(crate) thalweg: PathBuf,
    /// The CNI plugin.
    pub(crate) cni: PathBuf,
}

/// The verb.
pub(crate) fn run() -> Result<()> {
    let programs = release()?;
    for path in [&programs.thalweg, &programs.cni] {
        let size = fs::metadata(path)?.len() >> 10;
        println!("{} ({size} KiB, static)", path.display());
    }
    Ok(())
}

/// Builds the programs for release, checks that they are static, and puts them into `target/release`.
pub(crate) fn release() -> Result<Programs> {
    setup::ensure(Need::Build)?;
    let triple = host_triple()?;
    let root = crate::root();
    let mut cargo = run::cargo();
    cargo.args(["build", "--release", "--locked", "--target", &triple]);
    for package in SHIPPED {
        cargo.args(["--package", package]);
    }
    // The target has to be named: without it the flag would reach build scripts and procedural macros too.
    let remap = format!("--remap-path-prefix={}=thalweg", root.display());
    let cargo_home = setup::ebpf_toolchain::cargo_home();
    let remap_home = format!("--remap-path-prefix={}=cargo", cargo_home.display());
    // A position-independent program corrects 64,000 addresses when it starts, and all it reads for that stays resident:
    // 1.5 MiB, or packed 20 KiB.
    let pack = "-Clink-arg=-Wl,-z,pack-relative-relocs";
    let flags = ["-Ctarget-feature=+crt-static", pack, &remap, &remap_home];
    cargo
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run::step("release build", &mut cargo)?;

    let built = root.join("target").join(&triple).join("release");
    let release = root.join("target/release");
    fs::create_dir_all(&release)?;
    for program in SHIPPED {
        let (from, to) = (built.join(program), release.join(program));
        require_static(&from)?;
        replace(&from, &to)?;
    }
    Ok(Programs {
        thalweg: release.join(SHIPPED[0]),
        cni: release.join(SHIPPED[1]),
    })
}

/// Puts a copy of `from` in the place of `to`, which may be running or a hard link of cargo's.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("cannot copy {} to {}", from.display(), new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot replace {}", to.display()))
}

fn require_static(program: &Path) -> Result<()> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("statically linked") || text.contains("not a dynamic executable") {
        return Ok(());
    }
    bail!("{} is not static; ldd says: {text}", program.display())
}

/// The triple of this machine, as the compiler names it.
pub(crate) fn host_triple() -> Result<String> {
    let version = run::output(Command::new("rustc").arg("-vV"))?;
    let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(str::to_owned).context("`rustc -vV` names no host")
}
