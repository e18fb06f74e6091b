// SPDX-License-Identifier: Apache-2.0
use super::*;

fn entry(name: &str, interfaces: u32, ipv4: u32) -> Value {
    serde_json::json!({
        "InstanceType": name, "BareMetal": false, "Hypervisor": "nitro",
        "VCpuInfo": {"DefaultVCpus": 2},
        "NetworkInfo": {
            "MaximumNetworkInterfaces": interfaces, "Ipv4AddressesPerInterface": ipv4, "DefaultNetworkCardIndex": 0,
            "NetworkCards": [{"NetworkCardIndex": 0, "MaximumNetworkInterfaces": interfaces}],
        },
    })
}

fn answer(entries: &[Value]) -> Answer {
    Answer::parse(&serde_json::json!({ "InstanceTypes": entries }).to_string()).unwrap()
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

#[test]
fn a_newer_answer_counts_and_new_types_are_added() {
    let table = InstanceTable::shipped().unwrap();
    let answer = answer(&[
        entry("m5.large", 4, 12),
        entry("m99.large", 3, 10),
        entry("m5.xlarge", 4, 15),
    ]);
    let (fresh, comparison) = refresh(&table, &answer, date("2027-01-01"));
    assert_eq!(comparison.newer, Newer::Answer);
    assert_eq!(comparison.added, ["m99.large"]);
    assert_eq!(comparison.changed[0].name, "m5.large");
    assert_eq!(fresh.get("m5.large").unwrap().interfaces, 4);
    assert_eq!(fresh.get("m5.large").unwrap().branch_interfaces, Some(9));
    assert_eq!(fresh.get("m99.large").unwrap().ipv4_per_interface, 10);
    assert_eq!(
        fresh.provenance().date,
        table.provenance().date,
        "a part makes no table new"
    );
    // m5.xlarge has 4 vCPUs, the answer says 2.
    assert_eq!(comparison.changed.len(), 2);
    assert_eq!(comparison.only_table, 1391 - 2);
}

#[test]
fn an_answer_that_is_nearly_whole_makes_the_table_new() {
    let table = InstanceTable::shipped().unwrap();
    let whole = Answer {
        types: table.iter().skip(50).cloned().collect(),
        skipped: Vec::new(),
        partial: false,
    };
    let (fresh, comparison) = refresh(&table, &whole, date("2027-01-01"));
    assert_eq!((comparison.equal, comparison.only_table), (1341, 50));
    assert_eq!(fresh.provenance().date, date("2027-01-01"));
    let page = Answer {
        partial: true,
        ..whole
    };
    assert_eq!(
        refresh(&table, &page, date("2027-01-01")).0.provenance().date,
        table.provenance().date
    );
}

#[test]
fn an_older_answer_only_adds() {
    let table = InstanceTable::shipped().unwrap();
    let answer = answer(&[entry("m5.large", 4, 12), entry("m99.large", 3, 10)]);
    let (fresh, comparison) = refresh(&table, &answer, date("2020-01-01"));
    assert_eq!(comparison.newer, Newer::Table);
    assert_eq!(fresh.get("m5.large"), table.get("m5.large"));
    assert!(fresh.get("m99.large").is_ok());
}

#[test]
fn a_refreshed_table_survives_being_saved() {
    let table = InstanceTable::shipped().unwrap();
    let (fresh, _) = refresh(&table, &answer(&[entry("m99.large", 3, 10)]), date("2027-01-01"));
    assert_eq!(InstanceTable::parse(&fresh.to_text()), Ok(fresh));
}

#[test]
fn a_page_of_several_and_unreadable_entries_are_said() {
    let mut broken = entry("m5.2xlarge", 4, 15);
    broken["NetworkInfo"]
        .as_object_mut()
        .unwrap()
        .remove("Ipv4AddressesPerInterface");
    let text = serde_json::json!({
        "InstanceTypes": [entry("m5.large", 3, 10), broken, {"BareMetal": false}],
        "NextToken": "abc",
    });
    let answer = Answer::parse(&text.to_string()).unwrap();
    assert!(answer.partial);
    assert_eq!(answer.types.len(), 1);
    let named: Vec<_> = answer
        .skipped
        .iter()
        .map(|skipped| (skipped.name.as_str(), skipped.reason.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("m5.2xlarge", "no /NetworkInfo/Ipv4AddressesPerInterface"),
            ("entry 3", "no /InstanceType")
        ]
    );
}

#[test]
fn what_is_no_answer_is_refused_with_the_reason() {
    let refused = |text: &str| Answer::parse(text).unwrap_err().to_string();
    assert!(
        refused("An error occurred (UnauthorizedOperation) when calling …").contains("UnauthorizedOperation")
    );
    assert!(
        refused(r#"{"Error": {"Code": "RequestLimitExceeded", "Message": "slow down"}}"#)
            .contains("slow down")
    );
    assert!(refused(r#"{"InstanceTypes": [{"Instance"#).contains("no JSON"));
    assert!(refused("[]").contains("InstanceTypes"));
    assert!(refused(r#"{"InstanceTypes": []}"#).contains("no instance type"));
}

#[test]
fn the_default_card_counts_where_there_are_several() {
    let mut wide = entry("p9.48xlarge", 64, 50);
    wide["NetworkInfo"]["NetworkCards"] = serde_json::json!([
        {"MaximumNetworkInterfaces": 1}, {"MaximumNetworkInterfaces": 2}, {"MaximumNetworkInterfaces": 2},
    ]);
    wide["NetworkInfo"]["DefaultNetworkCardIndex"] = 1.into();
    let answer = answer(&[wide]);
    assert_eq!(
        (answer.types[0].interfaces, answer.types[0].cards.as_slice()),
        (2, &[2, 1, 2][..])
    );
}

/// Answers may be put together by programs: one type twice, a token that is null, numbers that no machine has.
#[test]
fn odd_answers_are_read_as_far_as_they_go() {
    let odd = serde_json::json!({ "NextToken": null, "InstanceTypes": [
        entry("m5.large", 3, 10), entry("m5.large", 3, 10), entry("m9.huge", 65_535, 65_535), entry("# rows: 7", 2, 2),
    ]});
    let answer = Answer::parse(&odd.to_string()).unwrap();
    assert!(!answer.partial);
    assert_eq!(answer.types.len(), 1);
    let reasons: Vec<&str> = answer.skipped.iter().map(|one| one.reason.as_str()).collect();
    assert!(
        reasons.len() == 2
            && reasons[0].contains("more than any machine")
            && reasons[1].contains("no /InstanceType"),
        "{reasons:?}"
    );
    let shipped = InstanceTable::shipped().unwrap();
    let one = InstanceTable::new(shipped.provenance().clone(), shipped.get("m5.large").cloned());
    let (_, comparison) = refresh(&one, &answer, date("2027-01-01"));
    assert_eq!((comparison.equal, comparison.only_table), (1, 0));
}
