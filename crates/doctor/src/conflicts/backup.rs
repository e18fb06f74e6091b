// SPDX-License-Identifier: Apache-2.0
//! Copies of parts, made before anything is removed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::SavedTable;
use super::{COPIES, ConflictError, Part, Trouble};
use crate::gather::{Places, Tool, savers};
use crate::owner::Owner;

/// The form's version.
const SCHEMA: u32 = 1;

/// A copy of a network's parts on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The form's version.
    pub schema: u32,
    /// The node.
    pub node: String,
    /// Whose parts they are.
    pub owner: Owner,
    /// Seconds since 1970.
    pub unix: u64,
    /// The parts, in the order of removal.
    pub parts: Vec<Saved>,
}

/// A part, with all that is needed to make it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Saved {
    /// A network configuration.
    Conflist {
        /// The file's name.
        file: String,
        /// Its permissions.
        mode: u32,
        /// What is in it.
        content: String,
    },
    /// A routing rule.
    Rule(#[serde(with = "RuleForm")] netlink::Rule),
    /// A route.
    Route(SavedRoute),
    /// Chains of a table of iptables.
    Chains(SavedTable),
    /// A table of nftables.
    NftTable {
        /// Family and name.
        table: String,
        /// What `nft list table` says, which `nft -f` takes.
        script: String,
    },
    /// Virtual servers of IPVS.
    Ipvs {
        /// What `ipvsadm -Sn` says, which `ipvsadm -R` takes.
        script: String,
    },
    /// A network device.
    Link {
        /// Its name.
        name: String,
        /// What `ip -details -json link` says.
        details: Value,
        /// Its addresses.
        addresses: Vec<IpNet>,
    },
    /// A pin: it cannot be made again by anybody but its owner.
    Pin {
        /// Its path below the BPF file system.
        path: String,
    },
}

/// How a copy writes the fields of a routing rule; the compiler holds both together.
#[derive(Serialize, Deserialize)]
#[serde(remote = "netlink::Rule")]
struct RuleForm {
    ipv6: bool,
    priority: u32,
    src: Option<IpNet>,
    dst: Option<IpNet>,
    mark: Option<(u32, u32)>,
    iif: Option<String>,
    oif: Option<String>,
    table: u32,
}

/// A route, field by field as in [`netlink::Route`], but the device by name, as its index changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRoute {
    pub dst: IpNet,
    pub gateway: Option<std::net::IpAddr>,
    pub device: Option<String>,
    pub src: Option<std::net::IpAddr>,
    pub protocol: u8,
    pub scope_link: bool,
    pub onlink: bool,
    pub mtu: Option<u32>,
    pub table: u32,
    pub metric: Option<u32>,
}

impl SavedRoute {
    fn of(route: &netlink::Route, links: &[netlink::Link]) -> Self {
        let name = |index: u32| {
            links
                .iter()
                .find(|link| link.index == index)
                .map(|link| link.name.clone())
        };
        Self {
            dst: route.dst,
            gateway: route.gateway,
            device: route.oif.and_then(name),
            src: route.src,
            protocol: route.protocol,
            scope_link: route.scope_link,
            onlink: route.onlink,
            mtu: route.mtu,
            table: route.table,
            metric: route.metric,
        }
    }

    /// The route with the device's present index.
    pub(super) fn to_route(&self, netlink: &mut netlink::Netlink) -> Result<netlink::Route, String> {
        let oif = match &self.device {
            None => None,
            Some(name) => {
                let link = netlink.link(name).map_err(|error| error.to_string())?;
                Some(
                    link.ok_or_else(|| format!("its device {name} is not there"))?
                        .index,
                )
            }
        };
        Ok(netlink::Route {
            dst: self.dst,
            gateway: self.gateway,
            oif,
            src: self.src,
            protocol: self.protocol,
            scope_link: self.scope_link,
            onlink: self.onlink,
            mtu: self.mtu,
            table: self.table,
            metric: self.metric,
        })
    }
}

/// Copies parts; what could not be copied comes back as trouble, and must not be removed.
pub(super) fn copy(places: &Places, owner: Owner, parts: &[Part]) -> (Vec<Saved>, Vec<Trouble>) {
    let (mut saved, mut trouble) = (Vec::new(), Vec::new());
    for part in parts {
        match copy_one(places, owner, part) {
            Ok(one) => saved.push(one),
            Err(reason) => trouble.push(Trouble {
                part: part.to_string(),
                reason: format!("it could not be copied, so it stays: {reason}"),
            }),
        }
    }
    (saved, trouble)
}

