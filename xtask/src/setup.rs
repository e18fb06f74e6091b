// SPDX-License-Identifier: Apache-2.0
//! `./dev setup`: installs what a verb needs and is not there. Quick when all is there: it only looks for files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use crate::apt::{self, Archive, Suite};
use crate::run;

#[path = "../../crates/datapath/build/toolchain.rs"]
#[expect(dead_code, reason = "the build script uses the rest")]
pub(crate) mod ebpf_toolchain;

const BPF_LINKER_VERSION: &str = "0.13.0";
const NEXTEST_VERSION: &str = "0.9.143";
const DENY_VERSION: &str = "0.20.2";
/// Emulates EC2 and IAM for the tests of generated policies; with only what those two services need.
const MOTO: [&str; 3] = ["moto[ec2,iam]==5.2.5", "flask", "flask-cors"];
/// The LLVM that bpf-linker is built against: at least as new as the compiler's own.
const LLVM: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGE: &str = "llvm-22-dev";

/// For tools that mostly wait for other programs: they build three times faster so.
const UNOPTIMISED: [&str; 3] = ["--debug", "--config", "profile.dev.debug=false"];

/// A verb, as far as set-up differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Need {
    /// Compile the programs.
    Build,
    /// Run a lab.
    Lab,
    /// Run the tests.
    Test,
    /// Boot kernels.
    Kernels,
    /// Lints and licences.
    Check,
    /// Benchmarks.
    Bench,
    /// Fuzzing.
    Fuzz,
}

/// A file that is there when a package is, and which verbs want it (besides those that imply them).
struct Package {
    name: &'static str,
    proof: &'static str,
    needs: &'static [Need],
}

const fn package(name: &'static str, proof: &'static str, needs: &'static [Need]) -> Package {
    Package { name, proof, needs }
}

/// A proof without a slash is a program on the path.
const PACKAGES: [Package; 18] = [
    package("pkg-config", "pkg-config", &[Need::Build]),
    package("iproute2", "ip", &[Need::Lab, Need::Bench]),
    package("iputils-ping", "ping", &[Need::Lab]),
    package("traceroute", "traceroute", &[Need::Lab]),
    package("curl", "curl", &[Need::Lab]),
    package("iperf3", "iperf3", &[Need::Lab, Need::Bench]),
    package("tcpdump", "tcpdump", &[Need::Lab]),
    package("bpftool", "bpftool", &[Need::Test]),
    package("tshark", "tshark", &[Need::Test]),
    package("nftables", "nft", &[Need::Test, Need::Bench]),
    package("iptables", "iptables", &[Need::Test, Need::Bench]),
    package(
        "containernetworking-plugins",
        "/usr/lib/cni/bridge",
        &[Need::Test, Need::Bench],
    ),
    package("qemu-system-x86", "qemu-system-x86_64", &[Need::Kernels]),
    package("cpio", "cpio", &[Need::Kernels]),
    package("busybox-static", "busybox", &[Need::Kernels]),
    package("xz-utils", "xz", &[Need::Kernels]),
    package(
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        &[Need::Kernels],
    ),
    package("g++", "g++", &[Need::Fuzz]),
];

/// The verb: installs for `need`, or for all, and says what was found.
pub(crate) fn run(need: Option<Need>) -> Result<()> {
    let needs = need.map_or_else(|| Need::value_variants().to_vec(), |need| vec![need]);
    for need in needs {
        ensure(need)?;
    }
    let toolchain = ebpf_toolchain::Toolchain::find().map_err(|error| anyhow!(error))?;
    let version = run::output(Command::new(&toolchain.rustc).arg("-V"))?;
    println!(
        "eBPF toolchain: {}: {}, with rust-src",
        toolchain.name,
        version.trim()
    );
    match ebpf_toolchain::find_linker() {
        Ok(path) => println!("eBPF linker:    {}", path.display()),
        Err(error) => bail!(error),
    }
    println!(
        "kubectl:        {}",
        run::which("kubectl").map_or_else(|| "none".to_owned(), |path| path.display().to_string())
    );
    Ok(())
}

