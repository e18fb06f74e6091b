// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::instance::InstanceTable;

fn table() -> InstanceTable {
    InstanceTable::shipped().unwrap()
}

fn ask(instance: &str, mode: Mode, network: Network) -> Capacity {
    let table = table();
    capacity(Some(table.get(instance).unwrap()), &Request::new(mode, network)).unwrap()
}

/// Type, slots, AWS's number, Cilium's, slots with prefixes: worked out by hand from AWS's published limits.
const KNOWN: [(&str, u32, u32, u32, u32); 6] = [
    ("t3.small", 9, 11, 7, 144),
    ("t3.medium", 15, 17, 13, 240),
    ("t3.large", 33, 35, 31, 528),
    ("m5.large", 27, 29, 25, 432),
    ("m5.xlarge", 56, 58, 54, 896),
    ("c5.4xlarge", 232, 234, 230, 3712),
];

#[test]
fn known_types_have_their_known_numbers_in_eni_mode() {
    for (name, slots, official, cilium, _) in KNOWN {
        let ours = ask(name, Mode::Eni, Network::Thalweg);
        assert_eq!((ours.slots, ours.usable), (slots, slots), "{name}");
        let aws = ask(name, Mode::Eni, Network::VpcCni);
        assert_eq!(aws.official_max_pods, Some(official), "{name}");
        assert_eq!(aws.max_pods, Some(official.min(110)), "{name}");
        assert_eq!(ask(name, Mode::Eni, Network::Cilium).usable, cilium, "{name}");
    }
}

#[test]
fn known_types_have_their_known_numbers_with_prefixes() {
    for (name, _, _, _, prefixes) in KNOWN {
        let answer = ask(name, Mode::EniPrefix, Network::VpcCni);
        assert_eq!(answer.slots, prefixes, "{name}");
        assert_eq!(answer.official_max_pods, Some(prefixes + 2), "{name}");
        assert_eq!(answer.max_pods, Some(110), "{name}");
        assert_eq!(answer.limit, Some(Limit::MaxPods), "{name}");
    }
}

#[test]
fn known_types_have_their_known_numbers_with_overflow_and_overlay() {
    for (name, slots, ..) in KNOWN {
        let overflow = ask(name, Mode::EniOverflow, Network::Thalweg);
        assert_eq!(
            (overflow.subnet_slots, overflow.slots),
            (slots, slots + 254),
            "{name}"
        );
        assert_eq!(
            (overflow.max_pods, overflow.pods),
            (Some(110), Some(110)),
            "{name}"
        );
        let overlay = ask(name, Mode::Overlay, Network::Thalweg);
        assert_eq!((overlay.slots, overlay.max_pods), (254, Some(110)), "{name}");
        assert_eq!(ask(name, Mode::Overlay, Network::Cilium).usable, 252, "{name}");
        assert_eq!(ask(name, Mode::PodCidr, Network::Thalweg).slots, 254, "{name}");
    }
}

#[test]
fn many_processors_raise_the_cap() {
    assert_eq!(
        ask("m5.8xlarge", Mode::EniPrefix, Network::VpcCni).max_pods,
        Some(250)
    );
    assert_eq!(
        ask("m5.4xlarge", Mode::EniPrefix, Network::VpcCni).max_pods,
        Some(110)
    );
    let wide = ask("m5.24xlarge", Mode::Eni, Network::VpcCni);
    assert_eq!((wide.official_max_pods, wide.max_pods), (Some(737), Some(250)));
}

/// Rows of AWS's own file that its formula does not give from the limits of the same commit: none at present.
const EXCEPTIONS: [(&str, &str); 0] = [];

#[test]
fn every_type_agrees_with_the_published_file() {
    let table = table();
    let mut compared = 0;
    for line in include_str!("../../testdata/eni-max-pods.csv").lines() {
        let Some((name, number)) = line.split_once(',').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let instance = table.get(name).unwrap();
        let answer = capacity(Some(instance), &Request::new(Mode::Eni, Network::VpcCni)).unwrap();
        let excepted = EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
        assert_eq!(
            answer.official_max_pods == Some(number.parse().unwrap()),
            !excepted,
            "{name}"
        );
        compared += 1;
    }
    assert_eq!(compared, table.len());
    assert_eq!(compared, 1391);
}

/// Counts that others published of the same tables.
#[test]
fn the_whole_table_has_its_known_shape() {
    let table = table();
    let below = |mode| {
        let answers = table
            .iter()
            .map(move |row| capacity(Some(row), &Request::new(mode, Network::VpcCni)));
        answers
            .filter(|answer| {
                answer
                    .as_ref()
                    .is_ok_and(|answer| answer.official_max_pods < Some(110))
            })
            .count()
    };
    assert_eq!(below(Mode::Eni), 439);
    let xen = table
        .iter()
        .filter(|row| row.prefix_support() == PrefixSupport::No)
        .count();
    let unknown = table
        .iter()
        .filter(|row| row.prefix_support() == PrefixSupport::Unknown)
        .count();
    assert_eq!((xen, unknown), (80, 2));
}

