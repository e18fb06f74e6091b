// SPDX-License-Identifier: Apache-2.0
//! Which parts of other networks are on a node, and which of them something uses. Pure.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::facts::{Link, NodeFacts};
use crate::owner::Owner;

/// A part of another network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Part {
    /// A network configuration.
    Conflist {
        /// Its file's name.
        file: String,
    },
    /// A routing rule.
    Rule {
        /// Its priority.
        priority: u32,
        /// In the words of `ip rule`.
        text: String,
    },
    /// A route.
    Route {
        /// Where to.
        destination: IpNet,
        /// Through which device.
        device: Option<String>,
        /// In which table.
        table: u32,
    },
    /// Chains of a table of iptables, and the rules that lead there.
    Chains {
        /// The program that shows them.
        tool: String,
        /// The table.
        table: String,
        /// Their names.
        chains: Vec<String>,
        /// How many of its rules are in chains of others and lead to none of its own.
        strays: usize,
    },
    /// A table of nftables.
    NftTable {
        /// Family and name.
        table: String,
    },
    /// The virtual servers of IPVS.
    Ipvs {
        /// How many there are.
        servers: usize,
    },
    /// A network device.
    Link {
        /// Its name.
        name: String,
        /// Its kind.
        link_kind: Option<String>,
    },
    /// A pinned program or map.
    Pin {
        /// Its path below the BPF file system.
        path: String,
    },
}

/// A part, whose it is, and what uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Whose it is.
    pub owner: Owner,
    /// The part.
    #[serde(flatten)]
    pub part: Part,
    /// Why it must stay, if something uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<String>,
}

/// The parts of other networks, in the order in which they are to be removed, and what could not be looked at.
#[must_use]
pub fn list(node: &NodeFacts) -> (Vec<Item>, Vec<String>) {
    let mut items = Vec::new();
    for part in conflists(node)
        .into_iter()
        .chain(rules(node))
        .chain(routes(node))
        .chain(chains(node))
    {
        items.push(part);
    }
    items.extend(tables(node).into_iter().chain(links(node)).chain(pins(node)));
    let items = items.into_iter().map(|(owner, part)| Item {
        in_use: in_use(node, owner, &part),
        owner,
        part,
    });
    (items.collect(), unseen(node))
}

fn unseen(node: &NodeFacts) -> Vec<String> {
    let reasons = [
        ("network configurations", node.conflists.get().err()),
        ("iptables", node.iptables.get().err()),
        ("nftables", node.nft_tables.get().err()),
        ("IPVS", node.ipvs.get().err()),
        ("devices", node.links.get().err()),
        ("routes", node.routes.get().err()),
        ("rules", node.rules.get().err()),
        ("the BPF file system", node.bpffs.get().err()),
    ];
    let failed = reasons
        .into_iter()
        .filter_map(|(what, reason)| Some(format!("{what}: {}", reason?)));
    failed.collect()
}

fn conflists(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let files = node.conflists.known().into_iter().flat_map(|dir| &dir.files);
    let others = files.filter(|file| file.error.is_none()).filter_map(|file| {
        let owner = Owner::of_plugins(&file.plugins)?;
        Some((
            owner,
            Part::Conflist {
                file: file.file.clone(),
            },
        ))
    });
    others.collect()
}

fn rules(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let rules = node.rules.known().into_iter().flatten().filter_map(|rule| {
        let part = Part::Rule {
            priority: rule.priority,
            text: rule.text.clone(),
        };
        Some((Owner::of_rule(rule)?, part))
    });
    rules.collect()
}

fn routes(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let routes = node.routes.known().into_iter().flatten().filter_map(|route| {
        let device = route.device.as_deref();
        let owner = Owner::of_route(
            route.protocol,
            device,
            device.and_then(|name| link(node, name)?.kind.as_deref()),
        )?;
        let part = Part::Route {
            destination: route.destination,
            device: route.device.clone(),
            table: route.table,
        };
        Some((owner, part))
    });
    routes.collect()
}

fn chains(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let mut grouped: BTreeMap<(Owner, &str, &str), (Vec<String>, usize)> = BTreeMap::new();
    for chain in node.iptables.known().into_iter().flatten() {
        let Some(owner) = Owner::of_rules(chain) else {
            continue;
        };
        let (chains, strays) = grouped.entry((owner, &chain.tool, &chain.table)).or_default();
        if chain.stray_of.is_some() {
            *strays += chain.rules;
        } else {
            chains.push(chain.name.clone());
        }
    }
    let parts = grouped
        .into_iter()
        .map(|((owner, tool, table), (chains, strays))| {
            let part = Part::Chains {
                tool: tool.to_owned(),
                table: table.to_owned(),
                chains,
                strays,
            };
            (owner, part)
        });
    parts.collect()
}

fn tables(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let tables = node.nft_tables.known().into_iter().flatten();
    let tables = tables.filter_map(|table| {
        Some((
            Owner::of_nft_table(table)?,
            Part::NftTable { table: table.clone() },
        ))
    });
    let servers = node.ipvs.known().map_or(0, Vec::len);
    let ipvs = (servers > 0).then_some((Owner::KubeProxy, Part::Ipvs { servers }));
    tables.chain(ipvs).collect()
}

