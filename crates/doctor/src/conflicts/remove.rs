// SPDX-License-Identifier: Apache-2.0
//! Removing other networks' parts: copied first, nothing that is in use, everything that can go even when one part cannot.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use netlink::Netlink;
use serde::Serialize;

use super::backup::{self, Backup, Saved};
use super::{ConflictError, Item, Part, Trouble};
use crate::gather::{Places, Tool};
use crate::owner::Owner;

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// What went.
    pub removed: Vec<String>,
    /// What something uses, and what that is.
    pub refused: Vec<Trouble>,
    /// What should have gone and did not.
    pub failed: Vec<Trouble>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
    /// Where copies are, one per network.
    pub copies: Vec<PathBuf>,
}

/// What of the items would go, and what would stay because it is in use.
#[must_use]
pub fn plan(items: Vec<Item>, owners: &[Owner], force: bool) -> (Vec<Item>, Vec<Trouble>) {
    let wanted = items
        .into_iter()
        .filter(|item| owners.is_empty() || owners.contains(&item.owner));
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for item in wanted {
        match item.in_use.clone().filter(|_| !force) {
            None => going.push(item),
            Some(reason) => staying.push(Trouble {
                part: item.part.to_string(),
                reason,
            }),
        }
    }
    (going, staying)
}

/// Removes items after copying them. What cannot be copied stays.
///
/// # Errors
/// When a copy cannot be written; nothing of that network was removed then.
pub fn remove(
    places: &Places,
    items: Vec<Item>,
    refused: Vec<Trouble>,
    unix: u64,
) -> Result<Removal, ConflictError> {
    let mut removal = Removal {
        refused,
        ..Removal::default()
    };
    let mut by_owner: BTreeMap<Owner, Vec<Part>> = BTreeMap::new();
    for item in items {
        by_owner.entry(item.owner).or_default().push(item.part);
    }
    for (owner, parts) in by_owner {
        let (saved, trouble) = backup::copy(places, owner, &parts);
        removal.failed.extend(trouble);
        if saved.is_empty() {
            continue;
        }
        let copy = Backup::new(&places.node, owner, unix, saved);
        removal.copies.push(copy.write(&places.on_node(&places.kept))?);
        for part in &copy.parts {
            match remove_one(places, part) {
                Ok(()) => removal.removed.push(part.to_string()),
                Err(reason) => removal.failed.push(Trouble {
                    part: part.to_string(),
                    reason,
                }),
            }
        }
    }
    Ok(removal)
}

/// Removes one; that it is gone already is well: routes go with their devices.
fn remove_one(places: &Places, part: &Saved) -> Result<(), String> {
    let tool = Tool::of(&places.root);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let open = || Netlink::open().map_err(|error| error.to_string());
    match part {
        Saved::Conflist { file, .. } => {
            absent_is_well(fs::remove_file(places.on_node(&places.cni_conf_dir).join(file)))
        }
        Saved::Rule(rule) => open()?.delete_rule(rule).map(drop).map_err(|error| text(&error)),
        Saved::Route(route) => {
            let mut netlink = open()?;
            let Ok(route) = route.to_route(&mut netlink) else {
                return Ok(());
            };
            netlink
                .delete_route(&route)
                .map(drop)
                .map_err(|error| text(&error))
        }
        Saved::Chains(table) => {
            let restore = table.saver.replace("-save", "-restore");
            let removed = tool.run(&restore, &["--noflush"], Some(&table.removal()));
            removed.map(drop).map_err(|error| text(&error))
        }
        Saved::NftTable { table, .. } => {
            let (family, name) = table.split_once(' ').ok_or("it has no family")?;
            tool.run("nft", &["delete", "table", family, name], None)
                .map(drop)
                .map_err(|error| text(&error))
        }
        Saved::Ipvs { .. } => tool
            .run("ipvsadm", &["-C"], None)
            .map(drop)
            .map_err(|error| text(&error)),
        Saved::Link { name, .. } => open()?.delete_link(name).map(drop).map_err(|error| text(&error)),
        Saved::Pin { path } => {
            let pin = places.bpffs.join(path);
            absent_is_well(fs::remove_file(&pin))?;
            // Directories that are empty now go too, up to the root; a full one refuses.
            let mut dir = pin.parent();
            while let Some(one) = dir.filter(|dir| *dir != places.bpffs) {
                if fs::remove_dir(one).is_err() {
                    break;
                }
                dir = one.parent();
            }
            Ok(())
        }
    }
}

fn absent_is_well(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}
