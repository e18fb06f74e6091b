// SPDX-License-Identifier: Apache-2.0
//! AKS and its network, from answers of the Azure CLI.

use serde_json::{Value, json};

use super::look::{Answer, Look, critical, items, node_pool, note, place, private_api, shown, text, warning};
use crate::file::{Egress, Mode, NodeGroup};

pub(super) fn verify(look: &mut Look<'_>) {
    if let Some(cluster) = look.answer("azure/cluster.json", "/networkProfile") {
        control_plane(look, &cluster);
        let groups = look.context.cluster.node_groups.clone();
        for group in groups {
            pool(look, &cluster, &group);
        }
    }
    if let Some(network) = look.answer("azure/network.json", "/addressSpace") {
        vnet(look, &network);
    }
    if look.context.cluster.egress == Egress::Firewall {
        if let Some(table) = look.answer("azure/route-table.json", "/routes") {
            default_route(look, &table);
        }
        if let Some(firewall) = look.answer("azure/firewall.json", "") {
            let otherwise = critical("nothing of the cluster gets out: look at the firewall in the portal");
            look.expect(
                &firewall,
                "/provisioningState",
                "firewall",
                "Succeeded",
                otherwise,
            );
        }
    }
}

fn control_plane(look: &mut Look<'_>, cluster: &Answer<'_>) {
    let (planned, addresses) = (look.context.cluster, look.context.addresses);
    let upgrade = warning("upgrade the cluster after `thalweg upgrade check`, or correct the plan").trap(6);
    let version = text(cluster.value, "/currentKubernetesVersion").to_owned();
    let same = version.starts_with(&format!("{}.", planned.kubernetes));
    look.that(
        same,
        "Kubernetes version",
        planned.kubernetes.to_string(),
        version,
        place(cluster, "/currentKubernetesVersion"),
        upgrade,
    );
    let fixed = || {
        critical(
            "it cannot be changed in place: make the cluster anew, or correct the plan and see what overlaps",
        )
    };
    let (plugin, mode) = match planned.mode {
        Mode::Delegated => ("azure", json!("overlay")),
        Mode::Eni | Mode::EniPrefix | Mode::Overlay | Mode::PodCidr => ("none", Value::Null),
    };
    look.expect(
        cluster,
        "/networkProfile/networkPlugin",
        "network plugin",
        plugin,
        fixed().trap(3),
    );
    look.expect(
        cluster,
        "/networkProfile/networkPluginMode",
        "network plugin mode",
        mode,
        fixed(),
    );
    look.expect(
        cluster,
        "/networkProfile/serviceCidr",
        "services' network",
        addresses.services.to_string(),
        fixed(),
    );
    look.expect(
        cluster,
        "/networkProfile/outboundType",
        "way out",
        crate::render::outbound(planned.egress),
        fixed(),
    );
    if planned.mode == Mode::Delegated {
        look.expect(
            cluster,
            "/networkProfile/podCidr",
            "pods' network",
            addresses.pods.map(|net| net.to_string()),
            fixed(),
        );
    }
    dataplane(look, cluster);
    private_api(
        look,
        cluster,
        "/apiServerAccessProfile/enablePrivateCluster",
        "it cannot be changed in place without the preview of API server integration: make the cluster anew",
    );
}

fn dataplane(look: &mut Look<'_>, cluster: &Answer<'_>) {
    let dataplane = text(cluster.value, "/networkProfile/networkDataplane").to_owned();
    let otherwise =
        critical("Microsoft's Cilium is a second dataplane, with its configuration locked").trap(3);
    look.that(
        dataplane != "cilium",
        "dataplane",
        "not Azure's Cilium",
        dataplane,
        place(cluster, "/networkProfile/networkDataplane"),
        otherwise,
    );
}

fn pool(look: &mut Look<'_>, cluster: &Answer<'_>, group: &NodeGroup) {
    let Some((_, pointer, subject)) = node_pool(look, cluster, "/agentPoolProfiles", group) else {
        return;
    };
    let changed = || note("somebody changed it by hand: correct the pool or the plan");
    look.expect(
        cluster,
        &format!("{pointer}/vmSize"),
        &subject,
        json!(group.instance_types.first()),
        changed(),
    );
    look.expect(
        cluster,
        &format!("{pointer}/maxCount"),
        &format!("{subject}, most nodes"),
        group.max,
        changed(),
    );
    look.expect(
        cluster,
        &format!("{pointer}/minCount"),
        &format!("{subject}, fewest nodes"),
        group.min,
        changed(),
    );
    let pods = crate::address::pods_of(look.context.cluster, group, look.context.catalogue);
    let otherwise = warning("it cannot be changed: make the pool anew").trap(4);
    look.expect(
        cluster,
        &format!("{pointer}/maxPods"),
        &format!("{subject}, pods of a node"),
        json!(pods),
        otherwise,
    );
}

fn vnet(look: &mut Look<'_>, network: &Answer<'_>) {
    let addresses = look.context.addresses;
    let otherwise = warning(
        "a network that the plan does not know may overlap with what is planned next: add it to `reserved`, or take it away",
    );
    look.expect(
        network,
        "/addressSpace/addressPrefixes",
        "VNet",
        json!([addresses.network.to_string()]),
        otherwise,
    );
    let found: Vec<String> = items(network, "/subnets")
        .iter()
        .map(|(subnet, _)| prefix(subnet))
        .collect();
    for subnet in &addresses.subnets {
        let cidr = subnet.cidr.to_string();
        let subject = format!("subnet {:?}", subnet.role).to_lowercase();
        let otherwise = critical("`terraform apply` makes it; a subnet that has nodes cannot be changed");
        look.that(
            found.contains(&cidr),
            &subject,
            cidr,
            found.join(", "),
            place(network, "/subnets"),
            otherwise,
        );
    }
}

fn prefix(subnet: &Value) -> String {
    let one = text(subnet, "/addressPrefix");
    if one.is_empty() {
        text(subnet, "/addressPrefixes/0").to_owned()
    } else {
        one.to_owned()
    }
}

fn default_route(look: &mut Look<'_>, table: &Answer<'_>) {
    let routes = items(table, "/routes");
    let found = routes
        .iter()
        .find(|(route, _)| route["addressPrefix"] == "0.0.0.0/0");
    let (value, at) = found.map_or_else(
        || (Value::Null, "/routes".to_owned()),
        |(route, at)| ((*route).clone(), at.clone()),
    );
    let otherwise = critical(
        "what leaves the cluster passes the firewall by, or does not leave: `terraform apply` puts the route back",
    );
    look.that(
        value["nextHopType"] == "VirtualAppliance",
        "default route",
        "by the firewall",
        shown(&value),
        place(table, &at),
        otherwise,
    );
}
