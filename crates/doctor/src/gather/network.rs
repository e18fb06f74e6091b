// SPDX-License-Identifier: Apache-2.0
//! Devices, routes, rules, packet filters, network configurations, pins.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use netlink::Netlink;
use serde_json::Value;

use super::{Places, Tool};
use crate::facts::{Chain, Conflist, ConflistDir, Gathered, Link, Route, RuleFacts};
use crate::owner::Owner;

/// What libcni takes for a network configuration.
const EXTENSIONS: [&str; 3] = [".conf", ".conflist", ".json"];
/// A file larger than this is no network configuration.
const CONFLIST_BYTES_MAX: u64 = 1 << 20;
/// How deep and how many files the walk over a BPF file system goes.
const PINS_DEPTH: usize = 6;
const PINS_MAX: usize = 10_000;

pub(crate) fn links() -> Gathered<Vec<Link>> {
    let read = || -> Result<Vec<Link>, netlink::Error> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let addresses = netlink.addresses()?;
        Ok(links
            .iter()
            .map(|link| Link {
                index: link.index,
                name: link.name.clone(),
                kind: link.kind.clone(),
                mtu: link.mtu,
                up: link.up,
                leads_to_pod: leads_to_pod(link, &links),
                master: link.master,
                addresses: addresses
                    .iter()
                    .filter(|one| one.ifindex == link.index)
                    .map(|one| one.net)
                    .collect(),
            })
            .collect())
    };
    read().into()
}

/// A veth whose peer is not here has it in another namespace; the peer's being up is this one's carrier.
fn leads_to_pod(link: &netlink::Link, links: &[netlink::Link]) -> bool {
    let peer_is_here = links.iter().any(|other| {
        Some(other.index) == link.peer_index
            && other.peer_index == Some(link.index)
            && other.kind == link.kind
    });
    link.kind.as_deref() == Some("veth") && link.carrier && !peer_is_here
}

pub(crate) fn routes(links: &Gathered<Vec<Link>>) -> Gathered<Vec<Route>> {
    let read = || Netlink::open()?.routes(None);
    let name = |index: u32| {
        let link = links.known()?.iter().find(|link| link.index == index)?;
        Some(link.name.clone())
    };
    let routes: Result<Vec<Route>, netlink::Error> = read().map(|routes| {
        let facts = routes.into_iter().map(|route| Route {
            destination: route.dst,
            via: route.gateway,
            device: route.oif.and_then(name),
            protocol: route.protocol,
            table: route.table,
        });
        facts.collect()
    });
    routes.into()
}

pub(crate) fn rules() -> Gathered<Vec<RuleFacts>> {
    let read = || Netlink::open()?.rules();
    let rules: Result<Vec<RuleFacts>, netlink::Error> = read().map(|rules| {
        let own = rules.into_iter().filter(|rule| !rule.is_default());
        own.map(|rule| RuleFacts {
            priority: rule.priority,
            text: rule.to_string(),
        })
        .collect()
    });
    rules.into()
}

/// The programs that show chains here, by the name that restores them, and which `-save` to run. The old kind is asked only
/// where the kernel has tables of it: the program would make them.
pub(crate) fn savers(tool: &Tool) -> Vec<(&'static str, &'static str)> {
    const KINDS: [(&str, &str, &str); 4] = [
        ("iptables", "iptables-nft-save", ""),
        ("ip6tables", "ip6tables-nft-save", ""),
        (
            "iptables-legacy",
            "iptables-legacy-save",
            "/proc/self/net/ip_tables_names",
        ),
        (
            "ip6tables-legacy",
            "ip6tables-legacy-save",
            "/proc/self/net/ip6_tables_names",
        ),
    ];
    let legacy = |path: &str| fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty());
    let mut savers = Vec::new();
    for (name, save, tables) in KINDS {
        if tables.is_empty() || legacy(tables) {
            let plain = if name == "iptables" {
                "iptables-save"
            } else {
                "ip6tables-save"
            };
            let save = if tool.find(save).is_none() && tables.is_empty() {
                plain
            } else {
                save
            };
            savers.push((name, save));
        }
    }
    savers
}

pub(crate) fn iptables(places: &Places) -> Gathered<Vec<Chain>> {
    let tool = Tool::of(&places.root);
    let mut chains = Vec::new();
    for (name, save) in savers(&tool) {
        match tool.run(save, &[], None) {
            Ok(text) => chains.extend(parse_chains(name, &text)),
            Err(error) => return Gathered::unknown(error.to_string()),
        }
    }
    chains.retain(|chain| Owner::of_rules(chain).is_some());
    Gathered::Known(chains)
}

/// Reads the output of `iptables-save`.
pub(crate) fn parse_chains(tool: &str, text: &str) -> Vec<Chain> {
    let mut table = String::new();
    let mut chains: BTreeMap<(String, String, Option<Owner>), usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().unwrap_or_default();
            chains.entry((table.clone(), name.to_owned(), None)).or_default();
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let name = rest.split(' ').next().unwrap_or_default();
            // A rule that leads to a chain of its owner is found with that chain.
            let leads = rest.split(' ').any(|word| Owner::of_chain(word).is_some());
            let stray = (!leads)
                .then(|| Owner::ALL.into_iter().find(|owner| commented(rest, *owner)))
                .flatten();
            *chains.entry((table.clone(), name.to_owned(), stray)).or_default() += 1;
        }
    }
    let chains = chains.into_iter().map(|((table, name, stray_of), rules)| Chain {
        tool: tool.to_owned(),
        table,
        name,
        rules,
        stray_of,
    });
    chains.collect()
}

