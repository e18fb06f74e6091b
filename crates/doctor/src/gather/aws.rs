// SPDX-License-Identifier: Apache-2.0
//! What AWS says of an EKS cluster: add-ons, network, connections to other networks, the operator's role. Everything that
//! cannot be found out is unknown with AWS's own reason.

use ::aws::{Call, Client, Filter};
use ipnet::IpNet;
use serde_json::Value;

use crate::facts::{Addon, CloudFacts, Gathered, IamFacts, Peering, PolicyFacts, Provider};

/// The service account that the operator runs as.
const OPERATOR: &str = "thalweg-operator";
/// Connections that are over are shown by AWS for a while.
const OVER: [&str; 4] = ["deleted", "deleting", "expired", "rejected"];

/// What is asked of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eks {
    /// The cluster's name.
    pub cluster: String,
    /// The operator's role; otherwise that of its Pod Identity association.
    pub role: Option<String>,
    /// How pods get addresses, as `thalweg iam` knows it: what the role has to suffice for.
    pub mode: Option<String>,
}

/// Asks AWS. How many pods fit on an instance is not asked: it is the planner's to know.
pub async fn aws(client: &Client, eks: &Eks) -> CloudFacts {
    let call = Call::DescribeCluster {
        cluster: eks.cluster.clone(),
    };
    let cluster = ask(client, call).await;
    let vpc = cluster.as_ref().map_err(Clone::clone).and_then(network);
    CloudFacts {
        provider: Gathered::Known(Provider::Aws),
        addons: addons(client, &eks.cluster).await.into(),
        vpc_cidrs: match &vpc {
            Ok(vpc) => cidrs(client, vpc).await.into(),
            Err(reason) => Gathered::unknown(reason),
        },
        iam: operator(client, eks, cluster.as_ref().ok(), vpc.as_ref().ok())
            .await
            .into(),
        peerings: match &vpc {
            Ok(vpc) => peerings(client, vpc).await.into(),
            Err(reason) => Gathered::unknown(reason),
        },
        pod_slots: Gathered::unknown("AWS was not asked for it"),
    }
}

/// The cluster's network.
struct Network {
    vpc: String,
    subnets: Vec<String>,
}

fn network(cluster: &Value) -> Result<Network, String> {
    let place = "/cluster/resourcesVpcConfig";
    Ok(Network {
        vpc: text(cluster, &format!("{place}/vpcId"))?.to_owned(),
        subnets: list(cluster, &format!("{place}/subnetIds"))?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    })
}

