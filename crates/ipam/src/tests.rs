// SPDX-License-Identifier: Apache-2.0
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{EndpointId, Family};
use proptest::prelude::*;

use super::*;

#[test]
fn both_families_or_none() {
    let mut pools = allocator(&["10.0.0.0/24", "fd00::/126"]);
    for n in 1..=3 {
        assert_eq!(
            pools.allocate(&id(n)).unwrap(),
            [ip(&format!("10.0.0.{n}")), ip(&format!("fd00::{n}"))]
        );
    }
    let error = pools.allocate(&id(4)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ipv6") && text.contains("fd00::/126") && text.contains("3 of 3 used"),
        "{text}"
    );
    assert_eq!(pools.usage()[0].used, 3, "the IPv4 address was not kept");
}

#[test]
fn network_broadcast_and_reserved_addresses_are_not_given() {
    let spec = PoolSpec {
        reserve_first: 2,
        ..net("10.0.0.0/29").into()
    };
    let mut pools = Allocator::new();
    pools.set_pools(&[spec]).unwrap();
    let given: Vec<_> = std::iter::from_fn(|| pools.allocate(&id(0)).ok())
        .flatten()
        .collect();
    assert_eq!(given, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip));
    for (cidr, capacity) in [
        ("10.0.0.0/31", 2),
        ("10.0.0.0/32", 1),
        ("fd00::/64", u128::from(u64::MAX)),
        ("fd00::/127", 2),
    ] {
        assert_eq!(allocator(&[cidr]).usage()[0].capacity, capacity, "{cidr}");
    }
}

#[test]
fn a_released_address_rests_and_comes_last() {
    let mut pools = allocator(&["10.0.0.0/29"]);
    let first = pools.allocate(&id(1)).unwrap();
    assert_eq!(pools.release(&id(1)), first);
    assert_eq!(
        pools.release(&id(1)),
        [] as [IpAddr; 0],
        "unknown is not an error"
    );
    for n in 2..=6 {
        assert_ne!(pools.allocate(&id(n)).unwrap(), first);
    }
    assert!(
        pools
            .allocate(&id(7))
            .unwrap_err()
            .to_string()
            .contains("1 resting")
    );
    assert!(pools.rested(first[0]) && !pools.rested(first[0]));
    assert_eq!(pools.allocate(&id(7)).unwrap(), first);
}

#[test]
fn a_claim_needs_a_free_address_of_a_pool() {
    let mut pools = allocator(&["10.0.0.0/24"]);
    pools.claim(&id(1), ip("10.0.0.9")).unwrap();
    pools.claim(&id(1), ip("10.0.0.9")).unwrap();
    assert!(matches!(
        pools.claim(&id(2), ip("10.0.0.9")),
        Err(ClaimError::AlreadyUsed { .. })
    ));
    assert!(matches!(
        pools.claim(&id(2), ip("10.0.1.9")),
        Err(ClaimError::OutOfPool { .. })
    ));
    assert_eq!(
        pools.allocate(&id(2)).unwrap(),
        [ip("10.0.0.10")],
        "the search goes on behind what is restored"
    );
}

#[test]
fn a_change_of_pools_keeps_allocations() {
    let mut pools = allocator(&["10.0.0.0/24"]);
    let old = pools.allocate(&id(1)).unwrap();
    pools.set_pools(&specs(&["10.0.1.0/24"])).unwrap();
    assert_eq!(pools.owner(old[0]), Some(&id(1)));
    assert_eq!(pools.allocate(&id(2)).unwrap(), [ip("10.0.1.1")]);
    assert_eq!((pools.usage().len(), pools.usage()[0].used), (1, 1));
    assert_eq!(pools.release(&id(1)), old);
}

#[test]
fn pools_that_cannot_be_used_change_nothing() {
    let mut pools = allocator(&["10.0.0.0/24"]);
    let error = pools
        .set_pools(&specs(&["10.1.0.0/16", "10.1.2.0/24"]))
        .unwrap_err();
    assert!(error.to_string().contains("10.1.0.0/16 and 10.1.2.0/24 overlap"));
    assert_eq!(pools.usage()[0].cidr.to_string(), "10.0.0.0/24");
    let tiny = PoolSpec {
        reserve_first: 1,
        ..net("10.0.0.0/32").into()
    };
    assert!(matches!(pools.set_pools(&[tiny]), Err(PoolError::Empty(_))));
    assert_eq!(Allocator::new().allocate(&id(1)), Err(AllocateError::NoPool));
}