#[test]
fn an_unknown_number_of_processors_leaves_the_cap_open() {
    let table = table();
    let open = table.get("c7i.32xlarge").unwrap();
    assert_eq!(open.vcpus, None);
    let answer = capacity(Some(open), &Request::new(Mode::Eni, Network::VpcCni)).unwrap();
    assert_eq!(
        (answer.official_max_pods, answer.max_pods, answer.pods),
        (Some(737), None, None)
    );
    assert!(
        answer.notes.iter().any(|note| note.contains("110 or 250")),
        "{:?}",
        answer.notes
    );
}

#[test]
fn xen_has_no_prefixes_and_a_nameless_hypervisor_is_unknown() {
    let table = table();
    let ask = |name| {
        capacity(
            table.get(name).ok(),
            &Request::new(Mode::EniPrefix, Network::Thalweg),
        )
    };
    assert_eq!(ask("m4.large"), Err(CapacityError::NoPrefixes("m4.large".into())));
    assert_eq!(
        ask("cr1.8xlarge"),
        Err(CapacityError::PrefixesUnknown("cr1.8xlarge".into()))
    );
    assert!(ask("m5.metal").is_ok());
}

#[test]
fn azure_and_google_have_their_documented_numbers() {
    let ask = |mode, max_pods| {
        let request = Request {
            max_pods,
            ..Request::new(mode, Network::Thalweg)
        };
        capacity(None, &request).map(|answer| (answer.slots, answer.max_pods))
    };
    assert_eq!(ask(Mode::AzureOverlay, None), Ok((256, Some(250))));
    assert_eq!(ask(Mode::AzurePodSubnet, None), Ok((110, Some(110))));
    assert_eq!(ask(Mode::AzureNodeSubnet, None), Ok((30, Some(30))));
    assert!(ask(Mode::AzureOverlay, Some(251)).is_err());
    assert!(ask(Mode::AzureOverlay, Some(9)).is_err());
    assert_eq!(ask(Mode::Gke, None), Ok((256, Some(110))));
    assert!(ask(Mode::Gke, Some(7)).is_err());
}

#[test]
fn googles_masks_are_those_of_its_table() {
    for (pods, mask) in [
        (8, 28),
        (9, 27),
        (16, 27),
        (17, 26),
        (32, 26),
        (33, 25),
        (64, 25),
        (65, 24),
        (110, 24),
        (128, 24),
        (129, 23),
        (256, 23),
    ] {
        assert_eq!(gke_mask(pods), mask, "{pods}");
    }
}

#[test]
fn impossible_questions_are_refused_with_what_is_possible() {
    let table = table();
    let small = table.get("t3.small").unwrap();
    let error = capacity(Some(small), &Request::new(Mode::Overlay, Network::VpcCni)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vpc-cni has no mode overlay; it has eni, eni-prefix"
    );
    assert_eq!(
        capacity(None, &Request::new(Mode::Eni, Network::Thalweg)),
        Err(CapacityError::NeedsInstance(Mode::Eni))
    );
    assert!(matches!(
        capacity(Some(small), &Request::new(Mode::Gke, Network::Gke)),
        Err(CapacityError::WrongCloud { .. })
    ));
    let reserved = Request {
        reserved_interfaces: 3,
        ..Request::new(Mode::Eni, Network::VpcCni)
    };
    assert!(matches!(
        capacity(Some(small), &reserved),
        Err(CapacityError::NoInterface { .. })
    ));
}

#[test]
fn custom_networking_costs_an_interface() {
    let table = table();
    let request = Request {
        reserved_interfaces: 1,
        ..Request::new(Mode::Eni, Network::VpcCni)
    };
    let answer = capacity(table.get("m5.large").ok(), &request).unwrap();
    assert_eq!((answer.slots, answer.official_max_pods), (18, Some(20)));
}

proptest! {
    #[test]
    fn an_answer_is_consistent(
        index in 0_usize..1391,
        mode in 0_usize..9,
        network in 0_usize..5,
        max_pods in proptest::option::of(1_u32..400),
        mask in proptest::option::of(10_u8..33),
        reserved in 0_u16..4,
    ) {
        let table = table();
        let instance = table.iter().nth(index).unwrap();
        let request = Request {
            mode: Mode::ALL[mode],
            network: Network::ALL[network],
            max_pods,
            node_mask: mask,
            reserved_interfaces: reserved,
        };
        let ec2 = matches!(request.mode.cloud(), None | Some(Cloud::Aws));
        if let Ok(answer) = capacity(ec2.then_some(instance), &request) {
            let taken: u32 = answer.taken.iter().map(|taken| taken.addresses).sum();
            prop_assert_eq!(answer.usable, answer.slots.saturating_sub(taken));
            prop_assert!(answer.subnet_slots <= answer.slots);
            if let Some(pods) = answer.pods {
                prop_assert!(pods <= answer.usable);
                prop_assert!(pods <= answer.max_pods.unwrap());
                prop_assert_eq!(answer.limit == Some(Limit::Addresses), pods == answer.usable);
            }
        }
    }
}
