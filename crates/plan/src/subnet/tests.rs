// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::capacity::{Mode, Network, Request};
use crate::instance::InstanceTable;

fn subnet(cidr: &str, fragmentation: Fragmentation) -> Subnet {
    Subnet::new(cidr.parse().unwrap(), fragmentation).unwrap()
}

fn filled(cidr: &str, fragmentation: Fragmentation, used: u32) -> Subnet {
    let mut subnet = subnet(cidr, fragmentation);
    subnet.take(used).unwrap();
    subnet
}

const RANDOM: Fragmentation = Fragmentation::Random { seed: 7 };

#[test]
fn an_empty_subnet_lacks_what_the_cloud_keeps() {
    let empty = subnet("10.0.0.0/24", Fragmentation::Packed);
    assert_eq!((empty.free(), empty.prefixes(), empty.stranded()), (251, 14, 27));
    let small = subnet("10.0.0.0/28", Fragmentation::Packed);
    assert_eq!((small.free(), small.prefixes()), (11, 0));
    assert_eq!(subnet("10.0.0.0/16", RANDOM).free(), 65_531);
}

#[test]
fn a_few_scattered_addresses_leave_no_prefix() {
    assert_eq!(
        filled("10.0.0.0/24", Fragmentation::Packed, 14).prefixes(),
        14 - 1
    );
    let spread = filled("10.0.0.0/24", Fragmentation::Spread, 14);
    assert_eq!((spread.free(), spread.prefixes()), (237, 0));
    let random = filled("10.0.0.0/20", RANDOM, 1_000);
    assert!(
        random.prefixes() < 20 && random.free() > 3_000,
        "{}",
        random.prefixes()
    );
}

#[test]
fn known_addresses_are_taken_as_they_are() {
    let mut subnet = subnet("10.0.0.0/24", Fragmentation::Packed);
    subnet
        .take_these(&[
            "10.0.0.16".parse().unwrap(),
            "10.0.0.16".parse().unwrap(),
            "10.0.0.0".parse().unwrap(),
        ])
        .unwrap();
    assert_eq!((subnet.used(), subnet.prefixes()), (1, 13));
    let elsewhere = subnet.take_these(&["10.0.1.0".parse().unwrap()]);
    assert!(matches!(elsewhere, Err(SubnetError::Outside { .. })));
}

#[test]
fn what_is_no_subnet_is_refused() {
    let new = |cidr: &str| Subnet::new(cidr.parse().unwrap(), RANDOM);
    assert!(matches!(new("10.0.0.1/24"), Err(SubnetError::NotFirst { .. })));
    assert!(matches!(new("10.0.0.0/8"), Err(SubnetError::Size(_))));
    assert!(matches!(new("10.0.0.0/29"), Err(SubnetError::Size(_))));
    assert!(matches!(
        new("10.0.0.0/28").unwrap().take(12),
        Err(SubnetError::TooMany { usable: 11, .. })
    ));
}

#[test]
fn a_node_takes_what_its_network_keeps_ready() {
    let table = InstanceTable::shipped().unwrap();
    let node = |mode, pods, network| {
        let demand = NodeDemand::of(
            table.get("m5.large").ok(),
            &Request::new(mode, network),
            pods,
            Warm::default_of(network),
        )
        .unwrap();
        (demand.addresses, demand.prefixes)
    };
    // 10 pods are two interfaces of nine addresses; the VPC CNI keeps a third one full.
    assert_eq!(node(Mode::Eni, 10, Network::VpcCni), (3 + 27, 0));
    assert_eq!(node(Mode::Eni, 10, Network::Cilium), (2 + 18, 0));
    assert_eq!(node(Mode::Eni, 0, Network::Cilium), (1 + 8, 0));
    assert_eq!(node(Mode::EniPrefix, 10, Network::VpcCni), (1, 2));
    assert_eq!(node(Mode::EniPrefix, 100, Network::VpcCni), (1, 8));
    assert_eq!(node(Mode::AzureNodeSubnet, 30, Network::Azure), (31, 0));
    assert_eq!(node(Mode::AzurePodSubnet, 30, Network::Azure), (32, 0));
    let eni = Request::new(Mode::Eni, Network::Thalweg);
    let too_many = NodeDemand::of(table.get("m5.large").ok(), &eni, 28, Warm::Addresses(0));
    assert!(matches!(too_many, Err(DemandError::TooMany { slots: 27, .. })));
}

