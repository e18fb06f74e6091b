// SPDX-License-Identifier: Apache-2.0
//! Services, endpoints, policies, ingresses.

use serde_json::Value;

use super::{Printer, age, labels, number, or, selector, some_of, text};
use crate::value::{self, Json};

/// How many endpoints a cell shows.
const SHOWN: usize = 3;

pub(super) const SERVICES: Printer = Printer {
    columns: &[
        ("Type", false),
        ("Cluster-IP", false),
        ("External-IP", false),
        ("Port(s)", false),
        ("Age", false),
        ("Selector", true),
    ],
    cells: |s, now| {
        vec![
            text(s, "/spec/type"),
            text(s, "/spec/clusterIP"),
            external_ip(s).into(),
            or(&service_ports(s), "<none>"),
            age(s, now),
            labels(s.at("/spec/selector")),
        ]
    },
};

fn external_ip(service: &Value) -> String {
    let given: Vec<&str> = service
        .list_at("/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match service.str_at("/spec/type") {
        "ExternalName" => service.str_at("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = service.list_at("/status/loadBalancer/ingress").iter();
            let addresses = ingress.map(|i| {
                if i.str_at("/ip").is_empty() {
                    i.str_at("/hostname")
                } else {
                    i.str_at("/ip")
                }
            });
            let all: Vec<&str> = addresses.chain(given).collect();
            if all.is_empty() {
                "<pending>".into()
            } else {
                all.join(",")
            }
        }
        _ if given.is_empty() => "<none>".into(),
        _ => given.join(","),
    }
}

fn service_ports(service: &Value) -> String {
    let port = |p: &Value| {
        let (number_, protocol, node) = (number(p, "/port"), p.str_at("/protocol"), number(p, "/nodePort"));
        if node == 0 {
            format!("{number_}/{protocol}")
        } else {
            format!("{number_}:{node}/{protocol}")
        }
    };
    service
        .list_at("/spec/ports")
        .iter()
        .map(port)
        .collect::<Vec<_>>()
        .join(",")
}

/// `address:port`, an IPv6 address in brackets.
fn socket(address: &str, port: i64) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

pub(super) const ENDPOINTS: Printer = Printer {
    columns: &[("Endpoints", false), ("Age", false)],
    cells: |e, now| {
        let mut all = Vec::new();
        for subset in e.list_at("/subsets") {
            for address in subset.list_at("/addresses") {
                let ip = address.str_at("/ip");
                let ports = subset.list_at("/ports");
                all.extend(ports.iter().map(|p| socket(ip, number(p, "/port"))));
                if ports.is_empty() {
                    all.push(ip.to_owned());
                }
            }
        }
        vec![some_of(&all, SHOWN), age(e, now)]
    },
};

pub(super) const SLICES: Printer = Printer {
    columns: &[
        ("AddressType", false),
        ("Ports", false),
        ("Endpoints", false),
        ("Age", false),
    ],
    cells: |s, now| {
        let ports: Vec<String> = s
            .list_at("/ports")
            .iter()
            .map(|p| value::scalar(p.get("port")))
            .collect();
        let addresses = s
            .list_at("/endpoints")
            .iter()
            .flat_map(|e| e.list_at("/addresses"));
        let addresses: Vec<String> = addresses.map(|a| value::scalar(Some(a))).collect();
        let unset = |cell: Value| if cell == "<none>" { "<unset>".into() } else { cell };
        vec![
            text(s, "/addressType"),
            unset(some_of(&ports, SHOWN)),
            unset(some_of(&addresses, SHOWN)),
            age(s, now),
        ]
    },
};

pub(super) const POLICIES: Printer = Printer {
    columns: &[("Pod-Selector", false), ("Age", false)],
    cells: |p, now| vec![selector(p.at("/spec/podSelector")), age(p, now)],
};

pub(super) const INGRESSES: Printer = Printer {
    columns: &[
        ("Class", false),
        ("Hosts", false),
        ("Address", false),
        ("Ports", false),
        ("Age", false),
    ],
    cells: |i, now| {
        let hosts: Vec<String> = i
            .list_at("/spec/rules")
            .iter()
            .map(|r| r.str_at("/host").to_owned())
            .filter(|h| !h.is_empty())
            .collect();
        let hosts = if hosts.is_empty() {
            "*".into()
        } else {
            some_of(&hosts, SHOWN)
        };
        let addresses: Vec<&str> = i
            .list_at("/status/loadBalancer/ingress")
            .iter()
            .map(|l| {
                if l.str_at("/ip").is_empty() {
                    l.str_at("/hostname")
                } else {
                    l.str_at("/ip")
                }
            })
            .collect();
        let ports = if i.list_at("/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            text(i, "/spec/ingressClassName"),
            hosts,
            addresses.join(",").into(),
            ports.into(),
            age(i, now),
        ]
    },
};

pub(super) const INGRESS_CLASSES: Printer = Printer {
    columns: &[("Controller", false), ("Parameters", false), ("Age", false)],
    cells: |c, now| {
        vec![
            text(c, "/spec/controller"),
            text(c, "/spec/parameters/name"),
            age(c, now),
        ]
    },
};
