// SPDX-License-Identifier: Apache-2.0
//! `thalweg cleanup`: leaves nothing of Thalweg on this node. Everything is found in the kernel and in the file system,
//! by the same marks that the agent finds it by; nothing else is touched.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::apply::HOST_LINK;
use agent::conflist::{ASIDE_SUFFIX, Others};
use agent::endpoints::Alias;
use agent::tunnel::TUNNEL_LINK;
use anyhow::{Result, bail};
use datapath::{Datapath, LoadError};
use netlink::{Link, Netlink, ROUTE_PROTOCOL, Request, Route, Rule};

use super::output;

/// How many hexadecimal digits follow the prefix of a pod's device.
const DIGITS: usize = 12;

/// `thalweg cleanup`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Only say what would be removed
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// The agent's directory for sockets and queues
    #[arg(long, value_name = "DIR", default_value = "/run/thalweg")]
    run_dir: PathBuf,
    /// Where the BPF file system is
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Where the container runtime looks for network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
}

/// Something to remove.
#[derive(Debug)]
enum Item {
    Configuration(PathBuf),
    /// Others' configurations in this directory, which get their names back.
    Aside(PathBuf, Others),
    Programs(PathBuf),
    Link(String),
    /// What we wrote on another network's device, which stays.
    Mark(Link),
    Route(Box<Route>),
    Rule(Box<Rule>),
    Directory(PathBuf),
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let socket = self.run_dir.join("agent.sock");
        if UnixStream::connect(&socket).is_ok() {
            bail!(
                "the agent is running ({} answers); stop it first, or it makes everything anew",
                socket.display()
            );
        }
        let items = self.find()?;
        if items.is_empty() {
            output::print("Nothing of Thalweg is on this node.\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        for item in &items {
            output::print(&format!("{item}\n"))?;
        }
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let _programs = self.lock()?;
        if !self.yes && !confirmed()? {
            bail!("nothing was removed");
        }
        remove(&items)
    }

    /// An agent of another run directory, or one that hangs, has its programs locked all the same. Where there is nothing to
    /// lock, nobody has.
    fn lock(&self) -> Result<Option<File>> {
        if !self.bpffs.join("thalweg").exists() {
            return Ok(None);
        }
        match Datapath::lock(&self.bpffs) {
            Err(error @ LoadError::InUse(_)) => bail!("{error}"),
            other => Ok(other.ok()),
        }
    }

    /// In the order of removal: no new pods first, then the programs off the devices, then the devices.
    fn find(&self) -> Result<Vec<Item>> {
        let mut netlink = Netlink::open()?;
        let mut items = Vec::new();
        let configuration = self.cni_conf_dir.join(agent::conflist::FILE);
        if configuration.exists() {
            items.push(Item::Configuration(configuration));
        }
        if self.bpffs.join("thalweg").exists() {
            items.push(Item::Programs(self.bpffs.clone()));
        }
        let routes = netlink.routes(Some(ROUTE_PROTOCOL))?;
        items.extend(routes.into_iter().map(|route| Item::Route(Box::new(route))));
        let rules = netlink.rules()?.into_iter().filter(agent::apply::is_detour);
        items.extend(rules.map(|rule| Item::Rule(Box::new(rule))));
        items.extend(netlink.links()?.into_iter().filter_map(Item::of));
        if self.run_dir.exists() {
            items.push(Item::Directory(self.run_dir.clone()));
        }
        // Last: another network takes new pods from then on.
        let others = Others::find(&self.cni_conf_dir)?;
        if !others.aside.is_empty() {
            items.push(Item::Aside(self.cni_conf_dir.clone(), others));
        }
        Ok(items)
    }
}

/// Of a pair, one device takes the other with it.
fn is_ours(name: &str, kind: Option<&str>) -> bool {
    let is_pods = name
        .strip_prefix(cni::HOST_IFNAME_PREFIX)
        .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match kind {
        Some("veth") => is_pods || name == HOST_LINK,
        Some("vxlan" | "geneve") => name == TUNNEL_LINK,
        _ => false,
    }
}

