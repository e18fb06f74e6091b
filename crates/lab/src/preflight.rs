// SPDX-License-Identifier: Apache-2.0
//! What can be known to fail before anything of a lab is made: addresses that do not suffice, files that are not there or
//! cannot be understood, an API server that does not answer.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use model::Family;
use nix::unistd::{AccessFlags, access};

use crate::controllers::pod_cidrs::Pool;
use crate::external::{self, External};
use crate::plan::Plan;
use crate::spec::{ApiKind, Ipam, Spec};
use crate::{Error, apply};

/// How long an API server that runs already may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The addresses of the smallest service network: its own, the one of the service `kubernetes`, one for a service, the last.
const SERVICE_ADDRESSES_MIN: u32 = 4;

/// Checks a specification and everything it names.
///
/// # Errors
/// The first thing that would keep the lab from coming up, with the key, the reason and the remedy.
pub(crate) fn check(spec: &Spec) -> Result<(), Error> {
    spec.validate()?;
    let plan = Plan::of(spec)?;
    // With cluster pools the operator judges the pools, and podCIDRs is of no use.
    if spec.ipam == Ipam::Kubernetes {
        check_pod_cidrs(spec, &plan)?;
    }
    for cidr in &plan.service_cidrs {
        if addresses(cidr) < u128::from(SERVICE_ADDRESSES_MIN) {
            return refused(format!(
                "serviceCIDRs: {cidr} has not even {SERVICE_ADDRESSES_MIN} addresses; the defaults are a /16 and a /112"
            ));
        }
    }
    for manifest in &spec.manifests {
        apply::read(manifest).map_err(|error| Error::Refused(format!("manifests: {error}")))?;
    }
    match (spec.api, &spec.kubeconfig) {
        (ApiKind::Embedded, _) => Ok(()),
        (ApiKind::External, Some(path)) => check_running(path),
        (ApiKind::External, None) => external::assets().map(drop),
    }
}

/// Each node needs a part of each range, and each part an address for each of the node's pods.
fn check_pod_cidrs(spec: &Spec, plan: &Plan) -> Result<(), Error> {
    for cidr in &plan.pod_cidrs {
        if let Some(why) = unusable(cidr) {
            return refused(format!(
                "podCIDRs: {cidr} {why}; choose a private range like 10.244.0.0/16 or fd74:7710::/48"
            ));
        }
        let pool = Pool::new(*cidr);
        let (nodes, parts) = (plan.nodes.len(), pool.parts());
        if parts < nodes as u128 {
            let enough = pool.prefix_for(nodes);
            return refused(format!(
                "podCIDRs: {cidr} has a /{} for {parts} nodes, and there are {nodes}; make it a /{enough} or larger, or the \
                 nodes fewer",
                pool.node_prefix
            ));
        }
        let (pods, room) = (u128::from(spec.pods_per_node), pod_addresses(&pool));
        if room < pods {
            return refused(format!(
                "podCIDRs: a node's part of {cidr} has {room} addresses for pods, and podsPerNode is {pods}; make the range \
                 larger, or the pods fewer"
            ));
        }
    }
    Ok(())
}

/// Why no pod can have an address of this range.
fn unusable(cidr: &IpNet) -> Option<&'static str> {
    let (first, last) = (cidr.network(), cidr.broadcast());
    let link_local = match cidr {
        IpNet::V4(net) => net.network().is_link_local() || net.broadcast().is_link_local(),
        IpNet::V6(net) => net.network().is_unicast_link_local() || net.broadcast().is_unicast_link_local(),
    };
    if cidr.prefix_len() == 0 || first.is_unspecified() {
        Some("has addresses that mean no one")
    } else if first.is_loopback() || last.is_loopback() {
        Some("is of the loopback device")
    } else if first.is_multicast() || last.is_multicast() || is_reserved(cidr) {
        Some("is not of unicast addresses")
    } else {
        link_local.then_some("is of link-local addresses")
    }
}

/// 240.0.0.0/4 with the broadcast address (RFC 1112 §4).
fn is_reserved(cidr: &IpNet) -> bool {
    matches!(cidr, IpNet::V4(net) if net.broadcast().octets()[0] >= 240)
}

fn addresses(cidr: &IpNet) -> u128 {
    1u128
        .checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len()))
        .unwrap_or(u128::MAX)
}

/// How many addresses of a node's part pods can have: not the network's own, nor IPv4's broadcast address, unless there are
/// no more than these.
fn pod_addresses(pool: &Pool) -> u128 {
    let family = Family::of_net(&pool.cidr);
    let host_bits = pool.cidr.max_prefix_len() - pool.node_prefix;
    let all = 1u128.checked_shl(u32::from(host_bits)).unwrap_or(u128::MAX);
    match (host_bits, family) {
        (0 | 1, _) => all,
        (_, Family::Ipv4) => all - 2,
        (_, Family::Ipv6) => all - 1,
    }
}

