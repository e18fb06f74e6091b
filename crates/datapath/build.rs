// SPDX-License-Identifier: Apache-2.0
//! Builds the eBPF programs of `ebpf/datapath` and leaves one object per `[[bin]]` in `OUT_DIR`, named as the bin.
//!
//! The programs are compiled for `bpfel-unknown-none` with `-Z build-std=core`, which needs the sources of the
//! standard library and, on a stable compiler, `RUSTC_BOOTSTRAP=1`. Three toolchains are tried in turn: the one
//! that builds this crate, rustup's nightly, Debian's packages. If none will do, the build stops and says what
//! each one lacks.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use toolchain::{Toolchain, cargo_home, find_linker};

#[path = "build/toolchain.rs"]
mod toolchain;

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "thalweg-ebpf";
/// The profile of the workspace's `Cargo.toml` that the programs are built with.
const PROFILE: &str = "ebpf";
/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_SEPARATOR: &str = "\x1f";
/// What the outer cargo (build, check, clippy, miri) sets for its own compiler and must not reach the inner one.
const INHERITED: [&str; 10] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

#[expect(clippy::print_stderr, reason = "how a build script reports a failure")]
fn main() {
    if let Err(problem) = build() {
        eprintln!("error: cannot build the eBPF programs: {problem}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest_dir
        .ancestors()
        .nth(2)
        .ok_or_else(|| format!("{} is not inside the workspace", manifest_dir.display()))?;
    for path in [
        "ebpf/datapath",
        "crates/datapath-common",
        "crates/datapath/build.rs",
        "crates/datapath/build",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }

    let toolchain = Toolchain::find()?;
    let linker = find_linker()?;
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = out_dir.join("ebpf-target");
    compile(root, &toolchain, &linker, &target_dir)?;
    copy_objects(root, &target_dir.join(TARGET).join(PROFILE), &out_dir)
}

fn compile(root: &Path, toolchain: &Toolchain, linker: &Path, target_dir: &Path) -> Result<(), String> {
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // By default the linker tells LLVM to expand copies in order, which has a side effect: clearing three bytes is a call
        // of a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // 32-bit arithmetic, which kernels have since 5.1.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--cfg=bpf_target_arch=\"{}\"", variable("CARGO_CFG_TARGET_ARCH")?),
        // The line information of the object must not depend on where it was built.
        format!("--remap-path-prefix={}=thalweg", root.display()),
        format!("--remap-path-prefix={}=rust", toolchain.sysroot.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home().display()),
    ];
    let mut command = Command::new(&toolchain.cargo);
    for name in INHERITED {
        command.env_remove(name);
    }
    command
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR))
        .args([
            "build",
            "--locked",
            "--package",
            PACKAGE,
            "--bins",
            "--profile",
            PROFILE,
        ])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(target_dir);
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", toolchain.cargo.display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "the compiler failed ({status}); its messages are above. Toolchain: {}",
        toolchain.name
    ))
}

/// Copies each bin's object, and touches it only if it changed.
fn copy_objects(root: &Path, built: &Path, out_dir: &Path) -> Result<(), String> {
    let bins = bins(&root.join("ebpf/datapath"))?;
    for bin in bins {
        let (from, to) = (built.join(&bin), out_dir.join(&bin));
        let object = fs::read(&from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
        if fs::read(&to).is_ok_and(|old| old == object) {
            continue;
        }
        fs::write(&to, object).map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    }
    Ok(())
}

/// The bins of the crate: `src/bin/NAME.rs`, as cargo finds them itself.
fn bins(package: &Path) -> Result<Vec<String>, String> {
    let dir = package.join("src/bin");
    let failed = |error: io::Error| format!("cannot list {}: {error}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo's variable {name}: {error}"))
}
