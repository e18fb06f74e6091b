// SPDX-License-Identifier: Apache-2.0
//! A planned EKS cluster that stands in an emulated AWS: nothing deviates; then one thing after another is changed there, and each
//! is found; what AWS denies or throttles is unknown.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use aws::{Call, Client};
use platform::address::{self, Addresses, Role};
use platform::catalogue::Catalogue;
use platform::verify::{Report, State, recordings, verify};
use platform::{Platform, address::Subnet};
use serde_json::{Value, json};
use thalweg_tests_cloud::{Cloud, REGION};

const FILE: &str = r#"
name: acme
pools: {networks: 10.0.0.0/12, services: 172.20.0.0/14}
clusters:
  - name: blue
    cloud: aws
    region: eu-central-1
    kubernetes: "1.33"
    mode: eni
    nodeGroups: [{name: workers, instanceTypes: [m5.xlarge], min: 3, max: 30}]
"#;
const TAINT: &str = "node.thalweg.io/agent-not-ready";
const GROUP: &str = "/clusters/acme-blue/node-groups/workers";

struct World {
    cloud: Cloud,
    catalogue: Catalogue,
    platform: Platform,
    addresses: Addresses,
    vpc: String,
    internet: String,
    /// The route table of each zone's nodes.
    tables: Vec<String>,
    gateways: Vec<String>,
}

fn id(answer: &Value, pointer: &str) -> String {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no {pointer}: {answer}"))
        .to_owned()
}

impl World {
    /// The cluster as planned.
    fn build() -> Option<Self> {
        let catalogue = Catalogue::shipped().unwrap();
        let platform = Platform::parse(FILE, &catalogue).unwrap();
        let addresses = address::plan(&platform, &catalogue).unwrap();
        let mut world = Self {
            cloud: Cloud::start()?,
            catalogue,
            platform,
            addresses,
            vpc: String::new(),
            internet: String::new(),
            tables: Vec::new(),
            gateways: Vec::new(),
        };
        let network = world.addresses.clusters[0].network.to_string();
        world.vpc = world.network(&network);
        let internet = world.cloud.call("ec2", "create_internet_gateway", json!({}));
        world.internet = id(&internet, "/InternetGateway/InternetGatewayId");
        let attached = json!({"InternetGatewayId": world.internet, "VpcId": world.vpc});
        world.cloud.call("ec2", "attach_internet_gateway", attached);
        let subnets = world.addresses.clusters[0].subnets.clone();
        for subnet in subnets.iter().filter(|subnet| subnet.role != Role::Nodes) {
            let made = world.subnet(subnet);
            if subnet.role == Role::Public {
                world.nat(&made);
            }
        }
        let nodes: Vec<String> = subnets
            .iter()
            .filter(|subnet| subnet.role == Role::Nodes)
            .map(|subnet| {
                let made = world.subnet(subnet);
                world.table(&made);
                made
            })
            .collect();
        world.cluster(&nodes);
        Some(world)
    }

    fn tags(kind: &str, role: &str) -> Value {
        json!([{"ResourceType": kind, "Tags": [
            {"Key": "thalweg.io/cluster", "Value": "blue"}, {"Key": "thalweg.io/role", "Value": role},
        ]}])
    }

    fn network(&mut self, cidr: &str) -> String {
        let arguments = json!({"CidrBlock": cidr, "TagSpecifications": Self::tags("vpc", "vpc")});
        id(&self.cloud.call("ec2", "create_vpc", arguments), "/Vpc/VpcId")
    }

    fn subnet(&mut self, subnet: &Subnet) -> String {
        let zone = ["a", "b", "c"][subnet.zone.unwrap() as usize];
        let arguments = json!({
            "VpcId": self.vpc, "CidrBlock": subnet.cidr.to_string(), "AvailabilityZone": format!("{REGION}{zone}"),
            "TagSpecifications": Self::tags("subnet", &format!("{:?}-{zone}", subnet.role)),
        });
        id(
            &self.cloud.call("ec2", "create_subnet", arguments),
            "/Subnet/SubnetId",
        )
    }