#[test]
fn a_subnet_runs_out_in_the_month_that_arithmetic_says() {
    let node = NodeDemand {
        addresses: 10,
        prefixes: 0,
    };
    let now = filled("10.0.0.0/24", RANDOM, 51);
    let forecast = forecast(&now, node, 5, Growth::NodesPerMonth(3), 60);
    // 200 free: twenty nodes more, three a month: the 21st of them comes in the seventh month.
    let end = forecast.exhausted.unwrap();
    assert_eq!(
        (end.month, end.node, end.short_of, end.free),
        (7, 26, Short::Addresses, 0)
    );
    assert_eq!(forecast.most_nodes, 25);
    assert_eq!(
        forecast.months.last().map(|month| (month.month, month.nodes)),
        Some((6, 23))
    );
}

#[test]
fn prefixes_run_out_before_addresses() {
    let node = NodeDemand {
        addresses: 1,
        prefixes: 2,
    };
    let now = filled("10.0.0.0/22", RANDOM, 60);
    let forecast = forecast(&now, node, 0, Growth::NodesPerMonth(1), 60);
    let end = forecast.exhausted.unwrap();
    assert_eq!(end.short_of, Short::Prefixes);
    assert!(end.free > 400, "{end:?}");
}

#[test]
fn without_growth_there_is_no_end_but_a_most() {
    let node = NodeDemand {
        addresses: 10,
        prefixes: 0,
    };
    let forecast = forecast(
        &subnet("10.0.0.0/24", RANDOM),
        node,
        0,
        Growth::NodesPerMonth(0),
        60,
    );
    assert_eq!((forecast.exhausted, forecast.most_nodes), (None, 25));
}

#[test]
fn ranges_of_a_pod_cidr_are_counted() {
    let cidr = "10.244.0.0/16".parse().unwrap();
    let ranges = node_ranges(cidr, 24, 100, Growth::PercentPerMonth(10), 60).unwrap();
    // 100 x 1.1^n, rounded up, passes 256 in the tenth month.
    assert_eq!((ranges.most_nodes, ranges.exhausted_month), (256, Some(10)));
    let small = node_ranges(cidr, 15, 1, Growth::NodesPerMonth(1), 60);
    assert!(matches!(small, Err(SubnetError::NoRange { .. })), "{small:?}");
    let inside = node_ranges(
        "10.244.0.5/16".parse().unwrap(),
        24,
        1,
        Growth::NodesPerMonth(1),
        60,
    );
    assert!(matches!(inside, Err(SubnetError::NotFirst { .. })), "{inside:?}");
    assert_eq!(
        node_ranges(cidr, 24, 1, Growth::NodesPerMonth(0), 60)
            .unwrap()
            .exhausted_month,
        None
    );
}

#[test]
fn growth_is_nodes_or_percent() {
    assert_eq!("5".parse(), Ok(Growth::NodesPerMonth(5)));
    assert_eq!("10%".parse(), Ok(Growth::PercentPerMonth(10)));
    for bad in ["", "%", "-1", "1.5", "five", "10 %"] {
        assert!(bad.parse::<Growth>().is_err(), "{bad}");
    }
}

fn any_subnet() -> impl Strategy<Value = (Ipv4Net, u32)> {
    (21_u8..=28).prop_flat_map(|mask| {
        let usable = (1_u32 << (32 - mask)) - 5;
        (0..=usable).prop_map(move |used| (Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), mask).unwrap(), used))
    })
}

