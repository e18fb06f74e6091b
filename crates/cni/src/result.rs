// SPDX-License-Identifier: Apache-2.0
//! The result of ADD, in every version's form.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Dns, Version};

/// An interface that ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU (in results since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the network namespace; absent for an interface of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The default gateway of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into the list of interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU of the route (in results since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What ADD did, in no version's form yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddResult {
    /// The interfaces: the host's end, then the container's.
    pub interfaces: Vec<Interface>,
    /// The addresses.
    pub ips: Vec<Ip>,
    /// The routes.
    pub routes: Vec<Route>,
}

/// As much of a `prevResult` as we need; any version's form decodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrevResult {
    /// The interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(default)]
    pub ips: Vec<Ip>,
}

impl PrevResult {
    /// The addresses that the result gives to the container's interface `ifname`.
    #[must_use]
    pub fn addresses_of(&self, ifname: &str) -> Vec<IpAddr> {
        let is_ours = |ip: &&Ip| {
            let interface = ip.interface.and_then(|index| self.interfaces.get(index));
            interface.is_some_and(|found| found.name == ifname && found.sandbox.is_some())
        };
        self.ips
            .iter()
            .filter(is_ours)
            .map(|ip| ip.address.addr())
            .collect()
    }
}

impl AddResult {
    /// The result as `version` writes it.
    #[must_use]
    pub fn to_json(&self, version: Version, dns: &Dns) -> Value {
        let interfaces: Vec<Value> = self
            .interfaces
            .iter()
            .map(|one| interface_json(one, version))
            .collect();
        let ips: Vec<Value> = self.ips.iter().map(|ip| ip_json(ip, version)).collect();
        let routes: Vec<Value> = self
            .routes
            .iter()
            .map(|route| route_json(route, version))
            .collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
            "dns": dns,
        })
    }
}

fn interface_json(interface: &Interface, version: Version) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), interface.name.as_str().into());
    put(&mut map, "mac", interface.mac.as_deref());
    put(
        &mut map,
        "mtu",
        interface.mtu.filter(|_| version >= Version::V1_1_0),
    );
    put(&mut map, "sandbox", interface.sandbox.as_deref());
    map.into()
}

fn ip_json(ip: &Ip, version: Version) -> Value {
    let mut map = Map::new();
    if version < Version::V1_0_0 {
        map.insert(
            "version".into(),
            if ip.address.addr().is_ipv4() { "4" } else { "6" }.into(),
        );
    }
    map.insert("address".into(), ip.address.to_string().into());
    put(&mut map, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
    put(&mut map, "interface", ip.interface);
    map.into()
}

fn route_json(route: &Route, version: Version) -> Value {
    let mut map = Map::new();
    map.insert("dst".into(), route.dst.to_string().into());
    put(&mut map, "gw", route.gw.map(|gateway| gateway.to_string()));
    put(&mut map, "mtu", route.mtu.filter(|_| version >= Version::V1_1_0));
    map.into()
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}
