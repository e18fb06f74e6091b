// SPDX-License-Identifier: Apache-2.0
//! The client of AWS: its answers are those of AWS's own library; what is denied, throttled, cut short or silent is an error
//! that says so.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use aws::{AskError, Call, Client, Credentials, Filter, Settings};
use serde_json::{Value, json};
use thalweg_tests_cloud::{Cloud, REGION};

fn addons() -> Call {
    Call::ListAddons { cluster: "c".into() }
}

/// A network with one of each of what is asked for; its ID.
fn network(cloud: &mut Cloud) -> String {
    let vpc = cloud.call("ec2", "create_vpc", json!({"CidrBlock": "10.1.0.0/16"}));
    let vpc = vpc["Vpc"]["VpcId"].as_str().unwrap().to_owned();
    let more = json!({"VpcId": vpc, "CidrBlock": "100.64.0.0/16"});
    cloud.call("ec2", "associate_vpc_cidr_block", more);
    let tags = json!({"Resources": [vpc], "Tags": [{"Key": "thalweg.io/cluster", "Value": "true"}]});
    cloud.call("ec2", "create_tags", tags);
    let subnet = cloud.call(
        "ec2",
        "create_subnet",
        json!({"VpcId": vpc, "CidrBlock": "10.1.0.0/24"}),
    );
    let subnet = &subnet["Subnet"]["SubnetId"];
    let address = cloud.call("ec2", "allocate_address", json!({"Domain": "vpc"}));
    let gateway = json!({"SubnetId": subnet, "AllocationId": address["AllocationId"]});
    let gateway = cloud.call("ec2", "create_nat_gateway", gateway);
    let table = cloud.call("ec2", "create_route_table", json!({"VpcId": vpc}));
    let table = &table["RouteTable"]["RouteTableId"];
    cloud.call(
        "ec2",
        "associate_route_table",
        json!({"RouteTableId": table, "SubnetId": subnet}),
    );
    let route = json!({"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": gateway["NatGateway"]["NatGatewayId"]});
    cloud.call("ec2", "create_route", route);
    let other = cloud.call("ec2", "create_vpc", json!({"CidrBlock": "10.2.0.0/16"}));
    let peering = json!({"VpcId": vpc, "PeerVpcId": other["Vpc"]["VpcId"]});
    cloud.call("ec2", "create_vpc_peering_connection", peering);
    vpc
}

/// What ours says of everything that AWS's own library says, where ours says it at all: dates and numbers that nobody reads are texts.
fn assert_alike(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{place}: {ours:?} {theirs:?}");
            for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                assert_alike(ours, theirs, &format!("{place}/{number}"));
            }
        }
        (Value::Object(_), Value::Object(theirs)) => {
            for (name, theirs) in theirs {
                let ours = &ours[name];
                assert_alike(ours, theirs, &format!("{place}/{name}"));
            }
        }
        // Kinds that nobody reads, and empty lists that are no set in EC2's words.
        (Value::String(ours), Value::Bool(_) | Value::Number(_)) => {
            assert_eq!(*ours, theirs.to_string(), "{place}");
        }
        (Value::String(ours), Value::Array(theirs)) => {
            assert!(ours.is_empty() && theirs.is_empty(), "{place}")
        }
        (Value::String(_), Value::String(_)) if place.ends_with("Time") => {}
        (Value::Null, Value::Array(theirs)) => assert!(theirs.is_empty(), "{place}"),
        _ => assert_eq!(ours, theirs, "{place}"),
    }
}

#[tokio::test]
async fn answers_are_those_of_awss_own_library() {
    let Some(mut cloud) = Cloud::start() else { return };
    let vpc = network(&mut cloud);
    let client = cloud.client(None);
    let filter = || Filter::new("vpc-id", &vpc);
    let requester = || Filter::new("requester-vpc-info.vpc-id", &vpc);
    for (call, operation, option) in [
        (Call::DescribeVpcs(filter()), "describe_vpcs", "Filters"),
        (Call::DescribeSubnets(filter()), "describe_subnets", "Filters"),
        (
            Call::DescribeNatGateways(filter()),
            "describe_nat_gateways",
            "Filter",
        ),
        (
            Call::DescribeRouteTables(filter()),
            "describe_route_tables",
            "Filters",
        ),
        (
            Call::DescribeVpcPeeringConnections(requester()),
            "describe_vpc_peering_connections",
            "Filters",
        ),
    ] {
        let name = if operation.contains("peering") {
            "requester-vpc-info.vpc-id"
        } else {
            "vpc-id"
        };
        let theirs = cloud.call(
            "ec2",
            operation,
            json!({option: [{"Name": name, "Values": [vpc]}]}),
        );
        let ours = client.ask(&call).await.unwrap();
        let lists: Vec<&Vec<Value>> = theirs
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_array)
            .collect();
        assert!(
            lists.iter().any(|list| !list.is_empty()),
            "{operation} found nothing: {theirs}"
        );
        assert_alike(&ours, &theirs, operation);
    }
}

