// SPDX-License-Identifier: Apache-2.0
use model::Family;
use serde_json::{Value, json};

use super::*;

#[test]
fn a_pool_is_its_networks_by_family_and_its_ledger() {
    let spec = json!({"ipv6": {"cidrs": ["fd00::/48"], "nodeMaskSize": 64},
                      "ipv4": {"cidrs": ["10.32.0.0/13", "10.48.0.0/16"], "nodeMaskSize": 24}});
    let status = json!({"blocks": {"10.32.0.0/24": {"node": "a", "uid": "u"}}, "term": 3,
                        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "m",
                                        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let pool = parsed(spec, status).unwrap();
    assert_eq!(pool.range(Family::Ipv4).unwrap().cidrs.len(), 2);
    assert_eq!(pool.range(Family::Ipv6).unwrap().block_len, 64);
    assert_eq!((pool.term, pool.blocks.len(), pool.fault.clone()), (3, 1, None));
    assert!(pool.condition("Accepted").unwrap().ok && pool.guarded);
}

#[test]
fn a_pool_that_cannot_be_understood_says_where_and_why() {
    for (spec, said) in [
        (json!({}), "spec: "),
        (
            json!({"ipv4": {"cidrs": ["10.0.0.1/8"], "nodeMaskSize": 24}}),
            "10.0.0.1/8\" is not a network without host bits",
        ),
        (
            json!({"ipv4": {"cidrs": ["fd00::/48"], "nodeMaskSize": 64}}),
            "of that family",
        ),
        (
            json!({"ipv4": {"cidrs": ["10.0.0.0/24"], "nodeMaskSize": 16}}),
            "spec.ipv4.nodeMaskSize: \"16\"",
        ),
        (
            json!({"ipv4": {"cidrs": ["10.0.0.0/24"], "nodeMaskSize": 33}}),
            "nodeMaskSize",
        ),
        (
            json!({"ipv6": {"cidrs": ["fd00::/48"], "nodeMaskSize": 120}}),
            "24 more",
        ),
        (
            json!({"ipv4": {"cidrs": [], "nodeMaskSize": 24}}),
            "spec.ipv4.cidrs",
        ),
    ] {
        let fault = parsed(spec, json!({})).unwrap().fault.unwrap();
        assert!(fault.contains(said), "{fault}");
    }
    assert!(
        parsed(
            json!({"ipv4": {"cidrs": ["10.0.0.0/8"], "nodeMaskSize": 24}}),
            json!({"blocks": {"x": {"node": "a", "uid": "u"}}})
        )
        .is_err()
    );
}

#[test]
fn what_is_written_of_a_node_reads_back() {
    let spec: NodeSpec = read(
        json!({"term": 2, "pools": [{"name": "default", "families": ["ipv4"],
        "cidrs": [{"cidr": "10.0.0.0/24"}, {"cidr": "10.0.1.0/24", "releasing": true}], "shortage": "s"}]}),
    );
    let status: NodeStatus = read(
        json!({"observedGeneration": 4, "used": 2, "capacity": 254, "pools": [
        {"name": "default", "wanted": 8, "cidrs": [{"cidr": "10.0.0.0/24", "used": 2, "resting": 1}]}]}),
    );
    let node = node_pools(Meta::default(), spec.clone(), status.clone()).unwrap();
    assert_eq!(node.blocks().filter(|block| block.releasing).count(), 1);
    let grants: Vec<NodePool> = node.grants.iter().cloned().map(Into::into).collect();
    assert_eq!(grants, spec.pools);
    assert_eq!(NodeStatus::from(&node.report), status);
}

#[test]
fn every_field_that_is_written_is_in_the_schema() {
    let [pool, node] = definitions();
    let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let range = PoolRange {
        cidrs: vec!["10.0.0.0/8".into()],
        node_mask_size: 24,
    };
    let spec = PoolSpec {
        ipv4: Some(range.clone()),
        ipv6: Some(range),
    };
    let status = PoolStatus {
        blocks: [("10.0.0.0/24".to_owned(), BlockHolder::default())].into(),
        families: vec![FamilyStatus {
            exhausted_in_seconds: Some(1),
            ..FamilyStatus::default()
        }],
        conditions: vec![Condition::default()],
        ..PoolStatus::default()
    };
    covered(&schema(&pool), &json!({"spec": spec, "status": status}), "pool");
    let spec = NodeSpec {
        pools: vec![NodePool {
            families: vec!["ipv4".into()],
            cidrs: vec![NodeCidr {
                releasing: true,
                ..NodeCidr::default()
            }],
            shortage: "s".into(),
            ..NodePool::default()
        }],
        ..NodeSpec::default()
    };
    let status = NodeStatus {
        pools: vec![NodePoolStatus {
            cidrs: vec![NodeCidrStatus {
                released: true,
                ..NodeCidrStatus::default()
            }],
            ..NodePoolStatus::default()
        }],
        ..NodeStatus::default()
    };
    covered(&schema(&node), &json!({"spec": spec, "status": status}), "node");
}

fn covered(schema: &Value, value: &Value, at: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let part = &schema["properties"][key];
                let part = if part.is_null() {
                    &schema["additionalProperties"]
                } else {
                    part
                };
                assert!(
                    !part.is_null(),
                    "{at}.{key} is not in the schema and would be lost"
                );
                covered(part, value, &format!("{at}.{key}"));
            }
        }
        Value::Array(items) => {
            for item in items {
                covered(&schema["items"], item, at);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn parsed(spec: Value, status: Value) -> Result<model::IpPool, FaultError> {
    let meta = Meta {
        name: "default".into(),
        finalizers: vec![POOL_FINALIZER.into()],
        ..Meta::default()
    };
    pool(meta, &read(spec), read(status))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