fn confirmed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody to ask; --yes removes without asking");
    }
    output::print("\nPods on this node lose their network. Remove all this? [y/N] ")?;
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes everything that can be; the exit code is 1 when something could not.
fn remove(items: &[Item]) -> Result<ExitCode> {
    let mut netlink = Netlink::open()?;
    let mut failures = 0_usize;
    for item in items {
        if let Err(error) = item.remove(&mut netlink) {
            failures += 1;
            complain(item, &error);
        }
    }
    if failures > 0 {
        bail!("{failures} of {} could not be removed", items.len());
    }
    output::print(&format!("Removed all {}.\n", items.len()))?;
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::print_stderr,
    reason = "what could not be removed is an error beside the result"
)]
fn complain(item: &Item, error: &anyhow::Error) {
    eprintln!("error: {item}: {error:#}");
}

impl Item {
    /// A device of ours, or one that only has our mark, with the pods that we had behind another network.
    fn of(link: Link) -> Option<Self> {
        if is_ours(&link.name, link.kind.as_deref()) {
            return Some(Self::Link(link.name));
        }
        let alias = Alias::decode(link.alias.as_deref()?).ok()?;
        alias.adopted.then_some(Self::Mark(link))
    }

    /// Removes it; what is gone already, a route with its device for instance, is well.
    fn remove(&self, netlink: &mut Netlink) -> Result<()> {
        match self {
            Self::Configuration(path) => absent_is_well(std::fs::remove_file(path)),
            Self::Aside(dir, others) => put_back(dir, others),
            Self::Programs(bpffs) => Ok(datapath::unload(bpffs).map(|_| ())?),
            Self::Link(name) => Ok(netlink.delete_link(name).map(|_| ())?),
            Self::Mark(link) => unmark(netlink, link),
            Self::Route(route) => Ok(netlink.delete_route(route).map(|_| ())?),
            Self::Rule(rule) => Ok(netlink.delete_rule(rule).map(|_| ())?),
            Self::Directory(path) => absent_is_well(empty(path)),
        }
    }
}

/// Removes what is in a directory, and the directory itself unless it is a mount, as in the agent's pod.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?
        } else {
            std::fs::remove_file(&path)?
        }
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}

/// Its owner may have removed the device since, and its index may be another's: the name and the mark are compared once more.
fn unmark(netlink: &mut Netlink, link: &Link) -> Result<()> {
    match netlink.link(&link.name)? {
        Some(now) if now.index == link.index && now.alias == link.alias => {
            Ok(netlink.apply(&[Request::set_alias(now.index, "")])?)
        }
        _ => Ok(()),
    }
}

fn put_back(dir: &Path, others: &Others) -> Result<()> {
    let mut others = others.clone();
    others.put_back(dir)?;
    if !others.aside.is_empty() {
        bail!(
            "there are files of these names again, which differ: {}; compare them with those that end with {ASIDE_SUFFIX} and \
             remove one of each",
            others.aside.join(", ")
        );
    }
    Ok(())
}

fn absent_is_well(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(path) => write!(formatter, "network configuration {}", path.display()),
            Self::Aside(dir, others) => {
                write!(
                    formatter,
                    "in {}, put back what was set aside: {}",
                    dir.display(),
                    others.aside.join(", ")
                )
            }
            Self::Programs(bpffs) => {
                write!(
                    formatter,
                    "programs and maps under {}",
                    bpffs.join("thalweg").display()
                )
            }
            Self::Link(name) => write!(formatter, "device {name}"),
            Self::Mark(link) => write!(formatter, "alias of device {}, which stays", link.name),
            Self::Route(route) => write!(formatter, "route {route}"),
            Self::Rule(rule) => write!(formatter, "rule {}: {rule}", rule.priority),
            Self::Directory(path) => write!(formatter, "directory {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_devices_are_ours() {
        assert!(is_ours("tw0123456789ab", Some("veth")) && is_ours(HOST_LINK, Some("veth")));
        assert!(is_ours(TUNNEL_LINK, Some("vxlan")) && is_ours(TUNNEL_LINK, Some("geneve")));
        for foreign in ["eth0", "tw0", "tw0123456789ag", "two123456789ab1", "thalweg_lab"] {
            assert!(!is_ours(foreign, Some("veth")), "{foreign}");
        }
        assert!(!is_ours("tw0123456789ab", Some("vxlan")) && !is_ours(TUNNEL_LINK, None));
    }
}