fn copy_one(places: &Places, owner: Owner, part: &Part) -> Result<Saved, String> {
    let tool = Tool::of(&places.root);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    Ok(match part {
        Part::Conflist { file } => {
            let path = places.on_node(&places.cni_conf_dir).join(file);
            Saved::Conflist {
                file: file.clone(),
                mode: fs::metadata(&path)
                    .map_err(|error| text(&error))?
                    .permissions()
                    .mode()
                    & 0o7777,
                content: fs::read_to_string(&path).map_err(|error| text(&error))?,
            }
        }
        Part::Rule {
            priority,
            text: words,
        } => {
            let mut netlink = netlink::Netlink::open().map_err(|error| text(&error))?;
            let rules = netlink.rules().map_err(|error| text(&error))?;
            let rule = rules
                .iter()
                .find(|rule| rule.priority == *priority && rule.to_string() == *words);
            Saved::Rule(rule.ok_or("it is gone meanwhile")?.clone())
        }
        Part::Route {
            destination,
            device,
            table,
        } => {
            let mut netlink = netlink::Netlink::open().map_err(|error| text(&error))?;
            let links = netlink.links().map_err(|error| text(&error))?;
            let routes = netlink.routes(None).map_err(|error| text(&error))?;
            let saved = routes.iter().map(|route| SavedRoute::of(route, &links));
            let mut same =
                saved.filter(|one| one.dst == *destination && one.device == *device && one.table == *table);
            Saved::Route(same.next().ok_or("it is gone meanwhile")?)
        }
        Part::Chains {
            tool: shows,
            table,
            chains,
            ..
        } => rules_of(&tool, owner, shows, table, chains)?,
        Part::NftTable { table } => {
            let (family, name) = table.split_once(' ').ok_or("it has no family")?;
            let script = tool
                .run("nft", &["list", "table", family, name], None)
                .map_err(|error| text(&error))?;
            Saved::NftTable {
                table: table.clone(),
                script,
            }
        }
        Part::Ipvs { .. } => Saved::Ipvs {
            script: tool
                .run("ipvsadm", &["-Sn"], None)
                .map_err(|error| text(&error))?,
        },
        Part::Link { name, .. } => link(name, &tool)?,
        Part::Pin { path } => Saved::Pin { path: path.clone() },
    })
}

fn rules_of(tool: &Tool, owner: Owner, shows: &str, table: &str, chains: &[String]) -> Result<Saved, String> {
    let savers = savers(tool);
    let saver = savers
        .iter()
        .find(|(name, _)| *name == shows)
        .map(|(_, saver)| *saver);
    let saver = saver.ok_or_else(|| format!("nothing here shows chains of {shows}"))?;
    let all = tool.run(saver, &[], None).map_err(|error| error.to_string())?;
    Ok(Saved::Chains(SavedTable::extract(
        saver,
        &all,
        table,
        chains,
        owner.comments(),
    )))
}

fn link(name: &str, tool: &Tool) -> Result<Saved, String> {
    let mut netlink = netlink::Netlink::open().map_err(|error| error.to_string())?;
    let link = netlink
        .link(name)
        .map_err(|error| error.to_string())?
        .ok_or("it is gone meanwhile")?;
    let addresses = netlink.addresses().map_err(|error| error.to_string())?;
    // The copy of a device is good for the way back; that the program is missing is no reason to keep a dead device.
    let details = tool.run("ip", &["-details", "-json", "link", "show", "dev", name], None);
    let details = details
        .ok()
        .and_then(|json| serde_json::from_str::<Value>(&json).ok());
    Ok(Saved::Link {
        name: name.to_owned(),
        details: details.and_then(|list| list.get(0).cloned()).unwrap_or_else(
            || serde_json::json!({"ifname": name, "mtu": link.mtu, "linkinfo": {"info_kind": link.kind}}),
        ),
        addresses: addresses
            .iter()
            .filter(|one| one.ifindex == link.index && one.global)
            .map(|one| one.net)
            .collect(),
    })
}

impl Backup {
    pub(super) fn new(node: &str, owner: Owner, unix: u64, parts: Vec<Saved>) -> Self {
        Self {
            schema: SCHEMA,
            node: node.to_owned(),
            owner,
            unix,
            parts,
        }
    }

    /// Writes it below the directory for kept things, whole and safe on disk, readable to root alone.
    pub(super) fn write(&self, kept: &Path) -> Result<PathBuf, ConflictError> {
        let dir = kept.join(COPIES);
        fs::create_dir_all(&dir).map_err(ConflictError::file("create", &dir))?;
        let name = |number: u32| {
            let suffix = if number == 0 {
                String::new()
            } else {
                format!("-{number}")
            };
            dir.join(format!("{}-{}{suffix}.json", self.unix, self.owner.as_str()))
        };
        let fail = |path: &Path, error: std::io::Error| ConflictError::file("write", path)(error);
        let path = (0..)
            .map(name)
            .find(|path| !path.exists())
            .unwrap_or_else(|| name(0));
        let json = serde_json::to_vec_pretty(self).map_err(|error| fail(&path, error.into()))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| fail(&path, error))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .map_err(|error| fail(&path, error))?;
        Ok(path)
    }

    /// Reads one.
    ///
    /// # Errors
    /// When there is none, or none that this version understands.
    pub fn read(path: &Path) -> Result<Self, ConflictError> {
        let text = fs::read(path).map_err(ConflictError::file("read", path))?;
        let corrupt = |reason: String| ConflictError::Corrupt {
            path: path.to_owned(),
            reason,
        };
        let backup: Self = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        if backup.schema == SCHEMA {
            Ok(backup)
        } else {
            Err(corrupt(format!(
                "it is of form {}, this version reads {SCHEMA}",
                backup.schema
            )))
        }
    }
}

impl std::fmt::Display for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conflist { file, .. } => write!(f, "network configuration {file}"),
            Self::Rule(rule) => write!(f, "rule {}: {rule}", rule.priority),
            Self::Route(route) => write!(f, "route {}", route.dst),
            Self::Chains(table) => {
                let tool = table.saver.replace("-nft-save", "").replace("-save", "");
                let (chains, jumps) = (table.chains.len(), table.jumps.len());
                write!(
                    f,
                    "rules of {tool} {}: {chains} chains, {jumps} rules in chains of others",
                    table.table
                )
            }
            Self::NftTable { table, .. } => write!(f, "table of nftables {table}"),
            Self::Ipvs { .. } => write!(f, "virtual servers of IPVS"),
            Self::Link { name, .. } => write!(f, "device {name}"),
            Self::Pin { path } => write!(f, "pin {path}"),
        }
    }
}