    fn nat(&mut self, subnet: &str) {
        let address = self
            .cloud
            .call("ec2", "allocate_address", json!({"Domain": "vpc"}));
        let arguments = json!({"SubnetId": subnet, "AllocationId": id(&address, "/AllocationId"), "TagSpecifications": Self::tags("natgateway", "nat")});
        let made = self.cloud.call("ec2", "create_nat_gateway", arguments);
        self.gateways.push(id(&made, "/NatGateway/NatGatewayId"));
    }

    fn table(&mut self, subnet: &str) {
        let zone = self.tables.len();
        let tags = Self::tags("route-table", &format!("nodes-{zone}"));
        let arguments = json!({"VpcId": self.vpc, "TagSpecifications": tags});
        let table = id(
            &self.cloud.call("ec2", "create_route_table", arguments),
            "/RouteTable/RouteTableId",
        );
        let arguments = json!({"RouteTableId": table, "SubnetId": subnet});
        self.cloud.call("ec2", "associate_route_table", arguments);
        let gateway = &self.gateways[zone];
        let route =
            json!({"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": gateway});
        self.cloud.call("ec2", "create_route", route);
        self.tables.push(table);
    }

    fn cluster(&mut self, subnets: &[String]) {
        let trust = json!({"Version": "2012-10-17", "Statement": []}).to_string();
        let role = json!({"RoleName": "acme-blue-node", "AssumeRolePolicyDocument": trust});
        let role = id(&self.cloud.call("iam", "create_role", role), "/Role/Arn");
        let services = self.addresses.clusters[0].services.to_string();
        let cluster = json!({
            "name": "acme-blue", "version": "1.33", "roleArn": role,
            "resourcesVpcConfig": {"subnetIds": subnets, "endpointPublicAccess": true, "endpointPrivateAccess": true},
            "kubernetesNetworkConfig": {"serviceIpv4Cidr": services},
        });
        self.cloud.call("eks", "create_cluster", cluster);
        // What the emulator does not know.
        let policy = json!({"cluster": {"upgradePolicy": {"supportType": "STANDARD"}}});
        self.cloud.overlay("/clusters/acme-blue", policy);
        self.addons(&["coredns"]);
        let associations = json!({"associations": [{"serviceAccount": "thalweg-operator"}]});
        self.front("pod-identity-associations", associations);
        self.group(&json!({
            "instanceTypes": ["m5.xlarge"], "scalingConfig": {"minSize": 3, "maxSize": 30, "desiredSize": 3},
            "taints": [{"key": TAINT, "value": "true", "effect": "NO_EXECUTE"}], "subnets": subnets, "nodeRole": role,
        }));
    }

    fn group(&mut self, arguments: &Value) {
        let mut arguments = arguments.clone();
        arguments["clusterName"] = json!("acme-blue");
        arguments["nodegroupName"] = json!("workers");
        self.cloud.call("eks", "create_nodegroup", arguments);
    }

    fn addons(&mut self, names: &[&str]) {
        self.front("addons", json!({ "addons": names }));
    }

    fn front(&mut self, list: &str, body: Value) {
        self.cloud
            .answer(&format!("/clusters/acme-blue/{list}"), (200, ""), body, 0);
    }

    /// What is found by a client.
    async fn verified(&self, client: &Client) -> Report {
        let mut state = State::default();
        for recording in recordings(&self.platform) {
            let Some(call) = recording.call else { continue };
            match client.ask(&call).await {
                Ok(answer) => state.add_value(&recording.file, answer),
                Err(error) => state.add_unknown(&recording.file, error.to_string()),
            }
        }
        let mut report = verify(&self.platform, &self.addresses, &self.catalogue, &state);
        // The cluster itself is not there.
        report.unknown.retain(|one| !one.file.contains("/kubernetes/"));
        report
    }

    async fn now(&self) -> Report {
        self.verified(&self.cloud.client(None)).await
    }
}

fn subjects(report: &Report) -> Vec<String> {
    report
        .deviations
        .iter()
        .map(|one| {
            format!(
                "{} [{}] planned {} found {}",
                one.subject, one.evidence, one.planned, one.found
            )
        })
        .collect()
}