#[test]
fn pods_of_a_pool_get_addresses_of_all_its_blocks_and_of_no_other_pool() {
    let of = |pool: &str, cidr: &str| PoolSpec {
        pool: pool.into(),
        ..net(cidr).into()
    };
    let both = [Family::Ipv4, Family::Ipv6];
    let mut pools = Allocator::new();
    let mut blocks = vec![
        of("a", "10.0.0.0/30"),
        of("a", "fd00::/120"),
        of("b", "10.9.0.0/29"),
        of("a", "10.0.0.8/30"),
    ];
    pools.set_pools(&blocks).unwrap();
    let given: Vec<_> = (0..4)
        .map(|n| pools.allocate_from(&id(n), "a", &both).unwrap()[0])
        .collect();
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.10"].map(ip));
    let error = pools.allocate_from(&id(5), "a", &both).unwrap_err().to_string();
    assert!(error.contains("10.0.0.0/30, 10.0.0.8/30: 4 of 4 used"), "{error}");
    assert!(matches!(
        pools.allocate_from(&id(5), "b", &both),
        Err(AllocateError::NoBlock {
            family: Family::Ipv6,
            ..
        })
    ));
    assert_eq!(
        pools.allocate_from(&id(5), "b", &both[..1]).unwrap(),
        [ip("10.9.0.1")]
    );

    // A block that is to go gives nothing, not even what comes back to it; a new one does.
    blocks[0].draining = true;
    blocks.push(of("a", "10.0.0.4/30"));
    pools.set_pools(&blocks).unwrap();
    pools.release(&id(0));
    assert!(pools.rested(given[0]));
    assert_eq!(
        pools.allocate_from(&id(6), "a", &both).unwrap()[0],
        ip("10.0.0.5")
    );
    let usage = pools.usage();
    assert!(usage[0].draining && usage[0].used == 1, "{usage:?}");
}

#[derive(Debug, Clone)]
enum Op {
    Allocate(u8),
    Release(u8),
    Rested(u8),
    Claim(u8, u8),
    Pools(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<u8>().prop_map(|n| Op::Allocate(n % 16)),
        3 => any::<u8>().prop_map(|n| Op::Release(n % 16)),
        3 => any::<u8>().prop_map(Op::Rested),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(n, host)| Op::Claim(n % 16, host)),
        1 => any::<u8>().prop_map(Op::Pools),
    ]
}

proptest! {
    #[test]
    fn no_address_twice_and_none_lost(ops in proptest::collection::vec(op(), 1..120)) {
        let choices = [vec!["10.0.0.0/29", "fd00::/125"], vec!["10.0.0.0/29"], vec!["10.0.0.8/30", "10.0.0.0/30", "fd00::/126"]];
        let mut pools = allocator(&choices[0]);
        let mut given: BTreeMap<IpAddr, EndpointId> = BTreeMap::new();
        let mut resting: BTreeSet<IpAddr> = BTreeSet::new();
        for op in ops {
            match op {
                Op::Allocate(n) => if let Ok(ips) = pools.allocate(&id(n)) {
                    let families: BTreeSet<_> = pools.usage().iter().map(|usage| usage.family).collect();
                    prop_assert_eq!(ips.len(), families.len());
                    for ip in ips {
                        prop_assert!(!resting.contains(&ip));
                        prop_assert!(given.insert(ip, id(n)).is_none(), "{} given twice", ip);
                    }
                } else {
                    let full = |family| pools.usage().iter().filter(|u| u.family == family).all(|u| u.free() == 0);
                    prop_assert!(pools.usage().iter().any(|usage| full(usage.family)));
                },
                Op::Release(n) => {
                    let mine: Vec<_> = given.extract_if(.., |_, owner| *owner == id(n)).map(|(ip, _)| ip).collect();
                    prop_assert_eq!(pools.release(&id(n)), mine.clone());
                    resting.extend(mine);
                }
                Op::Rested(host) => {
                    let ip = ip(&format!("10.0.0.{}", host % 12));
                    prop_assert_eq!(pools.rested(ip), resting.remove(&ip));
                }
                Op::Claim(n, host) => {
                    let ip = ip(&format!("10.0.0.{}", host % 12));
                    match pools.claim(&id(n), ip) {
                        Ok(()) => {
                            prop_assert!(given.insert(ip, id(n)).is_none_or(|owner| owner == id(n)));
                            resting.remove(&ip);
                        }
                        Err(ClaimError::AlreadyUsed { .. }) => prop_assert!(given[&ip] != id(n)),
                        Err(ClaimError::OutOfPool { .. }) => {}
                    }
                }
                Op::Pools(n) => pools.set_pools(&specs(&choices[usize::from(n) % choices.len()])).unwrap(),
            }
            let now: BTreeMap<_, _> = pools.allocations().map(|(ip, owner)| (ip, owner.clone())).collect();
            prop_assert_eq!(&now, &given);
        }
    }
}

fn allocator(cidrs: &[&str]) -> Allocator {
    let mut pools = Allocator::new();
    pools.set_pools(&specs(cidrs)).unwrap();
    pools
}

fn specs(cidrs: &[&str]) -> Vec<PoolSpec> {
    cidrs.iter().map(|cidr| net(cidr).into()).collect()
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn id(n: u8) -> EndpointId {
    EndpointId {
        container_id: format!("c{n}"),
        ifname: "eth0".into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