async fn ask(client: &Client, call: Call) -> Result<Value, String> {
    client.ask(&call).await.map_err(|error| error.to_string())
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.ok_or_else(|| format!("AWS's answer has no {pointer}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a Vec<Value>, String> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.ok_or_else(|| format!("AWS's answer has no list {pointer}"))
}

fn nets<'a>(values: impl IntoIterator<Item = &'a Value>, field: &str) -> Result<Vec<IpNet>, String> {
    let net = |value: &Value| {
        let text = text(value, field)?;
        text.parse().map_err(|_| format!("`{text}` is no network"))
    };
    values.into_iter().map(net).collect()
}

async fn addons(client: &Client, cluster: &str) -> Result<Vec<Addon>, String> {
    let cluster = || cluster.to_owned();
    let answer = ask(client, Call::ListAddons { cluster: cluster() }).await?;
    let mut addons = Vec::new();
    for name in list(&answer, "/addons")?.iter().filter_map(Value::as_str) {
        let call = Call::DescribeAddon {
            cluster: cluster(),
            addon: name.to_owned(),
        };
        let answer = ask(client, call).await?;
        addons.push(Addon {
            name: name.to_owned(),
            version: text(&answer, "/addon/addonVersion")?.to_owned(),
            status: text(&answer, "/addon/status")?.to_owned(),
        });
    }
    Ok(addons)
}

async fn cidrs(client: &Client, network: &Network) -> Result<Vec<IpNet>, String> {
    let answer = ask(client, Call::DescribeVpcs(Filter::new("vpc-id", &network.vpc))).await?;
    let vpc = list(&answer, "/Vpcs")?
        .first()
        .ok_or_else(|| format!("the cluster's network {} is not there", network.vpc))?;
    let associated =
        |block: &&Value, state: &str| block.pointer(state).and_then(Value::as_str) == Some("associated");
    let v4 = list(vpc, "/CidrBlockAssociationSet")?.iter();
    let v4 = nets(
        v4.filter(|block| associated(block, "/CidrBlockState/State")),
        "/CidrBlock",
    )?;
    let v6 = vpc["Ipv6CidrBlockAssociationSet"].as_array();
    let v6 = v6.into_iter().flatten();
    let v6 = nets(
        v6.filter(|block| associated(block, "/Ipv6CidrBlockState/State")),
        "/Ipv6CidrBlock",
    )?;
    Ok([v4, v6].concat())
}

async fn peerings(client: &Client, network: &Network) -> Result<Vec<Peering>, String> {
    let tables = ask(
        client,
        Call::DescribeRouteTables(Filter::new("vpc-id", &network.vpc)),
    )
    .await?;
    let tables = used(list(&tables, "/RouteTables")?, &network.subnets);
    let mut peerings = Vec::new();
    for (filter, ours, theirs) in [
        (
            "requester-vpc-info.vpc-id",
            "/RequesterVpcInfo",
            "/AccepterVpcInfo",
        ),
        (
            "accepter-vpc-info.vpc-id",
            "/AccepterVpcInfo",
            "/RequesterVpcInfo",
        ),
    ] {
        let call = Call::DescribeVpcPeeringConnections(Filter::new(filter, &network.vpc));
        let answer = ask(client, call).await?;
        for connection in list(&answer, "/VpcPeeringConnections")? {
            let state = text(connection, "/Status/Code")?;
            // Not all that answers in AWS's place knows both filters.
            let is_ours = text(connection, &format!("{ours}/VpcId"))? == network.vpc;
            if is_ours && !OVER.contains(&state) {
                peerings.push(peering(connection, state, theirs, &tables)?);
            }
        }
    }
    Ok(peerings)
}

fn peering(connection: &Value, state: &str, side: &str, tables: &[&Value]) -> Result<Peering, String> {
    let id = text(connection, "/VpcPeeringConnectionId")?;
    let theirs = connection.pointer(side).unwrap_or(&Value::Null);
    let name = connection["Tags"].as_array().into_iter().flatten();
    let name = name
        .filter(|tag| tag["Key"] == "Name")
        .find_map(|tag| tag["Value"].as_str());
    let mut cidrs = nets(
        theirs["CidrBlockSet"].as_array().into_iter().flatten(),
        "/CidrBlock",
    )?;
    if cidrs.is_empty() && theirs["CidrBlock"].is_string() {
        cidrs = nets([theirs], "/CidrBlock")?;
    }
    // Before the other side accepts, its networks need not be known.
    if cidrs.is_empty() && state == "active" {
        return Err(format!("AWS's answer names no network behind {id}"));
    }
    let routed = cidrs
        .iter()
        .filter(|net| !tables.is_empty() && tables.iter().all(|table| leads(table, id, net)));
    Ok(Peering {
        cluster: name.or_else(|| theirs["VpcId"].as_str()).unwrap_or(id).to_owned(),
        active: state == "active",
        state: state.to_owned(),
        routed: routed.copied().collect(),
        cidrs,
    })
}

/// The tables that decide for these subnets: those that they name, and the main one for those that name none.
fn used<'a>(tables: &'a [Value], subnets: &[String]) -> Vec<&'a Value> {
    let associations = |table: &'a Value| table["Associations"].as_array().into_iter().flatten();
    let names = |table: &'a Value, subnet: &str| associations(table).any(|one| one["SubnetId"] == subnet);
    let is_main = |table: &'a Value| associations(table).any(|one| one["Main"] == true);
    let without = subnets
        .iter()
        .any(|subnet| !tables.iter().any(|table| names(table, subnet)));
    tables
        .iter()
        .filter(|table| subnets.iter().any(|subnet| names(table, subnet)) || (without && is_main(table)))
        .collect()
}

/// Whether a table has a working route to a whole network through a connection.
fn leads(table: &Value, connection: &str, net: &IpNet) -> bool {
    let routes = table["Routes"].as_array().into_iter().flatten();
    routes
        .filter(|route| route["VpcPeeringConnectionId"] == connection && route["State"] == "active")
        .filter_map(|route| route["DestinationCidrBlock"].as_str()?.parse::<IpNet>().ok())
        .any(|destination| destination.contains(net))
}

async fn operator(
    client: &Client,
    eks: &Eks,
    cluster: Option<&Value>,
    network: Option<&Network>,
) -> Result<IamFacts, String> {
    let mode = eks
        .mode
        .clone()
        .ok_or("nobody said what the operator's role has to suffice for; say it with --operator-mode MODE")?;
    let role = match &eks.role {
        Some(role) => role.clone(),
        None => associated(client, &eks.cluster).await?,
    };
    // arn:PARTITION:eks:REGION:ACCOUNT:cluster/NAME
    let arn = cluster.and_then(|cluster| cluster.pointer("/cluster/arn")?.as_str());
    let part = |place| arn?.split(':').nth(place).map(str::to_owned);
    Ok(IamFacts {
        mode,
        cluster: eks.cluster.clone(),
        region: part(3),
        account: part(4),
        vpc: network.map(|network| network.vpc.clone()),
        policies: policies(client, &role).await?,
        role,
    })
}

