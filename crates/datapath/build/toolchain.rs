// SPDX-License-Identifier: Apache-2.0
//! Finds a toolchain and a linker that can build eBPF programs. Used by the build script beside it, which builds, and
//! by `cargo xtask setup`, which installs what is missing.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// A cargo and a compiler that have the sources of `core`.
pub(crate) struct Toolchain {
    /// How to call it in a message.
    pub(crate) name: &'static str,
    /// The program that builds.
    pub(crate) cargo: PathBuf,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Where the compiler's libraries and their sources are.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// The first toolchain that will do, or what each one lacks.
    pub(crate) fn find() -> Result<Self, String> {
        let mut lacks = Vec::new();
        for candidate in [Self::outer, Self::nightly, Self::debian] {
            match candidate() {
                Ok(toolchain) => return Ok(toolchain),
                Err(why) => lacks.push(why),
            }
        }
        Err(format!(
            "no Rust toolchain here can do it:\n  - {}\nRemedy: `./dev setup`, or \
             `rustup component add rust-src`, or on Debian 12 \
             `apt-get install rustc-web rust-web-src cargo-web`.",
            lacks.join("\n  - ")
        ))
    }

    fn outer() -> Result<Self, String> {
        let program = |variable, fallback: &str| env::var_os(variable).unwrap_or_else(|| fallback.into());
        Self::with(
            "the toolchain of this build",
            program("CARGO", "cargo").into(),
            program("RUSTC", "rustc").into(),
        )
    }

    fn nightly() -> Result<Self, String> {
        let name = "rustup's nightly";
        let output = Command::new("rustup")
            .args(["which", "--toolchain", "nightly", "rustc"])
            .env("RUSTUP_AUTO_INSTALL", "0")
            .output()
            .map_err(|error| format!("{name}: no rustup ({error})"))?;
        if !output.status.success() {
            return Err(format!("{name}: not installed"));
        }
        let rustc = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Self::with(name, rustc.with_file_name("cargo"), rustc)
    }

    fn debian() -> Result<Self, String> {
        Self::with(
            "Debian's packages",
            "/usr/bin/cargo".into(),
            "/usr/bin/rustc".into(),
        )
    }

    fn with(name: &'static str, cargo: PathBuf, rustc: PathBuf) -> Result<Self, String> {
        let output = Command::new(&rustc)
            .args(["--print", "sysroot"])
            .output()
            .map_err(|error| format!("{name}: cannot run {}: {error}", rustc.display()))?;
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.exists() {
            return Err(format!(
                "{name}: the component rust-src is missing ({} is not there)",
                core.display()
            ));
        }
        Ok(Self {
            name,
            cargo,
            rustc,
            sysroot,
        })
    }
}

/// `bpf-linker` on the path or where `cargo install` puts it, proven to start (it needs its LLVM library).
pub(crate) fn find_linker() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.push(cargo_home().join("bin"));
    let remedy = "Remedy: `./dev setup`.";
    let linker = dirs
        .into_iter()
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("bpf-linker is neither on PATH nor in cargo's bin directory. {remedy}"))?;
    let output = Command::new(&linker).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(linker),
        Ok(output) => Err(format!(
            "{} does not start: {}. {remedy}",
            linker.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{} does not start: {error}. {remedy}", linker.display())),
    }
}

/// Cargo's directory of downloads and installed programs.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