/// Installs what `need` lacks.
pub(crate) fn ensure(need: Need) -> Result<()> {
    let implied: &[Need] = match need {
        Need::Build => &[Need::Build],
        Need::Lab => &[Need::Build, Need::Lab],
        Need::Test => &[Need::Build, Need::Lab, Need::Test],
        Need::Kernels => &[Need::Build, Need::Lab, Need::Kernels],
        Need::Check => &[Need::Build, Need::Check],
        Need::Bench => &[Need::Build, Need::Lab, Need::Bench],
        Need::Fuzz => &[Need::Fuzz],
    };
    let wanted = PACKAGES
        .iter()
        .filter(|package| package.needs.iter().any(|need| implied.contains(need)));
    let missing: Vec<&str> = wanted
        .filter(|package| !is_there(package.proof))
        .map(|package| package.name)
        .collect();
    apt::install(&missing)?;
    if implied.contains(&Need::Build) {
        ensure_rust_src()?;
        ensure_bpf_linker()?;
    }
    match need {
        Need::Lab => ensure_kubectl(),
        Need::Test => ensure_kubectl()
            .and_then(|()| ensure_nextest())
            .and_then(|()| ensure_moto()),
        Need::Check => ensure_components().and_then(|()| ensure_deny()),
        Need::Build | Need::Kernels | Need::Bench | Need::Fuzz => Ok(()),
    }
}

fn is_there(proof: &str) -> bool {
    if proof.contains('/') {
        Path::new(proof).exists()
    } else {
        run::which(proof).is_some()
    }
}

/// The sources of `core`, in the first of three ways that works here.
fn ensure_rust_src() -> Result<()> {
    if ebpf_toolchain::Toolchain::find().is_ok() {
        return Ok(());
    }
    if run::which("rustup").is_some() {
        let mut add = Command::new("rustup");
        if run::step("rust-src by rustup", add.args(["component", "add", "rust-src"])).is_ok() {
            return Ok(());
        }
        eprintln!("  rustup cannot fetch rust-src here; taking Debian's compiler for the eBPF programs");
    }
    apt::install(&["rustc-web", "rust-web-src", "cargo-web"])?;
    ebpf_toolchain::Toolchain::find()
        .map(|_| ())
        .map_err(|error| anyhow!(error))
}

fn ensure_bpf_linker() -> Result<()> {
    if ebpf_toolchain::find_linker().is_ok() {
        return Ok(());
    }
    ensure_llvm()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut install = cargo_install("bpf-linker", BPF_LINKER_VERSION);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    install
        .env("LLVM_SYS_221_PREFIX", LLVM)
        .env("LLVM_PREFIX", LLVM)
        .env("PATH", format!("{LLVM}/bin:{path}"));
    run::step("bpf-linker from source", &mut install)
}

/// LLVM 22 is in Debian 12's security archive, which a bare image may not have among its sources.
fn ensure_llvm() -> Result<()> {
    if Path::new(LLVM).join("bin/llvm-config").exists() {
        return Ok(());
    }
    let sources = "/etc/apt/sources.list.d/bookworm-security.list";
    if run::which("apt-get").is_some() && is_bookworm() {
        run::step("apt update", run::as_root("apt-get").arg("update"))?;
        if !apt::has_candidate(LLVM_PACKAGE) && !Path::new(sources).exists() {
            eprintln!(
                "  {LLVM_PACKAGE} is in Debian's security archive, which apt here does not use: adding {sources}"
            );
            let line = "deb http://deb.debian.org/debian-security bookworm-security main";
            run::loud(run::as_root("sh").args(["-c", &format!("echo '{line}' > {sources}")]))?;
        }
    }
    apt::install(&[LLVM_PACKAGE])
}

fn is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("VERSION_CODENAME=bookworm"))
}

