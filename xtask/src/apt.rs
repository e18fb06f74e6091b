// SPDX-License-Identifier: Apache-2.0
//! Debian packages: of this machine, and of other suites through a private apt that leaves this machine's alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Installs packages on this machine.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if run::which("apt-get").is_none() {
        bail!(
            "this is not a Debian machine; install by hand: {}",
            packages.join(" ")
        );
    }
    run::step("apt update", run::as_root("apt-get").arg("update"))?;
    let name = format!("apt install {}", packages.join(" "));
    let mut install = run::as_root("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    run::step(&shorten(&name), &mut install)
}

/// Whether this machine's apt could install the package.
pub(crate) fn has_candidate(package: &str) -> bool {
    let policy = run::output(Command::new("apt-cache").args(["policy", package]));
    policy.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

/// Where a suite lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Archive {
    /// The archive of whole releases.
    Main,
    /// The archive of security updates.
    Security,
}

/// One suite of Debian's archive, read through lists and settings of our own.
#[derive(Debug)]
pub(crate) struct Suite {
    name: &'static str,
    dir: PathBuf,
}

impl Suite {
    /// Writes the settings below `dir` and fetches the suite's list of packages.
    pub(crate) fn open(name: &'static str, archive: Archive, dir: &Path) -> Result<Self> {
        let suite = Self {
            name,
            dir: dir.join(name),
        };
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(suite.dir.join(part)).context("cannot make apt's directories")?;
        }
        if !Path::new(KEYRING).exists() {
            install(&["debian-archive-keyring"])?;
        }
        let line = format!("deb [signed-by={KEYRING}] {} {name} main\n", archive.url());
        fs::write(suite.dir.join("sources.list"), line).context("cannot write sources.list")?;
        run::step(
            &format!("package list of {name}"),
            suite.apt("apt-get").arg("update"),
        )?;
        Ok(suite)
    }

    /// What a package needs, by name.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = run::output(self.apt("apt-cache").args(["depends", package]))?;
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = self.dir.join("debs");
        let _ = fs::remove_dir_all(&debs);
        fs::create_dir_all(&debs)?;
        let mut download = self.apt("apt-get");
        download.arg("download").args(packages).current_dir(&debs);
        run::step(&format!("download from {}", self.name), &mut download)?;
        for deb in fs::read_dir(&debs)? {
            run::output(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(into))?;
        }
        fs::remove_dir_all(&debs).context("cannot remove the downloaded packages")
    }

    fn apt(&self, program: &str) -> Command {
        let dir = |part: &str| self.dir.join(part).display().to_string();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={}", dir("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", dir("lists")),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache::archives={}", dir("archives")),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

impl Archive {
    /// The mirror that this machine's apt uses, or Debian's own.
    fn url(self) -> String {
        let format = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Origin: Debian",
            "Created-By: Packages",
        ];
        let text = run::output(Command::new("apt-get").args(format)).unwrap_or_default();
        pick(&text, self)
    }
}

fn pick(urls: &str, archive: Archive) -> String {
    let mut urls = urls.lines().map(|url| url.trim_end_matches('/'));
    match archive {
        Archive::Main => urls
            .find(|url| url.ends_with("/debian"))
            .unwrap_or(DEFAULT_MIRROR)
            .to_owned(),
        Archive::Security => {
            let found = urls.find(|url| url.ends_with("debian-security"));
            found.map_or_else(|| format!("{DEFAULT_MIRROR}-security"), str::to_owned)
        }
    }
}

fn shorten(name: &str) -> String {
    const LONGEST: usize = 60;
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    format!("{}…", name.chars().take(LONGEST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_mirror_is_used_for_other_suites() {
        let urls = "https://mirror.example/debian/\nhttps://mirror.example/debian-security/\n";
        assert_eq!(pick(urls, Archive::Main), "https://mirror.example/debian");
        assert_eq!(
            pick(urls, Archive::Security),
            "https://mirror.example/debian-security"
        );
    }

    #[test]
    fn without_one_debians_own_is_used() {
        assert_eq!(pick("", Archive::Main), "http://deb.debian.org/debian");
        assert_eq!(
            pick("", Archive::Security),
            "http://deb.debian.org/debian-security"
        );
    }
}
