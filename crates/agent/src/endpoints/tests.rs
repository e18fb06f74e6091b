// SPDX-License-Identifier: Apache-2.0
use std::net::IpAddr;

use model::Mac;

use super::pod_mac;

#[test]
fn a_pods_mac_follows_its_address() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let both = pod_mac(&[ip("10.244.1.2"), ip("fd00::2")]);
    assert_eq!(both, Mac([0x0a, 0x58, 10, 244, 1, 2]));
    let six = pod_mac(&[ip("fd00::2")]);
    assert_eq!(six.0[..2], [0x0a, 0x58]);
    assert_ne!(six, pod_mac(&[ip("fd00::3")]));
}
