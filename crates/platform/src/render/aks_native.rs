// SPDX-License-Identifier: Apache-2.0
//! AKS as a Pulumi YAML project: the package azure-native has Azure's own names, so that nothing is translated.

use serde_json::{Map, Value, json};

use super::Context;
use super::aks::outbound;
use crate::address::Role;
use crate::file::{Egress, Mode, NodeGroup, Zones};

/// Azure's built-in role Network Contributor, the same in every tenant.
const NETWORK_CONTRIBUTOR: &str = "4d97b98b-1d4f-4787-a291-c67834d212e7";
const RULES_PRIORITY: u32 = 500;

struct Project<'a> {
    context: &'a Context<'a>,
    resources: Map<String, Value>,
}

pub(crate) fn project(context: &Context<'_>) -> Value {
    let mut project = Project {
        context,
        resources: Map::new(),
    };
    project.base();
    match context.cluster.egress {
        Egress::Firewall => project.firewall(),
        Egress::Nat => project.nat(),
        Egress::NatPerZone | Egress::LoadBalancer | Egress::Existing => {}
    }
    project.cluster();
    json!({
        "name": context.full_name(),
        "runtime": "yaml",
        "config": {"azure-native:location": {"value": context.cluster.region}},
        "variables": {"client": {"fn::invoke": {"function": "azure-native:authorization:getClientConfig"}}},
        "resources": project.resources,
        "outputs": {"networkId": "${network.id}", "clusterFqdn": "${cluster.fqdn}"},
    })
}

