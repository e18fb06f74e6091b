// SPDX-License-Identifier: Apache-2.0
//! The tunnel's device and port, in network namespaces of the tests' own.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::UdpSocket;

use api::config::{Encapsulation, TunnelProtocol, UnderlayProtocol};
use netlink::Netlink;
use nix::sched::{CloneFlags, unshare};
use thalweg_agent::tunnel::{TUNNEL_LINK, Tunnel};

mod support;

use support::privileged;

#[test]
fn a_port_that_is_taken_is_named_with_the_remedy() {
    privileged!();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let _other = UdpSocket::bind("0.0.0.0:8472").unwrap();
    let mut netlink = Netlink::open().unwrap();
    for encapsulation in [Encapsulation::Auto, Encapsulation::Kernel] {
        let error = Tunnel::prepare(&mut netlink, settings(encapsulation))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("UDP port 8472") && error.contains("tunnelPort"),
            "{error}"
        );
        assert_eq!(
            netlink.link(TUNNEL_LINK).unwrap(),
            None,
            "nothing half made stays"
        );
    }
    let tunnel = Tunnel::prepare(&mut netlink, settings(Encapsulation::Ebpf)).unwrap();
    let error = tunnel.reserve_port().unwrap_err().to_string();
    assert!(
        error.contains("UDP port 8472") && error.contains("tunnelPort"),
        "{error}"
    );
}

#[test]
fn the_device_stays_while_its_settings_do_and_is_made_anew_with_others() {
    privileged!();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let tunnel = Tunnel::prepare(&mut netlink, settings(Encapsulation::Kernel)).unwrap();
    assert!(tunnel.device);
    let first = tunnel.ensure_device(&mut netlink, Some(1450)).unwrap();
    assert_eq!(
        tunnel.ensure_device(&mut netlink, Some(1400)).unwrap().index,
        first.index
    );
    assert_eq!(netlink.link(TUNNEL_LINK).unwrap().unwrap().mtu, 1400);
    let mut other = settings(Encapsulation::Kernel);
    other.port = 4789;
    let other = Tunnel::prepare(&mut netlink, other).unwrap();
    assert_ne!(
        other.ensure_device(&mut netlink, None).unwrap().index,
        first.index
    );
}

#[test]
fn a_kernel_without_the_device_is_told_or_not_needed() {
    privileged!();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let geneve = |encapsulation| api::config::Tunnel {
        protocol: TunnelProtocol::Geneve,
        ..settings(encapsulation)
    };
    match Tunnel::prepare(&mut netlink, geneve(Encapsulation::Kernel)) {
        Ok(tunnel) => assert!(tunnel.device && netlink.link(TUNNEL_LINK).unwrap().is_some()),
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.contains("modprobe geneve") && error.contains("tunnelEncapsulation"),
                "{error}"
            );
            let tunnel = Tunnel::prepare(&mut netlink, geneve(Encapsulation::Auto)).unwrap();
            assert!(!tunnel.device && tunnel.reserve_port().unwrap().is_some());
        }
    }
}

fn settings(encapsulation: Encapsulation) -> api::config::Tunnel {
    api::config::Tunnel {
        protocol: TunnelProtocol::Vxlan,
        port: 8472,
        vni: 1,
        encapsulation,
        underlay: UnderlayProtocol::Auto,
    }
}
