// SPDX-License-Identifier: Apache-2.0
//! Putting copies back, in the reverse order of removal.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ipnet::IpNet;
use netlink::{AddressFlags, Netlink, Request};
use serde::Serialize;
use serde_json::Value;

use super::{Backup, Saved, Trouble};
use crate::gather::{Places, Tool};

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restoration {
    /// What is back.
    pub restored: Vec<String>,
    /// What is not, and why.
    pub failed: Vec<Trouble>,
}

/// Puts a copy back, as far as it can be: pins are their owner's to make, and a pod's end of a device pair is gone with the pod. A
/// configuration that would take the place of ours is put back only by `force`.
#[must_use]
pub fn restore(places: &Places, backup: &Backup, force: bool) -> Restoration {
    let mut done = Restoration::default();
    for part in backup.parts.iter().rev() {
        match restore_one(places, part, force) {
            Ok(()) => done.restored.push(part.to_string()),
            Err(reason) => done.failed.push(Trouble {
                part: part.to_string(),
                reason,
            }),
        }
    }
    done
}

fn restore_one(places: &Places, part: &Saved, force: bool) -> Result<(), String> {
    let tool = Tool::of(&places.root);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let open = || Netlink::open().map_err(|error| error.to_string());
    match part {
        Saved::Conflist { file, mode, content } => {
            let dir = places.on_node(&places.cni_conf_dir);
            if !force && let Some(ours) = ours_after(&dir, file) {
                return Err(format!(
                    "it sorts before {ours}, so new pods would get the other network; --force, or `thalweg conflicts rollback`"
                ));
            }
            write(&dir, file, *mode, content)
        }
        Saved::Rule(rule) => match open()?.add_rule(rule) {
            Err(error) if error.is_exists() => Ok(()),
            result => result.map_err(|error| text(&error)),
        },
        Saved::Route(route) => {
            let mut netlink = open()?;
            let route = route.to_route(&mut netlink)?;
            netlink.replace_route(&route).map_err(|error| text(&error))
        }
        Saved::Chains(table) => {
            let present = tool.run(&table.saver, &[], None).map_err(|error| text(&error))?;
            let restore = table.saver.replace("-save", "-restore");
            let back = tool.run(&restore, &["--noflush"], Some(&table.restoration(&present)));
            back.map(drop).map_err(|error| text(&error))
        }
        Saved::NftTable { table, script } => {
            // In one transaction: made when it is not there, emptied, and filled again.
            let script = format!("add table {table}\ndelete table {table}\n{script}");
            tool.run("nft", &["-f", "-"], Some(&script))
                .map(drop)
                .map_err(|error| text(&error))
        }
        Saved::Ipvs { script } => tool
            .run("ipvsadm", &["-R"], Some(script))
            .map(drop)
            .map_err(|error| text(&error)),
        Saved::Link {
            name,
            details,
            addresses,
        } => link(&tool, name, details, addresses),
        Saved::Pin { .. } => {
            Err("a pin cannot be copied; its network makes it again when it starts".to_owned())
        }
    }
}

/// Our configuration, if it would come after a file of this name.
fn ours_after(dir: &Path, file: &str) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut later = names.filter(|name| name.as_str() > file);
    later.find(|name| fs::read_to_string(dir.join(name)).is_ok_and(|text| text.contains(cni::PLUGIN_TYPE)))
}

/// Written beside and renamed: the runtime must never see half a file.
pub(super) fn write(dir: &Path, file: &str, mode: u32, content: &str) -> Result<(), String> {
    if file.contains('/') || file.is_empty() {
        return Err(format!("`{file}` is no name of a file"));
    }
    let temporary = dir.join(format!(".{file}.tmp"));
    let result = (|| {
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        out.write_all(content.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, dir.join(file))
    })();
    result.map_err(|error| format!("{}: {error}", dir.join(file).display()))
}

/// Makes a device again, as far as its description goes.
fn link(tool: &Tool, name: &str, details: &Value, addresses: &[IpNet]) -> Result<(), String> {
    let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
    if netlink.link(name).map_err(|error| error.to_string())?.is_none() {
        let arguments = arguments(name, details)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        tool.run("ip", &arguments, None)
            .map_err(|error| error.to_string())?;
    }
    let link = netlink
        .link(name)
        .map_err(|error| error.to_string())?
        .ok_or("it was made and is not there")?;
    if let Some(mtu) = details["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()) {
        netlink
            .apply(&[Request::set_mtu(link.index, mtu)])
            .map_err(|error| error.to_string())?;
    }
    let flags = details["flags"].as_array();
    if flags.is_none_or(|flags| flags.iter().any(|flag| flag == "UP")) {
        netlink.set_up(link.index).map_err(|error| error.to_string())?;
    }
    for address in addresses {
        netlink
            .add_address(link.index, *address, AddressFlags { nodad: true })
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The arguments for `ip` that make a device of its kind.
fn arguments(name: &str, details: &Value) -> Result<Vec<String>, String> {
    let info = &details["linkinfo"];
    let data = &info["info_data"];
    let kind = info["info_kind"].as_str().unwrap_or_default();
    let mut words: Vec<String> = ["link", "add", "name", name].map(str::to_owned).to_vec();
    if let Some(address) = details["address"].as_str() {
        words.extend(["address".to_owned(), address.to_owned()]);
    }
    words.extend(["type".to_owned(), kind.to_owned()]);
    match kind {
        "bridge" | "dummy" => {}
        "vxlan" => {
            let number = |key: &str| data[key].as_u64().map(|number| number.to_string());
            let word = |key: &str| data[key].as_str().map(str::to_owned);
            for (option, value) in [
                ("id", number("id")),
                ("local", word("local").or_else(|| word("local6"))),
                ("dev", word("link")),
                ("dstport", number("port")),
            ] {
                words.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
            }
            if data["learning"] == false {
                words.push("nolearning".to_owned());
            }
        }
        "veth" => return Err("a pair of devices: the other end went with its pod".to_owned()),
        "" => return Err("it is hardware, or its kind was not noted".to_owned()),
        other => {
            return Err(format!(
                "devices of kind {other} are their network's to make again"
            ));
        }
    }
    Ok(words)
}
