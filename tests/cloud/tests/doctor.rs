// SPDX-License-Identifier: Apache-2.0
//! The doctor's traps in an emulated AWS: the recorded healthy cluster upon a network, a role and a peering that are really there. Nothing
//! is found; then one thing after another is changed, and its check fires, and only it.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use doctor::checks::{Selection, examine};
use doctor::facts::{CloudFacts, Facts};
use doctor::finding::Report;
use doctor::gather::{self, Eks};
use doctor::record;
use serde_json::{Value, json};
use thalweg_tests_cloud::Cloud;

const CLUSTER: &str = "shop";

fn recorded() -> Facts {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../crates/doctor/testdata/healthy-eks.json"
    );
    record::load(file.as_ref()).unwrap()
}

fn id(answer: &Value, pointer: &str) -> String {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no {pointer}: {answer}"))
        .to_owned()
}

struct World {
    cloud: Cloud,
    vpc: String,
    table: String,
    peering: String,
}

impl World {
    /// An EKS cluster, a network beside it that is connected and routed, a role that may do what mode `eni` needs.
    fn build() -> Option<Self> {
        let mut cloud = Cloud::start()?;
        let mut network = |cidr: &str| {
            let made = cloud.call("ec2", "create_vpc", json!({ "CidrBlock": cidr }));
            id(&made, "/Vpc/VpcId")
        };
        let (vpc, west) = (network("10.0.0.0/16"), network("10.64.0.0/16"));
        let subnet = cloud.call(
            "ec2",
            "create_subnet",
            json!({"VpcId": vpc, "CidrBlock": "10.0.0.0/20"}),
        );
        let subnet = id(&subnet, "/Subnet/SubnetId");
        let peering = json!({"VpcId": vpc, "PeerVpcId": west, "TagSpecifications": [
            {"ResourceType": "vpc-peering-connection", "Tags": [{"Key": "Name", "Value": "west"}]}]});
        let peering = cloud.call("ec2", "create_vpc_peering_connection", peering);
        let peering = id(&peering, "/VpcPeeringConnection/VpcPeeringConnectionId");
        let accept = json!({ "VpcPeeringConnectionId": peering });
        cloud.call("ec2", "accept_vpc_peering_connection", accept);
        let table = cloud.call("ec2", "create_route_table", json!({ "VpcId": vpc }));
        let table = id(&table, "/RouteTable/RouteTableId");
        cloud.call(
            "ec2",
            "associate_route_table",
            json!({"RouteTableId": table, "SubnetId": subnet}),
        );
        let trust = json!({"Version": "2012-10-17", "Statement": []}).to_string();
        let role = json!({"RoleName": "operator", "AssumeRolePolicyDocument": trust});
        let role = id(&cloud.call("iam", "create_role", role), "/Role/Arn");
        let cluster = json!({"name": CLUSTER, "version": "1.33", "roleArn": role, "resourcesVpcConfig": {"subnetIds": [subnet]}});
        cloud.call("eks", "create_cluster", cluster);
        let config = json!({"cluster": {"resourcesVpcConfig": {"vpcId": vpc}}});
        cloud.overlay(&format!("/clusters/{CLUSTER}"), config);
        let list = json!({"associations": [{"serviceAccount": "thalweg-operator", "associationId": "a-1"}]});
        let associations = format!("/clusters/{CLUSTER}/pod-identity-associations");
        cloud.answer(&associations, (200, ""), list, 0);
        let one = json!({"association": {"roleArn": role}});
        cloud.answer(&format!("{associations}/a-1"), (200, ""), one, 0);
        let mut world = Self {
            cloud,
            vpc,
            table,
            peering,
        };
        world.addons(&["coredns"]);
        world.route("10.64.0.0/16");
        world.role("ec2:UnassignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses");
        Some(world)
    }

    fn addons(&mut self, names: &[&str]) {
        let path = format!("/clusters/{CLUSTER}/addons");
        self.cloud.forget(&path);
        self.cloud.answer(&path, (200, ""), json!({ "addons": names }), 0);
        for name in names {
            let addon = json!({"addon": {"addonVersion": "v1.20.1", "status": "ACTIVE"}});
            self.cloud.answer(&format!("{path}/{name}"), (200, ""), addon, 0);
        }
    }

    fn route(&mut self, to: &str) {
        let route = json!({"RouteTableId": self.table, "DestinationCidrBlock": to, "VpcPeeringConnectionId": self.peering});
        self.cloud.call("ec2", "create_route", route);
    }

    /// The generated policy with one action changed for another, which is its whole difference.
    fn role(&mut self, action: &str, other: &str) {
        let scope = plan::iam::Scope {
            region: thalweg_tests_cloud::REGION.into(),
            account: "123456789012".into(),
            vpc: Some(self.vpc.clone()),
            ..plan::iam::Scope::new(plan::Mode::Eni, CLUSTER)
        };
        let document = plan::iam::policy(&scope).document.unwrap().to_string();
        let document = document.replace(action, other);
        let policy = json!({"RoleName": "operator", "PolicyName": "granted", "PolicyDocument": document});
        self.cloud.call("iam", "put_role_policy", policy);
    }

    async fn facts(&self) -> CloudFacts {
        let eks = Eks {
            cluster: CLUSTER.into(),
            role: None,
            mode: Some("eni".into()),
        };
        gather::aws(&self.cloud.client(None), &eks).await
    }