#[tokio::test]
async fn all_instance_types_are_read_and_refresh_the_table() {
    let Some(cloud) = Cloud::start() else { return };
    let answer = cloud
        .client(None)
        .ask(&Call::DescribeInstanceTypes)
        .await
        .unwrap();
    let answer = plan::refresh::Answer::parse(&answer.to_string()).unwrap();
    assert!(
        !answer.partial && answer.skipped.is_empty(),
        "{:?}",
        answer.skipped
    );
    let table = plan::InstanceTable::shipped().unwrap();
    let (_, comparison) = plan::refresh::refresh(&table, &answer, table.provenance().date);
    assert!(comparison.equal > 400, "{} equal", comparison.equal);
}

#[tokio::test]
async fn what_iam_does_not_allow_is_denied_with_the_action_and_the_rest_goes_on() {
    let Some(mut cloud) = Cloud::start() else { return };
    let vpc = network(&mut cloud);
    let reader = cloud.user("reader", &["ec2:DescribeVpcs", "iam:ListAttachedRolePolicies"]);
    cloud.enforce(true);
    let client = cloud.client(Some(reader));
    let filter = || Filter::new("vpc-id", &vpc);
    let vpcs = client.ask(&Call::DescribeVpcs(filter())).await.unwrap();
    assert_eq!(vpcs["Vpcs"][0]["CidrBlock"], "10.1.0.0/16");
    let error = client.ask(&Call::DescribeSubnets(filter())).await.unwrap_err();
    assert!(matches!(&error, AskError::Denied { action, .. } if action == "ec2:DescribeSubnets"));
    assert!(error.to_string().contains("allow ec2:DescribeSubnets"), "{error}");
    let role = Call::ListRolePolicies { role: "r".into() };
    assert!(matches!(client.ask(&role).await, Err(AskError::Denied { .. })));

    // Signatures are looked at, too.
    let forged = cloud.client(Some(Credentials::new("AKIAUNKNOWN", "x", None)));
    let error = forged.ask(&Call::DescribeVpcs(filter())).await.unwrap_err();
    assert!(
        matches!(&error, AskError::Denied { code, .. } if code == "AuthFailure"),
        "{error}"
    );
}

#[tokio::test]
async fn throttling_is_waited_out_for_a_while_and_then_said() {
    let Some(mut cloud) = Cloud::start() else { return };
    let vpc = network(&mut cloud);
    let client = cloud.client(None);
    let call = || Call::DescribeVpcs(Filter::new("vpc-id", &vpc));
    cloud.throttle("DescribeVpcs", 3);
    assert_eq!(client.ask(&call()).await.unwrap()["Vpcs"][0]["VpcId"], *vpc);
    cloud.throttle("DescribeVpcs", 0);
    let error = client.ask(&call()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ec2:DescribeVpcs was throttled 4 times in a row (RequestLimitExceeded); try again later"
    );
}

#[tokio::test]
async fn a_later_page_that_does_not_come_makes_the_answer_none() {
    let Some(mut cloud) = Cloud::start() else { return };
    let client = cloud.client(None);
    let path = "/clusters/c/addons";
    let page = |names: &[&str], next: Value| json!({"addons": names, "nextToken": next});
    cloud.answer(path, (200, ""), page(&["coredns"], json!("2")), 1);
    cloud.answer(path, (200, ""), page(&["vpc-cni"], Value::Null), 1);
    let whole = client.ask(&addons()).await.unwrap();
    assert_eq!(whole, json!({"addons": ["coredns", "vpc-cni"]}));

    cloud.answer(path, (200, ""), page(&["coredns"], json!("2")), 1);
    let denied = json!({"message": "not authorized to perform eks:ListAddons"});
    cloud.answer(path, (403, "AccessDeniedException"), denied, 1);
    let error = client.ask(&addons()).await.unwrap_err();
    assert!(matches!(&error, AskError::Partial { pages: 1, .. }), "{error}");
    assert!(error.to_string().contains("eks:ListAddons was denied"), "{error}");

    cloud.answer(path, (200, ""), page(&["coredns"], json!("1")), 0);
    let error = client.ask(&addons()).await.unwrap_err();
    assert!(
        error.to_string().contains("the same page is named again"),
        "{error}"
    );
}

#[tokio::test]
async fn who_does_not_answer_is_named_with_the_time_and_who_is_not_there_with_the_reason() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let client = |endpoint: String| {
        Client::new(Settings {
            endpoint: Some(endpoint),
            timeout: Duration::from_millis(200),
            pause: Duration::from_millis(5),
            ..Settings::new(REGION, Credentials::new("a", "b", None))
        })
        .unwrap()
    };
    let begin = Instant::now();
    let error = client(format!("http://{address}"))
        .ask(&addons())
        .await
        .unwrap_err();
    assert!(matches!(&error, AskError::Silent { .. }), "{error}");
    assert!(
        error.to_string().contains("0.2 s") && begin.elapsed() < Duration::from_secs(5),
        "{error}"
    );
    drop(silent);
    let error = client(format!("http://{address}"))
        .ask(&addons())
        .await
        .unwrap_err();
    assert!(matches!(&error, AskError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    // Nobody speaks TLS here, and nobody is trusted blindly.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    let accepted = std::thread::spawn(move || drop(plain.accept()));
    if let Ok(client) = Client::new(Settings {
        endpoint: Some(format!("https://{address}")),
        timeout: Duration::from_millis(200),
        pause: Duration::from_millis(5),
        ..Settings::new(REGION, Credentials::new("a", "b", None))
    }) {
        assert!(client.ask(&addons()).await.is_err());
        accepted.join().unwrap();
    }
}