fn commented(rule: &str, owner: Owner) -> bool {
    owner.comments().iter().any(|comment| rule.contains(comment))
}

pub(crate) fn nft_tables(places: &Places) -> Gathered<Vec<String>> {
    let json = match Tool::of(&places.root).run("nft", &["-j", "list", "tables"], None) {
        Ok(json) => json,
        Err(error) => return Gathered::unknown(error.to_string()),
    };
    let Ok(value) = serde_json::from_str::<Value>(&json) else {
        return Gathered::unknown("`nft -j list tables` printed no JSON");
    };
    let tables = value["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let table = entry.get("table")?;
            Some(format!(
                "{} {}",
                table["family"].as_str()?,
                table["name"].as_str()?
            ))
        });
    Gathered::Known(tables.collect())
}

pub(crate) fn ipvs() -> Gathered<Vec<String>> {
    match fs::read_to_string("/proc/self/net/ip_vs") {
        Ok(table) => {
            let servers = table
                .lines()
                .filter(|line| ["TCP", "UDP", "SCTP"].iter().any(|kind| line.starts_with(kind)));
            Gathered::Known(servers.map(|line| line.trim().to_owned()).collect())
        }
        // Without the module there can be none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Gathered::Known(Vec::new()),
        Err(error) => Gathered::unknown(format!("/proc/self/net/ip_vs: {error}")),
    }
}

pub(crate) fn conflists(places: &Places) -> Gathered<ConflistDir> {
    let dir = places.on_node(&places.cni_conf_dir);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => return Gathered::unknown(format!("{}: {error}", dir.display())),
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| EXTENSIONS.iter().any(|one| name.ends_with(one)))
        .collect();
    names.sort();
    let files = names.into_iter().map(|name| read_conflist(&dir, name)).collect();
    Gathered::Known(ConflistDir {
        dir: places.cni_conf_dir.display().to_string(),
        files,
    })
}

fn read_conflist(dir: &Path, file: String) -> Conflist {
    let path = dir.join(&file);
    let read = || -> Result<Value, String> {
        let size = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if size > CONFLIST_BYTES_MAX {
            return Err(format!("it has {size} bytes, no configuration has"));
        }
        let text = fs::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    };
    match read() {
        Ok(value) => Conflist {
            file,
            network: value["name"].as_str().unwrap_or_default().to_owned(),
            plugins: plugins(&value),
            error: None,
        },
        Err(error) => Conflist {
            file,
            error: Some(error),
            ..Conflist::default()
        },
    }
}

/// Of a list or of a single plugin, each with its address manager.
fn plugins(conflist: &Value) -> Vec<String> {
    let list = conflist["plugins"]
        .as_array()
        .map_or_else(|| vec![conflist], |list| list.iter().collect());
    let mut found = Vec::new();
    for plugin in list {
        found.extend(plugin["type"].as_str().map(str::to_owned));
        found.extend(plugin["ipam"]["type"].as_str().map(|kind| format!("ipam:{kind}")));
    }
    found
}

pub(crate) fn bpffs(root: &Path) -> Gathered<Vec<String>> {
    let mut found = Vec::new();
    let mut waiting = vec![(root.to_owned(), 0_usize)];
    while let Some((dir, depth)) = waiting.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Gathered::unknown(format!("{}: {error}", dir.display())),
            // It went away meanwhile.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < PINS_DEPTH {
                    waiting.push((path, depth + 1));
                }
            } else if let Ok(inside) = path.strip_prefix(root) {
                found.push(inside.display().to_string());
            }
            if found.len() >= PINS_MAX {
                return Gathered::unknown(format!("{} holds more than {PINS_MAX} pins", root.display()));
            }
        }
    }
    found.sort();
    Gathered::Known(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_counted_by_table() {
        let text = "# comment\n*nat\n:POSTROUTING ACCEPT [0:0]\n:AWS-SNAT-CHAIN-0 - [0:0]\n\
                    -A POSTROUTING -j AWS-SNAT-CHAIN-0\n-A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -j RETURN\nCOMMIT\n";
        let chains = parse_chains("iptables", text);
        assert_eq!(chains.len(), 2);
        assert_eq!(
            (chains[0].name.as_str(), chains[0].rules),
            ("AWS-SNAT-CHAIN-0", 1)
        );
        assert_eq!(
            parse_chains("iptables", "\n-A\n:\n*\n"),
            [Chain {
                tool: "iptables".into(),
                ..Chain::default()
            }]
        );
    }

    #[test]
    fn rules_in_chains_of_others_are_known_by_their_comment() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m comment --comment \"AWS, primary ENI\" -j MARK\nCOMMIT\n";
        let strays = parse_chains("iptables", text)
            .into_iter()
            .filter_map(|chain| chain.stray_of);
        assert_eq!(strays.collect::<Vec<_>>(), [Owner::VpcCni]);
    }

    #[test]
    fn plugins_of_lists_and_of_single_files_are_read() {
        let list = serde_json::json!({"plugins": [{"type": "cilium-cni", "ipam": {"type": "azure-ipam"}}, {"type": "portmap"}]});
        assert_eq!(plugins(&list), ["cilium-cni", "ipam:azure-ipam", "portmap"]);
        assert_eq!(plugins(&serde_json::json!({"type": "flannel"})), ["flannel"]);
        assert!(plugins(&serde_json::json!([1, 2])).is_empty());
    }
}