    /// What the doctor says of the recorded cluster on this cloud.
    async fn report(&self) -> Report {
        let mut facts = recorded();
        let slots = std::mem::take(&mut facts.cloud.pod_slots);
        facts.cloud = CloudFacts {
            pod_slots: slots,
            ..self.facts().await
        };
        examine(&facts, &Selection::default())
    }
}

fn findings(report: &Report) -> Vec<String> {
    let findings = report.findings.iter();
    findings
        .map(|one| format!("{} {:?}: {}", one.check, one.trap, one.evidence))
        .collect()
}

/// What is changed, and what must be found then beside what was found before.
type Trap = (&'static str, fn(&mut World), &'static [&'static str]);

const TRAPS: [Trap; 5] = [
    (
        "the VPC CNI comes back as an add-on",
        |world| world.addons(&["coredns", "vpc-cni"]),
        &["cni.addon Some(3): the add-on vpc-cni v1.20.1 is ACTIVE"],
    ),
    (
        "the operator may not give addresses back, and may end machines",
        |world| world.role("ec2:UnassignPrivateIpAddresses", "ec2:TerminateInstances"),
        &[
            "iam.permissions Some(5): operator may not ec2:UnassignPrivateIpAddresses in mode eni",
            "iam.permissions Some(5): operator may do more than mode eni needs: ec2:TerminateInstances",
        ],
    ),
    (
        "the route to the joined network is gone",
        |world| {
            let route = json!({"RouteTableId": world.table, "DestinationCidrBlock": "10.64.0.0/16"});
            world.cloud.call("ec2", "delete_route", route);
        },
        &["mesh.peerings Some(8): no route leads to 10.64.0.0/16 of west"],
    ),
    (
        "the pods' network is given to the VPC, too",
        |world| {
            let more = json!({"VpcId": world.vpc, "CidrBlock": "10.32.0.0/16"});
            world.cloud.call("ec2", "associate_vpc_cidr_block", more);
        },
        &[
            "addresses.overlap None: 10.32.1.0/24 (pods of ip-10-0-1-10.ec2.internal) overlaps with 10.32.0.0/16 (the cloud's network)",
        ],
    ),
    (
        "a connection that nobody accepts, to a network with the pods' addresses",
        |world| {
            let other = world
                .cloud
                .call("ec2", "create_vpc", json!({"CidrBlock": "10.32.0.0/16"}));
            let peering = json!({"VpcId": world.vpc, "PeerVpcId": id(&other, "/Vpc/VpcId")});
            world.cloud.call("ec2", "create_vpc_peering_connection", peering);
        },
        &["mesh.peerings Some(8): the connection to vpc-"],
    ),
];

#[tokio::test]
async fn nothing_is_found_on_the_healthy_cloud_and_each_trap_is_when_it_is_set() {
    let Some(mut world) = World::build() else { return };
    let healthy = world.report().await;
    assert_eq!(findings(&healthy), Vec::<String>::new());
    assert_eq!(healthy.unknown, []);
    let mut before = Vec::new();
    for (about, set, expected) in TRAPS {
        set(&mut world);
        let report = world.report().await;
        assert_eq!(report.unknown, [], "{about}");
        let found = findings(&report);
        let new: Vec<&String> = found.iter().filter(|one| !before.contains(*one)).collect();
        for one in expected {
            assert!(
                new.iter().any(|new| new.starts_with(one)),
                "{about}: {one}\n{found:#?}"
            );
        }
        let checks: Vec<&str> = expected.iter().filter_map(|one| one.split(' ').next()).collect();
        for one in new {
            assert!(
                checks.iter().any(|check| one.starts_with(check)),
                "{about}: {one}"
            );
        }
        before = found;
    }
}

#[tokio::test]
async fn what_aws_does_not_say_is_unknown_with_its_words() {
    let Some(mut world) = World::build() else { return };
    let path = format!("/clusters/{CLUSTER}/addons");
    world.cloud.forget(&path);
    let denied = json!({"message": "User: u is not authorized to perform: eks:ListAddons"});
    world
        .cloud
        .answer(&path, (403, "AccessDeniedException"), denied, 0);
    world.cloud.throttle("DescribeVpcs", 0);
    let mut facts = recorded();
    facts.cloud = CloudFacts {
        pod_slots: std::mem::take(&mut facts.cloud.pod_slots),
        ..world.facts().await
    };
    let report = examine(&facts, &Selection::default());
    assert_eq!(findings(&report), Vec::<String>::new());
    let unknown: Vec<(&str, &str)> = report
        .unknown
        .iter()
        .map(|one| (one.check, one.reason.as_str()))
        .collect();
    assert_eq!(
        unknown,
        [
            (
                "cni.addon",
                "eks:ListAddons was denied (AccessDeniedException: User: u is not authorized to perform: eks:ListAddons); \
                 allow eks:ListAddons, which only reads, or take other credentials"
            ),
            (
                "addresses.overlap",
                "ec2:DescribeVpcs was throttled 4 times in a row (RequestLimitExceeded); try again later"
            ),
        ]
    );

    let absent = Eks {
        cluster: "nobody".into(),
        role: None,
        mode: None,
    };
    let facts = gather::aws(&world.cloud.client(None), &absent).await;
    let reason = facts.vpc_cidrs.get().unwrap_err();
    assert!(
        reason.contains("ResourceNotFoundException") && reason.contains("nobody"),
        "{reason}"
    );
    assert!(facts.iam.get().unwrap_err().contains("--operator-mode"));
}
