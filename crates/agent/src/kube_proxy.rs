// SPDX-License-Identifier: Apache-2.0
//! Whether a kube-proxy runs on this node, or what one has left: two who serve services undo each other's work.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use netlink::Netlink;
use tracing::warn;

/// Where kube-proxy says whether it is well, unless it is told otherwise (`--healthz-bind-address`).
const HEALTH_PORT: u16 = 10_256;
const PATIENCE: Duration = Duration::from_millis(500);
/// A word of its answer.
const HEALTH_WORD: &str = "lastUpdated";
/// The device of its IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";
/// The table of its nftables mode.
const TABLE: &str = "kube-proxy";
/// The first chain of its iptables mode.
const CHAIN: &str = "KUBE-SERVICES";

/// A kube-proxy serves services on this node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "kubeProxyReplacement is true, but a kube-proxy serves services on this node ({evidence}): the two would translate the same \
     packets; take it away first (`kubectl -n kube-system delete daemonset kube-proxy`, on EKS its add-on, in k3s \
     --disable-kube-proxy), then what it leaves (`thalweg conflicts remove --owner kube-proxy --execute`), or set \
     kubeProxyReplacement to false"
)]
pub struct Beside {
    evidence: String,
}

/// Refuses to be the second. What one that is gone has left is said, and goes on catching packets of the host until it is removed.
///
/// # Errors
/// When a kube-proxy runs.
pub fn check() -> Result<(), Beside> {
    if let Some(evidence) = process(Path::new("/proc")).or_else(answer) {
        return Err(Beside { evidence });
    }
    for part in leftovers() {
        warn!(
            part,
            "a kube-proxy that is gone has left this, and packets that take the host's stack still meet it; \
             `thalweg conflicts remove --owner kube-proxy --execute` removes it"
        );
    }
    Ok(())
}

/// A process of that name in our network namespace. In a container without the node's processes there is none to see.
fn process(proc: &Path) -> Option<String> {
    let own = fs::read_link(proc.join("self/ns/net")).ok()?;
    let entries = fs::read_dir(proc).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let name = entry.file_name();
        let pid: u32 = name.to_str()?.parse().ok()?;
        let command = fs::read_to_string(entry.path().join("comm")).ok()?;
        let is_it = command.trim() == TABLE && fs::read_link(entry.path().join("ns/net")).ok()? == own;
        is_it.then(|| format!("process {pid}"))
    })
}

/// What answers at its port as it does.
fn answer() -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    // What was read before an error counts.
    let _ = stream.take(4096).read_to_string(&mut text);
    text.contains(HEALTH_WORD)
        .then(|| format!("it answers at {address}"))
}

fn leftovers() -> Vec<String> {
    let mut parts = Vec::new();
    let link = Netlink::open().and_then(|mut netlink| netlink.link(IPVS_LINK));
    if link.is_ok_and(|link| link.is_some()) {
        parts.push(format!("device {IPVS_LINK}"));
    }
    let chains = netlink::nftables_chains().unwrap_or_else(|error| {
        warn!(%error, "whether a kube-proxy has left rules cannot be told");
        Vec::new()
    });
    let its = chains
        .iter()
        .filter(|(table, chain)| table == TABLE || chain == CHAIN);
    parts.extend(
        its.take(1)
            .map(|(table, chain)| format!("chain {chain} of table {table}")),
    );
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_process_counts_by_its_name_and_network_namespace() {
        let proc = tempfile::tempdir().unwrap();
        let make = |pid: &str, command: &str, netns: &str| {
            let dir = proc.path().join(pid);
            fs::create_dir_all(dir.join("ns")).unwrap();
            fs::write(dir.join("comm"), format!("{command}\n")).unwrap();
            symlink(netns, dir.join("ns/net")).unwrap();
        };
        make("self", "thalweg", "net:[1]");
        make("7", "kubelet", "net:[1]");
        make("8", "kube-proxy", "net:[2]");
        fs::write(proc.path().join("uptime"), "1").unwrap();
        assert_eq!(process(proc.path()), None);
        make("9", "kube-proxy", "net:[1]");
        assert_eq!(process(proc.path()), Some("process 9".to_owned()));
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let text = Beside {
            evidence: "process 9".into(),
        }
        .to_string();
        assert!(
            text.contains("(process 9)") && text.contains("delete daemonset kube-proxy"),
            "{text}"
        );
    }
}