/// The release's own binary where its site can be reached, else from source.
fn ensure_nextest() -> Result<()> {
    if run::which("cargo-nextest").is_some() {
        return Ok(());
    }
    let bin = ebpf_toolchain::cargo_home().join("bin");
    let system = if cfg!(target_arch = "aarch64") {
        "linux-arm"
    } else {
        "linux"
    };
    let fetch = format!(
        "curl -fsSL --connect-timeout 5 --max-time 120 https://get.nexte.st/{NEXTEST_VERSION}/{system} | tar xz -C '{}'",
        bin.display()
    );
    fs::create_dir_all(&bin)?;
    if run::output(Command::new("bash").args(["-o", "pipefail", "-c", &fetch])).is_ok() {
        return Ok(());
    }
    run::step(
        "cargo-nextest from source",
        cargo_install("cargo-nextest", NEXTEST_VERSION).args(UNOPTIMISED),
    )
}

/// In an environment of its own below target/, which the tests look for there.
fn ensure_moto() -> Result<()> {
    let dir = crate::root().join("target/moto");
    if dir.join("installed").exists() {
        return Ok(());
    }
    if let Err(error) = install_moto(&dir) {
        eprintln!("  moto: not there and cannot be had ({error:#}); what needs it will say so");
    }
    Ok(())
}

fn install_moto(dir: &Path) -> Result<()> {
    let make = |python: &str| run::output(Command::new(python).args(["-m", "venv", "--clear"]).arg(dir));
    if make("python3").is_err() {
        apt::install(&["python3-venv"])?;
        make("/usr/bin/python3").context("cannot make a Python environment")?;
    }
    let mut install = Command::new(dir.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run::step("moto by pip", install.args(MOTO))?;
    fs::write(dir.join("installed"), MOTO.join("\n")).context("cannot write into target/moto")
}

fn ensure_deny() -> Result<()> {
    if run::which("cargo-deny").is_some() {
        return Ok(());
    }
    run::step(
        "cargo-deny from source",
        cargo_install("cargo-deny", DENY_VERSION).args(UNOPTIMISED),
    )
}

fn cargo_install(package: &str, version: &str) -> Command {
    let mut install = run::cargo();
    install.args(["install", "--locked", package, "--version", version]);
    install
}

fn ensure_components() -> Result<()> {
    if run::which("cargo-clippy").is_some() && run::which("cargo-fmt").is_some() {
        return Ok(());
    }
    if run::which("rustup").is_some() {
        return run::step(
            "clippy, rustfmt",
            Command::new("rustup").args(["component", "add", "clippy", "rustfmt"]),
        );
    }
    apt::install(&["rust-web-clippy", "rustfmt-web"])
}

/// kubectl is for people and for the tests of the lab's API server. Debian 12's is too old, trixie's runs here.
fn ensure_kubectl() -> Result<()> {
    if run::which("kubectl").is_some() {
        return Ok(());
    }
    let dir = crate::root().join("target/tools");
    match install_kubectl(&dir) {
        Ok(()) => eprintln!("  kubectl: installed as /usr/local/bin/kubectl, from Debian trixie"),
        Err(error) => {
            eprintln!("  kubectl: not there and cannot be had ({error:#}); what needs it will say so")
        }
    }
    Ok(())
}

fn install_kubectl(dir: &Path) -> Result<()> {
    if !cfg!(target_arch = "x86_64") || run::which("apt-get").is_none() {
        bail!("no package for this machine is known");
    }
    let unpacked = dir.join("kubectl");
    fs::create_dir_all(&unpacked)?;
    Suite::open("trixie", Archive::Main, dir)?.unpack(&["kubectl".to_owned()], &unpacked)?;
    let program = unpacked.join("usr/bin/kubectl");
    let answer = Command::new(&program).args(["version", "--client"]).output();
    if !answer.is_ok_and(|answer| answer.status.success()) {
        bail!("trixie's program does not start here");
    }
    run::output(run::as_root("install").arg(program).arg("/usr/local/bin/kubectl"))
        .context("cannot install it")?;
    fs::remove_dir_all(dir).context("cannot clean up")
}