/// A change in the cloud, and the beginning of what has to be found after it.
type Planted = (&'static str, fn(&mut World), &'static [&'static str]);

const PLANTED: [Planted; 12] = [
    (
        "the VPC CNI's policy on the nodes' role",
        |world| {
            let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]});
            let policy =
                json!({"PolicyName": "AmazonEKS_CNI_Policy", "PolicyDocument": document.to_string()});
            let policy = world.cloud.call("iam", "create_policy", policy);
            let attach = json!({"RoleName": "acme-blue-node", "PolicyArn": id(&policy, "/Policy/Arn")});
            world.cloud.call("iam", "attach_role_policy", attach);
        },
        &["role of the nodes [blue/aws/node-role-policies.json /AttachedPolicies/0]"],
    ),
    (
        "a further network of the VPC",
        |world| {
            let arguments = json!({"VpcId": world.vpc, "CidrBlock": "100.64.0.0/16"});
            world.cloud.call("ec2", "associate_vpc_cidr_block", arguments);
        },
        &[
            "VPC [blue/aws/vpcs.json /Vpcs/0/CidrBlockAssociationSet/1] planned no further networks found 100.64.0.0/16",
        ],
    ),
    (
        "a zone without its NAT gateway",
        |world| {
            let gateway = world.gateways[2].clone();
            world
                .cloud
                .call("ec2", "delete_nat_gateway", json!({ "NatGatewayId": gateway }));
        },
        &["NAT gateways [blue/aws/nat-gateways.json /NatGateways] planned 3 found 2"],
    ),
    (
        "no way out for a zone's nodes",
        |world| {
            let route = json!({"RouteTableId": world.tables[0], "DestinationCidrBlock": "0.0.0.0/0"});
            world.cloud.call("ec2", "delete_route", route);
        },
        &["route table nodes-0 ["],
    ),
    (
        "nodes that are reached from the Internet",
        |world| {
            let to = "0.0.0.0/0";
            let route = json!({"RouteTableId": world.tables[1], "DestinationCidrBlock": to, "GatewayId": world.internet});
            world.cloud.call("ec2", "replace_route", route);
        },
        &["route table nodes-1 ["],
    ),
    (
        "a subnet made by hand",
        |world| {
            let free = json!({"VpcId": world.vpc, "CidrBlock": "100.64.1.0/24", "TagSpecifications": World::tags("subnet", "by-hand")});
            world.cloud.call("ec2", "create_subnet", free);
        },
        &["subnet [blue/aws/subnets.json /Subnets/"],
    ),
    (
        "a second VPC with the cluster's tag",
        |world| {
            world.network("10.200.0.0/16");
        },
        &["VPC [blue/aws/vpcs.json /Vpcs] planned one found 2"],
    ),
    (
        "the VPC CNI and kube-proxy as add-ons, CoreDNS gone",
        |world| {
            let path = "/clusters/acme-blue/addons";
            world.cloud.forget(path);
            world.addons(&["vpc-cni", "kube-proxy"]);
        },
        &[
            "add-on vpc-cni [blue/aws/addons.json /addons/0]",
            "add-on kube-proxy [blue/aws/addons.json /addons/1]",
            "add-on coredns [",
        ],
    ),
    (
        "no role for the operator",
        |world| {
            world
                .cloud
                .forget("/clusters/acme-blue/pod-identity-associations");
            world.front("pod-identity-associations", json!({"associations": []}));
        },
        &["permissions of the operator ["],
    ),
    (
        "another node group in the place of ours",
        |world| {
            let old = json!({"clusterName": "acme-blue", "nodegroupName": "workers"});
            let old = world.cloud.call("eks", "delete_nodegroup", old)["nodegroup"].take();
            world.group(&json!({
                "instanceTypes": ["t3.small"], "scalingConfig": {"minSize": 1, "maxSize": 200, "desiredSize": 1},
                "subnets": old["subnets"], "nodeRole": old["nodeRole"],
            }));
        },
        &[
            "node group workers [blue/aws/node-groups/workers.json /nodegroup/taints]",
            "node group workers [blue/aws/node-groups/workers.json /nodegroup/instanceTypes]",
            "node group workers, most nodes [",
            "node group workers, fewest nodes [",
        ],
    ),
    (
        "nodes that do not come up",
        |world| {
            let issues = json!([{"code": "NodeCreationFailure"}]);
            world
                .cloud
                .overlay(GROUP, json!({"nodegroup": {"health": {"issues": issues}}}));
        },
        &["node group workers [blue/aws/node-groups/workers.json /nodegroup/health/issues]"],
    ),
    (
        "another version, Auto Mode, extended support, an API without the inner door",
        |world| {
            let cluster = json!({"version": "1.31", "computeConfig": {"enabled": true}, "upgradePolicy": {"supportType": "EXTENDED"},
                "resourcesVpcConfig": {"endpointPrivateAccess": false}});
            world
                .cloud
                .overlay("/clusters/acme-blue", json!({ "cluster": cluster }));
        },
        &[
            "Kubernetes version [blue/aws/cluster.json /cluster/version] planned 1.33 found 1.31",
            "cluster [blue/aws/cluster.json /cluster/computeConfig/enabled]",
            "upgrade policy [",
            "API reachable from inside [",
        ],
    ),
];