/// The role of the operator's Pod Identity association.
async fn associated(client: &Client, cluster: &str) -> Result<String, String> {
    let cluster = || cluster.to_owned();
    let answer = ask(client, Call::ListPodIdentityAssociations { cluster: cluster() }).await?;
    let ours = list(&answer, "/associations")?
        .iter()
        .find(|one| one["serviceAccount"] == OPERATOR);
    let ours = ours.ok_or_else(|| {
        format!("no Pod Identity association is for {OPERATOR}; name its role with --operator-role NAME")
    })?;
    let call = Call::DescribePodIdentityAssociation {
        cluster: cluster(),
        association: text(ours, "/associationId")?.to_owned(),
    };
    let answer = ask(client, call).await?;
    let arn = text(&answer, "/association/roleArn")?;
    Ok(arn.rsplit('/').next().unwrap_or(arn).to_owned())
}

/// All policies of a role: its own, and those attached to it in the version that is in force.
async fn policies(client: &Client, role: &str) -> Result<Vec<PolicyFacts>, String> {
    let named = || role.to_owned();
    let mut policies = Vec::new();
    let own = ask(client, Call::ListRolePolicies { role: named() }).await?;
    for name in list(&own, "/PolicyNames")?.iter().filter_map(Value::as_str) {
        let call = Call::GetRolePolicy {
            role: named(),
            policy: name.to_owned(),
        };
        policies.push(PolicyFacts {
            name: name.to_owned(),
            document: ask(client, call).await?["PolicyDocument"].take(),
        });
    }
    let attached = ask(client, Call::ListAttachedRolePolicies { role: named() }).await?;
    for policy in list(&attached, "/AttachedPolicies")? {
        let arn = text(policy, "/PolicyArn")?.to_owned();
        let answer = ask(client, Call::GetPolicy { arn: arn.clone() }).await?;
        let version = text(&answer, "/Policy/DefaultVersionId")?.to_owned();
        let mut answer = ask(client, Call::GetPolicyVersion { arn, version }).await?;
        policies.push(PolicyFacts {
            name: text(policy, "/PolicyName")?.to_owned(),
            document: answer["PolicyVersion"]["Document"].take(),
        });
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(subnets: &[&str], main: bool, routes: &[(&str, &str, &str)]) -> Value {
        let mut associations: Vec<Value> = subnets
            .iter()
            .map(|subnet| json!({"SubnetId": subnet, "Main": false}))
            .collect();
        if main {
            associations.push(json!({"Main": true}));
        }
        let routes: Vec<Value> = routes
            .iter()
            .map(|(to, by, state)| {
                json!({"DestinationCidrBlock": to, "VpcPeeringConnectionId": by, "State": state})
            })
            .collect();
        json!({"Associations": associations, "Routes": routes})
    }

    #[test]
    fn a_network_is_routed_when_every_table_in_use_leads_to_the_whole_of_it() {
        let good = ("10.2.0.0/15", "pcx-1", "active");
        let connection = json!({"VpcPeeringConnectionId": "pcx-1", "Tags": [{"Key": "Name", "Value": "west"}],
            "AccepterVpcInfo": {"VpcId": "vpc-2", "CidrBlockSet": [{"CidrBlock": "10.2.0.0/16"}]}});
        let subnets = ["a".to_owned(), "b".to_owned()];
        let routed = |tables: &[Value]| {
            let used = used(tables, &subnets);
            let peering = peering(&connection, "active", "/AccepterVpcInfo", &used).unwrap();
            assert_eq!((peering.cluster.as_str(), peering.active), ("west", true));
            peering.routed.len()
        };
        assert_eq!(
            routed(&[table(&["a", "b"], false, &[good]), table(&[], true, &[])]),
            1
        );
        assert_eq!(
            routed(&[table(&["a"], false, &[good]), table(&["b"], false, &[])]),
            0
        );
        // b names no table: the main one counts.
        assert_eq!(routed(&[table(&["a"], false, &[good]), table(&[], true, &[])]), 0);
        assert_eq!(
            routed(&[table(&["a"], false, &[good]), table(&[], true, &[good])]),
            1
        );
        for bad in [
            ("10.2.0.0/17", "pcx-1", "active"),
            ("10.2.0.0/16", "pcx-2", "active"),
            ("10.2.0.0/16", "pcx-1", "blackhole"),
        ] {
            assert_eq!(routed(&[table(&["a", "b"], false, &[bad])]), 0, "{bad:?}");
        }
    }
}
