// SPDX-License-Identifier: Apache-2.0
//! The machine's whole disk: an archive that the kernel unpacks into memory. Written here (the format is one header
//! per file), so that it needs neither root nor a staging directory; not compressed, as unpacking is emulated.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::modules;
use super::packages::Files;
use crate::build::Programs;
use crate::run;

/// Runs as the first process.
const INIT: &str = include_str!("scenario.sh");
/// Programs of this machine that pods use, with their libraries.
const TOOLS: [&str; 5] = ["ping", "curl", "iperf3", "ip", "bpftool"];
/// Applets that would stand in the way of the real programs above.
const NOT_BUSYBOX: [&str; 3] = ["ping", "ping6", "ip"];
/// Mount points and places that programs write to.
const DIRECTORIES: [&str; 15] = [
    "bin",
    "dev",
    "etc",
    "etc/cni",
    "etc/cni/net.d",
    "modules",
    "opt",
    "opt/cni",
    "opt/cni/bin",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr",
    "var",
];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Writes the archive for one kernel.
pub(super) fn write(path: &Path, files: &Files, programs: &Programs) -> Result<()> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, DIRECTORY, b"");
    }
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("etc/passwd", PLAIN, b"root:x:0:0:root:/:/bin/sh\n");
    archive.add("etc/hosts", PLAIN, b"127.0.0.1 localhost\n::1 localhost\n");
    add_busybox(&mut archive)?;
    add_program(&mut archive, "bin/thalweg", &programs.thalweg)?;
    add_program(&mut archive, "bin/thalweg-cni", &programs.cni)?;
    archive.add("opt/cni/bin/thalweg-cni", LINK, b"/bin/thalweg-cni");
    add_tools(&mut archive)?;
    for (number, module) in modules::in_order(&files.modules)?.iter().enumerate() {
        archive.add(
            &format!("modules/{number:02}-{}.ko", module.name),
            PLAIN,
            &module.image,
        );
    }
    fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
}

fn add_busybox(archive: &mut Archive) -> Result<()> {
    let busybox = run::which("busybox").context("busybox is not there; `./dev setup kernels`")?;
    add_program(archive, "bin/busybox", &busybox)?;
    let applets = run::output(Command::new(&busybox).arg("--list"))?;
    for applet in applets
        .lines()
        .filter(|applet| !NOT_BUSYBOX.contains(applet) && *applet != "busybox")
    {
        archive.add(&format!("bin/{applet}"), LINK, b"busybox");
    }
    Ok(())
}

fn add_tools(archive: &mut Archive) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for tool in TOOLS {
        let path = run::which(tool).with_context(|| format!("{tool} is not there; `./dev setup kernels`"))?;
        libraries.extend(modules::libraries(&path)?);
        add_program(archive, &format!("bin/{tool}"), &path)?;
    }
    for library in libraries {
        add_program(archive, library.trim_start_matches('/'), Path::new(&library))?;
    }
    Ok(())
}

fn add_program(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    let image = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mode = fs::metadata(path)?.permissions().mode();
    archive.add(name, if mode & 0o111 == 0 { PLAIN } else { PROGRAM }, &image);
    Ok(())
}

/// The kernel's `newc` archive: <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a file, after the directories that it is in. The first of one name stays.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.add(parent, DIRECTORY, b"");
        }
        if self.names.insert(name.to_owned()) {
            self.entry(name, mode, content);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.names.len();
        let links = 1;
        let fields = [content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let tail: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        let header = format!(
            "070701{inode:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{tail}",
            0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_after_its_directories_and_once() {
        let mut archive = Archive::default();
        archive.add("a/b/c", PLAIN, b"x");
        archive.add("a/b/d", PLAIN, b"y");
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        let position = |name: &str| text.find(&format!("{name}\0")).unwrap();
        assert!(position("a") < position("a/b") && position("a/b") < position("a/b/c"));
        assert_eq!(
            text.matches("070701").count(),
            5,
            "two directories, two files, the trailer"
        );
    }

    #[test]
    fn a_header_is_110_bytes_and_entries_are_aligned() {
        let mut archive = Archive::default();
        archive.entry("ab", PLAIN, b"x");
        assert_eq!(archive.bytes.len(), 113_usize.next_multiple_of(4) + 4);
        assert_eq!(&archive.bytes[110..112], b"ab");
    }
}
