// SPDX-License-Identifier: Apache-2.0
//! The data files that this version ships, and what damaged ones do.

use thalweg_plan::cloud::{Cloud, check_region, regions};
use thalweg_plan::data::DataError;
use thalweg_plan::instance::InstanceTable;
use thalweg_plan::price::{Micros, PriceTable, price};

const TYPES: &str = include_str!("../data/aws-instance-types.csv");

#[test]
fn all_files_can_be_read_and_name_their_sources() {
    let types = InstanceTable::shipped().unwrap();
    assert_eq!(types.len(), 1391);
    assert!(
        types
            .provenance()
            .sources
            .iter()
            .any(|source| source.contains("amazon-vpc-cni-k8s"))
    );
    for cloud in [Cloud::Aws, Cloud::Azure] {
        let prices = PriceTable::shipped(cloud).unwrap().unwrap();
        assert!(!prices.provenance().sources.is_empty());
        let known = regions(cloud).unwrap().unwrap();
        assert!(
            prices
                .regions()
                .iter()
                .all(|region| known.contains(&region.as_str())),
            "{cloud}"
        );
    }
    assert!(PriceTable::shipped(Cloud::Gcp).unwrap().is_none());
}

#[test]
fn files_are_as_they_would_be_written() {
    assert_eq!(InstanceTable::shipped().unwrap().to_text(), TYPES);
    let prices = PriceTable::shipped(Cloud::Azure).unwrap().unwrap();
    assert_eq!(prices.to_text(), include_str!("../data/azure-prices.csv"));
}

#[test]
fn damage_is_found() {
    let cut = TYPES.rsplit_once("\nz").unwrap().0;
    assert!(matches!(InstanceTable::parse(cut), Err(DataError::Damaged(_))));
    let altered = TYPES.replace("m5.large,3,10", "m5.large,3,11");
    assert!(matches!(
        InstanceTable::parse(&altered),
        Err(DataError::Damaged(_))
    ));
    let foreign = TYPES.replace("instance types 1", "instance types 2");
    assert!(matches!(
        InstanceTable::parse(&foreign),
        Err(DataError::Format { .. })
    ));
    assert!(matches!(
        InstanceTable::parse("m5.large,3,10"),
        Err(DataError::Head("format"))
    ));
    assert!(InstanceTable::parse("").is_err());
}

#[test]
fn a_misspelt_type_is_answered_with_those_like_it() {
    let error = InstanceTable::shipped().unwrap().get("m5.lrage").unwrap_err();
    assert!(error.nearest.contains(&"m5.large".to_owned()), "{error}");
    assert!(error.to_string().contains("did you mean"), "{error}");
}

#[test]
fn a_misspelt_region_is_answered_with_those_like_it() {
    assert!(check_region(Cloud::Aws, "eu-central-1").is_ok());
    assert!(check_region(Cloud::Azure, "westeurope").is_ok());
    let error = check_region(Cloud::Aws, "eu-centrall-1").unwrap_err().to_string();
    assert!(error.contains("did you mean eu-central-1"), "{error}");
    // There is no list to check against.
    assert!(check_region(Cloud::Gcp, "anywhere").is_ok());
}

#[test]
fn prices_are_known_or_say_why_not() {
    let known = price(Cloud::Aws, "m5.large", "us-east-1").unwrap();
    assert_eq!(known.usd_per_hour(), Some(0.096));
    for (cloud, machine, region) in [
        (Cloud::Aws, "m5.large", "eu-central-1"),
        (Cloud::Aws, "p3.2xlarge", "us-gov-east-1"),
        (Cloud::Gcp, "n2-standard-4", "europe-west3"),
    ] {
        let text = serde_json::to_string(&price(cloud, machine, region).unwrap()).unwrap();
        assert!(text.contains("unknown") && text.contains("reason"), "{text}");
    }
}

#[test]
fn money_is_read_exactly_or_not_at_all() {
    assert_eq!(Micros::parse("0.0255"), Some(Micros(25_500)));
    assert_eq!(Micros::parse("12"), Some(Micros(12_000_000)));
    for bad in ["", ".5", "1.0000001", "-1", "1e3", "NaN", "99999999999999999999"] {
        assert_eq!(Micros::parse(bad), None, "{bad}");
    }
}
