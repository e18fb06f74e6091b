// SPDX-License-Identifier: Apache-2.0
//! Data for tests: the types that published tables have, with their numbers.

use crate::catalogue::{Catalogue, Instance, Known, Price};
use crate::file::{Cloud, Platform};

/// Interfaces, addresses of each, processors (amazon-vpc-cni-k8s `vpc_ip_resource_limit.go`).
const TYPES: [(&str, u32, u32, u32); 5] = [
    ("t3.small", 3, 4, 2),
    ("t3.medium", 3, 6, 2),
    ("t3.large", 3, 12, 2),
    ("m5.large", 3, 10, 2),
    ("m5.xlarge", 4, 15, 4),
];

pub(crate) struct Sample;

impl Catalogue for Sample {
    fn instance(&self, cloud: Cloud, name: &str) -> Known<Instance> {
        if cloud != Cloud::Aws {
            return Known::NoData;
        }
        match TYPES.iter().find(|(known, ..)| *known == name) {
            Some((_, interfaces, addresses, vcpus)) => Known::Yes(Instance {
                interfaces: *interfaces,
                addresses_per_interface: *addresses,
                vcpus: Some(*vcpus),
                prefixes: true,
            }),
            None => {
                let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
                Known::No(crate::file::nearest(name, &names).map(str::to_owned))
            }
        }
    }

    fn price(&self, cloud: Cloud, region: &str, name: &str) -> Option<Price> {
        (cloud == Cloud::Aws && region == "eu-central-1" && name == "m5.large").then(|| Price {
            usd_per_hour: 0.115,
            source: "a test".into(),
            date: "2025-03-02".into(),
        })
    }
}

pub(crate) fn parsed(text: &str) -> Platform {
    Platform::parse(text, &Sample).unwrap_or_else(|refused| panic!("{refused}"))
}
