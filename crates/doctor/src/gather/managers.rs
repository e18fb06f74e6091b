// SPDX-License-Identifier: Apache-2.0
//! systemd-networkd and NetworkManager: whether they run here, and whether their files tell them to leave our devices
//! alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{Places, host};
use crate::facts::{Gathered, Manager, Managers};

/// The name of one of our devices, as the agent makes them.
const OURS: &str = "tw0123456789ab";

pub(super) fn find(places: &Places) -> Gathered<Managers> {
    let processes = match host::processes(places) {
        Gathered::Known(processes) => processes,
        Gathered::Unknown { unknown } => return Gathered::Unknown { unknown },
    };
    let runs = |name: &str| processes.iter().any(|process| process == name);
    Gathered::Known(Managers {
        networkd: runs(host::NETWORKD).then(|| networkd(places)),
        network_manager: runs(host::NETWORK_MANAGER).then(|| network_manager(places)),
    })
}

/// Files with an extension; of equal names the one of the first directory counts, and all apply in the order of names.
fn files(places: &Places, dirs: &[&str], extension: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for dir in dirs {
        for entry in fs::read_dir(places.on_node(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(extension) {
                found.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    found
}

/// The first `.network` file that matches a device is the one that applies (systemd.network(5)); a device that none
/// matches is left alone.
fn networkd(places: &Places) -> Manager {
    const DIRS: [&str; 3] = [
        "/etc/systemd/network",
        "/run/systemd/network",
        "/usr/lib/systemd/network",
    ];
    let mut matching = None;
    for (name, path) in files(places, &DIRS, ".network") {
        let text = fs::read_to_string(path).unwrap_or_default();
        let sections = sections(&text);
        if matches_ours(&sections) {
            matching = Some((name, sections));
            break;
        }
    }
    let dropins = [
        "/etc/systemd/networkd.conf.d",
        "/run/systemd/networkd.conf.d",
        "/usr/lib/systemd/networkd.conf.d",
    ];
    let main = fs::read_to_string(places.on_node("/etc/systemd/networkd.conf")).unwrap_or_default();
    let mut settings = sections(&main);
    for path in files(places, &dropins, ".conf").values() {
        settings.extend(sections(&fs::read_to_string(path).unwrap_or_default()));
    }
    let foreign = |key: &str| last(&settings, "Network", key).is_none_or(is_yes);
    Manager {
        leaves_ours: matching
            .as_ref()
            .is_none_or(|(_, sections)| last(sections, "Link", "Unmanaged").is_some_and(is_yes)),
        files: matching.into_iter().map(|(name, _)| name).collect(),
        manages_foreign: foreign("ManageForeignRoutes") || foreign("ManageForeignRoutingPolicyRules"),
    }
}

fn is_yes(value: &str) -> bool {
    ["yes", "true", "1", "on"].contains(&value.to_ascii_lowercase().as_str())
}

fn network_manager(places: &Places) -> Manager {
    const DIRS: [&str; 3] = [
        "/etc/NetworkManager/conf.d",
        "/run/NetworkManager/conf.d",
        "/usr/lib/NetworkManager/conf.d",
    ];
    let mut all = files(places, &DIRS, ".conf");
    all.insert(
        "NetworkManager.conf".into(),
        places.on_node("/etc/NetworkManager/NetworkManager.conf"),
    );
    let leaving = all.into_iter().filter(|(_, path)| {
        let sections = sections(&fs::read_to_string(path).unwrap_or_default());
        let lists = sections.iter().filter(|(_, key, _)| key == "unmanaged-devices");
        lists
            .flat_map(|(_, _, value)| value.split([';', ',']))
            .any(|device| {
                let device = device.trim();
                let pattern = device
                    .strip_prefix("interface-name:")
                    .map(|pattern| pattern.trim_start_matches('='));
                pattern.is_some_and(|pattern| glob(pattern, OURS)) || device == "type:veth" || device == "*"
            })
    });
    let files: Vec<String> = leaving.map(|(name, _)| name).collect();
    Manager {
        leaves_ours: !files.is_empty(),
        files,
        manages_foreign: false,
    }
}

/// `(section, key, value)` in the order of the file.
fn sections(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) {
            found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

fn last<'a>(sections: &'a [(String, String, String)], section: &str, key: &str) -> Option<&'a str> {
    let mut values = sections
        .iter()
        .rev()
        .filter(|(in_section, name, _)| in_section == section && name == key);
    values.next().map(|(_, _, value)| value.as_str())
}

/// Whether all conditions of `[Match]` hold for one of our devices: a veth without a driver of its own on any bus.
fn matches_ours(sections: &[(String, String, String)]) -> bool {
    let mut conditions = sections
        .iter()
        .filter(|(section, _, _)| section == "Match")
        .peekable();
    // Without conditions networkd warns and matches everything.
    if conditions.peek().is_none() {
        return true;
    }
    conditions.all(|(_, key, value)| match key.as_str() {
        "Name" => any_glob(value, OURS),
        "Type" => any_glob(value, "ether"),
        "Kind" | "Driver" => any_glob(value, "veth"),
        // The machine's, not the device's: taken for true.
        "Architecture" | "Host" | "Virtualization" | "KernelCommandLine" | "KernelVersion" => true,
        // A hardware address, a bus path or a property that ours do not have.
        _ => false,
    })
}

fn any_glob(patterns: &str, name: &str) -> bool {
    let negated = patterns.strip_prefix('!');
    let hit = negated
        .unwrap_or(patterns)
        .split_whitespace()
        .any(|pattern| glob(pattern, name));
    hit != negated.is_some()
}

/// Shell patterns with `*` and `?`.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    n = from + 1;
                    star = Some((at, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &std::path::Path) -> Places {
        Places {
            node: "n".into(),
            root: root.to_owned(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            bpffs: "/sys/fs/bpf".into(),
            agent_socket: "/run/thalweg/agent.sock".into(),
            kept: "/var/lib/thalweg".into(),
        }
    }

    fn write(root: &std::path::Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn networkd_takes_what_a_file_for_everything_matches() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(networkd(&places(root)).leaves_ours && networkd(&places(root)).manages_foreign);
        write(
            root,
            "/usr/lib/systemd/network/80-eth.network",
            "[Match]\nName=eth*\n[Network]\nDHCP=yes\n",
        );
        assert!(networkd(&places(root)).leaves_ours);
        write(
            root,
            "/etc/systemd/network/90-all.network",
            "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
        );
        let manager = networkd(&places(root));
        assert!(!manager.leaves_ours && manager.files == ["90-all.network"]);
        write(
            root,
            "/etc/systemd/network/05-ours.network",
            "[Match]\nName=tw* thalweg*\n[Link]\nUnmanaged=yes\n",
        );
        assert!(networkd(&places(root)).leaves_ours);
        write(
            root,
            "/etc/systemd/networkd.conf.d/foreign.conf",
            "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
        );
        assert!(!networkd(&places(root)).manages_foreign);
    }

    #[test]
    fn network_manager_leaves_what_it_is_told_to_leave() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(!network_manager(&places(root)).leaves_ours);
        write(
            root,
            "/etc/NetworkManager/conf.d/cali.conf",
            "[keyfile]\nunmanaged-devices=interface-name:cali*\n",
        );
        assert!(!network_manager(&places(root)).leaves_ours);
        let ours = "[keyfile]\nunmanaged-devices=interface-name:thalweg*;interface-name:tw*\n";
        write(root, "/etc/NetworkManager/conf.d/thalweg.conf", ours);
        assert!(network_manager(&places(root)).leaves_ours);
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("tw*", OURS, true),
            ("*", OURS, true),
            ("t?0123456789a?", OURS, true),
            ("*ab", OURS, true),
            ("*ac", OURS, false),
            ("eth*", OURS, false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern}");
        }
        assert!(any_glob("!eth* en*", OURS) && !any_glob("!tw*", OURS));
    }
}