fn links(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let links = node.links.known().into_iter().flatten().filter_map(|link| {
        let part = Part::Link {
            name: link.name.clone(),
            link_kind: link.kind.clone(),
        };
        Some((Owner::of_link(&link.name, link.kind.as_deref())?, part))
    });
    links.collect()
}

fn pins(node: &NodeFacts) -> Vec<(Owner, Part)> {
    let pins = node.bpffs.known().into_iter().flatten();
    let pins = pins.filter_map(|path| Some((Owner::of_pin(path)?, Part::Pin { path: path.clone() })));
    pins.collect()
}

fn link<'a>(node: &'a NodeFacts, name: &str) -> Option<&'a Link> {
    node.links.known()?.iter().find(|link| link.name == name)
}

/// Why a part must stay: its network runs, running pods hang on it, or the node would have no network at all.
fn in_use(node: &NodeFacts, owner: Owner, part: &Part) -> Option<String> {
    match node.processes.get() {
        Ok(processes) => {
            let running = processes
                .iter()
                .find(|name| owner.processes().contains(&name.as_str()));
            if let Some(running) = running {
                return Some(format!(
                    "{running} of {owner} runs on this node; stop it first, or it makes everything anew"
                ));
            }
        }
        Err(reason) if owner != Owner::Other => {
            return Some(format!("whether {owner} runs here is not known: {reason}"));
        }
        Err(_) => {}
    }
    let pods = pods_of(node, owner);
    match part {
        Part::Conflist { file } => only_network(node, file),
        Part::Link { name, .. } => used_link(node, name),
        Part::Route { device, .. } => device.as_deref().and_then(|device| used_link(node, device)),
        Part::Rule { text, .. } => rule_of_a_pod(node, text),
        Part::Chains { .. } | Part::NftTable { .. } | Part::Pin { .. } | Part::Ipvs { .. }
            if !pods.is_empty() =>
        {
            Some(format!(
                "pods of {owner} run on this node, at {}",
                pods.join(", ")
            ))
        }
        Part::Chains { .. } | Part::NftTable { .. } | Part::Pin { .. } | Part::Ipvs { .. } => None,
    }
}

/// Devices of a network that lead to running pods.
fn pods_of(node: &NodeFacts, owner: Owner) -> Vec<&str> {
    let links = node.links.known().into_iter().flatten();
    let pods = links
        .filter(|link| link.leads_to_pod && Owner::of_link(&link.name, link.kind.as_deref()) == Some(owner));
    pods.map(|link| link.name.as_str()).collect()
}

fn used_link(node: &NodeFacts, name: &str) -> Option<String> {
    let found = link(node, name)?;
    if found.leads_to_pod {
        return Some(format!("a running pod hangs on {name}"));
    }
    let ports = node
        .links
        .known()?
        .iter()
        .filter(|port| port.master == Some(found.index) && port.leads_to_pod);
    let ports: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
    (!ports.is_empty()).then(|| format!("running pods hang on {name} by {}", ports.join(", ")))
}

/// A rule that names an address to which a route leads through a pod's device.
fn rule_of_a_pod(node: &NodeFacts, text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(' ').collect();
    let named = words.iter().filter_map(|word| word.parse::<IpNet>().ok());
    let named: Vec<IpNet> = named.collect();
    node.routes.known()?.iter().find_map(|route| {
        let used = used_link(node, route.device.as_deref()?)?;
        named
            .iter()
            .any(|net| net.prefix_len() == net.max_prefix_len() && *net == route.destination)
            .then_some(used)
    })
}

/// Without this file the runtime would have no configuration: the node could start no pod.
fn only_network(node: &NodeFacts, file: &str) -> Option<String> {
    let dir = node.conflists.known()?;
    let others = dir
        .files
        .iter()
        .filter(|other| other.error.is_none() && other.file != file);
    let ours = others
        .into_iter()
        .any(|other| Owner::of_plugins(&other.plugins).is_none());
    (!ours).then(|| {
        format!(
            "{}/{file} is the present network of this node: ours is not installed",
            dir.dir
        )
    })
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflist { file } => write!(f, "network configuration {file}"),
            Self::Rule { priority, text } => write!(f, "rule {priority}: {text}"),
            Self::Route {
                destination,
                device,
                table,
            } => {
                write!(f, "route {destination}")?;
                if let Some(device) = device {
                    write!(f, " dev {device}")?;
                }
                if *table != netlink::TABLE_MAIN {
                    write!(f, " table {table}")
                } else {
                    Ok(())
                }
            }
            Self::Chains {
                tool,
                table,
                chains,
                strays,
            } => {
                write!(f, "rules of {tool} {table}:")?;
                if !chains.is_empty() {
                    write!(f, " {} chains ({})", chains.len(), shortened(chains))?;
                }
                if *strays > 0 {
                    write!(f, " {strays} in chains of others")
                } else {
                    Ok(())
                }
            }
            Self::NftTable { table } => write!(f, "table of nftables {table}"),
            Self::Ipvs { servers } => write!(f, "{servers} virtual servers of IPVS"),
            Self::Link { name, link_kind } => match link_kind {
                Some(kind) => write!(f, "device {name} ({kind})"),
                None => write!(f, "device {name}"),
            },
            Self::Pin { path } => write!(f, "pin {path}"),
        }
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}
