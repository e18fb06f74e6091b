// SPDX-License-Identifier: Apache-2.0
//! Kernel modules in the order in which they can be loaded. Debian's packages hold no `modules.dep`; each module
//! names what it needs itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::find;
use crate::run;

/// What the datapath and the lab use. A module that is not there is built into that kernel, or does not exist.
const WANTED: [&str; 7] = [
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "vxlan",
    "geneve",
    "tun",
];

/// A module, uncompressed.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) image: Vec<u8>,
}

/// The wanted modules, each behind what it needs.
pub(super) fn in_order(dir: &Path) -> Result<Vec<Module>> {
    let mut modules = Vec::new();
    for name in WANTED {
        add(dir, name, &mut modules)?;
    }
    Ok(modules)
}

fn add(dir: &Path, name: &str, modules: &mut Vec<Module>) -> Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let is_it = |file: &str| {
        file.split_once(".ko")
            .is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    };
    let Some(path) = find(dir, &is_it) else {
        return Ok(());
    };
    let image = read(&path)?;
    for needed in depends(&image) {
        add(dir, &needed, modules)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        image,
    });
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz")
        .arg("-dc")
        .arg(path)
        .output()
        .context("cannot run xz")?;
    anyhow::ensure!(output.status.success(), "xz cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// The names after `depends=` in the module's `.modinfo`, where strings end with a zero byte.
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = image.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = image[start + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// The shared libraries that a program needs, and their loader.
pub(super) fn libraries(program: &Path) -> Result<Vec<String>> {
    let text = run::output(Command::new("ldd").arg(program))?;
    Ok(text.lines().filter_map(library).collect())
}

fn library(line: &str) -> Option<String> {
    let path = line.split_once("=>").map_or(line, |(_, path)| path);
    let path = path.split_whitespace().next()?;
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let image = b"\x7fELF\0license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(depends(image), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert_eq!(depends(b"\0depends=\0name=veth\0"), Vec::<String>::new());
    }

    #[test]
    fn a_line_of_ldd_gives_the_path_of_the_library() {
        assert_eq!(
            library("\tlibc.so.6 => /lib/libc.so.6 (0x1)").as_deref(),
            Some("/lib/libc.so.6")
        );
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x1)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(library("\tlinux-vdso.so.1 (0x1)"), None);
    }
}