impl Project<'_> {
    fn add(&mut self, name: &str, token: &str, properties: Value) {
        self.add_after(name, token, properties, &[]);
    }

    fn add_after(&mut self, name: &str, token: &str, mut properties: Value, after: &[&str]) {
        if token != "resources:ResourceGroup" && token != "authorization:RoleAssignment" {
            properties["resourceGroupName"] = json!("${group.name}");
        }
        let mut body = json!({"type": format!("azure-native:{token}"), "properties": properties});
        if !after.is_empty() {
            let after: Vec<String> = after.iter().map(|name| format!("${{{name}}}")).collect();
            body["options"] = json!({"dependsOn": after});
        }
        self.resources.insert(name.to_owned(), body);
    }

    fn tags(&self) -> Value {
        json!({"cluster": self.context.cluster.name, "platform": self.context.platform.name})
    }

    fn base(&mut self) {
        let (full, tags) = (self.context.full_name(), self.tags());
        self.add(
            "group",
            "resources:ResourceGroup",
            json!({"resourceGroupName": full, "tags": tags}),
        );
        self.add(
            "network",
            "network:VirtualNetwork",
            json!({
                "virtualNetworkName": full,
                "addressSpace": {"addressPrefixes": [self.context.addresses.network.to_string()]},
                "tags": tags,
            }),
        );
        for subnet in &self.context.addresses.subnets {
            self.subnet(subnet.role, &subnet.cidr.to_string());
        }
        let identity = json!({"resourceName": format!("{full}-cluster"), "tags": tags});
        self.add("identity", "managedidentity:UserAssignedIdentity", identity);
        self.add("networkRole", "authorization:RoleAssignment", json!({
            "scope": "${network.id}",
            "principalId": "${identity.principalId}",
            "principalType": "ServicePrincipal",
            "roleDefinitionId": format!(
                "/subscriptions/${{client.subscriptionId}}/providers/Microsoft.Authorization/roleDefinitions/{NETWORK_CONTRIBUTOR}"
            ),
        }));
    }

    fn subnet(&mut self, role: Role, cidr: &str) {
        let (resource, name) = match role {
            Role::Firewall => ("firewallSubnet", "AzureFirewallSubnet"),
            Role::Nodes | Role::Public | Role::Transit | Role::ControlPlane => ("nodesSubnet", "nodes"),
        };
        let mut properties = json!({
            "virtualNetworkName": "${network.name}",
            "subnetName": name,
            "addressPrefix": cidr,
        });
        if resource == "nodesSubnet" {
            match self.context.cluster.egress {
                Egress::Firewall => properties["routeTable"] = json!({"id": "${routes.id}"}),
                Egress::Nat => properties["natGateway"] = json!({"id": "${nat.id}"}),
                Egress::NatPerZone | Egress::LoadBalancer | Egress::Existing => {}
            }
        }
        self.add(resource, "network:Subnet", properties);
    }

    fn public_ip(&mut self, name: &str) {
        let (full, tags) = (self.context.full_name(), self.tags());
        self.add(
            &format!("{name}Address"),
            "network:PublicIPAddress",
            json!({
                "publicIpAddressName": format!("{full}-{name}"),
                "publicIPAllocationMethod": "Static",
                "sku": {"name": "Standard"},
                "tags": tags,
            }),
        );
    }

    fn nat(&mut self) {
        self.public_ip("nat");
        let (full, tags) = (self.context.full_name(), self.tags());
        self.add(
            "nat",
            "network:NatGateway",
            json!({
                "natGatewayName": format!("{full}-nat"),
                "sku": {"name": "Standard"},
                "publicIpAddresses": [{"id": "${natAddress.id}"}],
                "tags": tags,
            }),
        );
    }

    fn firewall(&mut self) {
        self.public_ip("firewall");
        let (full, tags) = (self.context.full_name(), self.tags());
        let policy = json!({"firewallPolicyName": full, "sku": {"tier": "Standard"}, "tags": tags});
        self.add("firewallPolicy", "network:FirewallPolicy", policy);
        self.rules();
        self.add(
            "firewall",
            "network:AzureFirewall",
            json!({
                "azureFirewallName": full,
                "sku": {"name": "AZFW_VNet", "tier": "Standard"},
                "firewallPolicy": {"id": "${firewallPolicy.id}"},
                "ipConfigurations": [{
                    "name": "first",
                    "subnet": {"id": "${firewallSubnet.id}"},
                    "publicIPAddress": {"id": "${firewallAddress.id}"},
                }],
                "tags": tags,
            }),
        );
        self.add(
            "routes",
            "network:RouteTable",
            json!({"routeTableName": format!("{full}-nodes"), "tags": tags}),
        );
        self.add(
            "defaultRoute",
            "network:Route",
            json!({
                "routeTableName": "${routes.name}",
                "routeName": "default",
                "addressPrefix": "0.0.0.0/0",
                "nextHopType": "VirtualAppliance",
                "nextHopIpAddress": "${firewall.ipConfigurations[0].privateIPAddress}",
            }),
        );
    }

    fn rules(&mut self) {
        let nodes: Vec<String> = self
            .context
            .addresses
            .of_role(Role::Nodes)
            .map(|subnet| subnet.cidr.to_string())
            .collect();
        let collection = |name: &str, priority: u32, rule: Value| {
            json!({
                "ruleCollectionType": "FirewallPolicyFilterRuleCollection",
                "name": name,
                "priority": priority,
                "action": {"type": "Allow"},
                "rules": [rule],
            })
        };
        let names = json!({
            "ruleType": "ApplicationRule",
            "name": "aks",
            "sourceAddresses": nodes,
            "fqdnTags": ["AzureKubernetesService"],
            "protocols": [{"protocolType": "Https", "port": 443}, {"protocolType": "Http", "port": 80}],
        });
        let time = json!({
            "ruleType": "NetworkRule",
            "name": "ntp",
            "ipProtocols": ["UDP"],
            "sourceAddresses": nodes,
            "destinationAddresses": ["*"],
            "destinationPorts": ["123"],
        });
        self.add(
            "firewallRules",
            "network:FirewallPolicyRuleCollectionGroup",
            json!({
                "firewallPolicyName": "${firewallPolicy.name}",
                "ruleCollectionGroupName": "aks",
                "priority": RULES_PRIORITY,
                "ruleCollections": [
                    collection("aks", RULES_PRIORITY, names),
                    collection("time", RULES_PRIORITY + 100, time),
                ],
            }),
        );
    }

    fn pool(&self, group: &NodeGroup) -> Value {
        let context = self.context;
        let zones: Vec<String> = match &context.cluster.zones {
            Zones::Named(names) => names.clone(),
            Zones::Count(count) => (1..=*count).map(|zone| zone.to_string()).collect(),
        };
        let pods = crate::address::pods_of(context.cluster, group, context.catalogue);
        json!({
            "vmSize": group.instance_types.first(),
            "enableAutoScaling": true,
            "count": group.desired,
            "minCount": group.min,
            "maxCount": group.max,
            "maxPods": pods.unwrap_or(crate::address::PODS_PER_NODE),
            "vnetSubnetID": "${nodesSubnet.id}",
            "availabilityZones": zones,
            "upgradeSettings": {"maxSurge": "33%"},
        })
    }

    fn cluster(&mut self) {
        let context = self.context;
        let cluster = context.cluster;
        let Some(first) = cluster.node_groups.first() else {
            return;
        };
        let mut pool = self.pool(first);
        pool["name"] = json!(first.name);
        pool["mode"] = json!("System");
        let mut profile = json!({
            "serviceCidr": context.addresses.services.to_string(),
            "dnsServiceIP": context.addresses.dns.to_string(),
            "loadBalancerSku": "standard",
            "outboundType": outbound(cluster.egress),
        });
        if cluster.mode == Mode::Delegated {
            profile["networkPlugin"] = json!("azure");
            profile["networkPluginMode"] = json!("overlay");
            profile["podCidr"] = json!(context.addresses.pods.map(|net| net.to_string()));
        } else {
            profile["networkPlugin"] = json!("none");
        }
        let properties = json!({
            "resourceName": context.full_name(),
            "dnsPrefix": context.full_name(),
            "kubernetesVersion": cluster.kubernetes.to_string(),
            "apiServerAccessProfile": {"enablePrivateCluster": cluster.private},
            "identity": {"type": "UserAssigned", "userAssignedIdentities": ["${identity.id}"]},
            "oidcIssuerProfile": {"enabled": true},
            "securityProfile": {"workloadIdentity": {"enabled": true}},
            "networkProfile": profile,
            "agentPoolProfiles": [pool],
            "tags": self.tags(),
        });
        let firewall = cluster.egress == Egress::Firewall;
        let after: &[&str] = if firewall {
            &["networkRole", "defaultRoute", "firewallRules"]
        } else {
            &["networkRole"]
        };
        self.add_after("cluster", "containerservice:ManagedCluster", properties, after);
        for group in cluster.node_groups.iter().skip(1) {
            let mut properties = self.pool(group);
            properties["agentPoolName"] = json!(group.name);
            properties["resourceName"] = json!("${cluster.name}");
            properties["mode"] = json!("User");
            if group.spot {
                properties["scaleSetPriority"] = json!("Spot");
                properties["scaleSetEvictionPolicy"] = json!("Delete");
            }
            self.add(
                &format!("pool{}", group.name),
                "containerservice:AgentPool",
                properties,
            );
        }
    }
}