fn check_running(kubeconfig: &Path) -> Result<(), Error> {
    let external = External::from_kubeconfig(kubeconfig)?;
    let refused = |reason: &dyn std::fmt::Display| {
        Error::Refused(format!(
            "kubeconfig: {}: its server {} does not answer: {reason}; is it running?",
            kubeconfig.display(),
            external.url
        ))
    };
    let addresses = external
        .upstream()
        .to_socket_addrs()
        .map_err(|error| refused(&error))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| refused(&"its name has no address"), |error| refused(&error)))
}

/// Whether a file can be run.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

fn refused<T>(text: String) -> Result<T, Error> {
    Err(Error::Refused(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(yaml: &str) -> String {
        let spec: Spec = serde_yaml_ng::from_str(yaml).unwrap();
        check(&spec).expect_err(yaml).to_string()
    }

    fn accepted(yaml: &str) {
        let spec: Spec = serde_yaml_ng::from_str(yaml).unwrap();
        check(&spec).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    }

    #[test]
    fn a_range_that_is_too_small_is_refused_with_one_that_is_not() {
        let said = refusal("{family: ipv4, nodes: 5, podCIDRs: [10.9.0.0/22]}");
        assert_eq!(
            said,
            "podCIDRs: 10.9.0.0/22 has a /24 for 4 nodes, and there are 5; make it a /21 or larger, or the nodes fewer"
        );
        accepted("{family: ipv4, nodes: 4, podCIDRs: [10.9.0.0/22]}");
        accepted("{family: ipv4, nodes: 5, podCIDRs: [10.9.0.0/21]}");
        let said = refusal("{nodes: 3, podCIDRs: [10.9.0.0/16, 'fd09::/63']}");
        assert!(
            said.contains("fd09::/63 has a /64 for 2 nodes") && said.contains("make it a /62"),
            "{said}"
        );
    }

    #[test]
    fn a_nodes_part_must_have_room_for_its_pods() {
        let said = refusal("{family: ipv4, nodes: 1, podsPerNode: 7, podCIDRs: [10.9.0.0/29]}");
        assert!(
            said.contains("has 6 addresses for pods, and podsPerNode is 7"),
            "{said}"
        );
        accepted("{family: ipv4, nodes: 1, podsPerNode: 6, podCIDRs: [10.9.0.0/29]}");
        accepted("{family: ipv6, nodes: 1, podsPerNode: 7, podCIDRs: ['fd09::/125']}");
        assert!(
            refusal("{family: ipv6, nodes: 1, podsPerNode: 8, podCIDRs: ['fd09::/125']}").contains("has 7")
        );
    }

    #[test]
    fn ranges_that_pods_cannot_have_are_refused() {
        for (cidr, said) in [
            ("127.0.0.0/16", "loopback"),
            ("224.0.0.0/16", "unicast"),
            ("250.0.0.0/16", "unicast"),
            ("169.254.0.0/16", "link-local"),
            ("0.0.0.0/8", "no one"),
        ] {
            let yaml = format!("{{family: ipv4, podCIDRs: [{cidr}]}}");
            assert!(refusal(&yaml).contains(said), "{cidr}: {}", refusal(&yaml));
        }
        assert!(refusal("{family: ipv6, podCIDRs: ['fe80::/48']}").contains("link-local"));
        assert!(
            refusal("{family: ipv4, serviceCIDRs: [10.96.0.0/31]}").contains("serviceCIDRs: 10.96.0.0/31")
        );
    }

    #[test]
    fn manifests_are_read_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab.yaml");
        std::fs::write(&path, "manifests: [app.yaml]").unwrap();
        let said = || check(&Spec::load(&path).unwrap()).unwrap_err().to_string();
        assert!(
            said().contains("manifests: ") && said().contains("app.yaml: No such file"),
            "{}",
            said()
        );
        std::fs::write(directory.path().join("app.yaml"), "kind: Pod\n").unwrap();
        assert!(
            said().contains("app.yaml: document 1: apiVersion, kind and metadata.name are needed"),
            "{}",
            said()
        );
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}}";
        std::fs::write(directory.path().join("app.yaml"), pod).unwrap();
        check(&Spec::load(&path).unwrap()).unwrap();
    }

    #[test]
    fn an_external_api_server_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let spec = Spec {
            api: ApiKind::External,
            kubeconfig: Some(path.clone()),
            ..Spec::default()
        };
        let said = || check(&spec).unwrap_err().to_string();
        assert!(
            said().starts_with("kubeconfig: ") && said().contains("No such file"),
            "{}",
            said()
        );
        // A port that was free a moment ago, and nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let kubeconfig = format!(
            "{{current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], users: [{{name: a, user: {{}}}}], \
             clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{port}'}}}}]}}"
        );
        std::fs::write(&path, kubeconfig).unwrap();
        assert!(said().contains("does not answer"), "{}", said());
    }
}