proptest! {
    #[test]
    fn packed_is_the_best_and_spread_the_worst((cidr, used) in any_subnet(), seed: u64) {
        let prefixes = |fragmentation| {
            let mut subnet = Subnet::new(cidr, fragmentation).unwrap();
            subnet.take(used).unwrap();
            subnet.prefixes()
        };
        let random = prefixes(Fragmentation::Random { seed });
        prop_assert!(prefixes(Fragmentation::Packed) >= random);
        prop_assert!(random >= prefixes(Fragmentation::Spread));
    }

    #[test]
    fn counts_agree_with_the_bits((cidr, used) in any_subnet(), seed: u64, prefixes in 0_u32..40) {
        let mut subnet = Subnet::new(cidr, Fragmentation::Random { seed }).unwrap();
        subnet.take(used).unwrap();
        for _ in 0..prefixes {
            subnet.take_prefix();
        }
        let free: u32 = subnet.blocks.iter().map(|block| block.count_zeros()).sum();
        let blocks = subnet.blocks.iter().filter(|block| **block == 0).count();
        prop_assert_eq!(subnet.free(), free);
        prop_assert_eq!(subnet.prefixes() as usize, blocks);
        prop_assert_eq!(subnet.used() + subnet.free(), subnet.usable());
        prop_assert!(subnet.used() >= used);
    }

    #[test]
    fn a_forecast_repeats_and_adds_up(
        (cidr, used) in any_subnet(),
        seed: u64,
        addresses in 1_u32..60,
        prefixes in 0_u32..5,
        per_month in 1_u32..9,
    ) {
        let mut subnet = Subnet::new(cidr, Fragmentation::Random { seed }).unwrap();
        subnet.take(used).unwrap();
        let node = NodeDemand { addresses, prefixes };
        let follow = || forecast(&subnet, node, 3, Growth::NodesPerMonth(per_month), 24);
        let first = follow();
        prop_assert_eq!(&first, &follow());
        for month in &first.months {
            let placed = u32::try_from(month.nodes - 3).unwrap();
            prop_assert_eq!(month.free + placed * (addresses + 16 * prefixes), subnet.free());
            prop_assert!(month.prefixes * 16 <= month.free);
        }
        if let Some(end) = first.exhausted {
            prop_assert_eq!(end.node, first.most_nodes + 1);
        }
    }

    #[test]
    fn more_used_never_lasts_longer((cidr, used) in any_subnet(), more in 0_u32..100, addresses in 1_u32..20) {
        let node = NodeDemand { addresses, prefixes: 0 };
        let most = |used| {
            let mut subnet = Subnet::new(cidr, RANDOM).unwrap();
            subnet.take(used).ok().map(|()| forecast(&subnet, node, 0, Growth::NodesPerMonth(0), 1).most_nodes)
        };
        if let (Some(less), Some(rest)) = (most(used), most(used + more)) {
            prop_assert!(rest <= less);
        }
    }
}

/// With the VPC CNI's custom networking the first interface is another subnet's.
#[test]
fn interfaces_that_pods_may_not_use_take_nothing() {
    let table = InstanceTable::shipped().unwrap();
    let request = Request {
        reserved_interfaces: 1,
        ..Request::new(Mode::Eni, Network::VpcCni)
    };
    let demand = |pods| NodeDemand::of(table.get("t3.small").ok(), &request, pods, Warm::Units(1));
    assert_eq!(demand(6).unwrap().addresses, 2 * 4);
    assert!(matches!(demand(7), Err(DemandError::TooMany { slots: 6, .. })));
}

#[test]
fn numbers_that_no_node_has_are_refused_or_cut_and_never_wrap() {
    let table = InstanceTable::shipped().unwrap();
    let instance = table.get("m5.large").ok();
    for mode in [Mode::AzurePodSubnet, Mode::AzureNodeSubnet] {
        let demand = NodeDemand::of(
            None,
            &Request::new(mode, Network::Azure),
            u32::MAX,
            Warm::Addresses(0),
        );
        assert!(
            matches!(demand, Err(DemandError::TooMany { slots: 250, .. })),
            "{demand:?}"
        );
    }
    for mode in [Mode::Eni, Mode::EniPrefix] {
        for warm in [Warm::Addresses(u32::MAX), Warm::Units(u32::MAX)] {
            let demand = NodeDemand::of(instance, &Request::new(mode, Network::VpcCni), 9, warm).unwrap();
            assert_eq!(demand.addresses + demand.prefixes, 30, "{mode} {warm:?}");
        }
    }
}