#[tokio::test]
async fn the_planned_cluster_does_not_deviate_and_what_is_changed_in_the_cloud_is_found() {
    let Some(mut world) = World::build() else { return };
    let healthy = world.now().await;
    assert_eq!(subjects(&healthy), Vec::<String>::new());
    assert_eq!(healthy.unknown, []);
    assert!(healthy.compared > 25, "{}", healthy.compared);
    let (mut before, mut planted) = (Vec::new(), 0);
    for (about, plant, expected) in PLANTED {
        plant(&mut world);
        let report = world.now().await;
        assert_eq!(report.unknown, [], "{about}");
        let found = subjects(&report);
        for one in expected {
            let hit = |text: &String| text.starts_with(one);
            assert!(
                found.iter().any(hit) && !before.iter().any(hit),
                "{about}: {one}\nbefore {before:#?}\nfound {found:#?}"
            );
            planted += 1;
        }
        before = found;
    }
    assert!(
        planted >= 15 && before.len() >= planted,
        "{planted} planted: {before:#?}"
    );
}

#[tokio::test]
async fn what_aws_denies_throttles_or_cuts_short_is_unknown_with_the_reason_and_the_rest_is_compared() {
    let Some(mut world) = World::build() else { return };
    // Under IAM the emulator refuses every signature of a GET, those of AWS's own library too: EKS is asked before.
    for path in ["/clusters/acme-blue", GROUP] {
        let call = if path == GROUP {
            Call::DescribeNodegroup {
                cluster: "acme-blue".into(),
                group: "workers".into(),
            }
        } else {
            Call::DescribeCluster {
                cluster: "acme-blue".into(),
            }
        };
        let body = world.cloud.client(None).ask(&call).await.unwrap();
        world.cloud.answer(path, (200, ""), body, 0);
    }
    let actions = [
        "iam:*",
        "ec2:DescribeVpcs",
        "ec2:DescribeNatGateways",
        "ec2:DescribeRouteTables",
    ];
    let reader = world.cloud.user("auditor", &actions);
    world.cloud.throttle("DescribeRouteTables", 0);
    let path = "/clusters/acme-blue/addons";
    world.cloud.forget(path);
    let page = json!({"addons": ["coredns"], "nextToken": "2"});
    world.cloud.answer(path, (200, ""), page, 1);
    world
        .cloud
        .answer(path, (500, "InternalFailure"), json!({"message": "try later"}), 0);
    world.cloud.enforce(true);
    let report = world.verified(&world.cloud.client(Some(reader))).await;
    assert_eq!(subjects(&report), Vec::<String>::new());
    let unknown: Vec<String> = report
        .unknown
        .iter()
        .map(|one| format!("{}: {}", one.file, one.reason))
        .collect();
    let expected = [
        "blue/aws/addons.json: eks:ListAddons: only 1 pages came, so the answer is not whole: eks:ListAddons was refused: InternalFailure: try later",
        "blue/aws/subnets.json: ec2:DescribeSubnets was denied (AccessDenied: ",
        "blue/aws/route-tables.json: ec2:DescribeRouteTables was throttled 4 times in a row (RequestLimitExceeded); try again later",
    ];
    assert_eq!(unknown.len(), expected.len(), "{unknown:#?}");
    for (one, expected) in unknown.iter().zip(expected) {
        assert!(one.starts_with(expected), "{one}");
    }
    assert!(report.compared > 8, "{}", report.compared);
}
